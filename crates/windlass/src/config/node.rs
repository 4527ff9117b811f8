//! What `NodeConfiguration` holds: every key that the store, the registry client and the engine obey.
//!
//! Defaults of limits and waits stand here once, with the reason for each in its own words.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::registry::Registry;
use super::section::{Key, section};
use super::value::{ByteSize, words};

words! {
    /// How much of the log is shown.
    LogLevel: "error, warn, info, debug or trace" {
        /// Only what failed.
        Error = "error",
        /// What failed, and what somebody should know.
        #[default]
        Warn = "warn",
        /// What an operator would tell a colleague.
        Info = "info",
        /// What we would ask for.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

words! {
    /// What layers are unpacked into.
    Snapshots: "auto, overlay or erofs" {
        /// Image files where they can be mounted, directories elsewhere.
        #[default]
        Auto = "auto",
        /// Directories.
        Overlay = "overlay",
        /// Image files, and an error where they cannot be mounted.
        Erofs = "erofs",
    }
}

words! {
    /// Whether something is done.
    Switch: "auto, on or off" {
        /// Where it makes sense.
        #[default]
        Auto = "auto",
        /// Always.
        On = "on",
        /// Never.
        Off = "off",
    }
}

words! {
    /// How log lines look.
    LogFormat: "text or json" {
        /// For people.
        #[default]
        Text = "text",
        /// One object per line.
        Json = "json",
    }
}

words! {
    /// Whose images need proof that this pod may use them. The kubelet's own names.
    VerificationPolicy: "NeverVerify, NeverVerifyPreloadedImages, NeverVerifyAllowlistedImages or AlwaysVerify" {
        /// Everybody may use everything that is here.
        NeverVerify = "NeverVerify",
        /// Images that were not pulled by Windlass or the kubelet are free for all.
        #[default]
        NeverVerifyPreloadedImages = "NeverVerifyPreloadedImages",
        /// Images on the allow-list are free for all.
        NeverVerifyAllowlistedImages = "NeverVerifyAllowlistedImages",
        /// Every image needs proof.
        AlwaysVerify = "AlwaysVerify",
    }
}

section! {
    /// Where things are, and who may use what.
    General at "" {
        /// The store. Created with mode 0700 where it does not exist.
        root: PathBuf = "root" or super::places::default_root();
        /// Directories of `hosts.toml` files, one folder per registry, as containerd reads them; the first hit wins.
        hosts_dir: Vec<PathBuf> = "hostsDir" or super::places::default_hosts_dirs();
        /// A credential file in docker's format that is used instead of those in docker's and podman's places.
        authfile: Option<PathBuf> = "authfile" or None;
        /// More certificate authorities, PEM, trusted beside the system's.
        ca_file: Vec<PathBuf> = "caFile" or Vec::new();
        /// The platform to choose from an index, such as `linux/arm64/v8`; without it, this machine's.
        platform: Option<String> = "platform" or None;
        /// A kubelet's root directory: pull records are kept in its `image_manager` folder instead of the store's,
        /// so that either can take over from the other.
        kubelet_root: Option<PathBuf> = "kubeletRoot" or None;
        /// Whose images need proof before a pod may use them.
        verification: VerificationPolicy = "imagePullCredentialsVerificationPolicy" or VerificationPolicy::default();
        /// Images that need no proof under `NeverVerifyAllowlistedImages`; a final `/*` covers a path.
        allowlist: Vec<String> = "preloadedImagesVerificationAllowlist" or Vec::new();
        /// What `hosts.toml` cannot say about a registry.
        registries: Vec<Registry> = "registries" or Vec::new();
    }
}

section! {
    /// Logins of registries beside pull secrets and credential files: from programs and from clouds.
    Logins at "credentials." {
        /// A `CredentialProviderConfig`, one file or a directory of files, as a kubelet reads it: programs that are asked
        /// for the images their patterns cover. A change is taken over by the next pull; an invalid one is not. A
        /// provider may have a `timeout`, from 1s to 120s, which a kubelet does not know.
        provider_config: Option<PathBuf> = "providerConfig" or None;
        /// The directory of these programs.
        provider_bin_dir: Option<PathBuf> = "providerBinDir" or None;
        /// Whether Amazon ECR is asked with the identity that is found here. `auto`: on a machine of Amazon, and where a
        /// variable of its tools names an identity.
        ecr: Switch = "ecr" or Switch::default();
        /// Whether the program that `credential_process` of an Amazon profile names may run, with the rights of this
        /// process.
        ecr_credential_process: bool = "ecrCredentialProcess" or false;
        /// Whether Google's registries are asked in the same way. `auto`: on a machine of Google, and where
        /// `GCE_METADATA_HOST` is set.
        gcp: Switch = "gcp" or Switch::default();
        /// Whether Azure's registries are asked in the same way. `auto`: on a machine of Azure, where `azureConfig` is set,
        /// and where `AZURE_CLIENT_ID` is with a secret or a token file.
        acr: Switch = "acr" or Switch::default();
        /// Azure's `azure.json`, which says whose identity asks. Where no variable does either, `/etc/kubernetes/azure.json`
        /// counts if it can be read.
        azure_config: Option<PathBuf> = "azureConfig" or None;
        /// Where Azure's metadata server is, for emulators.
        azure_imds: Option<String> = "azureImds" or None;
        /// Where a registry of Azure is asked for its login, `HOST=URL`, for private access and emulators.
        acr_endpoints: Vec<String> = "acrEndpoints" or Vec::new();
        /// Registries beside Google's own that get the login of Google.
        google_extra_hosts: Vec<String> = "googleExtraHosts" or Vec::new();
        /// A directory with tokens of service accounts for providers that want one, `NAMESPACE/NAME` below it, as
        /// `kubectl create token` prints them. Such a token is used for `ensure`.
        service_account_tokens: Option<PathBuf> = "serviceAccountTokens" or None;
    }
}

section! {
    /// What is written to the log, on standard error.
    Log at "log." {
        /// How much.
        level: LogLevel = "level" or LogLevel::default();
        /// In which form.
        format: LogFormat = "format" or LogFormat::default();
    }
}

section! {
    /// What the store keeps.
    Keeping at "store." {
        /// Keeps compressed layers after unpacking. A node that serves others wants them; anywhere else they double
        /// the space. Images that came by `load` keep theirs always.
        keep_layers: bool = "keepLayers" or false;
        /// Keeps the beginning of a layer that was cut off, for a day, when at least this much of it is here; 0 keeps
        /// none. For slow links.
        keep_partial_above: ByteSize = "keepPartialAbove" or ByteSize(0);
        /// What layers are unpacked into: `erofs` makes one file of each, which the kernel mounts (Linux 6.12 and a
        /// file system such as ext4 or xfs, as root), `overlay` a directory; `auto` tries whether the first can be had.
        /// Layers that are here stay as they are until `windlass fsck --convert`.
        snapshot_format: Snapshots = "snapshotFormat" or Snapshots::default();
    }
}

section! {
    /// When space is made, and what may go.
    Collection at "gc." {
        /// An image younger than this is never collected. Kubelet: `imageMinimumGCAge`.
        minimum_age: Duration = "minimumAge" or Duration::from_secs(120);
        /// An image unused for longer than this goes whatever the space; 0s switches that off. Kubelet: `imageMaximumGCAge`.
        maximum_age: Duration = "maximumAge" or Duration::ZERO;
        /// Collection starts above this share of the disk, in percent. Kubelet: `imageGCHighThresholdPercent`.
        high_threshold_percent: u64 = "highThresholdPercent" or 85;
        /// Collection stops below this share of the disk, in percent. Kubelet: `imageGCLowThresholdPercent`.
        low_threshold_percent: u64 = "lowThresholdPercent" or 80;
    }
}

section! {
    /// Bounds. Each names what it bounds; an error of class `limit-exceeded` names the key.
    Limits at "limits." {
        /// Longest manifest or index. Registries allow 4 MiB too.
        manifest_bytes: ByteSize = "manifestBytes" or ByteSize(4 << 20);
        /// Longest image config.
        config_bytes: ByteSize = "configBytes" or ByteSize(8 << 20);
        /// Deepest nesting of a JSON document.
        json_depth: u64 = "jsonDepth" or 64;
        /// Most values in a JSON document.
        json_nodes: u64 = "jsonNodes" or 200_000;
        /// Deepest nesting of indexes.
        index_depth: u64 = "indexDepth" or 4;
        /// Most entries of an index.
        index_entries: u64 = "indexEntries" or 4_096;
        /// Most manifests and indexes fetched for one reference.
        documents: u64 = "documents" or 256;
        /// Most layers of an image. Overlay mounts end at about 500.
        layers: u64 = "layers" or 500;
        /// Longest compressed layer.
        layer_bytes: ByteSize = "layerBytes" or ByteSize(64 << 30);
        /// Longest unpacked layer, holes of sparse files counted.
        layer_unpacked_bytes: ByteSize = "layerUnpackedBytes" or ByteSize(64 << 30);
        /// Most unpacked bytes per compressed byte, once a layer is above 64 MiB. Deflate cannot do better than 1032.
        layer_ratio: u64 = "layerRatio" or 1_000;
        /// Most entries of a layer.
        layer_entries: u64 = "layerEntries" or 2_000_000;
        /// Most unpacked bytes of an image, all layers together.
        image_unpacked_bytes: ByteSize = "imageUnpackedBytes" or ByteSize(256 << 30);
        /// Most entries of an image, all layers together.
        image_entries: u64 = "imageEntries" or 8_000_000;
        /// Longest path of an entry: what a system call takes.
        path_bytes: u64 = "pathBytes" or 4_095;
        /// Longest name of an entry: what file systems take.
        component_bytes: u64 = "componentBytes" or 255;
        /// Longest target of a link.
        link_bytes: u64 = "linkBytes" or 4_095;
        /// Most directories above one another.
        directory_depth: u64 = "directoryDepth" or 2_048;
        /// Longest extended or long-name header of an entry, as in Go's reader.
        pax_bytes: ByteSize = "paxBytes" or ByteSize(1 << 20);
        /// Most records of an extended header.
        pax_records: u64 = "paxRecords" or 1_024;
        /// Most extended attributes of an entry.
        xattrs: u64 = "xattrs" or 64;
        /// Longest extended attribute: the kernel's own limit.
        xattr_bytes: ByteSize = "xattrBytes" or ByteSize(64 << 10);
        /// Most pieces of a sparse file.
        sparse_pieces: u64 = "sparsePieces" or 65_536;
        /// Largest zstd window as a power of two; 27 is 128 MiB, the zstd tool's own limit.
        zstd_window_log: u64 = "zstdWindowLog" or 27;
        /// Longest optional fields of a gzip header.
        gzip_header_bytes: ByteSize = "gzipHeaderBytes" or ByteSize(64 << 10);
        /// Most bytes of names kept in memory until the layers below are there.
        layer_pending_bytes: ByteSize = "layerPendingBytes" or ByteSize(32 << 20);
        /// Most bytes of names and attributes kept in memory while a layer becomes an image file; a million entries
        /// with usual names take 150 MiB.
        layer_metadata_bytes: ByteSize = "layerMetadataBytes" or ByteSize(384 << 20);
        /// Most look-ups of directories for one layer; a layer of 40 000 files takes about 5 000.
        layer_lookups: u64 = "layerLookups" or 20_000_000;
        /// Images pulled at once.
        parallel_pulls: u64 = "parallelPulls" or 10;
        /// Connections to one registry.
        registry_connections: u64 = "registryConnections" or 16;
        /// Layers in work per pull; 0 stands for the number of processors, at least 3.
        parallel_layers: u64 = "parallelLayers" or 0;
        /// Share of the disk that no pull may use up, in percent; the smaller of this and `diskReserveBytes` counts.
        disk_reserve_percent: u64 = "diskReservePercent" or 5;
        /// Space on the disk that no pull may use up.
        disk_reserve_bytes: ByteSize = "diskReserveBytes" or ByteSize(2 << 30);
        /// Longest wait for a connection.
        connect_timeout: Duration = "connectTimeout" or Duration::from_secs(10);
        /// Longest wait for the head of a response.
        response_timeout: Duration = "responseTimeout" or Duration::from_secs(30);
        /// Longest silence within a response.
        idle_timeout: Duration = "idleTimeout" or Duration::from_secs(30);
        /// A blob that moves less than 64 KiB in this time fails, retries included.
        progress_timeout: Duration = "progressTimeout" or Duration::from_secs(60);
    }
}

section! {
    /// What `windlass node` serves and does by itself.
    Daemon at "node." {
        /// The socket for the kubelet, containerd and the command line, mode 0660. A socket that the service manager
        /// hands over is used instead.
        socket: PathBuf = "socket" or super::places::default_socket();
        /// Where metrics, health and the status page are; empty: nowhere. The page is shown on loopback only,
        /// elsewhere there are metrics and health.
        metrics_address: Option<SocketAddr> = "metricsAddress" or Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9470)));
        /// Images that are always here: pulled at start, looked at again from time to time as under the policy Always,
        /// and never collected.
        pinned_images: Vec<String> = "pinnedImages" or Vec::new();
        /// How often a pinned image's tag is looked up again.
        pinned_check_every: Duration = "pinnedCheckEvery" or Duration::from_secs(3600);
        /// How long pulls under way may go on once the daemon is told to stop; then they are cancelled, and what is
        /// finished stays for the next try.
        drain_timeout: Duration = "drainTimeout" or Duration::from_secs(20);
    }
}

section! {
    /// The containerd that runs the containers.
    Containerd at "node.containerd." {
        /// Its socket, such as `/run/containerd/containerd.sock`. Without one the daemon works alone: images for the
        /// kubelet, and nothing is handed over.
        socket: Option<PathBuf> = "socket" or None;
        /// The namespace of the kubelet's containers.
        namespace: String = "namespace" or "k8s.io".to_owned();
        /// The name under which containerd knows this daemon as a snapshotter.
        snapshotter: String = "snapshotter" or "windlass".to_owned();
    }
}

section! {
    /// How many layers are in transfer at once, whatever the number of pulls.
    Pulls at "node.pulls." {
        /// Layers in transfer at once, over all images; each takes some 8 MiB of memory. Without it, three for each
        /// processor and at least 6. An image that waits goes before one that has a place already.
        at_once: Option<u64> = "atOnce" or None;
        /// Of these, from one registry, so that a slow one leaves places for the others; without it, all.
        per_registry: Option<u64> = "perRegistry" or None;
    }
}

section! {
    /// Collection by the daemon itself, for nodes whose kubelet does not do it.
    Collect at "node.collect." {
        /// Whether it is done. Off under a kubelet, which has its own collection.
        enabled: bool = "enabled" or false;
        /// Starts above this share of the disk, in percent; `gc.highThresholdPercent` where nothing is said.
        high_percent: Option<u64> = "highPercent" or None;
        /// Stops below this share of the disk, in percent; `gc.lowThresholdPercent` where nothing is said.
        low_percent: Option<u64> = "lowPercent" or None;
        /// An image younger than this is never collected; `gc.minimumAge` where nothing is said.
        minimum_age: Option<Duration> = "minimumAge" or None;
        /// An image unused for longer than this goes whatever the space; `gc.maximumAge` where nothing is said.
        maximum_age: Option<Duration> = "maximumAge" or None;
        /// How often it is looked whether something has to go. Kubelet: every five minutes.
        every: Duration = "every" or Duration::from_secs(300);
    }
}

/// The whole of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) general: General,
    pub(crate) logins: Logins,
    pub(crate) log: Log,
    pub(crate) store: Keeping,
    pub(crate) gc: Collection,
    pub(crate) daemon: Daemon,
    pub(crate) containerd: Containerd,
    pub(crate) pulls: Pulls,
    pub(crate) collect: Collect,
    pub(crate) limits: Limits,
}

impl Node {
    /// Every key, in the order of the reference page.
    pub(crate) fn keys() -> Vec<Key> {
        let daemon = [Daemon::keys(), Containerd::keys(), Pulls::keys(), Collect::keys()].concat();
        [General::keys(), Logins::keys(), Log::keys(), Keeping::keys(), Collection::keys(), daemon, Limits::keys()]
            .concat()
    }

    /// Takes each key from the place that wins.
    pub(crate) fn resolve(sources: &mut super::resolve::Sources) -> Node {
        Node {
            general: General::resolve(sources),
            logins: Logins::resolve(sources),
            log: Log::resolve(sources),
            store: Keeping::resolve(sources),
            gc: Collection::resolve(sources),
            daemon: Daemon::resolve(sources),
            containerd: Containerd::resolve(sources),
            pulls: Pulls::resolve(sources),
            collect: Collect::resolve(sources),
            limits: Limits::resolve(sources),
        }
    }
}
