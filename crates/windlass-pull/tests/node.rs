//! What a node asks of the engine: many pulls at once, credentials that came with the request, a board to look at.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{Rig, client_config, plain_http, request};
use windlass_core::keyring::{Candidate, Credential, Origin};
use windlass_core::reason::Reason;
use windlass_pull::events::{Event, Silent};
use windlass_pull::{Credentials, Ending, Phase, PullRequest, RowState};
use windlass_registry::access::Action;
use windlass_testkit::faults::{Fault, FaultyRegistry, When};
use windlass_testkit::images::{Entry, Image, Layer, incompressible, small};
use windlass_testkit::registry::TestRegistry;

fn layered(layers: u64, bytes: usize) -> Image {
    let layers = (0..layers).map(|n| Layer::new([Entry::file(format!("f{n}"), incompressible(bytes, n))]));
    layers.fold(Image::build(), |image, layer| image.layer(layer)).finish()
}

fn given(image: &str, user: &str, password: &str) -> PullRequest {
    let candidate = Candidate::new(Credential::basic(user, password), Origin::Given, "");
    PullRequest { credentials: Credentials::Given(vec![candidate]), ..request(image) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_pulls_of_one_image_fetch_each_blob_once() {
    let registry = TestRegistry::open();
    let image = layered(8, 50_000);
    let reference = registry.place(&image.bundle(), "app", "1");
    let rig = Rig::new();
    let pulls = (0..100).map(|_| {
        let (engine, request) = (rig.engine.clone(), request(&reference));
        tokio::spawn(async move { engine.pull(request, Arc::new(Silent)).await })
    });
    for pull in pulls.collect::<Vec<_>>() {
        assert_eq!(&pull.await.expect("no panic").expect("pulled").id, image.id());
    }
    let paths = registry.take_requests().into_iter().filter(|record| record.method == "GET").map(|record| record.path);
    let blobs: Vec<String> = paths.filter(|path| path.contains("/blobs/")).collect();
    assert_eq!((blobs.len(), blobs.iter().collect::<BTreeSet<_>>().len()), (9, 9), "{blobs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_image_does_not_wait_for_giant_ones() {
    let registry = FaultyRegistry::open();
    let giants: Vec<(String, Image)> = (0..2)
        .map(|n| {
            let layers =
                (0..12).map(|m| Layer::new([Entry::file(format!("g{n}-{m}"), incompressible(40_000, n * 100 + m))]));
            let image = layers.fold(Image::build(), |image, layer| image.layer(layer)).finish();
            (registry.place(&image.bundle(), "giant", &n.to_string()), image)
        })
        .collect();
    for (_, image) in &giants {
        for layer in &image.layers {
            registry.inject(When::blob_of(&layer.blob.digest), Fault::Stall { at: 4096, how_long: None });
        }
    }
    let reference = registry.place(&small("small").bundle(), "app", "1");
    let rig = Rig::with(plain_http(), &[]);
    let mut changes = rig.engine.board().changes();
    let stuck: Vec<_> = giants
        .iter()
        .map(|(giant, _)| {
            let (engine, request) = (rig.engine.clone(), request(giant));
            tokio::spawn(async move { engine.pull(request, Arc::new(|_: Event| {})).await })
        })
        .collect();
    // Both transfer as much as they may.
    changes
        .wait_for(|_| {
            let state = rig.engine.board().state();
            let rows = state.pulls.iter().flat_map(|pull| &pull.layers);
            state.pulls.len() == 2 && rows.filter(|row| row.state == RowState::Downloading).count() >= 5
        })
        .await
        .expect("the board is there");
    rig.pull(&reference).await.expect("the small image came");
    let state = rig.engine.board().state();
    assert_eq!(state.pulls.len(), 2, "the giants are still under way");
    assert!(state.pulls.iter().all(|pull| pull.phase == Phase::Layers), "{state:?}");
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn given_credentials_are_the_only_ones_shown() {
    let registry = TestRegistry::build().basic().user("node", "right", "team/*", &[Action::Pull]).start();
    let reference = registry.place(&small("private").bundle(), "team/app", "1");
    let rig = Rig::with(client_config(), &[(&registry.host(), "node", "right")]);

    let wrong = rig.engine.pull(given(&reference, "pod", "canary-secret"), Arc::new(Silent)).await.unwrap_err();
    assert_eq!(wrong.reason(), Reason::Unauthorized, "{wrong:?}");
    assert!(!format!("{wrong:?} {}", wrong.chain()).contains("canary-secret"));
    let nobody = PullRequest { credentials: Credentials::Given(Vec::new()), ..request(&reference) };
    let nobody = rig.engine.pull(nobody, Arc::new(Silent)).await.unwrap_err();
    assert_eq!(nobody.reason(), Reason::Unauthorized, "{nobody:?}");
    let records = registry.take_requests();
    assert!(records.iter().all(|record| record.identity.as_deref() != Some("node")), "{records:?}");

    rig.engine.pull(given(&reference, "node", "right"), Arc::new(Silent)).await.expect("the pod's own credential");
    rig.pull(&reference).await.expect("the node's, when the request brings none");

    let recent = rig.engine.board().state().recent;
    let endings: Vec<&Ending> = recent.iter().map(|past| &past.ending).collect();
    assert!(matches!(endings[..], [Ending::UpToDate, Ending::Pulled, Ending::Failed { .. }, Ending::Failed { .. }]));
    assert!(recent.iter().all(|past| past.image == reference && past.times.total_ms >= past.times.layers_ms));
    let shown = serde_json::to_string(&rig.engine.board().state()).expect("it is data");
    assert!(!shown.contains("canary-secret") && !shown.contains("right"), "{shown}");
}
