//! The kubelet.

use std::fs;
use std::path::Path;

use serde_json::{Value as Json, json};
use windlass_testkit::tools::free_port;

use super::Options;
use super::daemon::Daemon;
use super::enclosure::Enclosure;

/// What a kubelet needs to know.
#[derive(Debug)]
pub(super) struct Kubelet<'c> {
    pub(super) programs: &'c Path,
    pub(super) folder: &'c Path,
    /// How it reaches the API server.
    pub(super) user: &'c Path,
    /// Its runtime.
    pub(super) runtime: &'c Path,
    /// Its image service, where that is another.
    pub(super) images: Option<&'c Path>,
    /// The image of sandboxes.
    pub(super) sandbox_image: &'c str,
    /// What a test wants to be otherwise.
    pub(super) options: &'c Options,
}

impl Kubelet<'_> {
    /// Starts it. Whether it is ready the API server knows.
    pub(super) fn start(&self, enclosure: &Enclosure) -> Daemon {
        let config = self.folder.join("kubelet.json");
        fs::write(&config, self.configuration().to_string()).expect("a file");
        let mut command = enclosure.command(self.programs.join("kubelet"));
        command.arg("--config").arg(config).arg("--kubeconfig").arg(self.user);
        command.arg("--root-dir").arg(self.folder.join("kubelet")).arg("--container-runtime=remote");
        command.arg(format!("--container-runtime-endpoint=unix://{}", self.runtime.display()));
        if let Some(images) = self.images {
            command.arg(format!("--image-service-endpoint=unix://{}", images.display()));
        }
        // This image it does not collect; sandboxes do not count as its users.
        command.arg(format!("--pod-infra-container-image={}", self.sandbox_image));
        command.arg(format!("--hostname-override={}", super::NODE)).arg("--v=2");
        command.args(&self.options.kubelet_arguments).envs(self.options.kubelet_environment.iter().cloned());
        Daemon::start("kubelet", command, self.folder)
    }

    fn configuration(&self) -> Json {
        let mut configuration = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "port": free_port(),
            "readOnlyPort": 0,
            "healthzPort": 0,
            // Nobody is anybody to it: its port offers a shell in every container.
            "authentication": { "anonymous": { "enabled": false }, "webhook": { "enabled": false } },
            "authorization": { "mode": "AlwaysAllow" },
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": false,
            "enforceNodeAllocatable": [],
            "failSwapOn": false,
            "resolvConf": "",
            "serializeImagePulls": false,
            "registryPullQPS": 0,
            "evictionHard": { "memory.available": "1Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
        });
        if let (Some(all), Some(changes)) = (configuration.as_object_mut(), self.options.kubelet.as_object()) {
            all.extend(changes.clone());
        }
        configuration
    }
}
