//! The access log: what was asked by whom and how it was answered, without any secret.
//!
//! Invariant: `no_secret_is_logged` (query strings, credentials and tokens have no field here).

use std::sync::{Mutex, PoisonError};

use http::{Method, StatusCode};

use crate::route::RouteKind;

/// How a request carried credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// No `Authorization` header.
    None,
    /// User and password.
    Basic,
    /// A token.
    Bearer,
    /// Something else.
    Other,
}

/// One request and the head of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRecord {
    /// Method.
    pub method: Method,
    /// Path without its query.
    pub path: String,
    /// Kind of end-point.
    pub route: RouteKind,
    /// Repository, where the path names one.
    pub repository: Option<String>,
    /// Tag or digest, where the path names one.
    pub reference: Option<String>,
    /// Status of the answer.
    pub status: StatusCode,
    /// The user, once proved.
    pub identity: Option<String>,
    /// How the request carried credentials, whether or not they were good.
    pub credential: CredentialKind,
    /// The `Range` header.
    pub range: Option<String>,
    /// Bytes of the answer's body as announced.
    pub answer_bytes: u64,
}

/// Told about every request before the first byte of its answer leaves.
pub trait AccessLog: Send + Sync + std::fmt::Debug {
    /// Takes one record. Must not block.
    fn record(&self, record: AccessRecord);
}

/// Most records [`MemoryLog`] keeps; a test that makes more has lost its way.
const MEMORY_LOG_MAX: usize = 1_000_000;

/// Keeps every record in memory, for tests and `demo`.
#[derive(Debug, Default)]
pub struct MemoryLog(Mutex<Vec<AccessRecord>>);

impl MemoryLog {
    /// Everything so far, in the order of the answers.
    pub fn records(&self) -> Vec<AccessRecord> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything so far; forgets it.
    pub fn take(&self) -> Vec<AccessRecord> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AccessLog for MemoryLog {
    fn record(&self, record: AccessRecord) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() < MEMORY_LOG_MAX {
            records.push(record);
        }
    }
}
