//! One run of a helper: `get`, the server on standard input, JSON on standard output.

use std::process::ExitStatus;
use std::sync::Arc;

use serde::Deserialize;
use windlass_core::keyring::Credential;
use windlass_core::secret::Secret;
use zeroize::Zeroizing;

use super::{HELPER_OUTPUT_BYTES, HelperError, HelperPolicy, trust};
use crate::process::{Run, RunErrorKind, run};

/// What a helper prints when it knows no credential; docker compares the whole text.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// User name that marks the secret as a refresh token.
const TOKEN_USER: &str = "<token>";
/// Longest error text that is shown.
const MAX_MESSAGE_CHARS: usize = 200;

/// Asks a helper for a server's credential.
pub(super) async fn get(policy: &HelperPolicy, name: &str, server: &str) -> Result<Option<Credential>, HelperError> {
    let (policy, name) = (Arc::new(policy.clone()), name.to_owned());
    let find = {
        let policy = Arc::clone(&policy);
        move || trust::find(&policy, &name)
    };
    let canceled = |_| HelperError::Io(std::io::Error::from(std::io::ErrorKind::Interrupted));
    let program = tokio::task::spawn_blocking(find).await.map_err(canceled)??;
    let path = std::env::join_paths(&policy.directories).unwrap_or_default();
    let declared = policy.environment.iter().cloned();
    let ran = run(Run {
        program,
        args: vec!["get".into()],
        environment: std::iter::once(("PATH".into(), path)).chain(declared).collect(),
        input: Zeroizing::new(format!("{server}\n").into_bytes()),
        timeout: policy.timeout,
        output_bytes: HELPER_OUTPUT_BYTES,
        error_bytes: 0,
    });
    let ran = ran.await.map_err(|error| match error.kind {
        RunErrorKind::Io(error) => HelperError::Io(error),
        RunErrorKind::Timeout => HelperError::Timeout { limit: policy.timeout },
        RunErrorKind::TooLarge => HelperError::TooLarge,
    })?;
    if ran.status.success() { read_answer(&ran.output).map(Some) } else { read_failure(ran.status, &ran.output) }
}

fn read_answer(output: &[u8]) -> Result<Credential, HelperError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "Username", default)]
        username: String,
        #[serde(rename = "Secret", default)]
        secret: String,
    }
    let Answer { username, secret } = serde_json::from_slice(output).map_err(|_| HelperError::Answer)?;
    let secret = Secret::new(secret);
    if username == TOKEN_USER {
        return Ok(Credential::IdentityToken { username: None, token: secret });
    }
    if username.is_empty() && secret.expose().is_empty() {
        return Err(HelperError::Answer);
    }
    Ok(Credential::Basic { username, password: secret })
}

fn read_failure(status: ExitStatus, output: &[u8]) -> Result<Option<Credential>, HelperError> {
    let text = Zeroizing::new(String::from_utf8_lossy(output).into_owned());
    if text.trim() == NOT_FOUND {
        return Ok(None);
    }
    // Error texts are one line; what looks like an answer may hold the secret.
    let first = text.trim().lines().next().unwrap_or_default();
    let shown = if text.contains('{') { "" } else { first };
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    Err(HelperError::Failed { status, message: shown.chars().take(MAX_MESSAGE_CHARS).map(printable).collect() })
}
