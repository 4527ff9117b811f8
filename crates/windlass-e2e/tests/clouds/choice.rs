//! Which identity is taken where there are several, and where the services are looked for.

use windlass_testkit::clouds::{Call, Clouds, Service, Setup, Way};

use crate::scene::{Scene, VERSION};

/// A setup without variables whose names begin so.
fn without(mut setup: Setup, prefix: &str) -> Setup {
    setup.environment.retain(|(name, _)| !name.starts_with(prefix));
    setup
}

fn with(mut setup: Setup, name: &str, value: String) -> Setup {
    setup.environment.push((name.to_owned(), value));
    setup
}

/// The service that gave the identity and what it was asked, `sts AssumeRole`.
fn identity(calls: &[Call]) -> String {
    let found = calls.iter().rev().find(|call| !matches!(call.service, Service::Ecr | Service::EcrPublic));
    found.map_or_else(String::new, |call| {
        format!("{} {}", call.service.name(), call.field("Action").unwrap_or_default()).trim_end().to_owned()
    })
}

#[test]
fn amazon_s_identities_are_taken_in_their_order() {
    let scene = Scene::new();
    // Each beside all before it.
    let mut environment = Vec::new();
    for (way, want) in [
        (Way::AwsInstance, "imds"),
        (Way::AwsContainer, "container"),
        (Way::AwsWebIdentity, "sts AssumeRoleWithWebIdentity"),
        (Way::AwsProfileRole, "sts AssumeRole"),
        (Way::AwsKeys, ""),
    ] {
        let mut setup = scene.clouds.setup(way);
        environment.append(&mut setup.environment);
        setup.environment.clone_from(&environment);
        scene.clouds.take_calls();
        let login = scene.ask_as(&setup, VERSION).login(setup.host());
        assert!(scene.accepts(&login), "{way:?}");
        let calls = scene.clouds.take_calls();
        assert_eq!(identity(&calls), want, "{way:?}: {calls:?}");
    }
    // The token of the request comes before all of them.
    let mut setup = scene.clouds.setup(Way::AwsAccount);
    setup.environment.clone_from(&environment);
    scene.ask_as(&setup, VERSION).login(setup.host());
    assert_eq!(identity(&scene.clouds.calls()), "sts AssumeRoleWithWebIdentity");
}

#[test]
fn the_next_identity_is_not_taken_when_one_fails() {
    let scene = Scene::new();
    let mut setup = scene.clouds.setup(Way::AwsWebIdentity);
    let missing = scene.world.path("missing-token").display().to_string();
    setup.environment.retain(|(name, _)| name != "AWS_WEB_IDENTITY_TOKEN_FILE");
    let setup = with(setup, "AWS_WEB_IDENTITY_TOKEN_FILE", missing);
    // The instance would have a role, which is somebody else's.
    scene.ask_as(&setup, VERSION).fails_with("AWS_WEB_IDENTITY_TOKEN_FILE");
    assert!(scene.clouds.calls().is_empty(), "{:?}", scene.clouds.calls());
}

#[test]
fn a_program_brings_keys_only_where_that_is_allowed() {
    let scene = Scene::new();
    let mut setup = scene.clouds.setup(Way::AwsProfileProgram);
    setup.arguments.clear();
    scene.ask_as(&setup, VERSION).fails_with("--allow-credential-process");
    assert!(scene.clouds.calls().is_empty(), "{:?}", scene.clouds.calls());
}

#[test]
fn the_instance_is_left_alone_where_that_is_said() {
    let scene = Scene::new();
    let setup = with(scene.clouds.setup(Way::AwsInstance), "AWS_EC2_METADATA_DISABLED", "true".to_owned());
    scene.ask_as(&setup, VERSION).fails_with("no identity");
    assert!(scene.clouds.calls().is_empty(), "{:?}", scene.clouds.calls());
}

#[test]
fn amazon_s_services_are_where_flags_or_one_variable_say() {
    let scene = Scene::new();
    let url = |service| scene.clouds.url(service);
    for way in [Way::AwsWebIdentity, Way::AwsInstance, Way::AwsPublic] {
        let mut setup = without(scene.clouds.setup(way), "AWS_ENDPOINT_URL");
        setup = without(setup, "AWS_EC2_METADATA_SERVICE_ENDPOINT");
        setup.arguments.push(format!("--ecr-endpoint={}", url(Service::Ecr)));
        setup.arguments.push(format!("--sts-endpoint={}", url(Service::Sts)));
        setup.arguments.push(format!("--imds-endpoint={}", url(Service::Imds)));
        assert!(scene.accepts(&scene.ask_as(&setup, VERSION).login(setup.host())), "{way:?} by flags");

        let setup = with(without(scene.clouds.setup(way), "AWS_ENDPOINT_URL"), "AWS_ENDPOINT_URL", url(Service::Sts));
        scene.clouds.take_calls();
        assert!(scene.accepts(&scene.ask_as(&setup, VERSION).login(setup.host())), "{way:?} by one variable");
        assert_eq!(scene.clouds.count(Service::Ecr) + scene.clouds.count(Service::EcrPublic), 0, "{way:?}");
    }
}

#[test]
fn google_s_and_azure_s_services_are_where_flags_or_variables_say() {
    let scene = Scene::new();
    let mut setup = without(scene.clouds.setup(Way::GoogleMachine), "GCE_METADATA_HOST");
    setup.arguments.push(format!("--gce-metadata={}", scene.clouds.url(Service::GceMetadata)));
    assert!(scene.accepts(&scene.ask_as(&setup, VERSION).login(setup.host())));

    let mut setup = scene.clouds.setup(Way::AzureAccount);
    setup.arguments.retain(|argument| !argument.starts_with("--aad-endpoint"));
    let setup = with(setup, "AZURE_AUTHORITY_HOST", scene.clouds.url(Service::Aad));
    assert!(scene.accepts(&scene.ask_as(&setup, VERSION).login(setup.host())));
}

#[test]
fn an_endpoint_elsewhere_is_asked_over_https_only() {
    let scene = Scene::new();
    for (way, flag) in [
        (Way::AwsKeys, "--ecr-endpoint=http://ecr.example"),
        (Way::AwsWebIdentity, "--sts-endpoint=http://sts.example"),
        (Way::GoogleAccount, "--google-sts-endpoint=http://sts.example"),
        (Way::AzureMachine, "--aad-endpoint=http://login.example"),
        (Way::AzureMachine, "--acr-endpoint=contoso.azurecr.io=http://contoso.example"),
    ] {
        let mut setup = scene.clouds.setup(way);
        let name = flag.split('=').next().unwrap_or_default();
        setup.arguments.retain(|argument| !argument.starts_with(name));
        setup.arguments.push(flag.to_owned());
        scene.ask_as(&setup, VERSION).fails_with("https");
    }
    assert!(scene.clouds.calls().is_empty(), "{:?}", scene.clouds.calls());
}

#[test]
fn a_container_s_keys_come_only_from_where_they_may() {
    let scene = Scene::new();
    for url in
        ["http://192.0.2.1/keys", "http://169.254.169.254/keys", "http://metadata.example/keys", "ftp://127.0.0.1/"]
    {
        let mut setup = scene.clouds.setup(Way::AwsContainerVariable);
        setup.environment.retain(|(name, _)| name != "AWS_CONTAINER_CREDENTIALS_FULL_URI");
        let setup = with(setup, "AWS_CONTAINER_CREDENTIALS_FULL_URI", url.to_owned());
        let asked = scene.ask_as(&setup, VERSION);
        asked.fails_with("AWS_CONTAINER_CREDENTIALS_FULL_URI");
        scene.assert_no_secret(url, &asked.0.stderr);
    }
    assert!(scene.clouds.calls().is_empty(), "{:?}", scene.clouds.calls());
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    let scene = Scene::of(Clouds::build().https().start());
    for way in [Way::AwsKeys, Way::GoogleAccount, Way::AzureMachine] {
        let mut setup = without(scene.clouds.setup(way), "AWS_CA_BUNDLE");
        setup.arguments.retain(|argument| !argument.starts_with("--ca-file"));
        scene.ask_as(&setup, VERSION).fails_with("certificate");
    }
    let behind_tls = |call: &&Call| !call.service.is_metadata();
    assert_eq!(scene.clouds.calls().iter().find(behind_tls).map(|call| call.service), None);
}
