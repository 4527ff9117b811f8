//! What the recorded cases do not show: the order of questions, and that intents do not pile up.

use proptest::prelude::*;

use super::*;
use crate::access::{Grant, PodProofs, PulledRecord, RecordLookup};
use crate::backoff::Gate;
use crate::reason::Reason;

fn request(policy: PullPolicy, verification: Verification) -> Request {
    Request { image: "r.io/app:1".to_owned(), policy, verification, mode: Mode::Kubelet }
}

/// Answers to every question, asked or not.
#[derive(Clone, Debug)]
struct World {
    present: Result<Option<String>, String>,
    record: RecordLookup,
    intent: bool,
    proofs: Result<PodProofs, String>,
    intent_written: Result<(), String>,
    gate: Gate,
    pull: Result<Pulled, PullFailure>,
}

impl World {
    fn good() -> World {
        let pulled = Pulled { image_ref: "id".to_owned(), grant: Grant::NodePods, times: PullTimes::default() };
        World {
            present: Ok(None),
            record: RecordLookup::Absent,
            intent: false,
            proofs: Ok(PodProofs::default()),
            intent_written: Ok(()),
            gate: Gate::Open,
            pull: Ok(pulled),
        }
    }

    /// Runs to the end; the questions asked, the effects and the outcome.
    fn run(&self, request: Request) -> (Vec<&'static str>, Vec<Effect>, Outcome) {
        let (mut asked, mut effects) = (Vec::new(), Vec::new());
        let mut turn = begin(request);
        loop {
            effects.append(&mut turn.effects);
            turn = match turn.next {
                Next::Inspect(question) => {
                    asked.push("inspect");
                    question.answer(self.present.clone())
                }
                Next::ReadRecords(question) => {
                    asked.push("records");
                    question.answer(&self.record, self.intent)
                }
                Next::LookUpCredentials(question) => {
                    asked.push("credentials");
                    question.answer(self.proofs.clone())
                }
                Next::WriteIntent(question) => {
                    asked.push("intent");
                    question.answer(self.intent_written.clone())
                }
                Next::AskGate(question) => {
                    asked.push("gate");
                    question.answer(self.gate.clone())
                }
                Next::Pull(question) => {
                    asked.push("pull");
                    question.answer(self.pull.clone())
                }
                Next::Done(outcome) => return (asked, effects, outcome),
            };
        }
    }
}

#[test]
fn nothing_is_asked_that_cannot_matter() {
    let on = || Verification::On(VerificationPolicy::AlwaysVerify);
    let present = World { present: Ok(Some("id".to_owned())), ..World::good() };
    let broken = World { intent_written: Err("disk".to_owned()), ..World::good() };
    let blind = World { proofs: Err("json".to_owned()), ..World::good() };
    let table: [(&str, World, Request, &[&str]); 8] = [
        ("always", World::good(), request(PullPolicy::Always, on()), &["credentials", "intent", "gate", "pull"]),
        (
            "always, off",
            World::good(),
            request(PullPolicy::Always, Verification::Off),
            &["credentials", "gate", "pull"],
        ),
        ("never", World::good(), request(PullPolicy::Never, on()), &["inspect"]),
        ("present, off", present.clone(), request(PullPolicy::IfNotPresent, Verification::Off), &["inspect"]),
        ("present, never", present.clone(), request(PullPolicy::Never, on()), &["inspect", "records"]),
        (
            "present",
            present,
            request(PullPolicy::IfNotPresent, on()),
            &["inspect", "records", "credentials", "intent", "gate", "pull"],
        ),
        ("no intent", broken, request(PullPolicy::IfNotPresent, on()), &["inspect", "credentials", "intent"]),
        ("no credentials", blind, request(PullPolicy::IfNotPresent, on()), &["inspect", "credentials"]),
    ];
    for (name, world, request, want) in table {
        assert_eq!(world.run(request).0, want, "{name}");
    }
}

#[test]
fn credentials_are_looked_up_once() {
    let mut record = PulledRecord::new("id");
    let secret = crate::access::SecretProof {
        uid: "u".to_owned(),
        namespace: "ns".to_owned(),
        name: "s".to_owned(),
        credential_hash: "h".to_owned(),
    };
    record.grant("r.io/app", Grant::Secret(secret), jiff::Timestamp::UNIX_EPOCH);
    let world = World { present: Ok(Some("id".to_owned())), record: RecordLookup::Found(record), ..World::good() };
    let on = Verification::On(VerificationPolicy::AlwaysVerify);
    let (asked, _, _) = world.run(request(PullPolicy::IfNotPresent, on));
    assert_eq!(asked, ["inspect", "records", "credentials", "intent", "gate", "pull"]);
}

#[test]
fn failures_of_several_credentials_are_joined_as_the_kubelet_joins_them() {
    let failure = |reason, text| PullFailure::new(reason, text);
    let joined = |list: Vec<PullFailure>| PullFailure::all(list).map(|f| f.into_error("app"));
    let unavailable = || failure(Reason::RegistryUnavailable, "no route");
    let denied = || failure(Reason::Denied, "denied");
    let table = [
        (
            vec![unavailable()],
            "RegistryUnavailable",
            "image pull failed for app because the registry is unavailable: no route",
        ),
        (vec![denied(), denied()], "ErrImagePull", "denied"),
        (vec![unavailable(), denied()], "ErrImagePull", "[RegistryUnavailable: no route, denied]"),
    ];
    for (list, waiting, message) in table {
        let error = joined(list).expect("there are failures");
        assert_eq!((&*error.waiting_reason(), error.to_string().as_str()), (waiting, message));
    }
    assert_eq!(joined(Vec::new()), None);
}

fn world() -> impl Strategy<Value = World> {
    let pulled = World::good().pull;
    let pull = prop_oneof![Just(pulled), Just(Err(PullFailure::new(Reason::Denied, "denied")))];
    let shut = Gate::ClosedUntil { until: std::time::Duration::ZERO, previous: Some("x".to_owned()) };
    let gate = prop_oneof![Just(Gate::Open), Just(shut)];
    (any::<[bool; 4]>(), gate, pull).prop_map(|([present, corrupt, intent, written], gate, pull)| World {
        present: Ok(present.then(|| "id".to_owned())),
        record: if corrupt { RecordLookup::Unreadable } else { RecordLookup::Absent },
        intent,
        proofs: Ok(PodProofs::default()),
        intent_written: if written { Ok(()) } else { Err("disk".to_owned()) },
        gate,
        pull,
    })
}

proptest! {
    #[test]
    fn every_intent_that_was_written_is_dropped(world in world(), always: bool, on: bool) {
        let policy = if always { PullPolicy::Always } else { PullPolicy::IfNotPresent };
        let verification = if on { Verification::On(VerificationPolicy::default()) } else { Verification::Off };
        let (asked, effects, outcome) = world.run(request(policy, verification));
        let written = asked.contains(&"intent") && world.intent_written.is_ok();
        let dropped = effects.iter().filter(|effect| match effect {
            Effect::DropIntent { .. } | Effect::RecordPulled { .. } => true,
            Effect::Emit(_) | Effect::RecordProof { .. } | Effect::CountFailure { .. } | Effect::CountSuccess => false,
        });
        prop_assert_eq!(dropped.count(), usize::from(written));
        let counted = effects.iter().any(|effect| matches!(effect, Effect::CountFailure { .. }));
        prop_assert_eq!(counted, asked.contains(&"pull") && world.pull.is_err());
        prop_assert_eq!(outcome.result.is_ok(), effects.iter().any(|e| matches!(e, Effect::Emit(event) if event.reason == "Pulled")));
    }
}
