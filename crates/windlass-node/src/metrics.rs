//! Metrics, as Prometheus reads them.
//!
//! Names begin with `windlass_`, units are seconds and bytes, labels come from fixed sets: a reason, a method, never an
//! image.
//!
//! Invariants: `a_pull_is_counted_with_its_outcome`, `logins_are_counted_by_provider`, `labels_come_from_fixed_sets`.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use windlass_pull::{Ending, PastPull};

use crate::inventory::Inventory;
use crate::status::LoginStatus;

/// What the text form of the metrics is called.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Buckets of a whole pull, those of `kubelet_image_pull_duration_seconds` and finer ones below.
const PULL_SECONDS: [f64; 16] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0];
/// Buckets of a call: reads are answered from memory, pulls last.
const CALL_SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PullLabels {
    outcome: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LayerLabels {
    from: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    service: &'static str,
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MethodLabels {
    service: &'static str,
    method: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ProviderLabels {
    kind: String,
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HashLabels {
    hash: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Every metric of a daemon.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pulls: Family<PullLabels, Counter>,
    pull_seconds: Histograms<OutcomeLabels>,
    phase_seconds: Histograms<PhaseLabels>,
    fetched_bytes: Counter,
    layers: Family<LayerLabels, Counter>,
    in_flight: Gauge,
    calls: Family<CallLabels, Counter>,
    call_seconds: Histograms<MethodLabels>,
    images: Gauge,
    image_bytes: Gauge,
    image_inodes: Gauge,
    disk_capacity: Gauge,
    disk_available: Gauge,
    disk_inodes: Gauge,
    pinned: Gauge,
    pinned_missing: Gauge,
    collections: Family<OutcomeLabels, Counter>,
    collected_images: Family<ReasonLabels, Counter>,
    collected_bytes: Counter,
    reloads: Family<OutcomeLabels, Counter>,
    reload_good: Gauge,
    ready: Gauge,
    login_calls: Family<ProviderLabels, Counter>,
    login_errors: Family<ProviderLabels, Counter>,
    login_seconds: Family<ProviderLabels, Counter<f64, AtomicU64>>,
    login_expiry: Family<ProviderLabels, Gauge>,
    login_config: Family<HashLabels, Gauge>,
}

fn pull_histogram() -> Histogram {
    Histogram::new(PULL_SECONDS)
}

fn call_histogram() -> Histogram {
    Histogram::new(CALL_SECONDS)
}

impl Metrics {
    pub(crate) fn new(version: &'static str) -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("windlass"),
            pulls: Family::default(),
            pull_seconds: Family::new_with_constructor(pull_histogram),
            phase_seconds: Family::new_with_constructor(pull_histogram),
            fetched_bytes: Counter::default(),
            layers: Family::default(),
            in_flight: Gauge::default(),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(call_histogram),
            images: Gauge::default(),
            image_bytes: Gauge::default(),
            image_inodes: Gauge::default(),
            disk_capacity: Gauge::default(),
            disk_available: Gauge::default(),
            disk_inodes: Gauge::default(),
            pinned: Gauge::default(),
            pinned_missing: Gauge::default(),
            collections: Family::default(),
            collected_images: Family::default(),
            collected_bytes: Counter::default(),
            reloads: Family::default(),
            reload_good: Gauge::default(),
            ready: Gauge::default(),
            login_calls: Family::default(),
            login_errors: Family::default(),
            login_seconds: Family::default(),
            login_expiry: Family::default(),
            login_config: Family::default(),
        };
        metrics.register(version);
        metrics
    }

    fn register(&mut self, version: &'static str) {
        let r = &mut self.registry;
        r.register("build", "The program that runs", Info::new([("version", version)]));
        r.register("pulls", "Pulls that have ended, by outcome and our word for why they failed", self.pulls.clone());
        let help = "How long pulls took, waiting included";
        r.register_with_unit("pull_duration", help, Unit::Seconds, self.pull_seconds.clone());
        let help = "How long the phases of pulls that worked took";
        r.register_with_unit("pull_phase_duration", help, Unit::Seconds, self.phase_seconds.clone());
        let help = "Compressed bytes of layers fetched";
        r.register_with_unit("pull_fetched", help, Unit::Bytes, self.fetched_bytes.clone());
        let help = "Layers of images that were pulled, by where they came from";
        r.register("pull_layers", help, self.layers.clone());
        r.register("pulls_in_flight", "Pulls under way", self.in_flight.clone());
        r.register("grpc_requests", "Calls answered, by method and code", self.calls.clone());
        let help = "How long calls took";
        r.register_with_unit("grpc_request_duration", help, Unit::Seconds, self.call_seconds.clone());
        r.register("images", "Images in the store", self.images.clone());
        let help = "Bytes of blobs and unpacked layers in the store";
        r.register_with_unit("store_used", help, Unit::Bytes, self.image_bytes.clone());
        r.register("store_inodes", "Blobs and entries of unpacked layers in the store", self.image_inodes.clone());
        let help = "Size of the file system of the store";
        r.register_with_unit("filesystem_capacity", help, Unit::Bytes, self.disk_capacity.clone());
        let help = "What may still be written to it";
        r.register_with_unit("filesystem_available", help, Unit::Bytes, self.disk_available.clone());
        r.register("filesystem_free_inodes", "Inodes still free on it", self.disk_inodes.clone());
        r.register("pinned_images", "Images that the configuration wants here", self.pinned.clone());
        r.register("pinned_images_missing", "Of these, those that are not here", self.pinned_missing.clone());
        r.register("collections", "Runs of the daemon's own collection", self.collections.clone());
        r.register("collected_images", "Images that they removed", self.collected_images.clone());
        r.register_with_unit("collected", "Bytes that they freed", Unit::Bytes, self.collected_bytes.clone());
        r.register("configuration_reloads", "Times the configuration was read again", self.reloads.clone());
        let help = "Whether the last reading of the configuration was good";
        r.register("configuration_good", help, self.reload_good.clone());
        r.register("ready", "Whether every check of /readyz passes", self.ready.clone());
        let help = "Times a provider of logins was asked";
        r.register("credential_provider_requests", help, self.login_calls.clone());
        r.register("credential_provider_errors", "Of these, those that failed", self.login_errors.clone());
        let help = "How long all of them took";
        r.register_with_unit("credential_provider_duration", help, Unit::Seconds, self.login_seconds.clone());
        let help = "When the first login ends that a provider gave and that is kept, since 1970";
        r.register_with_unit("credential_expiration_timestamp", help, Unit::Seconds, self.login_expiry.clone());
        let help = "The configuration of provider programs in force, by the hash that a kubelet shows";
        r.register("credential_provider_config_info", help, self.login_config.clone());
    }

    /// Counts a pull that has ended.
    pub(crate) fn pull_ended(&self, past: &PastPull) {
        let (outcome, reason) = match &past.ending {
            Ending::Pulled => ("pulled", ""),
            Ending::UpToDate => ("up-to-date", ""),
            Ending::Failed { reason, .. } => ("failed", *reason),
            Ending::Canceled => ("canceled", ""),
        };
        self.pulls.get_or_create(&PullLabels { outcome, reason }).inc();
        self.pull_seconds.get_or_create(&OutcomeLabels { outcome }).observe(seconds(past.times.total_ms));
        self.fetched_bytes.inc_by(past.fetched_bytes);
        if past.ending == Ending::Pulled {
            let times = &past.times;
            for (phase, ms) in [("resolve", times.resolve_ms), ("layers", times.layers_ms), ("commit", times.commit_ms)]
            {
                self.phase_seconds.get_or_create(&PhaseLabels { phase }).observe(seconds(ms));
            }
        }
        let fetched = past.layers.saturating_sub(past.layers_already_here);
        for (from, count) in [("registry", fetched), ("store", past.layers_already_here)] {
            self.layers.get_or_create(&LayerLabels { from }).inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }

    /// Counts a call that was answered.
    pub(crate) fn call_ended(
        &self,
        service: &'static str,
        method: &'static str,
        code: &'static str,
        took: std::time::Duration,
    ) {
        self.calls.get_or_create(&CallLabels { service, method, code }).inc();
        self.call_seconds.get_or_create(&MethodLabels { service, method }).observe(took.as_secs_f64());
    }

    /// Counts a run of our own collection.
    pub(crate) fn collected(&self, outcome: &'static str, removed: &[&'static str], freed_bytes: u64) {
        self.collections.get_or_create(&OutcomeLabels { outcome }).inc();
        removed.iter().for_each(|reason| {
            self.collected_images.get_or_create(&ReasonLabels { reason }).inc();
        });
        self.collected_bytes.inc_by(freed_bytes);
    }

    /// Counts a reading of the configuration.
    pub(crate) fn reloaded(&self, is_good: bool) {
        let outcome = if is_good { "good" } else { "bad" };
        self.reloads.get_or_create(&OutcomeLabels { outcome }).inc();
        self.reload_good.set(i64::from(is_good));
    }

    /// Takes over that the configuration of the start is good.
    pub(crate) fn configured(&self) {
        self.reload_good.set(1);
    }

    pub(crate) fn set_pinned(&self, wanted: usize, missing: usize) {
        self.pinned.set(count(wanted));
        self.pinned_missing.set(count(missing));
    }

    /// Takes over how the providers of logins fare. One that is not configured any more keeps its counts.
    fn set_logins(&self, logins: &LoginStatus) {
        self.login_expiry.clear();
        self.login_config.clear();
        if let Some(hash) = &logins.config_hash {
            self.login_config.get_or_create(&HashLabels { hash: hash.clone() }).set(1);
        }
        for provider in &logins.providers {
            let labels = ProviderLabels { kind: provider.kind.clone(), name: provider.name.clone() };
            self.login_calls.get_or_create(&labels).inner().store(provider.calls, Ordering::Relaxed);
            self.login_errors.get_or_create(&labels).inner().store(provider.errors, Ordering::Relaxed);
            let seconds = self.login_seconds.get_or_create(&labels);
            seconds.inner().store(provider.total_seconds.to_bits(), Ordering::Relaxed);
            if let Some(expiry) = provider.next_expiry {
                self.login_expiry.get_or_create(&labels).set(expiry.as_second());
            }
        }
    }

    /// The text, with what is looked up when it is asked for.
    pub(crate) fn text(&self, inventory: &Inventory, logins: &LoginStatus, in_flight: usize, is_ready: bool) -> String {
        self.in_flight.set(count(in_flight));
        self.ready.set(i64::from(is_ready));
        self.set_logins(logins);
        self.images.set(count(inventory.image_count));
        if let Some(disk) = &inventory.disk {
            let gauges = [
                (&self.image_bytes, disk.images_bytes),
                (&self.image_inodes, disk.images_inodes),
                (&self.disk_capacity, disk.capacity_bytes),
                (&self.disk_available, disk.available_bytes),
                (&self.disk_inodes, disk.free_inodes),
            ];
            for (gauge, value) in gauges {
                gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
        let mut text = String::new();
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use windlass_pull::PhaseTimes;

    use super::*;
    use crate::status::ProviderRow;

    fn past(ending: Ending) -> PastPull {
        PastPull {
            number: 1,
            image: "registry.example/team/app:1".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            times: PhaseTimes { resolve_ms: 100, layers_ms: 1_000, commit_ms: 20, total_ms: 1_120 },
            ending,
            credential: None,
            tried: Vec::new(),
            fetched_bytes: 500,
            layers: 3,
            layers_already_here: 1,
        }
    }

    #[test]
    fn a_pull_is_counted_with_its_outcome() {
        let metrics = Metrics::new("1.2.3");
        metrics.pull_ended(&past(Ending::Pulled));
        metrics.pull_ended(&past(Ending::Failed { reason: "denied", message: "no".to_owned() }));
        let text = metrics.text(&Inventory::default(), &LoginStatus::default(), 2, true);
        for line in [
            "windlass_build_info{version=\"1.2.3\"} 1",
            "windlass_pulls_total{outcome=\"pulled\",reason=\"\"} 1",
            "windlass_pulls_total{outcome=\"failed\",reason=\"denied\"} 1",
            "windlass_pull_duration_seconds_sum{outcome=\"pulled\"} 1.12",
            "windlass_pull_phase_duration_seconds_count{phase=\"commit\"} 1",
            "windlass_pull_fetched_bytes_total 1000",
            "windlass_pull_layers_total{from=\"registry\"} 4",
            "windlass_pulls_in_flight 2",
            "windlass_ready 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn logins_are_counted_by_provider() {
        let metrics = Metrics::new("1");
        let provider = ProviderRow {
            name: "ecr".to_owned(),
            kind: "cloud".to_owned(),
            calls: 3,
            errors: 1,
            total_seconds: 0.5,
            next_expiry: Some(Timestamp::from_second(1700).unwrap()),
            cached: Vec::new(),
        };
        let mut logins =
            LoginStatus { problem: None, config_hash: Some("sha256:aa".to_owned()), providers: vec![provider] };
        let text = metrics.text(&Inventory::default(), &logins, 0, true);
        for line in [
            "windlass_credential_provider_requests_total{kind=\"cloud\",name=\"ecr\"} 3",
            "windlass_credential_provider_errors_total{kind=\"cloud\",name=\"ecr\"} 1",
            "windlass_credential_provider_duration_seconds_total{kind=\"cloud\",name=\"ecr\"} 0.5",
            "windlass_credential_expiration_timestamp_seconds{kind=\"cloud\",name=\"ecr\"} 1700",
            "windlass_credential_provider_config_info{hash=\"sha256:aa\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        // Nothing is kept any more, and the configuration is another.
        logins.providers[0].next_expiry = None;
        logins.config_hash = Some("sha256:bb".to_owned());
        let text = metrics.text(&Inventory::default(), &logins, 0, true);
        assert!(!text.contains("expiration_timestamp_seconds{") && !text.contains("sha256:aa"), "{text}");
    }

    #[test]
    fn labels_come_from_fixed_sets() {
        let metrics = Metrics::new("1");
        metrics.pull_ended(&past(Ending::Pulled));
        metrics.call_ended("runtime.v1.ImageService", "PullImage", "OK", Duration::from_secs(1));
        let text = metrics.text(&Inventory::default(), &LoginStatus::default(), 0, false);
        assert!(!text.contains("registry.example"), "{text}");
        let line =
            "windlass_grpc_requests_total{service=\"runtime.v1.ImageService\",method=\"PullImage\",code=\"OK\"} 1";
        assert!(text.contains(line), "{text}");
    }
}
