//! What stands around every provider: cache, single flight, back-off, renewal, figures. The provider is a script of
//! answers in this process; the clock is tokio's and stands still.

mod support;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{Plugin, Scene, answer, ask, image, users};
use tokio::sync::Semaphore;
use windlass_core::keyring::{Credential, Mode, Origin};
use windlass_core::provider::{CacheKeyType, ProviderAnswer};
use windlass_core::reason::Reason;
use windlass_credentials::cloud::CloudError;
use windlass_credentials::{
    Answering, Asked, BuiltIn, CredentialSources, Lookup, Provider, ProviderError, ProviderKind, ProviderRequest,
    RefusedOutcome,
};

/// Answers in order; the last one again and again.
#[derive(Debug)]
struct Script {
    answers: Mutex<VecDeque<Result<(CacheKeyType, u64), ()>>>,
    calls: AtomicUsize,
    /// Every call takes one.
    places: Semaphore,
}

impl Script {
    fn new(answers: &[Result<(CacheKeyType, u64), ()>]) -> Arc<Script> {
        let places = Semaphore::new(1000);
        Arc::new(Script { answers: Mutex::new(answers.iter().copied().collect()), calls: AtomicUsize::new(0), places })
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Provider for Script {
    fn ask<'a>(&'a self, request: &'a ProviderRequest) -> Answering<'a> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        Box::pin(async move {
            self.places.acquire().await.expect("never closed").forget();
            // Others get the time to ask, too.
            tokio::task::yield_now().await;
            let next = {
                let mut answers = self.answers.lock().expect("no panic");
                if answers.len() > 1 { answers.pop_front() } else { answers.front().copied() }
            };
            let refused = || CloudError::Refused { service: "STS".into(), words: "no".into(), hint: "do this".into() };
            let (cache_key_type, seconds) = next.expect("an answer").map_err(|()| ProviderError::Cloud(refused()))?;
            let host = request.image.host().to_string();
            let auth = vec![(host, Credential::basic("u", format!("canary{call}")))];
            Ok(ProviderAnswer { cache_key_type, cache_duration: Some(Duration::from_secs(seconds)), auth })
        })
    }
}

fn sources(script: &Arc<Script>) -> CredentialSources {
    let provider: Arc<dyn Provider> = script.clone();
    let matches = Arc::new(|image: &windlass_core::reference::Reference| image.host().as_str().ends_with(".io"));
    CredentialSources::builder().builtin(BuiltIn { name: "ecr".to_owned(), matches, provider }).build()
}

/// The call whose answer is used.
fn call_of(lookup: &Lookup) -> String {
    match lookup.candidates.first().map(|candidate| &candidate.credential) {
        Some(Credential::Basic { password, .. }) => password.expose().replace("canary", ""),
        _ => "-".to_owned(),
    }
}

async fn advance(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

use CacheKeyType::{Global, Image, Registry};

#[tokio::test(start_paused = true)]
async fn answers_are_kept_as_they_say() {
    // The answer; calls for the same image, another of the registry, another registry.
    let table =
        [((Image, 60), [1, 2, 3]), ((Registry, 60), [1, 1, 2]), ((Global, 60), [1, 1, 1]), ((Registry, 0), [2, 3, 4])];
    for (answer, want) in table {
        let script = Script::new(&[Ok(answer)]);
        let sources = sources(&script);
        ask(&sources, "r.io/a:1").await;
        let mut calls = Vec::new();
        for image in ["r.io/a:2", "r.io/b", "s.io/a"] {
            ask(&sources, image).await;
            calls.push(script.calls());
        }
        assert_eq!(calls, want, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn clouds_are_asked_for_their_own_and_not_by_the_kubelet_s_rules() {
    let script = Script::new(&[Ok((Registry, 60))]);
    let sources = sources(&script);
    let lookup = sources.candidates(&image("r.io/a"), &[], Mode::Kubelet).await.expect("a lookup");
    assert_eq!((lookup.candidates.len(), lookup.providers.len(), script.calls()), (0, 0, 0));
    let lookup = ask(&sources, "r.com/a").await;
    assert_eq!((lookup.candidates.len(), &lookup.providers[0].asked, script.calls()), (0, &Asked::No, 0));
    let lookup = ask(&sources, "r.io/a").await;
    assert_eq!(lookup.candidates[0].origin, Origin::Cloud { name: "ecr".to_owned() });
    assert_eq!(lookup.candidates[0].origin.to_string(), "cloud ecr");
    assert_eq!(lookup.providers[0].title(), "cloud ecr");
    assert_eq!(lookup.providers[0].expires_in, Some(Duration::from_secs(60)));
}

#[tokio::test]
async fn concurrent_calls_share_one_run() {
    let login =
        answer(r#""cacheKeyType":"Image","cacheDuration":"0s","auth":{"r.io":{"username":"u$$","password":"p"}}"#);
    // It ends once everybody has had the time to ask; two runs would show as two lines and two users.
    let script = format!("echo run >> $DIR/runs; while [ ! -e $DIR/go ]; do sleep 0.01; done; {login}");
    let scene = Scene::new(&[Plugin { name: "p", more: "", script: &script }]);
    let sources = Arc::new(scene.builder().build());
    let asks: Vec<_> = (0..20)
        .map(|_| {
            let sources = sources.clone();
            tokio::spawn(async move { ask(&sources, "r.io/app").await })
        })
        .collect();
    while scene.lines("runs") == 0 {
        tokio::task::yield_now().await;
    }
    std::fs::write(scene.path("go"), "").expect("a file");
    let mut seen = Vec::new();
    for ask in asks {
        seen.push(users(&ask.await.expect("no panic"))[0].to_owned());
    }
    seen.dedup();
    assert_eq!((seen.len(), scene.lines("runs")), (1, 1));
    ask(&sources, "r.io/app").await;
    assert_eq!(scene.lines("runs"), 2, "what must not be kept is not");
}

#[tokio::test(start_paused = true)]
async fn a_registry_s_images_share_one_run_once_that_is_known() {
    let both = async |sources: &CredentialSources| {
        let (a, b) = tokio::join!(ask(sources, "r.io/a"), ask(sources, "r.io/b"));
        (call_of(&a), call_of(&b))
    };
    let script = Script::new(&[Ok((Registry, 60))]);
    let sources_of_one = sources(&script);
    both(&sources_of_one).await;
    assert_eq!(script.calls(), 1, "a cloud's login is for a registry, which is known before it answers");
    advance(61).await;
    let (a, b) = both(&sources_of_one).await;
    assert_eq!((script.calls(), a == b), (2, true));

    // An answer for one image alone is of no use to the other that waited for it.
    let script = Script::new(&[Ok((Registry, 60)), Ok((Image, 60))]);
    let sources = sources(&script);
    ask(&sources, "r.io/a").await;
    advance(61).await;
    let (a, b) = both(&sources).await;
    assert_eq!((script.calls(), a != b), (3, true));
}

/// What a program's answer is for is known once it has answered.
#[tokio::test]
async fn a_program_s_first_runs_are_one_for_each_image() {
    let login =
        answer(r#""cacheKeyType":"Registry","cacheDuration":"0s","auth":{"r.io":{"username":"u","password":"p"}}"#);
    let script = format!("echo run >> $DIR/runs; {login}");
    let scene = Scene::new(&[Plugin { name: "p", more: "", script: &script }]);
    let sources = scene.builder().build();
    tokio::join!(ask(&sources, "r.io/a"), ask(&sources, "r.io/b"));
    assert_eq!(scene.lines("runs"), 2);
}

#[tokio::test(start_paused = true)]
async fn failures_are_waited_out() {
    let script = Script::new(&[Err(()), Err(()), Ok((Registry, 60))]);
    let sources = sources(&script);
    let lookup = ask(&sources, "r.io/a").await;
    let failed = Asked::Failed {
        error: "STS refused: no".to_owned(),
        reason: Reason::InvalidCredentials,
        hint: "do this".to_owned(),
    };
    assert_eq!(lookup.providers[0].asked, failed);
    assert_eq!(lookup.skipped[0].why, "STS refused: no (do this)");
    for (seconds, calls) in [(0, 1), (1, 2), (1, 2), (1, 3), (0, 3)] {
        advance(seconds).await;
        let lookup = ask(&sources, "r.io/a").await;
        assert_eq!(script.calls(), calls, "{:?}", lookup.providers[0].asked);
    }
    let state = &sources.provider_states()[0];
    assert_eq!((state.calls, state.errors, state.kind), (3, 2, ProviderKind::Cloud));
}

#[tokio::test]
async fn a_kubelet_does_not_remember_failures() {
    let scene = Scene::new(&[Plugin { name: "p", more: "", script: "echo run >> $DIR/runs; exit 1" }]);
    let sources = scene.builder().build();
    for _ in 0..3 {
        sources.candidates(&image("r.io/a"), &[], Mode::Kubelet).await.expect("a lookup");
    }
    assert_eq!(scene.lines("runs"), 3);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_renewed_ahead_of_time() {
    let script = Script::new(&[Ok((Registry, 1000))]);
    let sources = sources(&script);
    assert_eq!(call_of(&ask(&sources, "r.io/a").await), "1");
    advance(799).await;
    assert_eq!(call_of(&ask(&sources, "r.io/a").await), "1");
    tokio::task::yield_now().await;
    assert_eq!(script.calls(), 1, "it is too early");
    advance(102).await;
    let lookup = ask(&sources, "r.io/a").await;
    assert_eq!((call_of(&lookup).as_str(), &lookup.providers[0].asked), ("1", &Asked::Cached), "nobody waits");
    while script.calls() < 2 || call_of(&ask(&sources, "r.io/a").await) == "1" {
        tokio::task::yield_now().await;
    }
    let lookup = ask(&sources, "r.io/b").await;
    assert_eq!((call_of(&lookup).as_str(), script.calls()), ("2", 2));
    assert!(lookup.providers[0].expires_in.is_some_and(|left| left > Duration::from_secs(990)), "{lookup:?}");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_leaves_the_old_answer() {
    let script = Script::new(&[Ok((Registry, 1000)), Err(())]);
    let sources = sources(&script);
    ask(&sources, "r.io/a").await;
    advance(950).await;
    for _ in 0..50 {
        assert_eq!(call_of(&ask(&sources, "r.io/a").await), "1");
        tokio::task::yield_now().await;
    }
    assert_eq!(script.calls(), 2, "one failure is waited out");
}

#[tokio::test(start_paused = true)]
async fn a_refused_answer_is_asked_for_again() {
    let script = Script::new(&[Ok((Registry, 1000))]);
    let sources = sources(&script);
    let image = image("r.io/a");
    let lookup = ask(&sources, "r.io/a").await;
    assert_eq!(sources.refused(&image, &lookup.candidates[0]), RefusedOutcome::Fresh);
    assert_eq!(call_of(&ask(&sources, "r.io/a").await), "1");
    advance(2).await;
    assert_eq!(sources.refused(&image, &lookup.candidates[0]), RefusedOutcome::AskAgain);
    assert_eq!(call_of(&ask(&sources, "r.io/a").await), "2");
    // Another pull that still holds the first one finds the second one at once.
    assert_eq!(sources.refused(&image, &lookup.candidates[0]), RefusedOutcome::AskAgain);
    assert_eq!((call_of(&ask(&sources, "r.io/a").await).as_str(), script.calls()), ("2", 2));
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_not_kept_can_be_renewed_too() {
    let script = Script::new(&[Ok((Registry, 0))]);
    let sources = sources(&script);
    let lookup = ask(&sources, "r.io/a").await;
    let image = image("r.io/a");
    assert_eq!(sources.refused(&image, &lookup.candidates[0]), RefusedOutcome::Fresh);
    advance(70).await;
    assert_eq!(sources.refused(&image, &lookup.candidates[0]), RefusedOutcome::AskAgain);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_change_by_asking_is_said_to_be_fixed() {
    let sources = CredentialSources::builder().given("r.io", Credential::basic("u", "p")).build();
    let lookup = ask(&sources, "r.io/a").await;
    assert_eq!(sources.refused(&image("r.io/a"), &lookup.candidates[0]), RefusedOutcome::Fixed);
}

#[tokio::test(start_paused = true)]
async fn the_state_tells_keys_and_times_and_no_secret() {
    let script = Script::new(&[Ok((Registry, 100))]);
    let sources = sources(&script);
    ask(&sources, "r.io/a").await;
    ask(&sources, "s.io/a").await;
    advance(40).await;
    let states = sources.provider_states();
    let cached: Vec<(&str, u64, usize)> =
        states[0].cached.iter().map(|kept| (kept.key.as_str(), kept.expires_in.as_secs(), kept.logins)).collect();
    assert_eq!(cached, [("registry r.io", 60, 1), ("registry s.io", 60, 1)]);
    assert!(!format!("{states:?} {sources:?}").contains("canary"));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_others_their_answer() {
    let script = Script::new(&[Ok((Registry, 100))]);
    script.places.forget_permits(1000);
    let sources = sources(&script);
    let mut first = Box::pin(ask(&sources, "r.io/a"));
    let mut second = Box::pin(ask(&sources, "r.io/a"));
    tokio::select! {
        biased;
        _ = &mut first => panic!("nobody answers yet"),
        _ = &mut second => panic!("nobody answers yet"),
        () = tokio::task::yield_now() => {}
    }
    drop(first);
    script.places.add_permits(10);
    assert_eq!(call_of(&second.await), "2", "the second one asks for itself");
}
