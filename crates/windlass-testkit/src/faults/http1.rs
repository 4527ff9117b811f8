//! HTTP/1.1 by hand, on threads: only as much as a registry needs, and nothing between us and the socket.

use std::io::{self, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use super::guard::SeenAuthorization;
use super::{Shared, guard};
use crate::wire::{End, Message, Reply};

/// A request as it arrived. Secrets are not kept: only whether they were there and good.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Path without its query, as sent.
    pub path: String,
    /// Query, as sent.
    pub query: String,
    /// Headers with lower-case names, without `authorization` and `cookie`.
    pub headers: Vec<(String, String)>,
    /// What the `Authorization` header held.
    pub authorization: SeenAuthorization,
    /// Whether there was a `Cookie` header.
    pub has_cookie: bool,
    /// Names of the fields of a form in the body.
    pub form_keys: Vec<String>,
    /// Number of the connection, from 1.
    pub connection: u64,
}

impl Seen {
    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether it brought anything that proves an identity.
    pub fn carries_credentials(&self) -> bool {
        let by_form = self.form_keys.iter().any(|key| key == "password" || key == "refresh_token");
        self.authorization != SeenAuthorization::None || self.has_cookie || by_form
    }

    /// Every value of a query parameter, decoded.
    pub fn query_values(&self, key: &str) -> Vec<String> {
        let pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs.filter(|(k, _)| k == key).map(|(_, v)| v.into_owned()).collect()
    }
}

/// A request with what must not be recorded.
pub(super) struct Request {
    pub(super) seen: Seen,
    pub(super) authorization: Option<String>,
    pub(super) form: Vec<(String, String)>,
    pub(super) keeps_alive: bool,
}

/// Accepts until the registry stops; one thread per connection.
pub(super) fn accept(listener: &TcpListener, shared: &Arc<Shared>, tls: Option<&Arc<rustls::ServerConfig>>) {
    for stream in listener.incoming() {
        let number = {
            let mut state = shared.state();
            if shared.halt.is_ended() {
                return;
            }
            state.connections += 1;
            if state.refusing > 0 {
                state.refusing -= 1;
                continue;
            }
            state.connections
        };
        let Ok(stream) = stream else { continue };
        let (shared, tls) = (shared.clone(), tls.cloned());
        let serving = std::thread::Builder::new().name(format!("faulty-{number}"));
        // A thread that cannot be had closes the connection, which the test will see.
        let _running = serving.spawn(move || serve(stream, number, &shared, tls));
    }
}

fn serve(stream: TcpStream, number: u64, shared: &Shared, tls: Option<Arc<rustls::ServerConfig>>) {
    let (Ok(raw), Ok(live), Ok(())) = (stream.try_clone(), stream.try_clone(), stream.set_nodelay(true)) else {
        return;
    };
    shared.state().live.insert(number, live);
    let ended = match tls {
        None => converse(stream, &raw, number, shared),
        Some(config) => match rustls::ServerConnection::new(config) {
            Ok(session) => converse(rustls::StreamOwned::new(session, stream), &raw, number, shared),
            Err(_) => Ok(()),
        },
    };
    shared.state().live.remove(&number);
    // The client went away, which is its right; what it asked for is on record.
    drop(ended);
}

/// Requests and answers until one side has had enough.
fn converse(stream: impl Read + Write, raw: &TcpStream, number: u64, shared: &Shared) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream, number, shared)? {
        let reply = answer(&request, shared);
        let end = reply.send(&request.seen.method, stream.get_mut(), &shared.halt)?;
        match end {
            End::KeepAlive if request.keeps_alive => {}
            End::KeepAlive | End::Close => break,
            End::Reset => {
                // Closing with a linger time of zero sends RST instead of FIN.
                rustix::net::sockopt::set_socket_linger(raw, Some(std::time::Duration::ZERO))?;
                break;
            }
        }
    }
    Ok(())
}

fn answer(request: &Request, shared: &Shared) -> Reply {
    let mut state = shared.state();
    state.seen.push(request.seen.clone());
    let state = &mut *state;
    let mut reply = match state.shelves.at(&request.seen.path) {
        Some(reply) => reply,
        None => match guard::admit(shared, &mut state.tokens, request) {
            Ok(()) => state.shelves.answer(&request.seen),
            Err(refusal) => *refusal,
        },
    };
    for injected in &mut state.faults {
        if injected.strikes(&request.seen) {
            injected.spoil(&mut reply, &request.seen, &mut state.shelves);
        }
    }
    reply
}

fn read_request(stream: &mut BufReader<impl Read>, connection: u64, shared: &Shared) -> io::Result<Option<Request>> {
    let Some(message) = Message::read(stream)? else { return Ok(None) };
    let (authorization, form) = (message.header("authorization").map(str::to_owned), message.form());
    let (has_cookie, keeps_alive) = (message.header("cookie").is_some(), message.keeps_alive());
    let authorization_seen = guard::look(shared, &shared.state().tokens, authorization.as_deref());
    let Message { method, path, query, mut headers, .. } = message;
    headers.retain(|(name, _)| name != "authorization" && name != "cookie");
    let seen = Seen {
        method,
        path,
        query,
        headers,
        authorization: authorization_seen,
        has_cookie,
        form_keys: form.iter().map(|(key, _)| key.clone()).collect(),
        connection,
    };
    Ok(Some(Request { seen, authorization, form, keeps_alive }))
}
