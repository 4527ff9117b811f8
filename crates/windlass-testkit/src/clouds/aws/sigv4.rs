//! AWS Signature Version 4, the half that verifies.
//!
//! In: a request as it arrived and the secret of the key that it names. Out: whether the signature is the key's.
//! Source of truth: the IAM user guide, "Create a signed AWS API request", and the vectors that were published with it.
//!
//! Invariants: `the_published_vectors_verify`, `one_changed_byte_does_not_verify`, `old_signatures_do_not_verify`.

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::wire::Message;

/// How far a request's time may be off. AWS: five minutes for these services.
const SKEW_MAX: SignedDuration = SignedDuration::from_mins(5);
/// Bytes of a block of SHA-256.
const BLOCK_BYTES: usize = 64;

/// What is wrong with a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is none.
    Missing,
    /// The header cannot be read.
    Malformed(String),
    /// No such key, or its session token is missing or another one.
    UnknownKey,
    /// The key has expired.
    Expired,
    /// The request's time is too far from ours; AWS's words.
    Skewed(String),
    /// It was made for something else; AWS's words.
    Scope(String),
    /// A header that must be signed is not.
    NotSigned(String),
    /// It is not what the secret gives.
    Wrong,
}

/// A signature as a request presents it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// ID of the key.
    pub key_id: String,
    /// Day of the scope, `YYYYMMDD`.
    pub date: String,
    /// Region of the scope.
    pub region: String,
    /// Service of the scope.
    pub service: String,
    /// Names of the signed headers, in their order.
    pub signed_headers: Vec<String>,
    /// In hexadecimal.
    pub signature: String,
}

impl Presented {
    /// Reads an `Authorization` header.
    ///
    /// # Errors
    /// [`Problem::Malformed`] says what is missing.
    pub fn parse(header: &str) -> Result<Presented, Problem> {
        let malformed = |what: &str| Problem::Malformed(what.to_owned());
        let rest = header.strip_prefix("AWS4-HMAC-SHA256 ").ok_or_else(|| malformed("the algorithm"))?;
        let part = |name: &str| {
            let mut parts = rest.split(',').filter_map(|part| part.trim().split_once('='));
            parts.find(|(n, _)| *n == name).map(|(_, value)| value.to_owned()).ok_or_else(|| malformed(name))
        };
        let credential = part("Credential")?;
        let fields: Vec<&str> = credential.split('/').collect();
        let [key_id, date, region, service, "aws4_request"] = fields[..] else {
            return Err(malformed("the credential scope"));
        };
        Ok(Presented {
            key_id: key_id.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            signed_headers: part("SignedHeaders")?.split(';').map(str::to_owned).collect(),
            signature: part("Signature")?,
        })
    }

    /// Whether a request carries the signature that `secret` gives it, made at about `now`.
    pub(crate) fn verify(&self, message: &Message, secret: &str, now: Timestamp) -> Result<(), Problem> {
        let at = message.header("x-amz-date").ok_or_else(|| Problem::NotSigned("x-amz-date".to_owned()))?;
        let time: Timestamp = at.parse().map_err(|_| Problem::Malformed("X-Amz-Date".to_owned()))?;
        if !at.starts_with(&self.date) {
            return Err(Problem::Scope(format!("Date in Credential scope does not match X-Amz-Date: {at}")));
        }
        for name in ["host", "x-amz-date"] {
            if !self.signed_headers.iter().any(|signed| signed == name) {
                return Err(Problem::NotSigned(name.to_owned()));
            }
        }
        if !self.signed_headers.is_sorted() {
            return Err(Problem::Malformed("the order of SignedHeaders".to_owned()));
        }
        if self.signature != self.expected(message, secret, at)? {
            return Err(Problem::Wrong);
        }
        let (oldest, newest) = (now - SKEW_MAX, now + SKEW_MAX);
        if time < oldest {
            let words =
                format!("Signature expired: {at} is now earlier than {} ({} - 5 min.)", basic(oldest), basic(now));
            return Err(Problem::Skewed(words));
        }
        if time > newest {
            let words = format!(
                "Signature not yet current: {at} is still later than {} ({} + 5 min.)",
                basic(newest),
                basic(now)
            );
            return Err(Problem::Skewed(words));
        }
        Ok(())
    }

    /// The signature that the secret gives.
    pub(in crate::clouds) fn expected(&self, message: &Message, secret: &str, at: &str) -> Result<String, Problem> {
        let scope = format!("{}/{}/{}/aws4_request", self.date, self.region, self.service);
        let request = hex(&Sha256::digest(self.canonical(message)?));
        let to_sign = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{request}");
        let start = hmac(format!("AWS4{secret}").as_bytes(), self.date.as_bytes());
        let words = [self.region.as_str(), &self.service, "aws4_request"];
        let key = words.iter().fold(start, |key, word| hmac(&key, word.as_bytes()));
        Ok(hex(&hmac(&key, to_sign.as_bytes())))
    }

    /// The canonical request.
    fn canonical(&self, message: &Message) -> Result<String, Problem> {
        let mut headers = String::new();
        for name in &self.signed_headers {
            let values: Vec<String> =
                message.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| one_space(value)).collect();
            if values.is_empty() {
                return Err(Problem::NotSigned(name.clone()));
            }
            headers.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        let path: Vec<String> = message.path.split('/').map(|segment| encode(segment.as_bytes())).collect();
        let mut query: Vec<(String, String)> = message
            .query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (encode(&decode(name)), encode(&decode(value))))
            .collect();
        query.sort();
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let names = self.signed_headers.join(";");
        let body = hex(&Sha256::digest(&message.body));
        Ok([&message.method, &path.join("/"), &query.join("&"), &headers, &names, &body].map(String::as_str).join("\n"))
    }
}

/// A value without blanks around it and with single ones inside.
fn one_space(value: &str) -> String {
    value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A time as signatures write it.
fn basic(time: Timestamp) -> String {
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// RFC 3986, everything but the unreserved characters.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        let escaped =
            (*byte == b'%').then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()));
        match escaped.flatten() {
            Some(value) => {
                decoded.push(value);
                at += 3;
            }
            None => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    decoded
}

/// RFC 2104 with SHA-256.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = [0u8; BLOCK_BYTES];
    if key.len() > BLOCK_BYTES {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
