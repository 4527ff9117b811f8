//! One run of a helper: `get`, the server on standard input, JSON on standard output.

use std::process::Stdio;
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use windlass_core::keyring::Credential;
use windlass_core::secret::Secret;
use zeroize::Zeroizing;

use super::{HELPER_OUTPUT_BYTES, HelperError, HelperPolicy, trust};

/// What a helper prints when it knows no credential; docker compares the whole text.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// User name that marks the secret as a refresh token.
const TOKEN_USER: &str = "<token>";
/// Longest error text that is shown.
const MAX_MESSAGE_CHARS: usize = 200;

/// Asks a helper for a server's credential.
pub(super) async fn get(policy: &HelperPolicy, name: &str, server: &str) -> Result<Option<Credential>, HelperError> {
    let (policy, name, server) = (Arc::new(policy.clone()), name.to_owned(), server.to_owned());
    let find = {
        let policy = Arc::clone(&policy);
        move || trust::find(&policy, &name)
    };
    let canceled = |_| HelperError::Io(std::io::Error::from(std::io::ErrorKind::Interrupted));
    let program = tokio::task::spawn_blocking(find).await.map_err(canceled)??;
    let path = std::env::join_paths(&policy.directories).unwrap_or_default();
    let mut child = Command::new(program)
        .arg("get")
        .env_clear()
        .env("PATH", path)
        .envs(policy.environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(HelperError::Io)?;
    // Dropped before the child is: while the leader is not reaped, nobody else can get the group's number.
    let mut group = Group { leader: child.id().and_then(|id| Pid::from_raw(id.cast_signed())) };
    let result = tokio::time::timeout(policy.timeout, talk(&mut child, &server)).await;
    let (status, output) = match result {
        Err(_) => return Err(HelperError::Timeout { limit: policy.timeout }),
        Ok(spoken) => spoken?,
    };
    group.leader = None;
    if status.success() { read_answer(&output).map(Some) } else { read_failure(status, &output) }
}

/// Kills the helper and all it has started, unless it ended in time.
struct Group {
    leader: Option<Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            // An error means that nobody is left.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

type Spoken = (std::process::ExitStatus, Zeroizing<Vec<u8>>);

async fn talk(child: &mut Child, server: &str) -> Result<Spoken, HelperError> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let ask = async {
        if let Some(mut stdin) = stdin {
            // A helper that answers without reading is none of our business.
            let _ = stdin.write_all(format!("{server}\n").as_bytes()).await;
        }
    };
    let listen = async {
        let mut output = Zeroizing::new(Vec::with_capacity(64 * 1024));
        if let Some(stdout) = stdout {
            let limit = HELPER_OUTPUT_BYTES as u64 + 1;
            stdout.take(limit).read_to_end(&mut output).await.map_err(HelperError::Io)?;
        }
        if output.len() > HELPER_OUTPUT_BYTES { Err(HelperError::TooLarge) } else { Ok(output) }
    };
    let ((), output) = tokio::join!(ask, listen);
    let output = output?;
    let status = child.wait().await.map_err(HelperError::Io)?;
    Ok((status, output))
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

fn read_failure(status: std::process::ExitStatus, output: &[u8]) -> Result<Option<Credential>, HelperError> {
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
