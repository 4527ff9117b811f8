//! A program that runs inside the [enclosure](super::enclosure), with its log.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::enclosure::child_of;
use super::wait::until;

/// Longest wait for a program that was told to end.
const END_LIMIT: Duration = Duration::from_secs(30);
/// How much of a log is shown when something failed.
const SHOWN_LINES: usize = 40;

/// The running program. Dropping it does not end it: the enclosure does.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    /// nsenter, which ends with the program and as it did.
    outer: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a command of [`Enclosure::command`](super::enclosure::Enclosure::command); its output goes to the end of `<name>.log` in `folder`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Daemon {
        let log = folder.join(format!("{name}.log"));
        let file = fs::File::options().create(true).append(true).open(&log).expect("a log file");
        command.stdout(file.try_clone().expect("a descriptor")).stderr(file);
        let outer = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Daemon { name: name.to_owned(), outer, log }
    }

    /// The program itself, by its number out here.
    pub fn pid(&self) -> Option<u32> {
        child_of(self.outer.id())
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.outer.try_wait().expect("a state")
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        if let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            // It may have ended by itself.
            let _sent = kill_process(pid, signal);
        }
        let ended = until(END_LIMIT, || self.ended());
        ended.unwrap_or_else(|| panic!("{} does not end\n{}", self.name, self.shown()))
    }

    /// All it wrote so far.
    pub fn output(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The end of what it wrote, under its name.
    pub fn shown(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        let last = lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default();
        format!("--- {} ---\n{}\n", self.name, last.join("\n"))
    }
}

/// What the kernel says a process holds in memory, and has held at most.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident now.
    pub now_bytes: u64,
    /// Most that was resident since [`Memory::forget_peak`].
    pub peak_bytes: u64,
}

impl Memory {
    /// Reads it; `None` when there is no such process.
    pub fn of(pid: u32) -> Option<Memory> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
        };
        Some(Memory { now_bytes: field("VmRSS:")?, peak_bytes: field("VmHWM:")? })
    }

    /// Starts a new peak, proc(5) `clear_refs`.
    pub fn forget_peak(pid: u32) {
        fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the peak is forgotten");
    }
}
