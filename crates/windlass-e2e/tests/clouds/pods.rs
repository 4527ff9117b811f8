//! Pods that log in as their own service accounts: `ensure`, our plugin client, our provider, a cloud.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;
use windlass_e2e::world::subject;
use windlass_testkit::clouds::{Account, Setup, Way};
use windlass_testkit::images::small;

use crate::scene::Scene;

/// A configuration of the provider for service accounts, as a kubelet would have it.
fn configure(scene: &Scene, setup: &Setup) {
    let programs = scene.world.make_dir("programs");
    let name = match setup.cloud {
        "ecr" => "ecr-credential-provider",
        "gcp" => "auth-provider-gcp",
        _ => "acr-credential-provider",
    };
    symlink(subject(), programs.join(name)).expect("a link");
    let keys: Vec<&String> = setup.request.annotations.iter().map(|(key, _)| key).collect();
    let env: Vec<_> = setup.environment.iter().map(|(n, v)| json!({ "name": n, "value": v })).collect();
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1",
        "kind": "CredentialProviderConfig",
        "providers": [{
            "name": name,
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "matchImages": [setup.host()],
            "defaultCacheDuration": "0s",
            "args": setup.arguments,
            "env": env,
            "tokenAttributes": {
                "serviceAccountTokenAudience": setup.request.audience,
                "cacheType": "ServiceAccount",
                "requireServiceAccount": true,
                "requiredServiceAccountAnnotationKeys": keys,
            },
        }],
    });
    let config = scene.world.write("providers.yaml", config.to_string());
    let tokens = scene.world.make_dir("tokens");
    let node = json!({
        "apiVersion": "config.windlass.dev/v1alpha1",
        "kind": "NodeConfiguration",
        "hostsDir": [scene.clouds.hosts_dir()],
        "credentials": {
            "providerConfig": config,
            "providerBinDir": programs,
            "serviceAccountTokens": tokens,
            "ecr": "off",
            "gcp": "off",
            "acr": "off",
        },
    });
    scene.world.write("node.yaml", node.to_string());
}

/// A pod of the account, and the account with the annotations of the way.
fn manifest(setup: &Setup, account: &str) -> String {
    let annotations: serde_json::Map<_, _> =
        setup.request.annotations.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect();
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "app", "namespace": "team" },
        "spec": { "serviceAccountName": account, "containers": [{ "name": "app", "image": setup.image }] },
    });
    let account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": { "name": account, "namespace": "team", "annotations": annotations },
    });
    format!("{pod}\n---\n{account}\n")
}

#[test]
fn a_pod_logs_in_to_each_cloud_as_its_own_service_account() {
    for way in [Way::AwsAccount, Way::GoogleAccount, Way::AzureAccount] {
        let scene = Scene::new();
        scene.clouds.place(&small("mine").bundle(), "team/app", "v1");
        let setup = scene.clouds.setup(way);
        configure(&scene, &setup);
        scene.world.write("pod.yaml", manifest(&setup, "puller"));
        let ensure = |file: &str| {
            let mut command = scene.world.command(["ensure", "-f", file, "--config", "node.yaml"]);
            command.env_remove("WINDLASS_HOSTS_DIR");
            windlass_e2e::world::answer(command, None)
        };
        let answer = ensure("pod.yaml");
        assert_ne!(answer.code(), Some(0), "{way:?}: there is no token yet: {answer}");
        assert!(scene.clouds.calls().is_empty(), "{way:?}: nobody is asked without a token");

        fs::create_dir(scene.world.path("tokens/team")).expect("a directory");
        let token = scene.clouds.account_token(&Account::new("team", "puller"), &setup.request.audience, 600);
        fs::write(scene.world.path("tokens/team/puller"), &token).expect("a file");
        let answer = ensure("pod.yaml");
        assert_eq!(answer.code(), Some(0), "{way:?}: {answer}");
        let calls = scene.clouds.calls();
        let subject = "system:serviceaccount:team:puller";
        let came = calls.iter().any(|call| call.who.as_deref().is_some_and(|who| who.contains(subject)));
        assert!(came, "{way:?}: {calls:?}");
        scene.assert_no_secret("the output", &format!("{}{}", answer.stdout, answer.stderr));

        // Another account of the same namespace has no token, and so no image.
        scene.world.write("other.yaml", manifest(&setup, "other"));
        let answer = ensure("other.yaml");
        assert_ne!(answer.code(), Some(0), "{way:?}: {answer}");
    }
}
