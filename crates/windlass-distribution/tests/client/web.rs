//! Small requests to places that an operator named.

use std::time::Duration;

use http::{HeaderMap, Method};
use windlass_core::httpurl::HttpUrl;
use windlass_core::secret::Secret;
use windlass_distribution::TransportError;
use windlass_distribution::config::ProxyConfig;
use windlass_distribution::web::{Web, WebConfig, WebPeer, WebRequest, WebRoute};

use crate::support::server::{Reply, Server};
use crate::tls::Authority;

fn request(server: &Server, path: &str) -> WebRequest {
    WebRequest {
        method: Method::GET,
        url: HttpUrl::parse(&format!("http://{}{path}", server.host())).unwrap(),
        headers: HeaderMap::new(),
        body: Secret::new(Vec::new()),
        route: WebRoute::Usual,
        limit: Duration::from_secs(5),
        bytes_max: 1000,
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let server = Server::start(|_| Reply::new(302).header("Location", "/elsewhere")).await;
    let answer = Web::new(&WebConfig::default()).unwrap().ask(&request(&server, "/token")).await.unwrap();
    assert_eq!((answer.status.as_u16(), server.seen().len()), (302, 1));
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_refused() {
    let server = Server::start(|_| Reply::new(200).body(vec![b'x'; 1001])).await;
    let error = Web::new(&WebConfig::default()).unwrap().ask(&request(&server, "/")).await.unwrap_err();
    assert!(matches!(error, TransportError::BodyTooLarge { limit_bytes: 1000 }), "{error}");
    let server = Server::start(|_| Reply::new(400).body(vec![b'x'; 1000])).await;
    let answer = Web::new(&WebConfig::default()).unwrap().ask(&request(&server, "/")).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.expose().len()), (400, 1000));
}

#[tokio::test]
async fn metadata_servers_are_asked_past_proxies() {
    let proxy = Server::start(|_| Reply::new(200).body(b"the proxy".to_vec())).await;
    let config = WebConfig {
        proxy: ProxyConfig { http: Some(Secret::new(format!("http://{}", proxy.host()))), ..ProxyConfig::default() },
        ..WebConfig::default()
    };
    let web = Web::new(&config).unwrap();
    // Nobody lives there: only the proxy can answer for it.
    let url = HttpUrl::parse("http://192.0.2.1/").unwrap();
    let mut request = WebRequest { url, limit: Duration::from_millis(300), ..request(&proxy, "/") };
    let answer = web.ask(&request).await.unwrap();
    assert_eq!((answer.body.expose().as_slice(), proxy.seen().len()), (&b"the proxy"[..], 1));
    request.route = WebRoute::Direct;
    web.ask(&request).await.unwrap_err();
    assert_eq!(proxy.seen().len(), 1);
}

#[tokio::test]
async fn a_silent_place_costs_no_more_than_the_limit() {
    let server = Server::start(|_| Reply::silence()).await;
    let mut request = request(&server, "/");
    request.limit = Duration::from_millis(50);
    let error = Web::new(&WebConfig::default()).unwrap().ask(&request).await.unwrap_err();
    assert!(matches!(error, TransportError::HeaderTimeout), "{error}");
}

#[tokio::test]
async fn a_named_place_is_no_metadata_server() {
    let server = Server::start(|_| Reply::new(200)).await;
    let web = Web::new(&WebConfig::default()).unwrap();
    let named = WebRequest { route: WebRoute::Named, ..request(&server, "/") };
    assert_eq!(web.ask(&named).await.unwrap().status, 200);
    for place in ["http://169.254.169.254/", "http://[fe80::1]/", "http://[::ffff:169.254.169.254]/"] {
        let request = WebRequest { url: HttpUrl::parse(place).unwrap(), ..named.clone() };
        let error = web.ask(&request).await.unwrap_err();
        assert!(matches!(error, TransportError::AddressForbidden { .. }), "{place}: {error}");
    }
}

#[tokio::test]
async fn a_host_is_found_where_its_peer_says() {
    let authority = Authority::new(&["door.example"], &[]);
    let server = Server::start_tls(authority.server.clone(), |_| Reply::new(200)).await;
    let web = Web::new(&WebConfig::default()).unwrap();
    let url = |name: &str| HttpUrl::parse(&format!("https://{name}:{}/", server.port())).unwrap();
    let request = |name| WebRequest { url: url(name), route: WebRoute::Direct, ..request(&server, "/") };
    let peer = |host: &str| WebPeer { host: host.to_owned(), ca_files: vec![authority.ca_file.clone()] };
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(web.ask_at(&peer(host), &request("door.example")).await.unwrap().status, 200, "{host}");
    }
    let error = web.ask_at(&peer("127.0.0.1"), &request("other.example")).await.unwrap_err();
    assert!(matches!(error, TransportError::Tls { .. }), "the certificate is for another name: {error}");
    let stranger = WebPeer { ca_files: Vec::new(), ..peer("127.0.0.1") };
    let error = web.ask_at(&stranger, &request("door.example")).await.unwrap_err();
    assert!(matches!(error, TransportError::Tls { .. }), "nobody vouches for it: {error}");
}
