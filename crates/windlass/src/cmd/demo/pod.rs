//! The pod of the demonstration, and the secrets it names, as Kubernetes manifests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use windlass_core::dockerconfig::{LoginEntry, write_config_json};
use windlass_core::secret::Secret;

/// The users of the registry and their passwords; they live as long as the demonstration.
pub(super) const USERS: [(&str, &str); 2] = [("team-a", "correct-horse"), ("team-b", "battery-staple")];

/// A container and what must become of it.
pub(super) struct Container {
    pub(super) name: &'static str,
    pub(super) repository: &'static str,
    pub(super) about: &'static str,
    pub(super) is_refused: bool,
}

pub(super) const CONTAINERS: [Container; 4] = [
    Container { name: "public", repository: "public/hello", about: "a public image", is_refused: false },
    Container {
        name: "private",
        repository: "team-a/app",
        about: "a private image, by the pod's secret for team-a",
        is_refused: false,
    },
    Container {
        name: "platform",
        repository: "public/multi",
        about: "one platform of an index with three",
        is_refused: false,
    },
    Container {
        name: "refused",
        repository: "team-b/app",
        about: "a private image, with a wrong password in the secret for team-b",
        is_refused: true,
    },
];

/// The manifests: two secrets, one of them wrong, and a pod.
pub(super) fn manifests(registry: &str) -> String {
    let mut text = secret("pull-team-a", registry, "team-a", USERS[0].1);
    text.push_str(&secret("pull-team-b", registry, "team-b", "not-the-password"));
    text.push_str(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: demo\n  namespace: demo\nspec:\n  imagePullSecrets:\n  \
         - name: pull-team-a\n  - name: pull-team-b\n  containers:\n",
    );
    for Container { name, repository, .. } in &CONTAINERS {
        text.push_str(&format!("  - name: {name}\n    image: {registry}/{repository}:1\n"));
    }
    text
}

fn secret(name: &str, registry: &str, user: &str, password: &str) -> String {
    let login = LoginEntry {
        registry: format!("{registry}/{user}/"),
        username: user.to_owned(),
        password: Secret::from(password),
    };
    let data = STANDARD.encode(write_config_json(&[login]).expose());
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: demo\n\
         type: kubernetes.io/dockerconfigjson\ndata:\n  .dockerconfigjson: {data}\n---\n"
    )
}
