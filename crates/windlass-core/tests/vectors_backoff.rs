//! Every case of `vectors/backoff.json`.
mod support;

use std::time::Duration;

use serde_json::Value;
use windlass_core::backoff::{Backoff, BackoffKey, Gate};

#[test]
fn pulls_are_delayed_as_the_kubelet_delays_them() {
    support::run("backoff.json", |case| {
        let seconds = |value: &Value| Duration::from_secs_f64(value.as_f64().expect("seconds"));
        let given = &case["in"];
        let mut backoff = Backoff::new(seconds(&given["initial_s"]), seconds(&given["max_s"]));
        let events = given["events"].as_array().expect("events");
        let steps = case["out"]["steps"].as_array().expect("steps");
        assert_eq!(events.len(), steps.len(), "{case}");
        for (event, step) in events.iter().zip(steps) {
            let key = BackoffKey::new(event["key"].as_str().unwrap_or("pod"), "");
            let now = seconds(&event["at_s"]);
            let blocked = backoff.gate(&key, now) != Gate::Open;
            assert_eq!(step["in_backoff"], blocked, "{case} {event}");
            match (event["do"].as_str(), blocked) {
                (Some("attempt_fail"), false) => drop(backoff.failed(&key, now, None)),
                (Some("attempt_ok"), false) => backoff.succeeded(now),
                (Some("attempt_fail" | "attempt_ok"), true) | (Some("check"), _) => {}
                (other, _) => panic!("unknown step {other:?}"),
            }
            let delay = backoff.entry(&key).map_or(Duration::ZERO, |entry| entry.delay);
            assert_eq!(delay, seconds(&step["delay_s"]), "{case} {event}");
        }
    });
}
