//! Credential providers as the commands and the daemon meet them: a plugin written as a shell script, a registry that
//! wants its login.

mod run;

use std::os::unix::fs::PermissionsExt as _;

use run::World;
use run::node::until;
use windlass_registry::access::Action;
use windlass_testkit::images::small;
use windlass_testkit::registry::TestRegistry;

const PASSWORD: &str = "canary-hunter2";
const VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";

fn registry() -> TestRegistry {
    TestRegistry::build().bearer().user("robot", PASSWORD, "team/*", &[Action::Pull]).start()
}

/// A program and the configuration that names it; `more` stands below the provider.
fn provide(world: &World, script: &str, host: &str, more: &str) {
    std::fs::create_dir_all(world.path("bin")).unwrap();
    world.file("bin/script", &format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(world.path("bin/script"), std::fs::Permissions::from_mode(0o755)).unwrap();
    write_config(world, host, more);
}

fn write_config(world: &World, host: &str, more: &str) {
    let text = format!(
        "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: script\n  apiVersion: \
         {VERSION}\n  defaultCacheDuration: 10m\n  matchImages: ['{host}']\n{more}"
    );
    world.file("providers.yaml", &text);
}

/// The part of a node's configuration.
fn credentials(world: &World) -> String {
    let (config, programs) = (world.path("providers.yaml"), world.path("bin"));
    format!("credentials:\n  providerConfig: {}\n  providerBinDir: {}\n", config.display(), programs.display())
}

fn configure(world: &World, more: &str) {
    let head = "apiVersion: config.windlass.dev/v1alpha1\nkind: NodeConfiguration\n";
    world.file("node.yaml", &format!("{head}{}{more}", credentials(world)));
}

fn login(host: &str, password: &str) -> String {
    format!(
        r#"cat > "$(dirname "$0")/../request"; echo '{{"kind":"CredentialProviderResponse","apiVersion":"{VERSION}","cacheKeyType":"Registry","auth":{{"{host}":{{"username":"robot","password":"{password}"}}}}}}'"#
    )
}

#[test]
fn a_plugin_s_login_opens_what_is_private() {
    let registry = registry();
    let image = registry.place(&small("private").bundle(), "team/app", "1");
    let world = World::new();
    world.speaks_http(&registry.host());
    provide(&world, &login(&registry.host(), PASSWORD), &registry.host(), "");
    configure(&world, "");
    let output = world.run(["pull", &image, "--config", "node.yaml", "-o", "json"]).succeeds();
    assert!(!output.stdout.contains("canary") && !output.stderr.contains("canary"), "{output:?}");
    let request = std::fs::read_to_string(world.path("request")).unwrap();
    let repository = image.trim_end_matches(":1");
    assert!(request.contains(&format!(r#""image":"{repository}""#)), "{request}");
}

#[test]
fn what_is_wrong_with_a_plugin_is_told_with_the_pull_s_failure() {
    let registry = registry();
    let image = registry.place(&small("private").bundle(), "team/app", "1");
    let world = World::new();
    world.speaks_http(&registry.host());
    let wrong = login(&registry.host(), "canary-wrong");
    // The script, the words.
    let table = [
        (wrong.as_str(), "plugin script"),
        ("echo no identity here, password=canary >&2; exit 7", "exit status: 7: no identity here, password=***"),
    ];
    for (script, want) in table {
        provide(&world, script, &registry.host(), "");
        configure(&world, "");
        let output = world.run(["credentials", &image, "--config", "node.yaml", "--verify"]).succeeds();
        assert!(output.stdout.contains(want), "{want}: {}", output.stdout);
        let failed = world.run(["pull", &image, "--config", "node.yaml"]).fails(1);
        assert!(!format!("{output:?}{failed:?}").contains("canary"), "{output:?} {failed:?}");
    }
}

#[test]
fn ensure_asks_a_plugin_with_the_token_of_the_pod_s_account() {
    let registry = registry();
    let image = registry.place(&small("private").bundle(), "team/app", "1");
    let world = World::new();
    world.speaks_http(&registry.host());
    let more = "  tokenAttributes:\n    serviceAccountTokenAudience: sts\n    cacheType: ServiceAccount\n    \
                requireServiceAccount: true\n    requiredServiceAccountAnnotationKeys: [x.io/role]\n";
    provide(&world, &login(&registry.host(), PASSWORD), &registry.host(), more);
    let tokens = world.path("tokens/team-a");
    std::fs::create_dir_all(&tokens).unwrap();
    configure(&world, &format!("  serviceAccountTokens: {}\n", world.path("tokens").display()));
    // {"aud":["sts"],"exp":99999999999,"sub":"system:serviceaccount:team-a:web","kubernetes.io":{"serviceaccount":{"uid":"u1"}}}
    let claims = "eyJhdWQiOlsic3RzIl0sImV4cCI6OTk5OTk5OTk5OTksInN1YiI6InN5c3RlbTpzZXJ2aWNlYWNjb3VudDp0ZWFtLWE6d2ViIiwia3ViZXJuZXRlcy5pbyI6eyJzZXJ2aWNlYWNjb3VudCI6eyJ1aWQiOiJ1MSJ9fX0";
    let token = format!("e30.{claims}.c2ln");
    std::fs::write(tokens.join("web"), &token).unwrap();
    let pod = |account: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {account}, namespace: team-a}}\nspec:\n  serviceAccountName: \
             {account}\n  containers: [{{name: a, image: \"{image}\"}}]\n---\napiVersion: v1\nkind: ServiceAccount\n\
             metadata: {{name: {account}, namespace: team-a, annotations: {{x.io/role: reader}}}}\n"
        )
    };
    world.file("web.yaml", &pod("web"));
    world.file("other.yaml", &pod("other"));
    let ensure = |file: &str| world.run(["ensure", "-f", file, "--config", "node.yaml", "-o", "json"]);
    ensure("other.yaml").fails(1);
    let output = ensure("web.yaml").succeeds();
    let request = std::fs::read_to_string(world.path("request")).unwrap();
    assert!(request.contains(&format!(r#""serviceAccountToken":"{token}""#)), "{request}");
    assert!(request.contains(r#""serviceAccountAnnotations":{"x.io/role":"reader"}"#), "{request}");
    assert!(!output.stdout.contains(&token) && !output.stderr.contains(&token), "{output:?}");
    // The pod of the other account may not use what this one has pulled; this one may, without a token.
    ensure("other.yaml").fails(1);
}

#[test]
fn a_daemon_begins_with_good_providers_only_and_keeps_them() {
    let world = World::new();
    provide(&world, "exit 1", "r.example", "");
    write_config(&world, "r.example", "  surprise: 1\n");
    world.configure(&credentials(&world));
    let refused = world.run(["node", "--config", "node.yaml"]).fails(2);
    assert!(refused.stderr.contains("providers[0].surprise is not a field of this version"), "{}", refused.stderr);

    write_config(&world, "r.example", "");
    let node = world.node(&credentials(&world));
    write_config(&world, "r.example", "  surprise: 1\n");
    node.signal("-HUP");
    let problem = until("the problem", || node.status()["configuration"]["problem"].as_str().map(str::to_owned));
    assert!(problem.contains("providers[0].surprise is not a field of this version"), "{problem}");
    write_config(&world, "q.example", "");
    until("the repair, by itself", || node.status()["configuration"]["problem"].is_null().then_some(()));
}
