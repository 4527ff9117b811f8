//! Images on disk: OCI layouts as directories and archives, and docker archives.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::{Bundle, Content, Entry, Image, Layer};

impl Bundle {
    /// Writes an OCI layout directory whose index names the root as `tag`.
    pub fn write_layout(&self, dir: &Path, tag: &str) {
        for (path, bytes) in self.layout_files(tag) {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().expect("a file in a directory")).expect("the directory is made");
            fs::write(path, bytes).expect("the file is written");
        }
    }

    /// Writes the same as one tar file.
    pub fn write_layout_tar(&self, file: &Path, tag: &str) {
        let entries = self.layout_files(tag).into_iter().map(|(path, bytes)| Entry::file(path, bytes));
        fs::write(file, tar_of(entries)).expect("the archive is written");
    }

    fn layout_files(&self, tag: &str) -> Vec<(String, Vec<u8>)> {
        let mut root = self.root.descriptor();
        root["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        let index = json!({ "schemaVersion": 2, "manifests": [root] });
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ];
        let path = |content: &Content| format!("blobs/{}/{}", content.digest.algorithm(), content.digest.hex());
        files.extend(self.contents().map(|content| (path(content), content.bytes.to_vec())));
        files
    }
}

impl Image {
    /// Writes a docker archive (`docker save`) that names the image `repo_tag`, with its layers uncompressed.
    pub fn write_docker_archive(&self, file: &Path, repo_tag: &str) {
        let mut entries = Vec::new();
        let mut layers = Vec::new();
        for layer in &self.layers {
            let path = format!("{}/layer.tar", layer.diff_id.hex());
            if !layers.contains(&path) {
                entries.push(Entry::file(&path, &layer.tar));
            }
            layers.push(path);
        }
        let config = format!("{}.json", self.config.digest.hex());
        entries.push(Entry::file(&config, &self.config.bytes));
        let manifest = json!([{ "Config": config, "RepoTags": [repo_tag], "Layers": layers }]);
        entries.push(Entry::file("manifest.json", manifest.to_string()));
        fs::write(file, tar_of(entries)).expect("the archive is written");
    }
}

fn tar_of(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
    Layer::new(entries).into_tar()
}
