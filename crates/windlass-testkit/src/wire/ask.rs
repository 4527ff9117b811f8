//! The smallest client there is.

use std::io::{Read, Write};
use std::net::TcpStream;

/// Longest answer that is read.
const ANSWER_MAX_BYTES: u64 = 1 << 20;

/// Status, head and body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    #[cfg_attr(not(test), expect(dead_code, reason = "tests of the crate read all of it"))]
    pub(crate) head: String,
    #[cfg_attr(not(test), expect(dead_code, reason = "tests of the crate read all of it"))]
    pub(crate) body: Vec<u8>,
}

impl Answer {
    #[cfg(test)]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Asks once, over a connection of its own; `None` when it broke.
pub(crate) fn ask(url: &str, method: &str, headers: &[(&str, &str)], body: &str) -> Option<Answer> {
    let rest = url.strip_prefix("http://").expect("plain HTTP");
    let (address, target) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(address).expect("it listens");
    let mut head = format!("{method} /{target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut bytes = Vec::new();
    stream.take(ANSWER_MAX_BYTES).read_to_end(&mut bytes).ok()?;
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head, body: bytes[end + 4..].to_vec() })
}
