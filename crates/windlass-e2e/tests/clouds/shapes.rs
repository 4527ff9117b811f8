//! Answers as the clouds write them, on good days and odd ones.

use std::time::Duration;

use windlass_testkit::clouds::{Expiry, On, Realm, Service, Trouble, Way};
use windlass_testkit::faults::FaultyRegistry;

use crate::scene::{Scene, VERSION};

/// Seconds of a Go duration of hours, minutes and seconds.
fn seconds(duration: &str) -> u64 {
    let mut total = 0;
    let mut number = 0;
    for letter in duration.chars() {
        match letter {
            '0'..='9' => number = number * 10 + u64::from(letter.to_digit(10).unwrap_or(0)),
            'h' => total += std::mem::take(&mut number) * 3600,
            'm' => total += std::mem::take(&mut number) * 60,
            's' => total += std::mem::take(&mut number),
            _ => panic!("{duration}"),
        }
    }
    total
}

#[test]
fn an_ecr_login_may_be_kept_for_half_of_its_life() {
    let scene = Scene::new();
    let near = |want: u64| move |cache: Option<&str>| cache.is_some_and(|c| seconds(c).abs_diff(want) <= 60);
    type Right = Box<dyn Fn(Option<&str>) -> bool>;
    let table: [(Expiry, Right); 4] = [
        (Expiry::Decimal, Box::new(near(6 * 3600))),
        (Expiry::Whole, Box::new(near(6 * 3600))),
        (Expiry::Absent, Box::new(|cache| cache == Some("0s"))),
        (Expiry::Past, Box::new(|cache| cache.is_none())),
    ];
    for (expiry, is_right) in table {
        for way in [Way::AwsKeys, Way::AwsPublic] {
            scene.clouds.set(|settings| settings.ecr_expiry = expiry);
            let setup = scene.clouds.setup(way);
            let login = scene.ask_as(&setup, VERSION).login(setup.host());
            assert!(is_right(login.cache.as_deref()), "{way:?} {expiry:?}: {:?}", login.cache);
            assert!(scene.accepts(&login));
        }
    }
}

#[test]
fn a_colon_belongs_to_the_password() {
    let scene = Scene::new();
    scene.clouds.set(|settings| settings.ecr_password_has_colon = true);
    let setup = scene.clouds.setup(Way::AwsKeys);
    let login = scene.ask_as(&setup, VERSION).login(setup.host());
    assert!(login.password.contains(':') && scene.accepts(&login));
}

#[test]
fn an_empty_list_of_ecr_is_a_failure() {
    let scene = Scene::new();
    scene.clouds.set(|settings| settings.ecr_is_empty = true);
    scene.ask(Way::AwsKeys).fails_with("authoriz");
    scene.ask(Way::AwsPublic).fails_with("authoriz");
}

#[test]
fn a_clock_that_is_wrong_is_put_right_by_the_answer() {
    let scene = Scene::new();
    for ahead in [3600, -3600] {
        scene.clouds.set(|settings| settings.clock_ahead_seconds = ahead);
        for way in [Way::AwsKeys, Way::AwsProfileRole] {
            scene.clouds.take_calls();
            let setup = scene.clouds.setup(way);
            let login = scene.ask_as(&setup, VERSION).login(setup.host());
            assert!(scene.accepts(&login), "{way:?} {ahead}");
            let refused = scene.clouds.calls().iter().filter(|call| call.status >= 400).count();
            assert!((1..=2).contains(&refused), "{way:?} {ahead}: {:?}", scene.clouds.calls());
        }
    }
}

#[test]
fn a_google_login_may_be_kept_for_less_than_its_life() {
    let scene = Scene::new();
    for (life, want) in [(3599, 3000), (400, 100), (200, 0)] {
        scene.clouds.set(|settings| settings.google_life = Duration::from_secs(life));
        let setup = scene.clouds.setup(Way::GoogleMachine);
        let login = scene.ask_as(&setup, VERSION).login(setup.host());
        let cache = seconds(login.cache.as_deref().expect("a duration"));
        assert!(cache.abs_diff(want) <= 5, "{life}: {cache}");
        assert!(scene.accepts(&login));
    }
}

#[test]
fn google_s_variables_say_how_a_login_is_kept() {
    let scene = Scene::new();
    let mut setup = scene.clouds.setup(Way::GoogleMachine);
    setup.environment.push(("KUBE_SIDECAR_CACHE_TYPE".to_owned(), "image".to_owned()));
    setup.environment.push(("KUBE_SIDECAR_CACHE_DURATION".to_owned(), "90s".to_owned()));
    let login = scene.ask_as(&setup, VERSION).login(setup.host());
    assert_eq!((login.key_type.as_str(), login.cache.as_deref().map(seconds)), ("Image", Some(90)));
    setup.environment.push(("KUBE_SIDECAR_CACHE_TYPE".to_owned(), "sometimes".to_owned()));
    scene.ask_as(&setup, VERSION).fails_with("KUBE_SIDECAR_CACHE_TYPE");
}

#[test]
fn a_google_attribute_with_logins_is_one_more_way() {
    let scene = Scene::new();
    scene.clouds.users().admit("robot", "from-the-attribute".into(), None);
    let mut setup = scene.clouds.setup(Way::GoogleMachine);
    setup.arguments.push("--authFlow=dockercfg".to_owned());
    let auth = r#"{"HOST":{"username":"robot","password":"from-the-attribute"}}"#.replace("HOST", setup.host());
    scene.clouds.set(|settings| {
        settings.google_attributes.insert("google-dockercfg".to_owned(), auth);
    });
    let login = scene.ask_as(&setup, VERSION).login(setup.host());
    assert!(login.user == "robot" && scene.accepts(&login));
}

#[test]
fn who_is_no_google_metadata_server_is_not_believed() {
    let scene = Scene::new();
    scene.clouds.set(|settings| settings.google_flavor = false);
    scene.ask(Way::GoogleMachine).fails_with("metadata");
}

#[test]
fn azure_s_numbers_may_be_text_or_not() {
    let scene = Scene::new();
    for expiry in [Expiry::Text, Expiry::Whole, Expiry::Absent] {
        scene.clouds.set(|settings| settings.azure_expiry = expiry);
        let setup = scene.clouds.setup(Way::AzureMachine);
        let login = scene.ask_as(&setup, VERSION).login(setup.host());
        assert!(scene.accepts(&login), "{expiry:?}");
        assert_eq!(login.cache.as_deref().map(seconds), Some(3600), "{expiry:?}");
    }
}

#[test]
fn an_unknown_identity_of_azure_is_a_failure_that_says_so() {
    let scene = Scene::new();
    scene.clouds.set(|settings| settings.azure_has_system_identity = false);
    scene.ask(Way::AzureMachine).fails_with("identity not found");
}

#[test]
fn a_token_of_azure_goes_to_no_realm_elsewhere() {
    let scene = Scene::new();
    let thief = FaultyRegistry::open();
    let elsewhere = [
        Realm::Url(format!("{}/oauth2/token", thief.url())),
        Realm::Url("https://evil.azurecr.io/oauth2/token".to_owned()),
        Realm::Url("https://contoso.azurecr.io.evil.example/oauth2/token".to_owned()),
        Realm::Url("http://contoso.azurecr.io/oauth2/token".to_owned()),
        Realm::Url("https://contoso.azurecr.io@evil.example/oauth2/token".to_owned()),
    ];
    for realm in elsewhere {
        scene.clouds.set(|settings| settings.acr_realm = realm.clone());
        scene.clouds.take_calls();
        let asked = scene.ask(Way::AzureMachine);
        asked.fails_with("contoso.azurecr.io");
        assert!(!scene.clouds.calls().iter().any(|call| call.path == "/oauth2/exchange"), "{realm:?}");
        scene.assert_no_secret("standard error", &asked.0.stderr);
    }
    assert!(thief.requests().is_empty(), "{:?}", thief.requests());
}

#[test]
fn odd_challenges_of_azure_are_answered_without_a_crash() {
    let scene = Scene::new();
    let good = "realm=https://contoso.azurecr.io/oauth2/token,service=contoso.azurecr.io";
    scene.clouds.set(|settings| settings.acr_challenge = Some(format!("Bearer {good}")));
    let setup = scene.clouds.setup(Way::AzureMachine);
    assert!(scene.accepts(&scene.ask_as(&setup, VERSION).login(setup.host())), "unquoted values are values");
    for challenge in ["Bearer", "Basic realm=\"x\"", "Bearer realm=\"", "Bearer realm=\"https://contoso.azurecr.io", ""]
    {
        scene.clouds.set(|settings| settings.acr_challenge = Some(challenge.to_owned()));
        scene.ask(Way::AzureMachine).fails_with("");
    }
}

#[test]
fn redirects_are_not_followed_with_an_identity() {
    let scene = Scene::new();
    for (way, service) in [
        (Way::AwsKeys, Service::Ecr),
        (Way::AwsWebIdentity, Service::Sts),
        (Way::AwsInstance, Service::Imds),
        (Way::AwsContainer, Service::Container),
        (Way::GoogleMachine, Service::GceMetadata),
        (Way::GoogleAccount, Service::GoogleSts),
        (Way::AzureMachine, Service::AzureImds),
        (Way::AzureAccount, Service::Aad),
        (Way::AzureMachine, Service::Acr),
    ] {
        let thief = FaultyRegistry::open();
        scene.clouds.disturb(On::service(service), Trouble::Elsewhere(format!("{}/latest", thief.url())));
        let asked = scene.ask(way);
        asked.fails_with("");
        assert!(thief.requests().is_empty(), "{way:?} {service:?}: {:?}", thief.requests());
        scene.assert_no_secret("standard error", &asked.0.stderr);
        scene.clouds.calm();
    }
}
