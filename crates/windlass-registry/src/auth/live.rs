//! Users that come and go while the registry runs, each with a password for a while.
//!
//! Invariant: `a_login_ends_with_its_time_and_when_it_is_taken_back`.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use windlass_core::secret::Secret;

/// Most passwords of one user; the oldest gives way.
const PASSWORDS_MAX: usize = 256;

/// Users that come and go; clones are the same users.
#[derive(Clone, Default)]
pub struct LiveUsers(Arc<RwLock<HashMap<String, Vec<Login>>>>);

/// A password and its end.
struct Login {
    password: Secret<String>,
    until: Option<Instant>,
}

impl std::fmt::Debug for LiveUsers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LiveUsers(***)")
    }
}

impl LiveUsers {
    /// Lets a user in with this password as well, until then or for ever.
    pub fn admit(&self, user: &str, password: Secret<String>, until: Option<Instant>) {
        let mut users = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let logins = users.entry(user.to_owned()).or_default();
        logins.retain(|login| login.holds(Instant::now()));
        if logins.len() >= PASSWORDS_MAX {
            logins.remove(0);
        }
        logins.push(Login { password, until });
    }

    /// Takes back every password of a user.
    pub fn dismiss(&self, user: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(user);
    }

    /// Takes back every password of everybody.
    pub fn dismiss_all(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The passwords that a user has now.
    pub(crate) fn passwords(&self, user: &str) -> Vec<Secret<String>> {
        let (users, now) = (self.0.read().unwrap_or_else(PoisonError::into_inner), Instant::now());
        let logins = users.get(user).map(Vec::as_slice).unwrap_or_default();
        logins.iter().filter(|login| login.holds(now)).map(|login| login.password.clone()).collect()
    }
}

impl Login {
    fn holds(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_ends_with_its_time_and_when_it_is_taken_back() {
        let users = LiveUsers::default();
        users.admit("a", "over".into(), Some(Instant::now()));
        users.admit("a", "now".into(), Some(Instant::now() + std::time::Duration::from_secs(600)));
        users.admit("a", "ever".into(), None);
        let words: Vec<String> = users.passwords("a").iter().map(|word| word.expose().clone()).collect();
        assert_eq!(words, ["now", "ever"]);
        assert!(users.passwords("b").is_empty());
        users.clone().dismiss("a");
        assert!(users.passwords("a").is_empty());
    }
}
