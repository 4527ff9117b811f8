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
mod tests {
    use super::*;

    const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

    struct Vector {
        request: Message,
        header: String,
    }

    /// One of the published requests.
    fn vector(line: &str, more: &[(&str, &str)], body: &str, signed: &str, signature: &str) -> Vector {
        let (method, target) = line.split_once(' ').expect("method and target");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let iam = query.starts_with("Action=ListUsers");
        let (host, service) = if iam { ("iam.amazonaws.com", "iam") } else { ("example.amazonaws.com", "service") };
        let mut headers = vec![("host", host), ("x-amz-date", "20150830T123600Z")];
        headers.extend(more);
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (method, path, query) = (method.to_owned(), path.to_owned(), query.to_owned());
        Vector {
            request: Message { method, path, query, headers, body: body.as_bytes().to_vec() },
            header: format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/{service}/aws4_request, \
                 SignedHeaders={signed}, Signature={signature}"
            ),
        }
    }

    /// From AWS's test suite of Signature Version 4, and the example of the IAM user guide.
    fn vectors() -> Vec<Vector> {
        let form = ("content-type", "application/x-www-form-urlencoded");
        let form_utf8 = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        let plain = "host;x-amz-date";
        let trimmed = [("my-header1", "value1"), ("my-header2", "\"a   b   c\"")];
        vec![
            vector("GET /", &[], "", plain, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            vector("POST /", &[], "", plain, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            vector(
                "GET /?Param2=value2&Param1=value1",
                &[],
                "",
                plain,
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            vector("GET /?ሴ=bar", &[], "", plain, "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
            vector("GET /ሴ", &[], "", plain, "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
            vector(
                "GET /-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
                &[],
                "",
                plain,
                "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
            ),
            vector(
                "POST /?Param1=value1",
                &[],
                "",
                plain,
                "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
            ),
            vector(
                "GET /",
                &trimmed,
                "",
                "host;my-header1;my-header2;x-amz-date",
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            ),
            vector(
                "POST /",
                &[("my-header1", "VALUE1")],
                "",
                "host;my-header1;x-amz-date",
                "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
            ),
            vector(
                "POST /",
                &[("x-amz-security-token", TOKEN)],
                "",
                "host;x-amz-date;x-amz-security-token",
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
            vector(
                "POST /",
                &[form],
                "Param1=value1",
                "content-type;host;x-amz-date",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
            vector(
                "GET /?Action=ListUsers&Version=2010-05-08",
                &[form_utf8],
                "",
                "content-type;host;x-amz-date",
                "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
            ),
        ]
    }

    fn verify(vector: &Vector, secret: &str, now: &str) -> Result<(), Problem> {
        Presented::parse(&vector.header)?.verify(&vector.request, secret, now.parse().expect("a time"))
    }

    #[test]
    fn the_published_vectors_verify() {
        for vector in vectors() {
            let what = format!("{} {}?{}", vector.request.method, vector.request.path, vector.request.query);
            assert_eq!(verify(&vector, KEY, "2015-08-30T12:38:00Z"), Ok(()), "{what}");
        }
    }

    #[test]
    fn one_changed_byte_does_not_verify() {
        let now = "2015-08-30T12:36:00Z";
        for mut vector in vectors() {
            assert_eq!(verify(&vector, &KEY.replace('w', "v"), now), Err(Problem::Wrong));
            vector.request.body.push(b'x');
            assert_eq!(verify(&vector, KEY, now), Err(Problem::Wrong));
            vector.request.body.pop();
            vector.request.headers[0].1.push('x');
            assert_eq!(verify(&vector, KEY, now), Err(Problem::Wrong));
            vector.request.headers[0].1.pop();
            vector.request.query.push_str("&a=b");
            assert_eq!(verify(&vector, KEY, now), Err(Problem::Wrong));
        }
        let mut vector = vectors().remove(0);
        vector.header = vector.header.replace("us-east-1", "us-west-1");
        assert_eq!(verify(&vector, KEY, now), Err(Problem::Wrong));
        vector.header = vector.header.replace("host;x-amz-date", "x-amz-date");
        assert_eq!(verify(&vector, KEY, now), Err(Problem::NotSigned("host".to_owned())));
    }

    #[test]
    fn old_signatures_do_not_verify() {
        let vector = vectors().remove(0);
        for (now, is_good) in [
            ("2015-08-30T12:30:59Z", false),
            ("2015-08-30T12:31:00Z", true),
            ("2015-08-30T12:41:00Z", true),
            ("2015-08-30T12:41:01Z", false),
        ] {
            let verdict = verify(&vector, KEY, now);
            assert_eq!(verdict.is_ok(), is_good, "{now}");
            assert!(is_good || matches!(verdict, Err(Problem::Skewed(_))), "{now}: {verdict:?}");
        }
    }
}
