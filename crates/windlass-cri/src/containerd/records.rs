//! Image records in containerd: names with what they lead to.
//!
//! Source of truth: containerd `internal/cri/store/image`, `internal/cri/labels` (what its CRI plugin expects).

use tonic::Code;
use windlass_proto::containerd::services::images::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, ListImagesRequest, UpdateImageRequest,
};
use windlass_proto::containerd::types::Descriptor;

use super::HandoverError;
use super::client::{ANSWER_MAX, COLLECTION_MAX, Client};
use super::plan::{Record, Target};

/// A record with this label is indexed by the CRI plugin as it is; one without gets it, and a record by ID beside it.
const MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");
/// With this label an image is shown as pinned.
const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");
/// How often a record that others remove and make meanwhile is tried.
const TRIES: usize = 3;

/// When what nothing leads to any more is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Collect {
    /// Some time later.
    Later,
    /// Before the call returns.
    Now,
}

/// Makes a record, or puts right what differs.
pub(super) async fn put(client: &Client, record: &Record, pinned: bool) -> Result<(), HandoverError> {
    const CREATE: &str = "create an image record";
    let image = image(record, pinned);
    for _ in 0..TRIES {
        let request = client.request(CreateImageRequest { image: Some(image.clone()) });
        match client.within(ANSWER_MAX, CREATE, client.images().create(request)).await? {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => {}
            Err(status) => return Err(client.error(CREATE, &status)),
        }
        let Some(found) = get(client, &record.name).await? else { continue };
        let paths = differences(&found, &image);
        if paths.is_empty() || update(client, image.clone(), paths).await? {
            return Ok(());
        }
    }
    let text = format!("{} is made and removed by somebody else", record.name);
    Err(HandoverError::Refused { action: CREATE, code: Code::Aborted.description(), text })
}

fn image(record: &Record, pinned: bool) -> Image {
    let labels = [Some(MANAGED), pinned.then_some(PINNED)].into_iter().flatten();
    Image {
        name: record.name.clone(),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        target: Some(descriptor(&record.target)),
        ..Image::default()
    }
}

fn descriptor(target: &Target) -> Descriptor {
    Descriptor {
        media_type: target.media_type.clone(),
        digest: target.digest.to_string(),
        size: i64::try_from(target.size_bytes).unwrap_or(i64::MAX),
        annotations: Default::default(),
    }
}

/// The fields in which a record differs from what it should be. Labels of others are left alone.
fn differences(found: &Image, wanted: &Image) -> Vec<String> {
    let digest = |image: &Image| image.target.as_ref().map(|target| target.digest.clone());
    let mut paths = Vec::new();
    if digest(found) != digest(wanted) {
        paths.push("target".to_owned());
    }
    for (key, _) in [MANAGED, PINNED] {
        if found.labels.get(key) != wanted.labels.get(key) {
            paths.push(format!("labels.{key}"));
        }
    }
    paths
}

/// Whether the record was there to be changed.
async fn update(client: &Client, image: Image, paths: Vec<String>) -> Result<bool, HandoverError> {
    const UPDATE: &str = "update an image record";
    let mask = prost_types::FieldMask { paths };
    let request = client.request(UpdateImageRequest { image: Some(image), update_mask: Some(mask) });
    match client.within(ANSWER_MAX, UPDATE, client.images().update(request)).await? {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(client.error(UPDATE, &status)),
    }
}

/// Whether a record's labels say other than they should.
pub(super) fn is_labelled(image: &Image, pinned: bool) -> bool {
    let has = |(key, value): (&str, &str)| image.labels.get(key).map(String::as_str) == Some(value);
    has(MANAGED) && has(PINNED) == pinned
}

/// Changes nothing about a record, so that everybody who listens looks at it again; whether it was there.
pub(super) async fn touch(client: &Client, name: &str) -> Result<bool, HandoverError> {
    let labels = [(MANAGED.0.to_owned(), MANAGED.1.to_owned())].into();
    let image = Image { name: name.to_owned(), labels, ..Image::default() };
    update(client, image, vec![format!("labels.{}", MANAGED.0)]).await
}

/// The record of a name.
pub(super) async fn get(client: &Client, name: &str) -> Result<Option<Image>, HandoverError> {
    const GET: &str = "show an image record";
    let request = client.request(GetImageRequest { name: name.to_owned() });
    match client.within(ANSWER_MAX, GET, client.images().get(request)).await? {
        Ok(answer) => Ok(answer.image),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(client.error(GET, &status)),
    }
}

/// Every record of the namespace.
pub(super) async fn list(client: &Client) -> Result<Vec<Image>, HandoverError> {
    let request = client.request(ListImagesRequest::default());
    Ok(client.answer("list image records", client.images().list(request)).await?.images)
}

/// Removes a record; one that is not there is removed.
pub(super) async fn delete(client: &Client, name: &str, collect: Collect) -> Result<(), HandoverError> {
    const DELETE: &str = "delete an image record";
    let limit = match collect {
        Collect::Later => ANSWER_MAX,
        Collect::Now => COLLECTION_MAX,
    };
    let request = client.request(DeleteImageRequest { name: name.to_owned(), sync: collect == Collect::Now });
    match client.within(limit, DELETE, client.images().delete(request)).await? {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(client.error(DELETE, &status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_core::digest::Digest;

    #[test]
    fn only_what_differs_is_changed_and_labels_of_others_stay() {
        let target =
            |text: &str| Target { media_type: "m".to_owned(), digest: Digest::sha256(text.as_bytes()), size_bytes: 1 };
        let record = |text: &str| Record { name: "n".to_owned(), target: target(text) };
        let wanted = image(&record("a"), true);
        let mut found = wanted.clone();
        found.labels.insert("other".to_owned(), "label".to_owned());
        assert_eq!(differences(&found, &wanted), [""; 0]);
        assert!(is_labelled(&found, true) && !is_labelled(&found, false));
        assert_eq!(differences(&found, &image(&record("b"), true)), ["target"]);
        assert_eq!(differences(&found, &image(&record("a"), false)), ["labels.io.cri-containerd.pinned"]);
        found.labels.clear();
        assert_eq!(differences(&found, &wanted), ["labels.io.cri-containerd.image", "labels.io.cri-containerd.pinned"]);
        assert!(!is_labelled(&found, false));
    }
}
