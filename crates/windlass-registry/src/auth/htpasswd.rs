//! htpasswd files: `name:hash` lines, bcrypt only.
//!
//! Invariant: `only_bcrypt_lines_are_taken`.

use std::collections::HashMap;

use windlass_core::secret::Secret;

use crate::error::RegistryError;

/// Most bytes of an htpasswd file.
pub(crate) const FILE_MAX_BYTES: u64 = 8 << 20;

/// Highest bcrypt cost that is taken: 2^17 rounds are seconds of work for each login.
const COST_MAX: u32 = 17;

/// Users with their hashes.
pub(crate) fn parse(text: &str) -> Result<HashMap<String, Secret<String>>, RegistryError> {
    let mut users = HashMap::new();
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let refuse = |what| RegistryError::Htpasswd { line, what };
        let (name, hash) = content.split_once(':').ok_or(refuse("not name:hash"))?;
        if name.is_empty() {
            return Err(refuse("the name is empty"));
        }
        if !["$2y$", "$2a$", "$2b$"].iter().any(|kind| hash.starts_with(kind)) {
            return Err(refuse("the hash is not bcrypt"));
        }
        let cost = hash.get(4..6).and_then(|cost| cost.parse::<u32>().ok());
        if hash.len() != 60 || !cost.is_some_and(|cost| (4..=COST_MAX).contains(&cost)) {
            return Err(refuse("the bcrypt hash is malformed or its cost is outside 4 to 17"));
        }
        users.insert(name.to_owned(), Secret::from(hash));
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bcrypt_lines_are_taken() {
        let hash = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";
        let users = parse(&format!("# comment\n\na:{hash}\nb:{hash}\n")).expect("two users");
        assert_eq!(users.len(), 2);
        for bad in ["a", ":x", "a:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "a:plain", "a:$2y$05$short", "a:$apr1$x$y"] {
            let error = parse(bad).expect_err(bad);
            assert!(!error.to_string().contains("plain"), "{error}");
        }
        assert!(parse(&format!("a:{}", hash.replace("$05$", "$31$"))).is_err());
    }
}
