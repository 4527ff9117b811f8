//! Whole pods: decisions, credentials, records and waiting, against real registries and a real store.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::{Recorder, Rig, client_config, plain_http};
use windlass_core::access::VerificationPolicy;
use windlass_core::decide::ensure::Verification;
use windlass_core::keyring::{Candidate, Credential, Mode, Origin};
use windlass_core::reason::Reason;
use windlass_credentials::Lookup;
use windlass_pull::events::{Event, Silent};
use windlass_pull::workload::{ManifestText, read};
use windlass_pull::{Action, EnsureCredentials, EnsureReport, EnsureRequest, PullOptions, Wait};
use windlass_registry::access::Action as Right;
use windlass_registry::route::RouteKind;
use windlass_testkit::faults::{Fault, FaultyRegistry, When};
use windlass_testkit::images::small;
use windlass_testkit::registry::TestRegistry;

fn request(manifests: &str, mode: Mode, policy: VerificationPolicy) -> EnsureRequest {
    let files = [ManifestText { name: "pod.yaml".into(), text: manifests.into() }];
    EnsureRequest {
        pods: read(&files).unwrap().pods,
        mode,
        credentials: EnsureCredentials::Sources,
        verification: Verification::On(policy),
        wait: Wait::Once,
        options: PullOptions::default(),
    }
}

async fn ensure(rig: &Rig, manifests: &str) -> EnsureReport {
    let request = request(manifests, Mode::Windlass, VerificationPolicy::default());
    rig.engine.ensure(request, Arc::new(Silent)).await.unwrap()
}

/// A pod with these containers (image and policy) and pull secrets.
fn pod(name: &str, containers: &[(&str, &str)], secrets: &[&str]) -> String {
    let containers = containers
        .iter()
        .enumerate()
        .map(|(n, (image, policy))| format!("  - name: c{n}\n    image: {image:?}\n    imagePullPolicy: {policy:?}\n"));
    let secrets = secrets.iter().map(|secret| format!("  - name: {secret}\n"));
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: team\nspec:\n  containers:\n{}  imagePullSecrets:\n{}",
        containers.collect::<String>(),
        secrets.collect::<String>()
    )
}

fn secret(name: &str, host: &str, user: &str, password: &str) -> String {
    let config = format!(r#"{{"auths":{{"{host}":{{"username":"{user}","password":"{password}"}}}}}}"#);
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: team}}\ntype: kubernetes.io/dockerconfigjson\nstringData:\n  .dockerconfigjson: '{config}'\n"
    )
}

fn reasons(report: &EnsureReport, at: usize) -> Vec<&'static str> {
    report.containers[at].events.iter().map(|event| event.reason).collect()
}

fn private() -> TestRegistry {
    let registry = TestRegistry::build().bearer().user("ci", "right", "team/*", &[Right::Pull]).start();
    registry.place(&small("private").bundle(), "team/app", "1");
    registry
}

#[tokio::test(flavor = "multi_thread")]
async fn every_container_gets_what_a_kubelet_would_have_got() {
    let registry = TestRegistry::open();
    let here = registry.place(&small("here").bundle(), "app", "here");
    let new = registry.place(&small("new").bundle(), "app", "new");
    let gone = registry.reference("app", "gone");
    let rig = Rig::new();
    rig.pull(&here).await.unwrap();
    let containers = [
        (here.as_str(), "IfNotPresent"),
        (new.as_str(), "IfNotPresent"),
        (new.as_str(), "Never"),
        (gone.as_str(), "Never"),
        (gone.as_str(), "IfNotPresent"),
        ("team/BAD", "Always"),
    ];
    let report = ensure(&rig, &pod("p", &containers, &[])).await;
    assert!(!report.is_complete());
    let table: [(Action, Option<&str>, &[&str]); 6] = [
        (Action::UsedLocal, None, &["Pulled"]),
        (Action::Pulled, None, &["Pulling", "Pulled"]),
        (Action::UsedLocal, None, &["Pulled"]),
        (Action::Refused, Some("ErrImageNeverPull"), &["ErrImageNeverPull", "Failed"]),
        (Action::Pulled, Some("ErrImagePull"), &["Pulling", "Failed", "Failed"]),
        (Action::Refused, Some("InvalidImageName"), &["InspectFailed", "Failed"]),
    ];
    for (at, (action, waiting, events)) in table.into_iter().enumerate() {
        let container = &report.containers[at];
        assert_eq!(container.container, format!("c{at}"));
        assert_eq!(container.action, action, "c{at}");
        assert_eq!(container.failure.as_ref().map(|failure| failure.waiting.as_str()), waiting, "c{at}");
        assert_eq!(container.image_ref.is_some(), waiting.is_none(), "c{at}");
        assert_eq!(reasons(&report, at), events, "c{at}");
    }
    let records = rig.engine.store().records();
    assert!(!records.has_intent(&gone) && !records.has_intent(&new), "no intent is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_image_comes_with_the_secret_and_a_wrong_one_says_why() {
    let registry = private();
    let (reference, host) = (registry.reference("team/app", "1"), registry.host());
    let rig = Rig::new();
    let text = secret("wrong", &host, "ci", "canary-password") + &pod("bad", &[(&reference, "Always")], &["wrong"]);
    let report = ensure(&rig, &text).await;
    let container = &report.containers[0];
    let failure = container.failure.as_ref().unwrap();
    assert_eq!((failure.waiting.as_str(), failure.reason), ("ErrImagePull", Reason::Unauthorized), "{failure:?}");
    assert!(failure.hint.contains("secret team/wrong") && failure.hint.contains("user ci"), "{}", failure.hint);
    let tried: Vec<String> = container.attempts.0.iter().map(ToString::to_string).collect();
    assert!(tried[0].starts_with(&format!("secret team/wrong key {host} (user ci): 401")), "{tried:?}");
    assert!(!format!("{report:?}").contains("canary-password"));

    let both = secret("wrong", &host, "ci", "no") + &secret("right", &host, "ci", "right");
    let report = ensure(&rig, &(both + &pod("good", &[(&reference, "Always")], &["wrong", "right"]))).await;
    let accepted = report.containers[0].attempts.accepted().unwrap();
    assert_eq!(accepted.source.as_deref(), Some("secret team/right"));
}

/// A secret whose JSON ends too early.
const MALFORMED: &str = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: malformed, namespace: team}\ntype: \
                         kubernetes.io/dockerconfigjson\nstringData:\n  .dockerconfigjson: '{\"auths\":{\"canary-user\"'\n";

#[tokio::test(flavor = "multi_thread")]
async fn one_good_secret_among_bad_ones_is_enough_and_the_bad_are_told() {
    let registry = private();
    let (reference, host) = (registry.reference("team/app", "1"), registry.host());
    let wildcard = format!("{}/team/", host.replacen("127.", "*.", 1));
    let right = secret("right", &wildcard, "ci", "right");
    let bad = secret("wrong", &host, "ci", "no") + MALFORMED;
    let pod = pod("p", &[(&reference, "Always")], &["malformed", "wrong", "right"]);
    let text = bad + &right + &pod;
    let report = ensure(&Rig::new(), &text).await;
    let container = &report.containers[0];
    assert!(container.failure.is_none(), "{:?}", container.failure);
    let tried: Vec<String> = container.attempts.0.iter().map(ToString::to_string).collect();
    // The longer of equal hosts, then exact hosts before those with a wildcard: the wrong one goes first.
    assert!(tried[0].starts_with(&format!("secret team/wrong key {host} (user ci): 401")), "{tried:?}");
    assert_eq!(tried[1], format!("secret team/right key {wildcard} (user ci): accepted"));
    let told = container.notes.join("\n");
    assert!(told.contains("secret team/malformed") && !told.contains("canary-user"), "{told}");

    // A kubelet fails with the malformed one, whatever the others hold.
    let strict = request(&text, Mode::Kubelet, VerificationPolicy::default());
    let report = Rig::new().engine.ensure(strict, Arc::new(Silent)).await.unwrap();
    let failure = report.containers[0].failure.as_ref().unwrap();
    assert_eq!(failure.reason, Reason::InvalidCredentials);
    assert!(failure.message.contains("secret team/malformed cannot be decoded"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn given_credentials_stand_after_the_secrets_and_in_place_of_the_sources() {
    let registry = private();
    let (reference, host) = (registry.reference("team/app", "1"), registry.host());
    let rig = Rig::with(plain_http(), &[(&host, "ci", "right")]);
    let text = secret("wrong", &host, "ci", "no") + &pod("p", &[(&reference, "Always")], &["wrong"]);
    let mut request = request(&text, Mode::Windlass, VerificationPolicy::default());
    request.credentials = EnsureCredentials::Given(BTreeMap::new());
    let report = rig.engine.ensure(request.clone(), Arc::new(Silent)).await.unwrap();
    assert!(report.containers[0].failure.is_some(), "the engine's own are not used");

    let candidate = |password: &str| {
        Candidate::new(Credential::basic("ci", password), Origin::Helper { name: "login".into() }, host.clone())
    };
    let given = Lookup { candidates: vec![candidate("no"), candidate("right")], ..Lookup::default() };
    request.credentials = EnsureCredentials::Given([(reference, given)].into());
    // The failure of the first call is not held against the second.
    let report = rig.engine.ensure(request, Arc::new(Silent)).await.unwrap();
    let sources: Vec<_> = report.containers[0].attempts.0.iter().map(|attempt| attempt.source.as_deref()).collect();
    assert_eq!(sources, [Some("secret team/wrong"), Some("helper docker-credential-login")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_image_is_in_the_back_off_until_its_time() {
    let registry = TestRegistry::open();
    let (gone, rig) = (registry.reference("app", "gone"), Rig::new());
    assert!(rig.engine.back_off().is_empty());
    ensure(&rig, &pod("p", &[(&gone, "Always")], &[])).await;
    let waiting = rig.engine.back_off();
    assert_eq!((waiting.len(), waiting[0].pod.as_str(), &waiting[0].image), (1, "team/p", &gone));
    assert!(waiting[0].left <= Duration::from_secs(10) && waiting[0].previous.contains("ErrImagePull"), "{waiting:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_here_is_only_for_pods_that_could_have_pulled_it() {
    let registry = private();
    let (reference, host) = (registry.reference("team/app", "1"), registry.host());
    let rig = Rig::new();
    let owner = secret("right", &host, "ci", "right") + &pod("owner", &[(&reference, "IfNotPresent")], &["right"]);
    assert!(ensure(&rig, &owner).await.is_complete());
    registry.take_requests();

    let again = ensure(&rig, &owner).await;
    assert_eq!(again.containers[0].action, Action::UsedLocal);
    assert!(registry.take_requests().is_empty(), "the record of the first pull is proof enough");

    // The same content of a secret under another name is the same proof.
    let twin = secret("twin", &host, "ci", "right") + &pod("twin", &[(&reference, "IfNotPresent")], &["twin"]);
    assert_eq!(ensure(&rig, &twin).await.containers[0].action, Action::UsedLocal);
    assert!(registry.take_requests().is_empty());

    let stranger = pod("stranger", &[(&reference, "IfNotPresent")], &[]);
    let refused = ensure(&rig, &stranger).await;
    assert_eq!(refused.containers[0].failure.as_ref().unwrap().waiting, "ErrImagePull");
    let never = pod("never", &[(&reference, "Never")], &[]);
    let absent = pod("absent", &[(&registry.reference("team/app", "absent"), "Never")], &[]);
    let seen = |report: &EnsureReport| {
        let failure = report.containers[0].failure.clone().unwrap();
        (failure.waiting, failure.message.replace(":absent", ":1"), failure.hint)
    };
    let (here, not_here) = (ensure(&rig, &never).await, ensure(&rig, &absent).await);
    assert_eq!(seen(&here), seen(&not_here), "absent and not yours look alike");
    // The owner's proof outlives the stranger's failure.
    assert_eq!(ensure(&rig, &owner).await.containers[0].action, Action::UsedLocal);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anonymous_pull_opens_the_image_for_all() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("public").bundle(), "app", "1");
    let rig = Rig::new();
    assert!(ensure(&rig, &pod("one", &[(&reference, "IfNotPresent")], &[])).await.is_complete());
    let text = pod("two", &[(&reference, "Never")], &[]);
    let strict = request(&text, Mode::Windlass, VerificationPolicy::AlwaysVerify);
    let report = rig.engine.ensure(strict, Arc::new(Silent)).await.unwrap();
    assert_eq!(report.containers[0].action, Action::UsedLocal);
}

#[tokio::test(flavor = "multi_thread")]
async fn always_verify_asks_for_images_that_came_by_other_means() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("public").bundle(), "app", "1");
    let rig = Rig::new();
    rig.pull(&reference).await.unwrap();
    let text = pod("p", &[(&reference, "IfNotPresent")], &[]);
    let table = [
        (VerificationPolicy::NeverVerify, Action::UsedLocal),
        (VerificationPolicy::NeverVerifyPreloadedImages, Action::UsedLocal),
        (VerificationPolicy::AlwaysVerify, Action::Pulled),
    ];
    for (policy, want) in table {
        let request = request(&text, Mode::Windlass, policy.clone());
        let report = rig.engine.ensure(request, Arc::new(Silent)).await.unwrap();
        assert_eq!(report.containers[0].action, want, "{policy:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_kubelet_makes_no_anonymous_try_after_a_refusal() {
    let registry = TestRegistry::build()
        .bearer()
        .rule("anonymous", "*/**", &[Right::Pull])
        .user("ci", "right", "team/*", &[Right::Pull])
        .start();
    let (reference, host) = (registry.place(&small("p").bundle(), "team/app", "1"), registry.host());
    let secrets = secret("wrong", &host, "ci", "no") + &secret("wrong2", &host, "ci", "never");
    let text = secrets + &pod("p", &[(&reference, "Always")], &["wrong", "wrong2"]);
    let rig = Rig::new();
    let strict = request(&text, Mode::Kubelet, VerificationPolicy::default());
    let report = rig.engine.ensure(strict, Arc::new(Silent)).await.unwrap();
    let container = &report.containers[0];
    assert_eq!(container.failure.as_ref().unwrap().waiting, "ErrImagePull");
    let sources: Vec<_> = container.attempts.0.iter().map(|attempt| attempt.source.as_deref()).collect();
    assert_eq!(sources, [Some("secret team/wrong"), Some("secret team/wrong2")]);
    // Another engine: this one's back-off holds the pod up, as it should.
    let relaxed = ensure(&Rig::new(), &text).await;
    assert!(relaxed.is_complete(), "our own mode asks anonymously at last: {relaxed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_images_are_pulled_once() {
    let registry = TestRegistry::open();
    let reference = registry.place(&small("one").bundle(), "app", "1");
    let rig = Rig::new();
    let containers = [(reference.as_str(), "Always"); 4];
    let report = ensure(&rig, &(pod("a", &containers, &[]) + &pod("b", &containers, &[]))).await;
    assert!(report.is_complete());
    assert_eq!(registry.count("GET", RouteKind::Manifest) + registry.count("HEAD", RouteKind::Manifest), 1);
    assert_eq!(registry.count("GET", RouteKind::Blob), 3);
    let pods: Vec<_> = report.containers.iter().map(|c| (c.pod.as_str(), c.container.as_str())).collect();
    assert_eq!(pods[3..5], [("a", "c3"), ("b", "c0")], "the report keeps the order of the pods");
}

#[tokio::test]
async fn wait_goes_on_with_the_kubelets_backoff() {
    let registry = FaultyRegistry::open();
    let reference = registry.place(&small("one").bundle(), "app", "1");
    let other = registry.place(&small("two").bundle(), "app", "2");
    registry.inject(When::containing("/app/manifests/1").first(2), Fault::status(403));
    let mut config = plain_http();
    // Only the engine's own clock may pass quickly.
    config.timeouts = client_config().timeouts;
    let rig = Rig::with(config, &[]);
    let recorder = Recorder::default();
    let text = pod("p", &[(&reference, "IfNotPresent"), (&other, "IfNotPresent")], &[]);
    let mut request = request(&text, Mode::Windlass, VerificationPolicy::default());
    request.wait = Wait::Until(Duration::from_secs(60));
    let ensure = rig.engine.ensure(request, Arc::new(recorder.clone()));
    let is_finished = |event: &Event| matches!(event, Event::Finished { image, .. } if image.as_ref() == other);
    let waits = || -> Vec<u64> {
        let delays = recorder
            .0
            .lock()
            .unwrap()
            .iter()
            .filter_map(|event| match event {
                Event::Waiting { delay, reason, .. } => Some((delay.as_secs(), reason.clone())),
                _ => None,
            })
            .collect::<Vec<_>>();
        assert!(delays.iter().all(|(_, reason)| reason == "ErrImagePull"));
        delays.into_iter().map(|(seconds, _)| seconds).collect()
    };
    // Moves the clock over each wait once it has begun, and never while the other image is being transferred:
    // that the other one finishes first is the promise that a waiting image does not hold up others.
    let skip = async {
        let mut skipped = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let is_idle = recorder.0.lock().unwrap().iter().any(is_finished);
            if is_idle && waits().len() > skipped {
                skipped = waits().len();
                tokio::time::pause();
                tokio::time::advance(Duration::from_secs(21)).await;
                tokio::time::resume();
            }
        }
    };
    let report = tokio::select! {
        report = ensure => report.unwrap(),
        () = skip => unreachable!("it skips for ever"),
    };
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.containers[0].tries, report.containers[1].tries), (3, 1));
    assert_eq!(waits(), [10, 20]);
    let events = reasons(&report, 0);
    assert_eq!(events.iter().filter(|reason| **reason == "Pulling").count(), 3, "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_at_the_deadline() {
    let rig = Rig::new();
    let text = pod("p", &[("registry.invalid/app:1", "Never"), ("team/BAD", "Always")], &[]);
    let mut request = request(&text, Mode::Windlass, VerificationPolicy::default());
    request.wait = Wait::Until(Duration::from_secs(35));
    let report = rig.engine.ensure(request, Arc::new(Silent)).await.unwrap();
    let tries: Vec<u32> = report.containers.iter().map(|container| container.tries).collect();
    assert_eq!(tries, [4, 1], "every 10 s; a bad name cannot become good");
    assert!(report.took < Duration::from_secs(36));
}
