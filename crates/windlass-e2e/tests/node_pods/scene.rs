//! The cluster of all cases, the registries of its images, and images that run.

use serde_json::{Value as Json, json};
use windlass_e2e::cluster::pods::{Pod, pull_secret};
use windlass_e2e::cluster::runtime::sandbox_image;
use windlass_e2e::cluster::{Cluster, Images, Options};
use windlass_registry::access::Action;
use windlass_registry::log::AccessRecord;
use windlass_registry::route::RouteKind;
use windlass_testkit::canary::Canary;
use windlass_testkit::images::{Bundle, Entry, Image, Layer};
use windlass_testkit::program::{Then, program};
use windlass_testkit::registry::TestRegistry;

/// Who may pull from the private registry.
pub(crate) const USER: &str = "puller";
/// Their password.
pub(crate) const PASSWORD: &str = "correct-horse-battery";
/// What somebody believes to be their password.
pub(crate) const WRONG_PASSWORD: &str = "incorrect-horse-battery";

/// The cluster, a registry that is open and one that asks for a token.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) open: TestRegistry,
    pub(crate) private: TestRegistry,
    images: Images,
}

impl Scene {
    /// Starts everything; `None`, said loudly, where the cluster cannot be had.
    pub(crate) fn new(test: &str) -> Option<Scene> {
        let images = match std::env::var("WINDLASS_CLUSTER_IMAGES").as_deref() {
            Ok("containerd") => Images::Containerd,
            _ => Images::Windlass,
        };
        let open = TestRegistry::open();
        let mut options = Options::new(images);
        if images == Images::Windlass {
            options.sandbox = Some(open.place(&sandbox_image().bundle(), "pause", "3.2"));
        }
        let cluster = Cluster::start(test, &options)?;
        let private = TestRegistry::build().bearer().user(USER, PASSWORD, "**", &[Action::Pull]).start();
        Some(Scene { cluster, open, private, images })
    }

    /// Whether `windlass node` serves the images.
    pub(crate) fn has_daemon(&self) -> bool {
        self.images == Images::Windlass
    }

    /// Makes a case's namespace and puts its image into the open registry.
    pub(crate) fn place(&self, case: &str, bundle: &Bundle) -> String {
        self.cluster.namespace(case);
        self.open.place(bundle, case, "v1")
    }

    /// The same with the private registry.
    pub(crate) fn place_private(&self, case: &str) -> String {
        self.cluster.namespace(case);
        self.private.place(&image(case).bundle(), case, "v1")
    }

    /// Gives a namespace the secret `pull` with this password for the private registry.
    pub(crate) fn give_secret(&self, namespace: &str, password: &str) {
        self.cluster.apply(&pull_secret(namespace, "pull", &self.private.host(), USER, password));
    }

    /// What was asked of a repository of the open registry.
    pub(crate) fn asked(&self, repository: &str) -> Vec<AccessRecord> {
        let requests = self.open.requests().into_iter();
        requests.filter(|request| request.repository.as_deref() == Some(repository)).collect()
    }

    /// The blobs among them.
    pub(crate) fn asked_blobs(&self, repository: &str) -> Vec<String> {
        let blobs = self.asked(repository).into_iter().filter(|request| request.route == RouteKind::Blob);
        blobs.map(|request| request.reference.unwrap_or_default()).collect()
    }

    /// No password reached a log, an event or a pod's status.
    pub(crate) fn assert_no_password_was_told(&self) {
        let pods = self.cluster.kubectl(["get", "pods,events", "-A", "-o", "json"]).output().expect("kubectl");
        for password in [PASSWORD, WRONG_PASSWORD] {
            let canary = Canary::new(password);
            canary.assert_absent("what the API server says of pods", &pods.stdout);
            if self.has_daemon() {
                canary.assert_absent("the daemon's log", self.cluster.node_output());
            }
        }
    }
}

/// An image whose program stays, with the marker in `/etc/marker`.
pub(crate) fn image(marker: &str) -> Image {
    with_config(marker, json!({ "Entrypoint": ["/app"] }))
}

/// The same with this `config`.
pub(crate) fn with_config(marker: &str, config: Json) -> Image {
    Image::build().layer(base()).layer(marked(marker)).config(config).finish()
}

/// The layer with the program and a user of its own.
pub(crate) fn base() -> Layer {
    Layer::new([
        Entry::file("app", program("", Then::Stays)).mode(0o755),
        Entry::dir("etc"),
        Entry::file("etc/passwd", "root:x:0:0::/:/app\napp:x:4321:8765::/:/app\n"),
        Entry::file("etc/group", "root:x:0:\napp:x:8765:\n"),
    ])
}

/// A layer with a marker.
pub(crate) fn marked(marker: &str) -> Layer {
    Layer::new([Entry::file("etc/marker", marker)])
}

/// The marker's place.
pub(crate) const MARKER: &str = "/etc/marker";

/// A pod under its case's name.
pub(crate) fn pod(case: &str, image: &str) -> Pod {
    Pod::new(case, "app", image)
}
