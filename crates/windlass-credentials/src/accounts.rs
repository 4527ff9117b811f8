//! Service accounts, and tokens of theirs that lie in a directory.
//!
//! In: `DIRECTORY/NAMESPACE/NAME`, a token or a directory of tokens, as `kubectl create token NAME --audience AUDIENCE`
//! prints them. Out: the token for an audience, still good for a while. The registry's cloud checks the signature; here it
//! is only seen to it that the token is the right one.
//!
//! Invariants (`tests/accounts.rs`): `the_token_for_the_audience_is_found`, `a_token_that_does_not_fit_is_named`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use windlass_core::provider::{TokenClaims, TokenClaimsError, read_claims};
use windlass_core::secret::Secret;
use zeroize::Zeroizing;

/// Longest token.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;
/// Most tokens of one account.
const TOKENS_MAX: usize = 64;
/// A token is not used any more when less than this is left: the provider has to use it yet.
const LEAST_LEFT: Duration = Duration::from_secs(30);

/// A pod's service account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID; empty where it is not known, e.g. for one from a manifest file.
    pub uid: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A directory of tokens.
#[derive(Clone, Debug)]
pub struct TokenDirectory {
    root: PathBuf,
}

/// A token, and the UID of its account where the token tells.
#[derive(Debug)]
pub(crate) struct FoundToken {
    pub(crate) token: Secret<String>,
    pub(crate) uid: String,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// A name could lead elsewhere.
    #[error("the service account {account} has a name that no service account can have")]
    Name {
        /// `NAMESPACE/NAME`.
        account: String,
    },
    /// The file or directory cannot be read.
    #[error("no token of service account {account}: {path} cannot be read", path = path.display())]
    Io {
        /// `NAMESPACE/NAME`.
        account: String,
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There are tokens, and none is good.
    #[error("no token of service account {account} for the audience {audience}: {why}")]
    Unfit {
        /// `NAMESPACE/NAME`.
        account: String,
        /// What was wanted.
        audience: String,
        /// What is wrong with each.
        why: String,
    },
}

impl TokenDirectory {
    /// Tokens at `root/NAMESPACE/NAME`.
    pub fn new(root: impl Into<PathBuf>) -> TokenDirectory {
        TokenDirectory { root: root.into() }
    }

    /// The token of an account for an audience; of several the one that lasts longest.
    pub(crate) async fn token(&self, namespace: &str, name: &str, audience: &str) -> Result<FoundToken, TokenError> {
        let (root, audience) = (self.root.clone(), audience.to_owned());
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let account = format!("{namespace}/{name}");
        let find = move || find(&root, &namespace, &name, &audience, SystemTime::now());
        tokio::task::spawn_blocking(find).await.unwrap_or_else(|_| {
            let source = std::io::Error::from(std::io::ErrorKind::Interrupted);
            Err(TokenError::Io { account, path: self.root.clone(), source })
        })
    }
}

fn find(root: &Path, namespace: &str, name: &str, audience: &str, now: SystemTime) -> Result<FoundToken, TokenError> {
    let account = format!("{namespace}/{name}");
    let is_plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.len() <= 253
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
    };
    if !is_plain(namespace) || !is_plain(name) {
        return Err(TokenError::Name { account });
    }
    let path = root.join(namespace).join(name);
    let unreadable = |path: &Path, source| TokenError::Io { account: account.clone(), path: path.to_owned(), source };
    let files = files(&path).map_err(|source| unreadable(&path, source))?;
    let (mut best, mut misses): (Option<(u64, FoundToken)>, Vec<String>) = (None, Vec::new());
    for file in files {
        let token = read(&file).map_err(|source| unreadable(&file, source))?;
        match fits(&token, namespace, name, audience, now) {
            Ok(claims) if best.as_ref().is_none_or(|(expires, _)| *expires < claims.expires) => {
                best = Some((claims.expires, FoundToken { token, uid: claims.uid }));
            }
            Ok(_) => {}
            Err(why) => misses.push(format!("{} {why}", file.display())),
        }
    }
    let why = if misses.is_empty() { format!("{} is empty", path.display()) } else { misses.join(", ") };
    best.map(|(_, found)| found).ok_or(TokenError::Unfit { account, audience: audience.to_owned(), why })
}

/// Whether a token is this account's, for this audience, and good for a while.
fn fits(
    token: &Secret<String>,
    namespace: &str,
    name: &str,
    audience: &str,
    now: SystemTime,
) -> Result<TokenClaims, String> {
    let claims = read_claims(token).map_err(|error: TokenClaimsError| error.to_string())?;
    if claims.subject != format!("system:serviceaccount:{namespace}:{name}") {
        return Err("belongs to another account".to_owned());
    }
    if !claims.audiences.iter().any(|known| known == audience) {
        return Err("is for another audience".to_owned());
    }
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if Duration::from_secs(claims.expires) < now + LEAST_LEFT {
        return Err("has expired".to_owned());
    }
    Ok(claims)
}

fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)?.take(TOKENS_MAX) {
        let entry = entry?.path();
        // A mounted volume has directories and links whose names begin with a dot.
        let hidden = entry.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && entry.is_file() {
            found.push(entry);
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> std::io::Result<Secret<String>> {
    let mut text = Zeroizing::new(String::with_capacity(4096));
    File::open(path)?.take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
    Ok(Secret::from(text.trim()))
}
