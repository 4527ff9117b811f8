//! The credentials that were tried and what the registry said to each: what a person needs, never a value.
//!
//! Invariants: `an_attempt_reads_as_one_line`, `hint_names_the_secret_that_was_refused`,
//! `what_was_passed_over_is_hinted_at_when_nothing_else_was_refused`.

use std::fmt;

use windlass_core::keyring::{Candidate, Origin, Skipped};
use windlass_core::reason::Reason;
use windlass_distribution::Repository;

/// One credential and the answer it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Where the credential came from, `secret team-a/regcred`; `None` for an anonymous request.
    pub source: Option<String>,
    /// The `auths` key that matched, empty where there is none.
    pub key: String,
    /// The user name, where there is one.
    pub user: Option<String>,
    /// The registry's words, or that it worked.
    pub answer: String,
    /// What the answer means; `None`: it was accepted.
    pub reason: Option<Reason>,
}

impl Attempt {
    /// A source that gave no credential, so that the registry was shown none of it.
    pub(crate) fn passed_over(skipped: &Skipped) -> Attempt {
        Attempt {
            source: Some(skipped.origin.to_string()),
            key: skipped.key.clone(),
            user: None,
            answer: skipped.why.clone(),
            reason: Some(Reason::InvalidCredentials),
        }
    }

    /// Whether the registry never saw it.
    pub fn is_passed_over(&self) -> bool {
        self.reason == Some(Reason::InvalidCredentials)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.source.as_deref().unwrap_or("anonymous"))?;
        if !self.key.is_empty() {
            write!(f, " key {}", self.key)?;
        }
        if let Some(user) = self.user.as_deref().filter(|user| !user.is_empty()) {
            write!(f, " (user {user})")?;
        }
        write!(f, ": {}", self.answer)
    }
}

/// Who the registry let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Accepted {
    /// Nobody was asked, or only mirrors were.
    #[default]
    Nobody,
    /// Everybody may have the image.
    Anonymous,
    /// This credential was accepted. Its secret part never prints.
    Credential(Box<Candidate>),
}

/// Every try of one image, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts(pub Vec<Attempt>);

impl Attempts {
    /// No try at all.
    pub const NONE: &'static Attempts = &Attempts(Vec::new());

    /// What a session tried: the refusals, then what was accepted.
    pub(crate) fn of(repository: &Repository) -> Attempts {
        let refused = repository.attempts().into_iter().map(|attempt| Attempt {
            source: attempt.origin.as_ref().map(Origin::to_string),
            key: attempt.key,
            user: attempt.username,
            reason: Some(reason_of(&attempt.answer)),
            answer: attempt.answer,
        });
        let accepted = repository.accepted().map(|candidate| Attempt {
            source: candidate.as_ref().map(|candidate| candidate.origin.to_string()),
            user: candidate.as_ref().and_then(|candidate| candidate.credential.username().map(str::to_owned)),
            key: candidate.map(|candidate| candidate.key).unwrap_or_default(),
            answer: "accepted".to_owned(),
            reason: None,
        });
        Attempts(refused.chain(accepted).collect())
    }

    /// The credential that was accepted.
    pub fn accepted(&self) -> Option<&Attempt> {
        self.0.iter().rev().find(|attempt| attempt.reason.is_none())
    }

    /// The tries that were refused, in order.
    pub fn refused(&self) -> impl Iterator<Item = &Attempt> {
        self.0.iter().filter(|attempt| attempt.reason.is_some())
    }
}

/// The client starts each answer with its status.
fn reason_of(answer: &str) -> Reason {
    match answer.get(..3) {
        Some("401") => Reason::Unauthorized,
        Some("403") => Reason::Denied,
        Some("404") => Reason::NotFound,
        Some("429") => Reason::RateLimited,
        Some(_) | None => Reason::RegistryUnavailable,
    }
}

/// The most exact thing to do next that reason and attempts together give.
pub(crate) fn hint_from(reason: Reason, attempts: &Attempts) -> String {
    let named = || attempts.refused().find(|attempt| attempt.source.is_some() && !attempt.is_passed_over());
    let passed_over = || attempts.refused().find(|attempt| attempt.is_passed_over());
    let advice = match reason {
        Reason::Denied => named().map(|attempt| {
            let who = attempt.user.as_deref().map_or_else(|| "the account".to_owned(), |user| format!("user {user}"));
            let source = attempt.source.as_deref().unwrap_or_default();
            format!("{who} of {source} may not pull this repository: grant it the right, or use another secret")
        }),
        Reason::Unauthorized => named().map(|attempt| {
            let source = attempt.source.as_deref().unwrap_or_default();
            match attempt.user.as_deref().filter(|user| !user.is_empty()) {
                Some(user) => format!("the registry refused the password of user {user} in {source}: renew it"),
                None => format!("the registry refused the credential in {source}: renew it"),
            }
        }),
        _ => None,
    };
    let advice = advice.or_else(|| {
        let source = passed_over().filter(|_| matches!(reason, Reason::Denied | Reason::Unauthorized))?;
        Some(format!("{} gave no credential: see to that first", source.source.as_deref().unwrap_or_default()))
    });
    advice.unwrap_or_else(|| reason.hint().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(answer: &str, reason: Reason) -> Attempt {
        Attempt {
            source: Some("secret team-a/regcred".into()),
            key: "registry.example".into(),
            user: Some("ci".into()),
            answer: answer.into(),
            reason: Some(reason),
        }
    }

    #[test]
    fn an_attempt_reads_as_one_line() {
        let line = secret("403 denied", Reason::Denied).to_string();
        assert_eq!(line, "secret team-a/regcred key registry.example (user ci): 403 denied");
        let anonymous = Attempt { source: None, key: String::new(), user: None, answer: "401".into(), reason: None };
        assert_eq!(anonymous.to_string(), "anonymous: 401");
    }

    #[test]
    fn hint_names_the_secret_that_was_refused() {
        let table = [
            (Reason::Denied, "user ci of secret team-a/regcred may not pull"),
            (Reason::Unauthorized, "refused the password of user ci in secret team-a/regcred"),
            (Reason::NoSpace, Reason::NoSpace.hint()),
        ];
        for (reason, want) in table {
            let hint = hint_from(reason, &Attempts(vec![secret("x", reason)]));
            assert!(hint.contains(want), "{hint}");
        }
        assert_eq!(hint_from(Reason::Unauthorized, Attempts::NONE), Reason::Unauthorized.hint());
    }

    #[test]
    fn what_was_passed_over_is_hinted_at_when_nothing_else_was_refused() {
        let origin = windlass_core::keyring::Origin::Cloud { name: "ecr".to_owned() };
        let skipped = Skipped { origin, key: String::new(), why: "the STS refused".to_owned() };
        let attempt = Attempt::passed_over(&skipped);
        assert_eq!(attempt.to_string(), "cloud ecr: the STS refused");
        let alone = Attempts(vec![attempt.clone()]);
        assert!(hint_from(Reason::Unauthorized, &alone).starts_with("cloud ecr gave no credential"));
        assert_eq!(hint_from(Reason::NoSpace, &alone), Reason::NoSpace.hint());
        let beside = Attempts(vec![attempt, secret("401", Reason::Unauthorized)]);
        assert!(hint_from(Reason::Unauthorized, &beside).contains("user ci"));
    }
}
