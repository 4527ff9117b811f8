//! Upload sessions of the registry, driven over HTTP, against a model that remembers what each session was given.
//!
//! The input is a list of requests. Whatever their order: an upload stands where its accepted chunks end, a blob exists
//! exactly if some request was answered 201 for its digest, and its bytes hash to that.

mod client;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use windlass_core::digest::{Algorithm, Digest};
use windlass_registry::{Deletes, Durability, RegistryConfig, RegistryServer};

use client::{Client, Reply};

/// Largest blob of the registry that is asked, in bytes.
const BLOB_MAX: usize = 600;
/// Most open uploads.
const UPLOADS_MAX: usize = 4;
/// Most requests of one input.
const REQUESTS_MAX: usize = 24;
const REPOSITORIES: [&str; 2] = ["team/app", "other"];

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
});

/// One upload as the model sees it.
struct Session {
    repository: usize,
    location: String,
    algorithm: Algorithm,
    bytes: Vec<u8>,
}

struct Model {
    client: Client,
    sessions: Vec<Session>,
    /// Repository and digest of each blob that was accepted, with its bytes.
    blobs: BTreeMap<(usize, String), Vec<u8>>,
}

/// Sends the requests of an input to a registry of its own.
pub fn run(bytes: &[u8]) {
    let root = tempfile::Builder::new().prefix("windlass-fuzz-").tempdir_in(memory()).expect("a directory");
    let mut config = RegistryConfig::open(root.path());
    config.durability = Durability::Relaxed;
    config.deletes = Deletes::Off;
    config.limits.blob_bytes = BLOB_MAX as u64;
    config.limits.uploads = UPLOADS_MAX;
    let registry = RUNTIME.block_on(RegistryServer::start(config)).expect("a registry");
    let mut model = Model { client: Client::new(registry.addr()), sessions: Vec::new(), blobs: BTreeMap::new() };
    let mut program = Program(bytes);
    for _ in 0..REQUESTS_MAX {
        let Some(step) = program.next() else { break };
        model.step(step, &mut program);
    }
    model.check(root.path());
    drop(model);
    RUNTIME.block_on(registry.shutdown());
}

/// Memory where there is such a file system.
fn memory() -> &'static Path {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared } else { Path::new("/tmp") }
}

struct Program<'a>(&'a [u8]);

impl<'a> Program<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// One byte for the length, four bytes for each unit of it, then the bytes.
    fn chunk(&mut self) -> &'a [u8] {
        let length = usize::from(self.next().unwrap_or(0)) * 4;
        let (chunk, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        chunk
    }
}

impl Model {
    fn step(&mut self, step: u8, program: &mut Program<'_>) {
        let choice = usize::from(program.next().unwrap_or(0));
        match step % 8 {
            0 => self.begin(choice, program),
            1 | 2 => self.patch(choice, program),
            3 | 4 => self.put(choice, program),
            5 => self.ask(choice),
            6 => self.cancel(choice),
            _ => self.mount(choice),
        }
    }

    fn session(&self, choice: usize) -> Option<usize> {
        (!self.sessions.is_empty()).then(|| choice % self.sessions.len())
    }

    fn begin(&mut self, choice: usize, program: &mut Program<'_>) {
        let repository = choice % REPOSITORIES.len();
        let base = format!("/v2/{}/blobs/uploads/", REPOSITORIES[repository]);
        let algorithm = if choice & 2 == 0 { Algorithm::Sha256 } else { Algorithm::Sha512 };
        if choice & 4 == 0 {
            let reply = self.client.ask("POST", &format!("{base}?digest-algorithm={algorithm}"), &[], b"");
            if self.sessions.len() >= UPLOADS_MAX {
                assert!(reply.status == 429 || reply.status == 503, "{reply:?}");
                return;
            }
            assert_eq!(reply.status, 202, "{reply:?}");
            let location = reply.header("location").expect("an upload has a location").to_owned();
            assert!(location.starts_with(&base) && self.sessions.iter().all(|s| s.location != location), "{location}");
            self.sessions.push(Session { repository, location, algorithm, bytes: Vec::new() });
            return;
        }
        // The whole blob in one request.
        let content = program.chunk();
        let digest = promised(algorithm, content, choice >> 3);
        let reply = self.client.ask("POST", &format!("{base}?digest={digest}"), &[], content);
        let is_full = self.sessions.len() >= UPLOADS_MAX;
        self.finished(repository, &reply, &digest, content, is_full);
    }

    fn patch(&mut self, choice: usize, program: &mut Program<'_>) {
        let Some(at) = self.session(choice) else { return };
        let kind = program.next().unwrap_or(0);
        let chunk = program.chunk();
        let stands = self.sessions[at].bytes.len();
        let (header, fits) = range(kind, stands, chunk.len());
        let path = self.path(at, choice);
        let headers: Vec<(&str, &str)> = header.iter().map(|range| ("content-range", range.as_str())).collect();
        let reply = self.client.ask("PATCH", &path.0, &headers, chunk);
        let session = &mut self.sessions[at];
        if !path.1 {
            assert_eq!(reply.status, 404, "{reply:?}");
        } else if !fits {
            assert_eq!(reply.status, 416, "{reply:?}");
        } else if stands + chunk.len() > BLOB_MAX {
            assert!((400..500).contains(&reply.status), "{reply:?}");
            self.resync(at);
        } else {
            assert_eq!(reply.status, 202, "{reply:?}");
            session.bytes.extend_from_slice(chunk);
            let end = session.bytes.len().saturating_sub(1);
            assert_eq!(reply.header("range"), Some(format!("0-{end}").as_str()), "{reply:?}");
        }
    }

    fn put(&mut self, choice: usize, program: &mut Program<'_>) {
        let Some(at) = self.session(choice) else { return };
        let kind = program.next().unwrap_or(0);
        let chunk = program.chunk();
        let (repository, algorithm) = (self.sessions[at].repository, self.sessions[at].algorithm);
        let stands = self.sessions[at].bytes.len();
        let whole = [&self.sessions[at].bytes, chunk].concat();
        let digest = promised(algorithm, &whole, usize::from(kind >> 3));
        let (header, fits) = range(kind & 7, stands, chunk.len());
        let path = self.path(at, choice);
        let headers: Vec<(&str, &str)> = header.iter().map(|range| ("content-range", range.as_str())).collect();
        let reply = self.client.ask("PUT", &format!("{}?digest={digest}", path.0), &headers, chunk);
        if !path.1 {
            assert_eq!(reply.status, 404, "{reply:?}");
            return;
        }
        if !fits {
            assert!(reply.status == 416 || reply.status == 400, "{reply:?}");
            return;
        }
        self.finished(repository, &reply, &digest, &whole, false);
        if reply.status == 201 {
            self.sessions.remove(at);
        } else {
            self.resync(at);
        }
    }

    /// A blob was sent to its end.
    fn finished(&mut self, repository: usize, reply: &Reply, digest: &str, content: &[u8], is_full: bool) {
        let is_right = Digest::parse(digest).is_ok_and(|digest| digest.matches(content)) && content.len() <= BLOB_MAX;
        if reply.status == 201 {
            assert!(is_right && !is_full, "{digest} was taken for {} bytes: {reply:?}", content.len());
            assert_eq!(reply.header("docker-content-digest"), Some(digest));
            self.blobs.insert((repository, digest.to_owned()), content.to_vec());
        } else {
            assert!(is_full || !is_right, "{digest} is the digest of what was sent: {reply:?}");
            assert!((400..500).contains(&reply.status) || (is_full && reply.status == 503), "{reply:?}");
        }
    }

    /// After a refused request the session is gone, or stands at some point of what was sent.
    fn resync(&mut self, at: usize) {
        let reply = self.client.ask("GET", &self.sessions[at].location, &[], b"");
        if reply.status == 404 {
            self.sessions.remove(at);
            return;
        }
        // What it holds beyond is not known to the model, so it is given up.
        assert_eq!(reply.status, 204, "{reply:?}");
        let reply = self.client.ask("DELETE", &self.sessions[at].location, &[], b"");
        assert_eq!(reply.status, 204, "{reply:?}");
        self.sessions.remove(at);
    }

    fn ask(&mut self, choice: usize) {
        let Some(at) = self.session(choice) else { return };
        let path = self.path(at, choice);
        let reply = self.client.ask("GET", &path.0, &[], b"");
        if !path.1 {
            assert_eq!(reply.status, 404, "{reply:?}");
            return;
        }
        assert_eq!(reply.status, 204, "{reply:?}");
        let end = self.sessions[at].bytes.len().saturating_sub(1);
        assert_eq!(reply.header("range"), Some(format!("0-{end}").as_str()), "{reply:?}");
    }

    fn cancel(&mut self, choice: usize) {
        let Some(at) = self.session(choice) else { return };
        let path = self.path(at, choice);
        let reply = self.client.ask("DELETE", &path.0, &[], b"");
        if !path.1 {
            assert_eq!(reply.status, 404, "{reply:?}");
            return;
        }
        assert_eq!(reply.status, 204, "{reply:?}");
        let gone = self.sessions.remove(at);
        assert_eq!(self.client.ask("GET", &gone.location, &[], b"").status, 404);
    }

    fn mount(&mut self, choice: usize) {
        let (from, to) = (choice & 1, choice >> 1 & 1);
        let known = self.blobs.keys().nth((choice >> 2) % self.blobs.len().max(1)).cloned();
        let (_, digest) = known.unwrap_or((0, Digest::sha256(b"nothing").to_string()));
        let path = format!("/v2/{}/blobs/uploads/?mount={digest}&from={}", REPOSITORIES[to], REPOSITORIES[from]);
        let reply = self.client.ask("POST", &path, &[], b"");
        match self.blobs.get(&(from, digest.clone())).cloned() {
            Some(content) => {
                assert_eq!(reply.status, 201, "{reply:?}");
                self.blobs.insert((to, digest), content);
            }
            None if self.sessions.len() >= UPLOADS_MAX => {
                assert!(reply.status == 429 || reply.status == 503, "{reply:?}")
            }
            None => {
                assert_eq!(reply.status, 202, "{reply:?}");
                let location = reply.header("location").expect("an upload has a location").to_owned();
                let session = Session { repository: to, location, algorithm: Algorithm::Sha256, bytes: Vec::new() };
                self.sessions.push(session);
            }
        }
    }

    /// The path of a session, now and then through the wrong repository; and whether it is the right one.
    fn path(&self, at: usize, choice: usize) -> (String, bool) {
        let session = &self.sessions[at];
        if choice < 0xf0 {
            return (session.location.clone(), true);
        }
        let wrong = REPOSITORIES[1 - session.repository];
        (session.location.replace(REPOSITORIES[session.repository], wrong), false)
    }

    /// What can be fetched, and what is on disk.
    fn check(&mut self, root: &Path) {
        for ((repository, digest), content) in &self.blobs {
            let path = format!("/v2/{}/blobs/{digest}", REPOSITORIES[*repository]);
            let reply = self.client.ask("GET", &path, &[], b"");
            assert!(reply.status == 200 && reply.body == *content, "{reply:?}");
            let other = 1 - repository;
            if !self.blobs.contains_key(&(other, digest.clone())) {
                let path = format!("/v2/{}/blobs/{digest}", REPOSITORIES[other]);
                assert_eq!(self.client.ask("HEAD", &path, &[], b"").status, 404, "{digest} leaked");
            }
        }
        let mut on_disk = BTreeSet::new();
        for algorithm in ["sha256", "sha512"] {
            for file in fs::read_dir(root.join("blobs").join(algorithm)).expect("the blobs") {
                let file = file.expect("a blob");
                let text = format!("{algorithm}:{}", file.file_name().to_string_lossy());
                let digest = Digest::parse(&text).expect("a blob is named by its digest");
                assert!(digest.matches(&fs::read(file.path()).expect("a blob")), "{digest} is another's content");
                on_disk.insert(text);
            }
        }
        let accepted: BTreeSet<String> = self.blobs.keys().map(|(_, digest)| digest.clone()).collect();
        assert_eq!(on_disk, accepted);
    }
}

/// A digest that is right, wrong, of the other algorithm, or none at all.
fn promised(algorithm: Algorithm, content: &[u8], kind: usize) -> String {
    match kind % 8 {
        0..=3 => algorithm.digest(content).to_string(),
        4 => algorithm.digest(b"something else").to_string(),
        5 => algorithm.digest(content).to_string().to_uppercase(),
        6 => "sha256:../../etc".to_owned(),
        _ => String::new(),
    }
}

/// A `Content-Range`, and whether it fits.
fn range(kind: u8, stands: usize, length: usize) -> (Option<String>, bool) {
    if kind & 4 == 0 || length == 0 {
        return (None, true);
    }
    match kind & 3 {
        0 | 1 => (Some(format!("{stands}-{}", stands + length - 1)), true),
        2 => (Some(format!("{}-{}", stands + 1, stands + length)), false),
        _ => (Some(format!("{stands}-{}", stands + length)), false),
    }
}
