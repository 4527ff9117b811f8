//! The shared files `~/.aws/credentials` and `~/.aws/config`, and the steps that a profile names.
//!
//! Invariant: `a_profile_that_was_asked_for_must_exist`.

use std::path::PathBuf;

use super::profiles::{Base, Layout, Plan, Profiles};
use super::{Found, container, environment, imds, process, web};
use crate::cloud::aws::Ask;
use crate::cloud::aws::keys::Keys;
use crate::cloud::aws::settings::AwsSettings;
use crate::cloud::aws::sts;
use crate::cloud::{CloudError, files};

/// The files: what names them, where they are otherwise, and their layout. The first one wins.
const FILES: [(&str, &str, Layout); 2] = [
    ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials", Layout::Credentials),
    ("AWS_CONFIG_FILE", ".aws/config", Layout::Config),
];

/// The keys of the profile that is asked for, or of `default`.
///
/// # Errors
/// [`CloudError`] of the files, or of a step that the profile names.
pub(super) async fn keys(ask: &Ask<'_>) -> Result<Found, CloudError> {
    let profiles = read(ask.settings).await?;
    let asked = ask.settings.variable("AWS_PROFILE").or_else(|| ask.settings.variable("AWS_DEFAULT_PROFILE"));
    let name = asked.map_or("default", |variable| variable.value());
    if !profiles.has(name) {
        return match asked {
            None => Ok(Found::Nothing("there is no profile default in ~/.aws".to_owned())),
            Some(variable) => Err(CloudError::Settings {
                what: variable.name.to_owned(),
                problem: "names a profile that is in none of the shared files".to_owned(),
            }),
        };
    }
    match profiles.plan(name)? {
        None => Ok(Found::Nothing(format!("the profile {name} has no keys"))),
        Some(plan) => carry_out(ask, plan).await.map(Found::Keys),
    }
}

async fn read(settings: &AwsSettings) -> Result<Profiles, CloudError> {
    let home = settings.variable("HOME").map(|home| PathBuf::from(home.value()));
    let mut profiles = Profiles::default();
    for (name, place, layout) in FILES {
        let named = settings.variable(name).map(|variable| PathBuf::from(variable.value()));
        let Some(path) = named.or_else(|| home.as_ref().map(|home| home.join(place))) else { continue };
        if let Some(text) = files::read(name, &path).await? {
            profiles.add(layout, text.expose());
        }
    }
    Ok(profiles)
}

async fn carry_out(ask: &Ask<'_>, plan: Plan) -> Result<Keys, CloudError> {
    let mut keys = match plan.base {
        Base::Keys(keys) => keys,
        Base::WebIdentity { role, file } => web::with_file(ask, &role.named_by, &file, &role).await?,
        Base::Process { command, named_by } => process::keys(ask, &named_by, &command).await?,
        Base::Environment => match environment::keys(ask.settings)? {
            Found::Keys(keys) => keys,
            Found::Nothing(looked) => return Err(CloudError::NoIdentity { looked, hint: String::new() }),
        },
        Base::Container => container::required(ask).await?,
        Base::Instance => imds::required(ask).await?,
    };
    for role in &plan.roles {
        keys = sts::assume(ask, role, &keys).await?;
    }
    Ok(keys)
}
