//! `windlass demo` shows what it promises and leaves nothing behind.

mod run;

use run::Windlass;

#[test]
fn the_demo_shows_three_images_and_says_why_the_fourth_is_refused() {
    let output = Windlass::new().args(["demo"]).succeeds();
    let row = |container: &str| {
        let mut rows = output.stdout.lines().filter(|line| line.starts_with("demo/demo"));
        rows.find(|line| line.contains(container))
            .unwrap_or_else(|| panic!("{container}: {}", output.stdout))
            .to_owned()
    };
    for container in ["public/hello", "team-a/app", "public/multi"] {
        assert!(row(container).ends_with("ready"), "{}", row(container));
    }
    assert!(row("team-b/app").ends_with("ErrImagePull"));
    for said in [
        "pulled with secret demo/pull-team-a",
        "chosen of linux/amd64, linux/arm64, linux/riscv64",
        "reason:   ErrImagePull",
        "tried:    secret demo/pull-team-b",
        "(user team-b): 401",
        "hint:     the registry refused the password of user team-b in secret demo/pull-team-b: renew it",
    ] {
        assert!(output.stdout.contains(said), "{said}\n{}", output.stdout);
    }
    let left: Vec<_> = std::fs::read_dir(output.home()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_demo_never_shows_a_password() {
    let output = Windlass::new().env("WINDLASS_LOG_LEVEL", "trace").args(["demo", "-o", "json"]).succeeds();
    for password in ["correct-horse", "battery-staple", "not-the-password"] {
        assert!(!output.stdout.contains(password) && !output.stderr.contains(password), "{password}");
    }
    let containers = output.stdout_json()["containers"].as_array().map(Vec::len);
    assert_eq!(containers, Some(4));
}
