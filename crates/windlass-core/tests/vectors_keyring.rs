//! The rule vectors of the kubelet's keyring: order, hashes, matching.

mod support;

use serde_json::{Value, json};
use windlass_core::dockerconfig::Layout;
use windlass_core::keyring::{Credential, Keyring, Mode, Origin, PullSecret, Ring};
use windlass_core::matchimage::matches;
use windlass_core::reference::Reference;
use windlass_core::secret::Secret;

#[test]
fn keyring() {
    support::run("keyring.json", |case| {
        let (given, want) = (&case["in"], &case["out"]);
        let Ok(reference) = Reference::parse(given["image"].as_str().expect("an image")) else {
            assert_eq!(want["image_error"], true, "{case}");
            return;
        };
        assert_ne!(want["image_error"], true, "{case}");
        assert_eq!(json!(reference.repository()), want["lookup"], "{case}");

        let mut skipped = Vec::new();
        let secrets: Vec<PullSecret> = given["secrets"].as_array().into_iter().flatten().map(secret).collect();
        let Ok(of_secrets) = Ring::of_secrets(&secrets, Mode::Kubelet, &mut skipped) else {
            assert_eq!(want["secret_error"], true, "{case}");
            return;
        };
        assert_ne!(want["secret_error"], true, "{case}");
        let mut keyring = Keyring::new();
        keyring.push(of_secrets);
        for (name, layout) in [("node_config_json", Layout::ConfigJson), ("node_dockercfg", Layout::DockerCfg)] {
            if let Some(document) = given.get(name) {
                let mut ring = Ring::new();
                let bytes = document.to_string().into_bytes();
                ring.add_document(&bytes, layout, Mode::Kubelet, &Origin::file(name), &mut skipped)
                    .expect("a node file");
                keyring.push(ring);
            }
        }
        let found: Vec<(Value, String)> = keyring
            .lookup(&reference.repository(), Mode::Kubelet)
            .into_iter()
            .map(|candidate| {
                let login = match &candidate.credential {
                    Credential::Basic { username, password } => json!([username, password.expose()]),
                    Credential::Anonymous => json!(["", ""]),
                    other => panic!("not a password: {other:?}"),
                };
                (login, candidate.hash)
            })
            .collect();
        let wanted: Vec<(Value, String)> = want["credentials"]
            .as_array()
            .expect("a list of credentials")
            .iter()
            .map(|c| (json!([c["username"], c["password"]]), c["hash"].as_str().expect("a hash").to_owned()))
            .collect();
        assert_eq!(found, wanted, "{case}");
        assert_eq!(!found.is_empty(), want["found"] == true, "{case}");
    });
}

fn secret(value: &Value) -> PullSecret {
    let text = |name: &str| value[name].as_str().unwrap_or_else(|| panic!("{name} of a secret")).to_owned();
    PullSecret {
        namespace: text("namespace"),
        name: text("name"),
        uid: text("uid"),
        r#type: text("type"),
        data: Secret::new(text("data").into_bytes()),
    }
}

#[test]
fn registry_match() {
    support::run("registry-match.json", |case| {
        let text = |name: &str| case["in"][name].as_str().expect("a text");
        let result = matches(text("pattern"), text("target"));
        assert_eq!(result.unwrap_or(false), case["out"]["match"] == true, "{case}");
        assert_eq!(result.is_err(), case["out"]["error"] == true, "{case}");
    });
}
