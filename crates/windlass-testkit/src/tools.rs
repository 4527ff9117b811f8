//! Programs to compare with, where they are installed, each with its own home and storage.
//!
//! A test that needs one asks [`Tool::find`] and returns when it is absent: that prints
//! `SKIPPED <test>: <why>` on stderr, so that a log shows what was not tested.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest wait for a daemon to answer its port.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Pause between two looks at a starting daemon.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Programs that tests know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Copies images between registries, layouts and archives.
    Skopeo,
    /// Pulls into a storage of its own and mounts.
    Podman,
    /// Unpacks OCI layouts.
    Umoci,
    /// containerd's client.
    Ctr,
    /// containerd itself.
    Containerd,
    /// Debian's registry (distribution 2.8).
    DockerRegistry,
    /// A web server.
    Nginx,
    /// The system calls of a program.
    Strace,
}

impl Tool {
    /// The program's name.
    pub const fn program(self) -> &'static str {
        match self {
            Tool::Skopeo => "skopeo",
            Tool::Podman => "podman",
            Tool::Umoci => "umoci",
            Tool::Ctr => "ctr",
            Tool::Containerd => "containerd",
            Tool::DockerRegistry => "docker-registry",
            Tool::Nginx => "nginx",
            Tool::Strace => "strace",
        }
    }

    /// Where it is, if it is installed.
    pub fn path(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        std::env::split_paths(&path).chain(more).map(|dir| dir.join(self.program())).find(|file| file.is_file())
    }

    /// Where it is; says loudly that `test` is skipped when it is absent.
    pub fn find(self, test: &str) -> Option<PathBuf> {
        let path = self.path();
        if path.is_none() {
            skipped(test, &format!("{} is not installed", self.program()));
        }
        path
    }
}

/// Says that a test did not run and why.
pub fn skipped(test: &str, why: &str) {
    // Straight to the descriptor: the test harness keeps what `eprintln!` writes.
    let line = format!("SKIPPED {test}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("stderr takes a line");
}

/// Whether this process is root; some comparisons need it.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

/// A home for foreign programs: nothing of the machine's configuration is read, nothing stays.
#[derive(Debug)]
pub struct Sandbox {
    dir: TempDir,
}

impl Sandbox {
    /// Makes an empty home with a policy that accepts everything.
    pub fn new() -> Sandbox {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for part in ["home", "run", "storage", "tmp", "registries.d"] {
            fs::create_dir(dir.path().join(part)).expect("a directory");
        }
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("a file");
        write("policy.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
        write("registries.conf", "unqualified-search-registries = []\n");
        Sandbox { dir }
    }

    /// A path in the sandbox.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a docker config file with one login and returns its path.
    pub fn login(&self, host: &str, user: &str, password: &str) -> PathBuf {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let path = self.path(&format!("auth-{user}.json"));
        let config = serde_json::json!({ "auths": { host: { "auth": auth } } });
        fs::write(&path, config.to_string()).expect("a file");
        path
    }

    /// A command with a clean environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("TMPDIR", self.path("tmp"))
            .env("LC_ALL", "C")
            .env("CONTAINERS_REGISTRIES_CONF", self.path("registries.conf"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// skopeo with these arguments.
    pub fn skopeo<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command("skopeo");
        command.arg("--policy").arg(self.path("policy.json"));
        command.arg("--registries.d").arg(self.path("registries.d"));
        command.args(args);
        command
    }

    /// podman with these arguments, its storage in the sandbox (vfs driver, which works everywhere).
    pub fn podman<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command("podman");
        command.arg("--root").arg(self.path("storage")).arg("--runroot").arg(self.path("run"));
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command.args(args);
        command
    }
}

impl Default for Sandbox {
    fn default() -> Sandbox {
        Sandbox::new()
    }
}

/// Runs a command to its end; panics with its output when it fails.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs a command that has to fail; returns its stderr.
pub fn run_failing(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(!output.status.success(), "{command:?} succeeded\n{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A port that is free now. Somebody may take it before it is used, so callers try again.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// A program in the background, killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a command with its output in `log`.
    pub fn start(mut command: Command, log: &Path) -> Daemon {
        let file = fs::File::create(log).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a descriptor"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Daemon { child, log: log.to_owned() }
    }

    /// Waits until something answers at `addr`; `false` when the program ended instead.
    pub fn answers(&mut self, addr: SocketAddr) -> bool {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if TcpStream::connect_timeout(&addr, Duration::from_secs(1)).is_ok() {
                return true;
            }
            if self.child.try_wait().expect("a state").is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "nothing answers at {addr}:\n{}", self.output());
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    /// What it wrote so far.
    pub fn output(&self) -> String {
        let mut text = String::new();
        // A log that cannot be read costs the report its detail, nothing else.
        let _read = fs::File::open(&self.log).and_then(|mut file| file.read_to_string(&mut text));
        text
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// Debian's docker-registry on a free loopback port with its content in a temporary directory.
#[derive(Debug)]
pub struct DockerRegistry {
    addr: SocketAddr,
    _daemon: Daemon,
    _dir: TempDir,
}

impl DockerRegistry {
    /// Starts it; `None`, said loudly, when it is not installed.
    pub fn start(test: &str) -> Option<DockerRegistry> {
        let program = Tool::DockerRegistry.find(test)?;
        for _ in 0..5 {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            let config = dir.path().join("config.yml");
            let text = format!(
                "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    \
                 enabled: true\nhttp:\n  addr: {addr}\n",
                dir.path().join("content").display()
            );
            fs::write(&config, text).expect("a file");
            let mut command = Command::new(&program);
            command.arg("serve").arg(&config).env_clear();
            let mut daemon = Daemon::start(command, &dir.path().join("log"));
            if daemon.answers(addr) {
                return Some(DockerRegistry { addr, _daemon: daemon, _dir: dir });
            }
        }
        panic!("docker-registry does not start");
    }

    /// Address listened on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `host/repository:tag`.
    pub fn reference(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.addr)
    }
}

/// containerd of our own, with its content in a sandbox; needs root.
#[derive(Debug)]
pub struct Containerd {
    socket: PathBuf,
    ctr: PathBuf,
    daemon: Daemon,
    sandbox: Sandbox,
}

impl Containerd {
    /// Starts it without its CRI part; `None`, said loudly, when it is not installed or this is not root.
    pub fn start(test: &str) -> Option<Containerd> {
        let program = Tool::Containerd.find(test)?;
        let ctr = Tool::Ctr.find(test)?;
        if !is_root() {
            skipped(test, "containerd needs root");
            return None;
        }
        let sandbox = Sandbox::new();
        let socket = sandbox.path("c.sock");
        let config = sandbox.path("containerd.toml");
        let text = format!(
            "version = 2\nroot = \"{root}\"\nstate = \"{state}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{socket}\"\n",
            root = sandbox.path("containerd").display(),
            state = sandbox.path("containerd-state").display(),
            socket = socket.display()
        );
        fs::write(&config, text).expect("a file");
        let mut command = sandbox.command(program);
        command.arg("--config").arg(&config);
        let daemon = Daemon::start(command, &sandbox.path("containerd.log"));
        let containerd = Containerd { socket, ctr, daemon, sandbox };
        let deadline = Instant::now() + START_LIMIT;
        while !containerd.ctr(["version"]).output().is_ok_and(|output| output.status.success()) {
            assert!(Instant::now() < deadline, "containerd does not start:\n{}", containerd.daemon.output());
            std::thread::sleep(LOOK_PAUSE);
        }
        Some(containerd)
    }

    /// ctr with these arguments, talking to this containerd.
    pub fn ctr<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.sandbox.command(&self.ctr);
        command.arg("--address").arg(&self.socket).args(args);
        command
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    /// A path in its sandbox.
    pub fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path(name)
    }
}
