//! The image config: what the image is for, its layers' diff IDs, and how it wants to be run.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::fields::Fields;
use super::{DocumentLimits, Manifest, ManifestError, json};
use crate::digest::Digest;
use crate::platform::Platform;

const KNOWN: [&str; 10] =
    ["created", "author", "architecture", "variant", "os", "os.version", "os.features", "config", "rootfs", "history"];
const KNOWN_RUN: [&str; 9] =
    ["User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"];
const KNOWN_ROOTFS: [&str; 2] = ["type", "diff_ids"];

/// An image config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageConfig {
    /// Architecture as written, possibly empty.
    pub architecture: String,
    /// Operating system as written, possibly empty.
    pub os: String,
    /// CPU variant as written.
    pub variant: Option<String>,
    /// Windows build.
    pub os_version: Option<String>,
    /// Features the operating system must have.
    pub os_features: Vec<String>,
    /// The digest of each layer's uncompressed tar, lowest first.
    pub diff_ids: Vec<Digest>,
    /// When it was built, RFC 3339, unchecked.
    pub created: Option<String>,
    /// Who built it.
    pub author: Option<String>,
    /// How it wants to be run.
    pub run: RunConfig,
    /// How it was built, oldest step first.
    pub history: Vec<History>,
}

/// The part of a config that a container's process takes over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `user[:group]`, names or numbers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program and its fixed arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Arguments, or the program where there is no entrypoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Where the process starts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// `80/tcp`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exposed_ports: Vec<String>,
    /// Directories that expect a volume.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Free notes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the process to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// One step of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct History {
    /// When, RFC 3339, unchecked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// A remark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    pub empty_layer: bool,
}

impl ImageConfig {
    /// What the image is for, normalised.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: self.variant.clone(),
        }
        .normalised()
    }

    /// Checks that the config lists as many layers as the manifest.
    ///
    /// # Errors
    /// [`ManifestError::LayerCount`].
    pub fn check_layers(&self, manifest: &Manifest) -> Result<(), ManifestError> {
        let (diff_ids, layers) = (self.diff_ids.len(), manifest.layers.len());
        if diff_ids == layers { Ok(()) } else { Err(ManifestError::LayerCount { diff_ids, layers }) }
    }
}

/// Reads an image config. The caller has compared the bytes with their digest.
///
/// # Errors
/// [`ManifestError`] names the field or the limit.
pub fn parse_config(bytes: &[u8], limits: &DocumentLimits) -> Result<ImageConfig, ManifestError> {
    ManifestError::check_limit("configBytes", bytes.len() as u64, limits.config_bytes)?;
    let value = json::parse(bytes, limits)?;
    let fields = Fields::new(&value, "", &KNOWN)?;
    let text = |key| fields.text(key).map(|text| text.map(str::to_owned));
    let run = fields.get("config").map(run_config).transpose()?;
    let steps = fields.list("history")?.unwrap_or_default();
    let history = steps.iter().enumerate().map(|(at, step)| history(at, step)).collect::<Result<_, _>>()?;
    Ok(ImageConfig {
        architecture: text("architecture")?.unwrap_or_default(),
        os: text("os")?.unwrap_or_default(),
        variant: text("variant")?.filter(|variant| !variant.is_empty()),
        os_version: text("os.version")?.filter(|version| !version.is_empty()),
        os_features: fields.texts("os.features")?,
        diff_ids: diff_ids(fields.required("rootfs")?, limits)?,
        created: text("created")?,
        author: text("author")?,
        run: run.unwrap_or_default(),
        history,
    })
}

fn diff_ids(rootfs: &Value, limits: &DocumentLimits) -> Result<Vec<Digest>, ManifestError> {
    let fields = Fields::new(rootfs, "rootfs", &KNOWN_ROOTFS)?;
    if fields.required_text("type")? != "layers" {
        return Err(ManifestError::field("rootfs.type", "must be \"layers\""));
    }
    // Docker writes null for an image without layers.
    fields.required("diff_ids")?;
    let listed = fields.texts("diff_ids")?;
    ManifestError::check_limit("layers", listed.len() as u64, limits.layers as u64)?;
    let parse = |(at, text): (usize, &String)| {
        Digest::parse(text).map_err(|e| ManifestError::field(format!("rootfs.diff_ids[{at}]"), e.to_string()))
    };
    listed.iter().enumerate().map(parse).collect()
}

fn run_config(value: &Value) -> Result<RunConfig, ManifestError> {
    let fields = Fields::new(value, "config", &KNOWN_RUN)?;
    let text = |key| fields.text(key).map(|text| text.unwrap_or("").to_owned());
    let keys = |key| fields.object(key).map(|map| map.map(|m| m.keys().cloned().collect()).unwrap_or_default());
    Ok(RunConfig {
        user: text("User")?,
        env: fields.texts("Env")?,
        entrypoint: fields.texts("Entrypoint")?,
        cmd: fields.texts("Cmd")?,
        working_dir: text("WorkingDir")?,
        exposed_ports: keys("ExposedPorts")?,
        volumes: keys("Volumes")?,
        labels: fields.text_map("Labels")?,
        stop_signal: fields.text("StopSignal")?.map(str::to_owned),
    })
}

fn history(at: usize, step: &Value) -> Result<History, ManifestError> {
    let fields = Fields::new(step, &format!("history[{at}]"), &[])?;
    let text = |key| fields.text(key).map(|text| text.map(str::to_owned));
    Ok(History {
        created: text("created")?,
        created_by: text("created_by")?,
        comment: text("comment")?,
        empty_layer: fields.flag("empty_layer")?.unwrap_or(false),
    })
}

/// The chain ID of each layer: the address of its tree on top of all below it.
///
/// image-spec `config.md`: the first is the diff ID itself, each further one the SHA-256 of
/// `chain ID below + " " + diff ID`.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::sha256(format!("{below} {diff_id}").as_bytes()),
        });
    }
    chain
}
