//! Errors as gRPC statuses. The only place where a reason becomes a code and a text.
//!
//! The kubelet knows two reasons, by the beginning of the text, and only when the code is `Unknown`, because its client
//! strips just that one (kubernetes `staging/src/k8s.io/cri-client/pkg/remote_image.go` and
//! `pkg/kubelet/images/image_manager.go`, `evalCRIPullErr`). It tries its credentials one call after the other and
//! joins their errors unless they are equal, by which the beginning would be lost: so an outage of a registry has the
//! same words for some time, whatever part of it the next call happens to see.
//!
//! Invariants: `the_kubelet_recognises_its_two_reasons`, `an_outage_has_the_same_words_for_each_credential`,
//! `a_text_is_short_and_one_line`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};
use windlass_core::keyring::Origin;
use windlass_core::reason::{self, Reason};
use windlass_pull::{Attempt, PullError};
use windlass_store::StoreError;

/// Most bytes of an error text. It travels in a header; Go's clients take 16 MiB, others much less.
const TEXT_MAX_BYTES: usize = 4096;
/// Most bytes of an image name in an error text.
const NAME_SHOWN_BYTES: usize = 300;
/// Credentials that an error lists.
const ATTEMPTS_SHOWN: usize = 4;
/// For how long an outage keeps its words: longer than a registry is left alone after it could not be reached, with
/// the tries of one call.
const OUTAGE_MEMORY: Duration = Duration::from_secs(60);
/// Registries whose outages are remembered at once.
const OUTAGES_MAX: usize = 64;

/// What was said last about registries that did not answer.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    said: Mutex<HashMap<String, (Instant, String)>>,
}

impl Outages {
    /// The words for a registry that does not answer: those of the outage that is known, else these.
    fn words(&self, registry: &str, words: String, now: Instant) -> String {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, (since, _)| now.duration_since(*since) < OUTAGE_MEMORY);
        if said.len() >= OUTAGES_MAX && !said.contains_key(registry) {
            return words;
        }
        said.entry(registry.to_owned()).or_insert((now, words)).1.clone()
    }

    /// A registry answered.
    pub(crate) fn over(&self, registry: &str) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).remove(registry);
    }
}

/// The status of a failed pull of `image` from `registry`.
pub(crate) fn pull(image: &str, registry: &str, error: &PullError, outages: &Outages) -> Status {
    let image = shown(image);
    let cause = error.chain();
    let failed = || format!("failed to pull image {image:?}");
    let (code, text) = match error.reason() {
        // Nothing may stand before the word, and nothing of one call alone behind it.
        known @ (Reason::RegistryUnavailable | Reason::SignatureInvalid) => {
            let words = match known {
                Reason::RegistryUnavailable => outages.words(registry, cause, Instant::now()),
                _ => cause,
            };
            (Code::Unknown, format!("{}: {words}", known.waiting()))
        }
        Reason::NotFound => (Code::NotFound, format!("{}: {cause}: not found{}", failed(), tried(error))),
        Reason::NoMatchingPlatform => {
            (Code::NotFound, format!("{}: no match for platform in manifest: {cause}", failed()))
        }
        Reason::Unauthorized => {
            let denied = "pull access denied, repository does not exist or may require authorization";
            (Code::Unknown, format!("{}: {denied}: {cause}: 401 Unauthorized{}", failed(), tried(error)))
        }
        Reason::Denied => (Code::Unknown, format!("{}: {cause}: 403 Forbidden{}", failed(), tried(error))),
        Reason::RateLimited => (Code::Unknown, format!("{}: {cause}: 429 Too Many Requests", failed())),
        Reason::Canceled => (Code::Cancelled, format!("{}: context canceled", failed())),
        Reason::Internal => (Code::Internal, format!("{}: {cause}", failed())),
        _ => (Code::Unknown, format!("{}: {cause}", failed())),
    };
    status(code, text)
}

/// The status for a text that is no image reference, as containerd words it.
pub(crate) fn bad_reference(image: &str, fault: impl std::fmt::Display) -> Status {
    let general = "invalid reference format";
    let fault = fault.to_string();
    let fault = if fault == general { String::new() } else { format!(": {fault}") };
    status(Code::Unknown, format!("failed to parse image reference {:?}: {general}{fault}", shown(image)))
}

/// The status for a store that did not do what it was asked for.
pub(crate) fn store(doing: &str, error: &StoreError) -> Status {
    let code = match error.reason() {
        Reason::InUse => Code::FailedPrecondition,
        Reason::InvalidReference | Reason::ImageUnknown => Code::InvalidArgument,
        _ => Code::Unknown,
    };
    status(code, format!("{doing}: {}", reason::chain(error)))
}

/// A request that makes no sense.
pub(crate) fn invalid(text: impl Into<String>) -> Status {
    status(Code::InvalidArgument, text.into())
}

/// A status with a text that fits into one line of a header.
pub(crate) fn status(code: Code, text: String) -> Status {
    let mut line = String::with_capacity(text.len().min(TEXT_MAX_BYTES));
    for c in text.chars() {
        let start = line.len();
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        if line.len() > TEXT_MAX_BYTES {
            line.truncate(start);
            break;
        }
    }
    Status::new(code, line)
}

/// As much of a name as an error repeats.
pub(crate) fn shown(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_SHOWN_BYTES)]
}

/// The credentials that were refused: whose they are, never what they are.
fn tried(error: &PullError) -> String {
    let list: Vec<String> = error.attempts().refused().take(ATTEMPTS_SHOWN).filter_map(who).collect();
    if list.is_empty() { String::new() } else { format!(" (tried: {})", list.join(", ")) }
}

fn who(attempt: &Attempt) -> Option<String> {
    let source = attempt.source.as_deref()?;
    if attempt.is_passed_over() {
        return Some(format!("{source}, which gave none: {}", shown(&attempt.answer)));
    }
    let source = if source == Origin::Given.to_string() { "the request's credential" } else { source };
    Some(match attempt.user.as_deref().filter(|user| !user.is_empty()) {
        Some(user) => format!("user {:?} of {source}", shown(user)),
        None => source.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(reason: Reason, text: &str) -> PullError {
        PullError::EveryCredential {
            messages: vec![text.to_owned()],
            reason,
            attempts: windlass_pull::Attempts::default(),
        }
    }

    #[test]
    fn the_kubelet_recognises_its_two_reasons() {
        let outages = Outages::default();
        for reason in Reason::ALL {
            let status = pull("busybox", "docker.io", &failed(*reason, "why"), &outages);
            let known = ["RegistryUnavailable", "SignatureValidationFailed"];
            let begins = known.iter().find(|word| status.message().starts_with(*word));
            let wanted = known.iter().find(|word| **word == reason.waiting());
            assert_eq!(begins, wanted, "{reason}: {}", status.message());
            assert!(wanted.is_none() || status.code() == Code::Unknown, "{reason}");
            assert!(status.message().contains("why") || *reason == Reason::Canceled, "{reason}");
        }
    }

    #[test]
    fn codes_and_texts_are_those_that_users_of_containerd_know() {
        let table = [
            (Reason::NotFound, Code::NotFound, ": not found"),
            (Reason::NoMatchingPlatform, Code::NotFound, "no match for platform in manifest"),
            (Reason::Unauthorized, Code::Unknown, "pull access denied"),
            (Reason::Unauthorized, Code::Unknown, "401 Unauthorized"),
            (Reason::Denied, Code::Unknown, "403 Forbidden"),
            (Reason::RateLimited, Code::Unknown, "429 Too Many Requests"),
            (Reason::Canceled, Code::Cancelled, "context canceled"),
            (Reason::NoSpace, Code::Unknown, "failed to pull image \"busybox\""),
        ];
        for (reason, code, text) in table {
            let status = pull("busybox", "docker.io", &failed(reason, "why"), &Outages::default());
            assert_eq!(status.code(), code, "{reason}");
            assert!(status.message().contains(text), "{reason}: {}", status.message());
        }
        let status = bad_reference("Bad Name", "invalid reference format");
        assert_eq!(status.code(), Code::Unknown);
        assert_eq!(status.message(), "failed to parse image reference \"Bad Name\": invalid reference format");
        let status = bad_reference("A/b", "repository name must be lowercase");
        assert!(status.message().ends_with(": invalid reference format: repository name must be lowercase"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_has_the_same_words_for_each_credential() {
        let outages = Outages::default();
        let say = |registry: &str, text: &str| {
            pull("busybox", registry, &failed(Reason::RegistryUnavailable, text), &outages).message().to_owned()
        };
        let first = say("a.example", "connection refused");
        assert_eq!(first, "RegistryUnavailable: connection refused");
        assert_eq!(say("a.example", "left alone for 7 s"), first);
        assert_eq!(say("b.example", "503"), "RegistryUnavailable: 503");
        outages.over("a.example");
        assert_eq!(say("a.example", "reset"), "RegistryUnavailable: reset");
        tokio::time::advance(OUTAGE_MEMORY).await;
        assert_eq!(say("a.example", "timeout"), "RegistryUnavailable: timeout");
        for n in 0..1000 {
            say(&format!("{n}.example"), "x");
        }
        assert!(outages.said.lock().unwrap().len() <= OUTAGES_MAX);
    }

    #[test]
    fn a_text_is_short_and_one_line() {
        let status = status(Code::Unknown, "a\u{1b}[31m\r\nb".to_owned());
        assert_eq!(status.message(), "a\\u{1b}[31m\\r\\nb");
        for long in ["x".repeat(100_000), "\u{1}".repeat(100_000), "ü".repeat(100_000)] {
            assert!(super::status(Code::Unknown, long.clone()).message().len() <= TEXT_MAX_BYTES);
            assert!(bad_reference(&long, "x").message().len() < 5 * NAME_SHOWN_BYTES + 200);
        }
    }
}
