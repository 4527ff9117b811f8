//! The scripted server: HTTP/1.1 by hand over TCP or TLS, so that it can break every rule.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Number of the connection it came on, from 1.
    pub(crate) connection: u64,
    /// Number of the request, from 0.
    pub(crate) number: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub(crate) fn authorization(&self) -> Option<&str> {
        self.header("authorization")
    }

    /// The path without the query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub(crate) fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, q)| q)
    }

    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// What to answer, and how to misbehave.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Announced length; `None` leaves the field out.
    length: Option<usize>,
    chunked: bool,
    end: End,
    raw: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Full,
    CutAfter(usize),
    ResetAfter(usize),
    StallAfter(usize),
    Trickle {
        bytes: usize,
        every: Duration,
    },
    /// Bytes without end.
    Endless,
    NoAnswer,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            length: Some(0),
            chunked: false,
            end: End::Full,
            raw: None,
        }
    }

    pub(crate) fn error(status: u16, code: &str, message: &str) -> Reply {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        Reply::new(status).header("Content-Type", "application/json").body(body.into_bytes())
    }

    pub(crate) fn json(body: &str) -> Reply {
        Reply::new(200).header("Content-Type", "application/json").body(body.as_bytes().to_vec())
    }

    pub(crate) fn bearer(realm: &str, scope: &str) -> Reply {
        let value = format!(r#"Bearer realm="{realm}",service="registry.test",scope="{scope}""#);
        Reply::error(401, "UNAUTHORIZED", "authentication required").header("WWW-Authenticate", &value)
    }

    pub(crate) fn basic_challenge() -> Reply {
        Reply::error(401, "UNAUTHORIZED", "log in").header("WWW-Authenticate", r#"Basic realm="here""#)
    }

    pub(crate) fn redirect(to: &str) -> Reply {
        Reply::new(307).header("Location", to)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: Vec<u8>) -> Reply {
        self.length = Some(body.len());
        self.body = body;
        self
    }

    /// Announces another length than the body has.
    pub(crate) fn length(mut self, length: usize) -> Reply {
        self.length = Some(length);
        self
    }

    pub(crate) fn chunked(mut self) -> Reply {
        self.chunked = true;
        self.length = None;
        self
    }

    /// The connection's end is the body's end.
    pub(crate) fn until_close(mut self) -> Reply {
        self.length = None;
        self
    }

    pub(crate) fn cut_after(mut self, bytes: usize) -> Reply {
        self.end = End::CutAfter(bytes);
        self
    }

    pub(crate) fn reset_after(mut self, bytes: usize) -> Reply {
        self.end = End::ResetAfter(bytes);
        self
    }

    pub(crate) fn stall_after(mut self, bytes: usize) -> Reply {
        self.end = End::StallAfter(bytes);
        self
    }

    pub(crate) fn trickle(mut self, bytes: usize, every: Duration) -> Reply {
        self.end = End::Trickle { bytes, every };
        self
    }

    pub(crate) fn endless(mut self) -> Reply {
        self.end = End::Endless;
        self.length = None;
        self.chunked = true;
        self
    }

    /// Never answers.
    pub(crate) fn silence() -> Reply {
        Reply { end: End::NoAnswer, ..Reply::new(200) }
    }

    /// These bytes and nothing else, then the end of the connection.
    pub(crate) fn raw(bytes: Vec<u8>) -> Reply {
        Reply { raw: Some(bytes), ..Reply::new(200) }
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

/// A running server; it stops when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    name: &'static str,
    scheme: &'static str,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
    open: Arc<Open>,
}

/// Connections open now, and the most there were.
#[derive(Default)]
pub(crate) struct Open {
    now: AtomicU64,
    most: AtomicU64,
    total: AtomicU64,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
        Server::on("127.0.0.1", None, handler).await
    }

    /// On another loopback address, so that it is another host.
    pub(crate) async fn start_on(
        address: &'static str,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Server {
        Server::on(address, None, handler).await
    }

    pub(crate) async fn start_tls(
        tls: Arc<rustls::ServerConfig>,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Server {
        Server::on("127.0.0.1", Some(tls), handler).await
    }

    async fn on(
        name: &'static str,
        tls: Option<Arc<rustls::ServerConfig>>,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind((name, 0)).await.expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let open = Arc::new(Open::default());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (log, counts, handler): (_, _, Arc<Handler>) = (seen.clone(), open.clone(), Arc::new(handler));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counts.total.fetch_add(1, Ordering::SeqCst) + 1;
                let now = counts.now.fetch_add(1, Ordering::SeqCst) + 1;
                counts.most.fetch_max(now, Ordering::SeqCst);
                let (log, counts, handler, tls) = (log.clone(), counts.clone(), handler.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, number, &log, &*handler).await,
                        Some(tls) => {
                            if let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                                serve(stream, number, &log, &*handler).await;
                            }
                        }
                    }
                    counts.now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Server { address, name, scheme, seen, task, open }
    }

    /// `host:port`.
    pub(crate) fn host(&self) -> String {
        format!("{}:{}", self.name, self.address.port())
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// An URL at this server.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.host())
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no test panics while it holds this").clone()
    }

    /// Method and target of every request.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }

    pub(crate) fn connections(&self) -> u64 {
        self.open.total.load(Ordering::SeqCst)
    }

    pub(crate) fn most_connections(&self) -> u64 {
        self.open.most.load(Ordering::SeqCst)
    }
}

/// A connection that can be told to end by a reset.
trait Connection: AsyncRead + AsyncWrite + Unpin {
    fn end_by_reset(&self);
}

impl Connection for TcpStream {
    fn end_by_reset(&self) {
        self.set_zero_linger().expect("a socket option");
    }
}

impl Connection for tokio_rustls::server::TlsStream<TcpStream> {
    fn end_by_reset(&self) {
        self.get_ref().0.end_by_reset();
    }
}

async fn serve<S: Connection>(stream: S, connection: u64, log: &Mutex<Vec<Seen>>, handler: &Handler) {
    let mut stream = BufReader::new(stream);
    while let Some(mut seen) = read_request(&mut stream).await {
        seen.connection = connection;
        let reply = {
            let mut log = log.lock().expect("no test panics while it holds this");
            seen.number = log.len();
            log.push(seen.clone());
            drop(log);
            handler(&seen)
        };
        if answer(&mut stream, &seen, reply).await.is_none() {
            return;
        }
    }
}

async fn read_request<S: Connection>(stream: &mut BufReader<S>) -> Option<Seen> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
    let mut words = line.split_ascii_whitespace().map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let mut seen = Seen { method, target, headers, body: Vec::new(), connection: 0, number: 0 };
    if let Some(length) = seen.header("content-length") {
        seen.body = vec![0; length.parse().ok()?];
        stream.read_exact(&mut seen.body).await.ok()?;
    } else if seen.header("transfer-encoding").is_some() {
        seen.body = read_chunks(stream).await?;
    }
    Some(seen)
}

async fn read_chunks<S: Connection>(stream: &mut BufReader<S>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let size = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await.ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

/// `None` when the connection is over.
async fn answer<S: Connection>(stream: &mut BufReader<S>, seen: &Seen, reply: Reply) -> Option<()> {
    let stream = stream.get_mut();
    if let Some(raw) = &reply.raw {
        stream.write_all(raw).await.ok()?;
        stream.shutdown().await.ok()?;
        return None;
    }
    if let End::NoAnswer = reply.end {
        std::future::pending::<()>().await;
    }
    stream.write_all(reply.head().as_bytes()).await.ok()?;
    if seen.method == "HEAD" || matches!(reply.status, 204 | 304) {
        return stream.flush().await.ok();
    }
    let body = if reply.chunked && !matches!(reply.end, End::Endless) { reply.in_chunks() } else { reply.body.clone() };
    match reply.end {
        End::Full => stream.write_all(&body).await.ok()?,
        End::CutAfter(bytes) => {
            stream.write_all(&body[..bytes]).await.ok()?;
            stream.shutdown().await.ok()?;
            return None;
        }
        End::ResetAfter(bytes) => {
            stream.write_all(&body[..bytes]).await.ok()?;
            stream.flush().await.ok()?;
            stream.end_by_reset();
            return None;
        }
        End::StallAfter(bytes) => {
            stream.write_all(&body[..bytes]).await.ok()?;
            stream.flush().await.ok()?;
            std::future::pending::<()>().await;
        }
        End::Trickle { bytes, every } => {
            for piece in body.chunks(bytes) {
                stream.write_all(piece).await.ok()?;
                stream.flush().await.ok()?;
                tokio::time::sleep(every).await;
            }
        }
        End::Endless => loop {
            let mut piece = format!("{:x}\r\n", 64 * 1024).into_bytes();
            piece.resize(piece.len() + 64 * 1024, 7);
            piece.extend_from_slice(b"\r\n");
            stream.write_all(&piece).await.ok()?;
        },
        End::NoAnswer => {}
    }
    stream.flush().await.ok()?;
    if reply.length.is_none() && !reply.chunked {
        stream.shutdown().await.ok()?;
        return None;
    }
    Some(())
}

impl Reply {
    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} x\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(length) = self.length {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        if self.chunked {
            head.push_str("Transfer-Encoding: chunked\r\n");
        }
        head.push_str("\r\n");
        head
    }

    fn in_chunks(&self) -> Vec<u8> {
        let mut chunks = Vec::new();
        for piece in self.body.chunks(10_000) {
            chunks.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            chunks.extend_from_slice(piece);
            chunks.extend_from_slice(b"\r\n");
        }
        chunks.extend_from_slice(b"0\r\n\r\n");
        chunks
    }
}
