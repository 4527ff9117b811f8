//! The metadata: one redb file, opened for as long as a transaction takes.
//!
//! redb allows one writing process, so a command opens the file only while it holds the lock of the store: shared
//! for reading, alone for writing. Opening for reading costs some 30 µs, which is why nothing is cached here.
//! A daemon beside which commands run keeps it open between writes that follow each other ([`Hold::Burst`]); one that is
//! alone holds lock and database for its life ([`Hold::Life`]).
//! Each value is strict JSON of one type per table, so that a record can be read by people and unknown fields stop
//! an older version instead of being lost. The version of all tables together is in `meta/format` and in [`FORMAT_KEY`].
//!
//! Invariants: `a_record_that_does_not_decode_names_its_key`,
//! `a_database_that_a_killed_process_left_open_is_repaired`.

mod burst;
pub(crate) mod record;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use windlass_core::digest::Digest;

use redb::{
    Database, ReadOnlyDatabase, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition,
};

use crate::error::StoreError;
use crate::layout::FORMAT;
use crate::lock::{Lock, RootLock, Share};
use burst::Bursts;
pub(crate) use record::Record;

/// Most memory the database caches. The whole database of a node with hundreds of images fits.
const CACHE_BYTES: usize = 4 << 20;
/// A database that takes more than this on disk is compacted by the collector.
const COMPACT_ABOVE_BYTES: u64 = 256 << 10;

const FORMAT_TABLE: TableDefinition<&str, u64> = TableDefinition::new("format");
const FORMAT_KEY: &str = "version";

/// For how long lock and database are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Hold {
    /// As long as one transaction: other processes work on the same store. For commands.
    #[default]
    Transaction,
    /// As long as transactions follow each other closely, half a second at most: other processes wait that long for their
    /// turn, and a change takes a sixth of the time. For a daemon beside which commands run.
    Burst,
    /// As long as the store is open: no other process may use it. For a daemon.
    Life,
}

/// The database of one store.
#[derive(Debug)]
pub(crate) struct Meta {
    path: PathBuf,
    root: PathBuf,
    lock: RootLock,
    /// Readers and writers share it, redb orders them; only compaction wants it alone.
    held: Option<RwLock<Held>>,
    /// Open for as long as a burst of writes lasts; `None`: every write opens and closes it.
    bursts: Option<Bursts>,
}

#[derive(Debug)]
struct Held {
    database: Database,
    _lock: Lock,
}

impl Meta {
    pub(crate) fn new(root: &Path, path: PathBuf, lock: RootLock, hold: Hold) -> Meta {
        let bursts = match hold {
            Hold::Burst => Some(Bursts::default()),
            Hold::Transaction | Hold::Life => None,
        };
        Meta { path, root: root.to_owned(), lock, held: None, bursts }
    }

    /// Makes the database if it is missing and checks its version. The caller holds the lock alone, and gives
    /// it to the database for life if `hold` says so.
    pub(crate) fn prepare(&mut self, lock: Lock, hold: Hold) -> Result<Option<Lock>, StoreError> {
        if self.path.exists() {
            self.check_version()?;
        } else {
            self.create()?;
        }
        match hold {
            Hold::Transaction | Hold::Burst => Ok(Some(lock)),
            Hold::Life => {
                self.held = Some(RwLock::new(Held { database: self.open()?, _lock: lock }));
                Ok(None)
            }
        }
    }

    /// Makes the database under another name and renames it, so that it is whole or not there.
    fn create(&self) -> Result<(), StoreError> {
        let fresh = self.path.with_extension("new");
        match std::fs::remove_file(&fresh) {
            Ok(()) => {}
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(StoreError::io("remove", &fresh, source)),
        }
        // Made here and not by the database: its own mode would follow the umask.
        let file = crate::layout::create_file(&fresh)?;
        let database = self.builder().create_file(file).map_err(|error| self.fail(error))?;
        self.transact(&database, |tx| {
            let mut table = tx.tx.open_table(FORMAT_TABLE).map_err(|error| tx.fail(error))?;
            table.insert(FORMAT_KEY, FORMAT).map_err(|error| tx.fail(error))?;
            record::create_tables(tx)
        })?;
        drop(database);
        std::fs::rename(&fresh, &self.path).map_err(|source| StoreError::io("rename", &fresh, source))
    }

    /// Moves a damaged database to `aside` and begins an empty one.
    pub(crate) fn replace(&self, aside: &Path) -> Result<(), StoreError> {
        if self.held.is_some() {
            // Whoever holds it for life could open it, so it is not the file that is damaged.
            return Err(StoreError::ReadOnly { root: self.root.clone() });
        }
        let _burst = self.bursts.as_ref().map(Bursts::closed);
        let _lock = self.lock.take(Share::Alone)?;
        std::fs::rename(&self.path, aside).map_err(|source| StoreError::io("quarantine", &self.path, source))?;
        self.create()
    }

    fn check_version(&self) -> Result<(), StoreError> {
        self.whatever_the_disk_holds(|| self.read_version())
    }

    fn read_version(&self) -> Result<(), StoreError> {
        let database = match self.builder().open_read_only(&self.path) {
            Ok(database) => database,
            // Unclean: the version is checked again once the repair made it readable.
            Err(redb::DatabaseError::RepairAborted) => {
                drop(self.open()?);
                self.builder().open_read_only(&self.path).map_err(|error| self.fail(error))?
            }
            Err(error) => return Err(self.fail(error)),
        };
        let tx = database.begin_read().map_err(|error| self.fail(error))?;
        let table = match tx.open_table(FORMAT_TABLE) {
            Ok(table) => table,
            Err(error) => return Err(self.fail(error)),
        };
        let found = table.get(FORMAT_KEY).map_err(|error| self.fail(error))?.map(|value| value.value());
        match found {
            Some(found) if found <= FORMAT => Ok(()),
            other => Err(StoreError::Format {
                root: self.root.clone(),
                found: other.map_or_else(|| "none".to_owned(), |found| found.to_string()),
                known: FORMAT,
            }),
        }
    }

    /// Reads a consistent state.
    pub(crate) fn read<T, E: From<StoreError>>(&self, work: impl FnOnce(&ReadTx<'_>) -> Result<T, E>) -> Result<T, E> {
        self.whatever_the_disk_holds(|| self.read_held_or_opened(work))
    }

    /// The database takes pages that make no sense for its own mistake and panics: to us they are damage like any other.
    fn whatever_the_disk_holds<T, E: From<StoreError>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        // What was open is closed on the way out, and transactions that were not committed are rolled back.
        catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|_| Err(self.fail(redb::Error::Corrupted("its pages make no sense".to_owned())).into()))
    }

    fn read_held_or_opened<T, E: From<StoreError>>(
        &self,
        work: impl FnOnce(&ReadTx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        if let Some(held) = &self.held {
            let tx = guard(held).database.begin_read().map_err(|error| self.fail(error))?;
            return work(&ReadTx { tx, meta: self });
        }
        if let Some(held) = self.bursts.as_ref().and_then(Bursts::opened) {
            let tx = held.database.begin_read().map_err(|error| self.fail(error))?;
            return work(&ReadTx { tx, meta: self });
        }
        let lock = self.lock.take(Share::Shared)?;
        let opened = self.builder().open_read_only(&self.path);
        let database = match opened {
            Ok(database) => database,
            Err(redb::DatabaseError::RepairAborted) => {
                drop(lock);
                self.repair()?;
                return self.read_again(work);
            }
            Err(error) => return Err(self.fail(error).into()),
        };
        self.read_from(&database, work)
    }

    fn read_again<T, E: From<StoreError>>(&self, work: impl FnOnce(&ReadTx<'_>) -> Result<T, E>) -> Result<T, E> {
        let _lock = self.lock.take(Share::Shared)?;
        let database = self.builder().open_read_only(&self.path).map_err(|error| self.fail(error))?;
        self.read_from(&database, work)
    }

    fn read_from<T, E: From<StoreError>>(
        &self,
        database: &ReadOnlyDatabase,
        work: impl FnOnce(&ReadTx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let tx = database.begin_read().map_err(|error| self.fail(error))?;
        work(&ReadTx { tx, meta: self })
    }

    /// The process that last wrote died inside its transaction: roll back, so that readers can read.
    fn repair(&self) -> Result<(), StoreError> {
        let _lock = self.lock.take(Share::Alone)?;
        self.open().map(drop)
    }

    /// Runs one durable transaction. An error of `work` leaves everything as it was.
    pub(crate) fn write<T, E: From<StoreError>>(
        &self,
        work: impl FnOnce(&WriteTx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.whatever_the_disk_holds(|| {
            if let Some(held) = &self.held {
                return self.transact(&guard(held).database, work);
            }
            if let Some(bursts) = &self.bursts {
                return bursts.write(|| self.hold(bursts), |held| self.transact(&held.database, work));
            }
            let _lock = self.lock.take(Share::Alone)?;
            self.transact(&self.open()?, work)
        })
    }

    /// Opens the database for a burst, in turn with others.
    fn hold(&self, bursts: &Bursts) -> Result<Held, StoreError> {
        std::thread::sleep(bursts.pause());
        let lock = self.lock.take(Share::Alone)?;
        Ok(Held { database: self.open()?, _lock: lock })
    }

    /// Gives the space of deleted records back to the file system, where that is worth the writing.
    pub(crate) fn compact(&self) -> Result<(), StoreError> {
        use std::os::unix::fs::MetadataExt as _;
        let on_disk = std::fs::metadata(&self.path).map_err(|source| StoreError::io("stat", &self.path, source))?;
        if on_disk.blocks() * 512 <= COMPACT_ABOVE_BYTES {
            return Ok(());
        }
        self.whatever_the_disk_holds(|| {
            if let Some(held) = &self.held {
                return self.compacted(held.write().unwrap_or_else(PoisonError::into_inner).database.compact());
            }
            let _burst = self.bursts.as_ref().map(Bursts::closed);
            let _lock = self.lock.take(Share::Alone)?;
            self.compacted(self.open()?.compact())
        })
    }

    /// Readers at work stop a compaction, which is no error: the next collection tries again.
    fn compacted(&self, outcome: Result<bool, redb::CompactionError>) -> Result<(), StoreError> {
        match outcome {
            Err(redb::CompactionError::Storage(error)) => Err(self.fail(error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn transact<T, E: From<StoreError>>(
        &self,
        database: &Database,
        work: impl FnOnce(&WriteTx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let tx = database.begin_write().map_err(|error| self.fail(error))?;
        let tx = WriteTx { tx, meta: self };
        // Dropping the transaction on an error rolls it back.
        let value = work(&tx)?;
        tx.tx.commit().map_err(|error| self.fail(error))?;
        Ok(value)
    }

    fn open(&self) -> Result<Database, StoreError> {
        self.builder().open(&self.path).map_err(|error| self.fail(error))
    }

    fn builder(&self) -> redb::Builder {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        builder
    }

    fn fail(&self, error: impl Into<redb::Error>) -> StoreError {
        StoreError::meta(&self.path, error)
    }
}

/// A key, and its record if that decodes.
pub(crate) type Sound<R> = (String, Result<R, StoreError>);

/// A thread that panicked inside a transaction left the database sound: the transaction rolled back.
fn guard(held: &RwLock<Held>) -> RwLockReadGuard<'_, Held> {
    held.read().unwrap_or_else(PoisonError::into_inner)
}

/// What both kinds of transaction can do.
pub(crate) trait Look {
    /// A record by its key.
    fn look<R: Record>(&self, key: &str) -> Result<Option<R>, StoreError>;
}

impl Look for ReadTx<'_> {
    fn look<R: Record>(&self, key: &str) -> Result<Option<R>, StoreError> {
        self.get(key)
    }
}

impl Look for WriteTx<'_> {
    fn look<R: Record>(&self, key: &str) -> Result<Option<R>, StoreError> {
        self.get(key)
    }
}

/// A consistent state being read.
pub(crate) struct ReadTx<'a> {
    tx: redb::ReadTransaction,
    meta: &'a Meta,
}

impl ReadTx<'_> {
    pub(crate) fn get<R: Record>(&self, key: &str) -> Result<Option<R>, StoreError> {
        let Some(table) = self.table::<R>()? else { return Ok(None) };
        let value = table.get(key).map_err(|error| self.meta.fail(error))?;
        value.map(|value| record::decode(key, value.value())).transpose()
    }

    /// Every record of a table, in the order of the keys.
    pub(crate) fn all<R: Record>(&self) -> Result<Vec<(String, R)>, StoreError> {
        let Some(table) = self.table::<R>()? else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for pair in table.iter().map_err(|error| self.meta.fail(error))? {
            let (key, value) = pair.map_err(|error| self.meta.fail(error))?;
            all.push((key.value().to_owned(), record::decode(key.value(), value.value())?));
        }
        Ok(all)
    }

    /// Records about one image, of tables whose first field names it: the others are not even decoded.
    pub(crate) fn about<R: Record>(&self, image: &Digest) -> Result<Vec<(String, R)>, StoreError> {
        let Some(table) = self.table::<R>()? else { return Ok(Vec::new()) };
        let beginning = record::beginning(image);
        let mut found = Vec::new();
        for pair in table.iter().map_err(|error| self.meta.fail(error))? {
            let (key, value) = pair.map_err(|error| self.meta.fail(error))?;
            if value.value().starts_with(beginning.as_bytes()) {
                found.push((key.value().to_owned(), record::decode(key.value(), value.value())?));
            }
        }
        Ok(found)
    }

    /// Every key of a table, and whether its record decodes.
    pub(crate) fn sound<R: Record>(&self) -> Result<Vec<Sound<R>>, StoreError> {
        let Some(table) = self.table::<R>()? else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for pair in table.iter().map_err(|error| self.meta.fail(error))? {
            let (key, value) = pair.map_err(|error| self.meta.fail(error))?;
            all.push((key.value().to_owned(), record::decode(key.value(), value.value())));
        }
        Ok(all)
    }

    /// The keys that start with `prefix`, at most `limit`.
    pub(crate) fn keys_from<R: Record>(&self, prefix: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        let Some(table) = self.table::<R>()? else { return Ok(Vec::new()) };
        let mut keys = Vec::new();
        for pair in table.range(prefix..).map_err(|error| self.meta.fail(error))?.take(limit) {
            let (key, _) = pair.map_err(|error| self.meta.fail(error))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            keys.push(key.value().to_owned());
        }
        Ok(keys)
    }

    /// A value as it is written, for keeping evidence.
    pub(crate) fn raw(&self, table: &'static str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let definition: TableDefinition<'_, &'static str, &'static [u8]> = TableDefinition::new(table);
        let table = self.tx.open_table(definition).map_err(|error| self.meta.fail(error))?;
        let value = table.get(key).map_err(|error| self.meta.fail(error))?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn table<R: Record>(&self) -> Result<Option<redb::ReadOnlyTable<&'static str, &'static [u8]>>, StoreError> {
        match self.tx.open_table(definition::<R>()) {
            Ok(table) => Ok(Some(table)),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(self.meta.fail(error)),
        }
    }
}

/// One transaction being written.
pub(crate) struct WriteTx<'a> {
    tx: redb::WriteTransaction,
    meta: &'a Meta,
}

impl WriteTx<'_> {
    pub(crate) fn get<R: Record>(&self, key: &str) -> Result<Option<R>, StoreError> {
        let table = self.tx.open_table(definition::<R>()).map_err(|error| self.fail(error))?;
        let value = table.get(key).map_err(|error| self.fail(error))?;
        value.map(|value| record::decode(key, value.value())).transpose()
    }

    pub(crate) fn all<R: Record>(&self) -> Result<Vec<(String, R)>, StoreError> {
        let table = self.tx.open_table(definition::<R>()).map_err(|error| self.fail(error))?;
        let mut all = Vec::new();
        for pair in table.iter().map_err(|error| self.fail(error))? {
            let (key, value) = pair.map_err(|error| self.fail(error))?;
            all.push((key.value().to_owned(), record::decode(key.value(), value.value())?));
        }
        Ok(all)
    }

    /// Every record that can be read.
    pub(crate) fn all_readable<R: Record>(&self) -> Result<Vec<(String, R)>, StoreError> {
        let table = self.tx.open_table(definition::<R>()).map_err(|error| self.fail(error))?;
        let mut all = Vec::new();
        for pair in table.iter().map_err(|error| self.fail(error))? {
            let (key, value) = pair.map_err(|error| self.fail(error))?;
            all.extend(record::decode(key.value(), value.value()).ok().map(|record| (key.value().to_owned(), record)));
        }
        Ok(all)
    }

    /// Whether the value of any record begins like this; none is decoded.
    pub(crate) fn has_beginning<R: Record>(&self, beginning: &str) -> Result<bool, StoreError> {
        let table = self.tx.open_table(definition::<R>()).map_err(|error| self.fail(error))?;
        for pair in table.iter().map_err(|error| self.fail(error))? {
            let (_, value) = pair.map_err(|error| self.fail(error))?;
            if value.value().starts_with(beginning.as_bytes()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many records a table has.
    pub(crate) fn count<R: Record>(&self) -> Result<u64, StoreError> {
        let table = self.tx.open_table(definition::<R>()).map_err(|error| self.fail(error))?;
        table.len().map_err(|error| self.fail(error))
    }

    /// Removes a record of any table, readable or not.
    pub(crate) fn remove_raw(&self, table: &'static str, key: &str) -> Result<(), StoreError> {
        let definition: TableDefinition<'_, &'static str, &'static [u8]> = TableDefinition::new(table);
        let mut table = self.tx.open_table(definition).map_err(|error| self.fail(error))?;
        table.remove(key).map_err(|error| self.fail(error))?;
        Ok(())
    }

    pub(crate) fn put<R: Record>(&self, key: &str, record: &R) -> Result<(), StoreError> {
        let value = record::encode(key, record)?;
        let mut table = self.tx.open_table(definition::<R>()).map_err(|error| self.fail(error))?;
        table.insert(key, value.as_slice()).map_err(|error| self.fail(error))?;
        Ok(())
    }

    /// Removes a record; whether it was there.
    pub(crate) fn remove<R: Record>(&self, key: &str) -> Result<bool, StoreError> {
        let mut table = self.tx.open_table(definition::<R>()).map_err(|error| self.fail(error))?;
        let was = table.remove(key).map_err(|error| self.fail(error))?.is_some();
        Ok(was)
    }

    pub(crate) fn make<R: Record>(&self) -> Result<(), StoreError> {
        self.tx.open_table(definition::<R>()).map(drop).map_err(|error| self.fail(error))
    }

    fn fail(&self, error: impl Into<redb::Error>) -> StoreError {
        self.meta.fail(error)
    }
}

fn definition<R: Record>() -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(R::TABLE)
}
