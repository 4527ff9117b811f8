//! One pod's images, policies and pull secrets, as defaulting and admission would have left them.

use std::collections::BTreeMap;

use windlass_core::policy::{PullPolicy, default_policy, effective_policy};

use super::node::{Node, Value};
use super::objects::{Found, Holder, field_error, list, reference_names};
use super::{
    ContainerImage, Note, Place, PodSpec, PolicySet, PullSecretRef, SecretFound, SecretsFrom, Slot, WorkloadError,
};

/// Builds the pod of one holder.
pub(super) fn pod_spec(holder: &Holder, found: &Found) -> Result<PodSpec, WorkloadError> {
    let account = account_name(&holder.spec);
    let (names, from) = secret_names(holder, &account, found)?;
    let pull_secrets = names.into_iter().map(|name| resolve_secret(name, &holder.namespace, found)).collect();
    Ok(PodSpec {
        namespace: holder.namespace.clone(),
        name: holder.name.clone(),
        uid: holder.uid.clone(),
        kind: holder.kind.to_owned(),
        place: Place { file: holder.file.clone(), line: holder.line },
        containers: images(holder)?,
        pull_secrets,
        pull_secrets_from: from,
        service_account_annotations: annotations(holder, &account, found),
        service_account: account,
    })
}

/// `serviceAccountName`, its old name `serviceAccount`, else `default`.
fn account_name(spec: &Node) -> String {
    let text = |key| spec.get(key).and_then(Node::text).filter(|name| !name.is_empty());
    text("serviceAccountName").or_else(|| text("serviceAccount")).unwrap_or("default").to_owned()
}

/// The account's list is copied if and only if the pod's own is empty; never merged.
fn secret_names(holder: &Holder, account: &str, found: &Found) -> Result<(Vec<String>, SecretsFrom), WorkloadError> {
    let own = list(holder.spec.get("imagePullSecrets"), "imagePullSecrets", &holder.file)?;
    if !own.is_empty() {
        let names = reference_names(holder.spec.get("imagePullSecrets"), "imagePullSecrets", &holder.file)?;
        return Ok((names, SecretsFrom::Pod));
    }
    match found.accounts.get(&(holder.namespace.clone(), account.to_owned())) {
        Some(account) => Ok((account.pull_secrets.clone(), SecretsFrom::ServiceAccount)),
        None => Ok((Vec::new(), SecretsFrom::Unknown)),
    }
}

fn annotations(holder: &Holder, account: &str, found: &Found) -> BTreeMap<String, String> {
    let account = found.accounts.get(&(holder.namespace.clone(), account.to_owned()));
    account.map(|account| account.annotations.clone()).unwrap_or_default()
}

fn resolve_secret(name: String, namespace: &str, found: &Found) -> PullSecretRef {
    let found = match found.secrets.get(&(namespace.to_owned(), name.clone())) {
        Some(secret) => SecretFound::Here(secret.clone()),
        None => {
            let mut others = found.secrets.keys().filter(|(_, other)| *other == name);
            SecretFound::Missing { elsewhere: others.next().map(|(namespace, _)| namespace.clone()) }
        }
    };
    PullSecretRef { name, found }
}

fn images(holder: &Holder) -> Result<Vec<ContainerImage>, WorkloadError> {
    let mut images = Vec::new();
    for volume in entries(holder, "volumes")? {
        if let Some(source) = volume.get("image") {
            let fields = Fields { slot: Slot::Volume, image: "reference", policy: "pullPolicy" };
            images.push(image(holder, volume, source, fields)?);
        }
    }
    let lists =
        [("initContainers", Slot::Init), ("containers", Slot::Container), ("ephemeralContainers", Slot::Ephemeral)];
    for (field, slot) in lists {
        for container in entries(holder, field)? {
            let fields = Fields { slot, image: "image", policy: "imagePullPolicy" };
            images.push(image(holder, container, container, fields)?);
        }
    }
    Ok(images)
}

fn entries<'h>(holder: &'h Holder, field: &str) -> Result<&'h [Node], WorkloadError> {
    let entries = list(holder.spec.get(field), field, &holder.file)?;
    match entries.iter().find(|entry| !matches!(entry.value, Value::Map(_))) {
        Some(odd) => {
            let place = Place { file: holder.file.clone(), line: odd.line };
            Err(field_error(&place, &format!("{field}[]"), "a map", odd))
        }
        None => Ok(entries),
    }
}

/// What the fields are called in a container and in a volume.
struct Fields {
    slot: Slot,
    image: &'static str,
    policy: &'static str,
}

fn image(holder: &Holder, named: &Node, source: &Node, fields: Fields) -> Result<ContainerImage, WorkloadError> {
    let name = named.get("name").and_then(Node::text).unwrap_or_default().to_owned();
    let node = source.get(fields.image);
    let place = Place { file: holder.file.clone(), line: node.map_or(source.line, |node| node.line) };
    let image = match node.map(|node| (node, node.text())) {
        None => String::new(),
        Some((_, Some(text))) if text.contains("{{") => return Err(WorkloadError::HelmTemplate { place }),
        Some((_, Some(text))) => text.to_owned(),
        Some((node, None)) => return Err(field_error(&place, &format!("{}.{}", name, fields.image), "a string", node)),
    };
    let (policy, policy_was_set) = policy(source.get(fields.policy), &image, &name, &holder.file)?;
    Ok(ContainerImage { name, slot: fields.slot, image, policy, policy_was_set, place })
}

fn policy(
    node: Option<&Node>,
    image: &str,
    container: &str,
    file: &str,
) -> Result<(PullPolicy, PolicySet), WorkloadError> {
    let Some(node) = node else { return Ok((default_policy(image), PolicySet::Defaulted)) };
    let place = Place { file: file.to_owned(), line: node.line };
    let text = node.text().ok_or_else(|| field_error(&place, "imagePullPolicy", "a string", node))?;
    let set = if text.is_empty() { PolicySet::Defaulted } else { PolicySet::Written };
    match effective_policy(image, Some(text)) {
        Ok(policy) => Ok((policy, set)),
        Err(unknown) => {
            Err(WorkloadError::UnknownPolicy { place, container: container.to_owned(), value: unknown.written })
        }
    }
}

/// What is worth a word about a pod.
pub(super) fn notes(pod: &PodSpec) -> Vec<Note> {
    let note = |text: String| Note { place: pod.place.clone(), text };
    let mut notes = Vec::new();
    for secret in &pod.pull_secrets {
        match &secret.found {
            SecretFound::Missing { elsewhere } => {
                let but = |other: &String| format!("; the one in namespace {other} is out of its reach");
                notes.push(note(format!(
                    "pull secret {}/{} of {} {} is not in the given files and is not used{}",
                    pod.namespace,
                    secret.name,
                    pod.kind,
                    pod.name,
                    elsewhere.as_ref().map(but).unwrap_or_default()
                )));
            }
            SecretFound::Here(given) => {
                let secret = &given.secret;
                let problem = match given.damage {
                    Some(damage) => damage.to_owned(),
                    None if secret.data.expose().is_empty() => {
                        format!("type {} without registry credentials", secret.r#type)
                    }
                    None => continue,
                };
                let text = format!("pull secret {}/{} is not used: {problem}", secret.namespace, secret.name);
                notes.push(Note { place: given.place.clone(), text });
            }
        }
    }
    if pod.containers.is_empty() {
        notes.push(note(format!("{} {} names no image", pod.kind, pod.name)));
    }
    notes
}
