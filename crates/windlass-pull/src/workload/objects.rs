//! Sorts the objects of a file by kind: those that hold pods, `Secret`, `ServiceAccount`, and the rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use windlass_core::keyring::{DOCKERCFG, DOCKERCONFIGJSON, PullSecret};
use windlass_core::secret::Secret;

use super::node::{Node, Value, read_documents};
use super::{ManifestText, Place, Skipped, WorkloadError};

/// Deepest nesting of `List` in `List`. kubectl writes one level.
const LIST_DEPTH_MAX: usize = 4;
/// The namespace of an object that names none.
const DEFAULT_NAMESPACE: &str = "default";

/// A pull secret as it stands in a file.
#[derive(Debug, Clone)]
pub struct GivenSecret {
    /// The secret; it has no UID, since only an API server could vouch for one.
    pub secret: PullSecret,
    /// Why its document is missing although the data key is there.
    pub damage: Option<&'static str>,
    /// Where it stands.
    pub place: Place,
}

/// An object that holds a pod: who it is, and the node of its pod spec.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) file: String,
    pub(super) kind: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: Option<String>,
    pub(super) line: u32,
    pub(super) spec: Node,
}

/// Everything found in the files so far, in order.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) holders: Vec<Holder>,
    pub(super) secrets: BTreeMap<(String, String), Arc<GivenSecret>>,
    /// By (namespace, name).
    pub(super) accounts: BTreeMap<(String, String), Account>,
    pub(super) skipped: Vec<Skipped>,
}

/// A service account.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    /// The names in its `imagePullSecrets`.
    pub(super) pull_secrets: Vec<String>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// Where each kind keeps its pod spec. Source: kubernetes `pkg/apis/{core,apps,batch}/types.go`.
const POD_HOLDERS: &[(&str, &str, &[&str])] = &[
    ("", "Pod", &["spec"]),
    ("", "PodTemplate", &["template", "spec"]),
    ("", "ReplicationController", &["spec", "template", "spec"]),
    ("apps", "Deployment", &["spec", "template", "spec"]),
    ("apps", "ReplicaSet", &["spec", "template", "spec"]),
    ("apps", "StatefulSet", &["spec", "template", "spec"]),
    ("apps", "DaemonSet", &["spec", "template", "spec"]),
    ("batch", "Job", &["spec", "template", "spec"]),
    ("batch", "CronJob", &["spec", "jobTemplate", "spec", "template", "spec"]),
];

/// Reads one file and sorts what it holds.
pub(super) fn collect(file: &ManifestText, found: &mut Found) -> Result<(), WorkloadError> {
    let documents = read_documents(&file.text).map_err(|bad| match template_line(&file.text) {
        Some(line) => WorkloadError::HelmTemplate { place: Place { file: file.name.clone(), line } },
        None => WorkloadError::Syntax {
            place: Place { file: file.name.clone(), line: bad.line.unwrap_or(0) },
            message: bad.message,
        },
    })?;
    documents.iter().try_for_each(|document| sort(document, &file.name, 0, found))
}

/// The first line that holds Helm's template code. Braces inside quotes or block scalars are legitimate data,
/// so this is asked only once the text has proved to be no manifest.
fn template_line(text: &str) -> Option<u32> {
    let line = text.lines().position(|line| line.contains("{{"))?;
    u32::try_from(line + 1).ok()
}

fn sort(object: &Node, file: &str, depth: usize, found: &mut Found) -> Result<(), WorkloadError> {
    let place = Place { file: file.to_owned(), line: object.line };
    if matches!(object.value, Value::Null) {
        return Ok(());
    }
    if !matches!(object.value, Value::Map(_)) {
        return Err(field_error(&place, "document", "a Kubernetes object", object));
    }
    let kind = required_text(object, &["kind"], file)?.to_owned();
    let api_version = object.get("apiVersion").and_then(Node::text).unwrap_or("v1");
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    if let Some(&(_, kind, path)) = POD_HOLDERS.iter().find(|(g, k, _)| *k == kind && in_group(group, g)) {
        found.holders.push(holder(object, kind, path, file)?);
    } else if group.is_empty() && kind == "Secret" {
        let given = given_secret(object, file)?;
        found.secrets.insert((given.secret.namespace.clone(), given.secret.name.clone()), Arc::new(given));
    } else if group.is_empty() && kind == "ServiceAccount" {
        let pull_secrets = reference_names(object.get("imagePullSecrets"), "imagePullSecrets", file)?;
        let account = Account { pull_secrets, annotations: annotations(object) };
        found.accounts.insert((namespace(object), name(object)), account);
    } else if kind == "List" || (kind.ends_with("List") && object.get("items").is_some()) {
        if depth >= LIST_DEPTH_MAX {
            return Err(WorkloadError::ListDepth { place, limit: LIST_DEPTH_MAX });
        }
        for item in list(object.get("items"), "items", file)? {
            sort(item, file, depth + 1, found)?;
        }
    } else {
        let kind = if group.is_empty() { kind } else { format!("{group}/{kind}") };
        found.skipped.push(Skipped { kind, name: name(object), place });
    }
    Ok(())
}

/// The annotations that are texts, as all are at the API server.
fn annotations(object: &Node) -> BTreeMap<String, String> {
    let Some(Value::Map(entries)) = object.at(&["metadata", "annotations"]).map(|node| &node.value) else {
        return BTreeMap::new();
    };
    entries.iter().filter_map(|(name, node)| Some((name.clone(), node.text()?.to_owned()))).collect()
}

/// `extensions` was the home of Deployment, ReplicaSet and DaemonSet until Kubernetes 1.16.
fn in_group(group: &str, want: &str) -> bool {
    group == want || (want == "apps" && group == "extensions")
}

fn holder(object: &Node, kind: &'static str, path: &[&str], file: &str) -> Result<Holder, WorkloadError> {
    let spec = object.at(path).ok_or_else(|| WorkloadError::Field {
        place: Place { file: file.to_owned(), line: object.line },
        field: path.join("."),
        want: "a pod's specification",
        got: "missing".to_owned(),
    })?;
    if !matches!(spec.value, Value::Map(_)) {
        let place = Place { file: file.to_owned(), line: spec.line };
        return Err(field_error(&place, &path.join("."), "a pod's specification", spec));
    }
    let uid = object.at(&["metadata", "uid"]).and_then(Node::text).filter(|uid| !uid.is_empty());
    Ok(Holder {
        file: file.to_owned(),
        kind,
        namespace: namespace(object),
        name: name(object),
        uid: uid.filter(|_| kind == "Pod").map(str::to_owned),
        line: object.line,
        spec: spec.clone(),
    })
}

fn given_secret(object: &Node, file: &str) -> Result<GivenSecret, WorkloadError> {
    let kind = object.get("type").and_then(Node::text).unwrap_or("Opaque").to_owned();
    let key = match kind.as_str() {
        DOCKERCONFIGJSON => Some(".dockerconfigjson"),
        DOCKERCFG => Some(".dockercfg"),
        _ => None,
    };
    let (data, damage) = match key {
        Some(key) => secret_document(object, key, file)?,
        None => (Secret::new(Vec::new()), None),
    };
    let place = Place { file: file.to_owned(), line: object.line };
    let secret =
        PullSecret { namespace: namespace(object), name: name(object), uid: String::new(), r#type: kind, data };
    Ok(GivenSecret { secret, damage, place })
}

/// `stringData` wins over `data`, as at the API server.
fn secret_document(
    object: &Node,
    key: &str,
    file: &str,
) -> Result<(Secret<Vec<u8>>, Option<&'static str>), WorkloadError> {
    let nothing = || Secret::new(Vec::new());
    let plain = object.at(&["stringData", key]);
    let encoded = object.at(&["data", key]);
    let Some(node) = plain.or(encoded) else { return Ok((nothing(), None)) };
    let place = Place { file: file.to_owned(), line: node.line };
    let text = node.text().ok_or_else(|| field_error(&place, key, "a string", node))?;
    if plain.is_some() {
        return Ok((Secret::new(text.as_bytes().to_vec()), None));
    }
    let folded: String = text.split_ascii_whitespace().collect();
    match STANDARD.decode(folded) {
        Ok(document) => Ok((Secret::new(document), None)),
        Err(_) => Ok((nothing(), Some("data is not base64; write plain text under stringData"))),
    }
}

pub(super) fn name(object: &Node) -> String {
    let metadata = |key| object.at(&["metadata", key]).and_then(Node::text);
    match metadata("name") {
        Some(name) => name.to_owned(),
        None => metadata("generateName").map(|prefix| format!("{prefix}*")).unwrap_or_default(),
    }
}

fn namespace(object: &Node) -> String {
    let given = object.at(&["metadata", "namespace"]).and_then(Node::text).filter(|name| !name.is_empty());
    given.unwrap_or(DEFAULT_NAMESPACE).to_owned()
}

/// The names of a list of `{name: ...}`, in order; empty names are skipped as by the kubelet.
pub(super) fn reference_names(node: Option<&Node>, field: &str, file: &str) -> Result<Vec<String>, WorkloadError> {
    let mut names = Vec::new();
    for entry in list(node, field, file)? {
        let name = entry.get("name");
        match name.map(|name| (name, name.text())) {
            None | Some((_, Some(""))) => {}
            Some((_, Some(name))) => names.push(name.to_owned()),
            Some((node, None)) => {
                let place = Place { file: file.to_owned(), line: node.line };
                return Err(field_error(&place, &format!("{field}[].name"), "a string", node));
            }
        }
    }
    Ok(names)
}

/// The entries of a list that may be missing.
pub(super) fn list<'n>(node: Option<&'n Node>, field: &str, file: &str) -> Result<&'n [Node], WorkloadError> {
    match node {
        None => Ok(&[]),
        Some(node) => match &node.value {
            Value::List(entries) => Ok(entries),
            Value::Null | Value::Bool | Value::Number | Value::Text(_) | Value::Map(_) => {
                let place = Place { file: file.to_owned(), line: node.line };
                Err(field_error(&place, field, "a list", node))
            }
        },
    }
}

fn required_text<'n>(object: &'n Node, path: &[&str], file: &str) -> Result<&'n str, WorkloadError> {
    let missing = || WorkloadError::Field {
        place: Place { file: file.to_owned(), line: object.line },
        field: path.join("."),
        want: "a string",
        got: "missing".to_owned(),
    };
    let node = object.at(path).ok_or_else(missing)?;
    let place = Place { file: file.to_owned(), line: node.line };
    node.text().ok_or_else(|| field_error(&place, &path.join("."), "a string", node))
}

pub(super) fn field_error(place: &Place, field: &str, want: &'static str, got: &Node) -> WorkloadError {
    let (place, field, got) = (place.clone(), field.to_owned(), got.kind().to_owned());
    WorkloadError::Field { place, field, want, got }
}
