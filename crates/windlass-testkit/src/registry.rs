//! The real registry for tests: a free loopback port, its own runtime, its own directory, a log to assert on.
//!
//! Usable from blocking and from async tests; everything ends when the [`TestRegistry`] is dropped.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use windlass_core::secret::Secret;
use windlass_registry::access::{Action, Rule, Rules};
use windlass_registry::auth::LiveUsers;
use windlass_registry::log::{AccessRecord, MemoryLog};
use windlass_registry::route::RouteKind;
use windlass_registry::{
    Auth, BearerConfig, Deletes, Durability, RegistryConfig, RegistryServer, RunningRegistry, Storage, TlsConfig, Users,
};

use crate::images::Bundle;

/// What a test registry is like before it starts.
#[derive(Debug)]
pub struct TestRegistryBuilder {
    config: RegistryConfig,
    users: Vec<(String, Secret<String>)>,
    live: Option<LiveUsers>,
    rules: Vec<Rule>,
    tls: Option<TestTls>,
    dir: TempDir,
}

/// A certificate authority made for one test and what it signed.
#[derive(Clone, Debug)]
pub struct TestTls {
    /// The CA's certificate, PEM: what a client has to trust.
    pub ca_pem: String,
    /// The server's certificate for `localhost`, `127.0.0.1` and `::1`, PEM.
    pub certificate_pem: String,
    /// The server's key, PEM.
    pub key_pem: String,
}

impl TestTls {
    /// Makes a new CA and a server certificate.
    pub fn new() -> TestTls {
        TestTls::for_names(&["localhost", "127.0.0.1", "::1"])
    }

    /// Makes a new CA and a server certificate for these names and addresses.
    pub fn for_names(names: &[&str]) -> TestTls {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "windlass test CA");
        let ca_key = rcgen::KeyPair::generate().expect("a key");
        let ca = rcgen::CertifiedIssuer::self_signed(params, ca_key).expect("a certificate");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(names).expect("names");
        let certificate = params.signed_by(&key, &ca).expect("a certificate");
        TestTls { ca_pem: ca.pem(), certificate_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }

    /// As the registry takes it.
    pub fn config(&self) -> TlsConfig {
        TlsConfig {
            certificate_pem: self.certificate_pem.clone().into_bytes(),
            key_pem: Secret::new(self.key_pem.clone().into_bytes()),
        }
    }
}

impl Default for TestTls {
    fn default() -> TestTls {
        TestTls::new()
    }
}

/// A new pair of keys, PEM: the private one and the public one.
pub fn key_pair() -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    (key.serialize_pem(), key.public_key_pem())
}

impl TestRegistryBuilder {
    /// User and password with every request.
    pub fn basic(mut self) -> TestRegistryBuilder {
        self.config.auth = Auth::Basic;
        self
    }

    /// A token with every request.
    pub fn bearer(mut self) -> TestRegistryBuilder {
        self.config.auth = Auth::Bearer(BearerConfig::default());
        self
    }

    /// HTTPS with a new CA; see [`TestRegistry::tls`].
    pub fn https(mut self) -> TestRegistryBuilder {
        let tls = TestTls::new();
        self.config.tls = Some(tls.config());
        self.tls = Some(tls);
        self
    }

    /// DELETE works.
    pub fn deletes(mut self) -> TestRegistryBuilder {
        self.config.deletes = Deletes::On;
        self
    }

    /// A user who may do `actions` with repositories that match `pattern`.
    pub fn user(mut self, name: &str, password: &str, pattern: &str, actions: &[Action]) -> TestRegistryBuilder {
        self.users.push((name.to_owned(), password.into()));
        self.rule(&format!("user:{name}"), pattern, actions)
    }

    /// Users that come and go, in place of those given one by one; what they may do takes rules.
    pub fn live_users(mut self, users: LiveUsers) -> TestRegistryBuilder {
        self.live = Some(users);
        self
    }

    /// A rule: subject `anonymous`, `authenticated` or `user:NAME`.
    pub fn rule(mut self, subject: &str, pattern: &str, actions: &[Action]) -> TestRegistryBuilder {
        self.rules.push(Rule::allow(&[subject], &[pattern], actions).expect("a rule"));
        self
    }

    /// Changes anything else before the start.
    pub fn configure(mut self, change: impl FnOnce(&mut RegistryConfig)) -> TestRegistryBuilder {
        change(&mut self.config);
        self
    }

    /// Starts it.
    pub fn start(mut self) -> TestRegistry {
        let log = Arc::new(MemoryLog::default());
        self.config.access_log = Some(log.clone());
        self.config.users = match self.live {
            Some(live) => Users::Live(live),
            None => Users::Memory(self.users),
        };
        self.config.rules = Rules::new(self.rules);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("test-registry")
            .enable_all()
            .build()
            .expect("a runtime");
        let config = self.config;
        // On a thread of its own, since blocking inside somebody's async test would panic.
        let (runtime, running) = std::thread::spawn(move || {
            let running = runtime.block_on(RegistryServer::start(config)).expect("the registry starts");
            (runtime, running)
        })
        .join()
        .expect("the registry starts");
        let storage = running.storage();
        let addr = running.addr();
        TestRegistry { addr, storage, log, tls: self.tls, running: Some((runtime, running)), dir: self.dir }
    }
}

/// A running registry.
#[derive(Debug)]
pub struct TestRegistry {
    addr: SocketAddr,
    storage: Arc<Storage>,
    log: Arc<MemoryLog>,
    tls: Option<TestTls>,
    running: Option<(tokio::runtime::Runtime, RunningRegistry)>,
    dir: TempDir,
}

impl TestRegistry {
    /// Starts with an open registry over plain HTTP; nothing is synced.
    pub fn build() -> TestRegistryBuilder {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut config = RegistryConfig::open(dir.path().join("registry"));
        config.durability = Durability::Relaxed;
        TestRegistryBuilder { config, users: Vec::new(), live: None, rules: Vec::new(), tls: None, dir }
    }

    /// An open registry over plain HTTP.
    pub fn open() -> TestRegistry {
        TestRegistry::build().start()
    }

    /// Address listened on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Host and port as they stand in a reference.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }

    /// `host/repository:tag`.
    pub fn reference(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.addr)
    }

    /// CA and certificate of an HTTPS registry.
    pub fn tls(&self) -> Option<&TestTls> {
        self.tls.as_ref()
    }

    /// Where its content is.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Its files.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Puts an image in without HTTP and without checks; answers the reference.
    pub fn place(&self, bundle: &Bundle, repository: &str, tag: &str) -> String {
        bundle.place(&self.storage, repository, tag);
        self.reference(repository, tag)
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<AccessRecord> {
        self.log.records()
    }

    /// Every request so far; forgets them.
    pub fn take_requests(&self) -> Vec<AccessRecord> {
        self.log.take()
    }

    /// Number of requests of a method and kind so far.
    pub fn count(&self, method: &str, route: RouteKind) -> usize {
        self.requests().iter().filter(|r| r.method.as_str() == method && r.route == route).count()
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        if let Some((runtime, running)) = self.running.take() {
            drop(running);
            runtime.shutdown_background();
        }
    }
}
