//! Secrets from every source go to the registry and to nowhere else: no argument, no environment of a child, no log, no
//! error, no metric, no file, no core.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::json;
use windlass_e2e::node::LoneNode;
use windlass_e2e::world::{World, answer};
use windlass_registry::access::Action;
use windlass_testkit::canary::Canary;
use windlass_testkit::images::small;
use windlass_testkit::registry::TestRegistry;
use windlass_testkit::tools::Tool;

/// One secret for each place where one may stand, each to be told from the others.
struct Secrets {
    /// In a pod's secret; wrong.
    pod: Canary,
    /// In the user's docker file; wrong.
    file: Canary,
    /// Given by a program; the one that the registry takes.
    plugin: Canary,
    /// A service account's token, shown to the program.
    token: Canary,
}

impl Secrets {
    fn new() -> Secrets {
        Secrets {
            pod: Canary::new("pod-Tr0ub4dor&3"),
            file: Canary::new("file-c0rrecthorse"),
            plugin: Canary::new("plugin-b4tterystaple"),
            token: Canary::new("token-f00bAr+bAz"),
        }
    }

    fn all(&self) -> [&Canary; 4] {
        [&self.pod, &self.file, &self.plugin, &self.token]
    }

    #[track_caller]
    fn assert_absent(&self, what: &str, bytes: impl AsRef<[u8]>) {
        self.all().iter().for_each(|canary| canary.assert_absent(what, bytes.as_ref()));
    }
}

/// A registry that takes the program's login alone, and a machine that has logins from everywhere.
struct Scene {
    registry: TestRegistry,
    image: String,
    world: World,
    secrets: Secrets,
}

impl Scene {
    fn new() -> Scene {
        let secrets = Secrets::new();
        let registry =
            TestRegistry::build().basic().user("robot", secrets.plugin.secret(), "team/**", &[Action::Pull]).start();
        let image = registry.place(&small("one").bundle(), "team/app", "1");
        let world = World::new();
        let scene = Scene { registry, image, world, secrets };
        scene.provider();
        scene.files();
        scene
    }

    /// A program that gives the login, says it on standard error, too, and then waits in a child of its own.
    fn provider(&self) {
        let host = self.registry.host();
        let answer = json!({
            "kind": "CredentialProviderResponse",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "cacheKeyType": "Registry",
            "cacheDuration": "1h",
            "auth": { &host: { "username": "robot", "password": self.secrets.plugin.secret() } },
        });
        self.world.make_dir("bin");
        self.world.write("bin/answer.json", answer.to_string());
        let folder = self.world.path("bin");
        let script = format!(
            "#!/bin/sh\ncat > /dev/null\ngrep -o '\"password\":.*' {0}/answer.json >&2\ncat {0}/answer.json\n",
            folder.display()
        );
        let program = self.world.write("bin/teller", script);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
        let providers = json!({
            "apiVersion": "kubelet.config.k8s.io/v1",
            "kind": "CredentialProviderConfig",
            "providers": [{
                "name": "teller",
                "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
                "defaultCacheDuration": "10m",
                "matchImages": [host],
                "tokenAttributes": {
                    "serviceAccountTokenAudience": "registry",
                    "cacheType": "ServiceAccount",
                    "requireServiceAccount": false,
                },
            }],
        });
        self.world.write("providers.json", providers.to_string());
    }

    fn files(&self) {
        let login = |canary: &Canary| json!({ "auths": { self.registry.host(): { "username": "somebody", "password": canary.secret() } } });
        self.world.make_dir("home/.docker");
        let file = self.world.write("home/.docker/config.json", login(&self.secrets.file).to_string());
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("a mode");
        self.world.make_dir("tokens");
        self.world.make_dir("tokens/team-a");
        self.world.write("tokens/team-a/default", self.token());
        let pod = json!({
            "apiVersion": "v1",
            "kind": "List",
            "items": [
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": { "name": "regcred", "namespace": "team-a" },
                    "type": "kubernetes.io/dockerconfigjson",
                    "stringData": { ".dockerconfigjson": login(&self.secrets.pod).to_string() },
                },
                {
                    "apiVersion": "v1",
                    "kind": "ServiceAccount",
                    "metadata": { "name": "default", "namespace": "team-a" },
                },
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": { "name": "web", "namespace": "team-a" },
                    "spec": {
                        "imagePullSecrets": [{ "name": "regcred" }],
                        "containers": [{ "name": "a", "image": self.image }],
                    },
                },
            ],
        });
        self.world.write("pod.json", pod.to_string());
    }

    /// A token in the form of a JWT, for the program's audience and valid for long.
    fn token(&self) -> String {
        use base64::Engine as _;
        let part = |json: serde_json::Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string());
        let claims = json!({
            "aud": ["registry"],
            "exp": 4_000_000_000_u64,
            "sub": "system:serviceaccount:team-a:default",
        });
        format!("{}.{}.{}", part(json!({ "alg": "none" })), part(claims), self.secrets.token.secret())
    }

    fn logins(&self) -> serde_json::Value {
        json!({
            "providerConfig": self.world.path("providers.json"),
            "providerBinDir": self.world.path("bin"),
            "serviceAccountTokens": self.world.path("tokens"),
        })
    }

    fn configuration(&self) -> String {
        let head = json!({
            "apiVersion": "config.windlass.dev/v1alpha1",
            "kind": "NodeConfiguration",
            "credentials": self.logins(),
        });
        head.to_string()
    }

    /// What the program wrote beside what it was given.
    fn assert_no_file_holds_a_secret(&self) {
        let given = ["bin/answer.json", "home/.docker/config.json", "pod.json", "tokens/team-a/default"];
        let given: Vec<_> = given.iter().map(|name| self.world.path(name)).collect();
        for canary in self.secrets.all() {
            let found: Vec<_> =
                canary.files_with(self.world.folder()).into_iter().filter(|path| !given.contains(path)).collect();
            assert!(found.is_empty(), "a secret is in {found:?}");
        }
    }
}

/// Lines of a trace that are about this system call.
fn calls<'t>(trace: &'t str, name: &str) -> impl Iterator<Item = &'t str> {
    let begins = format!("{name}(");
    trace.lines().filter(move |line| line.contains(&begins))
}

#[test]
fn secrets_are_in_no_argument_environment_file_or_output() {
    let Some(strace) = Tool::Strace.find("secrets_are_in_no_argument_environment_file_or_output") else { return };
    let scene = Scene::new();
    scene.world.write("node.json", scene.configuration());
    let trace = scene.world.path("trace");
    let inner = scene.world.command(["ensure", "-f", "pod.json", "--config", "node.json", "-o", "json"]);
    let mut command = Command::new(strace);
    command.args(["-f", "-v", "-s", "1000000", "-e", "trace=execve,openat,open,creat,mkdir,mkdirat", "-o"]).arg(&trace);
    command.arg(inner.get_program()).args(inner.get_args()).env_clear().current_dir(scene.world.folder());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("WINDLASS_LOG_LEVEL", "trace");
    let answer = answer(command, None);
    assert_eq!(answer.code(), Some(0), "{answer}");
    assert!(answer.stderr.contains("TRACE") || answer.stderr.contains("DEBUG"), "the log is on: {answer}");
    scene.secrets.assert_absent("the output", format!("{}{}", answer.stdout, answer.stderr));
    let trace = fs::read_to_string(&trace).expect("a trace");
    let started: Vec<&str> = calls(&trace, "execve").collect();
    assert!(started.iter().any(|line| line.contains("bin/teller")), "{started:?}");
    scene.secrets.assert_absent("the arguments and environment of a program", started.join("\n"));
    // Whatever is made below the store is the owner's alone.
    let store = scene.world.root().display().to_string();
    let mut made = 0;
    for line in calls(&trace, "openat").filter(|line| line.contains("O_CREAT")) {
        let mode = line.rsplit(", ").next().and_then(|tail| tail.split(')').next()).expect("a mode");
        let mode = u32::from_str_radix(mode.trim_start_matches('0'), 8).unwrap_or(0);
        // The trial of what the kernel can mount has nothing of anybody's in it.
        if !line.contains("/dev/null") && !line.contains("/e/probe/") {
            assert_eq!(mode & 0o077, 0, "others may read {line}");
            made += 1;
        }
    }
    assert!(made > 0, "files of {store} are in the trace");
    fs::remove_file(scene.world.path("trace")).expect("a file");
    scene.assert_no_file_holds_a_secret();
}

#[test]
fn errors_that_name_every_source_name_no_secret() {
    let scene = Scene::new();
    scene.world.write("node.json", scene.configuration());
    let denied = scene.registry.place(&small("two").bundle(), "others/app", "1");
    for words in [
        &["pull", denied.as_str(), "--config", "node.json"][..],
        &["pull", denied.as_str(), "--config", "node.json", "-o", "json"],
        &["credentials", denied.as_str(), "--config", "node.json", "--verify", "-f", "pod.json"],
        &["credentials", scene.image.as_str(), "--config", "node.json", "--verify", "-f", "pod.json"],
    ] {
        let answer = scene.world.run(words);
        scene.secrets.assert_absent("an error", format!("{}{}", answer.stdout, answer.stderr));
    }
    let answer = scene.world.run(["pull", &denied, "--config", "node.json"]);
    for source in ["plugin teller", "config.json", "anonymous"] {
        assert!(answer.stderr.contains(source), "{source}: {answer}");
    }
}

#[test]
fn a_daemon_shows_no_secret_and_leaves_no_core() {
    let scene = Scene::new();
    let denied = scene.registry.place(&small("two").bundle(), "others/app", "1");
    let (image, logins) = (scene.image.clone(), scene.logins());
    let Scene { world, secrets, registry, .. } = scene;
    let node = LoneNode::configured(world, json!({ "credentials": logins, "log": { "level": "trace" } }));
    let ask = |words: &[&str]| {
        let words = words.iter().chain(&["--config", "node.yaml"]);
        node.world().run(words)
    };
    let service = windlass_e2e::cri::ImageService::at(node.socket());
    service.pull(&image).expect("the program's login is taken");
    let refused = service.pull(&denied).expect_err("nobody may");
    secrets.assert_absent("an answer of the CRI", format!("{refused:?}"));
    let status = ask(&["status", "-o", "json"]);
    assert!(status.stdout.contains("plugin teller") && status.stdout.contains("others/app"), "{status}");
    secrets.assert_absent("the status", &status.stdout);
    for path in ["/metrics", "/status.json", "/", "/readyz?verbose"] {
        let text = get(node.metrics_address(), path);
        assert!(text.starts_with("HTTP/1.1 200"), "{path}: {text}");
        secrets.assert_absent(path, &text);
    }
    let metrics = get(node.metrics_address(), "/metrics");
    assert!(
        metrics.contains("windlass_credential_provider_requests_total{kind=\"plugin\",name=\"teller\"} 1"),
        "{metrics}"
    );
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.pid())).expect("procfs");
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(cores.split_whitespace().nth(4), Some("0"), "{cores}");
    let environment = fs::read(format!("/proc/{}/environ", node.pid())).expect("procfs");
    secrets.assert_absent("the environment", environment);
    secrets.assert_absent("the log", node.output());
    drop(registry);
}

/// A page of the daemon.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the daemon listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}
