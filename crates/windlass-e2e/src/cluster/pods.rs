//! Pods as tests write them, and what the API server says of them.

use serde_json::{Value as Json, json};

/// A pod of one container on the cluster's node.
#[derive(Clone, Debug)]
pub struct Pod {
    document: Json,
}

impl Pod {
    /// A pod that runs this image.
    pub fn new(namespace: &str, name: &str, image: &str) -> Pod {
        Pod {
            document: json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": { "namespace": namespace, "name": name },
                "spec": {
                    // There is neither a scheduler nor a network of the cluster's own.
                    "nodeName": super::NODE,
                    "hostNetwork": true,
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": 1,
                    "restartPolicy": "Always",
                    "containers": [{ "name": "main", "image": image }],
                },
            }),
        }
    }

    /// `imagePullPolicy`.
    pub fn policy(mut self, policy: &str) -> Pod {
        self.document["spec"]["containers"][0]["imagePullPolicy"] = policy.into();
        self
    }

    /// Another key of the pod's `spec`.
    pub fn with(mut self, key: &str, value: impl Into<Json>) -> Pod {
        self.document["spec"][key] = value.into();
        self
    }

    /// The Secrets for its images.
    pub fn pull_secret(self, name: &str) -> Pod {
        self.with("imagePullSecrets", json!([{ "name": name }]))
    }

    /// As the API server takes it.
    pub fn document(&self) -> &Json {
        &self.document
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.document["metadata"]["namespace"].as_str().expect("a namespace")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.document["metadata"]["name"].as_str().expect("a name")
    }
}

/// A Secret for images of one registry.
pub fn pull_secret(namespace: &str, name: &str, host: &str, user: &str, password: &str) -> Json {
    let config = json!({ "auths": { host: { "username": user, "password": password } } });
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "namespace": namespace, "name": name },
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": { ".dockerconfigjson": config.to_string() },
    })
}

/// What the API server says of a pod.
#[derive(Clone, Debug, Default)]
pub struct Status(pub(super) Json);

impl Status {
    fn container(&self) -> &Json {
        &self.0["status"]["containerStatuses"][0]
    }

    /// Whether its container runs.
    pub fn is_running(&self) -> bool {
        self.container()["state"]["running"].is_object()
    }

    /// Why its container waits.
    pub fn waiting(&self) -> Option<&str> {
        self.container()["state"]["waiting"]["reason"].as_str()
    }

    /// What is said about that.
    pub fn message(&self) -> &str {
        self.container()["state"]["waiting"]["message"].as_str().unwrap_or_default()
    }

    /// ID of its container, without the runtime's name.
    pub fn container_id(&self) -> Option<&str> {
        self.container()["containerID"].as_str()?.strip_prefix("containerd://")
    }

    /// The image that the container runs, as the kubelet tells it.
    pub fn image_id(&self) -> &str {
        self.container()["imageID"].as_str().unwrap_or_default()
    }

    /// How often its container was started again.
    pub fn restarts(&self) -> u64 {
        self.container()["restartCount"].as_u64().unwrap_or_default()
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0["status"])
    }
}
