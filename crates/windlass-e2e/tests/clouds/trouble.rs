//! Bad days of the clouds: each has one outcome, within its time.

use std::time::Duration;

use windlass_testkit::clouds::{On, Service, Trouble, Way};
use windlass_testkit::tools::skipped;

use crate::scene::Scene;

/// Longest time of a provider: ten seconds less than a kubelet waits.
const BUDGET: Duration = Duration::from_secs(50);
/// Longest time where nothing keeps it waiting.
const PROMPT: Duration = Duration::from_secs(12);

/// What has to come of it.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// A login, after all.
    Login,
    /// A failure whose line has these words.
    Fails(&'static str),
}
use Outcome::{Fails, Login};

/// Way, disturbed service, path, how often, what, outcome.
type Row = (Way, Service, &'static str, u64, Trouble, Outcome);

fn throttled(seconds: Option<u64>) -> Trouble {
    Trouble::Throttled { retry_after_seconds: seconds }
}

/// Tries every row, several at a time: they mostly wait.
#[expect(clippy::print_stdout, reason = "what came of each row belongs into the report of the test run")]
fn try_all(rows: Vec<Row>, limit: Duration) {
    let rows = std::sync::Mutex::new(rows.into_iter());
    let next = || rows.lock().expect("the lock covers no panic").next();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let scene = Scene::new();
                while let Some((way, service, path, count, trouble, outcome)) = next() {
                    let setup = scene.clouds.setup(way);
                    scene.clouds.disturb(On::service(service).at(path).first(count), trouble.clone());
                    let asked = scene.ask_as(&setup, crate::scene::VERSION);
                    let what = format!("{way:?}, {service:?}{path}, {count} times {trouble:?}");
                    println!("{what}: {:?} after {:?}: {}", asked.0.code(), asked.0.took, asked.0.stderr.trim());
                    match outcome {
                        Login => assert!(scene.accepts(&asked.login(setup.host())), "{what}"),
                        Fails(words) => asked.fails_with(words),
                    }
                    assert!(asked.0.took < limit, "{what}: {}", asked.0);
                    scene.assert_no_secret(&what, &asked.0.stderr);
                    scene.clouds.calm();
                }
            });
        }
    });
}

/// As often as it is asked.
const ALWAYS: u64 = u64::MAX;

#[test]
fn troubles_of_amazon_have_their_outcomes() {
    use Service::{Container, Ecr, EcrPublic, Imds, Sts};
    try_all(
        vec![
            (Way::AwsKeys, Ecr, "", 2, throttled(None), Login),
            (Way::AwsKeys, Ecr, "", 1, throttled(Some(1)), Login),
            (Way::AwsKeys, Ecr, "", ALWAYS, throttled(None), Fails("busy")),
            (Way::AwsKeys, Ecr, "", 1, throttled(Some(7200)), Fails("busy")),
            (Way::AwsKeys, Ecr, "", 2, Trouble::Status(500), Login),
            (Way::AwsKeys, Ecr, "", ALWAYS, Trouble::Status(503), Fails("503")),
            (Way::AwsKeys, Ecr, "", ALWAYS, Trouble::Refused, Fails("ecr:GetAuthorizationToken")),
            (Way::AwsKeys, Ecr, "", ALWAYS, Trouble::Expired, Fails("expired")),
            (Way::AwsKeys, Ecr, "", ALWAYS, Trouble::Malformed, Fails("answer")),
            (Way::AwsKeys, Ecr, "", ALWAYS, Trouble::Says("[]".to_owned()), Fails("answer")),
            (Way::AwsKeys, Ecr, "", ALWAYS, Trouble::Endless, Fails("")),
            (Way::AwsKeys, Ecr, "", 1, Trouble::Reset, Login),
            (Way::AwsKeys, Ecr, "", 1, Trouble::Cut, Login),
            (Way::AwsKeys, Ecr, "", ALWAYS, Trouble::Reset, Fails("cannot be asked")),
            (Way::AwsKeys, Ecr, "", 1, Trouble::Slow(Duration::from_secs(3)), Login),
            (Way::AwsPublic, EcrPublic, "", 1, throttled(None), Login),
            (Way::AwsPublic, EcrPublic, "", ALWAYS, Trouble::Refused, Fails("refused")),
            (Way::AwsWebIdentity, Sts, "", 1, throttled(None), Login),
            (Way::AwsWebIdentity, Sts, "", 1, Trouble::Status(503), Login),
            (Way::AwsWebIdentity, Sts, "", ALWAYS, Trouble::Refused, Fails("AssumeRole")),
            (Way::AwsWebIdentity, Sts, "", ALWAYS, Trouble::Expired, Fails("expired")),
            (Way::AwsWebIdentity, Sts, "", ALWAYS, Trouble::Malformed, Fails("answer")),
            (Way::AwsProfileRole, Sts, "", ALWAYS, Trouble::Refused, Fails("refused")),
            (Way::AwsAccount, Sts, "", ALWAYS, Trouble::Refused, Fails("refused")),
            (Way::AwsContainer, Container, "", 1, throttled(None), Login),
            (Way::AwsContainer, Container, "", 1, Trouble::Status(500), Login),
            (Way::AwsContainer, Container, "", ALWAYS, Trouble::Refused, Fails("")),
            (Way::AwsContainer, Container, "", ALWAYS, Trouble::Malformed, Fails("answer")),
            (Way::AwsInstance, Imds, "/api/token", 1, Trouble::Status(503), Login),
            (Way::AwsInstance, Imds, "/meta-data", 1, Trouble::Status(401), Login),
            (Way::AwsInstance, Imds, "/meta-data", ALWAYS, Trouble::Status(404), Fails("role")),
            (Way::AwsInstance, Imds, "/api/token", ALWAYS, Trouble::Refused, Fails("")),
            (Way::AwsInstance, Imds, "node-role", ALWAYS, Trouble::Malformed, Fails("answer")),
            (Way::AwsInstance, Imds, "/api/token", ALWAYS, Trouble::Silent, Fails("HopLimit")),
        ],
        PROMPT,
    );
}

#[test]
fn troubles_of_google_have_their_outcomes() {
    use Service::{GceMetadata, GoogleSts};
    try_all(
        vec![
            (Way::GoogleMachine, GceMetadata, "", 1, throttled(None), Login),
            (Way::GoogleMachine, GceMetadata, "/token", 1, Trouble::Status(503), Login),
            (Way::GoogleMachine, GceMetadata, "/token", ALWAYS, Trouble::Status(503), Fails("503")),
            (Way::GoogleMachine, GceMetadata, "", ALWAYS, Trouble::Refused, Fails("")),
            (Way::GoogleMachine, GceMetadata, "/token", ALWAYS, Trouble::Status(404), Fails("account")),
            (Way::GoogleMachine, GceMetadata, "", ALWAYS, Trouble::Malformed, Fails("")),
            (Way::GoogleMachine, GceMetadata, "", ALWAYS, Trouble::Endless, Fails("")),
            (Way::GoogleMachine, GceMetadata, "/token", 1, Trouble::Cut, Login),
            (Way::GoogleMachine, GceMetadata, "/token", 1, Trouble::Reset, Login),
            (Way::GoogleMachine, GceMetadata, "/token", 1, Trouble::Slow(Duration::from_secs(3)), Login),
            (Way::GoogleAccount, GoogleSts, "", 1, throttled(Some(1)), Login),
            (Way::GoogleAccount, GoogleSts, "", ALWAYS, throttled(Some(7200)), Fails("busy")),
            (Way::GoogleAccount, GoogleSts, "", ALWAYS, Trouble::Refused, Fails("refused")),
            (Way::GoogleAccount, GoogleSts, "", ALWAYS, Trouble::Expired, Fails("expired")),
            (Way::GoogleAccount, GoogleSts, "", ALWAYS, Trouble::Malformed, Fails("answer")),
            (Way::GoogleAccount, GoogleSts, "", 1, Trouble::Status(502), Login),
            (Way::GoogleAccount, GoogleSts, "", 1, Trouble::Cut, Login),
        ],
        PROMPT,
    );
}

#[test]
fn troubles_of_azure_have_their_outcomes() {
    use Service::{Aad, Acr, Arm, AzureImds};
    try_all(
        vec![
            (Way::AzureMachine, AzureImds, "", 1, Trouble::Status(410), Login),
            (Way::AzureMachine, AzureImds, "", 1, Trouble::Status(404), Login),
            (Way::AzureMachine, AzureImds, "", 1, throttled(Some(1)), Login),
            (Way::AzureMachine, AzureImds, "", ALWAYS, Trouble::Refused, Fails("identity not found")),
            (Way::AzureMachine, AzureImds, "", ALWAYS, Trouble::Malformed, Fails("answer")),
            (Way::AzureMachine, AzureImds, "", 1, Trouble::Cut, Login),
            (Way::AzureAccount, Aad, "", 1, throttled(Some(1)), Login),
            (Way::AzureAccount, Aad, "", 1, Trouble::Status(503), Login),
            (Way::AzureAccount, Aad, "", ALWAYS, Trouble::Refused, Fails("AADSTS70021")),
            (Way::AzureAccount, Aad, "", ALWAYS, Trouble::Expired, Fails("AADSTS700024")),
            (Way::AzureAccount, Aad, "", ALWAYS, Trouble::Malformed, Fails("answer")),
            (Way::AzureMachine, Acr, "/oauth2/exchange", ALWAYS, Trouble::Refused, Fails("AcrPull")),
            (Way::AzureMachine, Acr, "/oauth2/exchange", 1, throttled(Some(1)), Login),
            (Way::AzureMachine, Acr, "/oauth2/exchange", 1, Trouble::Status(500), Login),
            (Way::AzureMachine, Acr, "/oauth2/exchange", ALWAYS, Trouble::Malformed, Fails("answer")),
            (Way::AzureMachine, Acr, "/oauth2/exchange", ALWAYS, Trouble::Endless, Fails("")),
            (Way::AzureMachine, Acr, "/v2/", ALWAYS, Trouble::Says("{}".to_owned()), Fails("")),
            (Way::AzureMachine, Acr, "/v2/", 1, Trouble::Status(503), Login),
            (Way::AzureMachine, Acr, "/v2/", 1, Trouble::Reset, Login),
            (Way::AzureCustomCloud, Arm, "", 1, Trouble::Status(503), Login),
            (Way::AzureCustomCloud, Arm, "", ALWAYS, Trouble::Malformed, Fails("answer")),
        ],
        PROMPT,
    );
}

#[test]
fn silence_ends_within_the_kubelet_s_patience() {
    if std::env::var_os("WINDLASS_LONG_TESTS").is_none() {
        let why = "WINDLASS_LONG_TESTS is not set: it takes a minute";
        return skipped("silence_ends_within_the_kubelet_s_patience", why);
    }
    let silent = |way, service, path| (way, service, path, ALWAYS, Trouble::Silent, Fails(""));
    try_all(
        vec![
            silent(Way::AwsKeys, Service::Ecr, ""),
            silent(Way::AwsWebIdentity, Service::Sts, ""),
            silent(Way::GoogleMachine, Service::GceMetadata, ""),
            silent(Way::GoogleAccount, Service::GoogleSts, ""),
            silent(Way::AzureMachine, Service::AzureImds, ""),
            silent(Way::AzureMachine, Service::Acr, "/oauth2/exchange"),
        ],
        BUDGET,
    );
}
