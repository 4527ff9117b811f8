//! What a test does with a running cluster.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use windlass_testkit::tools::run;

use super::control::kubectl;
use super::daemon::Memory;
use super::enclosure::Enclosure;
use super::kubelet::Kubelet;
use super::pods::{Pod, Status};
use super::wait::until;
use super::{Cluster, lock};
use crate::world::Snapshots;

/// Longest wait for what the API server and its controllers do by themselves.
const CONTROL_LIMIT: Duration = Duration::from_secs(60);
/// The answer about all pods is asked for again when it is older than this: kubectl costs a tenth of a second.
const PODS_AGE: Duration = Duration::from_millis(300);
/// Where the kernel shows control groups, the first of which has the memory of processes (version 1).
const CGROUPS: &str = "/sys/fs/cgroup";

impl Cluster {
    /// kubectl with these arguments, as an administrator.
    pub fn kubectl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = kubectl(&self.control.admin);
        command.args(args);
        command
    }

    /// containerd's client with these arguments, in the kubelet's namespace.
    pub fn ctr<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        // Inside, where the pipes that it shares with containers are.
        let mut command = self.enclosure().command("ctr");
        command.arg("--address").arg(&lock(&self.runtime).socket).args(["--namespace", "k8s.io"]).args(args);
        command
    }

    /// Creates an object or changes it to be so.
    pub fn apply(&self, object: &Json) {
        let mut command = self.kubectl(["apply", "--filename", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(object.to_string().as_bytes()).expect("kubectl reads its input");
        drop(input);
        let output = child.wait_with_output().expect("kubectl ends");
        assert!(output.status.success(), "{object:#}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes a namespace, in which pods can be made at once.
    pub fn namespace(&self, name: &str) {
        self.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }));
        // Until its service account is there no pod is admitted.
        let account = ["get", "serviceaccount", "default", "--namespace", name];
        let is_there = || self.kubectl(account).output().is_ok_and(|o| o.status.success()).then_some(());
        until(CONTROL_LIMIT, is_there).unwrap_or_else(|| panic!("{name} gets no service account"));
    }

    /// What the API server says of a pod; nothing of one that is not there.
    pub fn status(&self, pod: &Pod) -> Status {
        let mut seen = lock(&self.seen);
        if seen.at.is_none_or(|at| at.elapsed() > PODS_AGE) {
            let output = self.kubectl(["get", "pods", "--all-namespaces", "--output", "json"]).output();
            // A busy API server may refuse a request; the next look asks again.
            let answer = output.ok().and_then(|output| serde_json::from_slice::<Json>(&output.stdout).ok());
            if let Some(items) = answer.as_ref().and_then(|answer| answer["items"].as_array()) {
                seen.pods.clone_from(items);
            }
            seen.at = Some(Instant::now());
        }
        let is_it = |found: &&Json| {
            let metadata = &found["metadata"];
            metadata["namespace"] == pod.namespace() && metadata["name"] == pod.name()
        };
        Status(seen.pods.iter().find(is_it).cloned().unwrap_or_default())
    }

    /// Waits until the pod is so; a panic says how it was instead, and what the kubelet told.
    #[track_caller]
    pub fn wait_for(&self, pod: &Pod, what: &str, limit: Duration, is_so: impl Fn(&Status) -> bool) -> Status {
        let found = until(limit, || Some(self.status(pod)).filter(&is_so));
        found.unwrap_or_else(|| {
            let events = self.events(pod).join("\n");
            panic!("{} is not {what} after {limit:?}: {}\n{events}", pod.name(), self.status(pod))
        })
    }

    /// Creates a pod and waits until its container runs.
    #[track_caller]
    pub fn run_pod(&self, pod: &Pod) -> Status {
        self.apply(pod.document());
        self.wait_for(pod, "running", super::POD_LIMIT, Status::is_running)
    }

    /// Deletes a pod and waits until it is gone.
    #[track_caller]
    pub fn delete(&self, pod: &Pod) {
        run(&mut self.kubectl(["delete", "pod", pod.name(), "--namespace", pod.namespace(), "--timeout=120s"]));
        lock(&self.seen).at = None;
    }

    /// What the kubelet told about a pod: `reason: message`, in the order of their first time.
    pub fn events(&self, pod: &Pod) -> Vec<String> {
        let selector = format!("involvedObject.name={}", pod.name());
        let output = run(&mut self.kubectl([
            "get",
            "events",
            "--namespace",
            pod.namespace(),
            "--field-selector",
            &selector,
            "--sort-by=.metadata.creationTimestamp",
            "--output=json",
        ]));
        let answer: Json = serde_json::from_slice(&output.stdout).expect("JSON of kubectl");
        let line = |event: &Json| {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            format!("{}: {}", text("reason"), text("message"))
        };
        answer["items"].as_array().map(|items| items.iter().map(line).collect()).unwrap_or_default()
    }

    /// Waits until the kubelet has told something about a pod.
    #[track_caller]
    pub fn wait_for_event(&self, pod: &Pod, part: &str, limit: Duration) {
        let told = until(limit, || self.events(pod).iter().any(|event| event.contains(part)).then_some(()));
        told.unwrap_or_else(|| panic!("{}: no event says {part:?}: {:?}", pod.name(), self.events(pod)));
    }

    /// A file of a running container's root.
    pub fn read_in(&self, status: &Status, path: &str) -> Vec<u8> {
        let root = self.container_root(status);
        let path = root.join(path.trim_start_matches('/'));
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Writes a file into a running container's root.
    pub fn write_in(&self, status: &Status, path: &str, bytes: &[u8]) {
        let path = self.container_root(status).join(path.trim_start_matches('/'));
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Names in a directory of a running container's root, sorted.
    pub fn names_in(&self, status: &Status, path: &str) -> Vec<String> {
        let path = self.container_root(status).join(path.trim_start_matches('/'));
        let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<String> = entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// User and group of a running container's process.
    pub fn owner_of(&self, status: &Status) -> (u32, u32) {
        let pid = self.container_pid(status);
        let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let first = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line of proc(5)");
            line.split_whitespace().next().and_then(|id| id.parse().ok()).expect("a number")
        };
        (first("Uid:"), first("Gid:"))
    }

    /// The root of a running container as its own processes see it.
    fn container_root(&self, status: &Status) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.container_pid(status)))
    }

    /// The process of a running container, by its number out here.
    pub fn container_pid(&self, status: &Status) -> u32 {
        let id = status.container_id().expect("a container that runs has an ID");
        let groups = self.inside(Path::new(CGROUPS));
        let file = [groups.join("memory/k8s.io"), groups.join("k8s.io")]
            .map(|parent| parent.join(id).join("cgroup.procs"))
            .into_iter()
            .find(|file| file.exists())
            .unwrap_or_else(|| panic!("{id} has no control group"));
        let processes = fs::read_to_string(file).expect("processes of a control group");
        processes.lines().next().and_then(|line| line.parse().ok()).expect("a process")
    }

    /// Tells `windlass node` how to reach a registry, by a `hosts.toml`.
    pub fn tell_host(&self, host: &str, hosts_toml: &str) {
        lock(self.node()).tell_host(host, hosts_toml);
    }

    /// Ends `windlass node` as a crash does.
    pub fn kill_node(&self) {
        lock(self.node()).kill();
    }

    /// Starts `windlass node` again; it keeps new layers as this.
    pub fn start_node_again(&self, snapshots: Snapshots) {
        lock(self.node()).start_again(self.enclosure(), snapshots);
    }

    /// Ends containerd as a crash does and starts it again; containers go on meanwhile.
    pub fn restart_containerd(&self) {
        lock(&self.runtime).restart(self.enclosure());
    }

    /// Ends the kubelet and starts it again; it has forgotten its waits.
    pub fn restart_kubelet(&self) {
        let (runtime, images) = (lock(&self.runtime).socket.clone(), self.node_socket());
        let kubelet = Kubelet {
            programs: &self.programs,
            folder: self.folder.path(),
            user: &self.control.node,
            runtime: &runtime,
            images: images.as_deref(),
            sandbox_image: self.options.sandbox_image(),
            options: &self.options,
        };
        let mut running = lock(&self.kubelet);
        running.end(rustix::process::Signal::TERM);
        *running = kubelet.start(self.enclosure());
    }

    /// The daemon's socket; `None` where containerd serves the images.
    pub fn node_socket(&self) -> Option<PathBuf> {
        self.node.as_ref().map(|node| lock(node).socket.clone())
    }

    /// containerd's socket, where its own CRI answers.
    pub fn containerd_socket(&self) -> PathBuf {
        lock(&self.runtime).socket.clone()
    }

    /// The daemon's store.
    pub fn store(&self) -> PathBuf {
        lock(self.node()).store()
    }

    /// Chain IDs of the layers that are finished in the daemon's store.
    pub fn stored_chains(&self) -> Vec<String> {
        let notes = fs::read_dir(self.store().join("snapshots")).into_iter().flatten();
        let notes = notes.filter_map(|entry| fs::read(entry.ok()?.path().join("note")).ok());
        let chain = |note: Vec<u8>| {
            let note: Json = serde_json::from_slice(&note).ok()?;
            Some(note["chain_id"].as_str()?.to_owned())
        };
        notes.filter_map(chain).collect()
    }

    /// Where the daemon's metrics and status page are.
    pub fn node_address(&self) -> String {
        lock(self.node()).address.clone()
    }

    /// All that `windlass node` wrote so far.
    pub fn node_output(&self) -> String {
        lock(self.node()).daemon.output()
    }

    /// Memory of `windlass node`.
    pub fn node_memory(&self) -> Memory {
        Memory::of(self.node_pid()).expect("the daemon runs")
    }

    /// The process of `windlass node`, by its number out here.
    pub fn node_pid(&self) -> u32 {
        lock(self.node()).daemon.pid().expect("the daemon runs")
    }

    /// A path inside the cluster's namespaces as seen from here.
    pub fn inside(&self, path: &Path) -> PathBuf {
        self.enclosure().path(path)
    }

    fn node(&self) -> &std::sync::Mutex<super::subject::Node> {
        self.node.as_ref().expect("the cluster has `windlass node`")
    }

    fn enclosure(&self) -> &Enclosure {
        self.enclosure.as_ref().expect("it lasts as long as the cluster")
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let node = self.node.iter().map(|node| lock(node).daemon.shown());
        let others = [lock(&self.runtime).daemon.shown(), lock(&self.kubelet).shown()];
        self.control.daemons.iter().map(super::Daemon::shown).chain(others).chain(node).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The test's own report comes first; straight to the descriptor, since this is no test's thread always.
            let _written = std::io::stderr().write_all(self.logs().as_bytes());
            self.keep_logs();
        }
        let containers = lock(&self.runtime).containers();
        drop(self.enclosure.take());
        remove_control_groups(&containers);
    }
}

impl Cluster {
    /// Copies all logs where `WINDLASS_CLUSTER_LOGS` says.
    fn keep_logs(&self) {
        let Some(to) = std::env::var_os("WINDLASS_CLUSTER_LOGS").map(PathBuf::from) else { return };
        let logs = fs::read_dir(self.folder.path()).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        for log in logs.filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
            let name = log.file_name().expect("an entry has a name");
            // What cannot be copied was shown in part.
            let _copied = fs::create_dir_all(&to).and_then(|()| fs::copy(&log, to.join(name)));
        }
    }
}

/// Control groups have no owner that could end: those of containers that were killed are left.
fn remove_control_groups(containers: &[String]) {
    let groups = fs::read_dir(CGROUPS).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    for parent in groups.chain([PathBuf::from(CGROUPS)]).map(|group| group.join("k8s.io")) {
        for container in containers {
            // Most are not under most controllers; one whose last process is still going needs a moment.
            let group = parent.join(container);
            let is_gone = || !group.exists() || fs::remove_dir(&group).is_ok();
            let _removed = until(Duration::from_secs(5), || is_gone().then_some(()));
        }
        // It stays when another cluster uses it, and it may never have been there.
        let _removed = fs::remove_dir(&parent);
    }
}
