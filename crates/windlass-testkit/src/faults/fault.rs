//! Which requests are spoilt, and how.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use windlass_core::digest::Digest;

use super::content::Shelves;
use super::http1::Seen;
use crate::wire::{End, Length, Reply};

/// Which requests a fault strikes.
#[derive(Clone, Debug)]
pub struct When {
    method: Option<&'static str>,
    path: PathIs,
    from: u64,
    count: u64,
    per_path: bool,
}

#[derive(Clone, Debug)]
enum PathIs {
    Any,
    Containing(String),
    Ending(String),
}

impl When {
    fn path(path: PathIs) -> When {
        When { method: None, path, from: 1, count: u64::MAX, per_path: false }
    }

    /// Every request.
    pub fn any() -> When {
        When::path(PathIs::Any)
    }

    /// Requests for blobs.
    pub fn blob() -> When {
        When::containing("/blobs/")
    }

    /// Requests for this blob.
    pub fn blob_of(digest: &Digest) -> When {
        When::path(PathIs::Ending(format!("/blobs/{digest}")))
    }

    /// Requests for manifests, by tag or digest.
    pub fn manifest() -> When {
        When::containing("/manifests/")
    }

    /// Requests for tokens.
    pub fn token() -> When {
        When::path(PathIs::Ending("/token".to_owned()))
    }

    /// Requests whose path contains this.
    pub fn containing(part: &str) -> When {
        When::path(PathIs::Containing(part.to_owned()))
    }

    /// Only this method.
    pub fn method(mut self, method: &'static str) -> When {
        self.method = Some(method);
        self
    }

    /// Only the first `count` that match.
    pub fn first(mut self, count: u64) -> When {
        self.from = 1;
        self.count = count;
        self
    }

    /// Only the `nth` that matches, from 1.
    pub fn only(mut self, nth: u64) -> When {
        self.from = nth;
        self.count = 1;
        self
    }

    /// The `nth` that matches and all after it.
    pub fn from(mut self, nth: u64) -> When {
        self.from = nth;
        self.count = u64::MAX;
        self
    }

    /// Counts each path by itself, instead of all that match together.
    pub fn each_path(mut self) -> When {
        self.per_path = true;
        self
    }

    fn matches(&self, seen: &Seen) -> bool {
        self.method.is_none_or(|method| method == seen.method)
            && match &self.path {
                PathIs::Any => true,
                PathIs::Containing(part) => seen.path.contains(part.as_str()),
                PathIs::Ending(end) => seen.path.ends_with(end.as_str()),
            }
    }
}

/// How a body that is cut off ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
}

/// What is done to an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Another status with an error body; `retry_after` as the header's text.
    Status {
        /// Status code.
        code: u16,
        /// `Retry-After`.
        retry_after: Option<String>,
        /// Text of the error.
        message: String,
    },
    /// This answer instead.
    Instead(Box<Reply>),
    /// The body stops at this byte although more was announced.
    Truncate {
        /// Bytes that are sent.
        at: u64,
        /// How it ends.
        how: Cut,
    },
    /// The body is shorter by so many bytes, honestly announced.
    Shorter(u64),
    /// The body is longer by so many bytes, honestly announced.
    Longer(u64),
    /// The body never ends; chunked, or until the connection is closed.
    Endless {
        /// With chunks, or without any framing.
        is_chunked: bool,
    },
    /// The body is sent in chunks, without a length.
    Chunked,
    /// This bit of the body is flipped, counted from its start.
    FlipBit(u64),
    /// Every byte of the body is another one.
    Corrupt,
    /// This header, replacing those of its name.
    Header(&'static str, String),
    /// Without this header.
    NoHeader(&'static str),
    /// `Content-Length` says this.
    ContentLength(u64),
    /// Waits before this byte of the body; `None`: for ever.
    Stall {
        /// First byte that is late.
        at: u64,
        /// How long.
        how_long: Option<Duration>,
    },
    /// Waits before the head; `None`: for ever.
    StallHead(Option<Duration>),
    /// So many bytes per second.
    Trickle(u64),
    /// Sent to another place.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        code: u16,
        /// `Location`, with `{path}` standing for the path of the request.
        location: String,
    },
    /// A web page with status 200.
    Html,
    /// So many headers of so many bytes each.
    Headers {
        /// How many.
        count: usize,
        /// Length of each value.
        len: usize,
    },
    /// `Content-Encoding: gzip`, and the body indeed in gzip.
    GzipEncoded,
    /// The whole with 200, whatever range was asked for.
    IgnoreRange,
    /// A part that begins so many bytes later than asked for, with a `Content-Range` that says so.
    ShiftRange(u64),
    /// The right part with a `Content-Range` that says something else.
    LieRange(String),
    /// 416 to every request with a range.
    RefuseRange,
    /// 401 with this challenge.
    Challenge(String),
    /// A tag names another manifest from now on.
    MoveTag {
        /// Repository.
        repository: String,
        /// Tag.
        tag: String,
        /// Manifest that is here.
        to: Digest,
    },
}

impl Fault {
    /// Another status.
    pub fn status(code: u16) -> Fault {
        Fault::Status { code, retry_after: None, message: "injected".to_owned() }
    }

    /// Another status with `Retry-After`.
    pub fn retry_after(code: u16, after: &str) -> Fault {
        Fault::Status { code, retry_after: Some(after.to_owned()), message: "injected".to_owned() }
    }

    /// A temporary redirect.
    pub fn redirect(location: &str) -> Fault {
        Fault::Redirect { code: 307, location: location.to_owned() }
    }
}

/// A fault with its counters.
#[derive(Debug)]
pub(super) struct Injected {
    when: When,
    fault: Fault,
    hits: HashMap<String, u64>,
}

impl Injected {
    pub(super) fn new(when: When, fault: Fault) -> Injected {
        Injected { when, fault, hits: HashMap::new() }
    }

    /// Whether this request is struck; counts it when it matches.
    pub(super) fn strikes(&mut self, seen: &Seen) -> bool {
        if !self.when.matches(seen) {
            return false;
        }
        let key = if self.when.per_path { seen.path.clone() } else { String::new() };
        let hit = self.hits.entry(key).or_default();
        *hit += 1;
        *hit >= self.when.from && *hit - self.when.from < self.when.count
    }

    pub(super) fn spoil(&self, reply: &mut Reply, seen: &Seen, shelves: &mut Shelves) {
        match &self.fault {
            Fault::Status { code, retry_after, message } => {
                *reply = Reply::error(*code, "UNKNOWN", message);
                if let Some(after) = retry_after {
                    reply.set("Retry-After", after);
                }
            }
            Fault::Instead(other) => *reply = (**other).clone(),
            Fault::Truncate { at, how } => {
                reply.cut_at = Some(*at);
                reply.end = match how {
                    Cut::Close => End::Close,
                    Cut::Reset => End::Reset,
                };
            }
            Fault::Shorter(by) => {
                let len = reply.body.len().saturating_sub(usize::try_from(*by).unwrap_or(usize::MAX));
                reply.body.truncate(len);
            }
            Fault::Longer(by) => {
                let mut body = reply.body.to_vec();
                body.resize(body.len() + usize::try_from(*by).unwrap_or(0), 0);
                reply.body = body.into();
            }
            Fault::Endless { is_chunked } => {
                reply.is_endless = true;
                reply.length = if *is_chunked { Length::Chunked } else { Length::UntilClose };
            }
            Fault::Chunked => reply.length = Length::Chunked,
            Fault::FlipBit(bit) => {
                let mut body = reply.body.to_vec();
                if let Some(byte) = body.get_mut(usize::try_from(bit / 8).unwrap_or(usize::MAX)) {
                    *byte ^= 1 << (bit % 8);
                }
                reply.body = body.into();
            }
            Fault::Corrupt => reply.body = reply.body.iter().map(|b| !b).collect::<Vec<u8>>().into(),
            Fault::Header(name, value) => reply.set(name, value),
            Fault::NoHeader(name) => reply.unset(name),
            Fault::ContentLength(len) => {
                reply.length = Length::Says(*len);
                reply.end = End::Close;
            }
            Fault::Stall { at, how_long } => reply.stall = Some((*at, *how_long)),
            Fault::StallHead(how_long) => reply.head_stall = Some(*how_long),
            Fault::Trickle(rate) => reply.rate = Some(*rate),
            Fault::Redirect { code, location } => {
                let location = location.replace("{path}", &seen.path);
                *reply = Reply::new(*code, "text/plain", "moved").with("Location", location);
            }
            Fault::Html => {
                *reply = Reply::new(200, "text/html; charset=utf-8", "<!doctype html><title>Log in</title>");
            }
            Fault::Headers { count, len } => {
                let value = "x".repeat(*len);
                reply.headers.extend((0..*count).map(|i| (format!("X-Flood-{i}"), value.clone())));
            }
            Fault::GzipEncoded => {
                reply.body = gzip(&reply.body);
                reply.set("Content-Encoding", "gzip");
            }
            Fault::IgnoreRange => {
                let mut without = seen.clone();
                without.headers.retain(|(name, _)| name != "range");
                *reply = shelves.answer(&without);
            }
            Fault::ShiftRange(by) => shift(reply, seen, shelves, *by),
            Fault::LieRange(text) if reply.status == 206 => reply.set("Content-Range", text),
            Fault::LieRange(_) => {}
            Fault::RefuseRange if seen.header("range").is_some() => {
                *reply = Reply::error(416, "SIZE_INVALID", "no ranges today");
            }
            Fault::RefuseRange => {}
            Fault::Challenge(challenge) => {
                *reply =
                    Reply::error(401, "UNAUTHORIZED", "authentication required").with("WWW-Authenticate", challenge);
            }
            Fault::MoveTag { repository, tag, to } => shelves.tag(repository, tag, to),
        }
    }
}

/// The part that begins later than asked for.
fn shift(reply: &mut Reply, seen: &Seen, shelves: &Shelves, by: u64) {
    let asked = seen.header("range").and_then(|range| range.strip_prefix("bytes="));
    let Some(first) = asked.and_then(|range| range.split('-').next()).and_then(|n| n.parse::<u64>().ok()) else {
        return;
    };
    let mut later = seen.clone();
    later.headers.retain(|(name, _)| name != "range");
    later.headers.push(("range".to_owned(), format!("bytes={}-", first + by)));
    *reply = shelves.answer(&later);
}

fn gzip(body: &Bytes) -> Bytes {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(body).and_then(|()| gzip.finish()).expect("memory takes every byte").into()
}
