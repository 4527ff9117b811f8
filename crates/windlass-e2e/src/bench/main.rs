//! Pulls real content with windlass and with the clients that are installed, side by side, and prints ratios.
//!
//! Two images are made from files of this machine and served by the embedded registry on loopback. Every run starts
//! with an empty store in a new folder (below `TMPDIR`, so choose the file system there); the programs take turns, so
//! that a slow minute of the machine hits all of them alike. Quote ratios, never seconds.
//!
//! usage: bench WINDLASS [RUNS]
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the figures are this program's output")]

mod content;
mod measure;
mod peers;

use std::path::PathBuf;
use std::process::ExitCode;

use windlass_testkit::registry::TestRegistry;

use measure::Cost;
use peers::Peer;

/// Counted runs of each program and image, unless given.
const RUNS: usize = 5;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(windlass) = arguments.next().map(PathBuf::from) else {
        println!("usage: bench WINDLASS [RUNS]");
        return ExitCode::from(2);
    };
    let runs = arguments.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or(RUNS).max(1);
    let registry = TestRegistry::open();
    let peers: Vec<Peer> = Peer::installed(windlass);
    println!("{:8} {}", "image", Cost::HEADER);
    for (name, image) in [("small", content::small()), ("large", content::large())] {
        let reference = registry.place(&image.bundle(), "bench", name);
        drop(image);
        let costs = interleaved(&peers, &registry, &reference, runs);
        print_ratios(name, &peers, &costs);
    }
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
