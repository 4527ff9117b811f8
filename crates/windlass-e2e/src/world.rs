//! A machine for the program under test: a home, a store, a user, limits; and what a command answered.
//!
//! Nothing of the caller's environment reaches the program, and everything it leaves goes with the [`World`].
//! A command that does not end in time is killed, which is a failure of the test.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value as Json;
use tempfile::TempDir;
use windlass_testkit::images;
use windlass_testkit::registry::TestRegistry;
use windlass_testkit::tools::skipped;

/// Longest time that any one command may take.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// The ordinary user: nobody and nogroup of Debian.
pub const NOBODY: u32 = 65_534;
/// Pause between two looks at a running command.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// Who runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Whoever runs the tests.
    Caller,
    /// An ordinary user without any right; only root can become one.
    Nobody,
}

/// What the program is told to keep layers as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshots {
    /// Nothing: it decides.
    Default,
    /// Directories.
    Directories,
    /// Image files.
    ImageFiles,
}

impl Snapshots {
    /// The forms that can be kept in a directory by the caller; that image files cannot is said loudly.
    pub fn possible(parent: &Path, test: &str) -> Vec<Snapshots> {
        let world = World::below(parent, User::Caller).keeping(Snapshots::ImageFiles);
        let registry = TestRegistry::open();
        let answer = world.run(["pull", &registry.place(&images::small("probe").bundle(), "probe", "v1")]);
        if answer.code() == Some(0) {
            return vec![Snapshots::Directories, Snapshots::ImageFiles];
        }
        assert!(answer.stderr.contains("cannot be kept as image files"), "{answer}");
        skipped(test, &format!("with image files: {}", answer.stderr));
        vec![Snapshots::Directories]
    }

    /// The configuration's word.
    fn word(self) -> Option<&'static str> {
        match self {
            Snapshots::Default => None,
            Snapshots::Directories => Some("overlay"),
            Snapshots::ImageFiles => Some("erofs"),
        }
    }

    /// Tells a command.
    pub fn tell(self, command: &mut Command) {
        if let Some(word) = self.word() {
            command.env("WINDLASS_STORE_SNAPSHOT_FORMAT", word);
        }
    }
}

/// A folder that stands for a machine.
#[derive(Debug)]
pub struct World {
    dir: TempDir,
    user: User,
    program: PathBuf,
    snapshots: Snapshots,
    variables: Vec<(String, String)>,
}

impl Default for World {
    fn default() -> World {
        World::new()
    }
}

impl World {
    /// A machine whose user is the caller.
    pub fn new() -> World {
        World::of(User::Caller)
    }

    /// A machine with this user, who owns everything in it.
    pub fn of(user: User) -> World {
        World::below(&std::env::temp_dir(), user)
    }

    /// A machine whose folder is in this directory.
    pub fn below(parent: &Path, user: User) -> World {
        let dir = folder(parent);
        let program = match user {
            User::Caller => subject(),
            // The build directory need not be open to others.
            User::Nobody => {
                let copy = dir.path().join("windlass");
                fs::copy(subject(), &copy).expect("the program can be copied");
                copy
            }
        };
        let world = World { dir, user, program, snapshots: Snapshots::Default, variables: Vec::new() };
        world.own(world.dir.path());
        for name in ["home", "tmp"] {
            fs::create_dir(world.path(name)).expect("a directory");
            world.own(&world.path(name));
        }
        world
    }

    /// The same machine, on which layers are kept as this.
    pub fn keeping(self, snapshots: Snapshots) -> World {
        World { snapshots, ..self }
    }

    /// The same machine with more environment variables.
    pub fn with(self, variables: impl IntoIterator<Item = (String, String)>) -> World {
        World { variables: variables.into_iter().collect(), ..self }
    }

    /// Gives a path to the machine's user.
    pub fn own(&self, path: &Path) {
        if self.user == User::Nobody {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("root may give files away");
        }
    }

    /// A path in the machine.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The machine's folder.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Where the store is.
    pub fn root(&self) -> PathBuf {
        self.path("store")
    }

    /// Makes a directory of the machine's user.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).expect("a directory");
        self.own(&path);
        path
    }

    /// Writes a file that the machine's user can read.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
        self.own(&path);
        path
    }

    /// The program with these arguments, not yet started.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("LC_ALL", "C");
        for name in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"] {
            command.env(name, self.path("home"));
        }
        command.env("TMPDIR", self.path("tmp"));
        command.env("WINDLASS_ROOT", self.root()).env("WINDLASS_HOSTS_DIR", self.path("hosts"));
        self.snapshots.tell(&mut command);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.dir.path()).stdin(Stdio::null()).args(args);
        if self.user == User::Nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Runs the program to its end, whatever that is.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Answer {
        answer(self.command(args), None)
    }

    /// The same with no more than `bytes` of memory to write to (`RLIMIT_DATA`).
    pub fn run_within<S: AsRef<OsStr>>(&self, bytes: u64, args: impl IntoIterator<Item = S>) -> Answer {
        answer(self.command(args), Some(bytes))
    }

    /// Runs the program, which has to succeed.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Answer {
        let answer = self.run(args);
        assert_eq!(answer.code(), Some(0), "{answer}");
        answer
    }

    /// Runs the program with `-o json`, which has to fail in this class.
    #[track_caller]
    pub fn refused<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, class: &str) -> Answer {
        let words = args.into_iter().map(|word| word.as_ref().to_owned());
        let answer = self.run(words.chain(["-o".into(), "json".into()]));
        assert_ne!(answer.code(), Some(0), "{answer}");
        assert_eq!(answer.class().as_deref(), Some(class), "{answer}");
        answer
    }

    /// Mounts an image of the store; it stays until the answer is dropped.
    #[track_caller]
    pub fn mount(&self, image: &str) -> Mounted<'_> {
        let at = tempfile::Builder::new().prefix("mount").tempdir_in(self.dir.path()).expect("a directory").keep();
        self.ok(["mount".as_ref(), image.as_ref(), at.as_os_str()]);
        Mounted { world: self, at }
    }
}

/// An image that is mounted.
#[derive(Debug)]
pub struct Mounted<'w> {
    world: &'w World,
    at: PathBuf,
}

impl Mounted<'_> {
    /// Where.
    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let answer = self.world.run(["umount".as_ref(), self.at.as_os_str()]);
        if answer.code() != Some(0) {
            // The temporary directory could not be removed below a mount; the tests tell of failed unmounts.
            let _detached = rustix::mount::unmount(&self.at, UnmountFlags::DETACH);
        }
    }
}

/// A new folder. podman names images after the path, and its names are in lower case.
fn folder(parent: &Path) -> TempDir {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    loop {
        let name = format!("wl-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        match tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir_in(parent) {
            Ok(dir) => return dir,
            // Left by a process of the same number that was killed.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => panic!("no temporary directory: {error}"),
        }
    }
}

/// The program under test.
pub fn subject() -> PathBuf {
    if let Some(named) = std::env::var_os("WINDLASS_BIN") {
        return PathBuf::from(named);
    }
    let program = std::env::current_exe().expect("a program knows itself");
    // Tests are in `deps/` beside it, other programs of this package in the same folder.
    let folders = program.ancestors().skip(1).take(2);
    let built = folders.map(|folder| folder.join("windlass-subject")).find(|path| path.is_file());
    built.expect("windlass-subject is missing: build the whole package")
}

/// What a command came to.
#[derive(Debug)]
pub struct Answer {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
    line: String,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Answer { status, stdout, stderr, took, line } = self;
        write!(f, "{line}\n{status} after {took:?}\nstdout: {stdout}\nstderr: {stderr}")
    }
}

impl Answer {
    /// Exit status; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Class of the error told on standard error as JSON.
    pub fn class(&self) -> Option<String> {
        let error: Json = self.stderr.lines().find_map(|line| serde_json::from_str(line).ok())?;
        Some(error["error"]["class"].as_str()?.to_owned())
    }

    /// What is wrong with how it ended, whatever it was asked: killed, panicked, out of memory.
    pub fn defect(&self) -> Option<String> {
        if let Some(signal) = self.status.signal() {
            return Some(format!("ended by signal {signal}: {self}"));
        }
        let is_panic = ["panicked at", "RUST_BACKTRACE", "internal error"].iter().any(|w| self.stderr.contains(w));
        (is_panic || self.code() == Some(101)).then(|| format!("a panic: {self}"))
    }
}

/// Runs a command to its end or kills it when it takes too long.
pub fn answer(mut command: Command, memory_bytes: Option<u64>) -> Answer {
    let line = format!("{command:?}");
    let started = Instant::now();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
    if let Some(bytes) = memory_bytes {
        bound(&child, bytes);
    }
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = end(&mut child, started + COMMAND_LIMIT);
    let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&thread.join().expect("a reader does not panic")).into_owned()
    };
    let took = started.elapsed();
    Answer { status, stdout: text(stdout), stderr: text(stderr), took, line }
}

fn bound(child: &Child, bytes: u64) {
    let pid = Pid::from_child(child);
    // A child that has ended already needs no bound.
    let _set = prlimit(Some(pid), Resource::Data, Rlimit { current: Some(bytes), maximum: Some(bytes) });
}

fn collect(pipe: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks has said all it had.
        let _read = pipe.map(|mut pipe| pipe.by_ref().read_to_end(&mut bytes));
        bytes
    })
}

/// Waits for the end of a child; kills it at the deadline.
pub fn end(child: &mut Child, deadline: Instant) -> ExitStatus {
    loop {
        if let Some(status) = child.try_wait().expect("a state") {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().expect("a child of ours");
            return child.wait().expect("a state");
        }
        std::thread::sleep(LOOK_PAUSE);
    }
}

/// Bytes that a directory takes on disk, hard links counted once.
pub fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut seen = std::collections::BTreeSet::new();
    let mut open = vec![dir.to_owned()];
    let mut bytes = 0;
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).expect("metadata");
        if seen.insert((meta.dev(), meta.ino())) {
            bytes += meta.blocks() * 512;
        }
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()));
        }
    }
    bytes
}
