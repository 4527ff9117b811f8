//! Every case of `vectors/always-pull-images.json`: the rule as the API server's own plug-in has it.
mod support;

use serde_json::{Value, json};
use windlass_core::admission::{
    Operation, PodImage, Request, Scope, Slot, Violation, handles, ignores, mutate, validate,
};

#[test]
fn images_are_forced_to_be_pulled_as_the_api_server_does() {
    support::run("always-pull-images.json", |case| {
        let (given, out) = (&case["in"], &case["out"]);
        let request = Request {
            operation: operation(&given["operation"]),
            resource: given["resource"].as_str().expect("resource"),
            subresource: given["subresource"].as_str().expect("subresource"),
        };
        assert_eq!(out["handles"], handles(request.operation), "{case}");
        if out["handles"] == false {
            assert_eq!(mutate(&request, &images(&given["object"]), &[], Scope::InTree), Vec::<&PodImage>::new());
            return;
        }
        let (new, old) = (images(&given["object"]), images(&given["oldObject"]));
        assert_eq!(out["ignored"], ignores(&request, &new, &old, Scope::InTree), "{case}");
        let violations: Vec<Violation> = validate(&request, &new, &old, Scope::InTree);
        assert_eq!(out["validate_unmutated_allowed"], violations.is_empty(), "{case}");
        assert_eq!(out["validate_error_count"].as_u64().unwrap_or(0), violations.len() as u64, "{case}");
        assert_eq!(
            out["policies_after_mutation"],
            policies(&new, &mutate(&request, &new, &old, Scope::InTree)),
            "{case}"
        );
    });
}

fn operation(value: &Value) -> Operation {
    match value.as_str() {
        Some("CREATE") => Operation::Create,
        Some("UPDATE") => Operation::Update,
        Some("DELETE") => Operation::Delete,
        Some("CONNECT") => Operation::Connect,
        other => panic!("unknown operation {other:?}"),
    }
}

fn images(object: &Value) -> Vec<PodImage> {
    let lists = [("init", Slot::Init), ("containers", Slot::Container), ("ephemeral", Slot::Ephemeral)];
    let of_list = |(key, slot): (&str, Slot)| -> Vec<PodImage> {
        let containers = object[key].as_array().map_or(&[] as &[Value], Vec::as_slice);
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let image = |(index, container): (usize, &Value)| PodImage {
            slot,
            index,
            name: text(&container["name"]),
            image: text(&container["image"]),
            policy: text(&container["policy"]),
        };
        containers.iter().enumerate().map(image).collect()
    };
    lists.into_iter().flat_map(of_list).collect()
}

fn policies(images: &[PodImage], mutated: &[&PodImage]) -> Value {
    let of_slot = |slot: Slot| -> Vec<&str> {
        let in_slot = images.iter().filter(|image| image.slot == slot);
        in_slot.map(|image| if mutated.contains(&image) { "Always" } else { image.policy.as_str() }).collect()
    };
    json!({"init": of_slot(Slot::Init), "containers": of_slot(Slot::Container), "ephemeral": of_slot(Slot::Ephemeral)})
}
