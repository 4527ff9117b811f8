//! Providers that act for a pod's service account.
//!
//! Source of truth: KEP-4412; kubernetes `pkg/credentialprovider/plugin/plugin.go`.
//! Invariant: `accounts_are_judged_before_a_token_is_made`.

use std::collections::BTreeMap;

/// What an answer for a service account is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenCacheType {
    /// The account.
    ServiceAccount,
    /// This very token.
    Token,
}

/// How a provider wants service accounts to vouch for themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAttributes {
    /// The one audience of the token.
    pub audience: String,
    /// What an answer is bound to.
    pub cache_type: TokenCacheType,
    /// Whether the provider is left alone where there is no account.
    pub require_service_account: bool,
    /// Annotations of the account without which the provider is left alone.
    pub required_annotations: Vec<String>,
    /// Annotations that are passed on where they exist.
    pub optional_annotations: Vec<String>,
}

/// Whether, and with what, a provider is asked for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountDecision {
    /// With a token of the account and these of its annotations.
    WithToken {
        /// The annotations.
        annotations: BTreeMap<String, String>,
    },
    /// Without a token.
    WithoutToken,
    /// Not at all.
    Skip {
        /// Why.
        why: String,
    },
}

/// Decides by the annotations of the pod's account; `None`: there is no pod, or it has no account.
pub fn judge_account(wants: &TokenAttributes, annotations: Option<&BTreeMap<String, String>>) -> AccountDecision {
    let Some(annotations) = annotations else {
        return if wants.require_service_account {
            AccountDecision::Skip { why: "it acts for service accounts only, and there is none here".to_owned() }
        } else {
            AccountDecision::WithoutToken
        };
    };
    let missing = wants.required_annotations.iter().find(|name| !annotations.contains_key(*name));
    if let Some(missing) = missing {
        return AccountDecision::Skip { why: format!("the service account lacks the annotation {missing}") };
    }
    let passed = wants.required_annotations.iter().chain(&wants.optional_annotations);
    let found = passed.filter_map(|name| annotations.get(name).map(|value| (name.clone(), value.clone())));
    AccountDecision::WithToken { annotations: found.collect() }
}

/// Whether a text is a qualified name, `[prefix/]name`, as annotations have; upper case is folded before.
pub(super) fn is_qualified_name(text: &str) -> bool {
    let folded = text.to_ascii_lowercase();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let is_name = |name: &str| {
        let bytes = name.as_bytes();
        bytes.len() <= 63
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
    };
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    match folded.split_once('/') {
        Some((prefix, name)) => prefix.len() <= 253 && prefix.split('.').all(is_label) && is_name(name),
        None => is_name(&folded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_judged_before_a_token_is_made() {
        let wants = |require, required: &[&str]| TokenAttributes {
            audience: "a".to_owned(),
            cache_type: TokenCacheType::Token,
            require_service_account: require,
            required_annotations: required.iter().map(|s| (*s).to_owned()).collect(),
            optional_annotations: vec!["o".to_owned()],
        };
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let skip = |why: &str| AccountDecision::Skip { why: why.to_owned() };
        let with = |pairs: &[(&str, &str)]| AccountDecision::WithToken { annotations: map(pairs) };
        let none = skip("it acts for service accounts only, and there is none here");
        let table = [
            (wants(true, &[]), None, none),
            (wants(false, &[]), None, AccountDecision::WithoutToken),
            (wants(true, &[]), Some(map(&[("x", "1")])), with(&[])),
            (wants(true, &["r"]), Some(map(&[("o", "1")])), skip("the service account lacks the annotation r")),
            (wants(true, &["r"]), Some(map(&[("r", ""), ("o", "1"), ("x", "2")])), with(&[("r", ""), ("o", "1")])),
        ];
        for (wants, annotations, decision) in table {
            assert_eq!(judge_account(&wants, annotations.as_ref()), decision, "{wants:?} {annotations:?}");
        }
    }

    #[test]
    fn annotation_names_are_qualified_names() {
        for good in ["a", "A/b", "x.io/B_c.d-e", "1", "eks.amazonaws.com/ecr-role-arn"] {
            assert!(is_qualified_name(good), "{good}");
        }
        for bad in ["", "/a", "a/", "-a", "a b", "a/b/c", "x..y/a", "x_y/a", &"a".repeat(64)] {
            assert!(!is_qualified_name(bad), "{bad}");
        }
    }
}
