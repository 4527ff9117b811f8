//! Where configuration files are looked for.
//!
//! Source of truth: kubernetes `pkg/credentialprovider/config.go` for nodes, docker/cli and containers/image
//! (`containers-auth.json(5)`) for people.

use std::path::{Path, PathBuf};

/// The kubelet's search: all `config.json` places before any `.dockercfg` place, the first usable file wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePlaces {
    /// Directories that may hold a `config.json`.
    pub config_json: Vec<PathBuf>,
    /// Directories that may hold a `.dockercfg`.
    pub dockercfg: Vec<PathBuf>,
}

impl NodePlaces {
    /// The kubelet's list. `root` is its root directory, usually `/var/lib/kubelet`; `working` the current directory,
    /// which a daemon of ours leaves out unless asked; `home` the value of `HOME`.
    pub fn kubelet(root: &Path, working: Option<&Path>, home: Option<&Path>) -> NodePlaces {
        let before = || std::iter::once(root).chain(working).map(Path::to_owned);
        NodePlaces {
            config_json: before().chain(home.map(|h| h.join(".docker"))).chain([PathBuf::from("/.docker")]).collect(),
            dockercfg: before().chain(home.map(Path::to_owned)).chain([PathBuf::from("/")]).collect(),
        }
    }

    /// The files in the order of the search.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let new = self.config_json.iter().map(|dir| dir.join("config.json"));
        new.chain(self.dockercfg.iter().map(|dir| dir.join(".dockercfg"))).collect()
    }
}

/// What tells where a person's logins are: environment variables and the user ID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// `REGISTRY_AUTH_FILE`, a file of podman's kind.
    pub registry_auth_file: Option<PathBuf>,
    /// `DOCKER_CONFIG`, a directory.
    pub docker_config: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`, or `/run/containers/UID` joined in its place by podman for root.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub xdg_config_home: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// Directory where podman keeps logins if there is no `XDG_RUNTIME_DIR`.
    pub run_containers: Option<PathBuf>,
}

impl Person {
    /// The caller of this process.
    pub fn from_environment() -> Person {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let uid = rustix::process::getuid().as_raw();
        Person {
            registry_auth_file: path("REGISTRY_AUTH_FILE"),
            docker_config: path("DOCKER_CONFIG"),
            xdg_runtime_dir: path("XDG_RUNTIME_DIR"),
            xdg_config_home: path("XDG_CONFIG_HOME"),
            home: path("HOME"),
            run_containers: Some(PathBuf::from(format!("/run/containers/{uid}"))),
        }
    }

    /// The files, most deliberate choice first. Each of them counts, unlike those of a node.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let join = |base: &Option<PathBuf>, tail: &str| base.as_ref().map(|base| base.join(tail));
        let runtime = match &self.xdg_runtime_dir {
            Some(_) => join(&self.xdg_runtime_dir, "containers/auth.json"),
            None => join(&self.run_containers, "auth.json"),
        };
        let config_home = match &self.xdg_config_home {
            Some(_) => join(&self.xdg_config_home, "containers/auth.json"),
            None => join(&self.home, ".config/containers/auth.json"),
        };
        let docker = match &self.docker_config {
            Some(_) => join(&self.docker_config, "config.json"),
            None => join(&self.home, ".docker/config.json"),
        };
        let all =
            [self.registry_auth_file.clone(), join(&self.docker_config, "config.json"), runtime, config_home, docker];
        let mut files: Vec<PathBuf> = Vec::new();
        for file in all.into_iter().chain([join(&self.home, ".dockercfg")]).flatten() {
            if !files.contains(&file) {
                files.push(file);
            }
        }
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_s_list_is_the_kubelet_s() {
        let places =
            NodePlaces::kubelet(Path::new("/var/lib/kubelet"), Some(Path::new("/cwd")), Some(Path::new("/root")));
        let want = [
            "/var/lib/kubelet/config.json",
            "/cwd/config.json",
            "/root/.docker/config.json",
            "/.docker/config.json",
            "/var/lib/kubelet/.dockercfg",
            "/cwd/.dockercfg",
            "/root/.dockercfg",
            "/.dockercfg",
        ];
        assert_eq!(places.files(), want.map(PathBuf::from));
        assert_eq!(NodePlaces::kubelet(Path::new("/k"), None, None).files().len(), 4);
    }

    #[test]
    fn a_person_s_list_begins_with_what_was_set_on_purpose() {
        let set = |text: &str| Some(PathBuf::from(text));
        let full = Person {
            registry_auth_file: set("/a/auth.json"),
            docker_config: set("/d"),
            xdg_runtime_dir: set("/run/user/7"),
            xdg_config_home: set("/x"),
            home: set("/h"),
            run_containers: set("/run/containers/7"),
        };
        let want = [
            "/a/auth.json",
            "/d/config.json",
            "/run/user/7/containers/auth.json",
            "/x/containers/auth.json",
            "/h/.dockercfg",
        ];
        assert_eq!(full.files(), want.map(PathBuf::from));
        let plain = Person { home: set("/h"), run_containers: set("/run/containers/7"), ..Person::default() };
        let want = [
            "/run/containers/7/auth.json",
            "/h/.config/containers/auth.json",
            "/h/.docker/config.json",
            "/h/.dockercfg",
        ];
        assert_eq!(plain.files(), want.map(PathBuf::from));
    }
}
