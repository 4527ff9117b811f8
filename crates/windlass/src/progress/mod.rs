//! What a person or a program sees while images arrive, on standard error.
//!
//! In: the engine's events. Out: bars on a terminal, a line per change of state elsewhere, or JSON. Nothing here
//! slows a pull down: drawing is bounded in rate, and an event that cannot be shown is dropped.
//!
//! Invariants: `plain_says_each_change_once`, `json_says_every_event`.

mod bars;
mod json;
mod plain;
mod words;

use std::io::IsTerminal;
use std::sync::Arc;

use windlass_pull::events::{EventSink, Silent};

use crate::args::{Format, Globals, ProgressForm};

/// The sink for this run: quiet means none, and a program that reads standard error asks for it by name.
pub(crate) fn sink(globals: &Globals) -> Arc<dyn EventSink> {
    let form = match globals.progress {
        ProgressForm::Auto if globals.quiet => ProgressForm::None,
        ProgressForm::Auto if is_drawable() => ProgressForm::Tty,
        // A program reads standard error for the one error object then.
        ProgressForm::Auto if globals.output == Format::Json => ProgressForm::None,
        ProgressForm::Auto => ProgressForm::Plain,
        chosen @ (ProgressForm::Tty | ProgressForm::Plain | ProgressForm::Json | ProgressForm::None) => chosen,
    };
    match form {
        ProgressForm::Tty => Arc::new(bars::Bars::new()),
        ProgressForm::Plain | ProgressForm::Auto => Arc::new(plain::Plain::new(crate::output::write_err)),
        ProgressForm::Json => Arc::new(json::JsonLines::new(crate::output::write_err)),
        ProgressForm::None => Arc::new(Silent),
    }
}

/// Whether lines can be drawn over.
fn is_drawable() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
