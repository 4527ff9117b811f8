//! `windlass inspect`: everything the store knows about an image, or every file of it.

mod files;

use serde_json::{Value as Json, json};
use windlass_core::reason::Reason;
use windlass_store::{Image, Store};

use super::images::{fields, names};
use crate::failure::Failure;
use crate::output::Report;
use crate::output::size::bytes;
use crate::output::table::Table;
use crate::session::Session;
use crate::wire::{store_failure, store_to_read};

/// What --files prints.
const AFTER: &str = "--files prints mode, owner, size, time and path of each file, by its numbers; -o json one object a \
line inside the document, written as they are found: a list that ends without its bracket is not whole. It needs no \
right to mount, and shows an ordinary user the owners and modes that the image says.";

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// References or image IDs.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Lists the files of one image instead, as a mount would show them, without mounting it.
    #[arg(long)]
    files: bool,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let node = session.load()?.node;
    let store = store_to_read(&node)?;
    if args.files {
        let [name] = args.images.as_slice() else {
            return Err(Failure::usage("cannot list files", "--files takes one image"));
        };
        return files::run(&store, name, session);
    }
    let limits = [node.limits.config_bytes.0, node.limits.manifest_bytes.0];
    let found = args.images.iter().map(|name| look(&store, name, limits)).collect::<Result<Vec<_>, _>>()?;
    session.screen.show(&Inspected(found))
}

struct Looked {
    image: Image,
    config: Json,
    manifest: Json,
}

fn look(store: &Store, name: &str, [config_bytes, manifest_bytes]: [u64; 2]) -> Result<Looked, Failure> {
    let what = format!("cannot inspect {name}");
    let image = store.find(name).map_err(|error| store_failure(&what, &error))?;
    let image = image.ok_or_else(|| Failure::new(Reason::ImageUnknown, &what, "no such image is here"))?;
    let document = |digest, limit| {
        let bytes = store.read_blob(digest, limit).map_err(|error| store_failure(&what, &error))?;
        // A damaged or missing document is told by the image's own state.
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or(Json::Null))
    };
    let config = document(&image.id, config_bytes)?;
    let manifest = image.manifest().map_or(Ok(Json::Null), |digest| document(digest, manifest_bytes))?;
    Ok(Looked { image, config, manifest })
}

struct Inspected(Vec<Looked>);

impl Report for Inspected {
    fn kind(&self) -> &'static str {
        "ImageDetailList"
    }

    fn fields(&self) -> Json {
        let items = self.0.iter().map(|Looked { image, config, manifest }| {
            let mut item = fields(image);
            item["layerList"] = layers(image);
            item["manifests"] = image
                .manifests
                .iter()
                .map(|(manifest, index)| json!({ "manifest": manifest.as_str(), "index": index.as_ref().map(|i| i.as_str()) }))
                .collect();
            item["sources"] = image.sources.iter().map(|source| format!("{}/{}", source.host, source.path)).collect();
            item["pins"] = image
                .pins
                .iter()
                .map(|pin| json!({ "source": pin.source, "reason": pin.reason, "since": pin.since.to_string() }))
                .collect();
            item["config"] = config.clone();
            item["manifest"] = manifest.clone();
            item
        });
        json!({ "items": items.collect::<Vec<_>>() })
    }

    fn table(&self, _wide: bool) -> Table {
        let mut table = Table::new(["FIELD", "VALUE"]);
        for Looked { image, config, .. } in &self.0 {
            table = table.row(["id", image.id.as_str()]);
            for name in names(image) {
                table = table.row(["name", &name]);
            }
            table = table.row(["platform", &image.platform]);
            table = table.row(["compressed", &bytes(image.compressed_bytes)]);
            table = table.row(["unpacked", &bytes(image.unpacked_bytes)]);
            table = table.row(["first seen", &image.first_seen.to_string()]);
            for (label, key) in [("entrypoint", "Entrypoint"), ("command", "Cmd"), ("user", "User")] {
                let value = &config["config"][key];
                if !value.is_null() && value != "" {
                    table = table.row([label, &value.to_string()]);
                }
            }
            for layer in &image.layers {
                table = table.row(["layer", &format!("{}  {}", layer.blob, bytes(layer.size_bytes))]);
            }
            for source in &image.sources {
                table = table.row(["from", &format!("{}/{}", source.host, source.path)]);
            }
            for pin in &image.pins {
                table = table.row(["pinned by", &format!("{} {}", pin.source, pin.reason)]);
            }
            if let Some(damage) = &image.damage {
                table = table.row(["damage", damage]);
            }
        }
        table
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|looked| looked.image.id.to_string()).collect()
    }
}

fn layers(image: &Image) -> Json {
    let layer = |layer: &windlass_store::LayerRecord| {
        json!({
            "blob": layer.blob.as_str(),
            "sizeBytes": layer.size_bytes,
            "mediaType": layer.media_type,
            "diffId": layer.diff_id.as_str(),
            "chainId": layer.chain_id.as_str(),
        })
    };
    image.layers.iter().map(layer).collect()
}
