use proptest::prelude::*;

use super::*;

fn ring(entries: &[(&str, &str, &str)]) -> Keyring {
    let mut ring = Ring::new();
    for (key, user, password) in entries {
        ring.add(key, Credential::basic(*user, *password), "", Origin::Given);
    }
    let mut keyring = Keyring::new();
    keyring.push(ring);
    keyring
}

fn users(keyring: &Keyring, image: &str, mode: Mode) -> Vec<String> {
    keyring.lookup(image, mode).iter().map(|c| c.credential.username().unwrap_or("-").to_owned()).collect()
}

#[test]
fn hub_credentials_never_go_to_localhost() {
    let keyring = ring(&[("https://index.docker.io/v1/", "hub", "p")]);
    assert_eq!(users(&keyring, "localhost/app", Mode::Kubelet), ["hub"]);
    assert!(users(&keyring, "localhost/app", Mode::Windlass).is_empty());
    assert_eq!(users(&keyring, "docker.io/library/app", Mode::Windlass), ["hub"]);
}

#[test]
fn doubles_are_tried_once_in_our_own_mode() {
    let keyring = ring(&[("r.io", "u", "p"), ("r.io/team", "u", "p"), ("r.io", "v", "p")]);
    assert_eq!(users(&keyring, "r.io/team/app", Mode::Kubelet), ["u", "u", "v"]);
    assert_eq!(users(&keyring, "r.io/team/app", Mode::Windlass), ["u", "v"]);
}

#[test]
fn the_case_of_the_image_s_host_does_not_matter_in_our_own_mode() {
    let keyring = ring(&[("r.io", "low", "p"), ("R.io", "up", "p")]);
    assert_eq!(users(&keyring, "R.io/app", Mode::Kubelet), ["up"]);
    assert_eq!(users(&keyring, "R.io/app", Mode::Windlass), ["low", "up"]);
}

#[test]
fn a_malformed_secret_costs_the_kubelet_everything_and_us_only_itself() {
    let secret = |name: &str, data: &str| PullSecret {
        namespace: "ns".into(),
        name: name.into(),
        uid: String::new(),
        r#type: DOCKERCONFIGJSON.into(),
        data: Secret::new(data.into()),
    };
    let secrets = [secret("bad", "{"), secret("good", r#"{"auths":{"r.io":{"auth":"dTpw"},"r.io:x":{}}}"#)];
    let mut skipped = Vec::new();
    let refused = Ring::of_secrets(&secrets, Mode::Kubelet, &mut skipped);
    assert!(
        matches!(refused, Err(KeyringError::MalformedSecret { origin, .. }) if origin.to_string() == "secret ns/bad")
    );
    skipped.clear();
    let mut keyring = Keyring::new();
    keyring.push(Ring::of_secrets(&secrets, Mode::Windlass, &mut skipped).expect("our own mode never fails"));
    assert_eq!(users(&keyring, "r.io/app", Mode::Windlass), ["u"]);
    let reported: Vec<(String, &str)> = skipped.iter().map(|s| (s.origin.to_string(), s.key.as_str())).collect();
    assert_eq!(reported, [("secret ns/bad".to_owned(), ""), ("secret ns/good".to_owned(), "r.io:x")]);
}

#[test]
fn no_secret_shows_in_debug() {
    let credentials = [
        Credential::basic("user", "canary"),
        Credential::IdentityToken { username: None, token: Secret::from("canary") },
        Credential::RegistryToken { token: Secret::from("canary") },
    ];
    for credential in credentials {
        let candidate = Candidate::new(credential.clone(), Origin::Given, "r.io");
        let mut ring = Ring::new();
        ring.add("r.io", credential.clone(), "", Origin::Given);
        let mut keyring = Keyring::new();
        keyring.push(ring);
        let shown = format!("{credential:?} {candidate:?} {keyring:?} {}", candidate.origin);
        assert!(!shown.contains("canary"), "{shown}");
    }
    let secret = PullSecret {
        namespace: "ns".into(),
        name: "n".into(),
        uid: "u".into(),
        r#type: DOCKERCFG.into(),
        data: Secret::new(b"canary".to_vec()),
    };
    assert!(!format!("{secret:?}").contains("99, 97") && !format!("{secret:?}").contains("canary"));
}

proptest! {
    #[test]
    fn equal_keys_keep_the_order_they_came_in(users_in in prop::collection::vec("[a-z]{1,6}", 1..8)) {
        let entries: Vec<(&str, &str, &str)> = users_in.iter().map(|u| ("r.io", u.as_str(), "p")).collect();
        prop_assert_eq!(users(&ring(&entries), "r.io/app", Mode::Kubelet), users_in);
    }

    #[test]
    fn windlass_mode_only_removes_doubles_and_folds_the_image_host(
        keys in prop::collection::vec("(r\\.io|\\*\\.io|a\\.io|docker\\.io|index\\.docker\\.io)(/[a-c]){0,2}", 0..8),
        image in "(r\\.io|a\\.io|docker\\.io)(/[a-c]){1,3}",
    ) {
        let entries: Vec<(&str, &str, &str)> = keys.iter().map(|k| (k.as_str(), k.as_str(), "p")).collect();
        let keyring = ring(&entries);
        let mut kubelet = users(&keyring, &image, Mode::Kubelet);
        let mut seen = std::collections::HashSet::new();
        kubelet.retain(|user| seen.insert(user.clone()));
        prop_assert_eq!(users(&keyring, &image, Mode::Windlass), kubelet);
    }

    #[test]
    fn a_credential_never_serves_another_host(host in "[a-z]{1,5}\\.[a-z]{2}", other in "[a-z]{1,5}\\.[a-z]{2}") {
        prop_assume!(host != other);
        for mode in [Mode::Kubelet, Mode::Windlass] {
            let found = users(&ring(&[(&host, "u", "p")]), &format!("{other}/app"), mode);
            prop_assert!(found.is_empty());
        }
    }
}
