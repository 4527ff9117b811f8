//! Compiles the .proto files with a compiler in Rust, so that no `protoc` is needed.

use std::error::Error;

/// One compilation for each protocol: their packages have names in common.
const FILES: &[&[&str]] = &[
    &["cri/runtime.proto"],
    &[
        "containerd/types.proto",
        "containerd/snapshots.proto",
        "containerd/leases.proto",
        "containerd/content.proto",
        "containerd/images.proto",
        "containerd/events.proto",
        "containerd/version.proto",
    ],
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    for files in FILES {
        let compiled = protox::compile(*files, ["proto"])?;
        tonic_prost_build::configure().emit_rerun_if_changed(false).compile_fds(compiled)?;
    }
    Ok(())
}
