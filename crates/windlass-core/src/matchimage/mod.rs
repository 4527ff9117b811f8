//! Does a pattern of a provider's `matchImages`, or a key of `auths`, cover an image?
//!
//! In: two texts without scheme. Out: yes, no, or that one of them is no URL (which counts as no).
//! Source of truth: kubernetes `pkg/credentialprovider/keyring.go` (`URLsMatchStr`), Go's `net/url` and
//! `path/filepath` as of Go 1.27; the vectors `registry-match.json` and `credentials-matchimages.json`.
//!
//! Invariants: `nothing_makes_the_matcher_panic`, `a_star_stays_in_its_label`.

mod glob;
mod gourl;
mod trap;

pub use gourl::{GoUrl, GoUrlError};
pub use trap::trap;

/// Why a match could not be decided. It counts as no match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MatchError {
    /// The pattern is no URL, even with `https://` in front.
    #[error("the pattern is not a URL: {0}")]
    Pattern(GoUrlError),
    /// The image is no URL.
    #[error("the image is not a URL: {0}")]
    Image(GoUrlError),
    /// A label of the pattern is no valid glob.
    #[error("the pattern is not a valid glob")]
    Glob,
}

impl MatchError {
    /// The reason in the common vocabulary.
    pub const fn reason(&self) -> crate::reason::Reason {
        match self {
            MatchError::Pattern(_) | MatchError::Glob => crate::reason::Reason::InvalidConfig,
            MatchError::Image(_) => crate::reason::Reason::InvalidReference,
        }
    }
}

/// Whether `pattern` covers `image` (a repository, or a whole image name).
///
/// Ports must be equal as text, hosts must have the same number of labels, each label is a glob of its own, and
/// the pattern's path is a plain prefix of the image's path.
///
/// # Errors
/// [`MatchError`] where the kubelet's matcher reports one; treat it as no match.
pub fn matches(pattern: &str, image: &str) -> Result<bool, MatchError> {
    explain(pattern, image).map(|verdict| verdict == Verdict::Covers)
}

/// Which rule decides whether a pattern covers an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It does.
    Covers,
    /// The ports differ as texts; none is not 443.
    Port,
    /// The hosts have different numbers of labels; a star stays in its label.
    Labels,
    /// A label of the host differs.
    Host,
    /// The path of the image does not begin with the path of the pattern; stars do not count there.
    Path,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verdict::Covers => "covers the image",
            Verdict::Port => "has another port",
            Verdict::Labels => "has another number of parts in its host",
            Verdict::Host => "has another host",
            Verdict::Path => "has a path that the image's does not begin with",
        })
    }
}

/// As [`matches()`], naming the rule that decides: the first of port, number of labels, host, path that does not fit.
///
/// # Errors
/// As [`matches()`].
pub fn explain(pattern: &str, image: &str) -> Result<Verdict, MatchError> {
    let pattern = GoUrl::parse(&format!("https://{pattern}")).map_err(MatchError::Pattern)?;
    let image = GoUrl::parse(&format!("https://{image}")).map_err(MatchError::Image)?;
    let (pattern_host, pattern_port) = pattern.split_port();
    let (image_host, image_port) = image.split_port();
    let labels = |host: &[u8]| host.split(|b| *b == b'.').count();
    if pattern_port != image_port {
        return Ok(Verdict::Port);
    }
    if labels(pattern_host) != labels(image_host) {
        return Ok(Verdict::Labels);
    }
    // The kubelet looks at the path before the labels, so that a glob that is none counts only where the path fits.
    let path_fits = image.path.starts_with(&pattern.path[..]);
    for (glob, label) in pattern_host.split(|b| *b == b'.').zip(image_host.split(|b| *b == b'.')) {
        match glob::matches(glob, label) {
            Ok(true) => {}
            Ok(false) => return Ok(Verdict::Host),
            Err(_) if path_fits => return Err(MatchError::Glob),
            Err(_) => return Ok(Verdict::Path),
        }
    }
    Ok(if path_fits { Verdict::Covers } else { Verdict::Path })
}

/// Whether a pattern may stand in a provider's `matchImages`: it parses as a URL after `https://`.
///
/// # Errors
/// The way in which it does not parse.
pub fn check_pattern(pattern: &str) -> Result<(), GoUrlError> {
    GoUrl::parse(&format!("https://{pattern}")).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_stays_in_its_label() {
        let table = [
            ("*.b.c", "a.b.c/x", Ok(true)),
            ("*.c", "a.b.c/x", Ok(false)),
            ("a.b", "a.b:443/x", Ok(false)),
            ("a.b/t", "a.b/team/x", Ok(true)),
            ("a.b/*", "a.b/x", Ok(false)),
            ("[::1]:5000", "[::1]:5000/app", Ok(true)),
            ("a[b].c", "ab.c/x", Err(MatchError::Pattern(GoUrlError::Bracket))),
        ];
        for (pattern, image, want) in table {
            assert_eq!(matches(pattern, image), want, "{pattern} against {image}");
        }
    }

    #[test]
    fn the_rule_that_does_not_fit_is_named() {
        let table = [
            ("*.io/t", "r.io/team", Verdict::Covers),
            ("r.io:443", "r.io/a", Verdict::Port),
            ("*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.cn-north-1.amazonaws.com.cn/a", Verdict::Labels),
            ("*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr-fips.us-east-1.amazonaws.com/a", Verdict::Host),
            ("*.registry.io/*", "a.registry.io/b", Verdict::Path),
        ];
        for (pattern, image, want) in table {
            assert_eq!(explain(pattern, image), Ok(want), "{pattern} against {image}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_the_matcher_panic(pattern in ".{0,40}", image in ".{0,40}") {
            let _ = matches(&pattern, &image);
        }

        #[test]
        fn a_name_covers_itself(host in "[a-z0-9]{1,8}(\\.[a-z0-9]{1,8}){0,3}(:[0-9]{1,5})?", path in "(/[a-z0-9]{1,6}){0,3}") {
            let name = format!("{host}{path}");
            prop_assert_eq!(matches(&name, &name), Ok(true));
        }
    }
}
