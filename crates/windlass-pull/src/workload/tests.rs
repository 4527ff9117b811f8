use super::*;
use PolicySet::{Defaulted, Written};
use PullPolicy::{Always, IfNotPresent, Never};

fn read_one(text: &str) -> Result<Workloads, WorkloadError> {
    read(&[ManifestText { name: "f.yaml".into(), text: text.into() }])
}

fn images(pod: &PodSpec) -> Vec<(&str, Slot, &str, PullPolicy, PolicySet)> {
    pod.containers.iter().map(|c| (c.name.as_str(), c.slot, c.image.as_str(), c.policy, c.policy_was_set)).collect()
}

#[test]
fn every_image_of_a_pod_is_found_in_the_kubelets_order() {
    let found = read_one(
        r#"
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: team, uid: 4be1 }
spec:
  containers:
  - name: app
    image: reg.example/app:1
  - name: side
    image: reg.example/side
  initContainers:
  - { name: setup, image: "busybox:latest", imagePullPolicy: IfNotPresent }
  ephemeralContainers:
  - { name: debug, image: busybox@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855, imagePullPolicy: Never }
  volumes:
  - name: data
    image: { reference: "reg.example/data:2", pullPolicy: Always }
  - name: tmp
    emptyDir: {}
"#,
    )
    .unwrap();
    let pod = &found.pods[0];
    assert_eq!((pod.namespace.as_str(), pod.name.as_str(), pod.kind.as_str()), ("team", "web", "Pod"));
    assert_eq!(pod.backoff_id(), "4be1");
    let digest = "busybox@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(
        images(pod),
        [
            ("data", Slot::Volume, "reg.example/data:2", Always, Written),
            ("setup", Slot::Init, "busybox:latest", IfNotPresent, Written),
            ("app", Slot::Container, "reg.example/app:1", IfNotPresent, Defaulted),
            ("side", Slot::Container, "reg.example/side", Always, Defaulted),
            ("debug", Slot::Ephemeral, digest, Never, Written),
        ]
    );
    assert_eq!(pod.containers[2].place.to_string(), "f.yaml:8");
}

#[test]
fn every_workload_kind_yields_its_pod() {
    let pod = "containers: [{name: c, image: \"a:1\"}]";
    let table = [
        ("v1", "Pod", format!("spec: {{{pod}}}")),
        ("v1", "PodTemplate", format!("template: {{spec: {{{pod}}}}}")),
        ("v1", "ReplicationController", format!("spec: {{template: {{spec: {{{pod}}}}}}}")),
        ("apps/v1", "Deployment", format!("spec: {{template: {{spec: {{{pod}}}}}}}")),
        ("apps/v1", "ReplicaSet", format!("spec: {{template: {{spec: {{{pod}}}}}}}")),
        ("apps/v1", "StatefulSet", format!("spec: {{template: {{spec: {{{pod}}}}}}}")),
        ("apps/v1", "DaemonSet", format!("spec: {{template: {{spec: {{{pod}}}}}}}")),
        ("extensions/v1beta1", "Deployment", format!("spec: {{template: {{spec: {{{pod}}}}}}}")),
        ("batch/v1", "Job", format!("spec: {{template: {{spec: {{{pod}}}}}}}")),
        ("batch/v1", "CronJob", format!("spec: {{jobTemplate: {{spec: {{template: {{spec: {{{pod}}}}}}}}}}}")),
    ];
    let mut all = Vec::new();
    for (version, kind, body) in table {
        let object = format!("{{apiVersion: {version}, kind: {kind}, metadata: {{name: web}}, {body}}}");
        let found = read_one(&object).unwrap();
        assert_eq!(found.pods.len(), 1, "{kind}");
        assert_eq!(found.pods[0].kind, kind);
        assert_eq!(found.pods[0].containers[0].image, "a:1", "{kind}");
        assert_eq!(found.pods[0].backoff_id(), "default/web");
        all.push(object);
    }
    let list = format!("{{apiVersion: v1, kind: List, items: [{}]}}", all.join(","));
    assert_eq!(read_one(&list).unwrap().pods.len(), all.len());
    assert_eq!(read_one(&all.join("\n---\n")).unwrap().pods.len(), all.len());
    assert_eq!(read_one(&format!("{{kind: PodList, apiVersion: v1, items: [{}]}}", all[0])).unwrap().pods.len(), 1);
    let mut nested = all[0].clone();
    for _ in 0..8 {
        nested = format!("{{apiVersion: v1, kind: List, items: [{nested}]}}");
    }
    assert!(matches!(read_one(&nested), Err(WorkloadError::ListDepth { .. })));
}

const SECRETS: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: plain, namespace: team}
type: kubernetes.io/dockerconfigjson
stringData: {".dockerconfigjson": '{"auths":{"a":{}}}'}
data: {".dockerconfigjson": "bm90IHRoaXM="}
---
apiVersion: v1
kind: Secret
metadata: {name: coded, namespace: team}
type: kubernetes.io/dockercfg
data:
  .dockercfg: |
    eyJh
    Ijp7fX0=
---
apiVersion: v1
kind: Secret
metadata: {name: opaque, namespace: team}
data: {password: aHVudGVyMg==}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: team, annotations: {role: arn, number: 1}}
imagePullSecrets: [{name: coded}, {name: ""}, {name: gone}]
"#;

fn pod_with(extra: &str) -> PodSpec {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: team}}\nspec:\n  containers: [{{name: c, image: a}}]\n{extra}"
    );
    // The pod stands in an earlier file than what it needs.
    let files = [pod.as_str(), SECRETS].map(|text| ManifestText { name: "x".into(), text: text.into() });
    read(&files).unwrap().pods.remove(0)
}

fn secret_names(pod: &PodSpec) -> Vec<(&str, bool)> {
    pod.pull_secrets.iter().map(|s| (s.name.as_str(), matches!(s.found, SecretFound::Here(_)))).collect()
}

#[test]
fn account_secrets_are_copied_only_into_an_empty_list() {
    let own = pod_with("  imagePullSecrets: [{name: plain}, {name: opaque}]\n");
    assert_eq!(secret_names(&own), [("plain", true), ("opaque", true)]);
    assert_eq!(own.pull_secrets_from, SecretsFrom::Pod);
    let copied = pod_with("");
    assert_eq!(secret_names(&copied), [("coded", true), ("gone", false)]);
    assert_eq!((copied.pull_secrets_from, copied.service_account.as_str()), (SecretsFrom::ServiceAccount, "default"));
    let other = pod_with("  serviceAccountName: robot\n");
    assert_eq!(secret_names(&other), []);
    assert_eq!((other.pull_secrets_from, other.service_account.as_str()), (SecretsFrom::Unknown, "robot"));
}

#[test]
fn the_account_comes_with_its_annotations() {
    let account = pod_with("").account();
    assert_eq!((account.namespace.as_str(), account.name.as_str(), account.uid.as_str()), ("team", "default", ""));
    assert_eq!(account.annotations, BTreeMap::from([("role".to_owned(), "arn".to_owned())]));
    assert!(pod_with("  serviceAccountName: robot\n").account().annotations.is_empty());
}

#[test]
fn secret_data_is_decoded_and_string_data_wins() {
    let pod = pod_with("  imagePullSecrets: [{name: plain}, {name: coded}, {name: opaque}]\n");
    let documents: Vec<_> = pod.resolved_secrets().map(|s| s.data.expose().clone()).collect();
    assert_eq!(documents, [br#"{"auths":{"a":{}}}"#.to_vec(), br#"{"a":{}}"#.to_vec(), Vec::new()]);
}

#[test]
fn secrets_never_print() {
    let pod = pod_with("  imagePullSecrets: [{name: plain}, {name: coded}]\n");
    let shown = format!("{pod:?}");
    assert!(!shown.contains("auths") && shown.contains("***"), "{shown}");
}

#[test]
fn missing_and_damaged_secrets_are_noted() {
    let text = r#"
{apiVersion: v1, kind: Secret, metadata: {name: bad}, type: kubernetes.io/dockercfg, data: {.dockercfg: "%%%"}}
---
{apiVersion: v1, kind: Secret, metadata: {name: far, namespace: other}, type: Opaque}
---
{apiVersion: v1, kind: Pod, metadata: {name: p},
 spec: {imagePullSecrets: [{name: bad}, {name: gone}, {name: far}], containers: []}}
"#;
    let notes: Vec<String> = read_one(text).unwrap().notes.into_iter().map(|note| note.text).collect();
    assert_eq!(notes.len(), 4, "{notes:?}");
    assert!(notes[0].contains("default/bad") && notes[0].contains("not base64"));
    assert!(notes[1].ends_with("default/gone of Pod p is not in the given files and is not used"));
    assert!(notes[2].contains("default/far") && notes[2].ends_with("the one in namespace other is out of its reach"));
    assert!(notes[3].contains("names no image"));
}

#[test]
fn unknown_kinds_are_passed_over_and_named() {
    let text = "kind: Widget\napiVersion: example.com/v1\nmetadata: {name: w}\nspec: [1, {containers: 5}]\n---\nkind: ConfigMap\napiVersion: v1\nmetadata: {name: cm}\ndata: {a: \"{{ x }}\"}\n";
    let found = read_one(text).unwrap();
    assert!(found.pods.is_empty());
    let kinds: Vec<_> = found.skipped.iter().map(|s| (s.kind.as_str(), s.name.as_str(), s.place.line)).collect();
    assert_eq!(kinds, [("example.com/Widget", "w", 1), ("ConfigMap", "cm", 6)]);
}

#[test]
fn an_unknown_policy_is_refused_by_name() {
    let text =
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: app\n    image: a\n    imagePullPolicy: always\n";
    let error = read_one(text).unwrap_err();
    assert_eq!(error.to_string(), "f.yaml:7: imagePullPolicy \"always\" of app is none of Always, IfNotPresent, Never");
    assert_eq!(error.reason(), Reason::InvalidConfig);
}

#[test]
fn helm_templates_are_explained() {
    let table = [
        "{{- if .Values.on }}\nkind: Pod\n{{- end }}\n",
        "kind: Pod\napiVersion: v1\nspec:\n  containers:\n  - image: {{ .Values.image }}\n",
        "kind: Pod\napiVersion: v1\nspec:\n  containers:\n  - image: \"{{ .Values.image }}\"\n",
        "kind: Pod\napiVersion: v1\nspec:\n  containers:\n  - image: {{ .Values.image }}:{{ .Values.tag }}\n",
    ];
    for text in table {
        assert!(matches!(read_one(text), Err(WorkloadError::HelmTemplate { .. })), "{text}: {:?}", read_one(text));
    }
}

#[test]
fn wrong_shapes_are_refused_with_their_line() {
    let table = [
        ("just text\n", "document must be a Kubernetes object, not a string"),
        ("apiVersion: v1\n", "kind must be a string, not missing"),
        ("kind: Pod\n", "spec must be a pod's specification, not missing"),
        ("kind: Pod\nspec: 5\n", "spec must be a pod's specification, not a number"),
        ("kind: Pod\nspec:\n  containers: {a: b}\n", "containers must be a list, not a map"),
        ("kind: Pod\nspec:\n  containers: [a]\n", "containers[] must be a map, not a string"),
        ("kind: Pod\nspec:\n  containers: [{name: c, image: 5}]\n", "c.image must be a string, not a number"),
        (
            "kind: Pod\nspec: {imagePullSecrets: [{name: [x]}]}\n",
            "imagePullSecrets[].name must be a string, not a list",
        ),
        ("a: [\n", "not a Kubernetes manifest"),
    ];
    for (text, want) in table {
        let error = read_one(text).unwrap_err().to_string();
        assert!(error.starts_with("f.yaml:") && error.contains(want), "{text}: {error}");
    }
}
