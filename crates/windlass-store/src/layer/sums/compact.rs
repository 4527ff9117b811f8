//! Leaves the last record of each name.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use super::read::Reader;
use super::{Content, Record};
use crate::layer::error::LayerError;

type Key = (Vec<u8>, Part);

/// Records of one name that stand beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Entry,
    Opaque,
    /// These stay whatever comes later: they are about the layer as a whole.
    Unresolved,
    Assumed,
    Stacked,
}

fn key(record: &Record) -> Key {
    let part = match record.content {
        Content::Opaque => Part::Opaque,
        Content::Unresolved => Part::Unresolved,
        Content::Assumed => Part::Assumed,
        Content::Stacked => Part::Stacked,
        Content::Directory
        | Content::File { .. }
        | Content::Symlink(_)
        | Content::HardLink(_)
        | Content::Device(_)
        | Content::Fifo
        | Content::Whiteout
        | Content::Removed => Part::Entry,
    };
    (record.path.clone(), part)
}

/// Reads all records and keeps what counts at the end, in the order of the archive. A hard link whose target was
/// replaced after it keeps the old content: the first such name becomes the file, others link to it.
pub(super) fn last_of_each<R: Read>(reader: Reader<R>) -> Result<Vec<Record>, LayerError> {
    let mut all: Vec<Record> = Vec::new();
    let mut live: BTreeMap<Key, usize> = BTreeMap::new();
    // For each hard link: the record whose content it shares.
    let mut content_of: HashMap<usize, usize> = HashMap::new();
    for record in reader {
        let record = record?;
        if record.content == Content::Removed {
            forget(&mut live, &record.path);
            continue;
        }
        let at = all.len();
        if let Content::HardLink(target) = &record.content
            && let Some(&target) = live.get(&(target.clone(), Part::Entry))
        {
            content_of.insert(at, content_of.get(&target).copied().unwrap_or(target));
        }
        live.insert(key(&record), at);
        all.push(record);
    }
    let mut alive = vec![false; all.len()];
    live.into_values().for_each(|at| alive[at] = true);
    let mut heirs: HashMap<usize, Vec<u8>> = HashMap::new();
    let mut kept = Vec::new();
    for at in 0..all.len() {
        if !alive[at] {
            continue;
        }
        let mut record = all[at].clone();
        if let Some(&origin) = content_of.get(&at) {
            if alive[origin] {
                record.content = Content::HardLink(all[origin].path.clone());
            } else if let Some(heir) = heirs.get(&origin) {
                record.content = Content::HardLink(heir.clone());
            } else {
                heirs.insert(origin, record.path.clone());
                let Record { content, meta, .. } = all[origin].clone();
                (record.content, record.meta) = (content, meta);
            }
        }
        kept.push(record);
    }
    Ok(kept)
}

fn forget(live: &mut BTreeMap<Key, usize>, path: &[u8]) {
    let below = [path, b"/"].concat();
    let gone: Vec<Key> = live
        .range((below.clone(), Part::Entry)..)
        .map(|(key, _)| key)
        .take_while(|key| key.0.starts_with(&below))
        .filter(|key| matches!(key.1, Part::Entry | Part::Opaque))
        .cloned()
        .collect();
    for key in gone {
        live.remove(&key);
    }
    for part in [Part::Entry, Part::Opaque] {
        live.remove(&(path.to_vec(), part));
    }
}
