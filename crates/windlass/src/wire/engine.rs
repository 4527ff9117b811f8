//! The engine of this run, and what it is asked with.

use windlass_core::access;
use windlass_core::decide::ensure::Verification;
use windlass_core::keyring::Mode;
use windlass_core::manifest::DocumentLimits;
use windlass_core::platform::{Platform, host_platform};
use windlass_core::reason::Reason;
use windlass_pull::{Engine, EngineConfig, ImageLimits, TransferLimits};
use windlass_store::{PullRecords, Store};

use super::credentials::{Whose, sources};
use super::{chain, client, size, store_of_daemon, store_to_read, store_to_write};
use crate::args::Globals;
use crate::config::node::{Limits, Node};
use crate::config::value::Setting;
use crate::failure::Failure;

/// Where a kubelet keeps its pull records, below its root.
const RECORDS: &str = "image_manager";

/// Store, client and engine, ready to be asked.
pub(crate) fn engine(node: &Node, globals: &Globals, whose: Whose) -> Result<Engine, Failure> {
    Ok(Engine::new(around(store_to_write(node)?, node, globals, whose)?))
}

/// The daemon's engine: the node's own credentials, and its bounds on transfers.
pub(crate) fn engine_of_daemon(node: &Node, globals: &Globals) -> Result<Engine, Failure> {
    let mut config = around(store_of_daemon(node)?, node, globals, Whose::Node(Mode::Windlass))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut transfers = TransferLimits::for_cores(cores);
    if let Some(at_once) = node.pulls.at_once {
        transfers = TransferLimits { at_once: size(at_once), per_registry: size(at_once) };
    }
    if let Some(per_registry) = node.pulls.per_registry {
        transfers.per_registry = size(per_registry);
    }
    config.transfers = Some(transfers);
    Ok(Engine::new(config))
}

/// An engine for what leaves the store as it is; where there is none, none is made.
pub(crate) fn engine_without_store(node: &Node, globals: &Globals, whose: Whose) -> Result<Engine, Failure> {
    Ok(Engine::new(around(store_to_read(node)?, node, globals, whose)?))
}

fn around(store: Store, node: &Node, globals: &Globals, whose: Whose) -> Result<EngineConfig, Failure> {
    // A machine without it is treated as the plainest of its kind.
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let host = host_platform(std::env::consts::OS, std::env::consts::ARCH, &cpuinfo);
    let credentials = sources(node, whose)?;
    let mut config = EngineConfig::new(store, client(node, globals)?, credentials, host);
    config.limits = document_limits(&node.limits);
    config.image_limits =
        ImageLimits { unpacked_bytes: node.limits.image_unpacked_bytes.0, entries: node.limits.image_entries };
    config.layers_in_work = size(node.limits.parallel_layers);
    config.pulls_at_once = size(node.limits.parallel_pulls.max(1));
    if let Some(root) = &node.general.kubelet_root {
        config.records = PullRecords::new(&root.join(RECORDS));
    }
    Ok(config)
}

pub(crate) fn document_limits(limits: &Limits) -> DocumentLimits {
    DocumentLimits {
        manifest_bytes: limits.manifest_bytes.0,
        config_bytes: limits.config_bytes.0,
        json_depth: size(limits.json_depth),
        json_nodes: size(limits.json_nodes),
        index_depth: size(limits.index_depth),
        index_entries: size(limits.index_entries),
        documents: size(limits.documents),
        layers: size(limits.layers),
        layer_bytes: limits.layer_bytes.0,
        ..DocumentLimits::default()
    }
}

/// The platform asked for; `None`: this machine's.
pub(crate) fn platform(node: &Node) -> Result<Option<Platform>, Failure> {
    let parse = |text: &String| {
        Platform::parse(text).map_err(|error| {
            Failure::new(Reason::InvalidConfig, format!("{text} is no platform"), chain(&error))
                .hint("write os/architecture[/variant], such as linux/arm64/v8")
        })
    };
    node.general.platform.as_ref().map(parse).transpose()
}

/// The verification policy with its allow-list.
pub(crate) fn verification(node: &Node) -> Result<Verification, Failure> {
    let name = node.general.verification.to_json();
    let policy = access::VerificationPolicy::parse(name.as_str().unwrap_or_default(), &node.general.allowlist);
    let policy = policy.map_err(|error| {
        Failure::new(Reason::InvalidConfig, "the verification policy is not valid", chain(&error))
            .hint("correct preloadedImagesVerificationAllowlist")
    })?;
    Ok(Verification::On(policy))
}
