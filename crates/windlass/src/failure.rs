//! The one error that a command ends with, and how it is told: to a person in lines, to a program as JSON.
//!
//! Invariants: `a_failure_reads_as_promised`, `foreign_text_cannot_move_the_cursor`.

use serde_json::{Value as Json, json};
use windlass_core::reason::Reason;

use crate::args::Format;

/// Longest message taken over from elsewhere.
const MESSAGE_CHARS_MAX: usize = 4_000;

/// Why a command did not do what was asked. Small, so that results that hold it are.
#[derive(Clone, Debug)]
pub(crate) struct Failure(Box<Story>);

#[derive(Clone, Debug)]
struct Story {
    reason: Reason,
    /// What could not be done, e.g. `cannot pull registry.example/team/app:1.4`.
    what: String,
    /// Why, in one or more lines.
    why: String,
    /// Credentials that were tried and what came of each.
    tried: Vec<String>,
    hint: Option<String>,
    /// The kubelet's word where it differs from the reason's own.
    waiting: Option<String>,
    exit: Option<u8>,
    is_told: bool,
}

impl Failure {
    /// A failure with its cause.
    pub(crate) fn new(reason: Reason, what: impl Into<String>, why: impl Into<String>) -> Failure {
        Failure(Box::new(Story {
            reason,
            what: what.into(),
            why: why.into(),
            tried: Vec::new(),
            hint: None,
            waiting: None,
            exit: None,
            is_told: false,
        }))
    }

    /// A command that has printed everything already and ends with this status.
    pub(crate) fn told(exit: u8) -> Failure {
        let mut failure = Failure::new(Reason::Internal, "", "");
        (failure.0.exit, failure.0.is_told) = (Some(exit), true);
        failure
    }

    /// Wrong use of a flag or file.
    pub(crate) fn usage(what: impl Into<String>, why: impl Into<String>) -> Failure {
        Failure::new(Reason::InvalidConfig, what, why)
    }

    /// Names the credentials that were tried.
    pub(crate) fn tried(mut self, tried: impl IntoIterator<Item = String>) -> Failure {
        self.0.tried.extend(tried);
        self
    }

    /// Replaces the reason's general hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.0.hint = Some(hint.into());
        self
    }

    /// Replaces the reason's waiting word; texts that are not a single word stay in the message.
    pub(crate) fn waiting(mut self, word: &str) -> Failure {
        self.0.waiting = Some(word).filter(|word| word.bytes().all(|b| b.is_ascii_alphanumeric())).map(str::to_owned);
        self
    }

    /// Says the reason in the kubelet's word, for what a kubelet does too: pulling and ensuring.
    pub(crate) fn for_kubelet(self) -> Failure {
        let word = self.0.reason.waiting();
        self.waiting(word)
    }

    /// The status this process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        self.0.exit.unwrap_or_else(|| self.0.reason.exit_code())
    }

    /// Whether there is nothing left to say.
    pub(crate) fn is_told(&self) -> bool {
        self.0.is_told
    }

    fn hint_text(&self) -> &str {
        self.0.hint.as_deref().unwrap_or_else(|| self.0.reason.hint())
    }

    fn waiting_word(&self) -> &str {
        self.0.waiting.as_deref().unwrap_or_else(|| self.0.reason.waiting())
    }

    fn message(&self) -> String {
        match (self.0.what.is_empty(), self.0.why.is_empty()) {
            (_, true) => self.0.what.clone(),
            (true, false) => self.0.why.clone(),
            (false, false) => format!("{}: {}", self.0.what, self.0.why),
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
            "class": self.0.reason.class(),
            "reason": self.waiting_word(),
            "message": shown(&self.message()),
            "hint": shown(self.hint_text()),
        });
        if !self.0.tried.is_empty() {
            error["tried"] = self.0.tried.iter().map(|line| shown(line)).collect();
        }
        error
    }

    fn lines(&self) -> String {
        let head = if self.0.what.is_empty() { self.0.reason.class() } else { &self.0.what };
        let mut text = format!("error: {}\n", shown(head));
        let why = shown(&self.0.why);
        let mut whys = why.lines();
        text.push_str(&format!(
            "  reason:   {} ({})\n",
            self.0.waiting.as_deref().unwrap_or(self.0.reason.class()),
            whys.next().unwrap_or(self.0.reason.class())
        ));
        for line in whys {
            text.push_str(&format!("            {line}\n"));
        }
        for (at, line) in self.0.tried.iter().enumerate() {
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
        .hint("user ci may not pull team/app")
        .for_kubelet();
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
