//! The list of repositories whose images may be used without verification.
//!
//! In: the patterns of `preloadedImagesVerificationAllowlist`. Out: whether an image is on the list.
//! Source of truth: kubernetes `pkg/kubelet/images/pullmanager/image_pull_policies.go`.
//!
//! Invariant: `a_prefix_never_reaches_a_neighbour`.

use crate::reason::Reason;
use crate::reference::Reference;

/// A checked list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// A whole repository.
    Repository(Box<str>),
    /// Everything that starts with this text, which ends in `/`.
    Prefix(Box<str>),
}

/// What is wrong with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternFault {
    /// White space at an end.
    #[error("white space before or after it is not allowed")]
    Spaces,
    /// Nothing there.
    #[error("it is empty")]
    Short,
    /// A `*` elsewhere than in a final `/*`.
    #[error("a wildcard is allowed only as /* at the end")]
    WildcardPosition,
    /// Only `/*`.
    #[error("at least a registry is needed before /*")]
    NoRegistry,
    /// Not an image name.
    #[error("it is not an image name")]
    NotAnImageName,
    /// A short name, a tag or a digest.
    #[error("it must be a full repository such as docker.io/library/busybox, without tag and digest")]
    NotFullyQualified,
}

/// A list that is refused as a whole for one of its patterns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("preloadedImagesVerificationAllowlist[{index}] {pattern:?}: {fault}")]
pub struct AllowListError {
    /// Its position, from 0.
    pub index: usize,
    /// The pattern as written.
    pub pattern: String,
    /// The rule it breaks.
    pub fault: PatternFault,
}

impl AllowListError {
    /// Always [`Reason::InvalidConfig`].
    pub fn reason(&self) -> Reason {
        Reason::InvalidConfig
    }
}

impl AllowList {
    /// Checks every pattern.
    ///
    /// # Errors
    /// [`AllowListError`] for the first bad one; the whole list is then invalid.
    pub fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<AllowList, AllowListError> {
        let parse = |(index, pattern): (usize, &S)| {
            let pattern = pattern.as_ref();
            parse_pattern(pattern).map_err(|fault| AllowListError { index, pattern: pattern.to_owned(), fault })
        };
        patterns.iter().enumerate().map(parse).collect::<Result<_, _>>().map(|patterns| AllowList { patterns })
    }

    /// Whether the image's repository is on the list; tag and digest do not matter, case and port do.
    pub fn contains(&self, image: &Reference) -> bool {
        let repository = image.repository();
        self.patterns.iter().any(|pattern| match pattern {
            Pattern::Repository(name) => **name == *repository,
            Pattern::Prefix(prefix) => repository.starts_with(&**prefix),
        })
    }
}

fn parse_pattern(pattern: &str) -> Result<Pattern, PatternFault> {
    if pattern.trim() != pattern {
        return Err(PatternFault::Spaces);
    }
    // The slash stays: it keeps `org/*` from covering `organisation/app`.
    let prefix = pattern.strip_suffix('*').filter(|prefix| prefix.ends_with('/'));
    let text = prefix.unwrap_or(pattern);
    if text.is_empty() {
        return Err(PatternFault::Short);
    }
    if text.contains('*') {
        return Err(PatternFault::WildcardPosition);
    }
    match prefix {
        Some("/") => Err(PatternFault::NoRegistry),
        Some(prefix) => Ok(Pattern::Prefix(prefix.into())),
        None => {
            let reference = Reference::parse(text).map_err(|_| PatternFault::NotAnImageName)?;
            let is_repository = reference.repository() == text;
            is_repository.then(|| Pattern::Repository(text.into())).ok_or(PatternFault::NotFullyQualified)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_prefix_never_reaches_a_neighbour(org in "[a-z]{1,6}", more in "[a-z]{1,6}", app in "[a-z]{1,6}") {
            let list = AllowList::parse(&[format!("r.example/{org}/*")]).map_err(|e| TestCaseError::fail(e.to_string()))?;
            let image = |text: String| Reference::parse(&text).map_err(|e| TestCaseError::fail(e.to_string()));
            let inside = image(format!("r.example/{org}/{app}:1"))?;
            let neighbour = image(format!("r.example/{org}{more}/{app}:1"))?;
            prop_assert!(list.contains(&inside));
            prop_assert!(!list.contains(&neighbour));
        }
    }
}
