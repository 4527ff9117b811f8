//! What goes to standard output: tables for people, JSON and YAML for programs, names for pipes.
//!
//! Invariants: `documents_carry_version_and_kind`, and those of [`table`].

pub(crate) mod size;
pub(crate) mod table;

use std::io::Write;

use serde::Serialize;
use serde_json::Value as Json;
use table::Table;
use windlass_core::reason::Reason;

use crate::args::Format;
use crate::failure::{Failure, shown};

/// Version of every document we print; it only grows.
pub(crate) const API_VERSION: &str = "windlass.dev/v1alpha1";

/// Something that a command found out, in every form.
pub(crate) trait Report {
    /// The document's kind, e.g. `ImageList`.
    fn kind(&self) -> &'static str;

    /// The document's fields beside apiVersion and kind.
    fn fields(&self) -> Json;

    /// Columns for people; `wide` asks for all there are.
    fn table(&self, wide: bool) -> Table;

    /// One name per thing.
    fn names(&self) -> Vec<String>;
}

/// Standard output with the form that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    pub(crate) format: Format,
    pub(crate) quiet: bool,
}

impl Screen {
    /// Shows a report.
    pub(crate) fn show(&self, report: &dyn Report) -> Result<(), Failure> {
        write_out(&self.rendered(report)?)
    }

    /// Shows one line, in the table form only; other forms have said it in their document.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        match (self.format, self.quiet) {
            (Format::Table | Format::Wide, false) => write_out(&format!("{}\n", shown(text))),
            (Format::Table | Format::Wide | Format::Json | Format::Yaml | Format::Name, _) => Ok(()),
        }
    }

    fn rendered(&self, report: &dyn Report) -> Result<String, Failure> {
        Ok(match self.format {
            Format::Json => {
                let mut text = serde_json::to_string_pretty(&document(report)).map_err(unprintable)?;
                text.push('\n');
                text
            }
            Format::Yaml => serde_saphyr::to_string(&document(report)).map_err(unprintable)?,
            Format::Name => names(report),
            Format::Table | Format::Wide if self.quiet => names(report),
            Format::Table => report.table(false).render(),
            Format::Wide => report.table(true).render(),
        })
    }
}

/// Version and kind come first, for the reader's sake.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    fields: Json,
}

fn document(report: &dyn Report) -> Document {
    Document { api_version: API_VERSION, kind: report.kind(), fields: report.fields() }
}

fn names(report: &dyn Report) -> String {
    report.names().iter().map(|name| format!("{}\n", shown(name))).collect()
}

fn unprintable(error: impl std::fmt::Display) -> Failure {
    Failure::new(Reason::Internal, "cannot print the result", error.to_string())
}

/// Writes to standard output. A reader that has gone away (`| head`) is not a failure.
pub(crate) fn write_out(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(Reason::IoError, "cannot write to standard output", error.to_string())),
    }
}

/// Writes to standard error, where nothing can be done if that fails. The first word of a failure or a warning is
/// coloured where colour is wanted; it says the same without.
pub(crate) fn write_err(text: &str) {
    let mut out = anstream::stderr().lock();
    let word = ["error:", "warning:"].into_iter().find(|word| text.starts_with(word));
    let style = anstyle::Style::new().bold().fg_color(Some(match word {
        Some("error:") => anstyle::AnsiColor::Red.into(),
        Some(_) | None => anstyle::AnsiColor::Yellow.into(),
    }));
    let (head, tail) = text.split_at(word.map_or(0, str::len));
    // There is no place left to report it to.
    let _ = if head.is_empty() { out.write_all(tail.as_bytes()) } else { write!(out, "{style}{head}{style:#}{tail}") };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Two;

    impl Report for Two {
        fn kind(&self) -> &'static str {
            "Things"
        }

        fn fields(&self) -> Json {
            json!({ "items": [{ "name": "a" }, { "name": "b" }] })
        }

        fn table(&self, _wide: bool) -> Table {
            Table::new(["NAME"]).row(["a"]).row(["b"])
        }

        fn names(&self) -> Vec<String> {
            vec!["a".into(), "b".into()]
        }
    }

    #[test]
    fn documents_carry_version_and_kind() {
        let rendered = |format, quiet| Screen { format, quiet }.rendered(&Two).unwrap();
        let json: Json = serde_json::from_str(&rendered(Format::Json, false)).unwrap();
        assert_eq!((json["apiVersion"].as_str(), json["kind"].as_str()), (Some(API_VERSION), Some("Things")));
        assert!(rendered(Format::Yaml, false).starts_with("apiVersion: windlass.dev/v1alpha1\nkind: Things\n"));
        let table =
            [(Format::Name, false, "a\nb\n"), (Format::Table, true, "a\nb\n"), (Format::Table, false, "NAME\na\nb\n")];
        for (format, quiet, want) in table {
            assert_eq!(rendered(format, quiet), want, "{format:?} {quiet}");
        }
    }
}
