//! Whose keys sign: the first identity that is set up, in a fixed order. One that is set up and fails ends the search, so
//! that nobody acts as somebody else by accident.
//!
//! Order: the service account that the request brings; variables with keys; the shared files; a token file with a role
//! (IRSA); the container's endpoint (EKS Pod Identity, ECS); the instance's metadata service.
//! Source of truth: the AWS SDKs' credential chain; cloud-provider-aws for the service account.
//!
//! Invariants: `the_order_is_fixed`, `nothing_found_says_where_it_was_looked_for`,
//! `a_token_without_a_role_is_an_error`.

mod container;
mod environment;
mod imds;
mod process;
mod profiles;
mod shared;
mod web;

use super::Ask;
use super::keys::Keys;
use super::settings::NodeFallback;
use super::sts::{self, Role};
use crate::cloud::CloudError;
use crate::provider::ServiceAccountToken;

/// The annotation that names the role of a service account for pulls; also where upstream reads it.
pub(super) const ROLE_ANNOTATION: &str = "eks.amazonaws.com/ecr-role-arn";

/// What one place gave.
#[derive(Debug)]
enum Found {
    /// Keys.
    Keys(Keys),
    /// It is not set up; the text says so to people.
    Nothing(String),
}

/// Finds keys.
///
/// # Errors
/// [`CloudError`] of the first place that is set up and fails; [`CloudError::NoIdentity`] if none is.
pub(super) async fn find(ask: &Ask<'_>, account: Option<&ServiceAccountToken>) -> Result<Keys, CloudError> {
    let mut looked = Vec::new();
    let mut note = |found: Found| match found {
        Found::Keys(keys) => Some(keys),
        Found::Nothing(why) => {
            looked.push(why);
            None
        }
    };
    if let Some(account) = account
        && let Some(keys) = note(of_service_account(ask, account).await?)
    {
        return Ok(keys);
    }
    if let Some(keys) = note(environment::keys(ask.settings)?) {
        return Ok(keys);
    }
    if let Some(keys) = note(shared::keys(ask).await?) {
        return Ok(keys);
    }
    if let Some(keys) = note(web::keys(ask).await?) {
        return Ok(keys);
    }
    if let Some(keys) = note(container::keys(ask).await?) {
        return Ok(keys);
    }
    if let Some(keys) = note(imds::keys(ask).await?) {
        return Ok(keys);
    }
    let hint = "attach a role to the instance, give the pod an identity (IRSA or EKS Pod Identity), or set \
                AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
    Err(CloudError::NoIdentity { looked: looked.join("; "), hint: hint.to_owned() })
}

async fn of_service_account(ask: &Ask<'_>, account: &ServiceAccountToken) -> Result<Found, CloudError> {
    let annotated = account.annotations.get(ROLE_ANNOTATION).filter(|arn| !arn.is_empty());
    let variable = ask.settings.variable("AWS_ECR_ROLE_ARN");
    let (arn, named_by) = match (annotated, variable) {
        (Some(arn), _) => (arn.as_str(), format!("the annotation {ROLE_ANNOTATION}")),
        (None, Some(variable)) => (variable.value(), variable.name.to_owned()),
        (None, None) => {
            let why = format!("the service account has no annotation {ROLE_ANNOTATION}, AWS_ECR_ROLE_ARN is not set");
            return match ask.settings.node_fallback {
                NodeFallback::Allowed => Ok(Found::Nothing(why)),
                NodeFallback::Refused => {
                    let hint = "name a role, or let such pods use the machine's identity with --allow-node-fallback";
                    Err(CloudError::NoIdentity { looked: why, hint: hint.to_owned() })
                }
            };
        }
    };
    let role = Role { arn: arn.to_owned(), named_by, ..Role::default() };
    sts::with_web_identity(ask, &role, &account.token).await.map(Found::Keys)
}

#[cfg(test)]
mod tests;
