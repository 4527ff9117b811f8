//! Logins of the three clouds' registries, from the identity that this machine or a service account has there.
//!
//! One room per cloud; what they share is here: questions with tries and a deadline ([`asking`], [`retry`]), answers read
//! with care ([`json`], [`moment`]), which URLs may be asked ([`endpoint`]), small files ([`files`]), forms ([`form`]), refusals ([`oauth`]).
//! Nothing is kept between two questions; who asks keeps answers.

pub(crate) mod asking;
pub mod aws;
pub mod azure;
pub mod detect;
pub(crate) mod endpoint;
mod error;
pub(crate) mod files;
pub(crate) mod form;
pub mod google;
pub(crate) mod json;
pub(crate) mod moment;
pub(crate) mod oauth;
pub(crate) mod retry;
#[cfg(test)]
pub(crate) mod script;

pub use error::CloudError;
