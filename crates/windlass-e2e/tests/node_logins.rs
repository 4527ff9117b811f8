//! Images of a real node that take a login which somebody has to be asked for.
//!
//! One cluster: its kubelet asks our provider of Amazon's logins, by the oldest version of the protocol, against the
//! fakes of the test kit; the daemon asks a script as other people write them, and a cloud that is built in. All three
//! hosts lead to one registry, whose log says who came.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use windlass_e2e::cases;
use windlass_e2e::cluster::cases::try_all;
use windlass_e2e::cluster::pods::Pod;
use windlass_e2e::cluster::{Cluster, Images, Options};
use windlass_e2e::world::subject;
use windlass_testkit::canary::Canary;
use windlass_testkit::clouds::{Clouds, ECR_HOST, ECR_USER, GAR_HOST, GOOGLE_USER, Service, Way};
use windlass_testkit::images::{Entry, Image, Layer};
use windlass_testkit::program::{Then, program};

/// A registry whose logins a script has.
const SCRIPT_HOST: &str = "registry.script.example";
/// The login that it gives.
const SCRIPT_USER: &str = "robot";
/// Its password.
const SCRIPT_PASSWORD: &str = "password-of-the-script";
/// The marker's place.
const MARKER: &str = "/etc/marker";

/// The cluster and the clouds.
struct Scene {
    cluster: Cluster,
    clouds: Clouds,
    folder: PathBuf,
}

impl Scene {
    /// Runs a pod of an image under a host; nobody gave it a secret.
    fn run(&self, case: &str, host: &str) {
        self.cluster.namespace(case);
        self.clouds.place(&image(case).bundle(), case, "v1");
        let status = self.cluster.run_pod(&Pod::new(case, "app", &format!("{host}/{case}:v1")));
        assert_eq!(self.cluster.read_in(&status, MARKER), case.as_bytes());
    }

    /// Who came for a repository's manifests and blobs.
    fn who_came(&self, repository: &str) -> Vec<String> {
        let requests = self.clouds.registry().requests().into_iter();
        let served = requests.filter(|r| r.repository.as_deref() == Some(repository) && r.status.is_success());
        let mut who: Vec<String> = served.map(|r| r.identity.unwrap_or_default()).collect();
        who.dedup();
        who
    }
}

/// A program that stays, and a marker.
fn image(marker: &str) -> Image {
    let app = Layer::new([Entry::file("app", program("", Then::Stays)).mode(0o755)]);
    let marked = Layer::new([Entry::dir("etc"), Entry::file(&MARKER[1..], marker)]);
    Image::build().layer(app).layer(marked).config(json!({ "Entrypoint": ["/app"] })).finish()
}

/// A kubelet's configuration of one provider.
fn provider_config(version: &str, provider: &Json) -> String {
    let mut provider = provider.clone();
    provider["apiVersion"] = format!("credentialprovider.kubelet.k8s.io/{version}").into();
    provider["defaultCacheDuration"] = "1m".into();
    json!({
        "apiVersion": format!("kubelet.config.k8s.io/{version}"),
        "kind": "CredentialProviderConfig",
        "providers": [provider],
    })
    .to_string()
}

/// Tells a kubelet of our provider.
fn tell_kubelet(options: &mut Options, folder: &Path, clouds: &Clouds) {
    symlink(subject(), folder.join("ecr-credential-provider")).expect("a link");
    let setup = clouds.setup(Way::AwsInstance);
    let env: Vec<Json> = setup.environment.iter().map(|(n, v)| json!({ "name": n, "value": v })).collect();
    let config = folder.join("kubelet-providers.yaml");
    let provider = json!({
        "name": "ecr-credential-provider",
        "matchImages": ["*.dkr.ecr.*.amazonaws.com"],
        "args": setup.arguments,
        "env": env,
    });
    fs::write(&config, provider_config("v1alpha1", &provider)).expect("a file");
    options.kubelet = json!({ "featureGates": { "KubeletCredentialProviders": true } });
    options.kubelet_arguments = vec![
        format!("--image-credential-provider-config={}", config.display()),
        format!("--image-credential-provider-bin-dir={}", folder.display()),
    ];
    // This kubelet has a client of Amazon's built in as well, which must not look for an instance here.
    options.kubelet_environment = vec![("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned())];
}

/// Tells the daemon of a script and of Google.
fn tell_daemon(options: &mut Options, folder: &Path, clouds: &Clouds) {
    clouds.users().admit(SCRIPT_USER, SCRIPT_PASSWORD.into(), None);
    let programs = folder.join("programs");
    fs::create_dir(&programs).expect("a directory");
    let script = programs.join("company-login");
    let answer = json!({
        "kind": "CredentialProviderResponse",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "cacheKeyType": "Registry",
        "cacheDuration": "10m",
        "auth": { SCRIPT_HOST: { "username": SCRIPT_USER, "password": SCRIPT_PASSWORD } },
    });
    let text = format!("#!/bin/sh\ncat >> '{0}/asked'\necho >> '{0}/asked'\necho '{answer}'\n", folder.display());
    fs::write(&script, text).expect("a file");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a mode");
    let config = folder.join("daemon-providers.yaml");
    let provider = json!({ "name": "company-login", "matchImages": ["*.script.example"] });
    fs::write(&config, provider_config("v1", &provider)).expect("a file");
    options.sections = json!({
        "hostsDir": [folder.join("certs.d")],
        "credentials": { "providerConfig": config, "providerBinDir": programs, "gcp": "on" },
    });
    options.node_environment = clouds.setup(Way::GoogleMachine).environment;
}

fn a_pod_runs_by_the_login_that_the_kubelet_asked_our_provider_for(scene: &Scene) {
    scene.run("kubelet-asks", ECR_HOST);
    assert_eq!(scene.who_came("kubelet-asks"), [ECR_USER]);
    let calls = scene.clouds.calls();
    let token = calls.iter().find(|call| call.service == Service::Ecr).expect("a token was asked for");
    assert_eq!((token.status, token.who.as_deref()), (200, Some("assumed-role/node-role/i-0123456789abcdef0")));
    assert_eq!(token.signed.as_ref().map(|signed| signed.region.as_str()), Some("eu-central-1"));
}

fn a_pod_runs_by_the_login_that_the_daemon_asked_a_script_for(scene: &Scene) {
    scene.run("script-first", SCRIPT_HOST);
    scene.run("script-second", SCRIPT_HOST);
    assert_eq!(scene.who_came("script-first"), [SCRIPT_USER]);
    assert_eq!(scene.who_came("script-second"), [SCRIPT_USER]);
    let asked = fs::read_to_string(scene.folder.join("asked")).expect("it was asked");
    let requests: Vec<Json> = asked.lines().map(|line| serde_json::from_str(line).expect("a request")).collect();
    let [request] = &requests[..] else { panic!("its answer holds for ten minutes: {asked}") };
    assert_eq!(request["kind"], "CredentialProviderRequest");
    assert_eq!(request["apiVersion"], "credentialprovider.kubelet.k8s.io/v1");
    assert_eq!(request["image"], format!("{SCRIPT_HOST}/script-first"), "without its tag, as a kubelet asks");
}

fn a_pod_runs_by_the_login_of_a_cloud_that_is_built_in(scene: &Scene) {
    scene.run("built-in", GAR_HOST);
    assert_eq!(scene.who_came("built-in"), [GOOGLE_USER]);
}

/// A folder with a `certs.d` that leads every host to the registry.
fn folder(clouds: &Clouds) -> PathBuf {
    let folder = clouds.folder().join("node");
    fs::create_dir(&folder).expect("a directory");
    let certs = folder.join("certs.d");
    clouds.write_hosts(&certs);
    fs::create_dir(certs.join(SCRIPT_HOST)).expect("a directory");
    fs::write(certs.join(SCRIPT_HOST).join("hosts.toml"), clouds.hosts_toml()).expect("a file");
    folder
}

#[test]
fn pods_of_a_kubelet_run_by_logins_that_were_asked_for() {
    let clouds = Clouds::start();
    let folder = folder(&clouds);
    let mut options = Options::new(Images::Windlass);
    tell_kubelet(&mut options, &folder, &clouds);
    tell_daemon(&mut options, &folder, &clouds);
    let test = "pods_of_a_kubelet_run_by_logins_that_were_asked_for";
    let Some(cluster) = Cluster::start(test, &options) else { return };
    let scene = Scene { cluster, clouds, folder };
    try_all(
        &scene,
        &cases![
            a_pod_runs_by_the_login_that_the_kubelet_asked_our_provider_for,
            a_pod_runs_by_the_login_that_the_daemon_asked_a_script_for,
            a_pod_runs_by_the_login_of_a_cloud_that_is_built_in,
        ],
    );
    let told = scene.cluster.kubectl(["get", "pods,events", "-A", "-o", "json"]).output().expect("kubectl");
    for secret in scene.clouds.secrets().iter().map(String::as_str).chain([SCRIPT_PASSWORD]) {
        let canary = Canary::new(secret);
        canary.assert_absent("what the API server says of pods", &told.stdout);
        canary.assert_absent("the daemon's log", scene.cluster.node_output());
    }
}

#[test]
fn containerd_pulls_for_a_kubelet_by_the_login_that_our_provider_gives() {
    let clouds = Clouds::start();
    let folder = folder(&clouds);
    let mut options = Options::new(Images::Containerd);
    tell_kubelet(&mut options, &folder, &clouds);
    options.certs_dir = Some(folder.join("certs.d"));
    let test = "containerd_pulls_for_a_kubelet_by_the_login_that_our_provider_gives";
    let Some(cluster) = Cluster::start(test, &options) else { return };
    let scene = Scene { cluster, clouds, folder };
    try_all(&scene, &cases![a_pod_runs_by_the_login_that_the_kubelet_asked_our_provider_for]);
}
