use std::sync::{Arc, Mutex};
use std::time::Duration;

use windlass_core::digest::Digest;
use windlass_core::keyring::{Candidate, Credential, Origin, Skipped};
use windlass_core::secret::Secret;
use windlass_credentials::Lookup;
use windlass_pull::events::{Event, LayerInfo, LayerState, Outcome};
use windlass_pull::{Accepted, Attempt, Attempts, PullReport};

use super::*;

const CANARY: &str = "hunter2-canary";

fn report() -> PullReport {
    let attempt = |answer: &str, reason| Attempt {
        source: Some("secret team/regcred".to_owned()),
        key: "registry.example".to_owned(),
        user: Some("ci".to_owned()),
        answer: answer.to_owned(),
        reason,
    };
    PullReport {
        image: "registry.example/team/app:1".to_owned(),
        id: Digest::sha256(b"id"),
        digest: Digest::sha256(b"digest"),
        manifest: Digest::sha256(b"manifest"),
        platform: "linux/amd64".to_owned(),
        outcome: Outcome::Pulled,
        layers: 3,
        layers_already_here: 1,
        size_bytes: 300,
        fetched_bytes: 200,
        source: Some("registry.example".to_owned()),
        attempts: Attempts(vec![attempt("403 no", Some(Reason::Denied)), attempt("accepted", None)]),
        accepted: Accepted::Credential(Box::new(candidate())),
        requests: 7,
        took: Duration::from_micros(1_234_567),
        warnings: vec!["a warning".to_owned()],
        notes: vec!["a note".to_owned()],
    }
}

fn candidate() -> Candidate {
    Candidate::new(Credential::basic("ci", CANARY), Origin::Helper { name: "login".to_owned() }, "registry.example")
}

fn again<T: Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

#[test]
fn a_report_survives_the_wire() {
    let report = report();
    let text = serde_json::to_string(&PullLine::from(&report)).unwrap();
    assert!(!text.contains(CANARY), "{text}");
    let back = PullReport::from(serde_json::from_str::<PullLine>(&text).unwrap());
    let without = PullReport { accepted: Accepted::Nobody, ..report };
    assert_eq!(format!("{back:?}"), format!("{without:?}"));
}

#[test]
fn secrets_are_on_the_wire_and_nowhere_else() {
    let credentials = [
        Credential::basic("ci", CANARY),
        Credential::IdentityToken { username: None, token: Secret::from(CANARY) },
        Credential::RegistryToken { token: Secret::from(CANARY) },
        Credential::Anonymous,
    ];
    let candidates: Vec<Candidate> =
        credentials.into_iter().map(|credential| Candidate::new(credential, Origin::Given, "r.example")).collect();
    let skipped = vec![Skipped { origin: Origin::file("/x"), key: "k".to_owned(), why: "w".to_owned() }];
    let lookup = Lookup { candidates, skipped, exposed_files: vec!["/y".into()], ..Lookup::default() };
    let given = GivenLookup::from(&lookup);
    assert!(serde_json::to_string(&given).unwrap().contains(CANARY));
    assert!(!format!("{given:?}").contains(CANARY), "{given:?}");
    assert_eq!(Lookup::from(again(&given)), lookup);

    let manifests = vec![ManifestFile { name: "pod.yaml".to_owned(), text: Secret::from(CANARY) }];
    assert!(!format!("{manifests:?}").contains(CANARY), "{manifests:?}");
    assert_eq!(again(&manifests)[0].text.expose(), CANARY);
}

#[test]
fn an_event_survives_the_wire() {
    let image: Arc<str> = "a".into();
    let digest = Digest::sha256(b"x");
    let layers: Arc<[LayerInfo]> = [LayerInfo { digest: digest.clone(), size_bytes: 5 }].into();
    let states = [
        LayerState::AlreadyHere,
        LayerState::Waiting,
        LayerState::Downloading { done_bytes: 3 },
        LayerState::Unpacking,
        LayerState::Done,
    ];
    let delay = Duration::from_millis(1_500);
    let mut events = vec![
        Event::Resolved { image: image.clone(), platform: "linux/amd64".into(), digest: digest.clone(), layers },
        Event::Committing { image: image.clone() },
        Event::Finished { image: image.clone(), id: digest, outcome: Outcome::UpToDate },
        Event::Failed { image: image.clone() },
        Event::Warning { image: image.clone(), text: "t".into() },
        Event::Waiting { image: image.clone(), pod: "ns/p".into(), delay, reason: "ErrImagePull".into() },
    ];
    events.extend(states.map(|state| Event::Layer { image: image.clone(), layer: 0, state }));
    let seen = Mutex::new(Vec::new());
    for event in &events {
        let line = Line::Event { event: EventWire::of(event.clone()).unwrap() };
        let Line::Event { event } = again(&line) else { panic!("another line") };
        seen.lock().unwrap().push(Event::from(event));
    }
    assert_eq!(format!("{:?}", seen.into_inner().unwrap()), format!("{events:?}"));
}
