//! A registry in a temporary directory and a client that says exactly what the test says.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;
use windlass_core::digest::Digest;
use windlass_registry::access::Action::{Delete, Pull, Push};
use windlass_registry::access::{Rule, Rules};
use windlass_registry::log::MemoryLog;
use windlass_registry::{
    Auth, BearerConfig, Deletes, Durability, RegistryConfig, RegistryServer, RunningRegistry, Users,
};

pub(crate) const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry and what it logged.
pub(crate) struct Fixture {
    pub(crate) registry: RunningRegistry,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) dir: TempDir,
}

pub(crate) fn config(root: &Path) -> RegistryConfig {
    RegistryConfig { durability: Durability::Relaxed, ..RegistryConfig::open(root.join("registry")) }
}

/// Starts a registry after a change of its configuration.
pub(crate) async fn start(change: impl FnOnce(&mut RegistryConfig)) -> Fixture {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = config(dir.path());
    let log = Arc::new(MemoryLog::default());
    config.access_log = Some(log.clone());
    change(&mut config);
    let registry = RegistryServer::start(config).await.expect("the registry starts");
    Fixture { registry, log, dir }
}

/// Alice and Bob have a folder each and everybody may read `public`.
pub(crate) async fn start_two_tenants(auth: Auth) -> Fixture {
    let rule = |who: &str, what: &str, actions: &[_]| Rule::allow(&[who], &[what], actions).expect("a rule");
    start(|config| {
        config.auth = auth;
        config.deletes = Deletes::On;
        config.users =
            Users::Memory(vec![("alice".to_owned(), "wonderland".into()), ("bob".to_owned(), "builder-9".into())]);
        config.rules = Rules::new(vec![
            rule("user:alice", "alice/**", &[Pull, Push, Delete]),
            rule("user:bob", "bob/**", &[Pull, Push, Delete]),
            rule("anonymous", "public/**", &[Pull]),
        ]);
    })
    .await
}

pub(crate) fn bearer() -> Auth {
    Auth::Bearer(BearerConfig::default())
}

/// An answer with its whole body.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The first error code, or nothing.
    pub(crate) fn code(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends requests with one identity.
#[derive(Clone)]
pub(crate) struct Client {
    http: HyperClient<HttpConnector, Full<Bytes>>,
    base: String,
    authorization: Option<String>,
}

impl Client {
    pub(crate) fn new(fixture: &Fixture) -> Client {
        Client {
            http: HyperClient::builder(TokioExecutor::new()).build_http(),
            base: format!("http://{}", fixture.registry.addr()),
            authorization: None,
        }
    }

    /// HTTP/2 without TLS.
    pub(crate) fn http2(fixture: &Fixture) -> Client {
        let http = HyperClient::builder(TokioExecutor::new()).http2_only(true).build_http();
        Client { http, ..Client::new(fixture) }
    }

    pub(crate) fn basic(&self, user: &str, password: &str) -> Client {
        self.authorized(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }

    pub(crate) fn authorized(&self, header: String) -> Client {
        Client { authorization: Some(header), ..self.clone() }
    }

    /// Asks the token service with this client's credentials and takes the token.
    pub(crate) async fn with_token(&self, scopes: &[&str]) -> Client {
        let query: String = scopes.iter().map(|scope| format!("&scope={scope}")).collect();
        let reply = self.get(&format!("/token?service=windlass{query}")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        self.authorized(format!("Bearer {}", reply.json()["token"].as_str().expect("a token")))
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let uri = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.base) };
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).expect("a method")).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        let (head, body) = self.http.request(request).await.expect("an answer").into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Reply { status: head.status, headers: head.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "").await
    }

    /// Uploads a blob in one request; answers its digest.
    pub(crate) async fn push_blob(&self, repository: &str, bytes: &'static [u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let reply = self.send("POST", &path, &[], bytes).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        digest
    }

    pub(crate) async fn put_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &str) -> Reply {
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.send("PUT", &path, &[("content-type", media_type)], bytes.to_owned()).await
    }

    /// Pushes a config, a layer and a manifest; answers the manifest and the digest of the layer.
    pub(crate) async fn push_image(&self, repository: &str, tag: &str, layer: &'static [u8]) -> (String, Digest) {
        let config = self.push_blob(repository, b"{}").await;
        let layer_digest = self.push_blob(repository, layer).await;
        let manifest = image(&config, 2, &layer_digest, layer.len());
        let reply = self.put_manifest(repository, tag, OCI, &manifest).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        assert_eq!(reply.header("docker-content-digest"), Digest::sha256(manifest.as_bytes()).as_str());
        (manifest, layer_digest)
    }
}

pub(crate) fn image(config: &Digest, config_len: usize, layer: &Digest, layer_len: usize) -> String {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.as_str(), "size": config_len
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.as_str(), "size": layer_len
        }],
    })
    .to_string()
}
