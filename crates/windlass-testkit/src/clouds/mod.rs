//! Amazon, Google and Azure as far as a login to one of their registries needs them.
//!
//! One [`Clouds`] is all of them: identity services, metadata servers and token exchanges on free loopback ports, and in
//! the end a real registry, which accepts exactly the logins that were given out and refuses them once they have expired.
//! The fakes check what the real ones check: signatures are verified by an implementation of their own, headers that a
//! metadata server insists on are insisted on, tokens hold for one audience and for a while. What the real ones do on bad
//! days is asked for with [`Clouds::disturb`], how their answers look with [`Clouds::set`].
//!
//! - [`Way`]: every way of proving an identity, with the variables and flags that lead a program there.
//! - [`Call`]: what was asked, for assertions.
//! - [`Trouble`], [`On`]: what goes wrong, and when.
//! - [`Settings`]: how answers look, how long things live.
//!
//! ```
//! use windlass_testkit::clouds::{Clouds, On, Service, Trouble, Way};
//! let clouds = Clouds::start();
//! let setup = clouds.setup(Way::AwsInstance);
//! assert!(setup.image.contains(".dkr.ecr."));
//! clouds.disturb(On::service(Service::Ecr).first(1), Trouble::Throttled { retry_after_seconds: Some(1) });
//! ```
//!
//! Invariants: `a_machine_s_keys_become_a_login_that_the_registry_accepts`, `a_login_ends_with_its_life`,
//! `signatures_are_verified`, `metadata_servers_insist_on_their_headers`, `tokens_hold_for_one_audience_and_a_while`,
//! `trouble_strikes_as_often_as_it_was_asked_to`, `no_secret_is_in_the_record`.
//!
//! Sources of truth: the public API references of the three clouds; AWS's published vectors of signatures.

mod accounts;
mod aws;
mod azure;
mod call;
mod desk;
mod google;
mod places;
mod settings;
mod setups;
#[cfg(test)]
mod tests;
mod trouble;
mod ways;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use windlass_registry::access::Action;
use windlass_registry::auth::LiveUsers;

use crate::images::Bundle;
use crate::registry::{TestRegistry, TestTls};
use crate::wire::{Bound, Listener, ask};

pub use accounts::Account;
pub use aws::sigv4;
pub use call::{Call, Signed};
pub use places::{
    ACR_CUSTOM_HOST, ACR_HOST, ECR_FIPS_HOST, ECR_HOST, ECR_PUBLIC_HOST, GAR_HOST, GCR_HOST, HOSTS, Service,
};
pub use settings::{Expiry, Realm, Settings};
pub use trouble::{On, Trouble};
pub use ways::{Request, Setup, Way};

use desk::State;

/// User of an ECR login.
pub const ECR_USER: &str = "AWS";
/// User of a Google login.
pub const GOOGLE_USER: &str = "_token";
/// User of an ACR login.
pub const ACR_USER: &str = "00000000-0000-0000-0000-000000000000";

/// What the clouds are like before they start.
#[derive(Debug, Default)]
pub struct CloudsBuilder {
    tls: Option<TestTls>,
    basic: bool,
}

impl CloudsBuilder {
    /// HTTPS with a new CA for all services but the metadata servers, which have none; see [`Clouds::tls`].
    pub fn https(mut self) -> CloudsBuilder {
        self.tls = Some(TestTls::new());
        self
    }

    /// The registry asks for Basic, as ECR does, and not for a token.
    pub fn basic(mut self) -> CloudsBuilder {
        self.basic = true;
        self
    }

    /// Starts everything.
    pub fn start(self) -> Clouds {
        let users = LiveUsers::default();
        let registry = TestRegistry::build().live_users(users.clone());
        let registry = if self.basic { registry.basic() } else { registry.bearer() };
        let registry = registry.rule("authenticated", "**", &[Action::Pull]);
        let registry = registry.rule("anonymous", "open/**", &[Action::Pull]).start();
        let bound: Vec<(Service, Bound)> = Service::ALL.map(|service| (service, Bound::new())).into();
        let urls: BTreeMap<Service, String> = bound
            .iter()
            .map(|(service, bound)| {
                let scheme = if self.tls.is_some() && !service.is_metadata() { "https" } else { "http" };
                (*service, format!("{scheme}://{}", bound.addr()))
            })
            .collect();
        let shared = Arc::new(Shared { urls, users, state: Mutex::new(State::new()) });
        let serve = |(service, bound): (Service, Bound)| {
            let (shared, tls) = (shared.clone(), self.tls.as_ref().filter(|_| !service.is_metadata()));
            bound.serve(service.name(), tls, Box::new(move |message| desk::answer(&shared, service, message)))
        };
        let listeners = bound.into_iter().map(serve).collect();
        let folder = tempfile::tempdir().expect("a temporary directory");
        // What Azure calls a service principal logs in to the registry as it is.
        shared.users.admit(azure::CLIENT, azure::CLIENT_SECRET.into(), None);
        let clouds = Clouds { shared, registry, is_basic: self.basic, tls: self.tls, folder, _listeners: listeners };
        clouds.write_hosts(&clouds.hosts_dir());
        clouds
    }
}

/// What all services share.
#[derive(Debug)]
struct Shared {
    urls: BTreeMap<Service, String>,
    users: LiveUsers,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running clouds; everything ends when they are dropped.
#[derive(Debug)]
pub struct Clouds {
    shared: Arc<Shared>,
    registry: TestRegistry,
    is_basic: bool,
    tls: Option<TestTls>,
    // Ends before the folder goes.
    _listeners: Vec<Listener>,
    folder: TempDir,
}

impl Clouds {
    /// Plain HTTP on loopback, a registry that asks for a token.
    pub fn start() -> Clouds {
        Clouds::build().start()
    }

    /// Something else than that.
    pub fn build() -> CloudsBuilder {
        CloudsBuilder::default()
    }

    /// Scheme, host and port of a service, without a slash at the end.
    pub fn url(&self, service: Service) -> String {
        self.shared.urls[&service].clone()
    }

    /// The registry behind all hosts.
    pub fn registry(&self) -> &TestRegistry {
        &self.registry
    }

    /// Who the registry lets in.
    pub fn users(&self) -> &LiveUsers {
        &self.shared.users
    }

    /// Whether the registry lets this login pull.
    pub fn lets_in(&self, user: &str, password: &str) -> bool {
        let (host, login) = (self.registry.host(), STANDARD.encode(format!("{user}:{password}")));
        let path = if self.is_basic { "v2/" } else { "token?service=windlass&scope=repository:team/app:pull" };
        let answer = ask(&format!("http://{host}/{path}"), "GET", &[("Authorization", &format!("Basic {login}"))], "");
        answer.is_some_and(|answer| answer.status == 200)
    }

    /// CA and certificate of the HTTPS services.
    pub fn tls(&self) -> Option<&TestTls> {
        self.tls.as_ref()
    }

    /// Files for programs: tokens, profiles, `azure.json`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A directory with a `hosts.toml` for each of [`HOSTS`] that leads to the registry, as `certs.d` of containerd.
    pub fn hosts_dir(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }

    /// Writes such a directory elsewhere.
    pub fn write_hosts(&self, dir: &Path) {
        for host in HOSTS {
            let folder = dir.join(host);
            std::fs::create_dir_all(&folder).expect("a directory");
            std::fs::write(folder.join("hosts.toml"), self.hosts_toml()).expect("a file");
        }
    }

    /// A `hosts.toml` that leads to the registry.
    pub fn hosts_toml(&self) -> String {
        let url = format!("http://{}", self.registry.host());
        // containerd 1.6 reads no file without a host.
        format!("server = \"{url}\"\n\n[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
    }

    /// Puts an image into the registry; it is there under every host. Everybody may have those below `open/`.
    pub fn place(&self, bundle: &Bundle, repository: &str, tag: &str) {
        self.registry.place(bundle, repository, tag);
    }

    /// Changes how answers look from now on.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.shared.state().settings);
    }

    /// Lets something go wrong.
    pub fn disturb(&self, on: On, trouble: Trouble) {
        self.shared.state().troubles.push((on, trouble));
    }

    /// Lets everything go well again, and answers look as usual.
    pub fn calm(&self) {
        let mut state = self.shared.state();
        state.troubles.clear();
        state.settings = Settings::default();
    }

    /// Every request so far, in the order of the answers.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.state().calls.clone()
    }

    /// Every request so far; forgets them.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.shared.state().calls)
    }

    /// Requests to a service so far.
    pub fn count(&self, service: Service) -> usize {
        self.shared.state().calls.iter().filter(|call| call.service == service).count()
    }

    /// A token of a service account for one audience, valid for `life_seconds` from now; negative: expired.
    pub fn account_token(&self, account: &Account, audience: &str, life_seconds: i64) -> String {
        let mut state = self.shared.state();
        let now = state.now();
        let token = state.accounts.issue(account, audience, now, life_seconds);
        state.secrets.push(token.clone());
        token
    }

    /// Every secret given out so far: keys, tokens, passwords. None of them may be seen in a log.
    pub fn secrets(&self) -> Vec<String> {
        self.shared.state().secrets.clone()
    }

    /// Takes back every login and every key of AWS that was given out for a while.
    pub fn revoke_all(&self) {
        self.shared.users.dismiss_all();
        self.shared.users.admit(azure::CLIENT, azure::CLIENT_SECRET.into(), None);
        self.shared.state().keys.revoke();
    }
}
