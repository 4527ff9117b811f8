//! One request and its answer: the trouble, the service, the record.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::accounts::Accounts;
use super::aws::Keys;
use super::{Call, On, Service, Settings, Shared, Trouble, aws, azure, google};
use crate::wire::{Message, Reply};

/// Most requests that are kept; a test that makes more has lost its way.
const CALLS_MAX: usize = 100_000;

/// What the services remember.
#[derive(Debug)]
pub(super) struct State {
    pub(super) settings: Settings,
    pub(super) troubles: Vec<(On, Trouble)>,
    pub(super) calls: Vec<Call>,
    pub(super) accounts: Accounts,
    pub(super) keys: Keys,
    /// Session tokens of the EC2 metadata server, with their ends.
    pub(super) sessions: Vec<(String, Timestamp)>,
    /// Tokens of Entra for the registries' audience, with their ends and whose they are.
    pub(super) entra: Vec<(String, Timestamp, String)>,
    /// Every secret given out.
    pub(super) secrets: Vec<String>,
}

impl State {
    pub(super) fn new() -> State {
        let mut state = State {
            settings: Settings::default(),
            troubles: Vec::new(),
            calls: Vec::new(),
            accounts: Accounts::default(),
            keys: Keys::default(),
            sessions: Vec::new(),
            entra: Vec::new(),
            secrets: Vec::new(),
        };
        let secret = state.secret(40);
        state.keys.set_lasting(secret);
        state
    }

    /// The clouds' time.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(self.settings.clock_ahead_seconds)
    }

    /// A new secret of letters and digits.
    pub(super) fn secret(&mut self, len: usize) -> String {
        let secret = random_word(len);
        self.secrets.push(secret.clone());
        secret
    }
}

/// Letters and digits that nobody can guess well enough for a test.
pub(super) fn random_word(len: usize) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut word = String::with_capacity(len);
    while word.len() < len {
        // Each has keys of its own from the system's randomness.
        let mut bits = RandomState::new().build_hasher().finish();
        for _ in 0..10.min(len - word.len()) {
            word.push(char::from(LETTERS[usize::try_from(bits % 62).unwrap_or(0)]));
            bits /= 62;
        }
    }
    word
}

/// A time as AWS writes it in answers.
pub(super) fn rfc3339(time: Timestamp) -> String {
    time.round(jiff::Unit::Second).unwrap_or(time).to_string()
}

/// What a service needs to answer one request.
pub(super) struct Desk<'a> {
    pub(super) message: &'a Message,
    pub(super) state: &'a mut State,
    pub(super) shared: &'a Shared,
    pub(super) call: &'a mut Call,
    pub(super) now: Timestamp,
}

impl Desk<'_> {
    /// A field of the form.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        self.message.form().into_iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// A query parameter, decoded.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        self.call.parameter(name)
    }

    /// Lets a user into the registry for a while.
    pub(super) fn admit(&self, user: &str, password: &str, life: Duration) {
        self.shared.users.admit(user, password.into(), Some(Instant::now() + life));
    }
}

pub(super) fn answer(shared: &Shared, service: Service, message: &Message) -> Reply {
    let mut guard = shared.state();
    let state = &mut *guard;
    let mut call = Call::new(service, message);
    let now = state.now();
    let struck = state.troubles.iter_mut().find(|(on, _)| on.clone().strikes(service, message)).map(|(_, t)| t.clone());
    // Each counts the requests that it is for.
    for (on, _) in &mut state.troubles {
        on.strikes(service, message);
    }
    let instead = struck.as_ref().and_then(|trouble| trouble.instead(service));
    let mut reply = match instead {
        Some(reply) => reply,
        None => honest(&mut Desk { message, state, shared, call: &mut call, now }, service),
    };
    if let Some(trouble) = struck {
        trouble.spoil(&mut reply);
    }
    reply.set("Date", http_date(now));
    if service == Service::GceMetadata && state.settings.google_flavor {
        reply.set("Metadata-Flavor", "Google");
    }
    call.status = reply.status;
    if state.calls.len() < CALLS_MAX {
        state.calls.push(call);
    }
    reply
}

fn honest(desk: &mut Desk<'_>, service: Service) -> Reply {
    match service {
        Service::Ecr | Service::EcrPublic | Service::Sts => aws::api(desk),
        Service::Imds => aws::metadata::instance(desk),
        Service::Container => aws::metadata::container(desk),
        Service::GceMetadata => google::metadata(desk),
        Service::GoogleSts => google::exchange(desk),
        Service::AzureImds => azure::metadata(desk),
        Service::Aad => azure::entra(desk),
        Service::Acr | Service::AcrCustom => azure::registry(desk),
        Service::Arm => azure::manager(desk),
    }
}

fn http_date(time: Timestamp) -> String {
    let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
    printer.timestamp_to_rfc9110_string(&time).expect("a date of this age")
}
