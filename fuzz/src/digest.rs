//! Digests: what parses is what the grammar says, and hashing in pieces is hashing at once.

use windlass_core::digest::{Algorithm, Digest};

/// The input is a digest's text, and content to be hashed, cut where its first byte says.
pub fn run(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        parse(text);
    }
    hash(bytes);
}

fn parse(text: &str) {
    let fits = |algorithms: &[(&str, usize)]| {
        algorithms.iter().any(|(name, length)| {
            text.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(':'))
                .is_some_and(|hex| hex.len() == *length && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
        })
    };
    let content = Digest::parse(text);
    assert_eq!(content.is_ok(), fits(&[("sha256", 64), ("sha512", 128)]), "{text:?}");
    let named = Digest::parse_in_reference(text);
    assert_eq!(named.is_ok(), fits(&[("sha256", 64), ("sha384", 96), ("sha512", 128)]), "{text:?}");
    if let Ok(digest) = &named {
        assert_eq!((digest.as_str(), digest.to_string().as_str()), (text, text));
        assert_eq!(digest.algorithm().hex_len() + digest.algorithm().as_str().len() + 1, text.len());
        assert_eq!(digest.algorithm().addresses_content(), content.is_ok());
        assert!(!text.contains(['/', '.', '\\', '\0']), "{text:?} would be unsafe in a path");
    }
    if let Ok(digest) = &content {
        assert_eq!(Some(digest), named.as_ref().ok());
        let json = serde_json::to_string(digest).expect("a digest is a string");
        assert_eq!(serde_json::from_str::<Digest>(&json).expect("it was just written"), *digest);
    }
    let quoted = serde_json::to_string(text).expect("a string is JSON");
    assert_eq!(serde_json::from_str::<Digest>(&quoted).is_ok(), content.is_ok(), "{text:?}");
    for error in [content.err(), named.err()].into_iter().flatten() {
        assert!(error.to_string().len() < 200, "the text is not repeated");
    }
}

fn hash(content: &[u8]) {
    let cut = content.first().map_or(0, |first| usize::from(*first) % content.len());
    for algorithm in [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512] {
        let whole = algorithm.digest(content);
        let mut pieces = algorithm.hasher();
        pieces.update(&content[..cut]);
        pieces.update(&content[cut..]);
        assert_eq!(pieces.finish(), whole);
        assert_eq!(Digest::parse_in_reference(whole.as_str()), Ok(whole.clone()));
        assert!(whole.matches(content));
        let mut other = content.to_vec();
        other.push(0);
        assert!(!whole.matches(&other));
    }
}
