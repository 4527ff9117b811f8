//! Reads a map strictly: each field by its name, what is left over is unknown, every problem kept.

use super::config::ConfigProblem;
use super::raw::Raw;

/// A map that is being read.
pub(super) struct Fields<'a> {
    place: String,
    left: Vec<&'a (String, Raw)>,
}

impl<'a> Fields<'a> {
    /// Starts with a value that has to be a map.
    pub(super) fn of(place: &str, raw: &'a Raw, problems: &mut Vec<ConfigProblem>) -> Option<Fields<'a>> {
        match raw {
            Raw::Map(entries) => Some(Fields { place: place.to_owned(), left: entries.iter().collect() }),
            Raw::Null | Raw::Bool(_) | Raw::Number | Raw::Text(_) | Raw::List(_) => {
                problems.push(ConfigProblem::new(place, format!("must be a map, and is {}", raw.kind())));
                None
            }
        }
    }

    /// The place of a field in messages.
    pub(super) fn place(&self, name: &str) -> String {
        if self.place.is_empty() || self.place.ends_with(": ") {
            format!("{}{name}", self.place)
        } else {
            format!("{}.{name}", self.place)
        }
    }

    /// A field; `null` counts as absent.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a Raw> {
        let at = self.left.iter().position(|entry| entry.0 == name)?;
        match &self.left.remove(at).1 {
            Raw::Null => None,
            value => Some(value),
        }
    }

    /// A field that is a text.
    pub(super) fn text(&mut self, name: &str, problems: &mut Vec<ConfigProblem>) -> Option<&'a str> {
        let value = self.take(name)?;
        text(&self.place(name), value, problems)
    }

    /// A field that is a list, with the place of each item.
    pub(super) fn list(&mut self, name: &str, problems: &mut Vec<ConfigProblem>) -> Vec<(String, &'a Raw)> {
        let place = self.place(name);
        match self.take(name) {
            None => Vec::new(),
            Some(Raw::List(items)) => {
                items.iter().enumerate().map(|(at, item)| (format!("{place}[{at}]"), item)).collect()
            }
            Some(other) => {
                problems.push(ConfigProblem::new(&place, format!("must be a list, and is {}", other.kind())));
                Vec::new()
            }
        }
    }

    /// A field that is a list of texts.
    pub(super) fn texts(&mut self, name: &str, problems: &mut Vec<ConfigProblem>) -> Vec<(String, &'a str)> {
        let items = self.list(name, problems);
        items.into_iter().filter_map(|(place, item)| Some((place.clone(), text(&place, item, problems)?))).collect()
    }

    /// Ends; what was not taken is unknown.
    pub(super) fn end(self, problems: &mut Vec<ConfigProblem>) {
        for (name, _) in &self.left {
            // A name that is none may be half of a value that was quoted badly.
            let is_name = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
            let shown = if is_name { name } else { "(withheld)" };
            problems.push(ConfigProblem::new(self.place(shown), "is not a field of this version"));
        }
    }
}

fn text<'a>(place: &str, value: &'a Raw, problems: &mut Vec<ConfigProblem>) -> Option<&'a str> {
    match value {
        Raw::Text(text) => Some(text.as_str()),
        Raw::Null | Raw::Bool(_) | Raw::Number | Raw::List(_) | Raw::Map(_) => {
            problems.push(ConfigProblem::new(place, format!("must be a text, and is {}", value.kind())));
            None
        }
    }
}
