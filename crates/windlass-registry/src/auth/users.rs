//! Passwords. An unknown user and a wrong password take the same way and the same time.
//!
//! bcrypt is slow by design, so it runs on blocking threads, few at a time, and a good verdict is kept for a
//! minute under a keyed hash of the password.
//!
//! Invariants: `a_changed_file_takes_effect`, `unknown_user_and_wrong_password_do_the_same_work`.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::{hmac, rand};
use tokio::sync::Semaphore;
use windlass_core::secret::Secret;

use super::{LiveUsers, htpasswd};
use crate::config::Users;
use crate::error::RegistryError;

/// How long a good verdict is kept. A removed user is refused at once, since the file is looked at each time.
const VERDICT_LIFE: Duration = Duration::from_secs(60);
/// Most verdicts kept.
const VERDICTS_MAX: usize = 1024;
/// Passwords hashed at a time: logins must not take every core.
const HASHING_MAX: usize = 2;
/// Hash for users that do not exist, of cost 10 like those `htpasswd -B` and `bcrypt` make by default or near it.
const NOBODY: &str = "$2b$10$abcdefghijklmnopqrstuuvPpdSBKzGyKFfJkEhnOCAI5sKDYwCEO";

type Mac = [u8; 32];

/// Every user of this registry.
pub(crate) struct UserTable {
    key: hmac::Key,
    source: Source,
}

impl std::fmt::Debug for UserTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UserTable(***)")
    }
}

enum Source {
    Memory(HashMap<String, Mac>),
    File(Arc<Htpasswd>),
    Live(LiveUsers),
}

struct Htpasswd {
    path: PathBuf,
    hashing: Semaphore,
    state: Mutex<FileState>,
}

struct FileState {
    stamp: Option<Stamp>,
    users: HashMap<String, Secret<String>>,
    verdicts: HashMap<String, (Mac, Instant)>,
}

/// What tells one version of a file from the next.
type Stamp = (SystemTime, u64, u64);

impl UserTable {
    pub(crate) fn new(users: &Users) -> Result<UserTable, RegistryError> {
        let mut secret = [0; 32];
        rand::fill(&mut secret).map_err(|_| RegistryError::Key)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let source = match users {
            Users::Memory(users) => {
                let mac_of = |password: &Secret<String>| mac(&key, password);
                Source::Memory(users.iter().map(|(name, password)| (name.clone(), mac_of(password))).collect())
            }
            Users::Htpasswd(path) => {
                let state = FileState { stamp: None, users: HashMap::new(), verdicts: HashMap::new() };
                let hashing = Semaphore::new(HASHING_MAX);
                let file = Htpasswd { path: path.clone(), hashing, state: Mutex::new(state) };
                file.refresh()?;
                Source::File(Arc::new(file))
            }
            Users::Live(users) => Source::Live(users.clone()),
        };
        Ok(UserTable { key, source })
    }

    /// Whether the password is the user's.
    pub(crate) async fn verify(&self, user: &str, password: &Secret<String>) -> bool {
        let given = mac(&self.key, password);
        match &self.source {
            Source::Memory(users) => {
                let (want, known) = users.get(user).map_or(([0; 32], false), |want| (*want, true));
                same(&given, &want) && known
            }
            Source::File(file) => file.clone().verify(user.to_owned(), password.clone(), given).await,
            Source::Live(users) => users.passwords(user).iter().any(|want| same(&given, &mac(&self.key, want))),
        }
    }

    /// Whether there is such a user.
    pub(crate) async fn knows(&self, user: &str) -> bool {
        match &self.source {
            Source::Memory(users) => users.contains_key(user),
            Source::Live(users) => !users.passwords(user).is_empty(),
            Source::File(file) => {
                let (file, user) = (file.clone(), user.to_owned());
                let known = move || {
                    file.refresh_or_keep();
                    file.state().users.contains_key(&user)
                };
                tokio::task::spawn_blocking(known).await.unwrap_or(false)
            }
        }
    }
}

fn mac(key: &hmac::Key, password: &Secret<String>) -> Mac {
    let mut mac = [0; 32];
    mac.copy_from_slice(hmac::sign(key, password.expose().as_bytes()).as_ref());
    mac
}

fn same(a: &Mac, b: &Mac) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

impl Htpasswd {
    fn state(&self) -> MutexGuard<'_, FileState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file when it is not the one read last; all verdicts on the old one are void.
    fn refresh(&self) -> Result<(), RegistryError> {
        let unreadable = |_| RegistryError::Htpasswd { line: 0, what: "the file cannot be read" };
        let stamp = stamp(&self.path).map_err(unreadable)?;
        if self.state().stamp == Some(stamp) {
            return Ok(());
        }
        let mut text = String::new();
        let file = fs::File::open(&self.path).map_err(unreadable)?;
        file.take(htpasswd::FILE_MAX_BYTES).read_to_string(&mut text).map_err(unreadable)?;
        let users = htpasswd::parse(&text)?;
        *self.state() = FileState { stamp: Some(stamp), users, verdicts: HashMap::new() };
        Ok(())
    }

    /// A file that is broken for the moment (being written, say) leaves the users as they were.
    fn refresh_or_keep(&self) {
        if let Err(error) = self.refresh() {
            tracing::warn!(error = &error as &dyn std::error::Error, "htpasswd kept as it was");
        }
    }

    async fn verify(self: Arc<Self>, user: String, password: Secret<String>, given: Mac) -> bool {
        let file = self.clone();
        let name = user.clone();
        let seen = tokio::task::spawn_blocking(move || {
            file.refresh_or_keep();
            file.look(&name, &given)
        });
        let hash = match seen.await {
            Ok(Seen::Good) => return true,
            Ok(Seen::Unknown(hash)) => hash,
            Err(_) => return false,
        };
        let Ok(_turn) = self.hashing.acquire().await else { return false };
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| Secret::from(NOBODY));
        let fits = tokio::task::spawn_blocking({
            let hash = hash.clone();
            move || bcrypt::verify(password.expose(), hash.expose()).unwrap_or(false)
        });
        let good = fits.await.unwrap_or(false) && known;
        if good {
            self.remember(user, &hash, given);
        }
        good
    }

    fn look(&self, user: &str, given: &Mac) -> Seen {
        let state = self.state();
        match state.verdicts.get(user) {
            Some((mac, until)) if Instant::now() < *until && same(mac, given) => Seen::Good,
            Some(_) | None => Seen::Unknown(state.users.get(user).cloned()),
        }
    }

    fn remember(&self, user: String, hash: &Secret<String>, given: Mac) {
        let mut state = self.state();
        let now = Instant::now();
        if state.verdicts.len() >= VERDICTS_MAX {
            state.verdicts.retain(|_, (_, until)| now < *until);
        }
        // The file may have changed while the password was hashed.
        if state.verdicts.len() < VERDICTS_MAX && state.users.get(&user) == Some(hash) {
            state.verdicts.insert(user, (given, now + VERDICT_LIFE));
        }
    }
}

enum Seen {
    Good,
    Unknown(Option<Secret<String>>),
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(path)?;
    Ok((meta.modified()?, meta.len(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(user: &str, password: &str) -> String {
        format!("{user}:{}\n", bcrypt::hash(password, 4).expect("a hash"))
    }

    #[tokio::test]
    async fn a_changed_file_takes_effect() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("htpasswd");
        fs::write(&path, line("a", "one")).expect("written");
        let table = UserTable::new(&Users::Htpasswd(path.clone())).expect("users");
        for _ in 0..2 {
            assert!(table.verify("a", &"one".into()).await);
            assert!(!table.verify("a", &"two".into()).await);
        }
        let next = dir.path().join("next");
        fs::write(&next, line("a", "two") + &line("b", "three")).expect("written");
        fs::rename(&next, &path).expect("renamed");
        assert!(!table.verify("a", &"one".into()).await);
        assert!(table.verify("a", &"two".into()).await && table.knows("b").await);
        fs::write(&path, "broken").expect("written");
        assert!(table.verify("b", &"three".into()).await, "a broken file leaves the users as they were");
    }

    #[tokio::test]
    async fn unknown_user_and_wrong_password_do_the_same_work() {
        assert_eq!(bcrypt::verify("x", NOBODY).ok(), Some(false), "the stand-in hash is well formed");
        let table = UserTable::new(&Users::Memory(vec![("a".to_owned(), "one".into())])).expect("users");
        assert!(table.verify("a", &"one".into()).await);
        assert!(!table.verify("a", &"".into()).await && !table.verify("b", &"one".into()).await);
    }
}
