//! One program, asked as a kubelet asks it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use windlass_core::keyring::Credential;
use windlass_core::provider::{
    ANSWER_BYTES_MAX, AnswerError, ExecProvider, ProviderAnswer, STDERR_BYTES_MAX, TokenCacheType, mask, read_answer,
    refuse_echoed_token, request_body,
};
use windlass_core::reason::Reason;

use super::PluginSettings;
use crate::process::{Run, RunErrorKind, run};
use crate::provider::{Answering, Provider, ProviderError, ProviderRequest};

/// Most runs of one program at the same time; a node that starts a hundred pods does not start a hundred of them.
const RUNS_AT_ONCE: usize = 16;

/// Why a program gave no answer. Its standard error is masked, its output never shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// It could not be started or talked to.
    #[error("the program cannot be run")]
    Io(#[source] std::io::Error),
    /// It was killed when its time was up.
    #[error("it did not end within {} s and was killed{}", limit.as_secs_f64(), told(stderr))]
    Timeout {
        /// The limit.
        limit: Duration,
        /// What it had said until then.
        stderr: String,
    },
    /// It wrote more than an answer may have.
    #[error("it wrote more than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    /// It failed.
    #[error("it ended with {status}{}", told(stderr))]
    Failed {
        /// Its exit status.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// Its answer is of no use.
    #[error("{error}{}", told(stderr))]
    Answer {
        /// Why.
        error: AnswerError,
        /// What it said beside.
        stderr: String,
    },
}

impl PluginError {
    /// The reason in the common vocabulary.
    pub const fn reason(&self) -> Reason {
        match self {
            PluginError::Io(_) => Reason::InvalidConfig,
            PluginError::Timeout { .. } => Reason::Timeout,
            PluginError::TooLarge | PluginError::Failed { .. } => Reason::InvalidCredentials,
            PluginError::Answer { error, .. } => error.reason(),
        }
    }
}

fn told(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {}", stderr.replace('\n', " | ")) }
}

/// How the last run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastRun {
    pub(crate) status: Option<ExitStatus>,
    pub(crate) stderr: String,
}

/// A program as a provider.
pub(crate) struct ExecPlugin {
    config: ExecProvider,
    program: PathBuf,
    environment: Vec<(OsString, OsString)>,
    timeout: Duration,
    last: Mutex<LastRun>,
    places: Semaphore,
}

impl std::fmt::Debug for ExecPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The environment may hold secrets that are not ours.
        f.debug_struct("ExecPlugin").field("config", &self.config).finish_non_exhaustive()
    }
}

impl ExecPlugin {
    pub(crate) fn new(config: ExecProvider, settings: &PluginSettings) -> ExecPlugin {
        let own = config.env.iter().map(|(name, value)| (name.into(), value.expose().into()));
        let inherited = settings.environment.iter().cloned();
        ExecPlugin {
            program: settings.bin_dir.join(&config.name),
            environment: inherited.chain(own).collect(),
            timeout: config.timeout.unwrap_or(settings.timeout),
            last: Mutex::default(),
            places: Semaphore::new(RUNS_AT_ONCE),
            config,
        }
    }

    pub(crate) fn config(&self) -> &ExecProvider {
        &self.config
    }

    pub(crate) fn last(&self) -> LastRun {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn answer(&self, request: &ProviderRequest) -> Result<ProviderAnswer, PluginError> {
        let account = request.service_account.as_ref();
        let input = request_body(
            self.config.api_version,
            &request.image.repository(),
            account.map(|account| (&account.token, &account.annotations)),
        );
        // Waiting does not count as its time. The semaphore is never closed.
        let _place = self.places.acquire().await;
        let ran = run(Run {
            program: self.program.clone(),
            args: self.config.args.iter().map(OsString::from).collect(),
            environment: self.environment.clone(),
            input,
            timeout: self.timeout,
            output_bytes: ANSWER_BYTES_MAX,
            error_bytes: STDERR_BYTES_MAX + 1,
        });
        let ran = ran.await.map_err(|error| {
            let stderr = self.note(None, &error.errors, request, None);
            match error.kind {
                RunErrorKind::Io(error) => PluginError::Io(error),
                RunErrorKind::Timeout => PluginError::Timeout { limit: self.timeout, stderr },
                RunErrorKind::TooLarge => PluginError::TooLarge,
            }
        })?;
        if !ran.status.success() {
            let stderr = self.note(Some(ran.status), &ran.errors, request, None);
            return Err(PluginError::Failed { status: ran.status, stderr });
        }
        let answer = read_answer(&ran.output, self.config.api_version).and_then(|answer| {
            let shared = self.config.token.as_ref().is_some_and(|token| match token.cache_type {
                TokenCacheType::ServiceAccount => true,
                TokenCacheType::Token => false,
            });
            match account.filter(|_| shared) {
                Some(account) => refuse_echoed_token(&answer, &account.token).map(|()| answer),
                None => Ok(answer),
            }
        });
        let stderr = self.note(Some(ran.status), &ran.errors, request, answer.as_ref().ok());
        answer.map_err(|error| PluginError::Answer { error, stderr })
    }

    /// Remembers how a run ended; returns what it said, masked.
    fn note(
        &self,
        status: Option<ExitStatus>,
        errors: &[u8],
        request: &ProviderRequest,
        answer: Option<&ProviderAnswer>,
    ) -> String {
        let token = request.service_account.iter().map(|account| account.token.expose().as_str());
        let declared = self.config.env.iter().map(|(_, value)| value.expose().as_str());
        let logins = answer.into_iter().flat_map(|answer| &answer.auth).filter_map(|(_, login)| password(login));
        let stderr = mask(errors, token.chain(declared).chain(logins));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = LastRun { status, stderr: stderr.clone() };
        stderr
    }
}

fn password(credential: &Credential) -> Option<&str> {
    match credential {
        Credential::Basic { password, .. } => Some(password.expose()),
        Credential::IdentityToken { token, .. } | Credential::RegistryToken { token } => Some(token.expose()),
        _ => None,
    }
}

impl Provider for ExecPlugin {
    fn ask<'a>(&'a self, request: &'a ProviderRequest) -> Answering<'a> {
        Box::pin(async move { self.answer(request).await.map_err(ProviderError::from) })
    }
}
