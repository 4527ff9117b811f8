//! Every input that fuzzing has kept, through the functions it was kept for, with the stable compiler.
//!
//! `fuzz/README.md` says how inputs come to be kept. The hostile layers and the malformed documents of this crate go
//! through them too.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use windlass_testkit::{documents, hostile};

#[path = "../../../fuzz/src/lib.rs"]
pub mod fuzz;

/// Largest corpus of one target: these are read in every run of the tests.
const CORPUS_FILES_MAX: usize = 250;
const CORPUS_BYTES_MAX: u64 = 400 << 10;

fn directory(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = directory(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut inputs: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            (path.display().to_string(), fs::read(&path).expect("an input"))
        })
        .collect();
    inputs.sort();
    inputs
}

/// The names of the inputs on which a target panics; what it says stands in the output above.
fn failing(target: fuzz::Target, inputs: impl IntoIterator<Item = (String, Vec<u8>)>) -> Vec<String> {
    inputs.into_iter().filter(|(_, input)| catch_unwind(|| target(input)).is_err()).map(|(name, _)| name).collect()
}

fn target(name: &str) -> fuzz::Target {
    fuzz::TARGETS.iter().find(|(known, _)| *known == name).expect("a target").1
}

#[test]
fn kept_inputs_break_no_invariant() {
    for (name, target) in fuzz::TARGETS {
        let inputs = inputs(name);
        assert!(!inputs.is_empty(), "{name} has a corpus");
        let bytes: usize = inputs.iter().map(|(_, input)| input.len()).sum();
        assert!(inputs.len() <= CORPUS_FILES_MAX && bytes as u64 <= CORPUS_BYTES_MAX, "{name} is to be minimised");
        assert_eq!(failing(*target, inputs), [""; 0], "{name}");
    }
}

#[test]
fn every_corpus_and_every_fuzz_target_is_run() {
    let manifest = fs::read_to_string(directory("..").join("Cargo.toml")).expect("the manifest");
    for (name, _) in fuzz::TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is a program");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), fuzz::TARGETS.len());
    assert_eq!(fs::read_dir(directory("")).expect("the corpora").count(), fuzz::TARGETS.len());
}

#[test]
fn hostile_layers_break_no_invariant() {
    let mut blobs = Vec::new();
    let mut archives = Vec::new();
    let mut stacks = Vec::new();
    for case in hostile::layers() {
        if let [lower, upper] = &case.layers[..]
            && let (Some(lower), Some(upper)) =
                (fuzz::decompress::plain(&lower.blob), fuzz::decompress::plain(&upper.blob))
            && let (Ok(blocks), 0) = (u8::try_from(lower.len() / 512), lower.len() % 512)
        {
            stacks.push((case.id.to_owned(), [&[254, blocks][..], &lower, &upper].concat()));
        }
        for (at, layer) in case.layers.into_iter().enumerate() {
            let name = format!("{}-{at}", case.id);
            // The large ones are about limits, which have tests of their own.
            if layer.blob.len() > 64 << 10 {
                continue;
            }
            if let Some(tar) = fuzz::decompress::plain(&layer.blob) {
                archives.push((name.clone(), tar));
            }
            blobs.push((name, [&[0][..], &layer.blob].concat()));
        }
    }
    let [one, other, both] = [blobs.len(), archives.len(), stacks.len()];
    assert!(one > 100 && other > 80 && both > 20, "{one}, {other} and {both}");
    stacks.extend(archives.iter().map(|(name, tar)| (name.clone(), [&[255][..], tar].concat())));
    assert_eq!(failing(target("layer_forms"), stacks), [""; 0]);
    assert_eq!(failing(target("decompress"), blobs), [""; 0]);
    assert_eq!(failing(target("tar_entries"), archives), [""; 0]);
}

#[test]
fn malformed_documents_break_no_invariant() {
    let under_every_type = |case: documents::Case| {
        (0..=u8::MAX).step_by(17).map(move |first| (case.id.to_owned(), [&[first][..], &case.bytes].concat()))
    };
    assert_eq!(failing(target("manifest"), documents::cases().into_iter().flat_map(under_every_type)), [""; 0]);
}
