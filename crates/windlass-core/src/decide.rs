//! Decides what to do about one container's image. Pure: everything it needs is an argument.
//!
//! In: the pull policy, what the store holds for this pod, the back-off gate. Out: exactly one [`Decision`].
//! [`ensure`] is the whole routine around it, as a machine that says which question to ask next; the engine asks
//! the store, the disk and the registry and never second-guesses the answer.
//! Source of truth: kubelet `pkg/kubelet/images/image_manager.go`.
//!
//! Invariants: `never_policy_never_pulls`; `absent_and_denied_look_alike` (a pod cannot learn that an image it may not
//! use is here); `a_usable_image_is_used_whatever_the_gate`.

pub mod ensure;
mod message;

use std::time::Duration;

pub use crate::backoff::Gate;
use crate::policy::PullPolicy;

/// What the node holds of an image, for one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nobody looked, because the policy is to pull anyway.
    Unseen,
    /// It is not here.
    Absent,
    /// It is here, and nothing proves that this pod may use it.
    Denied,
    /// It is here and may be used; the image ID.
    Usable(String),
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Use this image ID as it is.
    Use(String),
    /// Ask the registry.
    Pull,
    /// Do nothing before this time.
    Wait {
        /// On the clock of the back-off.
        until: Duration,
        /// Reason and message of the failure before.
        previous: Option<String>,
    },
    /// Tell the pod that there is no image, whether there is none or none for it.
    Refuse,
}

/// The kubelet's decision table.
pub fn decide(policy: PullPolicy, presence: Presence, gate: Gate) -> Decision {
    let pull = match gate {
        Gate::Open => Decision::Pull,
        Gate::ClosedUntil { until, previous } => Decision::Wait { until, previous },
    };
    match (policy, presence) {
        (PullPolicy::Always, Presence::Unseen | Presence::Absent | Presence::Denied | Presence::Usable(_)) => pull,
        (PullPolicy::IfNotPresent, Presence::Unseen | Presence::Absent | Presence::Denied) => pull,
        (PullPolicy::IfNotPresent | PullPolicy::Never, Presence::Usable(id)) => Decision::Use(id),
        (PullPolicy::Never, Presence::Unseen | Presence::Absent | Presence::Denied) => Decision::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PullPolicy::{Always, IfNotPresent, Never};

    const POLICIES: [PullPolicy; 3] = [Always, IfNotPresent, Never];

    fn presences() -> [Presence; 4] {
        [Presence::Unseen, Presence::Absent, Presence::Denied, Presence::Usable("id".to_owned())]
    }

    fn closed() -> Gate {
        Gate::ClosedUntil { until: Duration::from_secs(7), previous: None }
    }

    fn wait() -> Decision {
        Decision::Wait { until: Duration::from_secs(7), previous: None }
    }

    #[test]
    fn the_table_is_the_kubelets() {
        let usable = || Presence::Usable("id".to_owned());
        let used = || Decision::Use("id".to_owned());
        let table = [
            // policy      presence           gate open         gate shut
            (Always, Presence::Unseen, Decision::Pull, wait()),
            (Always, usable(), Decision::Pull, wait()),
            (IfNotPresent, Presence::Absent, Decision::Pull, wait()),
            (IfNotPresent, Presence::Denied, Decision::Pull, wait()),
            (IfNotPresent, usable(), used(), used()),
            (Never, Presence::Absent, Decision::Refuse, Decision::Refuse),
            (Never, Presence::Denied, Decision::Refuse, Decision::Refuse),
            (Never, usable(), used(), used()),
        ];
        for (policy, seen, open, shut) in table {
            assert_eq!(decide(policy, seen.clone(), Gate::Open), open, "{policy:?} {seen:?}, gate open");
            assert_eq!(decide(policy, seen.clone(), closed()), shut, "{policy:?} {seen:?}, gate shut");
        }
    }

    #[test]
    fn never_policy_never_pulls() {
        for presence in presences() {
            for gate in [Gate::Open, closed()] {
                let decision = decide(Never, presence.clone(), gate);
                assert!(matches!(decision, Decision::Use(_) | Decision::Refuse), "{presence:?}");
            }
        }
    }

    #[test]
    fn absent_and_denied_look_alike() {
        for policy in POLICIES {
            for gate in [Gate::Open, closed()] {
                let absent = decide(policy, Presence::Absent, gate.clone());
                assert_eq!(absent, decide(policy, Presence::Denied, gate), "{policy:?}");
            }
        }
    }

    #[test]
    fn a_usable_image_is_used_whatever_the_gate() {
        for policy in [IfNotPresent, Never] {
            let usable = Presence::Usable("id".to_owned());
            assert_eq!(decide(policy, usable, closed()), Decision::Use("id".to_owned()), "{policy:?}");
        }
    }
}
