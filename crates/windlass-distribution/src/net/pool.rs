//! Connections of one origin: at most so many open, the youngest idle one first, one shared for HTTP/2.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use windlass_core::httpurl::{UrlScheme, WebOrigin};
use windlass_core::mirror::Http2;

use super::dial::{Dialled, Dialler, Sender};
use super::payload::PayloadBody;
use super::profile::{Guard, Profile};
use crate::error::TransportError;

/// The connections to one origin with one profile.
#[derive(Debug)]
pub(crate) struct Pool {
    site: WebOrigin,
    profile: Profile,
    keep_alive: Duration,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
    /// Held while dialling as long as HTTP/2 is possible, so that one connection serves all.
    dialling: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Idle>,
    shared: Option<Shared>,
    /// The peer chose HTTP/1.1 before, so dialling need not wait for others.
    known_h1: bool,
}

#[derive(Debug)]
struct Idle {
    connection: H1,
    since: Instant,
}

#[derive(Debug)]
struct H1 {
    sender: http1::SendRequest<PayloadBody>,
    peer: Option<IpAddr>,
    absolute_form: bool,
}

#[derive(Clone, Debug)]
struct Shared {
    sender: http2::SendRequest<PayloadBody>,
    peer: Option<IpAddr>,
}

/// A connection lent for one request.
#[derive(Debug)]
pub(crate) struct Lent {
    kind: LentKind,
    pool: Arc<Pool>,
    permit: OwnedSemaphorePermit,
    /// It served a request before, so the peer may have closed it meanwhile.
    pub(crate) reused: bool,
}

#[derive(Debug)]
enum LentKind {
    H1(H1),
    H2(Shared),
}

/// Brings a connection back when its response was read to the end; dropped before that, the connection closes.
#[derive(Debug)]
pub(crate) struct Returned {
    connection: Option<H1>,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(site: WebOrigin, profile: Profile, connections: usize, keep_alive: Duration) -> Pool {
        Pool {
            site,
            profile,
            keep_alive,
            permits: Arc::new(Semaphore::new(connections.max(1))),
            state: Mutex::default(),
            dialling: tokio::sync::Mutex::new(()),
        }
    }

    /// Lends a connection, making one if need be. Waits while the origin's cap is reached.
    pub(crate) async fn lend(self: &Arc<Self>, dialler: &Dialler, guard: &Guard) -> Result<Lent, TransportError> {
        let permits = self.permits.clone();
        let permit = permits.acquire_owned().await.expect("the semaphore is never closed");
        let lent = |kind, permit, reused| Lent { kind, pool: self.clone(), permit, reused };
        if let Some(kind) = self.take(guard) {
            return Ok(lent(kind, permit, true));
        }
        let may_share = self.site.scheme == UrlScheme::Https && self.profile.http2 == Http2::Allowed;
        let waiting = may_share && !self.state().known_h1;
        let turn = if waiting { Some(self.dialling.lock().await) } else { None };
        if turn.is_some()
            && let Some(kind) = self.take(guard)
        {
            return Ok(lent(kind, permit, true));
        }
        let Dialled { sender, peer, absolute_form } = dialler.dial(&self.site, &self.profile, guard).await?;
        let mut state = self.state();
        let kind = match sender {
            Sender::H1(sender) => {
                state.known_h1 = true;
                LentKind::H1(H1 { sender, peer, absolute_form })
            }
            Sender::H2(sender) => {
                let shared = Shared { sender, peer };
                state.shared = Some(shared.clone());
                state.known_h1 = false;
                LentKind::H2(shared)
            }
        };
        drop(state);
        Ok(lent(kind, permit, false))
    }

    /// Makes sure that a connection can be had, and keeps it for the next request.
    pub(crate) async fn warm(self: &Arc<Self>, dialler: &Dialler, guard: &Guard) -> Result<(), TransportError> {
        let lent = self.lend(dialler, guard).await?;
        let Lent { kind, pool, .. } = lent;
        if let LentKind::H1(connection) = kind {
            pool.keep(connection);
        }
        Ok(())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open connection whose peer the guard allows.
    fn take(&self, guard: &Guard) -> Option<LentKind> {
        let allowed = |peer: Option<IpAddr>| peer.is_none_or(|p| guard.allows(p));
        let mut state = self.state();
        if let Some(shared) = &state.shared {
            if shared.sender.is_closed() {
                state.shared = None;
            } else if allowed(shared.peer) {
                return Some(LentKind::H2(shared.clone()));
            }
        }
        let keep_alive = self.keep_alive;
        state.idle.retain(|idle| !idle.connection.sender.is_closed() && idle.since.elapsed() < keep_alive);
        let position = state.idle.iter().rposition(|idle| allowed(idle.connection.peer))?;
        Some(LentKind::H1(state.idle.remove(position).connection))
    }

    fn keep(&self, connection: H1) {
        if !connection.sender.is_closed() {
            self.state().idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Forgets a shared connection that failed.
    fn forget_shared(&self) {
        self.state().shared = None;
    }
}

impl Lent {
    /// Whether the request line must hold the whole URL.
    pub(crate) fn absolute_form(&self) -> bool {
        match &self.kind {
            LentKind::H1(connection) => connection.absolute_form,
            LentKind::H2(_) => false,
        }
    }

    /// The peer's address.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        match &self.kind {
            LentKind::H1(connection) => connection.peer,
            LentKind::H2(shared) => shared.peer,
        }
    }

    /// Whether requests are HTTP/2, where the authority is part of the URI.
    pub(crate) fn is_h2(&self) -> bool {
        matches!(self.kind, LentKind::H2(_))
    }

    /// Sends the request and waits for the head of the response.
    pub(crate) async fn send(
        self,
        request: http::Request<PayloadBody>,
    ) -> Result<(http::Response<hyper::body::Incoming>, Returned), TransportError> {
        let Lent { kind, pool, permit, .. } = self;
        match kind {
            LentKind::H1(mut connection) => {
                connection.sender.ready().await.map_err(TransportError::from_hyper)?;
                let response = connection.sender.send_request(request).await.map_err(TransportError::from_hyper)?;
                Ok((response, Returned { connection: Some(connection), pool, _permit: permit }))
            }
            LentKind::H2(Shared { mut sender, .. }) => {
                let result = async {
                    sender.ready().await?;
                    sender.send_request(request).await
                };
                match result.await {
                    Ok(response) => Ok((response, Returned { connection: None, pool, _permit: permit })),
                    Err(error) => {
                        if sender.is_closed() {
                            pool.forget_shared();
                        }
                        Err(TransportError::from_hyper(error))
                    }
                }
            }
        }
    }
}

impl Returned {
    /// Gives the connection back to its pool.
    pub(crate) fn reuse(mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.keep(connection);
        }
    }
}
