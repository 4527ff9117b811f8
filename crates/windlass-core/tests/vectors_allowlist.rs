//! Every case of `vectors/allowlist.json`.
mod support;

use windlass_core::allowlist::{AllowList, PatternFault};
use windlass_core::reference::Reference;

#[test]
fn allow_lists_are_checked_and_matched_as_the_kubelet_does() {
    support::run("allowlist.json", |case| {
        let patterns: Vec<&str> =
            case["in"]["patterns"].as_array().expect("patterns").iter().map(|p| p.as_str().expect("text")).collect();
        let out = &case["out"];
        match AllowList::parse(&patterns) {
            Ok(list) => {
                assert_eq!(out["patterns_valid"], true, "{case}");
                if let Some(image) = case["in"]["image"].as_str() {
                    let on_list = Reference::parse(image).is_ok_and(|image| list.contains(&image));
                    assert_eq!(out["match"], on_list, "{case}");
                    assert_eq!(out["must_verify"], !on_list, "{case}");
                }
            }
            Err(error) => {
                assert_eq!(out["patterns_valid"], false, "{case}: {error}");
                assert_eq!(out["bad_pattern_index"], error.index, "{case}");
                assert_eq!(out["error_class"], class(error.fault), "{case}");
            }
        }
    });
}

fn class(fault: PatternFault) -> &'static str {
    match fault {
        PatternFault::Spaces => "spaces",
        PatternFault::Short => "short",
        PatternFault::WildcardPosition => "wildcard_position",
        PatternFault::NoRegistry => "no_registry",
        PatternFault::NotAnImageName => "not_an_image_name",
        PatternFault::NotFullyQualified => "not_fully_qualified_or_has_tag",
        _ => "unknown",
    }
}
