//! `windlass secret`: what is made is accepted by the kubelet's reader; what is wrong is said without showing it.

mod run;

use run::Windlass;

const PASSWORD: &str = "canary-hunter2";

#[test]
fn a_secret_for_several_registries_passes_its_own_check() {
    let made = Windlass::new()
        .file("pw", &format!("{PASSWORD}\n"))
        .env("HUB", PASSWORD)
        .args([
            "secret",
            "create",
            "regcred",
            "-n",
            "team-a",
            "--login",
            "r.example/team/,username=ci,password-file=pw",
            "--login",
            "docker.io,username=bot,password-env=HUB",
        ])
        .succeeds();
    assert!(made.stdout.starts_with("apiVersion: v1\nkind: Secret\nmetadata:\n  name: regcred\n  namespace: team-a\n"));
    let checked = Windlass::new().stdin(&made.stdout).args(["secret", "check", "-", "-o", "json"]).succeeds();
    let item = &checked.stdout_json()["items"][0];
    assert_eq!((item["secret"].as_str(), item["sound"].as_bool()), (Some("-: team-a/regcred"), Some(true)));
    assert_eq!(item["entries"][0]["key"], "r.example/team/");
    assert_eq!(item["entries"][1]["key"], "https://index.docker.io/v1/");
    assert_eq!(item["entries"][1]["user"], "bot");
    assert!(!checked.stdout.contains(PASSWORD));
}

#[test]
fn json_and_yaml_hold_the_same_secret() {
    let make = |form: &str| {
        let arguments = ["secret", "create", "a", "--login", "r.example,username=u,password-stdin", "-o", form];
        Windlass::new().stdin(PASSWORD).args(arguments).succeeds().stdout
    };
    let json: serde_json::Value = serde_json::from_str(&make("json")).unwrap();
    let data = json["data"][".dockerconfigjson"].as_str().unwrap();
    assert!(make("yaml").contains(data));
    assert_eq!(json["type"], "kubernetes.io/dockerconfigjson");
}

#[test]
fn what_is_wrong_is_said_without_showing_it() {
    let secret = |kind: &str, key: &str, text: &str| {
        format!("kind: Secret\nmetadata: {{name: s}}\ntype: {kind}\nstringData:\n  {key}: '{text}'\n")
    };
    let json = "kubernetes.io/dockerconfigjson";
    let entry = format!("{{\"username\":\"u\",\"password\":\"{PASSWORD}\"}}");
    let bad_auth = format!("{{\"auths\":{{\"a.example\":{{\"auth\":\"{PASSWORD}!\"}}}}}}");
    let table = [
        (secret(json, ".dockerconfigjson", &bad_auth), "a kubelet then fails"),
        (secret(json, ".dockerconfigjson", &format!("{{\"auths\":{{\"a\":{entry}}}")), "not JSON"),
        (secret("Opaque", ".dockerconfigjson", "{}"), "not used for pulling images"),
        (secret(json, "config.json", "{}"), "data[.dockerconfigjson] is missing"),
        (secret(json, ".dockerconfigjson", &format!("{{\"a.example\":{entry}}}")), "not under \"auths\""),
        (
            format!("kind: Secret\ntype: {json}\nmetadata: {{name: s}}\ndata: {{.dockerconfigjson: '{PASSWORD}!'}}\n"),
            "is not base64",
        ),
    ];
    for (text, want) in table {
        let output = Windlass::new().stdin(&text).args(["secret", "check", "-"]).fails(1);
        assert!(output.stdout.contains(want), "{text}\n{}", output.stdout);
        assert!(!output.stdout.contains(PASSWORD) && !output.stderr.contains(PASSWORD), "{}", output.stdout);
    }
}

#[test]
fn a_key_that_covers_its_neighbours_is_pointed_out() {
    let text = format!("{{\"auths\":{{\"r.example/team\":{{\"username\":\"u\",\"password\":\"{PASSWORD}\"}}}}}}");
    let output = Windlass::new().file("config.json", &text).args(["secret", "check", "config.json"]).succeeds();
    assert!(output.stdout.contains("also covers repositories whose names merely begin with it"), "{}", output.stdout);
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_repeated() {
    let login = format!("r.example,username=u,password={PASSWORD}");
    let output = Windlass::new().args(["secret", "create", "a", "--login", &login, "-o", "json"]).fails(2);
    assert!(output.stderr.contains("never an argument"), "{}", output.stderr);
}
