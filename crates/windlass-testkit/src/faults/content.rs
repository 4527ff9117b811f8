//! What the faulty registry holds, and the honest answer to a request.

use std::collections::HashMap;

use bytes::Bytes;
use windlass_core::digest::Digest;

use super::http1::Seen;
use crate::images::{Bundle, Content};
use crate::wire::Reply;

/// Everything placed so far. Digests are texts here, so that malformed ones can be served.
#[derive(Debug, Default)]
pub(super) struct Shelves {
    repositories: HashMap<String, Repository>,
    fixed: HashMap<String, (String, Bytes)>,
}

#[derive(Debug, Default)]
struct Repository {
    tags: HashMap<String, String>,
    manifests: HashMap<String, Content>,
    blobs: HashMap<String, Content>,
}

impl Shelves {
    pub(super) fn place(&mut self, bundle: &Bundle, repository: &str, tag: &str) {
        let shelf = self.repositories.entry(repository.to_owned()).or_default();
        for blob in &bundle.blobs {
            shelf.blobs.insert(blob.digest.to_string(), blob.clone());
        }
        for document in bundle.manifests.iter().chain([&bundle.root]) {
            shelf.manifests.insert(document.digest.to_string(), document.clone());
        }
        shelf.tags.insert(tag.to_owned(), bundle.root.digest.to_string());
    }

    pub(super) fn tag(&mut self, repository: &str, tag: &str, digest: &Digest) {
        let shelf = self.repositories.entry(repository.to_owned()).or_default();
        shelf.tags.insert(tag.to_owned(), digest.to_string());
    }

    pub(super) fn serve_at(&mut self, path: &str, content_type: &str, bytes: Bytes) {
        self.fixed.insert(path.to_owned(), (content_type.to_owned(), bytes));
    }

    pub(super) fn at(&self, path: &str) -> Option<Reply> {
        self.fixed.get(path).map(|(content_type, bytes)| Reply::new(200, content_type, bytes.clone()))
    }

    /// The honest answer.
    pub(super) fn answer(&self, seen: &Seen) -> Reply {
        if seen.path == "/v2/" || seen.path == "/v2" {
            return Reply::new(200, "application/json", "{}");
        }
        let Some(rest) = seen.path.strip_prefix("/v2/") else {
            return Reply::error(404, "UNSUPPORTED", "no such path");
        };
        if seen.method != "GET" && seen.method != "HEAD" {
            return Reply::error(405, "UNSUPPORTED", "only reading");
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            let Some(shelf) = self.repositories.get(name) else { return unknown("NAME_UNKNOWN") };
            let mut tags: Vec<&String> = shelf.tags.keys().collect();
            tags.sort();
            let list = serde_json::json!({ "name": name, "tags": tags });
            return Reply::new(200, "application/json", list.to_string());
        }
        if let Some((name, reference)) = rest.rsplit_once("/manifests/") {
            return self.manifest(name, reference).unwrap_or_else(|| unknown("MANIFEST_UNKNOWN"));
        }
        if let Some((name, digest)) = rest.rsplit_once("/blobs/") {
            let digest = digest.replacen("%3A", ":", 1);
            return self.blob(name, &digest, seen.header("range")).unwrap_or_else(|| unknown("BLOB_UNKNOWN"));
        }
        unknown("UNSUPPORTED")
    }

    fn manifest(&self, name: &str, reference: &str) -> Option<Reply> {
        let shelf = self.repositories.get(name)?;
        let reference = reference.replacen("%3A", ":", 1);
        let digest = shelf.tags.get(&reference).unwrap_or(&reference);
        let content = shelf.manifests.get(digest)?;
        Some(Reply::new(200, &content.media_type, content.bytes.clone()).with("Docker-Content-Digest", digest))
    }

    fn blob(&self, name: &str, digest: &str, range: Option<&str>) -> Option<Reply> {
        let content = self.repositories.get(name)?.blobs.get(digest)?;
        let whole = &content.bytes;
        let reply = |status, bytes: Bytes| {
            Reply::new(status, "application/octet-stream", bytes)
                .with("Docker-Content-Digest", digest)
                .with("Accept-Ranges", "bytes")
        };
        let Some((first, last)) = range.and_then(|range| parse_range(range, whole.len())) else {
            return Some(reply(200, whole.clone()));
        };
        if first >= whole.len() {
            let size = format!("bytes */{}", whole.len());
            return Some(Reply::error(416, "SIZE_INVALID", "no such range").with("Content-Range", size));
        }
        let content_range = format!("bytes {first}-{last}/{}", whole.len());
        Some(reply(206, whole.slice(first..=last)).with("Content-Range", content_range))
    }
}

fn parse_range(range: &str, len: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let end = len.saturating_sub(1);
    let first = first.parse().ok()?;
    let last = if last.is_empty() { end } else { last.parse::<usize>().ok()?.min(end) };
    Some((first, last))
}

fn unknown(code: &str) -> Reply {
    Reply::error(404, code, "unknown")
}
