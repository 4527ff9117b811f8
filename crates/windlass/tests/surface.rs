//! What a person and a program see of the command itself: help, configuration, errors, exit status.

mod run;

use run::Windlass;

#[test]
fn help_lists_every_command() {
    insta::assert_snapshot!(Windlass::new().args(["help"]).succeeds().stdout);
}

#[test]
fn wrong_use_ends_with_two_and_says_so_in_the_form_asked_for() {
    let text = Windlass::new().args(["frobnicate"]).fails(2);
    assert!(text.stderr.contains("unrecognized subcommand"), "{}", text.stderr);
    let json = Windlass::new().args(["-o", "json", "version", "--roott"]).fails(2).stderr_json();
    assert_eq!(json["error"]["class"], "invalid-config");
    assert_eq!(json["error"]["reason"], "ErrImagePull");
    assert!(json["error"]["message"].as_str().unwrap().contains("--roott"), "{json}");
}

#[test]
fn version_carries_version_and_kind() {
    let json = Windlass::new().args(["version", "-o", "json"]).succeeds().stdout_json();
    assert_eq!((json["apiVersion"].as_str(), json["kind"].as_str()), (Some("windlass.dev/v1alpha1"), Some("Version")));
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    let quiet = Windlass::new().args(["version", "-q"]).succeeds();
    assert_eq!(quiet.stdout.trim(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn config_print_names_the_origin_of_each_value() {
    let windlass = Windlass::new()
        .config("root: /from/file\nlimits:\n  manifestBytes: 1MiB\n  layerEntries: 5\n")
        .env("WINDLASS_LIMITS_MANIFEST_BYTES", "2MiB")
        .env("WINDLASS_PROGRESS_TIMEOUT", "5s");
    let json = windlass.args(["config", "print", "-o", "json", "--platform", "linux/arm64"]).succeeds().stdout_json();
    let item = |key: &str| {
        let items = json["items"].as_array().unwrap();
        let item = items.iter().find(|item| item["key"] == key).unwrap_or_else(|| panic!("{key} is printed"));
        (item["value"].clone(), item["origin"].as_str().unwrap().to_owned(), item["from"].as_str().unwrap().to_owned())
    };
    let table = [
        ("limits.manifestBytes", "2MiB".into(), "environment", "WINDLASS_LIMITS_MANIFEST_BYTES"),
        ("limits.progressTimeout", "5s".into(), "environment", "WINDLASS_PROGRESS_TIMEOUT"),
        ("platform", "linux/arm64".into(), "flag", "--platform"),
        ("limits.configBytes", "8MiB".into(), "default", "default"),
    ];
    for (key, value, origin, from) in table {
        assert_eq!(item(key), (value, origin.to_owned(), from.to_owned()), "{key}");
    }
    let (value, origin, from) = item("limits.layerEntries");
    assert_eq!((value.as_u64(), origin.as_str()), (Some(5), "file"));
    assert!(from.ends_with("config.yaml:6"), "{from}");
}

#[test]
fn the_configuration_that_is_shipped_is_valid() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/config.yaml");
    let valid = Windlass::new().args(["config", "validate", file, "-o", "json"]).succeeds().stdout_json();
    assert_eq!(valid["valid"], true);
}

#[test]
fn config_validate_names_the_key_the_place_and_the_nearest() {
    let windlass = Windlass::new().config("rooot: /a\n");
    let output = windlass.args(["config", "validate"]).fails(2);
    assert!(output.stderr.contains("config.yaml:3:1: unknown key rooot (did you mean root?)"), "{}", output.stderr);
    let output = Windlass::new().config("root: /a\n").args(["config", "validate"]).succeeds();
    assert!(output.stdout.starts_with("VALID\n"), "{}", output.stdout);
}

#[test]
fn config_print_works_from_nothing_but_defaults() {
    let output = Windlass::new().config("rooot: broken\n").args(["config", "print", "--defaults"]).succeeds();
    insta::with_settings!({ filters => [(r"(?m)^(root|hostsDir) .*$", "$1 [set by the test]")] }, {
        insta::assert_snapshot!(output.stdout);
    });
}

#[test]
fn completion_scripts_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let output = Windlass::new().args(["completion", shell]).succeeds();
        assert!(output.stdout.contains("windlass") && output.stdout.contains("version"), "{shell}");
    }
    Windlass::new().args(["completion", "tcsh"]).fails(2);
}
