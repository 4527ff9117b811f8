//! Pulls real content with windlass and with the clients that are installed, side by side, and prints ratios.
//!
//! Two images are made from files of this machine and served by the embedded registry on loopback. Every run starts
//! with an empty store in a new folder (below `TMPDIR`, so choose the file system there); the programs take turns, so
//! that a slow minute of the machine hits all of them alike. Quote ratios, never seconds.
//!
//! Then many images are pulled at once through the daemon, whose memory and whose answers meanwhile are measured. Before all
//! that the plugin role is timed where it has nothing to answer.
//!
//! usage: bench WINDLASS [RUNS]
//!        bench many                         only that last part
//!        bench cri-pull SOCKET REFERENCE    a client to be measured
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the figures are this program's output")]

mod content;
mod measure;
mod peers;
mod plugins;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use windlass_e2e::cri::ImageService;
use windlass_e2e::load::{IMAGES, MEMORY_BYTES_MAX, pull_many};
use windlass_testkit::registry::TestRegistry;

use measure::Cost;
use peers::Peer;

/// The word that makes this program a client of the CRI, to be measured in the place of one.
const CRI_PULL: &str = "cri-pull";
/// The word that asks for the last part only.
const MANY: &str = "many";
/// Bytes of each of the four layers of each image of those that are pulled at once.
const MANY_LAYER_BYTES: usize = 8_000_000;
/// Counted runs of each program and image, unless given.
const RUNS: usize = 5;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(windlass) = arguments.next().map(PathBuf::from) else {
        println!("usage: bench WINDLASS [RUNS]");
        return ExitCode::from(2);
    };
    if windlass.as_os_str() == CRI_PULL {
        return cri_pull(arguments);
    }
    if windlass.as_os_str() == MANY {
        print_many();
        return ExitCode::SUCCESS;
    }
    let runs = arguments.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or(RUNS).max(1);
    plugins::print(&windlass);
    let registry = TestRegistry::open();
    let peers: Vec<Peer> = Peer::installed(windlass);
    println!("{:8} {}", "image", Cost::HEADER);
    for (name, image) in [("small", content::small()), ("large", content::large())] {
        let reference = registry.place(&image.bundle(), "bench", name);
        drop(image);
        let costs = interleaved(&peers, &registry, &reference, runs);
        print_ratios(name, &peers, &costs);
    }
    print_many();
    ExitCode::SUCCESS
}

/// The costs of each peer, run by run.
fn interleaved(peers: &[Peer], registry: &TestRegistry, reference: &str, runs: usize) -> Vec<Vec<Cost>> {
    let mut costs = vec![Vec::with_capacity(runs); peers.len()];
    for _ in 0..runs {
        for (peer, costs) in peers.iter().zip(&mut costs) {
            registry.take_requests();
            let mut cost = peer.pull(reference);
            cost.requests = registry.take_requests().len() as u64;
            costs.push(cost);
        }
    }
    costs
}

fn print_ratios(image: &str, peers: &[Peer], costs: &[Vec<Cost>]) {
    let medians: Vec<Cost> = costs.iter().map(|runs| Cost::median(runs)).collect();
    let Some(ours) = medians.first() else { return };
    for (peer, median) in peers.iter().zip(&medians) {
        println!("{image:8} {}", median.line(peer.name()));
    }
    for (peer, median) in peers.iter().zip(&medians).skip(1) {
        println!("{image:8} {}", ours.ratio_line(median, peer.name()));
    }
}

/// `cri-pull SOCKET REFERENCE`.
fn cri_pull(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let (Some(socket), Some(reference)) = (arguments.next(), arguments.next()) else { return ExitCode::from(2) };
    match ImageService::at(Path::new(&socket)).pull(&reference.to_string_lossy()) {
        Ok(id) => {
            println!("{id}");
            ExitCode::SUCCESS
        }
        Err(status) => {
            println!("{status}");
            ExitCode::FAILURE
        }
    }
}

/// Many images at once through the daemon.
fn print_many() {
    let outcome = pull_many(MANY_LAYER_BYTES);
    let at = |share: f64| {
        let times = &outcome.status_times;
        let place = (times.len() as f64 * share) as usize;
        times.get(place.min(times.len().saturating_sub(1))).map_or(0.0, Duration::as_secs_f64) * 1e3
    };
    println!(
        "many     {IMAGES} images at once: {:.2} s, peak {:.0} MB; {} answers about an image meanwhile: \
         median {:.2} ms, 99th percentile {:.2} ms, longest {:.2} ms",
        outcome.wall.as_secs_f64(),
        outcome.peak_bytes as f64 / 1e6,
        outcome.status_times.len(),
        at(0.5),
        at(0.99),
        at(1.0),
    );
    assert!(outcome.peak_bytes < MEMORY_BYTES_MAX, "{} bytes", outcome.peak_bytes);
}
