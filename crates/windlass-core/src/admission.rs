//! The admission rule AlwaysPullImages: every image is pulled, so that nobody runs what only another's secret unlocked.
//!
//! In: the request and the images of the pod, before and after. Out: what to set, or what to refuse.
//! Source of truth: kubernetes `plugin/pkg/admission/alwayspullimages/admission.go`. [`Scope::Windlass`] closes two gaps:
//! image volumes (KEP-4639 asks for it) and ephemeral containers, which arrive through a sub-resource.
//!
//! Invariants: `a_mutated_pod_is_valid`, `the_wider_scope_closes_both_gaps`.

use std::collections::BTreeSet;
use std::fmt;

use crate::policy::PullPolicy;

/// The sub-resource through which ephemeral containers are added.
pub const EPHEMERAL_CONTAINERS: &str = "ephemeralcontainers";

/// How far the rule reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Exactly as the plug-in of the API server.
    InTree,
    /// Image volumes and the sub-resource of ephemeral containers too.
    Windlass,
}

/// What is being done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is new.
    Create,
    /// It is changed.
    Update,
    /// It is deleted.
    Delete,
    /// Something connects to it.
    Connect,
}

/// A request as the API server describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// What is being done.
    pub operation: Operation,
    /// The resource, `pods`.
    pub resource: &'a str,
    /// The sub-resource, or empty.
    pub subresource: &'a str,
}

/// Where in a pod an image is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// `spec.initContainers`.
    Init,
    /// `spec.containers`.
    Container,
    /// `spec.ephemeralContainers`.
    Ephemeral,
    /// `spec.volumes`, those of type `image`.
    Volume,
}

/// One image of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodImage {
    /// In which list.
    pub slot: Slot,
    /// At which place of it.
    pub index: usize,
    /// The name of the container or volume.
    pub name: String,
    /// The image as written.
    pub image: String,
    /// The policy as written, possibly empty.
    pub policy: String,
}

impl PodImage {
    fn always(&self) -> bool {
        self.policy == PullPolicy::Always.as_str()
    }

    /// The policy's field, for a JSON patch: `/spec/containers/0/imagePullPolicy`.
    pub fn pointer(&self) -> String {
        let (list, field) = self.place();
        format!("/spec/{list}/{}/{}", self.index, field.replace('.', "/"))
    }

    /// The policy's field, for people: `spec.containers[0].imagePullPolicy`.
    pub fn field(&self) -> String {
        let (list, field) = self.place();
        format!("spec.{list}[{}].{field}", self.index)
    }

    fn place(&self) -> (&'static str, &'static str) {
        match self.slot {
            Slot::Init => ("initContainers", "imagePullPolicy"),
            Slot::Container => ("containers", "imagePullPolicy"),
            Slot::Ephemeral => ("ephemeralContainers", "imagePullPolicy"),
            Slot::Volume => ("volumes", "image.pullPolicy"),
        }
    }
}

/// A policy that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field.
    pub field: String,
    /// Its value.
    pub policy: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: Unsupported value: {:?}: supported values: \"Always\"", self.field, self.policy)
    }
}

/// Whether the rule is registered for the operation at all.
pub fn handles(operation: Operation) -> bool {
    match operation {
        Operation::Create | Operation::Update => true,
        Operation::Delete | Operation::Connect => false,
    }
}

/// Whether the object passes unread: another resource, or an update that brings no new image.
pub fn ignores(request: &Request<'_>, new: &[PodImage], old: &[PodImage], scope: Scope) -> bool {
    let subresource_counts = match (request.subresource, scope) {
        ("", Scope::InTree | Scope::Windlass) | (EPHEMERAL_CONTAINERS, Scope::Windlass) => true,
        (_, Scope::InTree | Scope::Windlass) => false,
    };
    request.resource != "pods" || !subresource_counts || !brings_new_image(request, new, old, scope)
}

/// Exact text, whatever the list: `a` and `a:latest` are two images, one that moved is not new.
fn brings_new_image(request: &Request<'_>, new: &[PodImage], old: &[PodImage], scope: Scope) -> bool {
    if request.operation != Operation::Update {
        return true;
    }
    let known: BTreeSet<&str> = old.iter().filter(|image| in_scope(image, scope)).map(|i| i.image.as_str()).collect();
    new.iter().any(|image| in_scope(image, scope) && !known.contains(image.image.as_str()))
}

fn in_scope(image: &PodImage, scope: Scope) -> bool {
    match (image.slot, scope) {
        (Slot::Init | Slot::Container | Slot::Ephemeral, Scope::InTree | Scope::Windlass) => true,
        (Slot::Volume, Scope::Windlass) => true,
        (Slot::Volume, Scope::InTree) => false,
    }
}

/// What the rule looks at. Through their sub-resource only ephemeral containers that are not there yet can be set.
fn examined<'a>(
    request: &Request<'_>,
    new: &'a [PodImage],
    old: &[PodImage],
    scope: Scope,
) -> impl Iterator<Item = &'a PodImage> {
    let only_added = request.subresource == EPHEMERAL_CONTAINERS;
    let known = old.iter().filter(|image| image.slot == Slot::Ephemeral).map(|image| image.name.clone());
    let known: BTreeSet<String> = known.collect();
    let passes = handles(request.operation) && !ignores(request, new, old, scope);
    new.iter().filter(move |image| {
        let is_added = image.slot == Slot::Ephemeral && !known.contains(&image.name);
        passes && in_scope(image, scope) && (!only_added || is_added)
    })
}

/// The images whose policy is to be set to `Always`.
pub fn mutate<'a>(request: &Request<'_>, new: &'a [PodImage], old: &[PodImage], scope: Scope) -> Vec<&'a PodImage> {
    examined(request, new, old, scope).filter(|image| !image.always()).collect()
}

/// Every policy that is not `Always`; all of them, so that one answer tells the author everything.
pub fn validate(request: &Request<'_>, new: &[PodImage], old: &[PodImage], scope: Scope) -> Vec<Violation> {
    let refused = mutate(request, new, old, scope).into_iter();
    refused.map(|image| Violation { field: image.field(), policy: image.policy.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(slot: Slot, index: usize, image: &str, policy: &str) -> PodImage {
        PodImage { slot, index, name: format!("{slot:?}{index}"), image: image.into(), policy: policy.into() }
    }

    fn pod() -> Vec<PodImage> {
        vec![
            image(Slot::Init, 0, "a", "Never"),
            image(Slot::Container, 0, "b", "Always"),
            image(Slot::Container, 1, "c", ""),
            image(Slot::Ephemeral, 0, "d", "IfNotPresent"),
            image(Slot::Volume, 3, "e", "IfNotPresent"),
        ]
    }

    const CREATE: Request<'_> = Request { operation: Operation::Create, resource: "pods", subresource: "" };
    const ADD_EPHEMERAL: Request<'_> =
        Request { operation: Operation::Update, resource: "pods", subresource: EPHEMERAL_CONTAINERS };

    #[test]
    fn a_mutated_pod_is_valid() {
        for scope in [Scope::InTree, Scope::Windlass] {
            let mut pod = pod();
            let pointers: Vec<String> = mutate(&CREATE, &pod, &[], scope).into_iter().map(PodImage::pointer).collect();
            for image in pod.iter_mut().filter(|image| pointers.contains(&image.pointer())) {
                image.policy = "Always".to_owned();
            }
            assert_eq!(validate(&CREATE, &pod, &[], scope), []);
        }
    }

    #[test]
    fn the_wider_scope_closes_both_gaps() {
        let pod = pod();
        let fields = |request: &Request<'_>, old: &[PodImage], scope| -> Vec<String> {
            validate(request, &pod, old, scope).into_iter().map(|violation| violation.field).collect()
        };
        let in_tree = [
            "spec.initContainers[0].imagePullPolicy",
            "spec.containers[1].imagePullPolicy",
            "spec.ephemeralContainers[0].imagePullPolicy",
        ];
        assert_eq!(fields(&CREATE, &[], Scope::InTree), in_tree);
        let all = [in_tree.as_slice(), &["spec.volumes[3].image.pullPolicy"]].concat();
        assert_eq!(fields(&CREATE, &[], Scope::Windlass), all);
        let before: Vec<PodImage> = pod.iter().filter(|image| image.slot != Slot::Ephemeral).cloned().collect();
        assert_eq!(fields(&ADD_EPHEMERAL, &before, Scope::InTree), [""; 0]);
        assert_eq!(fields(&ADD_EPHEMERAL, &before, Scope::Windlass), [in_tree[2]]);
        assert_eq!(fields(&ADD_EPHEMERAL, &pod, Scope::Windlass), [""; 0]);
    }

    #[test]
    fn a_refusal_names_field_and_value() {
        let violation = &validate(&CREATE, &pod(), &[], Scope::InTree)[0];
        let text = "spec.initContainers[0].imagePullPolicy: Unsupported value: \"Never\": supported values: \"Always\"";
        assert_eq!(violation.to_string(), text);
        assert_eq!(pod()[4].pointer(), "/spec/volumes/3/image/pullPolicy");
    }
}
