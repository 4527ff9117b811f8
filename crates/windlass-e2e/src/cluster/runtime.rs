//! containerd with everything in the cluster's folder, and the image of the sandboxes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use windlass_testkit::images::{Entry, Image, Layer};
use windlass_testkit::program::{Then, program};
use windlass_testkit::tools::run;

use super::Options;
use super::control::running_until;
use super::daemon::Daemon;
use super::enclosure::Enclosure;
use super::wait::until;
use crate::cri::ImageService;

/// Longest wait for containerd.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The sandboxes' image where it comes from an archive; no registry has it.
pub(super) const IMPORTED_SANDBOX_IMAGE: &str = "registry.local/pause:3.2";
/// containerd's directory of a container that runs, by its ID.
const TASKS: &str = "state/io.containerd.runtime.v2.task/k8s.io";

/// The running containerd.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) daemon: Daemon,
    pub(super) socket: PathBuf,
    folder: PathBuf,
    snapshotter: Option<&'static str>,
}

impl Runtime {
    /// Where its socket will be.
    pub(super) fn socket_in(folder: &Path) -> PathBuf {
        folder.join("containerd/c.sock")
    }

    /// Starts containerd, which takes its snapshots from `snapshotter` where there is one, a socket. The error says
    /// why it did not start.
    pub(super) fn start(
        enclosure: &Enclosure,
        folder: &Path,
        snapshotter: Option<&Path>,
        options: &Options,
    ) -> Result<Runtime, String> {
        let socket = Runtime::socket_in(folder);
        let folder = folder.join("containerd");
        fs::create_dir_all(folder.join("cni")).expect("a directory");
        if snapshotter.is_some() {
            // containerd 1.6 asks the file system of this directory for the capacity of containers' root directories.
            fs::create_dir_all(folder.join("root/io.containerd.snapshotter.v1.windlass")).expect("a directory");
        }
        fs::write(folder.join("config.toml"), config(&folder, snapshotter, options)).expect("a file");
        // Pods of tests use the machine's network; the kubelet only wants to see that there is some network.
        let network = r#"{"cniVersion":"0.4.0","name":"lo","plugins":[{"type":"loopback"}]}"#;
        fs::write(folder.join("cni/10-lo.conflist"), network).expect("a file");
        let mut runtime = Runtime {
            daemon: Runtime::spawn(enclosure, &folder),
            socket,
            folder,
            snapshotter: snapshotter.map(|_| "windlass"),
        };
        runtime.wait()?;
        Ok(runtime)
    }

    fn spawn(enclosure: &Enclosure, folder: &Path) -> Daemon {
        let mut command = enclosure.command("containerd");
        command.arg("--config").arg(folder.join("config.toml"));
        Daemon::start("containerd", command, folder.parent().expect("the cluster's folder"))
    }

    fn wait(&mut self) -> Result<(), String> {
        let Runtime { daemon, socket, .. } = self;
        // Its client waits for ten seconds by itself, and nothing is asked of what is not there.
        let ready = || socket.exists() && ctr(socket).arg("version").output().is_ok_and(|o| o.status.success());
        running_until(daemon, START_LIMIT, ready)
    }

    /// Ends containerd as a crash does, and starts it again. Containers go on meanwhile.
    pub(super) fn restart(&mut self, enclosure: &Enclosure) {
        self.daemon.end(rustix::process::Signal::KILL);
        self.daemon = Runtime::spawn(enclosure, &self.folder);
        self.wait().unwrap_or_else(|why| panic!("containerd does not start again: {why}"));
    }

    /// Waits until its CRI knows an image that another hand gives it.
    pub(super) fn wait_for_image(&self, image: &str) -> Result<(), String> {
        let service = ImageService::at(&self.socket);
        let known = until(START_LIMIT, || service.status(image).ok().flatten());
        known.map(drop).ok_or_else(|| format!("containerd is not given {image}"))
    }

    /// Gives it the sandboxes' image from an archive.
    pub(super) fn import_sandbox_image(&self) {
        let archive = self.folder.join("pause.tar");
        sandbox_image().write_docker_archive(&archive, IMPORTED_SANDBOX_IMAGE);
        let mut command = ctr(&self.socket);
        command.args(["-n", "k8s.io", "images", "import"]);
        if let Some(snapshotter) = self.snapshotter {
            command.args(["--snapshotter", snapshotter]);
        }
        run(command.arg(&archive));
    }

    /// The containers that containerd has a directory of.
    pub(super) fn containers(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.folder.join(TASKS)) else { return Vec::new() };
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }
}

/// containerd's client.
pub(super) fn ctr(socket: &Path) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(socket).stdin(std::process::Stdio::null());
    command
}

/// A program that waits, and nothing else.
pub fn sandbox_image() -> Image {
    let pause = Entry::file("pause", program("", Then::Stays)).mode(0o755);
    let config = serde_json::json!({ "Entrypoint": ["/pause"], "User": "65535:65535" });
    Image::build().layer(Layer::new([pause])).config(config).finish()
}

fn config(folder: &Path, snapshotter: Option<&Path>, options: &Options) -> String {
    let (folder, sandbox_image) = (folder.display(), options.sandbox_image());
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    let mut text = format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
address = "{folder}/c.sock"
[{cri}]
sandbox_image = "{sandbox_image}"
disable_tcp_service = true
# Some machines do not let root lower what the kernel's out-of-memory killer counts.
restrict_oom_score_adj = true
[{cri}.cni]
bin_dir = "{folder}/cni"
conf_dir = "{folder}/cni"
"#
    );
    if let Some(certs) = &options.certs_dir {
        text.push_str(&format!("[{cri}.registry]\nconfig_path = \"{}\"\n", certs.display()));
    }
    if let Some(socket) = snapshotter {
        text.push_str(&format!(
            "[{cri}.containerd]\nsnapshotter = \"windlass\"\n\
             [proxy_plugins.windlass]\ntype = \"snapshot\"\naddress = \"{}\"\n",
            socket.display()
        ));
    }
    text
}
