//! Logins that end before the pull does.

mod common;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{client_config, request};
use windlass_core::keyring::Credential;
use windlass_core::platform::Platform;
use windlass_core::provider::{CacheKeyType, ProviderAnswer};
use windlass_core::secret::Secret;
use windlass_credentials::{Answering, BuiltIn, CredentialSources, Provider, ProviderRequest};
use windlass_distribution::Client;
use windlass_pull::events::{Event, EventSink, LayerState};
use windlass_pull::{Engine, EngineConfig};
use windlass_registry::access::Action;
use windlass_registry::auth::LiveUsers;
use windlass_registry::route::RouteKind;
use windlass_store::{Store, StoreOptions};
use windlass_testkit::images::{Entry, Image, Layer};
use windlass_testkit::registry::TestRegistry;

/// An answer that is younger is not asked for again: it would be the same.
const FRESH: Duration = Duration::from_secs(1);

/// Hands out logins that the registry takes until they are taken back.
#[derive(Clone, Default)]
struct Desk {
    users: LiveUsers,
    issued: Arc<AtomicUsize>,
    last: Arc<Mutex<Option<Instant>>>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Desk")
    }
}

impl Provider for Desk {
    fn ask<'a>(&'a self, request: &'a ProviderRequest) -> Answering<'a> {
        Box::pin(async move {
            let password = format!("login-{}", self.issued.fetch_add(1, Ordering::SeqCst));
            self.users.admit("robot", Secret::new(password.clone()), None);
            *self.last.lock().unwrap() = Some(Instant::now());
            Ok(ProviderAnswer {
                cache_key_type: CacheKeyType::Registry,
                cache_duration: Some(Duration::from_secs(3600)),
                auth: vec![(request.image.host().to_string(), Credential::basic("robot", password))],
            })
        })
    }
}

/// Takes every login back once the first layer is there, when they are no longer fresh.
struct TakeBack(Desk, AtomicUsize);

impl EventSink for TakeBack {
    fn event(&self, event: Event) {
        let is_done = matches!(event, Event::Layer { state: LayerState::Done, .. });
        if is_done && self.1.fetch_add(1, Ordering::SeqCst) == 0 {
            let began = self.0.last.lock().unwrap().expect("a login was given");
            std::thread::sleep((FRESH + Duration::from_millis(50)).saturating_sub(began.elapsed()));
            self.0.users.dismiss_all();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_outlives_the_login_that_it_began_with() {
    let desk = Desk::default();
    let registry = TestRegistry::build().basic().live_users(desk.users.clone());
    let registry = registry.rule("authenticated", "team/**", &[Action::Pull]).start();
    let layers = (0..4).map(|n| Layer::new([Entry::file(format!("f{n}"), vec![n; 1000])]));
    let image = layers.fold(Image::build(), |image, layer| image.layer(layer)).finish();
    let reference = registry.place(&image.bundle(), "team/app", "1");

    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
    let cloud = BuiltIn { name: "desk".to_owned(), matches: Arc::new(|_| true), provider: Arc::new(desk.clone()) };
    let sources = Arc::new(CredentialSources::builder().builtin(cloud).build());
    let client = Client::new(client_config()).unwrap();
    let mut config = EngineConfig::new(store, client, sources, Platform::new("linux", "amd64", None));
    config.layers_in_work = 1;
    let engine = Engine::new(config);

    let sink = Arc::new(TakeBack(desk.clone(), AtomicUsize::new(0)));
    let report = engine.pull(request(&reference), sink).await.unwrap();
    assert_eq!(report.layers, 4);
    assert_eq!(desk.issued.load(Ordering::SeqCst), 2, "asked for again once");
    let tried: Vec<String> = report.attempts.0.iter().map(ToString::to_string).collect();
    assert!(tried.iter().any(|line| line.starts_with("cloud desk") && line.contains(": 401")), "{tried:?}");
    assert!(tried.last().unwrap().ends_with("accepted"), "{tried:?}");
    // What was there stays: nothing is fetched twice.
    let fetched = registry.requests().into_iter().filter(|request| request.route == RouteKind::Blob);
    assert_eq!(fetched.filter(|request| request.status == 200).count(), 5, "four layers and the config");
}
