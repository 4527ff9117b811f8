//! `windlass images`: what the store holds.

use jiff::Timestamp;
use serde_json::{Value as Json, json};
use windlass_store::Image;

use crate::failure::Failure;
use crate::output::Report;
use crate::output::size::{age, bytes};
use crate::output::table::Table;
use crate::session::Session;
use crate::wire;

/// Letters of an image ID that a person needs.
const SHORT_ID: usize = 12;

/// Arguments of `images`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only images that have a name with this text in it.
    #[arg(value_name = "TEXT")]
    filter: Option<String>,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let store = wire::store_to_read(&session.load()?.node)?;
    let mut images = store.images().map_err(|error| wire::store_failure("cannot list the images", &error))?;
    if let Some(text) = &args.filter {
        images.retain(|image| names(image).iter().any(|name| name.contains(text.as_str())));
    }
    images.sort_by_key(|image| (names(image).into_iter().next(), image.id.clone()));
    session.screen.show(&Images { images, now: Timestamp::now() })
}

/// Every name, by tag first.
pub(super) fn names(image: &Image) -> Vec<String> {
    image.repo_tags.iter().chain(&image.repo_digests).map(ToString::to_string).collect()
}

/// The fields of an image that stay the same in every document.
pub(super) fn fields(image: &Image) -> Json {
    json!({
        "id": image.id.as_str(),
        "repoTags": image.repo_tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "repoDigests": image.repo_digests.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "platform": image.platform,
        "layers": image.layers.len(),
        "unpackedBytes": image.unpacked_bytes,
        "compressedBytes": image.compressed_bytes,
        "firstSeen": image.first_seen.to_string(),
        "lastUsed": image.last_used.map(|at| at.to_string()),
        "pinned": !image.pins.is_empty(),
        "damage": image.damage,
    })
}

struct Images {
    images: Vec<Image>,
    now: Timestamp,
}

impl Images {
    fn since(&self, at: Timestamp) -> String {
        // A clock that went back makes an age of nothing, not an error.
        age(self.now.duration_since(at).try_into().unwrap_or_default())
    }

    /// One row per name, so that a name can be copied; an image without one has a row too.
    fn rows(image: &Image) -> Vec<(String, &Image)> {
        let tags: Vec<_> = image.repo_tags.iter().map(|name| (name.to_string(), image)).collect();
        let digests = || image.repo_digests.iter().map(|name| (name.to_string(), image)).collect::<Vec<_>>();
        let rows = if tags.is_empty() { digests() } else { tags };
        if rows.is_empty() { vec![("<none>".to_owned(), image)] } else { rows }
    }
}

impl Report for Images {
    fn kind(&self) -> &'static str {
        "ImageList"
    }

    fn fields(&self) -> Json {
        json!({ "items": self.images.iter().map(fields).collect::<Vec<_>>() })
    }

    fn table(&self, wide: bool) -> Table {
        let mut headings = vec!["IMAGE", "ID", "PLATFORM", "SIZE", "AGE", "STATE"];
        if wide {
            headings.extend(["UNPACKED", "LAYERS", "LAST USED"]);
        }
        let mut table = Table::new(headings);
        for (name, image) in self.images.iter().flat_map(Self::rows) {
            let id = image.id.as_str();
            let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
            let state = match (&image.damage, image.pins.is_empty()) {
                (Some(_), _) => "damaged",
                (None, false) => "pinned",
                (None, true) => "",
            };
            let mut cells = vec![
                name,
                hex.chars().take(if wide { hex.len() } else { SHORT_ID }).collect(),
                image.platform.clone(),
                bytes(image.compressed_bytes),
                self.since(image.first_seen),
                state.to_owned(),
            ];
            if wide {
                let used = image.last_used.map_or_else(String::new, |at| self.since(at));
                cells.extend([bytes(image.unpacked_bytes), image.layers.len().to_string(), used]);
            }
            table = table.row(cells);
        }
        table
    }

    fn names(&self) -> Vec<String> {
        self.images.iter().map(|image| image.id.to_string()).collect()
    }
}
