//! Walks the stream block by block.

use super::header::{Dialect, Header, Type};
use super::pax::Records;
use super::sparse::{self, PaxForm, Stretch};
use super::{BLOCK, Entry, Kind, Refusal, Source};
use crate::layer::error::{EntryName, LayerError};
use crate::layer::limits::LayerLimits;

/// A part of a file's content.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes, at least one.
    Data(&'a [u8]),
    /// So many zeros that the archive does not hold.
    Hole(u64),
    /// The file is complete.
    End,
}

/// Reads a tar stream entry by entry.
#[derive(Debug)]
pub struct Reader<'l, S> {
    source: S,
    limits: &'l LayerLimits,
    entry: Entry,
    /// Bytes of data of this entry still in the stream.
    left: u64,
    /// Bytes that fill its last block.
    padding: u64,
    /// Bytes of the last [`Piece::Data`], to be consumed before anything else.
    lent: usize,
    /// Bytes of the stream that were consumed.
    consumed: u64,
    /// Stretches of a sparse file, last one first; empty for others.
    map: Vec<Stretch>,
    /// Where in the file the next byte belongs.
    position: u64,
    ended: bool,
}

impl<'l, S: Source> Reader<'l, S> {
    /// Starts at the first header.
    pub fn new(source: S, limits: &'l LayerLimits) -> Reader<'l, S> {
        Reader {
            source,
            limits,
            entry: Entry::default(),
            left: 0,
            padding: 0,
            lent: 0,
            consumed: 0,
            map: Vec::new(),
            position: 0,
            ended: false,
        }
    }

    /// The entry that [`Reader::advance`] found last.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Goes to the next entry, over whatever of the last one was not read; false at the end of the archive.
    ///
    /// # Errors
    /// [`LayerError::Archive`], [`LayerError::UnsupportedEntry`] or [`LayerError::Limit`] about the stream, or what the
    /// source says.
    pub fn advance(&mut self) -> Result<bool, LayerError> {
        if self.ended {
            return Ok(false);
        }
        self.skip_rest()?;
        let mut pending = Pending::default();
        loop {
            let Some(header) = self.header()? else {
                self.ended = true;
                if pending.any() {
                    return Err(self.refuse("an extended header without an entry".into()));
                }
                return Ok(false);
            };
            let kind = header.kind().map_err(|why| self.refuse_named(&header, why))?;
            match kind {
                Type::Extended => {
                    let data = self.special(&header)?;
                    pending.records = Some(Records::parse(&data, self.limits).map_err(|why| self.refuse(why))?);
                }
                Type::Global => {
                    let data = self.special(&header)?;
                    Records::parse(&data, self.limits).map_err(|why| self.refuse(why))?;
                    // Go hands a global header out as an entry of its own, and so forgets what came before it.
                    pending = Pending::default();
                }
                Type::LongName => pending.name = Some(self.long(&header)?),
                Type::LongLink => pending.link = Some(self.long(&header)?),
                Type::Entry(kind) => return self.start(&header, kind, false, pending).map(|()| true),
                Type::OldFile => return self.start(&header, Kind::File, true, pending).map(|()| true),
                Type::Sparse => {
                    if header.dialect() != Dialect::Gnu {
                        return Err(self.refuse_named(&header, "a sparse file that is not GNU's".into()));
                    }
                    return self.start(&header, Kind::File, false, pending).map(|()| true);
                }
            }
        }
    }

    /// The next part of the current entry's content.
    ///
    /// # Errors
    /// [`LayerError::Archive`] when the stream ends inside, or what the source says.
    pub fn data(&mut self) -> Result<Piece<'_>, LayerError> {
        self.settle_lent();
        let stretch_left = loop {
            // An ordinary file has no map: everything that is left is its data.
            let Some(stretch) = self.map.last() else { break self.left };
            if self.position < stretch.offset {
                return Ok(self.hole_up_to(stretch.offset));
            }
            if self.position < stretch.end() {
                break stretch.end() - self.position;
            }
            self.map.pop();
            if self.map.is_empty() && self.position < self.entry.size_bytes {
                return Ok(self.hole_up_to(self.entry.size_bytes));
            }
        };
        if stretch_left == 0 {
            return Ok(Piece::End);
        }
        // Looked at twice because of the borrow: the second call hands out what the first one has filled.
        if self.source.fill()?.is_empty() {
            return Err(self.refuse("the archive ends inside an entry".into()));
        }
        let bytes = self.source.fill()?;
        let count = bytes.len().min(usize::try_from(stretch_left).unwrap_or(usize::MAX));
        self.lent = count;
        self.left -= count as u64;
        self.position += count as u64;
        Ok(Piece::Data(&bytes[..count]))
    }

    /// Reads what follows the end marker, to the end of the stream: digests cover it, nothing of it is an entry.
    ///
    /// # Errors
    /// What the source says.
    pub fn drain(&mut self) -> Result<(), LayerError> {
        self.settle_lent();
        loop {
            let count = self.source.fill()?.len();
            if count == 0 {
                return Ok(());
            }
            self.consume(count);
        }
    }

    /// Where in the stream the next piece of data begins.
    pub fn position(&self) -> u64 {
        self.consumed + self.lent as u64
    }

    /// Gives the source back.
    pub fn into_source(self) -> S {
        self.source
    }

    fn hole_up_to(&mut self, end: u64) -> Piece<'static> {
        let hole = end - self.position;
        self.position = end;
        Piece::Hole(hole)
    }

    fn consume(&mut self, count: usize) {
        self.source.consume(count);
        self.consumed += count as u64;
    }

    fn settle_lent(&mut self) {
        if self.lent > 0 {
            self.consume(self.lent);
            self.lent = 0;
        }
    }

    fn skip_rest(&mut self) -> Result<(), LayerError> {
        self.settle_lent();
        self.map.clear();
        let (left, padding) = (std::mem::take(&mut self.left), std::mem::take(&mut self.padding));
        if self.skip(left)? < left {
            return Err(self.refuse("the archive ends inside an entry".into()));
        }
        // The padding of the last entry may be missing.
        self.skip(padding)?;
        Ok(())
    }

    /// Skips up to `count` bytes; says how many there were.
    fn skip(&mut self, count: u64) -> Result<u64, LayerError> {
        let mut left = count;
        while left > 0 {
            let available = self.source.fill()?.len();
            if available == 0 {
                break;
            }
            let step = available.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.consume(step);
            left -= step as u64;
        }
        Ok(count - left)
    }

    /// Fills `out`; says how many bytes there were.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, LayerError> {
        let mut done = 0;
        while done < out.len() {
            let bytes = self.source.fill()?;
            if bytes.is_empty() {
                break;
            }
            let count = bytes.len().min(out.len() - done);
            out[done..done + count].copy_from_slice(&bytes[..count]);
            self.consume(count);
            done += count;
        }
        Ok(done)
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        let mut block = [0; BLOCK];
        match self.read(&mut block)? {
            BLOCK => Ok(Some(block)),
            0 => Ok(None),
            _ => Err(self.refuse("the archive ends inside a header".into())),
        }
    }

    /// The next header; none at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, LayerError> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block[0] == 0 && block == [0; BLOCK] {
            return match self.block()? {
                Some(second) if second != [0; BLOCK] => Err(self.refuse("a zero block between entries".into())),
                Some(_) | None => Ok(None),
            };
        }
        Header::check(block).map(Some).map_err(|what| self.refuse(what.into()))
    }

    /// The data of an extended or long-name header.
    fn special(&mut self, header: &Header) -> Result<Vec<u8>, LayerError> {
        let size = header.size().map_err(|what| self.refuse(what.into()))?;
        if size > self.limits.pax_bytes {
            return Err(self.refuse(Refusal::Limit("paxBytes", self.limits.pax_bytes)));
        }
        let mut data = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        if self.read(&mut data)? < data.len() || self.skip(padding(size))? < padding(size) {
            return Err(self.refuse("the archive ends inside an extended header".into()));
        }
        Ok(data)
    }

    fn long(&mut self, header: &Header) -> Result<Vec<u8>, LayerError> {
        let mut data = self.special(header)?;
        let Some(end) = data.iter().position(|&b| b == 0) else {
            return Err(self.refuse("a long name without its NUL".into()));
        };
        data.truncate(end);
        Ok(data)
    }

    fn start(&mut self, header: &Header, kind: Kind, old: bool, pending: Pending) -> Result<(), LayerError> {
        let limits = self.limits;
        let result = self.entry_from(header, kind, old, &pending, limits);
        let mut stored = result.map_err(|why| self.refuse(why))?;
        // GNU's old map goes on in blocks of its own, before the data.
        let mut is_sparse = true;
        if header.0[156] == b'S' {
            self.old_sparse(header)?;
        } else if let Some(form) = pending.records.as_ref().and_then(sparse::pax_form) {
            stored = self.pax_sparse(form, pending.records.as_ref(), stored)?;
        } else {
            self.entry.size_bytes = stored;
            is_sparse = false;
        }
        self.left = stored;
        self.position = 0;
        if is_sparse {
            sparse::check(&self.map, self.entry.size_bytes, stored).map_err(|what| self.refuse(what.into()))?;
            self.source.charge(self.entry.size_bytes - stored)?;
            if self.map.is_empty() {
                // Nothing but a hole.
                self.map.push(Stretch { offset: self.entry.size_bytes, length: 0 });
            }
            self.map.reverse();
        }
        Ok(())
    }

    /// Fills the entry and says how many bytes of data are stored for it.
    fn entry_from(
        &mut self,
        header: &Header,
        kind: Kind,
        old: bool,
        pending: &Pending,
        limits: &LayerLimits,
    ) -> Result<u64, Refusal> {
        let entry = &mut self.entry;
        header.read(entry)?;
        let mut stored = header.size()?;
        if let Some(records) = &pending.records {
            records.merge(entry, &mut stored, limits)?;
        }
        if let Some(name) = &pending.name {
            entry.name.clone_from(name);
        }
        if let Some(link) = &pending.link {
            entry.link.clone_from(link);
        }
        if let Some(records) = pending.records.as_ref().filter(|records| sparse::pax_form(records).is_some()) {
            if let Some(name) = records.get("GNU.sparse.name") {
                if name.contains(&0) {
                    return Err("a name that holds NUL".into());
                }
                entry.name = name.to_vec();
            }
            if kind != Kind::File {
                return Err("a sparse file that is no file".into());
            }
        }
        if entry.name.is_empty() {
            return Err("an entry without a name".into());
        }
        entry.kind = if old && entry.name.ends_with(b"/") { Kind::Directory } else { kind };
        entry.size_bytes = 0;
        match entry.kind {
            // The header has room for a target even where there is none.
            Kind::File => entry.link.clear(),
            Kind::HardLink | Kind::Symlink => {
                if entry.link.is_empty() {
                    return Err("a link without a target".into());
                }
                stored = 0;
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Directory | Kind::Fifo => {
                entry.link.clear();
                stored = 0;
            }
        }
        self.padding = padding(stored);
        Ok(stored)
    }

    fn old_sparse(&mut self, header: &Header) -> Result<(), LayerError> {
        let limits = self.limits;
        let take = |table: &[u8], map: &mut Vec<Stretch>| sparse::old_gnu(table, map, limits);
        self.entry.size_bytes = sparse::old_gnu_size(&header.0).map_err(|what| self.refuse(what.into()))?;
        let mut map = Vec::new();
        take(&header.0[386..482], &mut map).map_err(|why| self.refuse(why))?;
        let mut more = header.0[482] != 0;
        while more {
            let Some(block) = self.block()? else {
                return Err(self.refuse("the archive ends inside the map of a sparse file".into()));
            };
            take(&block[..504], &mut map).map_err(|why| self.refuse(why))?;
            more = block[504] != 0;
        }
        self.map = map;
        Ok(())
    }

    fn pax_sparse(&mut self, form: PaxForm, records: Option<&Records>, stored: u64) -> Result<u64, LayerError> {
        let empty = Records::default();
        let records = records.unwrap_or(&empty);
        let size = sparse::pax_size(records).map_err(|what| self.refuse(what.into()))?;
        self.entry.size_bytes = size.unwrap_or(stored);
        match form {
            PaxForm::InRecords => {
                self.map = sparse::from_records(records, self.limits).map_err(|why| self.refuse(why))?;
                Ok(stored)
            }
            PaxForm::InData => {
                let (mut text, mut left) = (sparse::MapText::default(), stored);
                loop {
                    left = left
                        .checked_sub(BLOCK as u64)
                        .ok_or_else(|| self.refuse("the map of a sparse file does not fit its data".into()))?;
                    let Some(block) = self.block()? else {
                        return Err(self.refuse("the archive ends inside the map of a sparse file".into()));
                    };
                    if text.push(&block, self.limits).map_err(|why| self.refuse(why))? {
                        break;
                    }
                }
                self.map = text.finish();
                Ok(left)
            }
        }
    }

    fn refuse(&self, why: Refusal) -> LayerError {
        let entry = EntryName::new(&self.entry.name);
        match why {
            Refusal::Malformed(what) => LayerError::Archive { entry, what },
            Refusal::Unsupported(what) => LayerError::UnsupportedEntry { entry, what },
            Refusal::Limit(limit, max) => LayerError::Limit { entry, limit, max },
        }
    }

    /// As [`Reader::refuse`], about an entry whose header was not taken over yet.
    fn refuse_named(&mut self, header: &Header, why: Refusal) -> LayerError {
        // The refusal stands whether or not the other fields can be read.
        let _ = header.read(&mut self.entry);
        self.refuse(why)
    }
}

/// What extended headers say about the entry that follows.
#[derive(Debug, Default)]
struct Pending {
    records: Option<Records>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Pending {
    fn any(&self) -> bool {
        self.records.is_some() || self.name.is_some() || self.link.is_some()
    }
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}
