//! A secret that goes in with a pull comes out nowhere. A program of its own, because it takes the log of all.

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{Node, client_config, login};
use windlass_proto::cri::v1;
use windlass_registry::access::Action;
use windlass_testkit::canary::Canary;
use windlass_testkit::images::small;
use windlass_testkit::registry::TestRegistry;

/// Everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_an_answer_a_log_or_a_file() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let canary = Canary::new("tr0ub4dor&3-canary");
    let secret = canary.secret();
    let registry = TestRegistry::build().bearer().user("ci", secret, "team/**", &[Action::Pull]).start();
    let basic = TestRegistry::build().basic().user("ci", secret, "team/**", &[Action::Pull]).start();
    let open = TestRegistry::open();
    let places = [&registry, &basic, &open].map(|registry| registry.place(&small("one").bundle(), "team/app", "1"));
    let node = Node::with(client_config(), &[(&registry.host(), "other", secret)]).await;
    let mut client = node.client().await;
    let config = |change: &dyn Fn(&mut v1::AuthConfig)| {
        let mut auth = v1::AuthConfig::default();
        change(&mut auth);
        auth
    };
    let encoded = |text: &str| STANDARD.encode(text);
    let auths = [
        login("ci", secret),
        login("nobody", secret),
        config(&|auth| auth.identity_token = secret.to_owned()),
        config(&|auth| auth.registry_token = secret.to_owned()),
        config(&|auth| auth.auth = encoded(&format!("ci:{secret}"))),
        config(&|auth| auth.auth = encoded(secret)),
        config(&|auth| auth.auth = secret.to_owned()),
        config(&|auth| {
            auth.username = "ci".to_owned();
            auth.password = secret.to_owned();
            auth.server_address = format!("https://ci:{secret}@[");
        }),
    ];
    let mut failed = 0;
    for image in places.iter().map(String::as_str).chain(["127.0.0.1:1/x", "BAD"]) {
        for auth in auths.iter().cloned().map(Some).chain([None]) {
            let answer = client.pull_with(image, auth).await;
            if let Err(error) = &answer {
                failed += 1;
                canary.assert_absent("an answer", format!("{error} {error:?}"));
            }
            client.remove(image).await.unwrap();
        }
    }
    assert!(failed > 20, "only {failed} failed");
    canary.assert_absent("the server's Debug", format!("{:?}", node.server));
    let logged = log.0.lock().unwrap().clone();
    assert!(logged.len() > 10_000, "nothing was logged");
    canary.assert_absent("the log", &logged);
    let files = canary.files_with(node.root());
    assert!(files.is_empty(), "{files:?}");
}
