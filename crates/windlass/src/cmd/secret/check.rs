//! `windlass secret check`: what a pull secret holds, and what the API server and the kubelet make of it.
//!
//! Values are never shown; keys and user names are. The rules are windlass-core's `secretcheck`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use windlass_core::dockerconfig::{Layout, decode};
use windlass_core::keyring::{DOCKERCFG, DOCKERCONFIGJSON, Mode};
use windlass_core::secret::Secret;
use windlass_core::secretcheck::{Problem, SecretData, Severity, examine, examine_document};

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
        let text = Secret::new(input::text(file, input::MANIFEST_BYTES_MAX)?);
        checked.extend(in_file(&file.display().to_string(), text.expose())?);
    }
    if checked.is_empty() {
        return Err(Failure::usage("nothing to examine", "the files hold no pull secret and are no credential file")
            .hint("name a manifest with a Secret, or a config.json"));
    }
    let is_sound = checked.iter().all(Checked::is_sound);
    session.screen.show(&Findings(checked))?;
    if is_sound { Ok(()) } else { Err(Failure::told(1)) }
}

/// One secret and what was found.
struct Checked {
    /// The file, and the Secret in it.
    name: String,
    /// Key, kind of credential, user name.
    entries: Vec<[String; 3]>,
    problems: Vec<Problem>,
}

impl Checked {
    fn is_sound(&self) -> bool {
        self.problems.iter().all(|problem| problem.severity() < Severity::Error)
    }
}

/// Every pull secret in a file.
fn in_file(file: &str, text: &str) -> Result<Vec<Checked>, Failure> {
    let documents = input::documents(file, text)?;
    if let [one] = documents.as_slice()
        && one.get("kind").is_none()
    {
        return Ok(vec![bare(file, one, text)]);
    }
    let mut checked = Vec::new();
    for document in &documents {
        let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        match document["items"].as_array() {
            Some(items) if is_list => checked.extend(items.iter().filter_map(|item| secret(file, item))),
            Some(_) | None => checked.extend(secret(file, document)),
        }
    }
    Ok(checked)
}

/// A credential file: the layout shows by what is in it.
fn bare(file: &str, document: &Json, text: &str) -> Checked {
    let is_old = document.get("auths").is_none() && file.ends_with(Layout::DockerCfg.data_key());
    let layout = if is_old { Layout::DockerCfg } else { Layout::ConfigJson };
    let problems = examine_document(text.as_bytes(), layout);
    Checked { name: file.to_owned(), entries: entries(text.as_bytes(), layout), problems }
}

/// A Secret, unless it has nothing to do with registries.
fn secret(file: &str, object: &Json) -> Option<Checked> {
    if object["kind"].as_str() != Some("Secret") {
        return None;
    }
    let kind = object["type"].as_str().unwrap_or("Opaque");
    let has = |key: &str| object["data"].get(key).is_some() || object["stringData"].get(key).is_some();
    let is_ours = kind == DOCKERCONFIGJSON || kind == DOCKERCFG;
    if !is_ours && !has(Layout::ConfigJson.data_key()) && !has(Layout::DockerCfg.data_key()) {
        return None;
    }
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or("default");
    let name = format!("{file}: {namespace}/{}", metadata["name"].as_str().unwrap_or("(no name)"));
    let Some(data) = data(object) else {
        return Some(Checked { name, entries: Vec::new(), problems: vec![Problem::not_base64()] });
    };
    let layout = if kind == DOCKERCFG { Layout::DockerCfg } else { Layout::ConfigJson };
    let entries = data.get(layout.data_key()).map(|bytes| entries(bytes.expose(), layout)).unwrap_or_default();
    Some(Checked { name, entries, problems: examine(kind, &data) })
}

/// The values of `data`, decoded, under those of `stringData`, as the API server puts them together.
fn data(object: &Json) -> Option<SecretData> {
    let mut data = BTreeMap::new();
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let encoded: String = value.as_str().unwrap_or_default().split_ascii_whitespace().collect();
        data.insert(key.clone(), Secret::new(STANDARD.decode(encoded).ok()?));
    }
    for (key, value) in object["stringData"].as_object().into_iter().flatten() {
        data.insert(key.clone(), Secret::new(value.as_str().unwrap_or_default().as_bytes().to_vec()));
    }
    Some(data)
}

/// What can be read of it, whatever else is wrong.
fn entries(bytes: &[u8], layout: Layout) -> Vec<[String; 3]> {
    let document = decode(bytes, layout, Mode::Windlass).unwrap_or_default();
    let entry = |entry: &windlass_core::dockerconfig::Entry| {
        let user = entry.credential.username().unwrap_or_default().to_owned();
        [entry.key.clone(), entry.credential.kind().to_owned(), user]
    };
    document.entries.iter().map(entry).collect()
}

const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

struct Findings(Vec<Checked>);

impl Report for Findings {
    fn kind(&self) -> &'static str {
        "SecretCheck"
    }

    fn fields(&self) -> Json {
        let items = self.0.iter().map(|checked| {
            let entries =
                checked.entries.iter().map(|[key, kind, user]| json!({ "key": key, "credential": kind, "user": user }));
            let problems = checked.problems.iter().map(|problem| {
                json!({
                    "severity": word(problem.severity()),
                    "entry": problem.entry,
                    "message": problem.kind.to_string(),
                    "hint": problem.hint(),
                })
            });
            json!({
                "secret": checked.name,
                "sound": checked.is_sound(),
                "entries": entries.collect::<Vec<_>>(),
                "problems": problems.collect::<Vec<_>>(),
            })
        });
        json!({ "items": items.collect::<Vec<_>>() })
    }

    fn table(&self, _wide: bool) -> Table {
        let mut table = Table::new(["SECRET", "STATE", "WHAT", "HINT"]);
        for checked in &self.0 {
            for [key, kind, user] in &checked.entries {
                let user = if user.is_empty() { String::new() } else { format!(" of {user}") };
                table =
                    table.row([checked.name.clone(), "entry".into(), format!("{key}: {kind}{user}"), String::new()]);
            }
            for problem in &checked.problems {
                let state = word(problem.severity()).to_owned();
                table = table.row([checked.name.clone(), state, problem.to_string(), problem.hint().to_owned()]);
            }
        }
        table
    }

    /// Those that do not work.
    fn names(&self) -> Vec<String> {
        self.0.iter().filter(|checked| !checked.is_sound()).map(|checked| checked.name.clone()).collect()
    }
}
