//! Finds a secret in whatever a program wrote.
//!
//! Give the program a secret with [`Canary::new`], collect its output and files, and ask [`Canary::assert_absent`].
//! The secret is looked for as it is and in the forms it takes on the wire: base64 (at all three offsets, also as
//! part of `user:password`), hexadecimal and percent-encoded.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// A secret to look for.
#[derive(Clone)]
pub struct Canary {
    secret: String,
    needles: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Canary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Canary")
    }
}

impl Canary {
    /// Shortest secret that is not found by chance.
    const SHORTEST: usize = 8;

    /// Takes a secret of at least eight characters.
    pub fn new(secret: &str) -> Canary {
        assert!(secret.len() >= Canary::SHORTEST, "too short to be found without doubt");
        let bytes = secret.as_bytes();
        let mut needles = vec![bytes.to_vec()];
        for offset in 0..3 {
            // Whole groups of three bytes, so that the letters do not depend on what stands before or after.
            let start = (3 - offset) % 3;
            let len = (bytes.len() - start) / 3 * 3;
            needles.push(STANDARD_NO_PAD.encode(&bytes[start..start + len]).into_bytes());
        }
        needles.push(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>().into_bytes());
        needles.push(url::form_urlencoded::byte_serialize(bytes).collect::<String>().into_bytes());
        Canary { secret: secret.to_owned(), needles }
    }

    /// The secret itself, to hand it to the program.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Whether the secret is in these bytes in any form.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.needles.iter().any(|needle| bytes.windows(needle.len()).any(|window| window == needle))
    }

    /// Panics when the secret is in these bytes; `what` names them.
    pub fn assert_absent(&self, what: &str, bytes: impl AsRef<[u8]>) {
        assert!(!self.is_in(bytes.as_ref()), "the secret is in {what}");
    }

    /// Files below `dir` that hold the secret. Links are not followed.
    pub fn files_with(&self, dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![dir.to_owned()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(&dir).expect("a directory that can be read") {
                let entry = entry.expect("an entry");
                let kind = entry.file_type().expect("a type");
                if kind.is_dir() {
                    open.push(entry.path());
                } else if kind.is_file() && fs::read(entry.path()).is_ok_and(|bytes| self.is_in(&bytes)) {
                    found.push(entry.path());
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn the_secret_is_found_in_every_form() {
        let canary = Canary::new("s3cr/t-w0rd!");
        for user in ["a", "ab", "abc", ""] {
            assert!(canary.is_in(STANDARD.encode(format!("{user}:s3cr/t-w0rd!")).as_bytes()), "{user}");
        }
        assert!(canary.is_in(b"password=s3cr%2Ft-w0rd%21&x=y") && canary.is_in(b"...s3cr/t-w0rd!..."));
        assert!(!canary.is_in(b"s3cr/t-w0rd?") && !canary.is_in(b""));
    }

    #[test]
    fn files_are_searched_below_directories() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("sub")).expect("a directory");
        fs::write(dir.path().join("sub/log"), "x correcthorse y").expect("a file");
        fs::write(dir.path().join("other"), "nothing").expect("a file");
        assert_eq!(Canary::new("correcthorse").files_with(dir.path()), [dir.path().join("sub/log")]);
    }
}
