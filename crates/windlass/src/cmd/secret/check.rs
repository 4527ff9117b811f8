//! `windlass secret check`: what a pull secret holds, and what the API server and the kubelet make of it.
//!
//! Values are never shown; keys and user names are.

use std::error::Error;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use windlass_core::dockerconfig::{Document, Layout, Note, decode};
use windlass_core::keyring::{Credential, Mode};

use crate::failure::Failure;
use crate::input;
use crate::output::Report;
use crate::output::table::Table;
use crate::session::Session;

/// Arguments of `secret check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Manifests with Secrets, or credential files in docker's format; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let mut checked = Vec::new();
    for file in &args.files {
        let text = input::text(file, input::MANIFEST_BYTES_MAX)?;
        checked.extend(examine(&file.display().to_string(), &text)?);
    }
    if checked.is_empty() {
        return Err(Failure::usage("nothing to examine", "the files hold no Secret and are no credential file"));
    }
    let sound = checked.iter().all(Checked::is_sound);
    session.screen.show(&Findings(checked))?;
    if sound { Ok(()) } else { Err(Failure::told(1)) }
}

/// One secret and what was found.
struct Checked {
    /// The file, and the Secret in it.
    name: String,
    entries: Vec<Entry>,
    /// Why it is refused or ignored.
    errors: Vec<String>,
    /// What is odd about it.
    warnings: Vec<String>,
}

struct Entry {
    key: String,
    kind: &'static str,
    user: String,
}

impl Checked {
    fn is_sound(&self) -> bool {
        self.errors.is_empty()
    }
}

/// Every pull secret in a file.
fn examine(file: &str, text: &str) -> Result<Vec<Checked>, Failure> {
    let documents = input::documents(file, text)?;
    let mut checked = Vec::new();
    for document in &documents {
        let items = match document["items"].as_array() {
            Some(items) if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
                items.iter().collect()
            }
            Some(_) | None => vec![document],
        };
        for object in items {
            match object["kind"].as_str() {
                Some("Secret") => checked.extend(secret(file, object)),
                Some(_) => {}
                None => checked.push(bare(file, object)),
            }
        }
    }
    Ok(checked)
}

/// A credential file: the layout shows by what is in it.
fn bare(file: &str, object: &Json) -> Checked {
    let layout = if object.get("auths").is_none() && file.ends_with(".dockercfg") {
        Layout::DockerCfg
    } else {
        Layout::ConfigJson
    };
    decoded(file.to_owned(), object.to_string().as_bytes(), layout)
}

/// A Secret, unless it is of a type that has nothing to do with registries.
fn secret(file: &str, object: &Json) -> Option<Checked> {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or("default");
    let name = format!("{file}: {namespace}/{}", metadata["name"].as_str().unwrap_or("(no name)"));
    let kind = object["type"].as_str().unwrap_or("Opaque");
    let has = |key: &str| object["data"].get(key).is_some() || object["stringData"].get(key).is_some();
    let layout = match kind {
        "kubernetes.io/dockerconfigjson" => Layout::ConfigJson,
        "kubernetes.io/dockercfg" => Layout::DockerCfg,
        _ => {
            let layout = [Layout::ConfigJson, Layout::DockerCfg].into_iter().find(|layout| has(layout.data_key()))?;
            let why = format!("the type is {kind}, so no kubelet uses it: set `type: {}`", type_of(layout));
            return Some(failed(name, why));
        }
    };
    let key = layout.data_key();
    if let Some(text) = object["stringData"][key].as_str() {
        return Some(decoded(name, text.as_bytes(), layout));
    }
    let Some(encoded) = object["data"][key].as_str() else {
        return Some(failed(name, format!("data has no key {key}: the API server refuses this secret")));
    };
    let packed: String = encoded.split_ascii_whitespace().collect();
    Some(match STANDARD.decode(packed) {
        Ok(bytes) => decoded(name, &bytes, layout),
        Err(_) => failed(name, format!("data[{key}] is not base64; plain text belongs under stringData")),
    })
}

fn type_of(layout: Layout) -> &'static str {
    match layout {
        Layout::ConfigJson => "kubernetes.io/dockerconfigjson",
        Layout::DockerCfg => "kubernetes.io/dockercfg",
    }
}

fn failed(name: String, why: String) -> Checked {
    Checked { name, entries: Vec::new(), errors: vec![why], warnings: Vec::new() }
}

/// Both readers look at it: ours says what is in it, the kubelet's whether it would be used.
fn decoded(name: String, bytes: &[u8], layout: Layout) -> Checked {
    let mut checked = match decode(bytes, layout, Mode::Windlass) {
        Ok(document) => listed(name, &document),
        Err(error) => failed(name, chain(&error)),
    };
    if let (true, Err(error)) = (checked.is_sound(), decode(bytes, layout, Mode::Kubelet)) {
        checked.errors.push(format!("a kubelet refuses it: {}", chain(&error)));
    }
    if checked.entries.is_empty() && checked.is_sound() {
        checked.errors.push("it holds no credential".to_owned());
    }
    checked
}

fn listed(name: String, document: &Document) -> Checked {
    let entries = document.entries.iter().map(|entry| {
        let (kind, user) = match &entry.credential {
            Credential::Basic { username, .. } => ("password", username.clone()),
            Credential::IdentityToken { username, .. } => ("identity token", username.clone().unwrap_or_default()),
            Credential::RegistryToken { .. } => ("registry token", String::new()),
            Credential::Anonymous => ("anonymous", String::new()),
            _ => ("credential", String::new()),
        };
        Entry { key: entry.key.clone(), kind, user }
    });
    let rejected = document.rejected.iter().map(|rejected| format!("entry {}: {}", rejected.key, rejected.why));
    let notes = document.notes.iter().map(|note| match note {
        Note::Document(note) => note.to_string(),
        Note::Entry { key, what } => format!("entry {key}: {what}"),
    });
    Checked {
        name,
        entries: entries.collect(),
        errors: rejected.collect(),
        warnings: notes.chain(neighbours(document)).collect(),
    }
}

/// Keys match as a plain prefix of the path, so one without a final slash covers its neighbours too (CVE-2021-41092's kin).
fn neighbours(document: &Document) -> impl Iterator<Item = String> {
    document.entries.iter().filter_map(|entry| {
        let bare = entry.key.trim_start_matches("https://").trim_start_matches("http://");
        let (_, path) = bare.split_once('/')?;
        let covers = !path.is_empty() && !path.ends_with('/') && !matches!(path, "v1" | "v2");
        covers.then(|| {
            format!("entry {}: also covers {}-other; end the key with a slash to stop that", entry.key, entry.key)
        })
    })
}

fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

struct Findings(Vec<Checked>);

impl Report for Findings {
    fn kind(&self) -> &'static str {
        "SecretCheck"
    }

    fn fields(&self) -> Json {
        let items = self.0.iter().map(|checked| {
            let entries = checked.entries.iter().map(|e| json!({ "key": e.key, "credential": e.kind, "user": e.user }));
            json!({
                "secret": checked.name,
                "sound": checked.is_sound(),
                "entries": entries.collect::<Vec<_>>(),
                "errors": checked.errors,
                "warnings": checked.warnings,
            })
        });
        json!({ "items": items.collect::<Vec<_>>() })
    }

    fn table(&self, _wide: bool) -> Table {
        let mut table = Table::new(["SECRET", "STATE", "WHAT"]);
        for checked in &self.0 {
            for entry in &checked.entries {
                let user = if entry.user.is_empty() { String::new() } else { format!(" of {}", entry.user) };
                table = table.row([checked.name.clone(), "ok".into(), format!("{}: {}{user}", entry.key, entry.kind)]);
            }
            for error in &checked.errors {
                table = table.row([checked.name.clone(), "error".into(), error.clone()]);
            }
            for warning in &checked.warnings {
                table = table.row([checked.name.clone(), "warning".into(), warning.clone()]);
            }
        }
        table
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().filter(|checked| !checked.is_sound()).map(|checked| checked.name.clone()).collect()
    }
}
