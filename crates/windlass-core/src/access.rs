//! Who may use an image that is already here: pull records, and the rules that read them.
//!
//! In: the verification policy, the record of an image, what a pod can show. Out: allowed or not, and why.
//! Source of truth: kubernetes `pkg/kubelet/images/pullmanager/image_pull_manager.go` (KEP-2535); the files are
//! kubelet's own, `kubelet.config.k8s.io/v1beta1`, so that either can take over from the other.
//!
//! Invariants: `absent_unreadable_and_foreign_records_prove_nothing`, `an_empty_uid_never_matches_by_coordinates`,
//! `node_wide_access_never_reverts`, `a_written_record_reads_back`.

mod check;
mod record;

pub use check::{Check, Grounds, PodCheck, PodProofs, VerificationPolicy, VerificationPolicyError, check, check_pod};
pub use record::{
    AccountProof, Grant, PullIntent, PulledRecord, RECORD_MAX_BYTES, RecordError, RecordLookup, RepositoryAccess,
    SecretProof,
};

/// With this many secrets on record no further one is added by a mere match, and coordinates alone no longer allow.
/// Kubelet: `MustAttemptImagePull`, 100.
pub const MATCHED_SECRETS_MAX: usize = 100;

#[cfg(test)]
mod tests;
