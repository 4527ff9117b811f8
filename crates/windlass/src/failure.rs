//! The one error that a command ends with, and how it is told: to a person in lines, to a program as JSON.
//!
//! Invariants: `a_failure_reads_as_promised`, `foreign_text_cannot_move_the_cursor`.

use serde_json::{Value as Json, json};
use windlass_core::reason::Reason;

use crate::args::Format;

/// Longest message taken over from elsewhere.
const MESSAGE_CHARS_MAX: usize = 4_000;

/// Why a command did not do what was asked.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    reason: Reason,
    /// What could not be done, e.g. `cannot pull registry.example/team/app:1.4`.
    what: String,
    /// Why, in one or more lines.
    why: String,
    /// Credentials that were tried and what came of each.
    tried: Vec<String>,
    hint: Option<String>,
    exit: Option<u8>,
    silent: bool,
}

impl Failure {
    /// A failure with its cause.
    pub(crate) fn new(reason: Reason, what: impl Into<String>, why: impl Into<String>) -> Failure {
        let (what, why) = (what.into(), why.into());
        Failure { reason, what, why, tried: Vec::new(), hint: None, exit: None, silent: false }
    }

    /// A command that has printed everything already and ends with this status.
    pub(crate) fn told(exit: u8) -> Failure {
        Failure { exit: Some(exit), silent: true, ..Failure::new(Reason::Internal, "", "") }
    }

    /// Wrong use of a flag or file.
    pub(crate) fn usage(what: impl Into<String>, why: impl Into<String>) -> Failure {
        Failure::new(Reason::InvalidConfig, what, why)
    }

    /// Names the credentials that were tried.
    pub(crate) fn tried(mut self, tried: impl IntoIterator<Item = String>) -> Failure {
        self.tried.extend(tried);
        self
    }

    /// Replaces the reason's general hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// The status this process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        self.exit.unwrap_or_else(|| self.reason.exit_code())
    }

    /// Whether there is nothing left to say.
    pub(crate) fn is_told(&self) -> bool {
        self.silent
    }

    fn hint_text(&self) -> &str {
        self.hint.as_deref().unwrap_or_else(|| self.reason.hint())
    }

    fn message(&self) -> String {
        match (self.what.is_empty(), self.why.is_empty()) {
            (_, true) => self.what.clone(),
            (true, false) => self.why.clone(),
            (false, false) => format!("{}: {}", self.what, self.why),
        }
    }

    /// What is printed on standard error, with its final line feed.
    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Json => format!("{}\n", self.json()),
            Format::Table | Format::Wide | Format::Yaml | Format::Name => self.lines(),
        }
    }

    /// The error object, also used where a list holds failed items.
    pub(crate) fn json(&self) -> Json {
        json!({ "error": self.json_body() })
    }

    /// What stands under `error`.
    pub(crate) fn json_body(&self) -> Json {
        let mut error = json!({
            "class": self.reason.class(),
            "reason": self.reason.waiting(),
            "message": shown(&self.message()),
            "hint": shown(self.hint_text()),
        });
        if !self.tried.is_empty() {
            error["tried"] = self.tried.iter().map(|line| shown(line)).collect();
        }
        error
    }

    fn lines(&self) -> String {
        let head = if self.what.is_empty() { self.reason.class() } else { &self.what };
        let mut text = format!("error: {}\n", shown(head));
        let why = shown(&self.why);
        let mut whys = why.lines();
        text.push_str(&format!(
            "  reason:   {} ({})\n",
            self.reason.waiting(),
            whys.next().unwrap_or(self.reason.class())
        ));
        for line in whys {
            text.push_str(&format!("            {line}\n"));
        }
        for (at, line) in self.tried.iter().enumerate() {
            let label = if at == 0 { "tried:" } else { "" };
            text.push_str(&format!("  {label:<10}{}\n", shown(line)));
        }
        text.push_str(&format!("  hint:     {}\n", shown(self.hint_text())));
        text
    }
}

/// Text that came from elsewhere, safe for a terminal: control characters are spelled out, the length is bounded.
pub(crate) fn shown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for (count, letter) in text.chars().enumerate() {
        if count == MESSAGE_CHARS_MAX {
            safe.push('…');
            break;
        }
        if letter != '\n' && (letter.is_control() || is_directional(letter)) {
            safe.extend(letter.escape_unicode());
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// Characters that change the direction of what follows, so that text reads as what it is not (CVE-2021-42574).
fn is_directional(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_as_promised() {
        let failure = Failure::new(
            Reason::Denied,
            "cannot pull registry.example/team/app:1.4",
            "registry refused every credential",
        )
        .tried([
            "secret team-a/regcred key registry.example (user ci): 403 denied".to_owned(),
            "anonymous: 401".to_owned(),
        ])
        .hint("user ci may not pull team/app");
        let want = "\
error: cannot pull registry.example/team/app:1.4
  reason:   ErrImagePull (registry refused every credential)
  tried:    secret team-a/regcred key registry.example (user ci): 403 denied
            anonymous: 401
  hint:     user ci may not pull team/app
";
        assert_eq!(failure.render(Format::Table), want);
        let error = &failure.json()["error"];
        assert_eq!((error["class"].as_str(), error["reason"].as_str()), (Some("denied"), Some("ErrImagePull")));
        assert_eq!(error["tried"].as_array().map(Vec::len), Some(2));
        assert_eq!(failure.exit_code(), 1);
    }

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        assert_eq!(shown("a\u{1b}[2Jb\rc\u{202e}d\ne"), "a\\u{1b}[2Jb\\u{d}c\\u{202e}d\ne");
        assert_eq!(shown(&"x".repeat(9_000)).chars().count(), MESSAGE_CHARS_MAX + 1);
    }
}
