//! Credential helpers: the protocol, the policy, and programs that misbehave.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use windlass_core::host::Host;
use windlass_core::keyring::{Credential, Mode};
use windlass_core::reference::Reference;
use windlass_core::secret::Secret;
use windlass_credentials::{
    CredentialSources, HELPER_CACHE, HelperError, HelperPolicy, Helpers, NodePlaces, TrustedOwner, WhichHelpers,
};

const SCRIPTS: [(&str, &str); 12] = [
    ("plain", r#"read server; echo "{\"ServerURL\":\"$server\",\"Username\":\"$server\",\"Secret\":\"canary\"}""#),
    ("token", r#"echo '{"Username":"<token>","Secret":"canary"}'"#),
    ("unknown", r#"echo 'credentials not found in native keychain'; exit 1"#),
    ("sick", "printf 'pass not initialized\\nmore\\n'; exit 3"),
    ("leaky", r#"echo '{"Username":"u","Secret":"canary"}'; exit 1"#),
    ("garbage", "echo canary"),
    ("empty", r#"echo '{}'"#),
    ("flood", "exec /usr/bin/yes canary"),
    ("deaf", r#"exec 0<&-; echo '{"Username":"u","Secret":"p"}'"#),
    ("hang", r#"/bin/sleep 1000 & echo $! > "$PIDFILE"; wait"#),
    ("environment", r#"echo "{\"Username\":\"${HOME:-none} ${CARGO_MANIFEST_DIR:-clean} $# $1\",\"Secret\":\"p\"}""#),
    ("counted", r#"echo run >> "$COUNT"; echo '{"Username":"u","Secret":"p"}'"#),
];

/// All programs are written before any is run: a program that is open for writing cannot be started.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<TempDir> = OnceLock::new();
    let dir = PROGRAMS.get_or_init(|| {
        let dir = TempDir::new().expect("a directory");
        for (name, body) in SCRIPTS {
            let path = dir.path().join(format!("docker-credential-{name}"));
            fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("a program");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        let loose = dir.path().join("docker-credential-loose");
        fs::write(&loose, "#!/bin/sh\n").expect("a program");
        fs::set_permissions(&loose, fs::Permissions::from_mode(0o777)).expect("a mode");
        let open = dir.path().join("open");
        fs::create_dir(&open).expect("a directory");
        fs::copy(dir.path().join("docker-credential-plain"), open.join("docker-credential-plain")).expect("a copy");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).expect("a mode");
        dir
    });
    dir.path()
}

fn policy() -> HelperPolicy {
    HelperPolicy {
        which: WhichHelpers::AnyNamed,
        directories: vec![PathBuf::from("/nonexistent"), programs().to_owned()],
        owner: TrustedOwner::RootOrSelf,
        ..HelperPolicy::default()
    }
}

async fn get(name: &str) -> Result<Option<Credential>, HelperError> {
    Helpers::new(policy()).get(name, &Host::new("r.io")).await
}

#[tokio::test]
async fn answers_are_read_as_docker_reads_them() {
    assert_eq!(get("plain").await.expect("an answer"), Some(Credential::basic("r.io", "canary")));
    let token = Credential::IdentityToken { username: None, token: Secret::from("canary") };
    assert_eq!(get("token").await.expect("an answer"), Some(token));
    assert_eq!(get("unknown").await.expect("an answer"), None);
    assert_eq!(get("deaf").await.expect("an answer"), Some(Credential::basic("u", "p")));
    let hub = Helpers::new(policy()).get("plain", &Host::new("docker.io")).await.expect("an answer");
    assert_eq!(hub, Some(Credential::basic("https://index.docker.io/v1/", "canary")));
}

#[tokio::test]
async fn failures_are_named_without_secrets() {
    let table = [
        ("sick", "it ended with exit status: 3: pass not initialized"),
        ("leaky", "it ended with exit status: 1"),
        ("garbage", "its answer is not a JSON object with Username and Secret"),
        ("empty", "its answer is not a JSON object with Username and Secret"),
        ("flood", "it wrote more than 1048576 bytes"),
        ("absent", "docker-credential-absent is in none of the directories for helpers"),
    ];
    for (name, want) in table {
        let error = get(name).await.expect_err(name);
        assert_eq!(error.to_string(), want, "{name}");
        assert!(!format!("{error:?}").contains("canary"), "{name}");
    }
}

#[tokio::test]
async fn names_cannot_lead_elsewhere() {
    for name in ["", "../x", "a/b", "a b", "a;b", "a\nb", "ä", &"a".repeat(65)] {
        assert!(matches!(get(name).await, Err(HelperError::Name)), "{name:?}");
    }
}

#[tokio::test]
async fn programs_that_others_can_write_are_not_run() {
    assert!(matches!(get("loose").await, Err(HelperError::Untrusted { .. })));
    let open = HelperPolicy { directories: vec![programs().join("open")], ..policy() };
    let refused = Helpers::new(open).get("plain", &Host::new("r.io")).await;
    assert!(matches!(refused, Err(HelperError::Untrusted { .. })), "{refused:?}");
    let relative = HelperPolicy { directories: vec![PathBuf::from(".")], ..policy() };
    let refused = Helpers::new(relative).get("plain", &Host::new("r.io")).await;
    assert!(matches!(refused, Err(HelperError::Missing { .. })), "{refused:?}");
}

#[tokio::test]
async fn the_environment_is_ours() {
    // Variables of this process must not come through, only what is declared.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "cargo sets it for tests");
    let answer = get("environment").await.expect("an answer");
    assert_eq!(answer, Some(Credential::basic("none clean 1 get", "p")));
    let declared = HelperPolicy { environment: vec![("HOME".into(), "/home/me".into())], ..policy() };
    let answer = Helpers::new(declared).get("environment", &Host::new("r.io")).await.expect("an answer");
    assert_eq!(answer, Some(Credential::basic("/home/me clean 1 get", "p")));
}

#[tokio::test]
async fn a_hanging_helper_and_its_children_are_killed() {
    let dir = TempDir::new().expect("a directory");
    let pid_file = dir.path().join("pid");
    let hang = HelperPolicy {
        timeout: Duration::from_millis(500),
        environment: vec![("PIDFILE".into(), pid_file.clone().into())],
        ..policy()
    };
    let started = Instant::now();
    let error = Helpers::new(hang).get("hang", &Host::new("r.io")).await.expect_err("it hangs");
    assert!(matches!(error, HelperError::Timeout { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    let child = fs::read_to_string(&pid_file).expect("the child was started");
    let stat = PathBuf::from(format!("/proc/{}/stat", child.trim()));
    let deadline = Instant::now() + Duration::from_secs(5);
    // Dead means gone, or waiting for its new parent to notice.
    while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "the child is still alive");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_answer_serves_until_it_is_refused_or_old() {
    let dir = TempDir::new().expect("a directory");
    let count = dir.path().join("count");
    let counting = HelperPolicy { environment: vec![("COUNT".into(), count.clone().into())], ..policy() };
    let runs = || fs::read_to_string(&count).map_or(0, |text| text.lines().count());
    let helpers = Helpers::new(counting);
    let host = Host::new("r.io");
    let (a, b) = tokio::join!(helpers.get("counted", &host), helpers.get("counted", &host));
    assert!(a.is_ok() && b.is_ok());
    helpers.get("counted", &host).await.expect("an answer");
    assert_eq!(runs(), 1, "callers share one run");
    assert!(helpers.forget(&host) && !helpers.forget(&host));
    helpers.get("counted", &host).await.expect("an answer");
    assert_eq!(runs(), 2, "a refused answer is asked for again");
    tokio::time::pause();
    tokio::time::advance(HELPER_CACHE).await;
    tokio::time::resume();
    helpers.get("counted", &host).await.expect("an answer");
    assert_eq!(runs(), 3, "an old answer is asked for again");
}

#[tokio::test]
async fn the_policy_decides_whether_a_named_helper_runs() {
    let dir = TempDir::new().expect("a directory");
    let text = r#"{"auths":{"r.io":{"auth":"ZmlsZTpw"},"s.io":{"auth":"ZmlsZTpw"}},
                   "credHelpers":{"r.io":"plain"},"credsStore":"token"}"#;
    fs::write(dir.path().join("config.json"), text).expect("a file");
    let listed = |names: &[&str]| WhichHelpers::Listed(names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>());
    // Policy, rules, image; kind and user of the credentials, number of reports.
    let table: [(WhichHelpers, Mode, &str, &[&str], usize); 7] = [
        (WhichHelpers::None, Mode::Windlass, "r.io/a", &["basic file"], 1),
        (WhichHelpers::AnyNamed, Mode::Windlass, "r.io/a", &["basic r.io"], 0),
        (WhichHelpers::AnyNamed, Mode::Windlass, "s.io/a", &["identity_token -"], 0),
        (WhichHelpers::AnyNamed, Mode::Kubelet, "r.io/a", &["basic file"], 0),
        (listed(&["plain"]), Mode::Windlass, "r.io/a", &["basic r.io"], 0),
        (listed(&["plain"]), Mode::Windlass, "s.io/a", &["basic file"], 0),
        (listed(&["other"]), Mode::Windlass, "r.io/a", &["basic file"], 1),
    ];
    for (which, mode, image, want, reports) in table {
        let sources = CredentialSources::builder()
            .node(NodePlaces { config_json: vec![dir.path().to_owned()], dockercfg: Vec::new() })
            .helpers(HelperPolicy { which: which.clone(), ..policy() })
            .build();
        let image = Reference::parse(image).expect("an image name");
        let lookup = sources.candidates(&image, &[], mode).await.expect("a lookup");
        let found: Vec<String> = lookup
            .candidates
            .iter()
            .map(|c| format!("{} {}", c.credential.kind(), c.credential.username().unwrap_or("-")))
            .collect();
        assert_eq!(found, want, "{which:?} {mode:?} {image:?}");
        assert_eq!(lookup.skipped.len(), reports, "{which:?} {mode:?}: {:?}", lookup.skipped);
        assert!(!format!("{sources:?} {lookup:?}").contains("canary"));
    }
}
