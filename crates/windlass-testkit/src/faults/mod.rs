//! A registry that misbehaves on demand, down to the socket.
//!
//! It serves what was placed in it honestly, and then every [`Fault`] whose [`When`] matches the request spoils the
//! answer, in the order they were injected. It speaks HTTP/1.1 on threads of its own, so that it can stall, trickle,
//! cut and reset at any byte, and it records every request, so that a test can say what was asked and whether a
//! credential was sent.
//!
//! ```
//! use windlass_testkit::faults::{Fault, FaultyRegistry, When};
//! use windlass_testkit::images::small;
//! let registry = FaultyRegistry::open();
//! let reference = registry.place(&small("x").bundle(), "app", "v1");
//! registry.inject(When::blob().first(2), Fault::status(503));
//! registry.inject(When::manifest(), Fault::Header("Docker-Content-Digest", "sha256:lie".to_owned()));
//! # drop(reference);
//! ```

mod content;
mod fault;
mod guard;
mod http1;
mod plans;

use std::collections::HashMap;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use windlass_core::digest::Digest;

use crate::images::Bundle;
use crate::registry::TestTls;
pub use crate::wire::Reply;
use crate::wire::{Halt, tls_server};
pub use fault::{Cut, Fault, When};
pub use guard::{Guard, SeenAuthorization};
pub use http1::Seen;
pub use plans::{Outcome, PASSWORD, Plan, Scene, Setting, USER, plans};

use content::Shelves;
use fault::Injected;
use guard::Tokens;

/// What a faulty registry is like before it starts.
#[derive(Debug, Default)]
pub struct FaultyBuilder {
    guard: Guard,
    tls: Option<TestTls>,
}

impl FaultyBuilder {
    /// Asks for credentials in this way.
    pub fn guard(mut self, guard: Guard) -> FaultyBuilder {
        self.guard = guard;
        self
    }

    /// HTTPS with a new CA; see [`FaultyRegistry::tls`].
    pub fn https(self) -> FaultyBuilder {
        self.https_with(TestTls::new())
    }

    /// HTTPS with this certificate.
    pub fn https_with(mut self, tls: TestTls) -> FaultyBuilder {
        self.tls = Some(tls);
        self
    }

    /// Starts it on a free loopback port.
    pub fn start(self) -> FaultyRegistry {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let server = self.tls.as_ref().map(tls_server);
        let shared = Arc::new(Shared {
            addr,
            is_https: self.tls.is_some(),
            guard: self.guard,
            state: Mutex::new(State::default()),
            halt: Halt::default(),
        });
        let accepting = {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name("faulty-registry".to_owned())
                .spawn(move || http1::accept(&listener, &shared, server.as_ref()))
                .expect("a thread")
        };
        FaultyRegistry { shared, tls: self.tls, accepting: Some(accepting) }
    }
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    addr: SocketAddr,
    is_https: bool,
    guard: Guard,
    state: Mutex<State>,
    halt: Halt,
}

#[derive(Debug, Default)]
struct State {
    shelves: Shelves,
    faults: Vec<Injected>,
    seen: Vec<Seen>,
    tokens: Tokens,
    live: HashMap<u64, TcpStream>,
    connections: u64,
    /// Connections still to be closed before a byte is read.
    refusing: u64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }
}

/// A running faulty registry; it ends when dropped, and so does every stall.
#[derive(Debug)]
pub struct FaultyRegistry {
    shared: Arc<Shared>,
    tls: Option<TestTls>,
    accepting: Option<JoinHandle<()>>,
}

impl FaultyRegistry {
    /// Starts with plain HTTP and no authentication.
    pub fn build() -> FaultyBuilder {
        FaultyBuilder::default()
    }

    /// Plain HTTP, no authentication.
    pub fn open() -> FaultyRegistry {
        FaultyRegistry::build().start()
    }

    /// Address listened on.
    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// Host and port as they stand in a reference.
    pub fn host(&self) -> String {
        self.shared.addr.to_string()
    }

    /// `http://host` or `https://host`.
    pub fn url(&self) -> String {
        format!("{}://{}", self.shared.scheme(), self.shared.addr)
    }

    /// `host/repository:tag`.
    pub fn reference(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.shared.addr)
    }

    /// CA and certificate of an HTTPS registry.
    pub fn tls(&self) -> Option<&TestTls> {
        self.tls.as_ref()
    }

    /// Serves an image under a tag; answers the reference. Nothing about it is checked.
    pub fn place(&self, bundle: &Bundle, repository: &str, tag: &str) -> String {
        self.shared.state().shelves.place(bundle, repository, tag);
        self.reference(repository, tag)
    }

    /// Points a tag at a manifest that is here.
    pub fn tag(&self, repository: &str, tag: &str, digest: &Digest) {
        self.shared.state().shelves.tag(repository, tag, digest);
    }

    /// Serves these bytes at this path, before anything else is looked at.
    pub fn serve_at(&self, path: &str, content_type: &str, bytes: impl Into<bytes::Bytes>) {
        self.shared.state().shelves.serve_at(path, content_type, bytes.into());
    }

    /// Spoils the answers to the requests that match.
    pub fn inject(&self, when: When, fault: Fault) {
        self.shared.state().faults.push(Injected::new(when, fault));
    }

    /// Closes the next `connections` connections before reading from them, as a registry that is down behind a
    /// load balancer does.
    pub fn refuse_connections(&self, connections: u64) {
        self.shared.state().refusing = connections;
    }

    /// Is honest again.
    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.faults.clear();
        state.refusing = 0;
    }

    /// Makes every token given out so far worthless.
    pub fn revoke_tokens(&self) {
        self.shared.state().tokens.revoke();
    }

    /// Every request so far, in the order they arrived.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// Every request so far; forgets them.
    pub fn take_requests(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.state().seen)
    }

    /// Requests whose path contains `part`.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.shared.state().seen.iter().filter(|seen| seen.method == method && seen.path.contains(part)).count()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.state().connections
    }

    /// Whether any request brought a credential or a cookie.
    pub fn saw_credentials(&self) -> bool {
        self.shared.state().seen.iter().any(Seen::carries_credentials)
    }
}

impl Drop for FaultyRegistry {
    fn drop(&mut self) {
        self.shared.halt.end();
        for stream in self.shared.state().live.values() {
            // Fails when the peer has closed it already.
            let _closed = stream.shutdown(Shutdown::Both);
        }
        // Wakes the accept loop, which then sees that it has to end.
        let woken = TcpStream::connect(self.shared.addr);
        if let (Ok(_), Some(accepting)) = (woken, self.accepting.take()) {
            let _ended = accepting.join();
        }
    }
}
