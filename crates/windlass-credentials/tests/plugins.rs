//! Programs that a configuration names, good and bad: the protocol, its bounds, and configurations that change.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use support::{Plugin, Scene, answer, ask, document, entry, failure, image, is_gone, users};
use windlass_core::keyring::{DOCKERCONFIGJSON, Mode, Origin, PullSecret};
use windlass_core::reason::Reason;
use windlass_core::secret::Secret;
use windlass_credentials::{
    Asked, CredentialSources, CredentialsError, Matched, PluginConfigError, ProviderKind, RefusedOutcome,
};

fn one<'a>(more: &'a str, script: &'a str) -> Plugin<'a> {
    Plugin { name: "p", more, script }
}

#[tokio::test]
async fn a_plugin_is_asked_as_a_kubelet_asks_it() {
    let login = answer(r#""cacheKeyType":"Registry","auth":{"r.io":{"username":"$VAR $1 $2","password":"p"}}"#);
    let script = format!(r#"cat > "$DIR/request"; pwd > "$DIR/pwd"; {login}"#);
    let more = "args: [get, 'a b']\nenv: [{name: VAR, value: declared}, {name: PATH, value: /usr/bin:/bin}]";
    let scene = Scene::new(&[one(more, &script)]);
    let lookup = ask(&scene.builder().build(), "r.io/team/app:v1").await;
    assert_eq!(users(&lookup), ["declared get a b"]);
    let request = fs::read_to_string(scene.path("request")).expect("a request");
    let want = r#"{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"r.io/team/app"}"#;
    assert_eq!(request, want);
    let note = &lookup.providers[0];
    assert_eq!((note.title().as_str(), note.kind), ("plugin p", ProviderKind::Plugin));
    assert_eq!(note.matched, Matched::Pattern("*.io".to_owned()));
    assert_eq!((&note.asked, note.exit_status.as_str()), (&Asked::Answered, "exit status: 0"));
    assert_eq!((note.cache_key.as_str(), note.keys.as_slice()), ("registry r.io", &["r.io".to_owned()][..]));
    assert!(note.expires_in.is_some_and(|left| left > Duration::from_secs(3500)), "{note:?}");
    assert_eq!(lookup.candidates[0].origin, Origin::Plugin { name: "p".to_owned() });
}

#[tokio::test]
async fn what_a_plugin_does_wrong_is_named() {
    let auth = r#""cacheKeyType":"Image","auth":{"r.io":{"username":"u","password":"canary"}}"#;
    let other = answer(auth).replace("k8s.io/v1", "k8s.io/v1beta1");
    let unknown = answer(&format!(r#"{auth},"more":1"#));
    let empty = answer(&auth.replace(r#""Image""#, r#""""#));
    let twice = answer(&format!(r#"{auth},"auth":{{}}"#));
    let table: [(&str, &str, Reason); 11] = [
        (
            &other,
            "its answer has apiVersion \"credentialprovider.kubelet.k8s.io/v1beta1\", and the configuration says credentialprovider.kubelet.k8s.io/v1",
            Reason::InvalidConfig,
        ),
        (
            &unknown,
            "its answer cannot be read: it has a field that the protocol does not know",
            Reason::InvalidCredentials,
        ),
        (&twice, "its answer cannot be read: a field stands twice", Reason::InvalidCredentials),
        (&empty, "its answer has cacheKeyType \"\", and not Image, Registry or Global", Reason::InvalidCredentials),
        ("exit 0", "it printed no answer", Reason::InvalidCredentials),
        ("echo canary", "its answer is not a JSON object", Reason::InvalidCredentials),
        ("exec yes canary", "it wrote more than 1048576 bytes", Reason::InvalidCredentials),
        ("echo no identity >&2; exit 3", "it ended with exit status: 3: no identity", Reason::InvalidCredentials),
        ("echo one >&2; echo two >&2; exit 1", "it ended with exit status: 1: one | two", Reason::InvalidCredentials),
        ("kill -9 $$", "it ended with signal: 9 (SIGKILL)", Reason::InvalidCredentials),
        (
            "echo sorry >&2; echo '{}'",
            "its answer has apiVersion \"\", and the configuration says credentialprovider.kubelet.k8s.io/v1: sorry",
            Reason::InvalidConfig,
        ),
    ];
    for (script, want, reason) in table {
        let scene = Scene::new(&[one("", script)]);
        let lookup = ask(&scene.builder().build(), "r.io/app").await;
        assert_eq!(failure(&lookup), want, "{script}");
        assert!(matches!(&lookup.providers[0].asked, Asked::Failed { reason: r, .. } if *r == reason), "{script}");
        assert_eq!((lookup.candidates.len(), lookup.skipped.len()), (0, 1), "the pull goes on without, {script}");
        assert_eq!(lookup.skipped[0].origin, Origin::Plugin { name: "p".to_owned() });
    }
}

#[tokio::test]
async fn no_secret_of_a_plugin_shows() {
    let login = answer(r#""cacheKeyType":"Image","auth":{"r.io":{"username":"u","password":"canary-answer"}}"#);
    let talk = r#"echo "got canary-answer and $KEY, password=canary-1 Bearer canary-2" >&2"#;
    let more = "env: [{name: KEY, value: canary-declared}]";
    for script in [format!("{talk}; {login}"), format!("{talk}; exit 1"), format!("{talk}; {login}; echo canary-3")] {
        let scene = Scene::new(&[one(more, &script)]);
        let sources = scene.builder().build();
        let lookup = ask(&sources, "r.io/app").await;
        let states = sources.provider_states();
        let note = &lookup.providers[0];
        assert!(note.stderr.starts_with("got "), "{note:?}");
        // What only the answer would have told is unknown where there is no answer.
        let shown = format!("{lookup:?} {sources:?} {states:?}");
        for secret in ["canary-declared", "canary-1", "canary-2", "canary-3"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
        assert!(lookup.candidates.is_empty() || !shown.contains("canary-answer"), "{shown}");
    }
}

#[tokio::test]
async fn a_hanging_plugin_and_its_children_are_killed() {
    let script = r#"echo waiting >&2; /bin/sleep 1000 & echo $! > "$DIR/child"; wait"#;
    for more in ["", "timeout: 1s"] {
        let scene = Scene::new(&[one(more, script)]);
        let mut settings = scene.settings();
        if more.is_empty() {
            settings.timeout = Duration::from_millis(700);
        }
        let started = Instant::now();
        let lookup = ask(&CredentialSources::builder().plugins(settings).build(), "r.io/app").await;
        let want = if more.is_empty() { "0.7" } else { "1" };
        assert_eq!(failure(&lookup), format!("it did not end within {want} s and was killed: waiting"));
        assert!(started.elapsed() < Duration::from_secs(10));
        let child = fs::read_to_string(scene.path("child")).expect("the child was started");
        let deadline = Instant::now() + Duration::from_secs(5);
        while !is_gone(&child) {
            assert!(Instant::now() < deadline, "the child is still alive");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_the_plugin_with_it() {
    let script = r#"echo $$ > "$DIR/pid.new"; mv "$DIR/pid.new" "$DIR/pid"; exec /bin/sleep 1000"#;
    let scene = Scene::new(&[one("", script)]);
    let sources = scene.builder().build();
    let started = async {
        while !scene.path("pid").exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        lookup = ask(&sources, "r.io/app") => panic!("it ended: {lookup:?}"),
        () = started => {}
    }
    let pid = fs::read_to_string(scene.path("pid")).expect("a process");
    let deadline = Instant::now() + Duration::from_secs(5);
    while !is_gone(&pid) {
        assert!(Instant::now() < deadline, "the plugin is still alive");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_child_that_keeps_standard_error_open_holds_nobody_up() {
    let login = answer(r#""cacheKeyType":"Image","auth":{"r.io":{"username":"u","password":"p"}}"#);
    let script = format!("/bin/sleep 30 >/dev/null & echo $! > \"$DIR/child\"; {login}");
    let scene = Scene::new(&[one("", &script)]);
    let started = Instant::now();
    assert_eq!(users(&ask(&scene.builder().build(), "r.io/app").await), ["u"]);
    assert!(started.elapsed() < Duration::from_secs(10));
    let child = fs::read_to_string(scene.path("child")).expect("a child");
    let pid = rustix::process::Pid::from_raw(child.trim().parse().expect("a number")).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is alive");
}

#[tokio::test]
async fn logins_of_plugins_come_after_secrets_in_the_kubelet_s_order() {
    let login = |user: &str, keys: &[&str]| {
        let keys: Vec<String> =
            keys.iter().map(|key| format!(r#""{key}":{{"username":"{user}","password":"p-{user}-{key}"}}"#)).collect();
        answer(&format!(r#""cacheKeyType":"Image","auth":{{{}}}"#, keys.join(",")))
    };
    let first = login("first", &["r.io", "other.io", "r.io/te"]);
    let second = login("second", &["*.io", "r.io", "https://r.io/v1/team"]);
    let scene = Scene::new(&[
        Plugin { name: "first", more: "", script: &first },
        Plugin { name: "silent", more: "matchImages: ['*.com']", script: "touch $DIR/ran; exit 1" },
        Plugin { name: "second", more: "", script: &second },
    ]);
    let secret = PullSecret {
        namespace: "ns".into(),
        name: "s".into(),
        uid: String::new(),
        r#type: DOCKERCONFIGJSON.into(),
        data: Secret::new(br#"{"auths":{"*.io":{"username":"secret","password":"p"}}}"#.to_vec()),
    };
    for mode in [Mode::Windlass, Mode::Kubelet] {
        let sources = scene.builder().build();
        let image = image("r.io/team/app");
        let lookup = sources.candidates(&image, std::slice::from_ref(&secret), mode).await.expect("a lookup");
        let found: Vec<String> =
            lookup.candidates.iter().map(|c| format!("{} {}", c.credential.username().unwrap_or("-"), c.key)).collect();
        let want =
            ["secret *.io", "second https://r.io/v1/team", "first r.io/te", "first r.io", "second r.io", "second *.io"];
        assert_eq!(found, want, "{mode:?}");
        assert!(!scene.path("ran").exists(), "a provider of other images is not run");
        let miss = vec![("*.com".to_owned(), "has another host".to_owned())];
        assert_eq!(lookup.providers[1].matched, Matched::None(miss));
    }
}

#[tokio::test]
async fn a_bad_configuration_tells_every_problem() {
    let scene = Scene::new(&[one("", "exit 1")]);
    scene.program("loose", "exit 1");
    fs::set_permissions(scene.bin().join("loose"), fs::Permissions::from_mode(0o777)).expect("a mode");
    scene.program("text", "exit 1");
    fs::set_permissions(scene.bin().join("text"), fs::Permissions::from_mode(0o644)).expect("a mode");
    let table: [(String, &[&str]); 5] = [
        (
            document(&[entry("p", "extra: 1\nmatchImages: ['a[b]']"), entry("p", "defaultCacheDuration: 60")]),
            &[
                "providers[0].matchImages[0] is not the pattern of a registry",
                "providers[0].extra is not a field of this version",
                "providers[1].defaultCacheDuration must be a text, and is a number",
                "providers[1].name stands twice",
            ],
        ),
        (
            document(&[entry("p", ""), entry("absent", ""), entry("loose", ""), entry("text", "")]),
            &[
                "provider absent has no program in ",
                "provider loose is not run: ",
                "provider text has a program that is not executable",
            ],
        ),
        ("kind: CredentialProviderConfig\nkind: x\n".to_owned(), &["is not a document of a configuration in line 2: "]),
        ("{".to_owned(), &["is not a document of a configuration"]),
        (String::new(), &["must be a map, and is nothing"]),
    ];
    for (text, want) in table {
        scene.write_config(&text);
        let sources = scene.builder().build();
        let error = sources.reload().expect_err("a bad configuration");
        let PluginConfigError::Wrong { problems, .. } = &*error else { panic!("{error:?}") };
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), want.len(), "{told:#?}");
        for (told, want) in told.iter().zip(want) {
            assert!(told.starts_with(want), "{told:?} does not begin with {want:?}");
        }
        let lookup = sources.candidates(&image("r.io/app"), &[], Mode::Windlass).await;
        assert!(matches!(lookup, Err(CredentialsError::Plugins(_))), "without any configuration nothing is tried");
    }
    fs::remove_file(scene.config()).expect("it was there");
    assert!(matches!(&*scene.builder().build().reload().expect_err("nothing"), PluginConfigError::Io { .. }));
}

#[tokio::test]
async fn reload_keeps_the_old_configuration() {
    let login = |user: &str| {
        let auth = format!(r#""cacheKeyType":"Image","auth":{{"r.io":{{"username":"{user}","password":"p"}}}}"#);
        format!("echo run >> \"$DIR/{user}\"; {}", answer(&auth))
    };
    let (old, new) = (login("old"), login("new"));
    let scene = Scene::new(&[Plugin { name: "old", more: "", script: &old }]);
    scene.program("new", &new);
    let sources = scene.builder().build();
    assert!(sources.reload().expect("a good one").changed);
    let hash = sources.provider_config().expect("one").hash;
    assert_eq!(users(&ask(&sources, "r.io/app").await), ["old"]);

    scene.write_config("nothing good");
    let lookup = ask(&sources, "r.io/app").await;
    assert_eq!(users(&lookup), ["old"], "the old one stays in use");
    assert!(lookup.skipped[0].why.starts_with("its latest change is not in use: "), "{:?}", lookup.skipped);
    assert!(sources.reload().is_err());
    let state = sources.provider_config().expect("one");
    assert!(state.refused.is_some() && state.hash == hash);

    scene.configure(&[entry("old", ""), entry("new", "")]);
    let lookup = ask(&sources, "r.io/app").await;
    assert_eq!(users(&lookup), ["old", "new"], "a good change is taken over without being asked for");
    assert_eq!(lookup.providers[0].asked, Asked::Cached, "what is configured as before keeps its answers");
    assert_eq!((scene.lines("old"), lookup.skipped.len()), (1, 0));
    let state = sources.provider_config().expect("one");
    assert!(state.refused.is_none() && state.hash != hash);

    scene.configure(&[entry("new", "")]);
    assert!(sources.reload().expect("a good one").changed);
    assert!(!sources.reload().expect("the same").changed);
    assert_eq!(users(&ask(&sources, "r.io/app").await), ["new"]);
}

#[tokio::test]
async fn a_directory_is_one_configuration() {
    let login = answer(r#""cacheKeyType":"Image","auth":{"r.io":{"username":"u","password":"p"}}"#);
    let scene =
        Scene::new(&[Plugin { name: "a", more: "", script: &login }, Plugin { name: "b", more: "", script: &login }]);
    let directory = scene.path("d");
    fs::create_dir_all(directory.join("nested.yaml")).expect("a directory");
    let mut settings = scene.settings();
    settings.config = directory.clone();
    let sources = CredentialSources::builder().plugins(settings).build();
    let names = || sources.provider_states().into_iter().map(|state| state.name).collect::<Vec<_>>();
    assert!(matches!(&*sources.reload().expect_err("no file"), PluginConfigError::NoFiles { .. }));
    let json = r#"{"kind":"CredentialProviderConfig","apiVersion":"kubelet.config.k8s.io/v1alpha1","providers":[
        {"name":"a","matchImages":["r.io"],"defaultCacheDuration":"0","apiVersion":"credentialprovider.kubelet.k8s.io/v1"}]}"#;
    fs::write(directory.join("20.json"), json).expect("a file");
    fs::write(directory.join("10.yml"), document(&[entry("b", "")])).expect("a file");
    fs::write(directory.join("05.conf"), "not read").expect("a file");
    sources.reload().expect("a good one");
    assert_eq!(names(), ["b", "a"]);
    fs::write(directory.join("30.yaml"), document(&[entry("a", "")])).expect("a file");
    let error = sources.reload().expect_err("a name stands twice").to_string();
    assert!(error.ends_with("30.yaml: providers[0].name stands twice"), "{error}");
    assert_eq!(names(), ["b", "a"]);
}

#[tokio::test]
async fn only_so_many_run_at_once() {
    // Each notes how many there are while it runs.
    let login = answer(r#""cacheKeyType":"Image","auth":{"r.io":{"username":"u","password":"p"}}"#);
    let script =
        format!("mkdir $DIR/live/$$; ls $DIR/live | wc -l >> $DIR/seen; sleep 0.05; rmdir $DIR/live/$$; {login}");
    let scene = Scene::new(&[one("", &script)]);
    fs::create_dir(scene.path("live")).expect("a directory");
    let sources = scene.builder().build();
    let images: Vec<String> = (0..40).map(|n| format!("r.io/{n}")).collect();
    let asks: Vec<_> = images.iter().map(|image| ask(&sources, image)).collect();
    let found = futures_util::future::join_all(asks).await;
    assert!(found.iter().all(|lookup| users(lookup) == ["u"]));
    let seen = fs::read_to_string(scene.path("seen")).expect("a list");
    let most = seen.lines().filter_map(|line| line.trim().parse::<usize>().ok()).max();
    assert!(most.is_some_and(|most| most <= 16) && seen.lines().count() == 40, "{seen}");
}

#[tokio::test]
async fn a_configuration_that_does_not_do_what_is_meant_is_told() {
    let login = answer(r#""cacheKeyType":"Image","auth":{"other.io":{"username":"u","password":"p"}}"#);
    let scene = Scene::new(&[one("matchImages: ['*.io/*', r.io]", &login)]);
    let lookup = ask(&scene.builder().build(), "r.io/app").await;
    let advice = &lookup.providers[0].advice;
    assert!(advice.starts_with("*.io/*: a * in the path stands for itself"), "{advice}");
    assert!(advice.ends_with("none of the keys that it answered with covers the image"), "{advice}");
    assert!(lookup.candidates.is_empty());
}

#[tokio::test]
async fn a_refused_login_is_traced_to_its_plugin() {
    let login = answer(r#""cacheKeyType":"Registry","auth":{"r.io":{"username":"u","password":"p"}}"#);
    let scene = Scene::new(&[one("", &format!("echo run >> $DIR/runs; {login}"))]);
    let sources = scene.builder().build();
    let lookup = ask(&sources, "r.io/app").await;
    let image = image("r.io/app");
    assert_eq!(sources.refused(&image, &lookup.candidates[0]), RefusedOutcome::Fresh);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60)).await;
    tokio::time::resume();
    assert_eq!(sources.refused(&image, &lookup.candidates[0]), RefusedOutcome::AskAgain);
    assert_eq!(ask(&sources, "r.io/app").await.providers[0].asked, Asked::Answered);
    assert_eq!(scene.lines("runs"), 2);
}
