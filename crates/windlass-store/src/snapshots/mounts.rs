//! From records to mounts.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use windlass_core::digest::Digest;

use super::dirs::{CONTENT, WORK};
use super::record::{RuntimeRecord, State};
use super::stack::{self, Level};
use super::{SnapshotError, SnapshotMount, Snapshots, dirs, links};
use crate::error::StoreError;
use crate::image_mounts::{self, ImageMounts, are_mounted};
use crate::layers;
use crate::layout::Layout;
use crate::meta::record::{Form, SnapshotRecord};
use crate::store::Store;

/// A level as it is mounted.
#[derive(Debug)]
pub(super) struct Lower {
    /// Its short name.
    link: PathBuf,
    /// Where that leads.
    pub(super) directory: PathBuf,
}

impl Snapshots {
    /// How an active snapshot or a view is mounted. Layers that are image files are mounted when it returns.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`]; [`SnapshotError::FailedPrecondition`] for a committed one, and for one whose layers
    /// are gone; [`StoreError::NotPermitted`] where image files cannot be mounted.
    pub fn mounts(&self, key: &str) -> Result<Vec<SnapshotMount>, SnapshotError> {
        let _kept = self.keep_layers()?;
        let (record, levels) = self.read(|tx| {
            let record = tx.get::<RuntimeRecord>(key)?.ok_or_else(|| SnapshotError::not_found(key))?;
            let levels = match record.state {
                State::Active { .. } | State::View { .. } => stack::below(tx, record.parent.as_deref())?,
                State::Layer { .. } | State::Own { .. } => {
                    return Err(SnapshotError::refused(format!("snapshot {key} is committed: it has no mounts")));
                }
            };
            Ok((record, levels))
        })?;
        let place = Place::of_recorded(&self.store, &levels)?;
        let lowers = place.lowers(&levels)?;
        if let Some(n) = record.state.dir()
            && !self.store.layout().upper(n).join(CONTENT).exists()
        {
            tracing::warn!(snapshot = key, "its directory was never on disk and is made again, empty");
            dirs::remake(self.store.layout(), n, lowers.first().map(|lower| lower.directory.as_path()))?;
        }
        place.mounts(&record.state, &lowers)
    }
}

/// Where layers are, and the right to mount them.
pub(super) struct Place<'a> {
    /// Below the root as the kernel names it: it may have been named over links.
    layout: Layout,
    /// Layers that are image files.
    wanted: Vec<(Digest, SnapshotRecord)>,
    /// Held while some of them are to be mounted, or nothing on disk says yet that they are needed.
    images: Option<ImageMounts<'a>>,
}

impl<'a> Place<'a> {
    /// For a snapshot that has a record or not: nobody unmounts anything while this lives.
    pub(super) fn of(store: &'a Store, levels: &[Level]) -> Result<Place<'a>, SnapshotError> {
        let mut place = Place::unlocked(store, levels)?;
        if !place.wanted.is_empty() {
            place.images = Some(ImageMounts::lock(store.layout())?);
        }
        Ok(place)
    }

    /// For a snapshot that has a record: what is mounted stays, so there may be nothing to wait for.
    pub(super) fn of_recorded(store: &'a Store, levels: &[Level]) -> Result<Place<'a>, SnapshotError> {
        let place = Place::unlocked(store, levels)?;
        if are_mounted(&place.layout, &place.wanted) { Ok(place) } else { Place::of(store, levels) }
    }

    fn unlocked(store: &'a Store, levels: &[Level]) -> Result<Place<'a>, SnapshotError> {
        let root = store.root();
        let root = root.canonicalize().map_err(|source| StoreError::io("find", root, source))?;
        // They would end a path or an option, and containerd passes on what it gets.
        if root.to_str().is_none_or(|root| root.contains([':', ',', '\\', '"'])) {
            let root = root.display();
            return Err(SnapshotError::refused(format!(
                "layers under {root} cannot be mounted: the path has a : , \\ or \""
            )));
        }
        let wanted = levels.iter().filter_map(|level| match level {
            Level::Layer(chain, record) if record.form == Form::Erofs => Some((chain.clone(), record.clone())),
            Level::Layer(..) | Level::Own(_) => None,
        });
        Ok(Place { layout: Layout::new(&root), wanted: wanted.collect(), images: None })
    }

    /// Every level with a link to it, image files mounted.
    pub(super) fn lowers(&self, levels: &[Level]) -> Result<Vec<Lower>, SnapshotError> {
        if let Some(images) = &self.images {
            images.directories(&self.wanted)?;
        }
        let lower = |level: &Level| {
            let (name, directory) = match level {
                Level::Own(n) => (format!("C{}", links::short(*n)), self.layout.upper(*n).join(CONTENT)),
                Level::Layer(chain, record) => (links::short(record.n), layer(&self.layout, chain, record)),
            };
            let target = Path::new("..").join(directory.strip_prefix(self.layout.root()).unwrap_or(&directory));
            Ok(Lower { link: links::lead(&self.layout, &name, &target)?, directory })
        };
        levels.iter().map(lower).collect()
    }

    /// The mounts of a snapshot on these levels, topmost first.
    pub(super) fn mounts(&self, state: &State, lowers: &[Lower]) -> Result<Vec<SnapshotMount>, SnapshotError> {
        let own = |n: u64, name: &str| text(&self.layout.upper(n).join(name));
        let lowerdir = || lowers.iter().map(|lower| text(&lower.link)).collect::<Vec<_>>().join(":");
        let mount = match (state, lowers) {
            (State::Active { dir }, []) => bind(own(*dir, CONTENT), "rw"),
            (State::Active { dir }, _) => overlay(vec![
                format!("workdir={}", own(*dir, WORK)),
                format!("upperdir={}", own(*dir, CONTENT)),
                format!("lowerdir={}", lowerdir()),
            ]),
            (State::View { dir: Some(dir) }, []) => bind(own(*dir, CONTENT), "ro"),
            (State::View { .. }, [one]) => bind(text(&one.directory), "ro"),
            (State::View { dir: Some(_) }, _) | (State::View { dir: None }, [_, ..]) => {
                overlay(vec![format!("lowerdir={}", lowerdir())])
            }
            (State::View { dir: None }, []) | (State::Layer { .. } | State::Own { .. }, _) => {
                return Err(SnapshotError::refused("this snapshot has nothing to mount"));
            }
        };
        Ok(vec![mount])
    }
}

/// The directory in which a layer's files are to be seen.
fn layer(layout: &Layout, chain: &Digest, record: &SnapshotRecord) -> PathBuf {
    match record.form {
        Form::Directory | Form::UserDirectory => layers::content(&layout.snapshot(record.n), record.form),
        Form::Erofs => image_mounts::place(layout, record.n, chain),
    }
}

fn bind(source: String, access: &str) -> SnapshotMount {
    SnapshotMount { fs_type: "bind".to_owned(), source, options: vec![access.to_owned(), "rbind".to_owned()] }
}

fn overlay(mut options: Vec<String>) -> SnapshotMount {
    // As containerd does where the kernel knows it: with an index, upper directories and layers that were mounted
    // elsewhere or made anew would be refused.
    static HAS_INDEX: OnceLock<bool> = OnceLock::new();
    if *HAS_INDEX.get_or_init(|| Path::new("/sys/module/overlay/parameters/index").exists()) {
        options.insert(0, "index=off".to_owned());
    }
    SnapshotMount { fs_type: "overlay".to_owned(), source: "overlay".to_owned(), options }
}

/// The root was found to be text, and all below it is ours.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
