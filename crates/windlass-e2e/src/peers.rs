//! Other tools' view of an image: podman's storage, umoci's unpacked tree, containerd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use windlass_testkit::tools::{Daemon, Sandbox, Tool, run};

/// Longest wait for containerd's socket.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// An image that podman has mounted; unmounted when dropped.
#[derive(Debug)]
pub struct PodmanMount<'s> {
    sandbox: &'s Sandbox,
    image: String,
    at: PathBuf,
}

impl<'s> PodmanMount<'s> {
    /// Mounts an image of podman's storage.
    pub fn new(sandbox: &'s Sandbox, image: &str) -> PodmanMount<'s> {
        let output = run(&mut sandbox.podman(["image", "mount", image]));
        let at = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        PodmanMount { sandbox, image: image.to_owned(), at }
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for PodmanMount<'_> {
    fn drop(&mut self) {
        // The storage goes with the sandbox; a mount of vfs is no mount of the kernel's.
        let _unmounted = self.sandbox.podman(["image", "unmount", "--force", &self.image]).output();
    }
}

/// Pulls an image over plain HTTP into podman's storage; returns its ID.
pub fn podman_pull(sandbox: &Sandbox, reference: &str) -> String {
    let output = run(&mut sandbox.podman(["pull", "--quiet", "--tls-verify=false", reference]));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Copies an image with skopeo over plain HTTP, its bytes untouched.
pub fn skopeo_copy(sandbox: &Sandbox, from: &str, to: &str) {
    run(&mut sandbox.skopeo([
        "copy",
        "--preserve-digests",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        from,
        to,
    ]));
}

/// Unpacks an image with umoci from a layout; returns the root of the tree.
pub fn umoci_unpack(sandbox: &Sandbox, layout: &Path, tag: &str, bundle: &Path) -> PathBuf {
    let image = format!("{}:{tag}", layout.display());
    run(sandbox.command("umoci").args(["unpack", "--image", &image]).arg(bundle));
    bundle.join("rootfs")
}

/// Extracts a tar stream with GNU tar into a new directory.
pub fn gnu_extract(sandbox: &Sandbox, stream: &[u8], to: &Path) {
    fs::create_dir(to).expect("a directory");
    let file = sandbox.path("stream.tar");
    fs::write(&file, stream).expect("a file");
    let words = ["--extract", "--preserve-permissions", "--same-owner", "--numeric-owner", "--xattrs", "--file"];
    run(sandbox.command("tar").args(words).arg(file).arg("--directory").arg(to));
}

/// containerd with everything in a temporary directory.
#[derive(Debug)]
pub struct Containerd {
    socket: PathBuf,
    _daemon: Daemon,
    _dir: tempfile::TempDir,
}

impl Containerd {
    /// Starts it; `None`, said loudly, when it or its client is not installed.
    pub fn start(test: &str) -> Option<Containerd> {
        let program = Tool::Containerd.find(test)?;
        Tool::Ctr.find(test)?;
        // Sockets have short paths.
        let dir = tempfile::Builder::new().prefix("cd").tempdir().expect("a temporary directory");
        let socket = dir.path().join("c.sock");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{}\"\n",
            path("root"),
            path("state"),
            socket.display()
        );
        fs::write(dir.path().join("config.toml"), config).expect("a file");
        let mut command = Command::new(program);
        command.arg("--config").arg(dir.path().join("config.toml"));
        command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("TMPDIR", dir.path());
        let daemon = Daemon::start(command, &dir.path().join("log"));
        let deadline = Instant::now() + START_LIMIT;
        while !Command::new("ctr")
            .arg("--address")
            .arg(&socket)
            .arg("version")
            .output()
            .is_ok_and(|o| o.status.success())
        {
            assert!(Instant::now() < deadline, "containerd does not answer:\n{}", daemon.output());
            std::thread::sleep(LOOK_PAUSE);
        }
        Some(Containerd { socket, _daemon: daemon, _dir: dir })
    }

    /// Its client with these arguments.
    pub fn ctr<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(args);
        command
    }
}
