//! Kubernetes manifests: what is read of them, and that no secret of theirs is ever printed.

use windlass_core::policy::{PullPolicy, default_policy};
use windlass_pull::workload::{ManifestText, PolicySet, SecretFound, SecretsFrom, WorkloadError, Workloads, read};

use super::secrets::assert_hidden;

/// The input is the text of a file, or of two with a NUL between them.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let files: Vec<ManifestText> = text
        .splitn(2, '\0')
        .enumerate()
        .map(|(at, text)| ManifestText { name: format!("file-{at}.yaml"), text: text.to_owned() })
        .collect();
    match read(&files) {
        Ok(found) => check(&found, &files),
        Err(error) => refused(&error, &files),
    }
}

fn lines(files: &[ManifestText], name: &str) -> u32 {
    let file = files.iter().find(|file| file.name == name).expect("a place names a file that was given");
    // YAML ends lines at a lone carriage return too.
    let breaks = file.text.bytes().filter(|b| matches!(b, b'\n' | b'\r')).count();
    u32::try_from(breaks).expect("a short text") + 1
}

fn check(found: &Workloads, files: &[ManifestText]) {
    let printed = format!("{found:?}");
    for pod in &found.pods {
        assert!(pod.place.line <= lines(files, &pod.place.file), "{}", pod.place);
        assert!(!pod.namespace.is_empty() && !pod.service_account.is_empty() && !pod.kind.is_empty(), "{pod:?}");
        for container in &pod.containers {
            assert!(container.place.line <= lines(files, &container.place.file), "{}", container.place);
            match container.policy_was_set {
                PolicySet::Defaulted => assert_eq!(container.policy, default_policy(&container.image)),
                PolicySet::Written => {
                    let word = container.policy.as_str();
                    assert!(files.iter().any(|file| file.text.contains(word) || file.text.contains('\\')), "{word}");
                }
            }
            assert!(matches!(container.policy, PullPolicy::Always | PullPolicy::IfNotPresent | PullPolicy::Never));
        }
        assert!(pod.containers.is_sorted_by_key(|container| container.slot), "the kubelet's order");
        assert_eq!(pod.backoff_id().is_empty(), pod.uid.as_deref() == Some(""));
        for secret in &pod.pull_secrets {
            if let SecretFound::Here(given) = &secret.found {
                assert_eq!((&given.secret.namespace, &given.secret.name), (&pod.namespace, &secret.name));
                let data = String::from_utf8_lossy(given.secret.data.expose());
                let shown: Vec<&str> = files.iter().map(|_| "").collect();
                // Documents of secrets are longer than any word they could share with honest text.
                assert_hidden(&printed, [data.as_ref()].into_iter().filter(|data| data.len() > 40), &shown);
            }
        }
        assert!(pod.pull_secrets_from != SecretsFrom::Unknown || pod.pull_secrets.is_empty(), "{pod:?}");
        assert!(pod.resolved_secrets().count() <= pod.pull_secrets.len());
    }
    for skipped in &found.skipped {
        assert!(skipped.place.line <= lines(files, &skipped.place.file));
    }
    for note in &found.notes {
        assert!(!note.text.contains('\n') && note.place.line <= lines(files, &note.place.file), "{note:?}");
    }
}

fn refused(error: &WorkloadError, files: &[ManifestText]) {
    let place = match error {
        WorkloadError::Syntax { place, .. }
        | WorkloadError::HelmTemplate { place }
        | WorkloadError::Field { place, .. }
        | WorkloadError::UnknownPolicy { place, .. }
        | WorkloadError::ListDepth { place, .. } => place,
        _ => return,
    };
    // A reader may point right behind the last line.
    assert!(place.line <= lines(files, &place.file) + 1, "{error}");
    assert!(!error.to_string().is_empty());
}
