use super::*;

fn read(text: &str) -> Result<ProviderConfig, Vec<String>> {
    let raw = serde_json::from_str(text).map_err(|error| vec![error.to_string()])?;
    read_config(&[(String::new(), raw)]).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn config(version: &str, providers: &str) -> String {
    format!(r#"{{"kind":"{KIND}","apiVersion":"{GROUP}/{version}","providers":[{providers}]}}"#)
}

const ECR: &str = r#""name":"ecr","matchImages":["*.dkr.ecr.*.amazonaws.com"],"defaultCacheDuration":"12h",
    "apiVersion":"credentialprovider.kubelet.k8s.io/v1""#;

#[test]
fn a_whole_configuration_is_read() {
    let text = format!(
        r#"{{{ECR},"args":["get"],"env":[{{"name":"A","value":"canary"}}],"timeout":"5s","tokenAttributes":{{
        "serviceAccountTokenAudience":"sts","cacheType":"ServiceAccount","requireServiceAccount":true,
        "requiredServiceAccountAnnotationKeys":["x.io/a"],"optionalServiceAccountAnnotationKeys":["b"]}}}}"#
    );
    let found = read(&config("v1", &text)).expect("a good configuration");
    let want = ExecProvider {
        name: "ecr".to_owned(),
        match_images: vec!["*.dkr.ecr.*.amazonaws.com".to_owned()],
        default_cache: Duration::from_secs(12 * 3600),
        api_version: ExecVersion::V1,
        args: vec!["get".to_owned()],
        env: vec![("A".to_owned(), Secret::from("canary"))],
        token: Some(TokenAttributes {
            audience: "sts".to_owned(),
            cache_type: TokenCacheType::ServiceAccount,
            require_service_account: true,
            required_annotations: vec!["x.io/a".to_owned()],
            optional_annotations: vec!["b".to_owned()],
        }),
        timeout: Some(Duration::from_secs(5)),
    };
    assert!(!format!("{found:?}").contains("canary"));
    assert_eq!(found.providers, [want]);
    for version in ["v1alpha1", "v1beta1", "v1"] {
        assert!(read(&config(version, &format!("{{{ECR}}}"))).is_ok(), "{version}");
    }
}

#[test]
fn no_debug_text_holds_a_secret() {
    let text = config("v1", &format!(r#"{{{ECR},"env":[{{"name":"A","value":"canary"}}]}}"#));
    let raw: Raw = serde_json::from_str(&text).expect("JSON");
    let answer = r#"{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1",
        "cacheKeyType":"Image","auth":{"r.io":{"username":"u","password":"canary"}}}"#;
    let answer = crate::provider::read_answer(answer.as_bytes(), ExecVersion::V1).expect("a good answer");
    let mut cache = crate::provider::AnswerCache::default();
    let hour = Duration::from_secs(3600);
    cache.store("r.io/app", None, std::sync::Arc::new(answer.clone()), hour, Duration::ZERO, 0.0);
    let shown = format!("{raw:?} {:?} {answer:?} {cache:?}", read_config(&[(String::new(), raw.clone())]));
    assert!(!shown.contains("canary") && shown.contains("r.io"), "{shown}");
}

#[test]
fn every_problem_of_a_configuration_is_told_at_once() {
    let text = r#"{"kind":"Config","apiVersion":"kubelet.config.k8s.io/v2","extra":1,"providers":[
        {"name":"a/b","matchImages":["ok.io","h[a-z].io"],"defaultCacheDuration":"-1s","apiVersion":"v1","args":[1]},
        {"matchImages":[],"defaultCacheDuration":5,"env":[{"name":"","value":"v","x":1}],"timeout":"1h"},
        3]}"#;
    let want = [
        "kind must be CredentialProviderConfig",
        "apiVersion must be kubelet.config.k8s.io/v1, kubelet.config.k8s.io/v1beta1 or kubelet.config.k8s.io/v1alpha1",
        "extra is not a field of this version",
        "providers[0].name must be the name of a program: not empty, not . or .., no slash and no space",
        "providers[0].matchImages[1] is not the pattern of a registry: ",
        "providers[0].defaultCacheDuration must not be negative",
        "providers[0].apiVersion must be one of credentialprovider.kubelet.k8s.io/v1alpha1, ",
        "providers[0].args[0] must be a text, and is a number",
        "providers[1].name must be the name of a program",
        "providers[1].matchImages must have at least one entry",
        "providers[1].defaultCacheDuration must be a text, and is a number",
        "providers[1].apiVersion must be one of ",
        "providers[1].env[0].name must be the name of a variable",
        "providers[1].env[0].x is not a field of this version",
        "providers[1].timeout must be from 1s to 120s",
        "providers[2] must be a map, and is a number",
    ];
    let problems = read(text).expect_err("a bad configuration");
    assert_eq!(problems.len(), want.len(), "{problems:#?}");
    for (got, want) in problems.iter().zip(want) {
        assert!(got.starts_with(want), "{got:?} does not begin with {want:?}");
    }
}

#[test]
fn unknown_and_repeated_fields_are_errors() {
    let table = [
        (config("v1", ""), "providers must have at least one entry"),
        (config("v1", &format!(r#"{{{ECR},"Args":[]}}"#)), "providers[0].Args is not a field of this version"),
        (config("v1", &format!(r#"{{{ECR},"name":"x"}}"#)), "a field stands twice"),
        (config("v1", &format!("{{{ECR}}},{{{ECR}}}")), "providers[1].name stands twice"),
        (r#"{"kind":"CredentialProviderConfig"} x"#.to_owned(), "trailing characters"),
        ("[]".to_owned(), "must be a map, and is a list"),
    ];
    for (text, want) in table {
        let problems = read(&text).expect_err(want);
        assert!(problems.len() == 1 && problems[0].starts_with(want), "{problems:?}, not {want}");
    }
}

#[test]
fn token_attributes_are_checked() {
    let good = r#""serviceAccountTokenAudience":"a","cacheType":"Token","requireServiceAccount":false"#;
    let of = |version: &str, fields: &str| config(version, &format!(r#"{{{ECR},"tokenAttributes":{{{fields}}}}}"#));
    let old = of("v1", good).replace("k8s.io/v1\"\n", "k8s.io/v1\"").replacen(
        "credentialprovider.kubelet.k8s.io/v1",
        "credentialprovider.kubelet.k8s.io/v1beta1",
        1,
    );
    let at = "providers[0].tokenAttributes";
    let table = [
        (of("v1", good), Vec::new()),
        (of("v1beta1", good), vec![format!("{at} is a field of kubelet.config.k8s.io/v1 only")]),
        (old, vec![format!("{at} needs apiVersion credentialprovider.kubelet.k8s.io/v1 of the provider")]),
        (
            of("v1", r#""cacheType":"token""#),
            vec![
                format!("{at}.serviceAccountTokenAudience is required"),
                format!("{at}.cacheType must be Token or ServiceAccount"),
                format!("{at}.requireServiceAccount must be true or false"),
            ],
        ),
        (
            of(
                "v1",
                &format!(
                    r#"{good},"requiredServiceAccountAnnotationKeys":["a","a"],
                    "optionalServiceAccountAnnotationKeys":["a","-"]"#
                ),
            ),
            vec![
                format!("{at}.requiredServiceAccountAnnotationKeys[1] stands twice"),
                format!("{at}.optionalServiceAccountAnnotationKeys[1] is not the name of an annotation"),
                format!("{at}.requireServiceAccount must be true where annotations are required"),
                format!("{at}.optionalServiceAccountAnnotationKeys repeats \"a\", which is required"),
            ],
        ),
    ];
    for (text, want) in table {
        assert_eq!(read(&text).err().unwrap_or_default(), want, "{text}");
    }
}

#[test]
fn files_of_a_directory_are_one_configuration() {
    let raw = |text: String| serde_json::from_str::<Raw>(&text).expect("JSON");
    let one = raw(config("v1", &format!("{{{ECR}}}")));
    let two = raw(config("v1beta1", &format!("{{{}}}", ECR.replace("\"ecr\"", "\"two\""))));
    let empty = raw(config("v1", ""));
    let files = [("a.json".to_owned(), one.clone()), ("b.json".to_owned(), empty), ("c.json".to_owned(), two)];
    let names: Vec<String> =
        read_config(&files).expect("good files").providers.into_iter().map(|provider| provider.name).collect();
    assert_eq!(names, ["ecr", "two"]);
    let twice = [("a.json".to_owned(), one.clone()), ("b.json".to_owned(), one)];
    let problems = read_config(&twice).expect_err("a name stands twice");
    assert_eq!(problems, [ConfigProblem::new("b.json: providers[0].name", "stands twice")]);
}

#[test]
fn the_hash_covers_lengths_and_bytes() {
    // printf '\0\0\0\0\0\0\0\1a\0\0\0\0\0\0\0\0' | sha256sum
    let want = "sha256:6aa98e17c109dd8e2ae23a478ceb48e193c730289ba48d741388a3cc8b38ef4f";
    assert_eq!(config_hash([&b"a"[..], b""]), want);
    assert_ne!(config_hash([&b"ab"[..]]), config_hash([&b"a"[..], b"b"]));
}
