//! One bounded run of a foreign program: what it is given, how long it may take, how much of what it says is read.
//!
//! The program leads a process group of its own, which is killed as a whole when time is up, when it says too much and
//! when the caller goes away. Used by helpers and plugins.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

/// How long the standard error of a program that has ended is waited for: something it started may hold it open.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What to run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    /// All of it; nothing is inherited.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Standard input, then its end.
    pub(crate) input: Zeroizing<Vec<u8>>,
    pub(crate) timeout: Duration,
    /// More output than this is an error.
    pub(crate) output_bytes: usize,
    /// Of the standard error as much as this is kept; nothing: it is not read.
    pub(crate) error_bytes: usize,
}

/// A program that has ended by itself.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) output: Zeroizing<Vec<u8>>,
    pub(crate) errors: Zeroizing<Vec<u8>>,
}

/// Why a run came to nothing, and what the program wrote to its standard error until then.
#[derive(Debug)]
pub(crate) struct RunError {
    pub(crate) kind: RunErrorKind,
    pub(crate) errors: Zeroizing<Vec<u8>>,
}

#[derive(Debug)]
pub(crate) enum RunErrorKind {
    /// It could not be started or talked to.
    Io(std::io::Error),
    /// It was killed when its time was up.
    Timeout,
    /// It wrote too much.
    TooLarge,
}

/// Runs a program to its end. A dropped future kills it and all it has started.
pub(crate) async fn run(run: Run) -> Result<Ran, RunError> {
    let mut errors = Zeroizing::new(Vec::with_capacity(run.error_bytes));
    match run_to_end(run, &mut errors).await {
        Ok((status, output)) => Ok(Ran { status, output, errors }),
        Err(kind) => Err(RunError { kind, errors }),
    }
}

async fn run_to_end(run: Run, errors: &mut Vec<u8>) -> Result<(ExitStatus, Zeroizing<Vec<u8>>), RunErrorKind> {
    let mut child = Command::new(&run.program)
        .args(&run.args)
        .env_clear()
        .envs(run.environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(if run.error_bytes == 0 { Stdio::null() } else { Stdio::piped() })
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(RunErrorKind::Io)?;
    // Dropped before the child is: while the leader is not reaped, nobody else can get the group's number.
    let mut group = Group { leader: child.id().and_then(|id| Pid::from_raw(id.cast_signed())) };
    let result = tokio::time::timeout(run.timeout, talk(&mut child, &run, errors)).await;
    let ended = result.map_err(|_| RunErrorKind::Timeout)??;
    group.leader = None;
    Ok(ended)
}

/// Kills the program and all it has started, unless it ended in time.
struct Group {
    leader: Option<Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            // An error means that nobody is left.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

async fn talk(
    child: &mut Child,
    run: &Run,
    errors: &mut Vec<u8>,
) -> Result<(ExitStatus, Zeroizing<Vec<u8>>), RunErrorKind> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let ask = async {
        if let Some(mut stdin) = stdin {
            // A program that answers without reading is none of our business.
            let _ = stdin.write_all(&run.input).await;
        }
    };
    let listen = async {
        let mut output = Zeroizing::new(Vec::with_capacity(64 * 1024));
        if let Some(stdout) = stdout {
            let limit = run.output_bytes as u64 + 1;
            stdout.take(limit).read_to_end(&mut output).await.map_err(RunErrorKind::Io)?;
        }
        if output.len() > run.output_bytes { Err(RunErrorKind::TooLarge) } else { Ok(output) }
    };
    let end = async {
        let ((), output) = tokio::join!(ask, listen);
        let output = output?;
        let status = child.wait().await.map_err(RunErrorKind::Io)?;
        Ok((status, output))
    };
    let complaints = async {
        if let Some(stderr) = stderr {
            keep(stderr, run.error_bytes, errors).await;
        }
    };
    tokio::pin!(end, complaints);
    tokio::select! {
        ended = &mut end => {
            let ended = ended?;
            let _ = tokio::time::timeout(LAST_WORDS, complaints).await;
            Ok(ended)
        }
        () = &mut complaints => end.await,
    }
}

/// Keeps the beginning, reads on to the end so that the program is not held up.
async fn keep(mut from: impl AsyncRead + Unpin, limit: usize, kept: &mut Vec<u8>) {
    let mut piece = Zeroizing::new([0_u8; 4096]);
    loop {
        match from.read(&mut piece[..]).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                let room = limit.saturating_sub(kept.len()).min(count);
                kept.extend_from_slice(&piece[..room]);
            }
        }
    }
}
