//! Reads `WWW-Authenticate` and chooses what to answer.
//!
//! In: the values of all header lines of a 401, in order. Out: every [`Challenge`], and the [`Selection`].
//! Source of truth: RFC 9110 section 11, made tolerant where registries are sloppy; the vectors
//! `credentials-www-authenticate.json`.
//!
//! Invariants: `nothing_makes_the_parser_panic`, `many_challenges_are_cut_off`.

/// Most challenges read from one answer; real registries send at most three.
pub const MAX_CHALLENGES: usize = 16;
/// Most parameters kept of one challenge; real ones have at most six.
pub const MAX_PARAMETERS: usize = 32;

/// One challenge: a scheme with parameters or with a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme in lower case.
    pub scheme: String,
    /// Parameters in order, names in lower case; of doubles the first counts.
    pub params: Vec<(String, String)>,
    /// The single token some schemes have instead of parameters.
    pub token68: Option<String>,
}

impl Challenge {
    /// The value of a parameter, by its lower-case name.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// What a Bearer challenge asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bearer {
    /// The token endpoint as it was sent; judge it with [`crate::realm`] before use. Never empty.
    pub realm: String,
    /// The service, or empty; then the parameter is left out of the request.
    pub service: String,
    /// The scopes, split at spaces.
    pub scopes: Vec<String>,
    /// The error word, e.g. `invalid_token` or `insufficient_scope`, or empty.
    pub error: String,
}

/// Which challenge to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Get a token from the realm.
    Bearer(Bearer),
    /// Send user name and password to the registry itself.
    Basic,
    /// Nothing that we can answer.
    Unsupported {
        /// The schemes that were offered, in lower case; a Bearer without realm is among them.
        schemes: Vec<String>,
    },
}

/// Every challenge of the header lines, in order. Never fails: what cannot be read ends its line.
pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut found = Vec::new();
    for line in lines {
        parse_line(line, &mut found);
    }
    found.truncate(MAX_CHALLENGES);
    found
}

/// The challenge to use: the first Bearer with a realm, else the first Basic.
pub fn select(challenges: &[Challenge]) -> Selection {
    let with_realm = |c: &&Challenge| c.scheme == "bearer" && c.param("realm").is_some_and(|r| !r.is_empty());
    if let Some(challenge) = challenges.iter().find(with_realm) {
        let text = |name: &str| challenge.param(name).unwrap_or_default().to_owned();
        return Selection::Bearer(Bearer {
            realm: text("realm"),
            service: text("service"),
            scopes: text("scope").split_ascii_whitespace().map(str::to_owned).collect(),
            error: text("error"),
        });
    }
    if challenges.iter().any(|c| c.scheme == "basic") {
        return Selection::Basic;
    }
    Selection::Unsupported { schemes: challenges.iter().map(|c| c.scheme.clone()).collect() }
}

fn parse_line(line: &str, found: &mut Vec<Challenge>) {
    let mut cursor = Cursor { rest: line };
    let first_of_line = found.len();
    while found.len() <= MAX_CHALLENGES {
        cursor.skip(|c| c == ',' || is_blank(c));
        let word = cursor.take(is_token);
        if word.is_empty() {
            return;
        }
        let blanks = cursor.skip(is_blank);
        if cursor.rest.starts_with('=') && found.len() > first_of_line {
            let Some(value) = cursor.value() else { return };
            // The challenge exists: one was read on this line.
            if let Some(challenge) = found.last_mut() {
                keep_parameter(challenge, word, value);
            }
        } else if cursor.rest.starts_with('=') {
            return;
        } else {
            let token68 = if blanks > 0 { cursor.token68() } else { None };
            found.push(Challenge { scheme: word.to_ascii_lowercase(), params: Vec::new(), token68 });
            continue;
        }
        cursor.skip(is_blank);
        if !cursor.rest.is_empty() && !cursor.rest.starts_with(',') {
            return;
        }
    }
}

fn keep_parameter(challenge: &mut Challenge, name: &str, value: String) {
    let name = name.to_ascii_lowercase();
    if challenge.params.len() < MAX_PARAMETERS && challenge.param(&name).is_none() {
        challenge.params.push((name, value));
    }
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// RFC 9110 `tchar`.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn skip(&mut self, wanted: impl Fn(char) -> bool) -> usize {
        self.take(wanted).len()
    }

    /// The value after `=`, spaces around it tolerated. `None` for a quote that is not closed.
    fn value(&mut self) -> Option<String> {
        self.rest = self.rest.strip_prefix('=')?;
        self.skip(is_blank);
        if let Some(quoted) = self.rest.strip_prefix('"') {
            let mut value = String::new();
            let mut chars = quoted.char_indices();
            while let Some((at, c)) = chars.next() {
                match c {
                    '"' => {
                        self.rest = &quoted[at + 1..];
                        return Some(value);
                    }
                    '\\' => value.push(chars.next()?.1),
                    _ => value.push(c),
                }
            }
            return None;
        }
        Some(self.take(|c| c != ',' && !is_blank(c)).to_owned())
    }

    /// A token that stands alone after the scheme, up to a comma or the end.
    fn token68(&mut self) -> Option<String> {
        let start = self.rest;
        self.take(|c| c.is_ascii_alphanumeric() || "-._~+/".contains(c));
        if self.rest.len() == start.len() {
            return None;
        }
        self.take(|c| c == '=');
        let token = &start[..start.len() - self.rest.len()];
        let after = self.rest.trim_start_matches(is_blank);
        if after.is_empty() || after.starts_with(',') {
            return Some(token.to_owned());
        }
        self.rest = start;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn odd_lines_are_read_as_far_as_they_make_sense() {
        let table: [(&str, &[(&str, usize)]); 6] = [
            ("Basic,Bearer realm=x", &[("basic", 0), ("bearer", 1)]),
            ("Bearer realm=\"a\\", &[("bearer", 0)]),
            (", ,Basic realm=x , , Digest a=b", &[("basic", 1), ("digest", 1)]),
            ("Bearer a=b c=d", &[("bearer", 1)]),
            ("Bearer = x", &[]),
            ("Negotiate abc==, NTLM", &[("negotiate", 0), ("ntlm", 0)]),
        ];
        for (line, want) in table {
            let got = parse([line]);
            let got: Vec<(&str, usize)> = got.iter().map(|c| (c.scheme.as_str(), c.params.len())).collect();
            assert_eq!(got, want, "{line}");
        }
    }

    #[test]
    fn many_challenges_are_cut_off() {
        let line = "Basic realm=a, ".repeat(1000);
        assert_eq!(parse([line.as_str(), line.as_str()]).len(), MAX_CHALLENGES);
        let wide: String = (0..1000).map(|i| format!("p{i}=v,")).collect();
        assert_eq!(parse([format!("Bearer {wide}").as_str()])[0].params.len(), MAX_PARAMETERS);
    }

    proptest! {
        #[test]
        fn nothing_makes_the_parser_panic(lines in prop::collection::vec(".{0,80}", 0..4)) {
            select(&parse(lines.iter().map(String::as_str)));
        }

        #[test]
        fn quoted_values_come_back(value in "[^\u{0}-\u{1f}]{0,30}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let got = parse([format!("Bearer realm=\"{quoted}\", service=s").as_str()]);
            prop_assert_eq!(got[0].param("realm"), Some(value.as_str()));
            prop_assert_eq!(got[0].param("service"), Some("s"));
        }
    }
}
