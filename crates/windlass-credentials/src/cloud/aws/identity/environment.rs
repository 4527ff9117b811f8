//! Keys in variables.

use windlass_core::secret::Secret;

use super::Found;
use crate::cloud::CloudError;
use crate::cloud::aws::keys::Keys;
use crate::cloud::aws::settings::AwsSettings;

/// `AWS_ACCESS_KEY_ID` and its two companions.
///
/// # Errors
/// [`CloudError::Settings`] when one of the pair is missing.
pub(super) fn keys(settings: &AwsSettings) -> Result<Found, CloudError> {
    let (id, secret) = (settings.variable("AWS_ACCESS_KEY_ID"), settings.variable("AWS_SECRET_ACCESS_KEY"));
    let lonely = |set: &str, missing: &str| {
        Err(CloudError::Settings { what: set.to_owned(), problem: format!("is set, but {missing} is not") })
    };
    match (id, secret) {
        (Some(id), Some(secret)) => Ok(Found::Keys(Keys {
            access_key_id: id.value().trim().to_owned(),
            secret: Secret::from(secret.value().trim()),
            session_token: settings.variable("AWS_SESSION_TOKEN").map(|v| Secret::from(v.value().trim())),
            expires: None,
            source: "AWS_ACCESS_KEY_ID".to_owned(),
        })),
        (Some(id), None) => lonely(id.name, "AWS_SECRET_ACCESS_KEY"),
        (None, Some(secret)) => lonely(secret.name, "AWS_ACCESS_KEY_ID"),
        (None, None) => Ok(Found::Nothing("AWS_ACCESS_KEY_ID is not set".to_owned())),
    }
}
