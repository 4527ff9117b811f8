//! `windlass node` in a world, and what it is asked over its page's address.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::World;

/// Longest wait for anything; nothing here takes a tenth of it on an idle machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// A running daemon; killed when dropped.
pub(crate) struct Node<'w> {
    world: &'w World,
    child: Child,
    /// Where its page is.
    pub(crate) address: String,
}

/// Asks again and again until there is an answer.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(PAUSE);
    }
}

impl World {
    /// The socket of this world's daemon.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("node.sock")
    }

    /// Writes the daemon's configuration; `node` stands below `node:`, each line with two blanks in front.
    pub(crate) fn configure(&self, node: &str) {
        let socket = self.socket();
        let text = format!(
            "apiVersion: config.windlass.dev/v1alpha1\nkind: NodeConfiguration\nnode:\n  socket: {}\n  \
             metricsAddress: 127.0.0.1:0\n{node}",
            socket.display()
        );
        self.file("node.yaml", &text);
    }

    /// Starts the daemon with a configuration and waits until it is ready.
    pub(crate) fn node(&self, configuration: &str) -> Node<'_> {
        self.configure(configuration);
        let log = std::fs::File::create(self.path("node.log")).expect("the temporary folder takes files");
        let child = self
            .process(&["node", "--config", "node.yaml"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program can be started");
        let mut node = Node { world: self, child, address: String::new() };
        until("ready", || {
            assert!(node.child.try_wait().expect("a state").is_none(), "the daemon ended: {}", node.log());
            node.address = node.logged("metrics and health are served")?["fields"]["address"].as_str()?.to_owned();
            (node.get("/readyz").0 == 200).then_some(())
        });
        node
    }
}

impl Node<'_> {
    /// What it wrote to its log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.world.path("node.log")).unwrap_or_default()
    }

    /// The last event of its log with this message.
    pub(crate) fn logged(&self, message: &str) -> Option<Json> {
        let log = self.log();
        let mut events = log.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        events.rfind(|event| event["fields"]["message"] == message)
    }

    pub(crate) fn signal(&self, signal: &str) {
        let kill = std::process::Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(kill.expect("kill can be started").success());
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        until("the end", || self.child.try_wait().expect("a state"))
    }

    /// Status and body of a page.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let Some(mut reader) = self.open(path) else { return (0, String::new()) };
        let mut text = String::new();
        // Ends with the connection; what came until then is judged.
        drop(reader.read_to_string(&mut text));
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
        (status, body)
    }

    /// The lines of a page that goes on.
    pub(crate) fn open(&self, path: &str) -> Option<BufReader<TcpStream>> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(LIMIT)).ok()?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(head.as_bytes()).ok()?;
        Some(BufReader::new(stream))
    }

    /// Lines of the server-sent events until one of them says enough.
    pub(crate) fn events<T>(&self, mut enough: impl FnMut(&str) -> Option<T>) -> T {
        let mut reader = self.open("/events").expect("the page answers");
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(reader.read_line(&mut line).expect("events come"), 0, "the events ended");
            if let Some(found) = enough(line.trim_end()) {
                return found;
            }
        }
    }

    /// What `windlass status` says.
    #[track_caller]
    pub(crate) fn status(&self) -> Json {
        self.world.run(["status", "-o", "json"]).succeeds().stdout_json()
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
