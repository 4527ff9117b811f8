//! Which registry an image's login is for.
//!
//! Invariants: `a_mirror_rule_covers_whole_names_only`, `a_suffix_is_matched_as_a_whole`.

use windlass_core::reference::Reference;
use windlass_core::registryclass::{RegistryClass, classify};

use super::settings::AzureSettings;
use crate::cloud::CloudError;

/// A registry of Azure's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The login server, in lower case and without a port.
    pub(super) host: String,
    /// What the login is answered under: the image's own host as it was written, and the mirror's.
    pub(super) keys: Vec<String>,
    /// The cloud that the host's name tells.
    pub(super) cloud: Option<&'static str>,
    /// Whether the image is another registry's, which a rule of the operator sends here.
    pub(super) is_mirrored: bool,
}

/// `--registry-mirror`: images whose name begins so are found elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    source: String,
    target: String,
}

impl Mirror {
    /// Reads `source:target`, several separated by commas; blanks do not count.
    pub(super) fn parse(text: &str) -> Result<Vec<Mirror>, CloudError> {
        let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        let wrong = || CloudError::Settings {
            what: "--registry-mirror".to_owned(),
            problem: "must be SOURCE:TARGET, several separated by commas, without ports".to_owned(),
        };
        let is_name = |name: &str| Reference::parse(&format!("{name}/x")).is_ok_and(|r| r.as_typed().contains('.'));
        let one = |rule: &str| {
            let (source, target) = rule.split_once(':').filter(|(s, t)| is_name(s) && is_name(t)).ok_or_else(wrong)?;
            Ok(Mirror { source: source.to_owned(), target: target.to_owned() })
        };
        text.split(',').filter(|rule| !rule.is_empty()).map(one).collect()
    }

    /// The image as the mirror has it.
    fn rewritten(&self, image: &str) -> Option<Reference> {
        let rest = image.strip_prefix(&self.source).filter(|rest| rest.starts_with('/'))?;
        Reference::parse(&format!("{}{rest}", self.target)).ok()
    }
}

impl AzureSettings {
    /// The registry of an image; `None` if it is not Azure's. `own` is the suffix of a cloud that was asked for it.
    pub(super) fn target(&self, image: &Reference, own: Option<&str>) -> Option<Target> {
        let suffixes = || self.suffix.as_deref().into_iter().chain(own);
        let written = image.host().as_str().to_owned();
        let rule =
            self.mirrors.iter().filter_map(|mirror| Some((mirror.source.len(), mirror.rewritten(image.as_typed())?)));
        if let Some((_, mirrored)) = rule.max_by_key(|(length, _)| *length) {
            let (host, cloud) = registry(&mirrored, suffixes())?;
            return Some(Target { keys: vec![written, host.clone()], host, cloud, is_mirrored: true });
        }
        let (host, cloud) = registry(image, suffixes())?;
        Some(Target { keys: vec![written], host, cloud, is_mirrored: false })
    }
}

fn registry<'a>(
    image: &Reference,
    mut suffixes: impl Iterator<Item = &'a str>,
) -> Option<(String, Option<&'static str>)> {
    match classify(image) {
        RegistryClass::Acr { host, cloud, .. } => Some((host, Some(cloud))),
        RegistryClass::None { host } => {
            let name = host.strip_suffix(":443").unwrap_or(&host);
            suffixes.any(|suffix| is_under(name, suffix)).then(|| (name.to_owned(), None))
        }
        _ => None,
    }
}

/// Whether a host is a registry below a suffix: one label, or one with a region.
fn is_under(name: &str, suffix: &str) -> bool {
    let Some(front) = name.strip_suffix(suffix).and_then(|front| front.strip_suffix('.')) else { return false };
    let front = front.strip_suffix(".geo").map_or(Some(front), |front| {
        let (registry, region) = front.split_once('.')?;
        is_label(region).then_some(registry)
    });
    front.is_some_and(is_label)
}

/// A suffix of registries as it is written in files, with or without its dot; `None` if it is none.
pub(super) fn suffix(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let text = text.strip_prefix('.').unwrap_or(&text).to_owned();
    (text.contains('.') && text.split('.').all(is_label)).then_some(text)
}

fn is_label(text: &str) -> bool {
    let ends = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
    ends(text.chars().next())
        && ends(text.chars().next_back())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(mirrors: &str) -> AzureSettings {
        let mut settings = AzureSettings::from_environment(&|_| None).unwrap();
        settings.mirrors = Mirror::parse(mirrors).unwrap();
        settings.suffix = suffix(".azurecr.stack.example");
        settings
    }

    fn keys(settings: &AzureSettings, image: &str) -> Option<(String, Vec<String>, bool)> {
        let target = settings.target(&Reference::parse(image).unwrap(), None)?;
        Some((target.host, target.keys, target.is_mirrored))
    }

    #[test]
    fn a_mirror_rule_covers_whole_names_only() {
        let settings =
            with("mcr.microsoft.com: abc.azurecr.io, mcr.microsoft.com/aks:aks.azurecr.io/m, quay.io:b.example");
        let found = |host: &str, keys: &[&str], mirrored| {
            Some((host.to_owned(), keys.iter().map(|key| (*key).to_owned()).collect(), mirrored))
        };
        let table = [
            ("mcr.microsoft.com/a/b:1", found("abc.azurecr.io", &["mcr.microsoft.com", "abc.azurecr.io"], true)),
            ("mcr.microsoft.com/aks/b", found("aks.azurecr.io", &["mcr.microsoft.com", "aks.azurecr.io"], true)),
            ("mcr.microsoft.com/aksx/b", found("abc.azurecr.io", &["mcr.microsoft.com", "abc.azurecr.io"], true)),
            ("mcr.microsoft.com.evil.example/a", None),
            ("mcr.microsoft.com:8443/a", None),
            ("quay.io/a/b", None),
            ("abc.azurecr.io/a", found("abc.azurecr.io", &["abc.azurecr.io"], false)),
            ("nginx", None),
        ];
        for (image, want) in table {
            assert_eq!(keys(&settings, image), want, "{image}");
        }
        for wrong in ["a.example", "a.example:b.example:c.example", "a.example:", ":b.example", "plain:b.example"] {
            Mirror::parse(wrong).unwrap_err();
        }
        assert!(Mirror::parse("").unwrap().is_empty());
    }

    #[test]
    fn a_suffix_is_matched_as_a_whole() {
        let settings = with("");
        let host = |image: &str| keys(&settings, image).map(|(host, _, _)| host);
        let table = [
            ("team.azurecr.stack.example/a", Some("team.azurecr.stack.example")),
            ("Team.azurecr.stack.example:443/a", Some("team.azurecr.stack.example")),
            ("team.east.geo.azurecr.stack.example/a", Some("team.east.geo.azurecr.stack.example")),
            ("team.azurecr.stack.example:5000/a", None),
            ("azurecr.stack.example/a", None),
            ("a.b.azurecr.stack.example/a", None),
            ("xazurecr.stack.example/a", None),
            ("team.azurecr.stack.example.evil.example/a", None),
            ("evil.example/team.azurecr.stack.example/a", None),
        ];
        for (image, want) in table {
            assert_eq!(host(image).as_deref(), want, "{image}");
        }
        for wrong in ["", ".", "io", "..a.b", "a_b.c", "a/b.c"] {
            assert_eq!(suffix(wrong), None, "{wrong}");
        }
    }
}
