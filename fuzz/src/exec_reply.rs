//! The answer of a credential plugin, read as strictly as a kubelet does, and what it says on standard error.

use std::collections::HashSet;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use windlass_core::keyring::Credential;
use windlass_core::provider::{
    AnswerError, CacheKeyType, ExecVersion, ProviderAnswer, STDERR_BYTES_MAX, mask, read_answer, refuse_echoed_token,
};
use windlass_core::secret::Secret;

use super::secrets::assert_hidden;

/// The first byte chooses the version that was asked for.
pub fn run(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let version = ExecVersion::ALL[usize::from(*first) % 3];
    let result = read_answer(bytes, version);
    let loose: Option<Value> = serde_json::from_slice(bytes).ok();
    match (&result, &loose) {
        (Ok(answer), Some(value)) => answered(answer, value, version),
        (Ok(_), None) => panic!("what is no JSON was read"),
        (Err(error), value) => refused(error, value.as_ref(), bytes, version),
    }
    let known: Vec<String> = loose.as_ref().map(passwords).unwrap_or_default();
    let shown = mask(bytes, known.iter().map(String::as_str));
    assert!(shown.len() <= 3 * STDERR_BYTES_MAX + 16);
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{shown:?}");
    // A value that is part of the stars is told by them.
    for secret in known.iter().filter(|secret| secret.len() >= 4 && !secret.chars().all(|c| "* .".contains(c))) {
        let joined = known.iter().any(|other| other != secret && (other.contains(secret) || secret.contains(other)));
        assert!(joined || secret.contains("***") || !shown.contains(secret.as_str()), "{secret:?} in {shown:?}");
    }
}

/// Every member of what was read stands in the text, and nothing else does.
fn answered(answer: &ProviderAnswer, value: &Value, version: ExecVersion) {
    let members = value.as_object().expect("an object");
    assert_eq!(members["apiVersion"], version.as_str());
    assert_eq!(members["kind"], "CredentialProviderResponse");
    let word = match answer.cache_key_type {
        CacheKeyType::Image => "Image",
        CacheKeyType::Registry => "Registry",
        CacheKeyType::Global => "Global",
    };
    assert_eq!(members["cacheKeyType"], word);
    let fields = ["apiVersion", "kind", "cacheKeyType", "cacheDuration", "auth"];
    assert!(members.keys().all(|name| fields.contains(&name.as_str())), "an unknown field was read");
    let duration = members.get("cacheDuration").filter(|duration| !duration.is_null());
    assert_eq!(duration.is_some(), answer.cache_duration.is_some());
    let auth = members.get("auth").and_then(Value::as_object);
    assert_eq!(auth.map_or(0, |auth| auth.len()), answer.auth.len());
    for (key, login) in &answer.auth {
        let text = |name: &str| auth.expect("a map")[key].get(name).and_then(Value::as_str).unwrap_or("");
        let (username, password) = (text("username"), text("password"));
        assert_eq!(*login, Credential::basic(username, password));
    }
    let secrets: Vec<String> = passwords(value);
    let shown: Vec<String> =
        auth.into_iter().flatten().map(|(key, login)| format!("{key} {}", login["username"])).collect();
    let shown: Vec<&str> = shown.iter().map(String::as_str).chain([FIELDS]).collect();
    assert_hidden(&format!("{answer:?}"), secrets.iter().map(String::as_str), &shown);
    if let Some(password) = secrets.iter().find(|password| !password.is_empty()) {
        assert!(refuse_echoed_token(answer, &Secret::new(password.clone())).is_err());
    }
}

/// An error repeats nothing but words that cannot be secret; a good answer is not refused.
fn refused(error: &AnswerError, value: Option<&Value>, bytes: &[u8], version: ExecVersion) {
    let _ = error.reason();
    let Some(value) = value else { return };
    let secrets = passwords(value);
    let shown = [FIELDS, value["apiVersion"].as_str().unwrap_or(""), value["cacheKeyType"].as_str().unwrap_or("")];
    assert_hidden(&format!("{error} {error:?}"), secrets.iter().map(String::as_str), &shown);
    let strict = serde_json::from_slice::<Unrepeated>(bytes).is_ok();
    assert!(!(strict && is_plain(value, version)), "a plain answer was refused: {error}");
}

/// Whether an answer is good beyond doubt: the usual fields with the usual values.
fn is_plain(value: &Value, version: ExecVersion) -> bool {
    let Some(members) = value.as_object() else { return false };
    let login = |login: &Value| {
        let text = |name: &str| login[name].is_string();
        login.as_object().is_some_and(|login| login.len() == 2) && text("username") && text("password")
    };
    members.len() == 4
        && members.get("apiVersion").is_some_and(|it| it == version.as_str())
        && members.get("kind").is_some_and(|it| it == "CredentialProviderResponse")
        && members
            .get("cacheKeyType")
            .and_then(Value::as_str)
            .is_some_and(|it| ["Image", "Registry", "Global"].contains(&it))
        && members
            .get("auth")
            .and_then(Value::as_object)
            .is_some_and(|auth| auth.len() < 1000 && auth.values().all(login))
}

fn passwords(value: &Value) -> Vec<String> {
    let logins = value.get("auth").and_then(Value::as_object).into_iter().flatten();
    logins.filter_map(|(_, login)| login["password"].as_str().map(str::to_owned)).collect()
}

/// What `Debug` and messages print of their own.
const FIELDS: &str = "ProviderAnswer { cache_key_type: Image Registry Global, cache_duration: Some( None, auth: [(\"\", \
    Basic { username: \"\", password: *** }), Anonymous)] } its answer has apiVersion and the configuration says \
    credentialprovider.kubelet.k8s.io/v1alpha1 v1beta1 Version { want: V1Alpha1 V1Beta1 V1, got: \"(withheld)\" } \
    its answer is not a JSON object NotJson its answer is not a CredentialProviderResponse Kind Empty TooLong \
    its answer cannot be read: Malformed { problem: \"it has a field that the protocol does not know a field stands twice \
    an entry of auth has another field than username and password an entry of auth is not a map auth is not a map \
    auth has more than 1000 entries username or password is not a text cacheKeyType is not a text cacheDuration is not \
    a duration its answer has cacheKeyType \"\", and not Image, Registry or Global CacheKeyType { got: \"\" }";

/// A document in which no map has a key twice.
struct Unrepeated;

impl<'de> Deserialize<'de> for Unrepeated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unrepeated, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Unrepeated;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a document")
    }

    fn visit_unit<E>(self) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Unrepeated, A::Error> {
        while list.next_element::<Unrepeated>()?.is_some() {}
        Ok(Unrepeated)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unrepeated, A::Error> {
        let mut seen = HashSet::new();
        while let Some((key, Unrepeated)) = map.next_entry::<String, Unrepeated>()? {
            if !seen.insert(key) {
                return Err(serde::de::Error::custom("a key stands twice"));
            }
        }
        Ok(Unrepeated)
    }
}
