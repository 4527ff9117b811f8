//! `windlass config print` and `windlass config validate`.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value as Json, json};

use crate::config::resolve::{Effective, Origin};
use crate::config::{self, Loaded};
use crate::failure::Failure;
use crate::output::Report;
use crate::output::table::Table;
use crate::session::Session;

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Prints each value and where it comes from.
    Print {
        /// The defaults alone, whatever files and variables say.
        #[arg(long)]
        defaults: bool,
    },
    /// Checks configuration files, with their drop-ins; without a name, those that would be read.
    Validate {
        /// Files to check.
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

pub(super) fn run(args: Args, session: &Session) -> Result<(), Failure> {
    match args.action {
        Action::Print { defaults: true } => session.screen.show(&Printed(config::defaults().effective)),
        Action::Print { defaults: false } => session.screen.show(&Printed(session.load()?.effective)),
        Action::Validate { files } => validate(&files, session),
    }
}

fn validate(files: &[PathBuf], session: &Session) -> Result<(), Failure> {
    let loaded: Vec<Loaded> = if files.is_empty() {
        vec![session.load()?]
    } else {
        files.iter().map(|file| session.load_from(Some(file))).collect::<Result<_, _>>()?
    };
    session.screen.show(&Valid(loaded.into_iter().flat_map(|loaded| loaded.files).collect()))
}

struct Printed(Vec<Effective>);

impl Report for Printed {
    fn kind(&self) -> &'static str {
        "EffectiveConfiguration"
    }

    fn fields(&self) -> Json {
        let items = self.0.iter().map(|item| {
            let kind = match &item.origin {
                Origin::Default => "default",
                Origin::File(..) => "file",
                Origin::Variable(_) => "environment",
                Origin::Flag(_) => "flag",
            };
            json!({ "key": item.path, "value": item.value, "origin": kind, "from": item.origin.to_string() })
        });
        json!({ "items": items.collect::<Vec<_>>() })
    }

    fn table(&self, _wide: bool) -> Table {
        self.0.iter().fold(Table::new(["KEY", "VALUE", "FROM"]), |table, item| {
            table.row([item.path.clone(), printed(&item.value), item.origin.to_string()])
        })
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|item| item.path.clone()).collect()
    }
}

/// A value in one cell: strings bare, lists by commas, everything else as JSON.
fn printed(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        Json::Array(items) if items.iter().all(Json::is_string) => {
            items.iter().map(printed).collect::<Vec<_>>().join(",")
        }
        Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => value.to_string(),
    }
}

struct Valid(Vec<PathBuf>);

impl Report for Valid {
    fn kind(&self) -> &'static str {
        "ConfigurationCheck"
    }

    fn fields(&self) -> Json {
        json!({ "valid": true, "files": self.names() })
    }

    fn table(&self, _wide: bool) -> Table {
        match self.0.as_slice() {
            [] => Table::new(["no configuration file is there; defaults and variables are valid"]),
            files => files.iter().fold(Table::new(["VALID"]), |table, file| table.row([file.display().to_string()])),
        }
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|file| file.display().to_string()).collect()
    }
}
