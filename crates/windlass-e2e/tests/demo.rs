//! The first thing a newcomer runs.

use std::fs;
use std::os::unix::process::CommandExt as _;

use windlass_e2e::world::{World, answer};

#[test]
fn the_demo_shows_its_four_outcomes_and_leaves_nothing_behind() {
    let world = World::new();
    let mut command = world.command(["demo"]);
    // A process group of its own, so that whatever it starts can be found.
    command.process_group(0);
    let answer = answer(command, None);
    assert_eq!(answer.code(), Some(0), "{answer}");
    for said in ["public/hello", "team-a/app", "public/multi", "team-b/app", "ErrImagePull", "tried:", "hint:"] {
        assert!(answer.stdout.contains(said), "{said}: {answer}");
    }
    let ready = answer.stdout.lines().filter(|line| line.trim_end().ends_with("ready")).count();
    assert_eq!(ready, 3, "{answer}");
    for name in ["tmp", "home"] {
        let left: Vec<_> = fs::read_dir(world.path(name)).expect("a directory").collect();
        assert!(left.is_empty(), "{name}: {left:?}");
    }
    assert!(!world.root().exists(), "the demo has a store of its own");
    let marker = world.path("tmp").display().to_string();
    assert_eq!(processes_with(&marker), [0; 0], "no process of the demo runs on");
}

/// Processes in whose environment a text stands; only those of this machine's folder have it.
fn processes_with(text: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("procfs").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let has = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.windows(text.len()).any(|window| window == text.as_bytes())
    };
    all.filter(has).collect()
}
