//! Amazon: the keys it gives out, and its three APIs, which are told apart by what is asked as the real ones are by host.

pub(super) mod ecr;
pub(super) mod metadata;
pub mod sigv4;
pub(super) mod sts;

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::call::Signed;
use super::desk::{Desk, State, random_word, rfc3339};
use crate::wire::Reply;
use sigv4::{Presented, Problem};

/// ID of the key that lasts.
pub(super) const LASTING_KEY: &str = "AKIAWINDLASSTESTKIT0";

/// Keys given out.
#[derive(Debug, Default)]
pub(super) struct Keys(HashMap<String, Key>);

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) secret: String,
    /// What has to be sent along; `None` for a key that lasts.
    session: Option<String>,
    until: Option<Timestamp>,
    who: String,
}

impl Keys {
    pub(super) fn set_lasting(&mut self, secret: String) {
        let (id, who) = (LASTING_KEY.to_owned(), "user/puller".to_owned());
        self.0.insert(id.clone(), Key { id, secret, session: None, until: None, who });
    }

    pub(super) fn lasting_secret(&self) -> &str {
        self.0.get(LASTING_KEY).map(|key| key.secret.as_str()).expect("it is there from the start")
    }

    pub(super) fn revoke(&mut self) {
        self.0.retain(|_, key| key.session.is_none());
    }
}

impl State {
    /// A new key for a while, as JSON fields.
    pub(super) fn issue_key(&mut self, who: &str, now: Timestamp) -> (Key, Timestamp) {
        let id = format!("ASIA{}", random_word(16).to_ascii_uppercase());
        let (secret, session) = (self.secret(40), self.secret(120));
        let life = SignedDuration::try_from(self.settings.key_life).expect("a life of this length");
        let until = now + life;
        let key = Key { id: id.clone(), secret, session: Some(session), until: Some(until), who: who.to_owned() };
        self.keys.0.insert(id, key.clone());
        (key, until)
    }
}

impl Key {
    pub(super) fn session(&self) -> &str {
        self.session.as_deref().unwrap_or_default()
    }

    /// As metadata servers and container end-points answer.
    pub(super) fn json(&self, until: Timestamp) -> serde_json::Value {
        json!({
            "Code": "Success",
            "Type": "AWS-HMAC",
            "LastUpdated": rfc3339(until - SignedDuration::from_secs(3600)),
            "AccessKeyId": self.id,
            "SecretAccessKey": self.secret,
            "Token": self.session(),
            "Expiration": rfc3339(until),
        })
    }
}

/// One of the APIs, by what is asked.
pub(super) fn api(desk: &mut Desk<'_>) -> Reply {
    let target = desk.message.header("x-amz-target").map(str::to_owned);
    match (target, desk.field("Action")) {
        (Some(target), _) => ecr::answer(desk, &target),
        (None, Some(action)) => sts::answer(desk, &action),
        (None, None) => ecr::error(desk, "UnknownOperationException", "neither a target nor an action"),
    }
}

/// Who signed the request for a service, or what is wrong with the signature.
fn signer(desk: &mut Desk<'_>, service: &str, must_sign: &[&str]) -> Result<String, Problem> {
    let header = desk.message.header("authorization").ok_or(Problem::Missing)?;
    let presented = Presented::parse(header)?;
    desk.call.signed = Some(Signed {
        key_id: presented.key_id.clone(),
        region: presented.region.clone(),
        service: presented.service.clone(),
    });
    let key = desk.state.keys.0.get(&presented.key_id).ok_or(Problem::UnknownKey)?;
    presented.verify(desk.message, &key.secret, desk.now)?;
    if presented.service != service {
        return Err(Problem::Scope(format!("Credential should be scoped to correct service: '{service}'.")));
    }
    if key.session.as_deref() != desk.message.header("x-amz-security-token") {
        return Err(Problem::UnknownKey);
    }
    let session: &[&str] = if key.session.is_some() { &["x-amz-security-token"] } else { &[] };
    for name in must_sign.iter().chain(session) {
        if !presented.signed_headers.iter().any(|signed| signed == name) {
            return Err(Problem::NotSigned((*name).to_owned()));
        }
    }
    if key.until.is_some_and(|until| until <= desk.now) {
        return Err(Problem::Expired);
    }
    desk.call.who = Some(key.who.clone());
    Ok(key.who.clone())
}
