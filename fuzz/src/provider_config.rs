//! A `CredentialProviderConfig` in JSON or YAML: every rule of a provider that was accepted, and no secret in a message.

use std::collections::BTreeSet;

use serde_json::Value;
use windlass_core::matchimage::check_pattern;
use windlass_core::provider::{
    ConfigProblem, ExecProvider, ExecVersion, ProviderConfig, TIMEOUT_MAX, TIMEOUT_MIN, config_hash,
};
use windlass_credentials::read_provider_files;

use super::secrets::assert_hidden;

/// The input is a file, or two of a directory with a NUL between them.
pub fn run(bytes: &[u8]) {
    let parts: Vec<&[u8]> = bytes.splitn(2, |b| *b == 0).collect();
    let names = if parts.len() == 1 { vec![""] } else { vec!["a.yaml", "b.json"] };
    let files: Vec<(&str, &[u8])> = names.into_iter().zip(parts.iter().copied()).collect();
    let loose: Vec<Option<Value>> = parts.iter().map(|part| serde_json::from_slice(part).ok()).collect();
    match read_provider_files(&files) {
        Ok(config) => accepted(&config, &loose),
        Err(problems) => refused(&problems, &loose, &parts),
    }
    assert_eq!(config_hash(parts.iter().copied()).len(), "sha256:".len() + 64);
}

fn accepted(config: &ProviderConfig, loose: &[Option<Value>]) {
    let names: BTreeSet<&str> = config.providers.iter().map(|provider| provider.name.as_str()).collect();
    assert!(!names.is_empty() && names.len() == config.providers.len(), "{config:?}");
    config.providers.iter().for_each(provider);
    // What both readers take for JSON has exactly these providers, and no field that nobody knows.
    if loose.iter().all(Option::is_some) {
        let written: Vec<&Value> =
            loose.iter().flatten().flat_map(|file| file["providers"].as_array().into_iter().flatten()).collect();
        assert_eq!(written.len(), config.providers.len());
        for (written, read) in written.into_iter().zip(&config.providers) {
            assert_eq!(written["name"], read.name.as_str());
            assert_eq!(written["apiVersion"], read.api_version.as_str());
            let fields = written.as_object().expect("a map").keys();
            assert!(fields.clone().all(|field| FIELDS.contains(&field.as_str())), "{written}");
        }
    }
    let secrets = config.providers.iter().flat_map(|provider| &provider.env).map(|(_, value)| value.expose().as_str());
    let mut shown: Vec<&str> = vec![STRUCTURE];
    for provider in &config.providers {
        shown.push(&provider.name);
        shown.extend(provider.match_images.iter().chain(&provider.args).map(String::as_str));
        shown.extend(provider.env.iter().map(|(name, _)| name.as_str()));
        let token = provider.token.iter();
        shown.extend(token.flat_map(|token| {
            let keys = token.required_annotations.iter().chain(&token.optional_annotations);
            std::iter::once(token.audience.as_str()).chain(keys.map(String::as_str))
        }));
    }
    assert_hidden(&format!("{config:?}"), secrets, &shown);
}

fn provider(provider: &ExecProvider) {
    let name = provider.name.as_str();
    assert!(!name.is_empty() && name != "." && name != ".." && !name.contains(['/', ' ', '\0']), "{name:?}");
    assert!(!provider.match_images.is_empty());
    assert!(provider.match_images.iter().all(|pattern| check_pattern(pattern).is_ok()));
    assert!(provider.timeout.is_none_or(|timeout| timeout >= TIMEOUT_MIN && timeout <= TIMEOUT_MAX));
    assert!(provider.args.iter().all(|text| !text.contains('\0')));
    for (name, value) in &provider.env {
        assert!(!name.is_empty() && !name.contains(['=', '\0']) && !value.expose().contains('\0'));
    }
    let Some(token) = &provider.token else { return };
    assert!(!token.audience.is_empty() && provider.api_version == ExecVersion::V1);
    assert!(token.require_service_account || token.required_annotations.is_empty());
    let keys: Vec<&String> = token.required_annotations.iter().chain(&token.optional_annotations).collect();
    let different: BTreeSet<&&String> = keys.iter().collect();
    assert_eq!(keys.len(), different.len());
}

fn refused(problems: &[ConfigProblem], loose: &[Option<Value>], parts: &[&[u8]]) {
    assert!(!problems.is_empty());
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for told in &told {
        assert!(!told.is_empty() && !told.contains('\n'), "{told:?}");
    }
    let texts: Vec<String> = loose.iter().flatten().flat_map(values).collect();
    // Names of fields, of annotations and whatever else a message may repeat is shown.
    let shown: Vec<String> = loose.iter().flatten().map(without_values).collect();
    // What is no JSON is not read here, so its field names are not told from its values.
    let others = parts.iter().zip(loose).filter(|(_, loose)| loose.is_none());
    let others: Vec<String> = others.map(|(part, _)| String::from_utf8_lossy(part).into_owned()).collect();
    let shown: Vec<&str> = shown.iter().chain(&others).map(String::as_str).chain([MESSAGES]).collect();
    assert_hidden(&told.join(" "), texts.iter().map(String::as_str), &shown);
}

fn entries(file: &Value) -> impl Iterator<Item = &Value> {
    let providers = file.get("providers").and_then(Value::as_array).into_iter().flatten();
    providers.flat_map(|provider| provider.get("env").and_then(Value::as_array).into_iter().flatten())
}

/// The values of variables: the only secrets of a configuration.
fn values(file: &Value) -> Vec<String> {
    entries(file).filter_map(|entry| entry.get("value")?.as_str().map(str::to_owned)).collect()
}

fn without_values(file: &Value) -> String {
    let mut file = file.clone();
    let providers = file.get_mut("providers").and_then(Value::as_array_mut).into_iter().flatten();
    for provider in providers {
        for entry in provider.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(value) = entry.get_mut("value") {
                *value = Value::Null;
            }
        }
    }
    file.to_string()
}

/// The fields of a provider.
const FIELDS: [&str; 8] =
    ["name", "matchImages", "defaultCacheDuration", "apiVersion", "args", "env", "tokenAttributes", "timeout"];

/// What `Debug` prints of its own.
const STRUCTURE: &str = "ProviderConfig { providers: [ExecProvider { name: \"\", match_images: [\"\", \"\"], default_cache: \
    api_version: V1Alpha1 V1Beta1 V1, args: [], env: [(\"\", ***), (\"\", ***)], token: None, timeout: Some(TokenAttributes \
    { audience: cache_type: Token ServiceAccount, require_service_account: true false, required_annotations: [], \
    optional_annotations: [] }), timeout: None } ExecProvider { name: ]}";

/// What messages say of their own.
const MESSAGES: &str = "kind must be CredentialProviderConfig apiVersion must be kubelet.config.k8s.io/v1, \
    kubelet.config.k8s.io/v1beta1 or kubelet.config.k8s.io/v1alpha1 is not a field of this version must be a map, and is a \
    list must be a text, and is a number must be a list, and is a boolean nothing must have at least one entry stands twice \
    must be the name of a program: not empty, not . or .., no slash and no space is not the pattern of a registry: is \
    required, a duration such as 10m must not be negative is not a duration such as 10m or 1h30m must be one of \
    credentialprovider.kubelet.k8s.io/v1alpha1, credentialprovider.kubelet.k8s.io/v1beta1, \
    credentialprovider.kubelet.k8s.io/v1 must not hold a zero byte must be from 1s to 120s must be the name of a variable \
    is a field of kubelet.config.k8s.io/v1 only needs apiVersion of the provider must be Token or ServiceAccount must be \
    true or false is not the name of an annotation must be true where annotations are required repeats which is required \
    providers[0].matchImages[0] providers[0].defaultCacheDuration providers[0].tokenAttributes.serviceAccountTokenAudience \
    cacheType requireServiceAccount requiredServiceAccountAnnotationKeys optionalServiceAccountAnnotationKeys env[0].value \
    env[0].name is not a document of a configuration in line";
