//! Programs that the tests use where they are: real registries and clients to compare with.
//!
//! As root on a Debian machine the missing ones are installed; anywhere else their absence is said out loud,
//! and the tests that need them name themselves as skipped.

use std::path::Path;

use crate::say;
use crate::shell::{answers, command, run};

/// A program and the Debian package that holds it.
struct Tool {
    program: &'static str,
    package: &'static str,
    used_for: &'static str,
}

const FEATURE_ISAL: &str = "building ISA-L";
const A_NODE: &str = "a real Kubernetes node";

const TOOLS: &[Tool] = &[
    Tool { program: "skopeo", package: "skopeo", used_for: "pushing, reading and comparing images" },
    Tool { program: "podman", package: "podman", used_for: "mounted trees to compare with" },
    Tool { program: "containerd", package: "containerd", used_for: "ctr as a client, containers of our images" },
    Tool { program: "runc", package: "runc", used_for: "containerd's runtime" },
    Tool { program: "etcd", package: "etcd-server", used_for: A_NODE },
    Tool { program: "kubectl", package: "kubernetes-client", used_for: A_NODE },
    Tool { program: "unshare", package: "util-linux", used_for: A_NODE },
    Tool { program: "cgroupfs-mount", package: "cgroupfs-mount", used_for: A_NODE },
    Tool {
        program: "chromium-headless-shell",
        package: "chromium-headless-shell",
        used_for: "the status page in a browser",
    },
    Tool { program: "docker-registry", package: "docker-registry", used_for: "a registry that is not ours" },
    Tool { program: "umoci", package: "umoci", used_for: "unpacked trees to compare with" },
    Tool { program: "nginx", package: "nginx-light", used_for: "redirects, ranges and TLS in front of a registry" },
    Tool { program: "crun", package: "crun", used_for: "podman's runtime" },
    Tool { program: "fuse-overlayfs", package: "fuse-overlayfs", used_for: "podman without an overlay of its own" },
    Tool { program: "getfattr", package: "attr", used_for: "extended attributes" },
    Tool { program: "setcap", package: "libcap2-bin", used_for: "file capabilities" },
    Tool { program: "strace", package: "strace", used_for: "which files a pull touches" },
    Tool { program: "nasm", package: "nasm", used_for: FEATURE_ISAL },
    Tool { program: "autoconf", package: "autoconf", used_for: FEATURE_ISAL },
    Tool { program: "automake", package: "automake", used_for: FEATURE_ISAL },
    Tool { program: "libtoolize", package: "libtool", used_for: FEATURE_ISAL },
    Tool { program: "make", package: "make", used_for: FEATURE_ISAL },
    Tool { program: "zstd", package: "zstd", used_for: "compressed layers" },
];

/// Installs what is missing where that is allowed, then names what is still missing.
pub(crate) fn prepare() {
    let missing = missing();
    if missing.is_empty() {
        return;
    }
    if may_install() {
        install(&missing);
    }
    for tool in self::missing() {
        say(&format!("skipped: tests that need {} ({}; Debian package {})", tool.program, tool.used_for, tool.package));
    }
}

/// Whether ISA-L can be built here, which the feature `isal` needs.
pub(crate) fn can_build_isal() -> bool {
    TOOLS.iter().filter(|tool| tool.used_for == FEATURE_ISAL).all(|tool| installed(tool.program))
}

fn missing() -> Vec<&'static Tool> {
    TOOLS.iter().filter(|tool| !installed(tool.program)).collect()
}

fn installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|folder| Path::new(folder).join(program).is_file())
}

/// Whether packages of Debian can be installed here.
pub(crate) fn may_install() -> bool {
    let root = command("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    root && answers(command("apt-get").arg("--version"))
}

/// One package after the other when all together fail: one that is not in the archive must not cost the rest.
fn install(missing: &[&Tool]) {
    let install = |packages: &[&str]| {
        run(command("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive")
            // A daemon that a package starts would hold ports and stores that tests want for themselves.
            .env("RUNLEVEL", "1"))
    };
    if let Err(error) = run(command("apt-get").args(["update", "-qq"])) {
        say(&format!("{error:#}; trying with the lists that are here"));
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    if install(&packages).is_ok() {
        return;
    }
    for package in packages {
        if let Err(error) = install(&[package]) {
            say(&format!("{error:#}"));
        }
    }
}
