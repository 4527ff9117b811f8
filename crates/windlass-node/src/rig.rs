//! What the tests of this crate share: an engine around a store in a temporary place.

use std::sync::Arc;

use windlass_core::keyring::Mode;
use windlass_core::platform::Platform;
use windlass_credentials::CredentialSources;
use windlass_distribution::{Client, ClientConfig};
use windlass_pull::events::Silent;
use windlass_pull::{Credentials, Engine, EngineConfig, PullOptions, PullReport, PullRequest};
use windlass_store::{SnapshotFormat, Store, StoreOptions};

pub(crate) struct Rig {
    pub(crate) engine: Engine,
    _dir: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let mut options = StoreOptions::default();
        options.snapshot_format = SnapshotFormat::Overlay;
        let store = Store::open(&dir.path().join("store"), options).unwrap();
        let client = Client::new(ClientConfig::default()).unwrap();
        let sources = Arc::new(CredentialSources::builder().build());
        let config = EngineConfig::new(store, client, sources, Platform::new("linux", "amd64", None));
        Rig { engine: Engine::new(config), _dir: dir }
    }

    pub(crate) fn store(&self) -> &Store {
        self.engine.store()
    }

    pub(crate) async fn pull(&self, image: &str) -> PullReport {
        let request = PullRequest {
            image: image.to_owned(),
            mode: Mode::Windlass,
            credentials: Credentials::Sources,
            options: PullOptions::default(),
        };
        self.engine.pull(request, Arc::new(Silent)).await.unwrap()
    }
}
