//! `windlass credentials`: what would be tried, in which order, and what the registry says to each.

mod run;

use run::{Windlass, World};
use serde_json::Value as Json;
use windlass_registry::access::Action;
use windlass_testkit::images::small;
use windlass_testkit::registry::TestRegistry;

const PASSWORD: &str = "canary-hunter2";

/// A pod of this image with two secrets, one of them no JSON.
fn manifests(image: &str, host: &str) -> String {
    let login = |user: &str, password: &str| format!("{{\"username\":\"{user}\",\"password\":\"{password}\"}}");
    let auths = format!(
        "{{\"auths\":{{\"{host}/team\":{},\"{host}\":{}}}}}",
        login("stranger", "canary-wrong"),
        login("ci", PASSWORD)
    );
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: team-a}}\nspec:\n  imagePullSecrets: [{{name: good}}, \
         {{name: broken}}]\n  containers: [{{name: a, image: \"{image}\"}}]\n---\napiVersion: v1\nkind: Secret\nmetadata: \
         {{name: good, namespace: team-a}}\ntype: kubernetes.io/dockerconfigjson\nstringData:\n  .dockerconfigjson: \
         '{auths}'\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: broken, namespace: team-a}}\ntype: \
         kubernetes.io/dockerconfigjson\nstringData:\n  .dockerconfigjson: '{{\"auths\":{{'\n"
    )
}

fn sources(list: &Json) -> Vec<String> {
    let tries = list["items"][0]["credentials"].as_array().expect("a list");
    tries
        .iter()
        .map(|one| format!("{} {}", one["source"].as_str().unwrap(), one["username"].as_str().unwrap()))
        .collect()
}

#[test]
fn every_credential_is_named_in_trying_order_and_none_is_shown() {
    let text = manifests("r.example/team/app:1", "r.example");
    let ask = ["credentials", "r.example/team/app:2", "-f", "-", "-o", "json"];
    let output = Windlass::new().stdin(&text).args(ask).succeeds();
    let list = output.stdout_json();
    assert_eq!(sources(&list), ["secret team-a/good stranger", "secret team-a/good ci", "anonymous "]);
    assert_eq!(list["items"][0]["pod"], "Pod team-a/web");
    assert_eq!(list["items"][0]["skipped"][0]["source"], "secret team-a/broken");
    let table = Windlass::new().stdin(&text).args(["credentials", "r.example/team/app:2", "-f", "-"]).succeeds();
    assert!(table.stdout.contains("note: secret team-a/broken: the document is not JSON"), "{}", table.stdout);
    for output in [output, table] {
        assert!(!output.stdout.contains("canary") && !output.stderr.contains("canary"), "{output:?}");
    }
}

#[test]
fn a_kubelet_s_rules_fail_with_the_broken_secret() {
    let text = manifests("r.example/team/app:1", "r.example");
    let ask = ["credentials", "r.example/team/app:1", "-f", "-", "--strict-kubelet"];
    let output = Windlass::new().stdin(&text).args(ask).fails(1);
    assert!(output.stderr.contains("secret team-a/broken cannot be decoded"), "{}", output.stderr);
}

#[test]
fn verify_tells_the_registry_s_answer_to_each() {
    let registry = TestRegistry::build().basic().user("ci", PASSWORD, "team/*", &[Action::Pull]).start();
    let image = registry.place(&small("one").bundle(), "team/app", "1");
    let world = World::new();
    world.speaks_http(&registry.host());
    world.file("pod.yaml", &manifests(&image, &registry.host()));
    let list = world.run(["credentials", &image, "-f", "pod.yaml", "--verify", "-o", "json"]).succeeds().stdout_json();
    let verified = |at: usize| list["items"][0]["credentials"][at]["verified"].clone();
    assert_eq!(verified(0)["accepted"], false);
    assert!(verified(0)["answer"].as_str().unwrap().starts_with("401"), "{list}");
    assert_eq!(verified(1)["accepted"], true);
    assert_eq!(verified(2)["accepted"], false);
    // Nothing but the manifest's head was asked for.
    assert!(registry.requests().iter().all(|request| request.method.as_str() == "HEAD"), "{:?}", registry.requests());
}

#[test]
fn a_person_s_own_logins_are_what_a_pull_uses() {
    let auth = "{\"auths\":{\"r.example\":{\"username\":\"me\",\"password\":\"canary\"}}}";
    let world = World::new();
    std::fs::create_dir(world.path(".docker")).unwrap();
    world.file(".docker/config.json", auth);
    let list = world.run(["credentials", "r.example/app", "-o", "json"]).succeeds().stdout_json();
    let file = world.path(".docker/config.json").display().to_string();
    assert_eq!(sources(&list), [format!("file {file} me"), "anonymous ".to_owned()]);
}

#[test]
fn what_cannot_be_asked_is_said() {
    let text = manifests("r.example/team/app:1", "r.example");
    let output = Windlass::new().stdin(&text).args(["credentials", "nginx", "-f", "-"]).fails(2);
    assert!(
        output.stderr.contains("no pod of the files has a container of docker.io/library/nginx"),
        "{}",
        output.stderr
    );
    let output = Windlass::new().args(["credentials", "no//name"]).fails(2);
    assert!(output.stderr.contains("cannot look for credentials for no//name"), "{}", output.stderr);
}

/// A provider that answers for one host and says a secret where it should not.
fn with_plugin(world: &World, patterns: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir(world.path("bin")).unwrap();
    world.file(
        "bin/hand-made",
        "#!/bin/sh\ncat >/dev/null\necho \"password=canary-plugin\" >&2\necho '{\"kind\":\"CredentialProviderResponse\",\
         \"apiVersion\":\"credentialprovider.kubelet.k8s.io/v1\",\"cacheKeyType\":\"Registry\",\"cacheDuration\":\"1h\",\
         \"auth\":{\"r.example\":{\"username\":\"robot\",\"password\":\"canary-plugin\"}}}'\n",
    );
    std::fs::set_permissions(world.path("bin/hand-made"), std::fs::Permissions::from_mode(0o755)).unwrap();
    world.file(
        "providers.yaml",
        &format!(
            "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: hand-made\n  \
             apiVersion: credentialprovider.kubelet.k8s.io/v1\n  defaultCacheDuration: 10m\n  matchImages: {patterns}\n"
        ),
    );
    let (config, programs) = (world.path("providers.yaml"), world.path("bin"));
    world.file(
        "node.yaml",
        &format!(
            "apiVersion: config.windlass.dev/v1alpha1\nkind: NodeConfiguration\ncredentials:\n  providerConfig: {}\n  \
             providerBinDir: {}\n",
            config.display(),
            programs.display()
        ),
    );
}

#[test]
fn a_provider_is_told_with_its_pattern_and_its_expiry() {
    let world = World::new();
    with_plugin(&world, "[r.example, \"*.other.example\"]");
    let ask = |image: &str| world.run(["credentials", image, "--config", "node.yaml", "-o", "json"]).succeeds();
    let output = ask("r.example/app");
    assert!(!output.stdout.contains("canary") && !output.stderr.contains("canary"), "{output:?}");
    let list = output.stdout_json();
    assert_eq!(sources(&list), ["plugin hand-made robot", "anonymous "]);
    let left = list["items"][0]["credentials"][0]["expiresInSeconds"].as_u64().unwrap();
    assert!((3500..=3600).contains(&left), "{left}");
    let provider = &list["items"][0]["providers"][0];
    assert_eq!((provider["matched"].as_str(), provider["asked"].as_str()), (Some("r.example"), Some("answered")));
    let list = ask("q.example/app").stdout_json();
    let provider = &list["items"][0]["providers"][0];
    assert_eq!((provider["asked"].as_str(), provider["notMatched"].as_array().unwrap().len()), (Some("no"), 2));
}

#[test]
fn the_configuration_of_providers_that_is_shipped_is_valid() {
    let world = World::new();
    std::fs::create_dir(world.path("bin")).unwrap();
    for name in ["ecr-credential-provider", "auth-provider-gcp", "acr-credential-provider"] {
        std::os::unix::fs::symlink(assert_cmd::cargo::cargo_bin!("windlass"), world.path("bin").join(name)).unwrap();
    }
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/credential-providers.yaml");
    world.file(
        "node.yaml",
        &format!(
            "apiVersion: config.windlass.dev/v1alpha1\nkind: NodeConfiguration\ncredentials:\n  providerConfig: {shipped}\n  \
             providerBinDir: {}\n",
            world.path("bin").display()
        ),
    );
    let list =
        world.run(["credentials", "r.example/app", "--config", "node.yaml", "-o", "json"]).succeeds().stdout_json();
    let providers = list["items"][0]["providers"].as_array().unwrap();
    let names: Vec<_> = providers.iter().map(|provider| provider["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ecr-credential-provider", "auth-provider-gcp", "acr-credential-provider"]);
    assert!(providers.iter().all(|provider| provider["asked"] == "no"), "{list}");
}
