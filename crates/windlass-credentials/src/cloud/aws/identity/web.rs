//! IRSA: a role for the service account's token that the cluster put into a file.

use std::path::{Path, PathBuf};

use super::Found;
use crate::cloud::aws::Ask;
use crate::cloud::aws::keys::Keys;
use crate::cloud::aws::sts::{self, Role};
use crate::cloud::{CloudError, files};

/// `AWS_WEB_IDENTITY_TOKEN_FILE` with `AWS_ROLE_ARN`.
///
/// # Errors
/// [`CloudError`] of the file or of the STS.
pub(super) async fn keys(ask: &Ask<'_>) -> Result<Found, CloudError> {
    let Some(file) = ask.settings.variable("AWS_WEB_IDENTITY_TOKEN_FILE") else {
        return Ok(Found::Nothing("AWS_WEB_IDENTITY_TOKEN_FILE is not set".to_owned()));
    };
    let Some(role) = ask.settings.variable("AWS_ROLE_ARN") else {
        let problem = "is set, but AWS_ROLE_ARN is not".to_owned();
        return Err(CloudError::Settings { what: file.name.to_owned(), problem });
    };
    let role = Role {
        arn: role.value().to_owned(),
        named_by: role.name.to_owned(),
        session_name: ask.settings.variable("AWS_ROLE_SESSION_NAME").map(|v| v.value().to_owned()),
        ..Role::default()
    };
    with_file(ask, file.name, &PathBuf::from(file.value()), &role).await.map(Found::Keys)
}

/// Keys of a role for the token in a file.
///
/// # Errors
/// As [`keys`].
pub(super) async fn with_file(ask: &Ask<'_>, what: &str, file: &Path, role: &Role) -> Result<Keys, CloudError> {
    let token = files::token(what, file).await?;
    sts::with_web_identity(ask, role, &token).await
}
