//! Content digests: parsed once, valid ever after.
//!
//! A [`Digest`] that exists is well formed, so paths and URLs are made from it without further checks
//! (reliability rule: no digest text reaches a path before it was parsed).
//! Source of truth: OCI image-spec `descriptor.md`, section "Digests".
//!
//! Invariants: `print_then_parse_is_identity`, `only_lower_case_hex_of_the_right_length_parses`,
//! `sha384_parses_in_a_reference_only`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Digest as _;

/// A hash function that content may be addressed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 64 hexadecimal digits. Every registry speaks it.
    Sha256,
    /// SHA-384, 96 hexadecimal digits. Only an image name may carry it, see [`Digest::parse_in_reference`].
    Sha384,
    /// SHA-512, 128 hexadecimal digits.
    Sha512,
}

impl Algorithm {
    /// The name as written in a digest, e.g. `sha256`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha384 => "sha384",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Number of hexadecimal digits of a digest of this kind.
    pub const fn hex_len(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha384 => 96,
            Algorithm::Sha512 => 128,
        }
    }

    /// Whether content may be addressed by it: the image-spec registers SHA-256 and SHA-512, not SHA-384.
    pub const fn addresses_content(self) -> bool {
        match self {
            Algorithm::Sha256 | Algorithm::Sha512 => true,
            Algorithm::Sha384 => false,
        }
    }

    /// Starts a hash over bytes that arrive in pieces.
    pub fn hasher(self) -> Hasher {
        match self {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha384 => Hasher::Sha384(Box::new(sha2::Sha384::new())),
            Algorithm::Sha512 => Hasher::Sha512(Box::new(sha2::Sha512::new())),
        }
    }

    /// The digest of bytes at hand.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// The text is not `algorithm:encoded`.
    #[error("a digest is algorithm:hex")]
    Format,
    /// The algorithm is well formed but not one that can be verified.
    #[error("digest algorithm is neither sha256 nor sha512")]
    Algorithm,
    /// The encoded part has the wrong length or a character that is not a lower-case hexadecimal digit.
    #[error("{algorithm} needs {} lower-case hexadecimal digits", algorithm.hex_len())]
    Encoded {
        /// The algorithm the text named.
        algorithm: Algorithm,
    },
}

/// The address of content: an algorithm and its hash in lower-case hexadecimal.
///
/// Ordered and printed as its text, `sha256:9f2c...`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    text: Box<str>,
    algorithm: Algorithm,
}

impl Digest {
    /// Parses `algorithm:hex` strictly.
    ///
    /// # Errors
    /// [`DigestError`] says which part is wrong; the text itself is not repeated in it.
    pub fn parse(text: &str) -> Result<Digest, DigestError> {
        let digest = Digest::parse_in_reference(text)?;
        if digest.algorithm.addresses_content() { Ok(digest) } else { Err(DigestError::Algorithm) }
    }

    /// Parses the digest of an image name, where Kubernetes accepts `sha384` too.
    ///
    /// No registry or store addresses content by SHA-384: who fetches checks [`Algorithm::addresses_content`] first.
    ///
    /// # Errors
    /// As [`Digest::parse`].
    pub fn parse_in_reference(text: &str) -> Result<Digest, DigestError> {
        let (name, encoded) = text.split_once(':').ok_or(DigestError::Format)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha384" => Algorithm::Sha384,
            "sha512" => Algorithm::Sha512,
            _ if is_algorithm_name(name) && !encoded.is_empty() => return Err(DigestError::Algorithm),
            _ => return Err(DigestError::Format),
        };
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if encoded.len() != algorithm.hex_len() || !encoded.bytes().all(is_hex) {
            return Err(DigestError::Encoded { algorithm });
        }
        Ok(Digest { text: text.into(), algorithm })
    }

    /// The SHA-256 digest of bytes at hand.
    pub fn sha256(bytes: &[u8]) -> Digest {
        Algorithm::Sha256.digest(bytes)
    }

    /// The algorithm of this digest.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hexadecimal part alone.
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.as_str().len() + 1..]
    }

    /// The whole text, `sha256:...`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first twelve hexadecimal digits, for people.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// Whether `bytes` are the content this digest names.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        self.algorithm.digest(bytes) == *self
    }

    fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Digest {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(algorithm.as_str().len() + 1 + hash.len() * 2);
        text.push_str(algorithm.as_str());
        text.push(':');
        for byte in hash {
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
        Digest { text: text.into(), algorithm }
    }
}

/// Image-spec grammar: components of lower-case letters and digits joined by one of `+._-`.
fn is_algorithm_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .split(['+', '.', '_', '-'])
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        Digest::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Digest::parse(&text).map_err(de::Error::custom)
    }
}

/// A hash in progress.
#[derive(Clone)]
pub enum Hasher {
    /// A SHA-256 in progress.
    Sha256(sha2::Sha256),
    /// A SHA-384 in progress.
    Sha384(Box<sha2::Sha384>),
    /// A SHA-512 in progress.
    Sha512(Box<sha2::Sha512>),
}

impl Hasher {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hash) => hash.update(bytes),
            Hasher::Sha384(hash) => hash.update(bytes),
            Hasher::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hash) => Digest::from_hash(Algorithm::Sha256, &hash.finalize()),
            Hasher::Sha384(hash) => Digest::from_hash(Algorithm::Sha384, &hash.finalize()),
            Hasher::Sha512(hash) => Digest::from_hash(Algorithm::Sha512, &hash.finalize()),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hasher::Sha256(_) => "Hasher(sha256)",
            Hasher::Sha384(_) => "Hasher(sha384)",
            Hasher::Sha512(_) => "Hasher(sha512)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of nothing, from FIPS 180-4 test data.
    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn print_then_parse_is_identity() {
        let digest = Digest::sha256(b"");
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(Digest::parse(EMPTY), Ok(digest.clone()));
        assert!(digest.matches(b"") && !digest.matches(b"x"));
        let long = Algorithm::Sha512.digest(b"abc");
        assert!(long.as_str().starts_with("sha512:ddaf35a193617abacc417349ae204131"));
        assert_eq!(Digest::parse(long.as_str()), Ok(long));
    }

    #[test]
    fn only_lower_case_hex_of_the_right_length_parses() {
        let hex = &EMPTY[7..];
        let table = [
            (String::new(), DigestError::Format),
            (hex.to_owned(), DigestError::Format),
            (format!(":{hex}"), DigestError::Format),
            (format!("SHA256:{hex}"), DigestError::Format),
            (format!("md5:{}", &hex[..32]), DigestError::Algorithm),
            (format!("sha256:{}", hex.to_uppercase()), DigestError::Encoded { algorithm: Algorithm::Sha256 }),
            (format!("sha256:{}", &hex[..63]), DigestError::Encoded { algorithm: Algorithm::Sha256 }),
            (format!("sha256:{}/../x", &hex[..58]), DigestError::Encoded { algorithm: Algorithm::Sha256 }),
            (format!("sha512:{hex}"), DigestError::Encoded { algorithm: Algorithm::Sha512 }),
            (Algorithm::Sha384.digest(b"").to_string(), DigestError::Algorithm),
        ];
        for (text, want) in table {
            assert_eq!(Digest::parse(&text), Err(want), "{text}");
        }
    }

    #[test]
    fn sha384_parses_in_a_reference_only() {
        let digest = Algorithm::Sha384.digest(b"");
        assert!(digest.as_str().starts_with("sha384:38b060a751ac96384cd9327eb1b1e36a"));
        assert_eq!(Digest::parse_in_reference(digest.as_str()), Ok(digest.clone()));
        assert!(!digest.algorithm().addresses_content());
        assert_eq!(Digest::parse(digest.as_str()), Err(DigestError::Algorithm));
    }
}
