//! Every case of `vectors/pull-policy.json`.
mod support;

use windlass_core::policy::{Written, stored};

#[test]
fn pull_policies_are_defaulted_as_the_api_server_does() {
    support::run("pull-policy.json", |case| {
        let given = &case["in"];
        let image = given["image"].as_str().expect("image");
        let written = match (given["op"].as_str(), given["imagePullPolicy"].as_str()) {
            (Some("patch"), None) => Written::Untouched(given["old"]["imagePullPolicy"].as_str().expect("stored")),
            (Some("create" | "replace" | "patch"), field) => Written::Field(field.unwrap_or("")),
            (op, _) => panic!("unknown operation {op:?}"),
        };
        assert_eq!(case["out"]["imagePullPolicy"], *stored(image, written), "{case}");
    });
}
