//! `windlass mount` and `windlass umount`: an image's root file system, read-only, without a copy.

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use windlass_store::{Image, SetUserId};

use crate::failure::Failure;
use crate::output::Report;
use crate::output::table::Table;
use crate::session::Session;
use crate::wire::{store_failure, store_to_write};

/// Arguments of `mount`.
#[derive(Debug, clap::Args)]
pub(crate) struct MountArgs {
    /// A reference or image ID of the store.
    image: String,
    /// An existing directory.
    directory: PathBuf,
    /// Set-user-ID bits of files in the image do not count.
    #[arg(long)]
    nosuid: bool,
}

/// Arguments of `umount`.
#[derive(Debug, clap::Args)]
pub(crate) struct UmountArgs {
    /// The directory given to `mount`.
    directory: PathBuf,
}

pub(super) fn mount(args: &MountArgs, session: &Session) -> Result<(), Failure> {
    let store = store_to_write(&session.load()?.node)?;
    let set_user_id = if args.nosuid { SetUserId::Ignored } else { SetUserId::Honoured };
    let what = format!("cannot mount {} at {}", args.image, args.directory.display());
    let image = store.mount(&args.image, &args.directory, set_user_id).map_err(|error| store_failure(&what, &error))?;
    session.screen.show(&Mounted { image, directory: args.directory.clone() })
}

pub(super) fn umount(args: &UmountArgs, session: &Session) -> Result<(), Failure> {
    let store = store_to_write(&session.load()?.node)?;
    let what = format!("cannot unmount {}", args.directory.display());
    store.unmount(&args.directory).map_err(|error| store_failure(&what, &error))?;
    session.screen.show(&Unmounted { directory: args.directory.clone() })
}

struct Mounted {
    image: Image,
    directory: PathBuf,
}

impl Report for Mounted {
    fn kind(&self) -> &'static str {
        "Mount"
    }

    fn fields(&self) -> Json {
        json!({ "image": self.image.id.as_str(), "directory": self.directory.to_string_lossy() })
    }

    fn table(&self, _wide: bool) -> Table {
        Table::bare().row([self.image.id.as_str()])
    }

    fn names(&self) -> Vec<String> {
        vec![self.image.id.to_string()]
    }
}

struct Unmounted {
    directory: PathBuf,
}

impl Report for Unmounted {
    fn kind(&self) -> &'static str {
        "Unmount"
    }

    fn fields(&self) -> Json {
        json!({ "directory": self.directory.to_string_lossy() })
    }

    fn table(&self, _wide: bool) -> Table {
        Table::bare()
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}
