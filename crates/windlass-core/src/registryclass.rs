//! Which cloud a registry belongs to, so that its own way of logging in can be used.
//!
//! In: an image reference. Out: one [`RegistryClass`]. The whole host is matched, folded to lower case, with no
//! port or 443; anything that merely looks like a cloud's host is [`RegistryClass::None`].
//! Source of truth: the patterns of cloud-provider-aws, -gcp and -azure, made stricter; the vectors
//! `credentials-registry-class.json`.
//!
//! Invariant: `a_lookalike_is_no_cloud`.

use crate::reference::Reference;

/// The kind of registry an image lives in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryClass {
    /// Amazon ECR, private.
    Ecr(Ecr),
    /// Amazon ECR Public.
    EcrPublic {
        /// The registry host.
        host: String,
    },
    /// Google Container Registry or Artifact Registry.
    Gcr {
        /// The registry host.
        host: String,
    },
    /// Azure Container Registry.
    Acr {
        /// The login server.
        host: String,
        /// The cloud, as `azure.json` names it.
        cloud: &'static str,
        /// The region of a regional endpoint.
        region: Option<String>,
    },
    /// No cloud with a login of its own.
    None {
        /// The host as written in the reference, in lower case, with its port.
        host: String,
    },
}

/// A private ECR registry, read from its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ecr {
    /// The registry host.
    pub host: String,
    /// Twelve digits.
    pub account: String,
    /// The region of the host, which is the one to ask.
    pub region: String,
    /// Whether the host is a FIPS one.
    pub fips: bool,
    /// The domain of the partition.
    pub suffix: &'static str,
}

/// The region in which ECR Public's API answers.
pub const ECR_PUBLIC_REGION: &str = "us-east-1";
/// The API of ECR Public.
pub const ECR_PUBLIC_ENDPOINT: &str = "https://api.ecr-public.us-east-1.amazonaws.com/";

/// Domains under which ECR hosts stand, and the domain of the API: `None` if it is the same one.
const ECR_SUFFIXES: [(&str, Option<&str>); 9] = [
    ("amazonaws.com", None),
    ("amazonaws.com.cn", None),
    ("amazonaws.eu", None),
    ("c2s.ic.gov", None),
    ("sc2s.sgov.gov", None),
    ("cloud.adc-e.uk", None),
    ("csp.hci.ic.gov", None),
    ("on.aws", Some("api.aws")),
    ("on.amazonwebservices.com.cn", Some("api.amazonwebservices.com.cn")),
];

const ACR_SUFFIXES: [(&str, &str); 4] = [
    ("azurecr.io", "AzurePublicCloud"),
    ("azurecr.cn", "AzureChinaCloud"),
    ("azurecr.us", "AzureUSGovernmentCloud"),
    ("azurecr.de", "AzureGermanCloud"),
];

impl Ecr {
    /// Where a token for this registry is asked for.
    pub fn api_endpoint(&self) -> String {
        let fips = if self.fips { "-fips" } else { "" };
        let dual_stack = ECR_SUFFIXES.iter().find(|(suffix, _)| *suffix == self.suffix).and_then(|(_, api)| *api);
        match dual_stack {
            Some(api) => format!("https://ecr{fips}.{}.{api}/", self.region),
            None => format!("https://api.ecr{fips}.{}.{}/", self.region, self.suffix),
        }
    }
}

/// The class of the registry of an image.
pub fn classify(reference: &Reference) -> RegistryClass {
    // The normalised host of index.docker.io/... is docker.io; people look for what they wrote.
    let written = reference.as_typed().split_once('/').map_or("", |(first, _)| first);
    let host = if written == "index.docker.io" { written } else { reference.host().as_str() };
    let host = host.to_ascii_lowercase();
    let name = match host.rsplit_once(':') {
        None => host.as_str(),
        Some((name, "443")) => name,
        Some(_) => return RegistryClass::None { host },
    };
    ecr(name)
        .or_else(|| fixed(name))
        .or_else(|| gcr(name))
        .or_else(|| acr(name))
        .unwrap_or(RegistryClass::None { host })
}

fn ecr(name: &str) -> Option<RegistryClass> {
    let (account, rest) = name.split_once('.')?;
    if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let rest = rest.strip_prefix("dkr.ecr").or_else(|| rest.strip_prefix("dkr-ecr"))?;
    let (fips, rest) = match rest.strip_prefix("-fips") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let (region, suffix) = rest.strip_prefix('.')?.split_once('.')?;
    let (suffix, _) = ECR_SUFFIXES.iter().find(|(known, _)| *known == suffix)?;
    is_label(region).then(|| {
        let (account, region) = (account.to_owned(), region.to_owned());
        RegistryClass::Ecr(Ecr { host: name.to_owned(), account, region, fips, suffix })
    })
}

fn fixed(name: &str) -> Option<RegistryClass> {
    let host = name.to_owned();
    match name {
        "public.ecr.aws" | "ecr-public.aws.com" => Some(RegistryClass::EcrPublic { host }),
        "gcr.io" | "container.cloud.google.com" => Some(RegistryClass::Gcr { host }),
        _ => None,
    }
}

fn gcr(name: &str) -> Option<RegistryClass> {
    let (first, rest) = name.split_once('.')?;
    (matches!(rest, "gcr.io" | "pkg.dev") && is_label(first)).then(|| RegistryClass::Gcr { host: name.to_owned() })
}

fn acr(name: &str) -> Option<RegistryClass> {
    let (registry, rest) = name.split_once('.')?;
    let (region, suffix) = match rest.split_once(".geo.") {
        Some((region, suffix)) => (Some(region.to_owned()), suffix),
        None => (None, rest),
    };
    let (_, cloud) = ACR_SUFFIXES.iter().find(|(known, _)| *known == suffix)?;
    let fits = is_label(registry) && region.as_deref().is_none_or(is_label);
    fits.then(|| RegistryClass::Acr { host: name.to_owned(), cloud, region })
}

/// Letters, digits and inner hyphens.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookalike_is_no_cloud() {
        let images = [
            "evil.io/123456789012.dkr.ecr.us-east-1.amazonaws.com/app",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.io/app",
            "123456789012.dkr.ecr.a.b.amazonaws.com/app",
            "xgcr.io/a/b",
            "a.b.pkg.dev/x/y",
            "-a.azurecr.io/x",
            "one.two.three.geo.azurecr.io/x",
            "one.azurecr.io:8443/x",
        ];
        for image in images {
            if let Ok(reference) = Reference::parse(image) {
                assert!(matches!(classify(&reference), RegistryClass::None { .. }), "{image}");
            }
        }
    }
}
