//! Logins of the three clouds' registries, from the identity that this machine or a service account has there.

mod error;

pub use error::CloudError;
