//! Pulls from registries that misbehave: every named fault of the testkit, with what must come of it.

mod common;

use std::time::Duration;

use common::{Rig, client_config, plain_http};
use windlass_core::reason::Reason;
use windlass_testkit::faults::{Cut, Fault, FaultyRegistry, Outcome, PASSWORD, USER, When, plans};
use windlass_testkit::images::{Entry, Image, Layer, incompressible};

/// A stall must end a test soon; everything else has time enough.
fn impatient() -> windlass_distribution::ClientConfig {
    let mut config = client_config();
    config.timeouts.connect = Duration::from_secs(2);
    config.timeouts.tls = Duration::from_secs(2);
    config.timeouts.header = Duration::from_millis(600);
    config.timeouts.idle = Duration::from_millis(600);
    config.timeouts.progress = Duration::from_millis(1500);
    config.retry.retry_after_total = Duration::from_secs(2);
    config
}

/// Where the client does better than the plan asks, or has a more exact word.
const ALSO_RIGHT: [(&str, Result<(), Reason>); 5] = [
    // Refused by the same rule as a token realm at that address.
    ("redirect-metadata", Err(Reason::RealmNotTrusted)),
    // Ranges of such a server are not believed again: the layer is fetched whole.
    ("range-lie-shift", Ok(())),
    ("range-lie-header", Ok(())),
    // A registry that takes connections and says nothing is as good as down.
    ("stall-head", Err(Reason::RegistryUnavailable)),
    ("stall-token", Err(Reason::RegistryUnavailable)),
];

#[expect(clippy::print_stdout, reason = "the number of faults is part of what a test run says")]
#[tokio::test(flavor = "multi_thread")]
async fn every_named_fault_comes_to_its_outcome() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for plan in plans() {
        let setting = plan.set();
        let mut config = impatient();
        config.plain_http_everywhere = setting.registry.tls().is_none();
        if let Some(tls) = setting.registry.tls() {
            let ca = setting.registry.addr().port();
            let path = std::env::temp_dir().join(format!("windlass-pull-{}-{ca}.pem", std::process::id()));
            std::fs::write(&path, &tls.ca_pem).unwrap();
            config.ca_files.push(path);
        }
        let rig = Rig::with(config.clone(), &[(&setting.registry.host(), USER, PASSWORD)]);
        let result = rig.pull(&setting.reference).await;
        for path in &config.ca_files {
            std::fs::remove_file(path).unwrap();
        }
        count += 1;
        let right = match (&result, plan.outcome) {
            (Ok(_), Outcome::Pulled) => true,
            (Err(error), Outcome::Failed(reasons) | Outcome::TimedOut(reasons)) => reasons.contains(&error.reason()),
            (Ok(_), Outcome::Failed(_) | Outcome::TimedOut(_)) | (Err(_), Outcome::Pulled) => false,
        };
        let outcome = result.as_ref().map(drop).map_err(|error| error.reason());
        let right = right || ALSO_RIGHT.contains(&(plan.id, outcome));
        let visible = rig.engine.store().find(&setting.reference).unwrap().is_some();
        let leaked = format!("{result:?}").contains(PASSWORD) || setting.other.saw_credentials();
        if !right || visible != result.is_ok() || leaked {
            let said = result.map(|report| report.id.to_string()).map_err(|error| (error.reason(), error.chain()));
            wrong.push(format!("{} ({}): {said:?}, visible {visible}, leaked {leaked}", plan.id, plan.what));
        }
    }
    println!("{count} faults");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_at_half_resumes() {
    let registry = FaultyRegistry::open();
    let image = Image::build().layer(Layer::new([Entry::file("f", incompressible(4 << 20, 9))])).finish();
    let reference = registry.place(&image.bundle(), "app", "1");
    let large = &image.layers[0].blob;
    let half = large.bytes.len() as u64 / 2;
    registry.inject(When::blob_of(&large.digest).first(1), Fault::Truncate { at: half, how: Cut::Reset });
    let rig = Rig::with(plain_http(), &[]);
    let report = rig.pull(&reference).await.unwrap();
    assert_eq!(report.fetched_bytes, large.bytes.len() as u64, "no byte came twice");
    assert_eq!(registry.count("GET", large.digest.hex()), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_cannot_be_served_starts_again() {
    let registry = FaultyRegistry::open();
    let image = Image::build().layer(Layer::new([Entry::file("f", incompressible(4 << 20, 9))])).finish();
    let reference = registry.place(&image.bundle(), "app", "1");
    let large = &image.layers[0].blob;
    registry.inject(When::blob_of(&large.digest).first(1), Fault::Truncate { at: 3 << 20, how: Cut::Close });
    registry.inject(When::blob_of(&large.digest), Fault::RefuseRange);
    let rig = Rig::with(plain_http(), &[]);
    rig.pull(&reference).await.unwrap();
    assert!(rig.engine.store().find(&reference).unwrap().unwrap().damage.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_pull_leaves_nothing_in_the_way_of_the_next() {
    let registry = FaultyRegistry::open();
    let image = Image::build().layer(Layer::new([Entry::file("f", incompressible(1 << 20, 9))])).finish();
    let reference = registry.place(&image.bundle(), "app", "1");
    let rig = Rig::with(plain_http(), &[]);
    registry.inject(When::blob_of(&image.layers[0].blob.digest), Fault::Corrupt);
    assert_eq!(rig.pull(&reference).await.unwrap_err().reason(), Reason::DigestMismatch);
    registry.heal();
    rig.pull(&reference).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_beginning_is_not_fetched_again() {
    let registry = FaultyRegistry::open();
    let image = Image::build().layer(Layer::new([Entry::file("f", incompressible(4 << 20, 9))])).finish();
    let reference = registry.place(&image.bundle(), "app", "1");
    let large = &image.layers[0].blob;
    let cut = 3 << 20;
    registry.inject(When::blob_of(&large.digest).only(1), Fault::Truncate { at: cut, how: Cut::Close });
    registry.inject(When::blob_of(&large.digest).from(2), Fault::status(403));
    let mut options = windlass_store::StoreOptions::default();
    options.keep_partial_above_bytes = Some(1 << 20);
    let rig = Rig::with_store(plain_http(), &[], options);
    assert_eq!(rig.pull(&reference).await.unwrap_err().reason(), Reason::Denied);
    registry.heal();
    registry.take_requests();
    let report = rig.pull(&reference).await.unwrap();
    assert!(report.fetched_bytes < large.bytes.len() as u64 - (2 << 20), "{} bytes", report.fetched_bytes);
    let ranges: Vec<_> =
        registry.requests().iter().filter_map(|seen| seen.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges.len(), 1, "{ranges:?}");
    assert!(rig.engine.store().find(&reference).unwrap().unwrap().damage.is_none());
}
