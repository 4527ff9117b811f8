//! What all integration tests of the engine share: a store, a client and credentials in temporary places.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use windlass_core::keyring::{Credential, Mode};
use windlass_core::platform::Platform;
use windlass_credentials::CredentialSources;
use windlass_distribution::{Client, ClientConfig};
use windlass_pull::events::{Event, EventSink, Silent};
use windlass_pull::{Credentials, Engine, EngineConfig, ImageLimits, PullError, PullOptions, PullReport, PullRequest};
use windlass_store::{SnapshotFormat, Store, StoreOptions};
pub use windlass_testkit::client::client_config;

/// An engine with everything around it.
pub struct Rig {
    pub engine: Engine,
    pub dir: tempfile::TempDir,
}

/// The same for a registry that speaks plain http and would not answer a question for TLS.
pub fn plain_http() -> ClientConfig {
    ClientConfig { plain_http_everywhere: true, ..client_config() }
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(client_config(), &[])
    }

    /// With credentials by registry host: user and password.
    pub fn with(config: ClientConfig, logins: &[(&str, &str, &str)]) -> Rig {
        Rig::with_store(config, logins, StoreOptions::default())
    }

    /// With layers kept in this form; `None` where image files are wanted and cannot be mounted.
    pub fn of_format(format: SnapshotFormat) -> Option<Rig> {
        let mut options = StoreOptions::default();
        options.snapshot_format = format;
        let rig = Rig::with_store(client_config(), &[], options);
        if format == SnapshotFormat::Erofs && !rig.has_image_files() {
            skipped("image files cannot be mounted here");
            return None;
        }
        Some(rig)
    }

    /// Whether layers can be kept as image files: an empty store has nothing to convert, but asks.
    fn has_image_files(&self) -> bool {
        self.engine.store().convert(&mut |_, _| {}).is_ok()
    }

    /// With bounds on what the layers of an image come to together.
    pub fn with_image_limits(image_limits: ImageLimits) -> Rig {
        Rig::made(client_config(), &[], StoreOptions::default(), image_limits)
    }

    pub fn with_store(config: ClientConfig, logins: &[(&str, &str, &str)], options: StoreOptions) -> Rig {
        Rig::made(config, logins, options, ImageLimits::default())
    }

    fn made(
        config: ClientConfig,
        logins: &[(&str, &str, &str)],
        options: StoreOptions,
        image_limits: ImageLimits,
    ) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), options).unwrap();
        let mut sources = CredentialSources::builder();
        for (host, user, password) in logins {
            sources = sources.given(host, Credential::basic(*user, *password));
        }
        let client = Client::new(config).unwrap();
        let platform = Platform::new("linux", "amd64", None);
        let mut config = EngineConfig::new(store, client, Arc::new(sources.build()), platform);
        config.image_limits = image_limits;
        let engine = Engine::new(config);
        Rig { engine, dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A pull into another store, with an engine of its own.
    pub async fn pull_into(&self, store: Store, image: &str) -> Result<PullReport, PullError> {
        self.around(store).pull(request(image), Arc::new(Silent)).await
    }

    /// An engine around another store.
    pub fn around(&self, store: Store) -> Engine {
        let client = Client::new(client_config()).unwrap();
        let sources = Arc::new(CredentialSources::builder().build());
        Engine::new(EngineConfig::new(store, client, sources, Platform::new("linux", "amd64", None)))
    }

    pub async fn pull(&self, image: &str) -> Result<PullReport, PullError> {
        self.engine.pull(request(image), Arc::new(Silent)).await
    }
}

#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
fn skipped(what: &str) {
    eprintln!("SKIPPED pull: {what}");
}

pub fn request(image: &str) -> PullRequest {
    PullRequest {
        image: image.to_owned(),
        mode: Mode::Windlass,
        credentials: Credentials::Sources,
        options: PullOptions::default(),
    }
}

/// Keeps every event.
#[derive(Clone, Default)]
pub struct Recorder(pub Arc<Mutex<Vec<Event>>>);

impl EventSink for Recorder {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}
