//! A registry that does exactly what a test tells it, byte by byte, and remembers what it saw.

pub(crate) mod image;
pub(crate) mod server;

use std::time::Duration;

use windlass_core::keyring::{Candidate, Credential, Origin};
use windlass_core::reference::Reference;
use windlass_distribution::config::{ClientConfig, RetryConfig, Timeouts};
use windlass_distribution::{Client, CredentialMode, Repository};

pub(crate) use image::Image;
pub(crate) use server::{Reply, Seen, Server};

/// Settings with which every fault shows in milliseconds; generous enough for a busy machine.
pub(crate) fn fast() -> ClientConfig {
    ClientConfig {
        plain_http_everywhere: true,
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            tls: Duration::from_secs(5),
            header: Duration::from_secs(5),
            idle: Duration::from_secs(5),
            progress: Duration::from_secs(20),
            keep_alive: Duration::from_secs(60),
            breaker: Duration::from_secs(30),
            penalty: Duration::from_secs(60),
        },
        retry: RetryConfig {
            tries: 5,
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(4),
            retry_after_total: Duration::from_secs(3),
        },
        ..ClientConfig::default()
    }
}

/// A session for `team/app:1.0` at this server.
pub(crate) fn session(server: &Server, config: ClientConfig) -> Repository {
    session_as(server, config, Vec::new())
}

/// The same with credentials.
pub(crate) fn session_as(server: &Server, config: ClientConfig, candidates: Vec<Candidate>) -> Repository {
    let client = Client::new(config).expect("a good configuration");
    client.repository(&reference(server), candidates, CredentialMode::Windlass)
}

pub(crate) fn reference(server: &Server) -> Reference {
    Reference::parse(&format!("{}/team/app:1.0", server.host())).expect("a reference")
}

/// A user with a password that is easy to find in output.
pub(crate) fn user(name: &str) -> Candidate {
    let origin = Origin::PullSecret { namespace: "team".into(), name: format!("secret-{name}"), uid: String::new() };
    Candidate::new(Credential::basic(name, format!("hunter2-{name}")), origin, "registry.example")
}

/// The value of `Authorization` for [`user`].
pub(crate) fn basic(name: &str) -> String {
    use base64::Engine as _;
    let pair = format!("{name}:hunter2-{name}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}
