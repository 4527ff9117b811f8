//! Carries a blob's bytes from the task that fetches them to the blocking thread that unpacks them.
//!
//! In: [`Bytes`] as the network gave them. Out: a `BufRead` that hands out the same memory, nothing copied. At
//! most [`WINDOW_BYTES`] are on the way, so memory stays bounded however slow the disk is; a full window makes
//! the task wait, and with it the sender at the other end of the connection.
//!
//! Invariants: `bytes_arrive_in_order`, `a_full_window_makes_the_writer_wait`,
//! `a_dropped_writer_is_an_error_not_an_end`, `a_restart_begins_again`.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Most bytes between network and extractor of one layer. Two of the largest reads of the HTTP stack fit, so
/// that one can be filled while the other is inflated; three layers at once stay below 4 MiB.
pub(crate) const WINDOW_BYTES: usize = 1 << 20;
/// Size of reads from a file that is inflated: large against a system call's cost, small against a core's cache.
pub(crate) const READ_BYTES: usize = 256 << 10;
/// Most pieces on the way; small pieces must not pile up bookkeeping.
const PIECES_MAX: usize = 256;

enum Piece {
    Bytes(Bytes, OwnedSemaphorePermit),
    Restart,
    End,
}

/// The async end.
#[derive(Debug)]
pub(crate) struct PipeWriter {
    pieces: mpsc::Sender<Piece>,
    window: Arc<Semaphore>,
}

/// The reader has gone; its own error says why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReaderGone;

/// The blocking end.
pub(crate) struct PipeReader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    held: Option<OwnedSemaphorePermit>,
    state: ReaderState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReaderState {
    Open,
    Restarted,
    Ended,
}

impl std::fmt::Debug for PipeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PipeReader({:?})", self.state)
    }
}

/// Makes both ends.
pub(crate) fn pipe() -> (PipeWriter, PipeReader) {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let writer = PipeWriter { pieces: sender, window: Arc::new(Semaphore::new(WINDOW_BYTES)) };
    let reader = PipeReader { pieces: receiver, current: Bytes::new(), held: None, state: ReaderState::Open };
    (writer, reader)
}

impl PipeWriter {
    /// Hands bytes over once the window has room.
    pub(crate) async fn send(&self, bytes: Bytes) -> Result<(), ReaderGone> {
        if bytes.is_empty() {
            return Ok(());
        }
        // A piece larger than the window takes all of it.
        let weight = u32::try_from(bytes.len().min(WINDOW_BYTES)).unwrap_or(u32::MAX);
        let room = tokio::select! {
            room = self.window.clone().acquire_many_owned(weight) => room.map_err(|_| ReaderGone)?,
            () = self.pieces.closed() => return Err(ReaderGone),
        };
        self.pieces.send(Piece::Bytes(bytes, room)).await.map_err(|_| ReaderGone)
    }

    /// What was sent so far is void: the blob starts again at byte 0.
    pub(crate) async fn restart(&self) -> Result<(), ReaderGone> {
        self.pieces.send(Piece::Restart).await.map_err(|_| ReaderGone)
    }

    /// The blob is complete. Dropping the writer without this is an error for the reader.
    pub(crate) async fn finish(self) -> Result<(), ReaderGone> {
        self.pieces.send(Piece::End).await.map_err(|_| ReaderGone)
    }
}

impl PipeReader {
    /// Whether the last error of this reader was a restart; [`PipeReader::begin_again`] goes on from there.
    pub(crate) fn was_restarted(&self) -> bool {
        self.state == ReaderState::Restarted
    }

    /// Reads on at byte 0 after a restart.
    pub(crate) fn begin_again(&mut self) {
        self.state = ReaderState::Open;
    }

    fn next_piece(&mut self) -> io::Result<()> {
        self.held = None;
        match self.pieces.blocking_recv() {
            Some(Piece::Bytes(bytes, room)) => {
                self.current = bytes;
                self.held = Some(room);
                Ok(())
            }
            Some(Piece::Restart) => {
                self.current = Bytes::new();
                self.state = ReaderState::Restarted;
                Err(restarted())
            }
            Some(Piece::End) => {
                self.state = ReaderState::Ended;
                Ok(())
            }
            None => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the transfer was given up")),
        }
    }
}

fn restarted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the transfer starts again")
}

impl BufRead for PipeReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.state {
                ReaderState::Ended => return Ok(&[]),
                ReaderState::Restarted => return Err(restarted()),
                ReaderState::Open => self.next_piece()?,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount);
    }
}

impl Read for PipeReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let amount = available.len().min(out.len());
        out[..amount].copy_from_slice(&available[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn read_all(mut reader: PipeReader) -> tokio::task::JoinHandle<(PipeReader, io::Result<Vec<u8>>)> {
        tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            let result = reader.read_to_end(&mut all).map(|_| all);
            (reader, result)
        })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bytes_arrive_in_order() {
        let (writer, reader) = pipe();
        let read = read_all(reader);
        for n in 0..1000_u32 {
            writer.send(Bytes::from(vec![n as u8; n as usize])).await.unwrap();
        }
        writer.send(Bytes::from(vec![7; WINDOW_BYTES * 3])).await.unwrap();
        writer.finish().await.unwrap();
        let all = read.await.unwrap().1.unwrap();
        assert_eq!(all.len(), 499_500 + WINDOW_BYTES * 3);
        assert!(all.windows(2).take(499_499).all(|pair| pair[1] == pair[0] || pair[1] == pair[0].wrapping_add(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_window_makes_the_writer_wait() {
        let (writer, reader) = pipe();
        writer.send(Bytes::from(vec![0; WINDOW_BYTES])).await.unwrap();
        let more = tokio::time::timeout(Duration::from_secs(3600), writer.send(Bytes::from_static(b"x"))).await;
        assert!(more.is_err(), "the second piece must wait for the first to be read");
        drop(reader);
        assert!(writer.send(Bytes::from_static(b"x")).await.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dropped_writer_is_an_error_not_an_end() {
        let (writer, reader) = pipe();
        let read = read_all(reader);
        writer.send(Bytes::from_static(b"half")).await.unwrap();
        drop(writer);
        assert_eq!(read.await.unwrap().1.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_restart_begins_again() {
        let (writer, reader) = pipe();
        let first = read_all(reader);
        writer.send(Bytes::from_static(b"wrong")).await.unwrap();
        writer.restart().await.unwrap();
        writer.send(Bytes::from_static(b"right")).await.unwrap();
        let (mut reader, result) = first.await.unwrap();
        assert!(result.is_err() && reader.was_restarted());
        reader.begin_again();
        writer.finish().await.unwrap();
        assert_eq!(read_all(reader).await.unwrap().1.unwrap(), b"right");
    }
}
