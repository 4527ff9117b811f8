//! TLS, HTTP/2, the probing of loopback hosts, proxies and the number of connections.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{Full, StreamBody};
use hyper::body::{Bytes, Frame};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use windlass_core::host::Host;
use windlass_core::mirror::{HostOverride, Http2, RegistryOverride, Settings};
use windlass_core::reason::Reason;
use windlass_core::reference::Reference;
use windlass_core::secret::Secret;
use windlass_distribution::config::ProxyConfig;
use windlass_distribution::{Client, ClientConfig, CredentialMode, Repository, TagOrDigest};

use crate::pull::read_all;
use crate::support::{Image, Reply, Server, fast, session};

fn tag() -> TagOrDigest {
    TagOrDigest::Tag("1.0".into())
}

type Issued = (Arc<rustls::ServerConfig>, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A certificate authority made for one test, and a server certificate of it.
pub(crate) struct Authority {
    _directory: tempfile::TempDir,
    pub(crate) ca_file: PathBuf,
    pub(crate) server: Arc<rustls::ServerConfig>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    pub(crate) fn new(names: &[&str], alpn: &[&[u8]]) -> Authority {
        let directory = tempfile::tempdir().unwrap();
        let ca_file = directory.path().join("ca.pem");
        let (server, chain, key) = Authority::issue(&ca_file, names, alpn);
        Authority { _directory: directory, ca_file, server, chain, key }
    }

    /// Writes a new authority's certificate to `ca_file`.
    fn write(ca_file: &Path, names: &[&str], alpn: &[&[u8]]) -> Arc<rustls::ServerConfig> {
        Authority::issue(ca_file, names, alpn).0
    }

    fn identity(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain.clone(), self.key.clone_key())
    }

    fn issue(ca_file: &Path, names: &[&str], alpn: &[&[u8]]) -> Issued {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        let ca = params.self_signed(&ca_key).unwrap();
        std::fs::write(ca_file, ca.pem()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let params_of_server = rcgen::CertificateParams::new(names).unwrap();
        let issuer = rcgen::Issuer::new(params, ca_key);
        let certificate = params_of_server.signed_by(&key, &issuer).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key.clone_key())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        (Arc::new(config), chain, key)
    }

    fn config(&self) -> ClientConfig {
        ClientConfig { plain_http_everywhere: false, ca_files: vec![self.ca_file.clone()], ..fast() }
    }
}

async fn honest_tls(image: &Image, tls: Arc<rustls::ServerConfig>) -> Server {
    let served = image.clone();
    Server::start_tls(tls, move |seen| served.serve(seen)).await
}

#[tokio::test]
async fn a_private_authority_counts_where_it_is_configured() {
    let image = Image::new(2_000_000);
    let authority = Authority::new(&["127.0.0.1"], &[b"http/1.1"]);
    let server = honest_tls(&image, authority.server.clone()).await;
    let repository = session(&server, authority.config());
    repository.manifest(&tag()).await.unwrap();
    assert!(read_all(repository.blob(&image.layer())).await.unwrap() == image.layer);
    assert_eq!(server.connections(), 1, "the probing handshake's connection is used");

    let without = ClientConfig { plain_http_everywhere: false, ..fast() };
    let before = server.seen().len();
    let error = session(&server, without).manifest(&tag()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Tls, "a bad certificate is no reason for plain http: {error}");
    assert_eq!(server.seen().len(), before);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let image = Image::new(10);
    let authority = Authority::new(&["registry.example"], &[]);
    let server = honest_tls(&image, authority.server.clone()).await;
    let error = session(&server, authority.config()).manifest(&tag()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Tls, "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_its_host_alone() {
    let image = Image::new(10);
    let authority = Authority::new(&["127.0.0.1"], &[]);
    let key = rcgen::KeyPair::generate().unwrap();
    let mine = rcgen::CertificateParams::new(vec!["node-1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let root = tempfile::tempdir().unwrap();
    // Wants a certificate, and takes only that one.
    let mut clients = rustls::RootCertStore::empty();
    clients.add(mine.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(clients), provider.clone());
    let (chain, server_key) = authority.identity();
    let strict = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, server_key)
        .unwrap();
    let server = honest_tls(&image, Arc::new(strict)).await;
    // The alert may be lost in the reset that follows it, so only the refusal is certain.
    assert!(session(&server, authority.config()).manifest(&tag()).await.is_err());
    assert_eq!(server.seen().len(), 0);

    let directory = root.path().join(server.host());
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("me.cert"), mine.pem()).unwrap();
    std::fs::write(directory.join("me.key"), key.serialize_pem()).unwrap();
    let config = ClientConfig { hosts_dirs: vec![root.path().to_owned()], ..authority.config() };
    session(&server, config).manifest(&tag()).await.unwrap();
}

#[tokio::test]
async fn authorities_are_read_again_when_they_change() {
    let image = Image::new(10);
    let authority = Authority::new(&["127.0.0.1"], &[]);
    let first = honest_tls(&image, authority.server.clone()).await;
    let client = Client::new(authority.config()).unwrap();
    let session = |server: &Server| {
        let reference = Reference::parse(&format!("{}/team/app:1.0", server.host())).unwrap();
        client.repository(&reference, Vec::new(), CredentialMode::Windlass)
    };
    session(&first).manifest(&tag()).await.unwrap();
    let second = honest_tls(&image, Authority::write(&authority.ca_file, &["127.0.0.1"], &[])).await;
    session(&second).manifest(&tag()).await.unwrap();
}

#[tokio::test]
async fn a_loopback_host_without_tls_is_asked_in_plain_text() {
    let image = Image::new(10);
    let served = image.clone();
    let server = Server::start(move |seen| served.serve(seen)).await;
    let config = ClientConfig { plain_http_everywhere: false, ..fast() };
    let repository = session(&server, config);
    repository.manifest(&tag()).await.unwrap();
    repository.manifest(&tag()).await.unwrap();
    assert_eq!(server.connections(), 2, "the handshake that failed, and one for both requests");
}

#[tokio::test]
async fn an_https_only_host_is_never_asked_in_plain_text() {
    let image = Image::new(10);
    let served = image.clone();
    let server = Server::start(move |seen| served.serve(seen)).await;
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join(server.host());
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("hosts.toml"), format!("server = \"https://{}\"\n", server.host())).unwrap();
    let config = ClientConfig { plain_http_everywhere: false, hosts_dirs: vec![root.path().to_owned()], ..fast() };
    let error = session(&server, config).manifest(&tag()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Tls, "{error}");
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn https_never_becomes_http() {
    let image = Image::new(10);
    let served = image.clone();
    let plain = Server::start(move |seen| served.serve(seen)).await;
    let authority = Authority::new(&["127.0.0.1"], &[]);
    let target = plain.url("/v2/team/app/manifests/1.0");
    let server = Server::start_tls(authority.server.clone(), move |_| Reply::redirect(&target)).await;
    let error = session(&server, authority.config()).manifest(&tag()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Tls, "{error}");
    assert_eq!(plain.seen().len(), 0);
}

/// An HTTP/2 registry by hyper; remembers the version and the connection of each request.
struct H2 {
    port: u16,
    seen: Arc<Mutex<Vec<(http::Version, u32)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for H2 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type H2Body = http_body_util::Either<Full<Bytes>, StreamBody<Pieces>>;
type Pieces = futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, std::convert::Infallible>>>;

fn h2_answer(image: &Image, path: &str) -> http::Response<H2Body> {
    let response = http::Response::builder();
    if path.contains("/manifests/") {
        let body = Full::new(Bytes::from(image.manifest.clone()));
        let response = response.header("Content-Type", crate::support::image::MANIFEST_TYPE);
        return response.body(http_body_util::Either::Left(body)).unwrap();
    }
    let pieces: Vec<_> = image.layer.chunks(100_000).map(|p| Ok(Frame::data(Bytes::copy_from_slice(p)))).collect();
    let body = StreamBody::new(futures_util::stream::iter(pieces));
    response.header("Content-Length", image.layer.len()).body(http_body_util::Either::Right(body)).unwrap()
}

async fn h2_server(image: &Image, tls: Arc<rustls::ServerConfig>) -> H2 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, image) = (seen.clone(), Arc::new(image.clone()));
    let task = tokio::spawn(async move {
        for connection in 1.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            let (log, image, tls) = (log.clone(), image.clone(), tls.clone());
            tokio::spawn(async move {
                let stream = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await.unwrap();
                let service = hyper::service::service_fn(move |request: http::Request<_>| {
                    log.lock().unwrap().push((request.version(), connection));
                    let _: &hyper::body::Incoming = request.body();
                    let response = h2_answer(&image, request.uri().path());
                    async move { Ok::<_, std::convert::Infallible>(response) }
                });
                let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                // The client closes when the test ends.
                let _ = builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
            });
        }
    });
    H2 { port, seen, task }
}

fn h2_session(server: &H2, config: ClientConfig) -> Repository {
    let reference = Reference::parse(&format!("127.0.0.1:{}/team/app:1.0", server.port)).unwrap();
    Client::new(config).unwrap().repository(&reference, Vec::new(), CredentialMode::Windlass)
}

#[tokio::test]
async fn http2_shares_one_connection_and_can_be_switched_off() {
    let image = Image::new(3_000_000);
    let authority = Authority::new(&["127.0.0.1"], &[b"h2", b"http/1.1"]);
    let server = h2_server(&image, authority.server.clone()).await;
    let fetch_all = async |repository: Repository| {
        let one = || {
            let (repository, layer) = (repository.clone(), image.layer());
            tokio::spawn(async move { read_all(repository.blob(&layer)).await })
        };
        let all: Vec<_> = (0..6).map(|_| one()).collect();
        for task in all {
            assert!(task.await.unwrap().unwrap() == image.layer);
        }
    };
    fetch_all(h2_session(&server, authority.config())).await;
    let seen = std::mem::take(&mut *server.seen.lock().unwrap());
    assert_eq!(seen, vec![(http::Version::HTTP_2, 1); 6]);

    let settings = Settings { http2: Http2::Off, ..Settings::default() };
    let own = HostOverride { settings, ..HostOverride::default() };
    let host = Host::new(format!("127.0.0.1:{}", server.port));
    let registries = vec![(host, RegistryOverride { own, ..RegistryOverride::default() })];
    fetch_all(h2_session(&server, ClientConfig { registries, ..authority.config() })).await;
    let seen = server.seen.lock().unwrap();
    assert!(seen.iter().all(|(version, _)| *version == http::Version::HTTP_11) && seen.len() == 6);
}

#[tokio::test]
async fn at_most_the_configured_number_of_connections_is_open() {
    let image = Image::new(100_000);
    let served = image.clone();
    let server = Server::start(move |seen| served.serve(seen).trickle(50_000, Duration::from_millis(10))).await;
    let mut config = fast();
    config.limits.connections_per_host = 4;
    let repository = session(&server, config);
    let one = || {
        let (repository, layer) = (repository.clone(), image.layer());
        tokio::spawn(async move { read_all(repository.blob(&layer)).await.unwrap().len() })
    };
    let all: Vec<_> = (0..24).map(|_| one()).collect();
    for task in all {
        assert_eq!(task.await.unwrap(), 100_000);
    }
    assert_eq!((server.most_connections(), server.seen().len()), (4, 24));
}

#[tokio::test]
async fn a_tunnel_goes_through_the_proxy() {
    // The name only exists for the proxy, which connects to the real server.
    let image = Image::new(300_000);
    let authority = Authority::new(&["registry.test"], &[b"http/1.1"]);
    let server = honest_tls(&image, authority.server.clone()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let (log, port) = (heads.clone(), server.port());
    let task = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            log.lock().unwrap().push(String::from_utf8(head).unwrap());
            let mut upstream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut upstream).await });
        }
    });
    let proxy = ProxyConfig { https: Some(Secret::new(format!("http://me:pw@{proxy}"))), ..ProxyConfig::default() };
    let config = ClientConfig { proxy, ..authority.config() };
    let reference = Reference::parse("registry.test/team/app:1.0").unwrap();
    let repository = Client::new(config).unwrap().repository(&reference, Vec::new(), CredentialMode::Windlass);
    assert!(read_all(repository.blob(&image.layer())).await.unwrap() == image.layer);
    let heads = heads.lock().unwrap();
    // base64 of "me:pw".
    let want =
        "CONNECT registry.test:443 HTTP/1.1\r\nHost: registry.test:443\r\nProxy-Authorization: Basic bWU6cHc=\r\n\r\n";
    assert_eq!(*heads, [want]);
    assert!(server.seen().iter().all(|s| s.header("proxy-authorization").is_none()));
    task.abort();
}
