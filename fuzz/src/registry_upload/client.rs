//! A client of HTTP/1.1 that says exactly what it is told to.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No answer takes that long; one that does is a hang.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

pub(super) struct Client {
    addr: SocketAddr,
    stream: Option<TcpStream>,
}

impl Client {
    pub(super) fn new(addr: SocketAddr) -> Client {
        Client { addr, stream: None }
    }

    /// Asks and waits for the answer, over a new connection where the last one was closed.
    pub(super) fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.addr).expect("the registry listens");
                stream.set_read_timeout(Some(ANSWER_TIME_MAX)).expect("a time-out");
                stream.set_nodelay(true).expect("no delay");
                // Thousands of connections would otherwise wait for their last packets.
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("no lingering");
                stream
            }
        };
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n", self.addr, body.len());
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut sent = &stream;
        // A registry that has refused by now may have hung up; its answer is still there.
        let written = sent.write_all(&[request.as_bytes(), body].concat());
        let reply = receive(&stream, method).unwrap_or_else(|| panic!("{method} {path}: no answer ({written:?})"));
        if reply.header("connection") != Some("close") && written.is_ok() {
            self.stream = Some(stream);
        }
        reply
    }
}

fn receive(mut stream: &TcpStream, method: &str) -> Option<Reply> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or(Some(0), |(_, n)| n.parse().ok())?;
    let mut body = vec![0; if method == "HEAD" { 0 } else { length }];
    stream.read_exact(&mut body).ok()?;
    Some(Reply { status, headers, body })
}
