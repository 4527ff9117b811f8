//! Namespaces around a cluster, so that nothing of it can outlive its test, however that ends.
//!
//! All programs of a cluster, their containers and mounts live in one process namespace and one mount namespace. The
//! first process of the namespaces dies with the [`Enclosure`] or with the thread that made it, be it by a panic or by
//! SIGKILL, and the kernel then kills everything inside and takes every mount away. What programs keep at fixed places
//! of the file system is covered by file systems in memory, so that several clusters and the machine's own services do
//! not see each other.
//!
//! Invariant: `nothing_survives_the_enclosure`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use windlass_testkit::tools::skipped;

use super::wait::until;

/// Longest wait for the namespaces.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Where kubelet, containerd, runc and CNI keep what no option moves: covered by file systems in memory.
const COVERED: [&str; 6] =
    ["/run/containerd", "/run/runc", "/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers"];
/// What makes the namespaces and enters them, all of util-linux.
const PROGRAMS: [&str; 4] = ["setpriv", "unshare", "nsenter", "mount"];
/// The only `PATH` inside, after the folder of the Kubernetes programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The namespaces; everything in them ends when this is dropped.
#[derive(Debug)]
pub struct Enclosure {
    /// In the caller's namespaces; its only child is the first process inside.
    outer: Child,
    init: u32,
    home: PathBuf,
}

impl Enclosure {
    /// Makes them. `home` holds the log and is the `HOME` and `TMPDIR` of everything inside; `None`, said loudly, where
    /// this machine does not allow it.
    ///
    /// They last no longer than the calling thread.
    pub fn start(test: &str, home: &Path) -> Option<Enclosure> {
        if let Some(missing) = PROGRAMS.iter().find(|program| find(program).is_none()) {
            skipped(test, &format!("{missing} is not installed"));
            return None;
        }
        let log_path = home.join("enclosure.log");
        let log = fs::File::create(&log_path).expect("a log file");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-ec", &script()]).env_clear().env("PATH", PATH);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let mut outer = command.spawn().expect("setpriv starts");
        let said = || fs::read_to_string(&log_path).unwrap_or_default();
        let is_up = until(START_LIMIT, || {
            let has_ended = outer.try_wait().expect("a state").is_some();
            if said().contains("ready") { Some(true) } else { has_ended.then_some(false) }
        });
        if is_up != Some(true) {
            // Fails when it has ended already.
            let _killed = outer.kill();
            let _waited = outer.wait();
            skipped(test, &format!("no namespaces of its own: {}", said().trim()));
            return None;
        }
        let init = child_of(outer.id()).expect("the first process inside");
        Some(Enclosure { outer, init, home: home.to_owned() })
    }

    /// A program inside, not yet started, with a clean environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--pid", "--"]).arg(program);
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C");
        command.env("HOME", &self.home).env("TMPDIR", &self.home).stdin(Stdio::null());
        command
    }

    /// A path inside as seen from here: mounts are followed, absolute symbolic links are not ours to follow.
    pub fn path(&self, inside: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.init));
        root.join(inside.strip_prefix("/").expect("an absolute path"))
    }
}

impl Drop for Enclosure {
    fn drop(&mut self) {
        // SIGKILL of the first process of a process namespace is one of all; it gets its own from unshare's end.
        let _killed = self.outer.kill();
        let _waited = self.outer.wait();
        let inside = PathBuf::from(format!("/proc/{}", self.init));
        let _gone = until(START_LIMIT, || (!inside.exists()).then_some(()));
    }
}

/// What the first process does: covers places, makes cgroups visible where they are not, collects orphans for ever.
fn script() -> String {
    let cover = COVERED.iter().map(|place| format!("mkdir -p {place}\nmount -t tmpfs cover {place}\n"));
    let cgroups = "if ! [ -e /sys/fs/cgroup/cgroup.controllers ] && ! grep -q 'cgroup/memory ' /proc/mounts; then\n\
                   cgroupfs-mount\nfi\n";
    // Mounts of volumes have to reach containers, which they do from shared mounts only, as on any node.
    format!("mount --make-rshared /\n{}{cgroups}echo ready\nsleep infinity &\nwait\n", cover.collect::<String>())
}

/// The only child of a process.
pub(super) fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Where a program is, if it is installed.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(PATH).map(|folder| folder.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::daemon::Daemon;

    #[test]
    fn nothing_survives_the_enclosure() {
        if !windlass_testkit::tools::is_root() {
            skipped("nothing_survives_the_enclosure", "needs root");
            return;
        }
        let home = tempfile::tempdir().expect("a directory");
        let Some(enclosure) = Enclosure::start("nothing_survives_the_enclosure", home.path()) else { return };
        let mounted = home.path().join("mounted");
        fs::create_dir(&mounted).expect("a directory");
        let mut command = enclosure.command("sh");
        // An orphan, a mount, and a program that does not listen.
        let script = "mount -t tmpfs t \"$0\"; touch \"$0/file\"; sleep 1000 & trap '' TERM; while :; do sleep 1; done";
        command.args(["-c", script]).arg(&mounted);
        let daemon = Daemon::start("stubborn", command, home.path());
        let seen = enclosure.path(&mounted).join("file");
        until(START_LIMIT, || seen.exists().then_some(())).expect("it mounts and writes");
        assert!(!mounted.join("file").exists(), "the mount is seen inside only");
        let pid = daemon.pid().expect("it runs");
        drop(enclosure);
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it still runs");
        assert!(!seen.exists());
    }
}
