//! The control plane: etcd, the API server and the controller manager, without a scheduler, since every pod of a test
//! names the one node itself.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use windlass_testkit::tools::free_port;

use super::daemon::Daemon;
use super::enclosure::Enclosure;
use super::wait::until;

/// Longest wait for a program of the control plane. The API server alone takes ten seconds of a busy processor.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Controllers that pods of tests need; the fewer, the quicker it starts.
const CONTROLLERS: &str = "serviceaccount,serviceaccount-token,namespace,garbagecollector,replicaset,deployment,podgc";

/// The running control plane.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) daemons: Vec<Daemon>,
    /// For the tests, as an administrator.
    pub(super) admin: PathBuf,
    /// For the kubelet.
    pub(super) node: PathBuf,
}

impl Control {
    /// Starts it and waits until the API server is ready. The error says which program did not start.
    pub(super) fn start(enclosure: &Enclosure, programs: &Path, folder: &Path) -> Result<Control, String> {
        let [clients, peers, secure, manager] = [(); 4].map(|()| free_port());
        let server = format!("https://127.0.0.1:{secure}");
        let admin = user(folder, "admin", &server);
        let node = user(folder, "node", &server);
        let tokens = format!(
            "{},admin,admin,\"system:masters\"\n{},system:node:{name},node,\"system:nodes,system:masters\"\n",
            admin.token,
            node.token,
            name = super::NODE
        );
        let tokens = private(folder, "tokens.csv", tokens.as_bytes());
        let (account_key, account_public) = account_keys(folder);
        let path = |name: &str| folder.join(name).display().to_string();

        let mut command = enclosure.command("etcd");
        let [clients, peers] = [clients, peers].map(|port| format!("http://127.0.0.1:{port}"));
        command.args(["--data-dir", &path("etcd"), "--log-level", "warn"]);
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.arg(format!("--initial-cluster=default={peers}"));
        let mut etcd = Daemon::start("etcd", command, folder);
        answers(&mut etcd, &clients)?;

        let mut command = enclosure.command(programs.join("kube-apiserver"));
        command.args([
            format!("--etcd-servers={clients}"),
            format!("--secure-port={secure}"),
            "--insecure-port=0".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--cert-dir={}", path("apiserver")),
            "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
            format!("--token-auth-file={}", tokens.display()),
            "--anonymous-auth=false".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            format!("--service-account-key-file={}", account_public.display()),
            format!("--service-account-signing-key-file={}", account_key.display()),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--allow-privileged=true".to_owned(),
        ]);
        let mut api = Daemon::start("kube-apiserver", command, folder);
        let ready =
            || kubectl(&admin.file).args(["get", "--raw", "/readyz"]).output().is_ok_and(|o| o.status.success());
        running_until(&mut api, START_LIMIT, ready)?;

        let mut command = enclosure.command(programs.join("kube-controller-manager"));
        command.arg("--kubeconfig").arg(&admin.file);
        command.arg("--service-account-private-key-file").arg(&account_key);
        command.args(["--leader-elect=false", "--bind-address=127.0.0.1", "--port=0"]);
        command.arg(format!("--controllers={CONTROLLERS}"));
        command.arg(format!("--secure-port={manager}")).arg(format!("--cert-dir={}", path("manager")));
        let manager = Daemon::start("kube-controller-manager", command, folder);
        Ok(Control { daemons: vec![etcd, api, manager], admin: admin.file, node: node.file })
    }
}

/// kubectl as the user of this file.
pub(super) fn kubectl(user: &Path) -> Command {
    let mut command = Command::new("kubectl");
    // Its cache of what the API server offers is kept beside the file.
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", user.parent().expect("a folder"));
    command.arg("--kubeconfig").arg(user).stdin(std::process::Stdio::null());
    command
}

/// Waits until `ready`, as long as the program runs.
pub(super) fn running_until(
    daemon: &mut Daemon,
    limit: Duration,
    mut ready: impl FnMut() -> bool,
) -> Result<(), String> {
    let result = until(limit, || match daemon.ended() {
        Some(status) => Some(Err(format!("it ended with {status}"))),
        None => ready().then_some(Ok(())),
    });
    result.unwrap_or(Err("it is not ready in time".to_owned())).map_err(|why| format!("{why}\n{}", daemon.shown()))
}

/// Waits until something takes connections at `url`.
fn answers(daemon: &mut Daemon, url: &str) -> Result<(), String> {
    let address = url.trim_start_matches("http://");
    running_until(daemon, START_LIMIT, || std::net::TcpStream::connect(address).is_ok())
}

struct User {
    token: String,
    file: PathBuf,
}

/// A kubeconfig with a new token.
fn user(folder: &Path, name: &str, server: &str) -> User {
    let token = secret();
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "c", "cluster": { "server": server, "insecure-skip-tls-verify": true } }],
        "users": [{ "name": "u", "user": { "token": token } }],
        "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "x",
    });
    let home = folder.join(name);
    fs::create_dir(&home).expect("a directory");
    let file = private(&home, "kubeconfig", text.to_string().as_bytes());
    User { token, file }
}

/// The pair of keys that service accounts' tokens are signed with.
fn account_keys(folder: &Path) -> (PathBuf, PathBuf) {
    let (private_pem, public_pem) = windlass_testkit::registry::key_pair();
    (private(folder, "accounts.key", private_pem.as_bytes()), private(folder, "accounts.pub", public_pem.as_bytes()))
}

/// A file for its owner only.
fn private(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    path
}

/// Nobody else on this machine may use the cluster, so its passwords are random.
fn secret() -> String {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).expect("random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
