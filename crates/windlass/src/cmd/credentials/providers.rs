//! What became of each provider of logins, told to people and programs.

use serde_json::{Value as Json, json};
use windlass_credentials::{Asked, Matched, ProviderNote};

use crate::output::size::age;

/// A provider for people: what came of it, and why.
pub(super) fn lines(note: &ProviderNote) -> Vec<String> {
    let title = note.title();
    let matched = match &note.matched {
        Matched::Pattern(pattern) => format!("{pattern} covers the image"),
        Matched::Cloud => "the registry is one of its own".to_owned(),
        Matched::ForeignHost => return vec![format!("{title}: not asked, the registry is none of its own")],
        Matched::None(patterns) => {
            let mut lines = vec![format!("{title}: not asked, no pattern covers the image")];
            lines.extend(patterns.iter().map(|(pattern, why)| format!("  {pattern}: {why}")));
            return lines;
        }
    };
    let asked = match &note.asked {
        Asked::No => "not asked".to_owned(),
        Asked::Skipped { why } | Asked::NoToken { why } => format!("left alone: {why}"),
        Asked::Cached => "an answer from before".to_owned(),
        Asked::Answered => {
            format!("answered for {}", if note.keys.is_empty() { "nobody".into() } else { note.keys.join(", ") })
        }
        Asked::Failed { error, hint, .. } if hint.is_empty() => format!("failed: {error}"),
        Asked::Failed { error, hint, .. } => format!("failed: {error} ({hint})"),
        Asked::BackingOff { error, again_in } => {
            format!("asked again in {} s, it failed before: {error}", again_in.as_secs() + 1)
        }
    };
    let kept = match note.expires_in {
        Some(left) => format!("; kept for {}, {} more", note.cache_key, age(left)),
        None => String::new(),
    };
    let mut lines = vec![format!("{title}: {matched}: {asked}{kept}")];
    for (what, text) in [("exit", &note.exit_status), ("stderr", &note.stderr), ("note", &note.advice)] {
        if !text.is_empty() && (what != "exit" || note.asked != Asked::Answered) {
            lines.push(format!("  {what}: {}", text.trim_end()));
        }
    }
    lines
}

/// The same for programs.
pub(super) fn fields(note: &ProviderNote) -> Json {
    let (matched, patterns) = match &note.matched {
        Matched::Pattern(pattern) => (Some(pattern.clone()), Vec::new()),
        Matched::Cloud => (Some("the cloud's hosts".to_owned()), Vec::new()),
        Matched::ForeignHost => (None, Vec::new()),
        Matched::None(patterns) => (None, patterns.clone()),
    };
    let refused = |(pattern, why): &(String, String)| json!({ "pattern": pattern, "why": why });
    let (asked, error) = match &note.asked {
        Asked::No => ("no", None),
        Asked::Skipped { why } => ("skipped", Some(why)),
        Asked::NoToken { why } => ("no-token", Some(why)),
        Asked::Cached => ("cached", None),
        Asked::Answered => ("answered", None),
        Asked::Failed { error, .. } => ("failed", Some(error)),
        Asked::BackingOff { error, .. } => ("backing-off", Some(error)),
    };
    json!({
        "name": note.name,
        "kind": note.kind.as_str(),
        "matched": matched,
        "notMatched": patterns.iter().map(refused).collect::<Vec<_>>(),
        "asked": asked,
        "why": error,
        "cacheKey": note.cache_key,
        "expiresInSeconds": note.expires_in.map(|left| left.as_secs()),
        "keys": note.keys,
        "exitStatus": note.exit_status,
        "stderr": note.stderr,
        "advice": note.advice,
    })
}
