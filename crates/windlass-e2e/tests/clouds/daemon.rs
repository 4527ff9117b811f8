//! The daemon with the clouds that are built in: logins that it keeps, and what becomes of those that hold no longer.

use std::time::Duration;

use tonic::Status;
use windlass_e2e::cluster::wait::until;
use windlass_e2e::cri::ImageService;
use windlass_e2e::node::LoneNode;
use windlass_e2e::world::World;
use windlass_testkit::canary::Canary;
use windlass_testkit::clouds::{Clouds, ECR_HOST, ECR_USER, On, Service, Trouble, Way};
use windlass_testkit::images::small;

/// Longest wait for a new login.
const AGAIN_LIMIT: Duration = Duration::from_secs(20);

/// A daemon on a machine of Amazon's.
struct Scene {
    clouds: Clouds,
    node: LoneNode,
    images: ImageService,
}

impl Scene {
    fn new() -> Scene {
        let clouds = Clouds::start();
        for repository in ["first", "second", "third"] {
            clouds.place(&small(repository).bundle(), repository, "v1");
        }
        let hosts = ("WINDLASS_HOSTS_DIR".to_owned(), clouds.hosts_dir().display().to_string());
        let environment = clouds.setup(Way::AwsInstance).environment.into_iter().chain([hosts]);
        let world = World::new().with(environment);
        let node = LoneNode::configured(world, serde_json::json!({ "credentials": { "ecr": "on" } }));
        let images = ImageService::at(node.socket());
        Scene { clouds, node, images }
    }

    fn pull(&self, repository: &str) -> Result<String, Box<Status>> {
        self.images.pull(&format!("{ECR_HOST}/{repository}:v1")).map_err(Box::new)
    }
}

#[test]
fn the_daemon_keeps_a_login_and_asks_anew_once_a_registry_refuses_it() {
    let scene = Scene::new();
    scene.pull("first").expect("the login is good");
    scene.pull("second").expect("it still is");
    assert_eq!(scene.clouds.count(Service::Ecr), 1, "a login is kept");
    scene.clouds.revoke_all();
    // A login of less than a second is not asked for again; a kubelet, too, would try once more.
    let pulled = until(AGAIN_LIMIT, || scene.pull("third").ok());
    assert!(pulled.is_some(), "{}", scene.node.output());
    assert_eq!(scene.clouds.count(Service::Ecr), 2, "and asked for again when it is refused");
    let requests = scene.clouds.registry().requests();
    assert!(requests.iter().filter(|r| r.repository.is_some() && r.status.is_success()).all(|r| {
        // A token is asked for with the login; the rest comes with the token.
        r.identity.as_deref() == Some(ECR_USER)
    }));
    for secret in scene.clouds.secrets() {
        Canary::new(&secret).assert_absent("the daemon's log", scene.node.output());
    }
}

#[test]
fn a_cloud_that_refuses_is_named_to_the_kubelet() {
    let scene = Scene::new();
    scene.clouds.disturb(On::service(Service::Ecr), Trouble::Refused);
    let error = scene.pull("first").expect_err("nobody has a login");
    let words = error.message();
    assert!(words.contains("cloud ecr") && words.contains("AccessDeniedException"), "{words}");
    scene.clouds.calm();
}
