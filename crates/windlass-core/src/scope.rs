//! What a token is asked for: scopes, their union, and which scopes of a challenge are taken over.
//!
//! In: the repository at hand and the scopes a challenge names. Out: a [`ScopeSet`] in the order in which it is
//! sent, the repository's own scope first.
//! Source of truth: distribution `docs/content/spec/auth/scope.md`.
//!
//! Invariants: `placeholder_scopes_are_not_taken_over`, `print_then_parse_is_identity`,
//! `a_set_never_holds_a_resource_twice`.

use std::fmt;

/// Longest scope that is read; repository names have at most 255 bytes.
pub const MAX_SCOPE_BYTES: usize = 1024;
/// Most scopes of one token request: two repositories for a mount, and what a challenge adds.
pub const MAX_SCOPES: usize = 8;

/// What may be done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Read manifests, blobs and tags.
    Pull,
    /// Upload blobs and write manifests and tags.
    Push,
    /// Delete manifests, tags and blobs.
    Delete,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 3] = [Action::Pull, Action::Push, Action::Delete];

    /// The word in a scope.
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Pull => "pull",
            Action::Push => "push",
            Action::Delete => "delete",
        }
    }

    /// Reads the word of a scope.
    pub fn parse(word: &str) -> Option<Action> {
        Action::ALL.into_iter().find(|action| action.as_str() == word)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One scope: `type:name:actions`, or a word of a registry's own such as `aws`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Everything before the actions, e.g. `repository:library/nginx`; the whole text of an own word.
    resource: String,
    /// The actions in the order first seen; empty for an own word.
    actions: Vec<String>,
}

impl Scope {
    /// The scope for actions on a repository, `path` being the name without host.
    pub fn repository(path: &str, actions: &[Action]) -> Scope {
        let mut scope = Scope { resource: format!("repository:{path}"), actions: Vec::new() };
        scope.add_actions(actions.iter().map(|action| action.as_str()));
        scope
    }

    /// Reads one scope. `None` for a text that is empty, too long, or holds blanks, quotes or control characters.
    pub fn parse(text: &str) -> Option<Scope> {
        let fits = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        if text.is_empty() || text.len() > MAX_SCOPE_BYTES || !text.bytes().all(fits) {
            return None;
        }
        // The name may hold a colon (a host with port), the type and the actions may not.
        let (resource, actions) = match text.rsplit_once(':') {
            Some((resource, actions)) if resource.contains(':') && !actions.is_empty() => (resource, actions),
            _ => (text, ""),
        };
        let mut scope = Scope { resource: resource.to_owned(), actions: Vec::new() };
        scope.add_actions(actions.split(',').filter(|action| !action.is_empty()));
        if !actions.is_empty() && scope.actions.is_empty() {
            return None;
        }
        Some(scope)
    }

    /// The name, if the scope is for a repository (of any class).
    pub fn repository_name(&self) -> Option<&str> {
        let (kind, name) = self.resource.split_once(':')?;
        let kind = kind.split_once('(').map_or(kind, |(kind, _class)| kind);
        (kind == "repository").then_some(name)
    }

    fn add_actions<'a>(&mut self, actions: impl Iterator<Item = &'a str>) {
        for action in actions {
            if !self.actions.iter().any(|known| known == action) {
                self.actions.push(action.to_owned());
            }
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if self.actions.is_empty() { Ok(()) } else { write!(f, ":{}", self.actions.join(",")) }
    }
}

/// The scopes of one token request, in the order in which they are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ScopeSet {
    scopes: Vec<Scope>,
}

impl ScopeSet {
    /// A set that asks for nothing.
    pub fn new() -> ScopeSet {
        ScopeSet::default()
    }

    /// What a pull of a repository asks for from the start.
    pub fn pull(path: &str) -> ScopeSet {
        ScopeSet { scopes: vec![Scope::repository(path, &[Action::Pull])] }
    }

    /// What a push to a repository asks for; `mount_from` is another repository to read blobs of, and stands
    /// second because some servers read only the first scope.
    pub fn push(path: &str, mount_from: Option<&str>) -> ScopeSet {
        let mut set = ScopeSet { scopes: vec![Scope::repository(path, &[Action::Pull, Action::Push])] };
        if let Some(other) = mount_from {
            set.add(Scope::repository(other, &[Action::Pull]));
        }
        set
    }

    /// Joins a scope to the set: actions of a known resource are united.
    pub fn add(&mut self, scope: Scope) {
        if let Some(known) = self.scopes.iter_mut().find(|known| known.resource == scope.resource) {
            known.add_actions(scope.actions.iter().map(String::as_str));
        } else if self.scopes.len() < MAX_SCOPES {
            self.scopes.push(scope);
        }
    }

    /// Takes over what a challenge asks for, where it concerns the repository at hand or no repository at all.
    ///
    /// The challenge of `/v2/` often names a placeholder (`repository:user/image:pull` at GHCR); asking for that
    /// would be refused. Returns whether the set grew, i.e. whether a new token can help.
    pub fn widen<'a>(&mut self, challenge: impl IntoIterator<Item = &'a str>, path: &str) -> bool {
        let before = self.clone();
        for scope in challenge.into_iter().filter_map(Scope::parse) {
            if scope.repository_name().is_none_or(|name| name == path) {
                self.add(scope);
            }
        }
        *self != before
    }

    /// The scopes as texts, in sending order: one parameter each in a GET, joined by blanks in a POST.
    pub fn texts(&self) -> impl Iterator<Item = String> + '_ {
        self.scopes.iter().map(Scope::to_string)
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.scopes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn placeholder_scopes_are_not_taken_over() {
        let table: [(&[&str], &[&str]); 7] = [
            (&["repository:user/image:pull"], &["repository:org/app:pull"]),
            (&["repository:org/app:pull,push"], &["repository:org/app:pull,push"]),
            (&["aws"], &["repository:org/app:pull", "aws"]),
            (&["registry:catalog:*"], &["repository:org/app:pull", "registry:catalog:*"]),
            (&["repository(plugin):other:pull"], &["repository:org/app:pull"]),
            (&["", "a b", "\"", "a:b:,"], &["repository:org/app:pull"]),
            (&["repository:org/app:pull"], &["repository:org/app:pull"]),
        ];
        for (challenge, want) in table {
            let mut set = ScopeSet::pull("org/app");
            let grew = set.widen(challenge.iter().copied(), "org/app");
            let got: Vec<String> = set.texts().collect();
            assert_eq!(got, want, "{challenge:?}");
            assert_eq!(grew, want != ["repository:org/app:pull"], "{challenge:?}");
        }
    }

    #[test]
    fn the_repository_that_matters_is_asked_first() {
        let set = ScopeSet::push("a/to", Some("z/from"));
        assert_eq!(set.texts().collect::<Vec<_>>(), ["repository:a/to:pull,push", "repository:z/from:pull"]);
        assert_eq!(ScopeSet::push("a", Some("a")).texts().collect::<Vec<_>>(), ["repository:a:pull,push"]);
    }

    #[test]
    fn a_name_may_hold_a_port() {
        let scope = Scope::parse("repository:host:5000/app:pull,push").expect("a scope");
        assert_eq!(scope.repository_name(), Some("host:5000/app"));
        assert_eq!(scope.actions, ["pull", "push"]);
    }

    proptest! {
        #[test]
        fn print_then_parse_is_identity(text in "[a-z]{1,8}(\\([a-z]{1,5}\\))?:[a-z0-9/]{1,12}:[a-z]{1,5}(,[A-Z]{1,5})?|[a-z]{1,8}") {
            prop_assert_eq!(Scope::parse(&text).map(|s| s.to_string()), Some(text));
        }

        #[test]
        fn a_set_never_holds_a_resource_twice(texts in prop::collection::vec("(repository:[ab]:(pull|push|delete)|.{0,20})", 0..20)) {
            let mut set = ScopeSet::new();
            for scope in texts.iter().filter_map(|text| Scope::parse(text)) {
                set.add(scope);
            }
            let mut resources: Vec<&String> = set.scopes.iter().map(|s| &s.resource).collect();
            resources.sort();
            resources.dedup();
            prop_assert_eq!(resources.len(), set.scopes.len());
            prop_assert!(set.scopes.len() <= MAX_SCOPES);
        }
    }
}
