//! What is ready and what is not, in the words of `/readyz`.
//!
//! Invariant: `ready_when_every_check_passes`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::status::NotReady;

/// Something that has to work before the daemon is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    /// The store can be read.
    Store,
    /// The socket is listened on.
    Socket,
    /// Containerd answers, where there is one.
    Containerd,
    /// The daemon is not ending.
    Work,
}

impl Check {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Check::Store => "store",
            Check::Socket => "socket",
            Check::Containerd => "containerd",
            Check::Work => "work",
        }
    }
}

/// Every check with its last outcome.
#[derive(Debug)]
pub(crate) struct Health {
    checks: Mutex<BTreeMap<Check, Result<(), String>>>,
}

impl Health {
    /// All of them fail until they are heard of.
    pub(crate) fn new(checks: &[Check]) -> Health {
        let failing = checks.iter().map(|check| (*check, Err("not yet".to_owned())));
        Health { checks: Mutex::new(failing.collect()) }
    }

    /// Takes an outcome in; says whether it is another than before.
    pub(crate) fn set(&self, check: Check, outcome: Result<(), String>) -> bool {
        let mut checks = self.lock();
        let before = checks.insert(check, outcome.clone());
        before.as_ref() != Some(&outcome)
    }

    /// Why a check fails.
    pub(crate) fn problem(&self, check: Check) -> Option<String> {
        self.lock().get(&check)?.as_ref().err().cloned()
    }

    /// The last outcome of a check of this name; `None`: there is no such check here.
    pub(crate) fn one(&self, name: &str) -> Option<Result<(), String>> {
        self.lock().iter().find(|(check, _)| check.as_str() == name).map(|(_, outcome)| outcome.clone())
    }

    /// What keeps the daemon from being ready.
    pub(crate) fn not_ready(&self) -> Vec<NotReady> {
        let failed = |(check, outcome): (&Check, &Result<(), String>)| {
            outcome.as_ref().err().map(|why| NotReady { check: check.as_str().to_owned(), why: why.clone() })
        };
        self.lock().iter().filter_map(failed).collect()
    }

    /// One line per check, as Kubernetes' own servers write them, and whether all pass.
    pub(crate) fn lines(&self) -> (bool, String) {
        let checks = self.lock();
        let mut text = String::new();
        for (check, outcome) in checks.iter() {
            match outcome {
                Ok(()) => text.push_str(&format!("[+]{} ok\n", check.as_str())),
                Err(why) => text.push_str(&format!("[-]{} failed: {}\n", check.as_str(), why.replace('\n', " "))),
            }
        }
        let is_ready = checks.values().all(Result::is_ok);
        text.push_str(if is_ready { "readyz check passed\n" } else { "readyz check failed\n" });
        (is_ready, text)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Check, Result<(), String>>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_check_passes() {
        let health = Health::new(&[Check::Store, Check::Containerd]);
        assert!(health.set(Check::Store, Ok(())));
        assert!(!health.set(Check::Store, Ok(())), "nothing new");
        health.set(Check::Containerd, Err("connection\nrefused".to_owned()));
        let (is_ready, text) = health.lines();
        assert!(!is_ready);
        assert_eq!(text, "[+]store ok\n[-]containerd failed: connection refused\nreadyz check failed\n");
        assert_eq!(health.not_ready().len(), 1);
        assert_eq!((health.one("store"), health.one("socket")), (Some(Ok(())), None));
        assert!(health.one("containerd").unwrap().is_err());
        health.set(Check::Containerd, Ok(()));
        assert_eq!(health.lines(), (true, "[+]store ok\n[+]containerd ok\nreadyz check passed\n".to_owned()));
    }
}
