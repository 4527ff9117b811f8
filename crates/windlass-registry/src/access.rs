//! Who may do what with which repository. Pure.
//!
//! In: the rules, an identity, a repository, an action. Out: yes or no.
//! A rule lists subjects, repository patterns and actions. Rules have no order: for each action the most
//! specific pattern that matches decides, and on a tie a refusing rule wins. Without a matching rule: no.
//! A user also has the rights of `anonymous`.
//!
//! Invariants: `the_most_specific_pattern_decides_and_deny_wins_a_tie`, `nobody_may_anything_without_a_rule`.

use std::collections::BTreeSet;
use std::str::FromStr;

pub use windlass_core::scope::Action;

/// Who is asking, as far as the rules are concerned.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// Nobody in particular.
    Anonymous,
    /// A user who proved it.
    User(String),
}

impl Identity {
    /// The user's name.
    pub fn name(&self) -> Option<&str> {
        match self {
            Identity::Anonymous => None,
            Identity::User(name) => Some(name),
        }
    }
}

/// Whom a rule is about. Written `anonymous`, `authenticated` or `user:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Everybody, users included.
    Anonymous,
    /// Every user.
    Authenticated,
    /// One user.
    User(String),
}

impl Subject {
    fn matches(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (Subject::Anonymous, _) => true,
            (Subject::Authenticated, Identity::User(_)) => true,
            (Subject::User(want), Identity::User(name)) => want == name,
            (Subject::Authenticated | Subject::User(_), Identity::Anonymous) => false,
        }
    }
}

/// Why a text is not a subject or a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// Neither `anonymous` nor `authenticated` nor `user:NAME`.
    #[error("subject {0:?} is neither anonymous nor authenticated nor user:NAME")]
    Subject(String),
    /// Empty, or with an empty component.
    #[error("repository pattern {0:?} is empty or has an empty component")]
    Pattern(String),
}

impl FromStr for Subject {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Subject, RuleError> {
        match text {
            "anonymous" => Ok(Subject::Anonymous),
            "authenticated" => Ok(Subject::Authenticated),
            _ => match text.strip_prefix("user:") {
                Some(name) if !name.is_empty() => Ok(Subject::User(name.to_owned())),
                Some(_) | None => Err(RuleError::Subject(text.to_owned())),
            },
        }
    }
}

/// A pattern of repository names: `*` stands for any text within one component, `**` as a whole component for any
/// number of components, none included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// Whether a repository's name fits.
    pub fn matches(&self, repository: &str) -> bool {
        let pattern: Vec<&str> = self.0.split('/').collect();
        let name: Vec<&str> = repository.split('/').collect();
        components_match(&pattern, &name)
    }

    /// Number of characters that are not wildcards: more means more specific.
    fn weight(&self) -> usize {
        self.0.bytes().filter(|b| *b != b'*').count()
    }
}

impl FromStr for Pattern {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Pattern, RuleError> {
        if text.is_empty() || text.split('/').any(str::is_empty) {
            return Err(RuleError::Pattern(text.to_owned()));
        }
        Ok(Pattern(text.to_owned()))
    }
}

/// Dynamic programming over components, so that many `**` cost no more than their product with the name.
fn components_match(pattern: &[&str], name: &[&str]) -> bool {
    // reach[i]: the pattern read so far can have consumed the first i components of the name.
    let mut reach = vec![false; name.len() + 1];
    reach[0] = true;
    for part in pattern {
        let mut next = vec![false; name.len() + 1];
        if *part == "**" {
            let mut open = false;
            for (i, reached) in reach.iter().enumerate() {
                open |= *reached;
                next[i] = open;
            }
        } else {
            for i in 0..name.len() {
                next[i + 1] = reach[i] && component_matches(part.as_bytes(), name[i].as_bytes());
            }
        }
        reach = next;
    }
    reach[name.len()]
}

fn component_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            p = at + 1;
            t = from + 1;
            star = Some((at, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// Whether a rule gives or takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The subjects may.
    Allow,
    /// The subjects may not.
    Deny,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is about; any of them.
    pub subjects: Vec<Subject>,
    /// Which repositories; any of them.
    pub repositories: Vec<Pattern>,
    /// Which actions.
    pub actions: BTreeSet<Action>,
    /// Whether it gives or takes.
    pub effect: Effect,
}

impl Rule {
    /// Shorthand for a rule that allows, e.g. `Rule::allow(&["user:ci"], &["team/**"], &[Pull, Push])`.
    ///
    /// # Errors
    /// [`RuleError`] names the text that is wrong.
    pub fn allow(subjects: &[&str], repositories: &[&str], actions: &[Action]) -> Result<Rule, RuleError> {
        Ok(Rule {
            subjects: subjects.iter().map(|s| s.parse()).collect::<Result<_, _>>()?,
            repositories: repositories.iter().map(|p| p.parse()).collect::<Result<_, _>>()?,
            actions: actions.iter().copied().collect(),
            effect: Effect::Allow,
        })
    }

    /// The same rule, taking instead of giving.
    pub fn denied(self) -> Rule {
        Rule { effect: Effect::Deny, ..self }
    }

    fn concerns(&self, identity: &Identity, action: Action) -> bool {
        self.actions.contains(&action) && self.subjects.iter().any(|s| s.matches(identity))
    }
}

/// Every rule of a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Takes the rules; their order does not matter.
    pub fn new(rules: Vec<Rule>) -> Rules {
        Rules(rules)
    }

    /// Whether `identity` may do `action` with `repository`.
    pub fn allows(&self, identity: &Identity, repository: &str, action: Action) -> bool {
        let decisive = self
            .0
            .iter()
            .filter(|rule| rule.concerns(identity, action))
            .flat_map(|rule| rule.repositories.iter().map(move |pattern| (pattern, rule.effect)))
            .filter(|(pattern, _)| pattern.matches(repository))
            .map(|(pattern, effect)| (pattern.weight(), effect == Effect::Deny))
            .max();
        matches!(decisive, Some((_, false)))
    }

    /// What of `actions` `identity` may do with `repository`.
    pub fn granted(&self, identity: &Identity, repository: &str, actions: &BTreeSet<Action>) -> BTreeSet<Action> {
        actions.iter().copied().filter(|action| self.allows(identity, repository, *action)).collect()
    }

    /// Whether some rule gives anything at all to those who have not said who they are.
    pub fn know_anonymous(&self) -> bool {
        self.0.iter().any(|rule| rule.effect == Effect::Allow && rule.subjects.contains(&Subject::Anonymous))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Action::{Delete, Pull, Push};

    fn user(name: &str) -> Identity {
        Identity::User(name.to_owned())
    }

    #[test]
    fn the_most_specific_pattern_decides_and_deny_wins_a_tie() {
        let rule = |s: &[&str], r: &[&str], a: &[Action]| Rule::allow(s, r, a).expect("a rule");
        let rules = Rules::new(vec![
            rule(&["anonymous"], &["public/**"], &[Pull]),
            rule(&["user:a"], &["team-a/**"], &[Pull, Push]),
            rule(&["user:a"], &["team-a/frozen"], &[Push]).denied(),
            rule(&["user:b"], &["**"], &[Pull]),
            rule(&["user:b"], &["team-a/**"], &[Pull]).denied(),
            rule(&["user:b"], &["team-a/**"], &[Pull]),
            rule(&["user:b"], &["team-a/open-*"], &[Pull]),
            rule(&["authenticated"], &["shared"], &[Pull, Delete]),
        ]);
        let table = [
            (Identity::Anonymous, "public/x", Pull, true),
            (Identity::Anonymous, "public/x", Push, false),
            (Identity::Anonymous, "team-a/x", Pull, false),
            (Identity::Anonymous, "shared", Pull, false),
            (user("a"), "public/x/y", Pull, true),
            (user("a"), "team-a/x", Push, true),
            (user("a"), "team-a/frozen", Push, false),
            (user("a"), "team-a/frozen", Pull, true),
            (user("a"), "team-ab/x", Pull, false),
            (user("b"), "elsewhere", Pull, true),
            (user("b"), "team-a/x", Pull, false),
            (user("b"), "team-a/open-1", Pull, true),
            (user("c"), "shared", Delete, true),
            (user("c"), "team-a/x", Pull, false),
        ];
        for (who, repository, action, want) in table {
            assert_eq!(rules.allows(&who, repository, action), want, "{who:?} {action} {repository}");
        }
    }

    #[test]
    fn nobody_may_anything_without_a_rule() {
        for action in Action::ALL {
            assert!(!Rules::default().allows(&user("root"), "a", action));
        }
    }

    #[test]
    fn patterns_are_matched_by_component() {
        let table = [
            ("**", "a/b/c", true),
            ("*", "a", true),
            ("*", "a/b", false),
            ("a/**", "a", true),
            ("a/**", "a/b/c", true),
            ("a/**", "ab", false),
            ("**/x", "a/b/x", true),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/*/z", "a/z", false),
            ("te*m-*", "team-a", true),
            ("te*m-*", "team", false),
        ];
        for (pattern, name, want) in table {
            assert_eq!(pattern.parse::<Pattern>().expect("a pattern").matches(name), want, "{pattern} {name}");
        }
        assert!("".parse::<Pattern>().is_err() && "a//b".parse::<Pattern>().is_err());
        assert!("nobody".parse::<Subject>().is_err() && "user:".parse::<Subject>().is_err());
    }

    #[test]
    fn many_wildcards_stay_cheap() {
        let pattern: Pattern = vec!["**"; 60].join("/").parse().expect("a pattern");
        assert!(pattern.matches(&vec!["a"; 120].join("/")));
        let stars: Pattern = format!("{}b", "*a".repeat(60)).parse().expect("a pattern");
        assert!(!stars.matches(&"a".repeat(250)));
    }
}
