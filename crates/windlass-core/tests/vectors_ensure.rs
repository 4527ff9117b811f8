//! Every case of `vectors/ensure.json`, through the machine that the engine drives.
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_core::access::{
    AccountProof, Grant, PodProofs, PulledRecord, RecordLookup, SecretProof, VerificationPolicy,
};
use windlass_core::backoff::{Backoff, BackoffKey};
use windlass_core::decide::ensure::{
    self, Effect, EnsureError, Event, Metrics, Next, Origin, Outcome, PullFailure, PullTimes, Pulled, Request, Usable,
    Verification,
};
use windlass_core::keyring::Mode;
use windlass_core::reason::Reason;

const NOW: Duration = Duration::from_secs(10_000);

#[test]
fn images_are_ensured_as_the_kubelet_does() {
    support::run("ensure.json", |case| {
        let mut node = Node::of(&case["in"]);
        let outcome = node.ensure(&case["in"]);
        check_outcome(case, &outcome, node.pull_attempted);
        check_events(case, &node.events);
        check_metrics(case, &outcome.metrics);
        if !case["out"]["records_after"].is_null() {
            assert_eq!(node.records(), case["out"]["records_after"], "{case}");
        }
    });
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is text")).to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn secret(value: &Value) -> SecretProof {
    SecretProof {
        uid: text(&value["uid"]),
        namespace: text(&value["namespace"]),
        name: text(&value["name"]),
        credential_hash: text(&value["credentialHash"]),
    }
}

fn account(value: &Value) -> AccountProof {
    AccountProof { uid: text(&value["uid"]), namespace: text(&value["namespace"]), name: text(&value["name"]) }
}

fn proofs(pod: &Value) -> PodProofs {
    let service_account = Some(&pod["service_account"]).filter(|value| !value.is_null()).map(account);
    PodProofs { secrets: list(&pod["secrets"]).iter().map(secret).collect(), service_account }
}

/// A node with its record files and its back-off; what the engine does with real ones.
struct Node {
    /// File contents by image ID.
    pulled: BTreeMap<String, Vec<u8>>,
    intents: BTreeSet<String>,
    backoff: Backoff,
    key: BackoffKey,
    events: Vec<Event>,
    pull_attempted: bool,
}

impl Node {
    fn of(given: &Value) -> Node {
        let file = |image_ref: &String, record: &Value| match record.as_str() {
            Some("corrupt") => b"{".to_vec(),
            _ => json!({
                "kind": "ImagePulledRecord", "apiVersion": "kubelet.config.k8s.io/v1beta1", "lastUpdatedTime": null,
                "imageRef": image_ref, "credentialMapping": record["credentialMapping"],
            })
            .to_string()
            .into_bytes(),
        };
        let pulled = given["records"]["pulled"].as_object().expect("records");
        let key = BackoffKey::new(given["pod"]["uid"].as_str().expect("uid"), given["image"].as_str().expect("image"));
        Node {
            pulled: pulled.iter().map(|(image_ref, record)| (image_ref.clone(), file(image_ref, record))).collect(),
            intents: list(&given["records"]["intents"]).iter().map(text).collect(),
            backoff: backoff(&given["backoff"], &key),
            key,
            events: Vec::new(),
            pull_attempted: false,
        }
    }

    fn ensure(&mut self, given: &Value) -> Outcome {
        let mut turn = ensure::begin(request(given));
        loop {
            for effect in turn.effects {
                self.perform(effect);
            }
            turn = match turn.next {
                Next::Inspect(question) => question.answer(match given["inspect_error"].as_str() {
                    Some(error) => Err(error.to_owned()),
                    None => Ok(Some(text(&given["present"])).filter(|image_ref| !image_ref.is_empty())),
                }),
                Next::ReadRecords(question) => {
                    let found = self.pulled.get(question.image_ref()).map(Vec::as_slice);
                    let record = RecordLookup::of(found, question.image_ref());
                    let intent = self.intents.contains(question.image());
                    question.answer(&record, intent)
                }
                Next::LookUpCredentials(question) => {
                    question.answer(match given["pod"]["credentials_error"].as_str() {
                        Some(error) => Err(error.to_owned()),
                        None => Ok(proofs(&given["pod"])),
                    })
                }
                Next::WriteIntent(question) => match given["intent_write_error"].as_str() {
                    Some(error) => question.answer(Err(error.to_owned())),
                    None => {
                        self.intents.insert(question.image().to_owned());
                        question.answer(Ok(()))
                    }
                },
                Next::AskGate(question) => question.answer(self.backoff.gate(&self.key, NOW)),
                Next::Pull(question) => {
                    self.pull_attempted = true;
                    question.answer(pull(given))
                }
                Next::Done(outcome) => return outcome,
            };
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Emit(event) => self.events.push(event),
            Effect::RecordProof { image_ref, repository, grant } => self.record(&image_ref, &repository, grant),
            Effect::RecordPulled { image, image_ref, repository, grant } => {
                self.record(&image_ref, &repository, grant);
                self.intents.remove(&image);
            }
            Effect::DropIntent { image } => drop(self.intents.remove(&image)),
            Effect::CountFailure { previous } => drop(self.backoff.failed(&self.key, NOW, Some(previous))),
            Effect::CountSuccess => self.backoff.succeeded(NOW),
        }
    }

    fn record(&mut self, image_ref: &str, repository: &str, grant: Grant) {
        let found = self.pulled.get(image_ref).map(Vec::as_slice);
        let mut record = match RecordLookup::of(found, image_ref) {
            RecordLookup::Found(record) => record,
            RecordLookup::Absent | RecordLookup::Unreadable => PulledRecord::new(image_ref),
        };
        record.grant(repository, grant, Timestamp::UNIX_EPOCH);
        self.pulled.insert(image_ref.to_owned(), record.encode());
    }

    /// In the form of the vectors, without times.
    fn records(&self) -> Value {
        let pulled = self.pulled.iter().map(|(image_ref, bytes)| {
            let shown = match RecordLookup::of(Some(bytes), image_ref) {
                RecordLookup::Found(record) => json!({"credentialMapping": record.credential_mapping}),
                RecordLookup::Absent | RecordLookup::Unreadable => json!("corrupt"),
            };
            (image_ref.clone(), shown)
        });
        json!({"intents": self.intents, "pulled": pulled.collect::<serde_json::Map<_, _>>()})
    }
}

fn request(given: &Value) -> Request {
    let verification = &given["verification"];
    let allowlist: Vec<String> = list(&verification["allowlist"]).iter().map(text).collect();
    let policy = VerificationPolicy::parse(&text(&verification["policy"]), &allowlist).expect("a policy");
    Request {
        image: text(&given["image"]),
        policy: text(&given["policy"]).parse().expect("a pull policy"),
        verification: if given["gate"] == true { Verification::On(policy) } else { Verification::Off },
        mode: Mode::Kubelet,
    }
}

/// A back-off with the state of the case, reached by failing as often as it takes.
fn backoff(state: &Value, key: &BackoffKey) -> Backoff {
    let mut backoff = Backoff::default();
    if state.is_null() {
        return backoff;
    }
    let delay = Duration::from_secs(state["delay_s"].as_u64().expect("delay"));
    let failed_at = NOW - Duration::from_secs_f64(state["since_failure_s"].as_f64().expect("time"));
    let previous = state["previous_error"].as_str().map(str::to_owned);
    while backoff.failed(key, failed_at, previous.clone()) < delay {}
    backoff
}

fn pull(given: &Value) -> Result<Pulled, PullFailure> {
    let pull = &given["pull"];
    if pull["result"] == "error" {
        return Err(PullFailure::from_text(text(&pull["error"]), Reason::Denied));
    }
    let shown = proofs(&given["pod"]);
    let grant = match pull["used"].as_str().expect("a credential") {
        "anonymous" | "node" => Grant::NodePods,
        "service_account" => Grant::ServiceAccount(shown.service_account.expect("an account")),
        used => {
            let index: usize = used.strip_prefix("secret:").and_then(|n| n.parse().ok()).expect("an index");
            Grant::Secret(shown.secrets[index].clone())
        }
    };
    Ok(Pulled { image_ref: text(&pull["image_ref"]), grant, times: PullTimes::default() })
}

fn check_outcome(case: &Value, outcome: &Outcome, pull_attempted: bool) {
    let out = &case["out"];
    assert_eq!(out["pull_attempted"], pull_attempted, "{case}");
    let (action, waiting, message) = match &outcome.result {
        Ok(Usable::Local(_)) => ("use_local", None, String::new()),
        Ok(Usable::Pulled(_)) => ("pull", None, String::new()),
        Err(error) => (action(error), Some(error.waiting_reason().into_owned()), error.to_string()),
    };
    assert_eq!(out["action"], action, "{case}");
    assert_eq!(out["image_ref"], outcome.result.as_ref().map_or("", Usable::image_ref), "{case}");
    match out["error"].as_str() {
        None => assert_eq!(waiting, None, "{case}"),
        Some("raw") => {
            let waiting = waiting.expect("an error");
            for part in list(&out["waiting_reason_contains"]) {
                assert!(waiting.contains(&text(part)), "{case}: {waiting}");
            }
        }
        Some(error) => {
            assert_eq!(waiting.as_deref(), Some(error), "{case}");
            assert_eq!(out["waiting_reason"], error, "{case}");
        }
    }
    for part in list(&out["message_contains"]) {
        assert!(message.contains(&text(part)), "{case}: {message}");
    }
}

fn action(error: &EnsureError) -> &'static str {
    match error {
        EnsureError::InvalidName { .. } | EnsureError::NeverPull { .. } => "reject",
        EnsureError::Inspect { .. } | EnsureError::Credentials { .. } | EnsureError::Intent { .. } => "fail",
        EnsureError::BackOff { .. } => "backoff",
        EnsureError::Pull { .. } => "pull",
        other => panic!("unknown error {other:?}"),
    }
}

fn check_events(case: &Value, events: &[Event]) {
    let wanted = list(&case["out"]["events"]);
    assert_eq!(events.len(), wanted.len(), "{case}: {events:?}");
    for (event, wanted) in events.iter().zip(wanted) {
        assert_eq!(wanted["type"], event.severity.as_str(), "{case}");
        assert_eq!(wanted["reason"], event.reason, "{case}");
        let origin = wanted["origin"].as_str().map_or(Origin::ImageManager, |_| Origin::ContainerStart);
        assert_eq!(origin, event.origin, "{case}");
        for part in list(&wanted["message_contains"]) {
            assert!(event.message.contains(&text(part)), "{case}: {}", event.message);
        }
    }
}

fn check_metrics(case: &Value, metrics: &Metrics) {
    let wanted = &case["out"]["metrics"];
    let labels = json!({
        "pull_policy": metrics.pull_policy.as_str().to_lowercase(),
        "present_locally": Metrics::label(metrics.present_locally),
        "pull_required": Metrics::label(metrics.pull_required),
    });
    assert_eq!(wanted["ensure_image_requests_total"], labels, "{case}");
    let check = metrics.must_pull_check.map(windlass_core::access::Grounds::as_str);
    assert_eq!(wanted["image_mustpull_checks_total"].as_str(), check, "{case}");
}
