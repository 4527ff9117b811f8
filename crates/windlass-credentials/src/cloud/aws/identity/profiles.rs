//! Profiles: the shared files as data, and what a profile says to do. Pure.
//!
//! In: the texts of `credentials` and `config`. Out: a [`Plan`]: keys or whoever has them, then roles, innermost first.
//! Source of truth: "Shared config and credentials files" of the AWS SDKs reference guide.
//!
//! Invariants: `the_credentials_file_wins`, `roles_are_followed_to_the_keys`, `plans_that_lead_nowhere_are_named`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use windlass_core::secret::Secret;

use crate::cloud::CloudError;
use crate::cloud::aws::keys::Keys;
use crate::cloud::aws::sts::Role;

/// Longest way from a profile to its keys.
const ROLES_MAX: usize = 5;

/// How sections are named in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[name]`.
    Credentials,
    /// `[profile name]`, and `[default]`.
    Config,
}

/// All profiles.
#[derive(Clone, Debug, Default)]
pub(super) struct Profiles(BTreeMap<String, Profile>);

type Profile = BTreeMap<String, Secret<String>>;

/// Where keys are to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// Here.
    Keys(Keys),
    /// From the STS, for the token in a file.
    WebIdentity {
        /// The role.
        role: Role,
        /// The file.
        file: PathBuf,
    },
    /// From a program.
    Process {
        /// Its command line.
        command: String,
        /// Who names it.
        named_by: String,
    },
    /// From variables.
    Environment,
    /// From the container's endpoint.
    Container,
    /// From the instance.
    Instance,
}

/// What a profile says to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The first step.
    pub(super) base: Base,
    /// Roles to assume one after the other.
    pub(super) roles: Vec<Role>,
}

impl Profiles {
    /// Adds a file. What is there already stays: read `credentials` first.
    pub(super) fn add(&mut self, layout: Layout, text: &str) {
        let mut section: Option<String> = None;
        for line in text.lines() {
            // An indented line belongs to a nested setting, of which none is read.
            if line.trim().is_empty() || line.starts_with([' ', '\t', '#', ';']) {
                continue;
            }
            let line = without_comment(line);
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                section = profile_name(layout, name);
                if let Some(name) = &section {
                    self.0.entry(name.clone()).or_default();
                }
            } else if let (Some(name), Some((key, value))) = (&section, line.split_once('=')) {
                let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
                if let Some(profile) = self.0.get_mut(name)
                    && !value.is_empty()
                {
                    profile.entry(key).or_insert_with(|| Secret::from(value));
                }
            }
        }
    }

    /// Whether there is a profile of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// What the profile says to do; `None`: it says nothing about keys.
    ///
    /// # Errors
    /// [`CloudError::Settings`] names the profile that leads nowhere.
    pub(super) fn plan(&self, start: &str) -> Result<Option<Plan>, CloudError> {
        let (mut name, mut roles) = (start, Vec::new());
        loop {
            let Some(profile) = self.0.get(name) else { return Err(wrong(name, "does not exist")) };
            let done = |base: Base, mut roles: Vec<Role>| {
                roles.reverse();
                Ok(Some(Plan { base, roles }))
            };
            // Keys of a profile that others lead to count more than its own role.
            let keys = keys(name, profile)?;
            match (keys, get(profile, "role_arn")) {
                (Some(keys), None) => return done(Base::Keys(keys), roles),
                (Some(keys), Some(_)) if !roles.is_empty() => return done(Base::Keys(keys), roles),
                (keys, Some(arn)) => {
                    let role = role(name, profile, arn)?;
                    let (file, source) = (get(profile, "web_identity_token_file"), get(profile, "source_profile"));
                    match (file, source, get(profile, "credential_source")) {
                        (Some(file), None, None) => {
                            return done(Base::WebIdentity { role, file: PathBuf::from(file) }, roles);
                        }
                        (None, Some(next), None) => {
                            roles.push(role);
                            match keys {
                                Some(keys) if next == name => return done(Base::Keys(keys), roles),
                                _ if roles.len() > ROLES_MAX => return Err(wrong(start, "leads round in a circle")),
                                _ => name = next,
                            }
                        }
                        (None, None, Some(source)) => {
                            roles.push(role);
                            return done(credential_source(name, source)?, roles);
                        }
                        (None, None, None) => return Err(wrong(name, "has a role_arn, but no source_profile")),
                        _ => return Err(wrong(name, "has more than one source for its role")),
                    }
                }
                (None, None) => {
                    if let Some(command) = get(profile, "credential_process") {
                        let (command, named_by) = (command.to_owned(), title(name));
                        return done(Base::Process { command, named_by }, roles);
                    }
                    if profile.keys().any(|key| key.starts_with("sso_")) {
                        return Err(wrong(name, "logs in by IAM Identity Center, which is for people"));
                    }
                    return if roles.is_empty() { Ok(None) } else { Err(wrong(name, "has no keys")) };
                }
            }
        }
    }
}

fn get<'a>(profile: &'a Profile, key: &str) -> Option<&'a str> {
    profile.get(key).map(|value| value.expose().as_str())
}

fn title(name: &str) -> String {
    format!("the profile {name}")
}

fn wrong(name: &str, problem: &str) -> CloudError {
    CloudError::Settings { what: title(name), problem: problem.to_owned() }
}

fn profile_name(layout: Layout, section: &str) -> Option<String> {
    let section = section.trim();
    let name = match layout {
        Layout::Credentials => Some(section),
        Layout::Config if section == "default" => Some(section),
        Layout::Config => section.strip_prefix("profile").filter(|rest| rest.starts_with([' ', '\t'])).map(str::trim),
    };
    name.filter(|name| !name.is_empty()).map(|name| name.trim_matches('"').to_owned())
}

/// A comment after a value begins with a blank.
fn without_comment(line: &str) -> &str {
    let cut = [" #", " ;", "\t#", "\t;"].iter().filter_map(|mark| line.find(mark)).min();
    line[..cut.unwrap_or(line.len())].trim_end()
}

fn keys(name: &str, profile: &Profile) -> Result<Option<Keys>, CloudError> {
    let token = get(profile, "aws_session_token").map(Secret::from);
    match (get(profile, "aws_access_key_id"), get(profile, "aws_secret_access_key")) {
        (Some(id), Some(secret)) => Ok(Some(Keys {
            access_key_id: id.to_owned(),
            secret: Secret::from(secret),
            session_token: token,
            expires: None,
            source: title(name),
        })),
        (Some(_), None) => Err(wrong(name, "has an aws_access_key_id, but no aws_secret_access_key")),
        (None, Some(_)) => Err(wrong(name, "has an aws_secret_access_key, but no aws_access_key_id")),
        (None, None) => Ok(None),
    }
}

fn role(name: &str, profile: &Profile, arn: &str) -> Result<Role, CloudError> {
    if profile.contains_key("mfa_serial") {
        return Err(wrong(name, "has an mfa_serial: nobody is here to type a code"));
    }
    let own = |key: &str| get(profile, key).map(str::to_owned);
    Ok(Role {
        arn: arn.to_owned(),
        named_by: title(name),
        session_name: own("role_session_name"),
        external_id: get(profile, "external_id").map(Secret::from),
        duration_seconds: own("duration_seconds").filter(|text| text.bytes().all(|b| b.is_ascii_digit())),
        region: own("region"),
    })
}

fn credential_source(name: &str, source: &str) -> Result<Base, CloudError> {
    match source.to_ascii_lowercase().as_str() {
        "environment" => Ok(Base::Environment),
        "ecscontainer" => Ok(Base::Container),
        "ec2instancemetadata" => Ok(Base::Instance),
        _ => Err(wrong(name, "has a credential_source that is none of Environment, EcsContainer, Ec2InstanceMetadata")),
    }
}

#[cfg(test)]
mod tests;
