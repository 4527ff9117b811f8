//! `windlass version`.

use serde_json::{Value as Json, json};

use crate::failure::Failure;
use crate::output::Report;
use crate::output::table::Table;
use crate::session::Session;

struct Version;

impl Report for Version {
    fn kind(&self) -> &'static str {
        "Version"
    }

    fn fields(&self) -> Json {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
            "configuration": crate::config::resolve::API_VERSION,
        })
    }

    fn table(&self, _wide: bool) -> Table {
        Table::new([format!("windlass {}", env!("CARGO_PKG_VERSION"))])
    }

    fn names(&self) -> Vec<String> {
        vec![env!("CARGO_PKG_VERSION").to_owned()]
    }
}

pub(super) fn run(session: &Session) -> Result<(), Failure> {
    session.screen.show(&Version)
}
