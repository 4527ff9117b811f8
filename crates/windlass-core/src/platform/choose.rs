//! Which entry of an index fits a platform, best first.

use super::{OFFERED_SHOWN_MAX, Platform, PlatformError, windows};
use crate::manifest::{Descriptor, ImageConfig, Index};

/// What BuildKit puts on entries that describe another entry.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// The value of [`REFERENCE_TYPE`] on attestations.
const ATTESTATION: &str = "attestation-manifest";

/// Whether code of another word size may be chosen where nothing better is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fallback {
    /// Never: the kubelet does not want it silently.
    #[default]
    SameWordSize,
    /// 386 on amd64, 32-bit arm on arm64, after everything else.
    ThirtyTwoBit,
}

/// What is looked for in an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The platform, normalised.
    pub platform: Platform,
    /// The x86-64 level of the host, where it is known and amd64 was asked for without a variant.
    pub host_amd64_level: Option<u8>,
    /// Whether 32-bit code will do.
    pub fallback: Fallback,
}

impl Wanted {
    /// Exactly this platform and what it is known to run.
    pub fn new(platform: &Platform) -> Wanted {
        Wanted { platform: platform.normalised(), host_amd64_level: None, fallback: Fallback::SameWordSize }
    }

    /// What was asked for by hand on a host: without a variant, amd64 takes any level that the host runs.
    pub fn on_host(platform: &Platform, host: &Platform) -> Wanted {
        let level = match (platform.architecture.as_str(), host.architecture.as_str()) {
            ("amd64", "amd64") if platform.variant.is_none() => amd64_variant(host.variant.as_deref()),
            _ => None,
        };
        Wanted { host_amd64_level: level, ..Wanted::new(platform) }
    }

    /// The same, with 32-bit code as the last resort.
    #[must_use]
    pub fn or_thirty_two_bit(self) -> Wanted {
        Wanted { fallback: Fallback::ThirtyTwoBit, ..self }
    }

    /// How well a platform fits: 0 is best, `None` does not fit.
    pub fn rank(&self, offered: &Platform) -> Option<usize> {
        let offered = offered.normalised();
        let wanted = &self.platform;
        let features_fit = offered.os_features.iter().all(|feature| wanted.os_features.contains(feature));
        let version_fits =
            wanted.os != "windows" || windows::runs_on(wanted.os_version.as_deref(), offered.os_version.as_deref());
        if offered.os != wanted.os || !features_fit || !version_fits {
            return None;
        }
        let found = (offered.architecture.as_str(), offered.variant.as_deref().unwrap_or(""));
        self.preferences().iter().position(|(architecture, variant)| (*architecture, variant.as_str()) == found)
    }

    /// Architecture and variant, best first. An empty variant is the base one.
    fn preferences(&self) -> Vec<(&str, String)> {
        let wanted = &self.platform;
        let variant = wanted.variant.as_deref();
        let exact = || (wanted.architecture.as_str(), variant.unwrap_or("").to_owned());
        let mut list = match wanted.architecture.as_str() {
            "amd64" => match (amd64_variant(variant), self.host_amd64_level) {
                (Some(1), Some(host)) => {
                    let better = (2..=host.min(4)).rev().map(|level| ("amd64", format!("v{level}")));
                    std::iter::once(exact()).chain(better).collect()
                }
                (Some(level), _) => (1..=level).rev().map(|level| ("amd64", amd64_name(level))).collect(),
                (None, _) => vec![exact()],
            },
            "arm64" => {
                arm64_variants(variant).unwrap_or_else(|| vec![exact().1]).into_iter().map(|v| ("arm64", v)).collect()
            }
            "arm" => arm_variants(variant).unwrap_or_else(|| vec![exact().1]).into_iter().map(|v| ("arm", v)).collect(),
            _ => vec![exact()],
        };
        match (self.fallback, wanted.architecture.as_str()) {
            (Fallback::ThirtyTwoBit, "amd64") => list.push(("386", String::new())),
            (Fallback::ThirtyTwoBit, "arm64") => list.extend([8, 7, 6, 5].map(|n| ("arm", format!("v{n}")))),
            (Fallback::ThirtyTwoBit | Fallback::SameWordSize, _) => {}
        }
        list
    }
}

fn amd64_variant(variant: Option<&str>) -> Option<u8> {
    match variant {
        None => Some(1),
        Some("v2") => Some(2),
        Some("v3") => Some(3),
        Some("v4") => Some(4),
        Some(_) => None,
    }
}

fn amd64_name(level: u8) -> String {
    if level == 1 { String::new() } else { format!("v{level}") }
}

/// v9.x runs v9 downwards and then v8.(x+5) downwards; v8 is the base.
fn arm64_variants(variant: Option<&str>) -> Option<Vec<String>> {
    let (major, minor) = match variant {
        None => (8, 0),
        Some(variant) => {
            let (major, minor) =
                variant.strip_prefix('v')?.split_once('.').unwrap_or((variant.strip_prefix('v')?, "0"));
            (major.parse::<u8>().ok()?, minor.parse::<u8>().ok().filter(|minor| *minor <= 20)?)
        }
    };
    let v8 = |minor: u8| if minor == 0 { String::new() } else { format!("v8.{minor}") };
    let v9 = |minor: u8| if minor == 0 { "v9".to_owned() } else { format!("v9.{minor}") };
    match major {
        8 => Some((0..=minor).rev().map(v8).collect()),
        9 => Some((0..=minor).rev().map(v9).chain((0..=minor + 5).rev().map(v8)).collect()),
        _ => None,
    }
}

fn arm_variants(variant: Option<&str>) -> Option<Vec<String>> {
    let newest: u8 = variant.unwrap_or("v7").strip_prefix('v')?.parse().ok()?;
    (5..=8).contains(&newest).then(|| (5..=newest).rev().map(|n| format!("v{n}")).collect())
}

/// One entry of an index that may be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The entry.
    pub descriptor: &'a Descriptor,
    /// The entry names no platform: whether it fits is decided by its config (or, for an index, by its entries).
    pub unnamed: bool,
}

/// Every entry that may fit, best first: by preference, then in the order of the index; entries that name no
/// platform last. Attestations, `unknown/unknown` and unknown media types are left out.
pub fn rank<'a>(index: &'a Index, wanted: &Wanted) -> Vec<Candidate<'a>> {
    let mut ranked: Vec<(usize, Candidate<'a>)> = images(index)
        .filter_map(|descriptor| {
            let rank = match &descriptor.platform {
                Some(platform) => wanted.rank(platform)?,
                None => usize::MAX,
            };
            Some((rank, Candidate { descriptor, unnamed: descriptor.platform.is_none() }))
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, candidate)| candidate).collect()
}

/// The best entry.
///
/// # Errors
/// [`PlatformError::NoMatch`] with what is offered; [`PlatformError::Unverifiable`] if the only fitting entry is
/// addressed by an unknown hash.
pub fn choose<'a>(index: &'a Index, wanted: &Wanted) -> Result<Candidate<'a>, PlatformError> {
    if let Some(best) = rank(index, wanted).into_iter().next() {
        return Ok(best);
    }
    let fits = |platform: &Option<Platform>| platform.as_ref().is_some_and(|p| wanted.rank(p).is_some());
    if let Some(entry) = index.unverifiable.iter().find(|entry| fits(&entry.platform)) {
        return Err(PlatformError::Unverifiable {
            wanted: Box::new(wanted.platform.clone()),
            digest: entry.digest.clone(),
        });
    }
    Err(no_match(index, wanted))
}

/// The error that lists what an index offers.
pub(crate) fn no_match(index: &Index, wanted: &Wanted) -> PlatformError {
    let mut offered: Vec<Platform> = Vec::new();
    let mut more = 0;
    let mut seen = std::collections::BTreeSet::new();
    for platform in images(index).filter_map(|descriptor| descriptor.platform.as_ref()) {
        let platform = platform.normalised();
        if !seen.insert(platform.clone()) {
            continue;
        }
        if offered.len() < OFFERED_SHOWN_MAX {
            offered.push(platform);
        } else {
            more += 1;
        }
    }
    PlatformError::NoMatch { wanted: Box::new(wanted.platform.clone()), offered, more }
}

fn images(index: &Index) -> impl Iterator<Item = &Descriptor> {
    index.entries.iter().filter(|entry| {
        let is_attestation = entry.annotations.get(REFERENCE_TYPE).is_some_and(|kind| kind == ATTESTATION);
        let is_unknown = entry.platform.as_ref().is_some_and(|platform| platform.normalised().is_unknown());
        entry.is_document() && !is_attestation && !is_unknown
    })
}

/// How an image's config compares with what was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigVerdict {
    /// It fits.
    Fits,
    /// The right system on another processor: pulled with a warning, refused in strict mode and for index entries
    /// that name no platform.
    OtherProcessor(Platform),
}

/// Judges an image by its config, where no index entry named its platform.
///
/// # Errors
/// [`PlatformError::OtherSystem`] if it is for another operating system.
pub fn judge_config(wanted: &Wanted, config: &ImageConfig) -> Result<ConfigVerdict, PlatformError> {
    let found = config.platform();
    match wanted.rank(&found) {
        Some(_) => Ok(ConfigVerdict::Fits),
        None if found.os == wanted.platform.os => Ok(ConfigVerdict::OtherProcessor(found)),
        None => Err(PlatformError::OtherSystem { wanted: Box::new(wanted.platform.clone()), found: Box::new(found) }),
    }
}

/// An index entry whose image says something else about itself: the warning `platform-lie`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("platform-lie: the index says {entry}, the image's config says {config}")]
pub struct PlatformLie {
    /// What the index says.
    pub entry: Platform,
    /// What the config says.
    pub config: Platform,
}

/// Compares system and architecture of an index entry with the config of its image.
pub fn lie(entry: &Platform, config: &ImageConfig) -> Option<PlatformLie> {
    let (entry, config) = (entry.normalised(), config.platform());
    let differs = entry.os != config.os || entry.architecture != config.architecture;
    differs.then_some(PlatformLie { entry, config })
}

#[cfg(test)]
mod tests;
