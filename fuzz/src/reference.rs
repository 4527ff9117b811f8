//! Image references against the regular expressions of the reference implementation.
//!
//! The model is `ParseNormalizedNamed` of distribution/reference v0.6.0 (`normalize.go`, `regexp.go`), as Kubernetes
//! uses it, in its own order of steps.

use std::sync::LazyLock;

use regex::Regex;
use windlass_core::reference::{PATH_MAX_BYTES, Reference, TAG_MAX_BYTES};

const WORD: &str = "[0-9A-Za-z_]";

static REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
    let host = r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?";
    let component = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
    let digest = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}";
    let whole = format!(
        r"\A(?:({host})/)?({component}(?:/{component})*)(?::({WORD}(?:{WORD}|[.-]){{0,127}}))?(?:@({digest}))?\z"
    );
    Regex::new(&whole).expect("the expression is constant")
});

/// Host, path, tag and digest, or nothing where the model refuses the name.
type Parts = (String, String, Option<String>, Option<String>);

/// Parses, prints, parses again, and compares with the model.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let model = model(text);
    let reference = match (Reference::parse(text), &model) {
        (Ok(reference), _) => reference,
        (Err(error), model) => {
            assert!(model.is_none(), "{text:?} is a name: {model:?}, not {error}");
            assert!(error.to_string().len() < 4_000 && !error.to_string().contains(char::is_control));
            return;
        }
    };
    let got: Parts = (
        reference.host().to_string(),
        reference.path().to_owned(),
        reference.tag_explicit().map(str::to_owned),
        reference.digest().map(|digest| digest.as_str().to_owned()),
    );
    assert_eq!(Some(got), model, "{text:?}");
    assert!(reference.path().len() <= PATH_MAX_BYTES);
    assert!(reference.tag().is_none_or(|tag| tag.len() <= TAG_MAX_BYTES));
    assert_eq!(reference.tag().is_none(), reference.tag_explicit().is_none() && reference.digest().is_some());

    assert_eq!(reference.to_string(), text);
    assert_eq!(reference.as_typed(), text);
    assert_eq!(reference.repository(), format!("{}/{}", reference.host(), reference.path()));
    // The familiar form is for people only: `docker.io/localhost/x` gives `localhost/x`, as upstream has it.
    assert_eq!(reference.familiar(), familiar(&reference), "{text:?}");
    for form in [reference.normalised(), reference.cri_image()] {
        let again = Reference::parse(&form).unwrap_or_else(|error| panic!("{form:?} of {text:?}: {error}"));
        assert_eq!(again.repository(), reference.repository(), "{form:?} of {text:?}");
        assert_eq!((again.tag(), again.digest()), (reference.tag(), reference.digest()), "{form:?} of {text:?}");
        assert_eq!(again.runtime_ref(), reference.runtime_ref(), "{form:?} of {text:?}");
    }
    let stored = reference.runtime_ref();
    let again = Reference::parse(&stored).unwrap_or_else(|error| panic!("{stored:?} of {text:?}: {error}"));
    assert_eq!((again.runtime_ref(), again.normalised()), (stored.clone(), stored));
}

/// `FamiliarString` of upstream's `helpers.go`.
fn familiar(reference: &Reference) -> String {
    let normalised = reference.normalised();
    let Some(short) = normalised.strip_prefix("docker.io/") else { return normalised };
    match short.strip_prefix("library/") {
        Some(official) if !official.contains('/') => official.to_owned(),
        _ => short.to_owned(),
    }
}

fn model(text: &str) -> Option<Parts> {
    if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let (domain, rest) = split_domain(text);
    let remote = rest.split(':').next().unwrap_or_default();
    if remote.to_lowercase() != remote {
        return None;
    }
    let whole = format!("{domain}/{rest}");
    let found = REFERENCE.captures(&whole)?;
    let part = |at: usize| found.get(at).map(|part| part.as_str().to_owned());
    // Upstream takes a name whose first segment has a dot but is no host for a path without host; it is refused here.
    let host = part(1)?;
    let path = part(2)?;
    let digest = part(4);
    let digest_fits = digest.as_deref().is_none_or(|digest| {
        let (algorithm, hex) = digest.split_once(':').expect("the expression has a colon");
        let length = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => return false,
        };
        hex.len() == length && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    });
    (path.len() <= 255 && digest_fits).then_some((host, path, part(3), digest))
}

fn split_domain(name: &str) -> (&str, String) {
    let Some((first, rest)) = name.split_once('/') else { return ("docker.io", format!("library/{name}")) };
    let (domain, rest) = if first == "localhost" {
        (first, rest)
    } else if first == "index.docker.io" {
        ("docker.io", rest)
    } else if first.contains(['.', ':']) || first.to_lowercase() != first {
        (first, rest)
    } else {
        ("docker.io", name)
    };
    let official = domain == "docker.io" && !rest.contains('/');
    (domain, if official { format!("library/{rest}") } else { rest.to_owned() })
}
