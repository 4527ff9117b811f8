//! A server whose answers are a function, on threads of its own and a free loopback port.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{End, Halt, Message, Reply, tls_server};
use crate::registry::TestTls;

/// What answers.
pub(crate) type Answers = dyn Fn(&Message) -> Reply + Send + Sync;

/// The running server; it ends when dropped, and so does everything that waits in it.
pub(crate) struct Listener {
    addr: SocketAddr,
    served: Arc<Served>,
    accepting: Option<JoinHandle<()>>,
}

struct Served {
    answers: Box<Answers>,
    tls: Option<Arc<rustls::ServerConfig>>,
    halt: Halt,
    live: Mutex<HashMap<u64, TcpStream>>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Listener").field(&self.addr).finish()
    }
}

/// A port that is bound and not served yet, so that its address is known before what answers there is.
pub(crate) struct Bound(TcpListener);

impl Bound {
    /// Takes a free port.
    pub(crate) fn new() -> Bound {
        Bound(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"))
    }

    /// Host and port.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.local_addr().expect("an address")
    }

    /// Serves.
    pub(crate) fn serve(self, name: &str, tls: Option<&TestTls>, answers: Box<Answers>) -> Listener {
        let Bound(listener) = self;
        let addr = listener.local_addr().expect("an address");
        let (halt, live) = (Halt::default(), Mutex::default());
        let served = Arc::new(Served { answers, tls: tls.map(tls_server), halt, live });
        let accepting = {
            let served = served.clone();
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(move || served.accept(&listener)).expect("a thread")
        };
        Listener { addr, served, accepting: Some(accepting) }
    }
}

impl Served {
    fn live(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for (number, stream) in (1..).zip(listener.incoming()) {
            if self.halt.is_ended() {
                return;
            }
            let Ok(stream) = stream else { continue };
            let served = self.clone();
            // A thread that cannot be had closes the connection, which the test will see.
            let _running = std::thread::Builder::new().spawn(move || served.serve(stream, number));
        }
    }

    fn serve(&self, stream: TcpStream, number: u64) {
        let (Ok(raw), Ok(live), Ok(())) = (stream.try_clone(), stream.try_clone(), stream.set_nodelay(true)) else {
            return;
        };
        self.live().insert(number, live);
        let ended = match &self.tls {
            None => self.converse(stream, &raw),
            Some(config) => match rustls::ServerConnection::new(config.clone()) {
                Ok(session) => self.converse(rustls::StreamOwned::new(session, stream), &raw),
                Err(_) => Ok(()),
            },
        };
        self.live().remove(&number);
        // The client went away, which is its right.
        drop(ended);
    }

    fn converse(&self, stream: impl Read + Write, raw: &TcpStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(message) = Message::read(&mut stream)? {
            let reply = (self.answers)(&message);
            match reply.send(&message.method, stream.get_mut(), &self.halt)? {
                End::KeepAlive if message.keeps_alive() => {}
                End::KeepAlive | End::Close => break,
                End::Reset => {
                    // Closing with a linger time of zero sends RST instead of FIN.
                    rustix::net::sockopt::set_socket_linger(raw, Some(Duration::ZERO))?;
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.served.halt.end();
        for stream in self.served.live().values() {
            // Fails when the peer has closed it already.
            let _closed = stream.shutdown(Shutdown::Both);
        }
        // Wakes the accept loop, which then sees that it has to end.
        let woken = TcpStream::connect(self.addr);
        if let (Ok(_), Some(accepting)) = (woken, self.accepting.take()) {
            let _ended = accepting.join();
        }
    }
}
