//! `windlass credential-provider` as a kubelet runs it.

use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::json;
use windlass_e2e::world::subject;
use windlass_testkit::clouds::{Clouds, ECR_FIPS_HOST, ECR_HOST, ECR_USER, GCR_HOST, Service, Way};

use crate::scene::{Scene, VERSION};

#[test]
fn every_way_gives_a_login_that_the_registry_accepts() {
    let scene = Scene::new();
    for way in Way::ALL {
        let setup = scene.clouds.setup(way);
        scene.clouds.take_calls();
        let asked = scene.ask_as(&setup, VERSION);
        let login = asked.login(setup.host());
        assert!(scene.accepts(&login), "{way:?}: {login:?}");
        assert_eq!(login.key_type, "Registry", "{way:?}");
        let calls = scene.clouds.take_calls();
        assert!(calls.iter().all(|call| call.status < 300 || call.path == "/v2/"), "{way:?}: {calls:?}");
        let identity = way.identity_service();
        assert!(identity.is_none_or(|service| calls.iter().any(|c| c.service == service)), "{way:?}: {calls:?}");
        scene.assert_no_secret("standard error", &asked.0.stderr);
    }
}

#[test]
fn every_way_goes_over_https_with_a_ca_of_its_own() {
    let scene = Scene::of(Clouds::build().https().basic().start());
    for way in Way::ALL {
        let setup = scene.clouds.setup(way);
        let login = scene.ask_as(&setup, VERSION).login(setup.host());
        assert!(scene.accepts(&login), "{way:?}: {login:?}");
    }
}

#[test]
fn each_version_is_answered_in_itself() {
    let scene = Scene::new();
    for way in [Way::AwsKeys, Way::GoogleMachine, Way::AzureMachine] {
        for version in ["v1alpha1", "v1beta1", "v1"] {
            let setup = scene.clouds.setup(way);
            let asked = scene.ask_as(&setup, version);
            assert!(scene.accepts(&asked.login(setup.host())), "{way:?} {version}");
            let want = format!("credentialprovider.kubelet.k8s.io/{version}");
            assert_eq!(asked.0.json()["apiVersion"], json!(want), "{way:?}");
        }
    }
}

#[test]
fn it_also_goes_by_the_names_of_the_programs_it_stands_in_for() {
    let scene = Scene::new();
    for (way, name, word) in [
        (Way::AwsKeys, "ecr-credential-provider", None),
        (Way::GoogleMachine, "auth-provider-gcp", Some("get-credentials")),
        (Way::AzureMachine, "acr-credential-provider", None),
    ] {
        let setup = scene.clouds.setup(way);
        let link = scene.world.path(name);
        symlink(subject(), &link).expect("a link");
        let mut command = Command::new(link);
        command.env_clear().env("HOME", scene.world.path("home")).args(word).args(&setup.arguments);
        let asked = scene.finish(command, &setup, VERSION);
        assert!(scene.accepts(&asked.login(setup.host())), "{name}");
    }
}

#[test]
fn an_image_of_somebody_else_is_answered_with_nothing_and_nobody_is_asked() {
    let scene = Scene::new();
    for way in [Way::AwsInstance, Way::GoogleMachine, Way::AzureMachine] {
        for image in [
            "quay.io/team/app:v1",
            "nginx",
            "evil.example/123456789012.dkr.ecr.eu-central-1.amazonaws.com/app",
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com.evil.example/app",
            "evil.example/contoso.azurecr.io/app",
            "contoso.azurecr.io.evil.example/app",
            "contoso.data.azurecr.io/app",
            "eu.gcr.io.evil.example/app",
            "evil.example/gcr.io/app",
        ] {
            let mut setup = scene.clouds.setup(way);
            image.clone_into(&mut setup.image);
            scene.ask_as(&setup, VERSION).is_nothing();
        }
    }
    assert!(scene.clouds.calls().is_empty(), "{:?}", scene.clouds.calls());
}

#[test]
fn the_region_and_the_service_are_those_of_the_image() {
    let scene = Scene::new();
    for (image, want) in [
        (ECR_HOST, ("eu-central-1", "ecr")),
        (ECR_FIPS_HOST, ("us-gov-west-1", "ecr")),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", ("cn-north-1", "ecr")),
        ("123456789012.dkr-ecr.ap-south-1.on.aws", ("ap-south-1", "ecr")),
        ("public.ecr.aws", ("us-east-1", "ecr-public")),
    ] {
        let mut setup = scene.clouds.setup(Way::AwsKeys);
        setup.image = format!("{image}/team/app:v1");
        // The machine stands elsewhere, which is of no interest.
        setup.environment.push(("AWS_REGION".to_owned(), "sa-east-1".to_owned()));
        scene.clouds.take_calls();
        let login = scene.ask_as(&setup, VERSION).login(image);
        assert!(login.user == ECR_USER && scene.accepts(&login), "{image}");
        let calls = scene.clouds.take_calls();
        let signed = calls.iter().find_map(|call| call.signed.clone()).expect("a signature");
        assert_eq!((signed.region.as_str(), signed.service.as_str()), want, "{image}");
    }
}

#[test]
fn the_answer_has_no_other_host_than_the_image_s() {
    let scene = Scene::new();
    for way in [Way::AwsKeys, Way::AwsPublic, Way::GoogleMachine, Way::AzureMachine, Way::AzureSecret] {
        let setup = scene.clouds.setup(way);
        let json = scene.ask_as(&setup, VERSION).0.json();
        for (key, login) in json["auth"].as_object().expect("logins") {
            // For kubelets, which make no anonymous attempt of their own.
            let is_anonymous = login["username"] == "" && login["password"] == "";
            assert!(key == setup.host() || is_anonymous, "{way:?}: {key}");
        }
    }
    let mut setup = scene.clouds.setup(Way::GoogleMachine);
    setup.image = format!("{GCR_HOST}/team/app");
    scene.ask_as(&setup, VERSION).login(GCR_HOST);
}

#[test]
fn the_request_s_own_token_wins_over_the_machine() {
    let scene = Scene::new();
    for (way, machine) in [
        (Way::AwsAccount, Service::Imds),
        (Way::GoogleAccount, Service::GceMetadata),
        (Way::AzureAccount, Service::AzureImds),
    ] {
        let setup = scene.clouds.setup(way);
        scene.ask_as(&setup, VERSION).login(setup.host());
        assert_eq!(scene.clouds.count(machine), 0, "{way:?}");
        let calls = scene.clouds.take_calls();
        let subject = "system:serviceaccount:team:puller";
        assert!(calls.iter().any(|c| c.who.as_deref().is_some_and(|who| who.contains(subject))), "{way:?}: {calls:?}");
    }
}

#[test]
fn a_request_s_token_without_what_it_needs_does_not_fall_back_to_the_machine() {
    let scene = Scene::new();
    let mut setup = scene.clouds.setup(Way::AwsAccount);
    setup.request.annotations.clear();
    scene.ask_as(&setup, VERSION).fails_with("role");
    let mut setup = scene.clouds.setup(Way::GoogleAccount);
    setup.request.token = None;
    scene.ask_as(&setup, VERSION).fails_with("token");
    assert_eq!(scene.clouds.count(Service::Imds) + scene.clouds.count(Service::GceMetadata), 0);
}

#[test]
fn bad_requests_are_failures_in_one_line() {
    let scene = Scene::new();
    let setup = scene.clouds.setup(Way::GoogleMachine);
    for (request, words) in [
        (String::new(), "request"),
        ("{".to_owned(), "JSON"),
        (json!({ "kind": "Pod", "apiVersion": "v1" }).to_string(), "CredentialProviderRequest"),
        (setup.request("v2").to_string(), "version of the request"),
        (setup.request(VERSION).to_string().replace(&setup.image, "no image at all"), "image"),
        ("x".repeat(2 << 20), ""),
    ] {
        let mut command = scene.world.command(["credential-provider", "gcp"]);
        let file = scene.world.write("bad.json", &request);
        command.args(&setup.arguments).stdin(std::fs::File::open(file).expect("it was written"));
        let answer = windlass_e2e::world::answer(command, None);
        crate::scene::Asked(answer).fails_with(words);
    }
    assert!(scene.clouds.calls().is_empty());
}
