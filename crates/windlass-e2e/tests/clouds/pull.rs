//! Pulls with the clouds that are built in: no program, no configuration of providers.

use std::process::Command;

use windlass_e2e::world::{Answer, answer};
use windlass_testkit::canary::Canary;
use windlass_testkit::clouds::{
    ACR_USER, Clouds, ECR_HOST, ECR_USER, GAR_HOST, GOOGLE_USER, On, Service, Setup, Trouble, Way,
};
use windlass_testkit::images::small;

use crate::scene::Scene;

/// Clouds with an image in their registry.
fn scene() -> Scene {
    let scene = Scene::of(Clouds::build().basic().start());
    for repository in ["team/app", "team/other"] {
        scene.clouds.place(&small(repository).bundle(), repository, "v1");
    }
    scene
}

impl Scene {
    /// A pull with the variables of a way; the image's host leads to the registry.
    fn pull(&self, setup: &Setup, more: &[(&str, &str)], images: &[&str]) -> Answer {
        let mut command: Command = self.world.command(["pull"]);
        command.args(images).env("WINDLASS_HOSTS_DIR", self.clouds.hosts_dir());
        command.envs(setup.environment.iter().cloned()).envs(more.iter().copied());
        answer(command, None)
    }

    /// Who came for the image.
    fn who_came(&self) -> Vec<String> {
        let requests = self.clouds.registry().take_requests().into_iter();
        let mut who: Vec<String> =
            requests.filter(|r| r.repository.is_some() && r.status.is_success()).filter_map(|r| r.identity).collect();
        who.dedup();
        who
    }
}

#[test]
fn a_pull_logs_in_by_the_identity_that_is_here() {
    for (way, switch, user) in [
        (Way::AwsKeys, None, ECR_USER),
        (Way::AwsProfile, None, ECR_USER),
        (Way::AwsProfileRole, None, ECR_USER),
        (Way::AwsProfileToken, None, ECR_USER),
        (Way::AwsProfileProgram, Some(("WINDLASS_CREDENTIALS_ECR_CREDENTIAL_PROCESS", "true")), ECR_USER),
        (Way::AwsWebIdentity, None, ECR_USER),
        (Way::AwsContainer, None, ECR_USER),
        (Way::AwsContainerVariable, None, ECR_USER),
        // Nothing but the machine itself says that it is one of Amazon's.
        (Way::AwsInstance, Some(("WINDLASS_CREDENTIALS_ECR", "on")), ECR_USER),
        (Way::AwsPublic, None, ECR_USER),
        (Way::GoogleMachine, None, GOOGLE_USER),
    ] {
        let scene = scene();
        let setup = scene.clouds.setup(way);
        let answer = scene.pull(&setup, switch.as_slice(), &[&setup.image]);
        assert_eq!(answer.code(), Some(0), "{way:?}: {answer}");
        assert_eq!(scene.who_came(), [user], "{way:?}: {answer}");
        for secret in scene.clouds.secrets() {
            let canary = Canary::new(&secret);
            canary.assert_absent("the output", format!("{}{}", answer.stdout, answer.stderr));
            let kept = canary.files_with(&scene.world.path("home"));
            assert!(kept.is_empty(), "{way:?}: a secret was written to {kept:?}");
            let kept = canary.files_with(&scene.world.root());
            assert!(kept.is_empty(), "{way:?}: a secret was written to {kept:?}");
        }
    }
}

#[test]
fn azure_s_file_is_enough_for_a_pull() {
    let scene = scene();
    let setup = scene.clouds.setup(Way::AzureSecret);
    let file = setup.arguments.first().expect("the file comes first").clone();
    let answer = scene.pull(&setup, &[("WINDLASS_CREDENTIALS_AZURE_CONFIG", &file)], &[&setup.image]);
    assert_eq!(answer.code(), Some(0), "{answer}");
    let who = scene.who_came();
    assert!(who.len() == 1 && who[0] != ACR_USER, "an application logs in as itself: {who:?}");
}

#[test]
fn one_login_is_enough_for_all_images_of_a_registry() {
    let scene = scene();
    let setup = scene.clouds.setup(Way::AwsKeys);
    let images = ["team/app:v1", "team/other:v1"].map(|name| format!("{ECR_HOST}/{name}"));
    let answer = scene.pull(&setup, &[], &[&images[0], &images[1]]);
    assert_eq!(answer.code(), Some(0), "{answer}");
    assert_eq!(scene.clouds.count(Service::Ecr), 1, "{:?}", scene.clouds.calls());
}

#[test]
fn a_cloud_that_is_switched_off_is_not_asked() {
    let scene = scene();
    for (way, off) in
        [(Way::AwsKeys, ("WINDLASS_CREDENTIALS_ECR", "off")), (Way::GoogleMachine, ("WINDLASS_CREDENTIALS_GCP", "off"))]
    {
        let setup = scene.clouds.setup(way);
        let answer = scene.pull(&setup, &[off], &[&setup.image, "-o", "json"]);
        assert_ne!(answer.code(), Some(0), "{answer}");
        assert!(scene.clouds.calls().is_empty(), "{:?}", scene.clouds.calls());
    }
}

#[test]
fn a_cloud_is_asked_only_for_its_own_registries() {
    let scene = scene();
    let setup = scene.clouds.setup(Way::AwsKeys);
    let answer = scene.pull(&setup, &[], &[&format!("{GAR_HOST}/team/app:v1")]);
    assert_ne!(answer.code(), Some(0), "nobody has a login for that: {answer}");
    assert!(scene.clouds.calls().is_empty(), "{:?}", scene.clouds.calls());
}

#[test]
fn a_cloud_that_refuses_is_named_by_the_failed_pull() {
    let scene = scene();
    for (way, service, trouble, words) in [
        (Way::AwsKeys, Service::Ecr, Trouble::Refused, "ecr:GetAuthorizationToken"),
        (Way::AwsWebIdentity, Service::Sts, Trouble::Refused, "AccessDenied"),
        (Way::GoogleMachine, Service::GceMetadata, Trouble::Refused, "metadata server"),
    ] {
        scene.clouds.disturb(On::service(service), trouble);
        let setup = scene.clouds.setup(way);
        let answer = scene.pull(&setup, &[], &[&setup.image]);
        assert_ne!(answer.code(), Some(0), "{answer}");
        assert!(answer.stderr.contains(words), "{way:?}: {answer}");
        scene.clouds.calm();
    }
}

#[test]
fn an_image_for_everybody_needs_no_cloud() {
    let scene = Scene::of(Clouds::start());
    scene.clouds.place(&small("open").bundle(), "open/app", "v1");
    for (way, service, trouble) in [
        (Way::AwsPublic, Service::EcrPublic, Trouble::Refused),
        (Way::AwsWebIdentity, Service::Sts, Trouble::Expired),
        (Way::GoogleMachine, Service::GceMetadata, Trouble::Refused),
    ] {
        scene.clouds.disturb(On::service(service), trouble.clone());
        let setup = scene.clouds.setup(way);
        let answer = scene.pull(&setup, &[], &[&format!("{}/open/app:v1", setup.host())]);
        assert_eq!(answer.code(), Some(0), "{way:?} {trouble:?}: {answer}");
        assert!(scene.clouds.count(service) > 0, "{way:?}: it was asked");
        scene.clouds.calm();
    }
}

#[test]
fn troubles_that_pass_do_not_stop_a_pull() {
    let scene = scene();
    for (way, service, trouble) in [
        (Way::AwsKeys, Service::Ecr, Trouble::Throttled { retry_after_seconds: None }),
        (Way::AwsWebIdentity, Service::Sts, Trouble::Reset),
        (Way::GoogleMachine, Service::GceMetadata, Trouble::Status(503)),
    ] {
        scene.clouds.disturb(On::service(service).first(1), trouble.clone());
        let setup = scene.clouds.setup(way);
        let answer = scene.pull(&setup, &[], &[&setup.image]);
        assert_eq!(answer.code(), Some(0), "{way:?} {trouble:?}: {answer}");
        scene.clouds.calm();
    }
}

#[test]
fn credentials_tells_which_cloud_would_be_asked_and_what_the_registry_says() {
    let scene = scene();
    let setup = scene.clouds.setup(Way::AwsKeys);
    let show = || {
        let mut command: Command = scene.world.command(["credentials", &setup.image, "--verify", "-o", "json"]);
        command.env("WINDLASS_HOSTS_DIR", scene.clouds.hosts_dir()).envs(setup.environment.iter().cloned());
        answer(command, None)
    };
    let told = show();
    assert_eq!(told.code(), Some(0), "{told}");
    assert!(told.stdout.contains("cloud ecr") && told.stdout.contains("accepted"), "{told}");
    scene.assert_no_secret("what is told", &format!("{}{}", told.stdout, told.stderr));
    scene.clouds.disturb(On::service(Service::Ecr), Trouble::Refused);
    let told = show();
    assert!(told.stdout.contains("AccessDeniedException"), "{told}");
}
