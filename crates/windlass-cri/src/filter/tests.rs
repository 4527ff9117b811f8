use proptest::prelude::*;

use super::*;

const REF: &str = "containerd.io/snapshot.ref";

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn parse(texts: &[&str]) -> Result<Filters, FilterError> {
    Filters::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
}

#[test]
fn the_filters_of_containerd_are_understood() {
    let first = labels(&[(REF, "sha256:1"), ("foo", "bar"), ("a.b", "c d")]);
    let second = labels(&[]);
    let first = Subject { name: "wl/sha256:1", parent: "", kind: "committed", labels: &first };
    let second = Subject { name: "k8s.io/2/x y", parent: "wl/sha256:1", kind: "active", labels: &second };
    let table: &[(&[&str], bool, bool)] = &[
        (&[], true, true),
        (&[""], true, true),
        // What containerd itself asks after an adoption: for the lowest layer, and for one on top of another.
        (&[r#"labels."containerd.io/snapshot.ref"==sha256:1,parent=="""#], true, false),
        (&[r#"labels."containerd.io/snapshot.ref"==sha256:1,parent=="wl/sha256:1""#], false, false),
        (&["name==wl/sha256:1"], true, false),
        (&["name!=wl/sha256:1"], false, true),
        (&[r#"name=="k8s.io/2/x y""#], false, true),
        (&["name == wl/sha256:1"], true, false),
        (&["parent==wl/sha256:1"], false, true),
        (&["parent"], true, true),
        (&["kind==active"], false, true),
        (&["kind!=view"], true, true),
        (&["labels.foo"], true, false),
        (&["labels.foo==bar"], true, false),
        (&["labels.foo!=bar"], false, true),
        (&["labels.foo==baz"], false, false),
        (&["labels.a.b"], true, false),
        (&[r#"labels."a.b"=="c d""#], true, false),
        (&[r#"labels."a"."b"=="c\x20d""#], true, false),
        (&[r#"labels."\141.b"~=d"#], true, false),
        (&[r#""labels"."\u0066oo"=="ba\U00000072""#], true, false),
        (&["labels"], false, false),
        (&["labels.missing==\"\""], false, false),
        (&["labels.missing!=\"\""], false, false),
        (&["unknown"], false, false),
        (&["unknown!=x"], true, true),
        (&["name~=^wl/"], true, false),
        (&[r"name~=/^k8s[.]io\/[0-9]+\//"], false, true),
        (&[r"name~=|^k8s\\.io/\\d+/|"], false, true),
        (&["name~=(unclosed"], false, false),
        (&["labels.missing~=^$"], true, true),
        (&["kind==committed,labels.foo==bar"], true, false),
        (&["kind==committed,labels.foo==baz"], false, false),
        (&["kind==committed, labels.foo==bar"], true, false),
        (&["labels.foo,name"], true, false),
        (&["kind==active", "labels.foo"], true, true),
        (&["kind==view", "name~=nothing"], false, false),
        (&["name==\u{e9}"], false, false),
    ];
    for (texts, want_first, want_second) in table {
        let filters = parse(texts).unwrap_or_else(|error| panic!("{texts:?}: {error}"));
        assert_eq!(filters.matches(&first), *want_first, "{texts:?} on the layer");
        assert_eq!(filters.matches(&second), *want_second, "{texts:?} on the container");
    }
}

#[test]
fn what_is_malformed_is_refused() {
    let table = [
        " ",
        ",",
        ".",
        "name,",
        "name==",
        "name==,kind==active",
        "name==.x",
        "name===x",
        "name=x",
        "name~x",
        "name<x",
        "name x",
        "name ",
        "name==x y",
        "name==x ,parent",
        "name==/x/",
        "name==|x|",
        "/name/==x",
        "'name'==x",
        "name.==x",
        "name..x",
        "labels.\"x",
        "labels.\"x\ny\"",
        r#"name=="\q""#,
        r#"name=="\'""#,
        r"name~=/\./",
        r#"name=="\x1""#,
        r#"name=="\x+1""#,
        r#"name=="\400""#,
        r#"name=="\18""#,
        r#"name=="\u12""#,
        r#"name=="\U00110000""#,
        r#"name=="\u123\u{e9}""#,
        "name==a\0",
        "name==\"\u{fffd}\"",
        "n\u{e9}me",
    ];
    for text in table {
        assert!(matches!(parse(&[text]), Err(FilterError::Syntax { .. })), "{text:?}: {:?}", parse(&[text]));
    }
    let long = format!("name=={}", "x".repeat(FILTER_MAX_BYTES));
    assert!(matches!(parse(&[&long]), Err(FilterError::Limit { .. })));
    assert!(matches!(parse(&vec!["name"; FILTERS_MAX + 1]), Err(FilterError::Limit { .. })));
}

/// As Go's `%q` writes it.
fn quote(text: &str) -> String {
    let inside: String = text
        .chars()
        .map(|c| match c {
            '"' => r#"\""#.to_owned(),
            '\\' => r"\\".to_owned(),
            c if c.is_control() || c == char::REPLACEMENT_CHARACTER => format!("\\U{:08x}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    format!("\"{inside}\"")
}

proptest! {
    #[test]
    fn a_quoted_value_matches_itself(value in any::<String>(), key in any::<String>(), other in any::<String>()) {
        let labels = BTreeMap::from([(key.clone(), value.clone())]);
        let subject = Subject { name: &value, parent: "", kind: "active", labels: &labels };
        for text in [format!("name=={}", quote(&value)), format!("labels.{}=={}", quote(&key), quote(&value))] {
            prop_assert!(parse(&[&text]).unwrap().matches(&subject), "{}", text);
        }
        prop_assert_eq!(parse(&[&format!("name=={}", quote(&other))]).unwrap().matches(&subject), other == value);
        prop_assert_eq!(parse(&[&format!("name!={}", quote(&other))]).unwrap().matches(&subject), other != value);
    }

    #[test]
    fn any_text_is_read_in_bounds(text in r#"[a-z"/|\\,.=!~ 0-9\PC]{0,64}"#) {
        let labels = BTreeMap::new();
        let subject = Subject { name: "name", parent: "", kind: "active", labels: &labels };
        if let Ok(filters) = parse(&[&text]) {
            filters.matches(&subject);
        }
    }
}
