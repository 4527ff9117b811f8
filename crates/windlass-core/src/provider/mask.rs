//! What a program wrote to its standard error, made fit to be shown: secrets become `***`.
//!
//! What we know (the token of the request, values of its environment, passwords of its answer) is replaced wherever it
//! stands; beyond that whatever looks like one: a value behind a telling name, long mixed text such as a token.
//! Invariants: `no_secret_is_left_in_an_error_text`, `what_helps_an_operator_is_left`.

/// Most that is kept of the standard error of a program.
pub const STDERR_BYTES_MAX: usize = 8 * 1024;
/// Shorter values are no secrets; to replace them would garble the text.
const KNOWN_BYTES_MIN: usize = 4;
/// From this length on mixed text looks like a token.
const TOKEN_BYTES_MIN: usize = 20;

/// Names whose value is a secret whatever it looks like, in lower case, without signs.
const SECRET_NAMES: [&str; 5] = ["password", "passwd", "secret", "authorization", "apikey"];
/// Names whose value is a secret if it looks like one: errors speak of them, too.
const MAYBE_NAMES: [&str; 8] =
    ["token", "credential", "credentials", "signature", "assertion", "bearer", "basic", "accesskey"];

/// The text with secrets masked and control characters replaced; cut at [`STDERR_BYTES_MAX`].
pub fn mask<'a>(bytes: &[u8], known: impl IntoIterator<Item = &'a str>) -> String {
    let cut = bytes.len() > STDERR_BYTES_MAX;
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(STDERR_BYTES_MAX)]).into_owned();
    if cut {
        // Half a secret would not be recognised.
        text.truncate(text.rfind(char::is_whitespace).unwrap_or(0));
        text.push_str(" ...");
    }
    let mut known: Vec<&str> = known.into_iter().filter(|secret| secret.len() >= KNOWN_BYTES_MIN).collect();
    known.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
    for secret in known {
        text = text.replace(secret, "***");
    }
    let lines: Vec<String> = text.lines().map(mask_line).collect();
    lines.join("\n").trim().to_owned()
}

/// What the words before say about the next one.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    Free,
    /// Masked if it looks like a secret.
    Maybe,
    Secret,
}

fn mask_line(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut next = Next::Free;
    for piece in pieces(line) {
        if piece.starts_with(is_gap) {
            out.extend(piece.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }));
            // A name and its value are parted by at most a sign, quotes and blanks.
            if piece.chars().any(|c| !" \t:='\"".contains(c)) {
                next = Next::Free;
            }
            continue;
        }
        let name = plain(piece);
        if next == Next::Secret && name == "is" {
            out.push_str(piece);
            continue;
        }
        let is_scheme = name == "bearer" || name == "basic";
        let hide = match next {
            Next::Secret => !is_scheme,
            Next::Maybe => looks_secret(piece),
            Next::Free => false,
        };
        out.push_str(if hide || looks_like_a_token(piece) { "***" } else { piece });
        next = match next {
            Next::Secret if is_scheme => Next::Secret,
            Next::Free | Next::Maybe | Next::Secret if hide => Next::Free,
            Next::Free | Next::Maybe | Next::Secret => what_follows(&name),
        };
    }
    out
}

fn what_follows(name: &str) -> Next {
    if SECRET_NAMES.iter().any(|known| name.ends_with(known)) {
        Next::Secret
    } else if MAYBE_NAMES.iter().any(|known| name.ends_with(known)) {
        Next::Maybe
    } else {
        Next::Free
    }
}

/// A name as it is compared: `--Client-Secret` is `clientsecret`.
fn plain(piece: &str) -> String {
    piece.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Not a word of plain language, nor a host or a path.
fn looks_secret(piece: &str) -> bool {
    let is_name = piece.contains('/') || piece.contains('.');
    !is_name && (piece.len() >= 16 || piece.bytes().any(|b| b.is_ascii_digit() || b"+_~$!%#^".contains(&b)))
}

fn is_gap(c: char) -> bool {
    !(c.is_alphanumeric() || "_-+/.~*%$!?#@^".contains(c))
}

/// Splits into words and what stands between them.
fn pieces(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let kind = is_gap(rest.chars().next()?);
        let (piece, after) = rest.split_at(rest.find(|c| is_gap(c) != kind).unwrap_or(rest.len()));
        rest = after;
        Some(piece)
    })
}

/// Long, and of all kinds of letters: base64, a JWT, a key. Paths, hosts, sums and account numbers are not.
fn looks_like_a_token(word: &str) -> bool {
    let mixed = |piece: &str| {
        let has = |test: fn(&u8) -> bool| piece.bytes().any(|b| test(&b));
        piece.len() >= TOKEN_BYTES_MIN
            && has(u8::is_ascii_digit)
            && has(u8::is_ascii_uppercase)
            && has(u8::is_ascii_lowercase)
    };
    // Keys of Amazon have 40 letters with slashes; hosts have dots, and paths begin with a slash.
    let long_key = word.len() >= 40 && !word.starts_with('/') && !word.contains('.');
    word.split(['/', '.', '+']).any(mixed) || word.starts_with("eyJ") || (long_key && mixed(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_secret_is_left_in_an_error_text() {
        let table = [
            ("got canary-1 back", "got *** back"),
            (r#"{"username":"u","password":"hunter2"}"#, r#"{"username":"u","password":"***"}"#),
            ("password=hunter2 next", "password=*** next"),
            ("Authorization: Bearer hunter2", "Authorization: Bearer ***"),
            ("Authorization: Basic aHVudGVyMg==", "Authorization: Basic ***=="),
            ("AWS_SECRET_ACCESS_KEY_TOKEN: hunter2", "AWS_SECRET_ACCESS_KEY_TOKEN: ***"),
            ("the secret is hunter2", "the secret is ***"),
            ("--client-secret hunter2", "--client-secret ***"),
            ("x eyJhbGciOi.eyJzdWIi.c2ln y", "x *** y"),
            ("key wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY1 end", "key *** end"),
            ("a\u{1b}[31mred", "a\u{fffd}[31mred"),
        ];
        for (text, want) in table {
            assert_eq!(mask(text.as_bytes(), ["canary-1", "x"]), want);
        }
    }

    #[test]
    fn what_helps_an_operator_is_left() {
        for text in [
            "error: AccessDenied: User arn:aws:iam::123456789012:role/node is not authorized to perform ecr:GetAuthorizationToken",
            "Get \"http://169.254.169.254/latest/meta-data/\": dial tcp 169.254.169.254:80: connect: connection refused",
            "open /var/run/secrets/eks.amazonaws.com/serviceaccount: no such file or directory",
            "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            "InvalidIdentityToken: No OpenIDConnect provider found in your account for https://oidc.eks.eu-west-1.amazonaws.com/id/X",
            "cannot get a token: connection refused",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app",
        ] {
            assert_eq!(mask(text.as_bytes(), []), text);
        }
    }

    #[test]
    fn half_a_secret_at_the_cut_is_not_shown() {
        let mut bytes = b"begin ".repeat(STDERR_BYTES_MAX / 6);
        bytes.extend_from_slice(b"canary-canary");
        let shown = mask(&bytes, ["canary-canary"]);
        assert!(shown.ends_with("begin ...") && !shown.contains("can"), "{}", &shown[shown.len() - 30..]);
        assert_eq!(mask(&vec![b'x'; STDERR_BYTES_MAX + 1], []), "...");
    }

    proptest! {
        #[test]
        fn a_known_secret_never_shows(before in ".{0,40}", secret in "[a-z0-9]{4,30}", after in ".{0,40}") {
            let text = format!("{before}{secret}{after}");
            let shown = mask(text.as_bytes(), [secret.as_str()]);
            prop_assert!(!shown.contains(&secret), "{shown}");
        }
    }
}
