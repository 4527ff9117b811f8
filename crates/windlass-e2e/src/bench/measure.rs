//! What a program costs, read from /proc: of the program itself with everything it waited for, and of a daemon that
//! works for it.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// Clock ticks a second of /proc/PID/stat; fixed at 100 on Linux.
const TICKS: f64 = 100.0;

/// How often the peak memory of a running program is looked at; the kernel keeps the peak, so little is missed.
const LOOK: Duration = Duration::from_millis(2);

/// What one pull cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    wall: f64,
    cpu: f64,
    peak_bytes: f64,
    written_bytes: f64,
    /// Requests the registry saw.
    pub(crate) requests: u64,
}

impl Cost {
    pub(crate) const HEADER: &'static str = "program                 wall s    cpu s  peak MB written MB requests";

    /// The median of each figure by itself.
    pub(crate) fn median(runs: &[Cost]) -> Cost {
        let of = |figure: fn(&Cost) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(figure).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        Cost {
            wall: of(|cost| cost.wall),
            cpu: of(|cost| cost.cpu),
            peak_bytes: of(|cost| cost.peak_bytes),
            written_bytes: of(|cost| cost.written_bytes),
            requests: of(|cost| cost.requests as f64) as u64,
        }
    }

    pub(crate) fn line(&self, name: &str) -> String {
        format!(
            "{name:20} {:9.2} {:8.2} {:8.0} {:10.0} {:8}",
            self.wall,
            self.cpu,
            self.peak_bytes / 1e6,
            self.written_bytes / 1e6,
            self.requests
        )
    }

    /// Our figures divided by another program's.
    pub(crate) fn ratio_line(&self, other: &Cost, name: &str) -> String {
        format!(
            "{:20} {:9.2} {:8.2} {:8.2} {:10.2} {:8.2}",
            format!("  ours / {name}"),
            self.wall / other.wall,
            self.cpu / other.cpu,
            self.peak_bytes / other.peak_bytes,
            self.written_bytes / other.written_bytes,
            self.requests as f64 / other.requests as f64
        )
    }
}

/// Runs a command to its end; panics when it fails, because a failed pull has no cost worth printing.
pub(crate) fn run(mut command: Command, daemon: Option<u32>) -> Cost {
    let before = daemon.map(Usage::of).unwrap_or_default();
    if let Some(daemon) = daemon {
        // Starts a new peak, proc(5) clear_refs.
        drop(fs::write(format!("/proc/{daemon}/clear_refs"), "5"));
    }
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let peak_bytes = watch(&child);
    let wall = start.elapsed().as_secs_f64();
    let own = Usage::of(child.id());
    let status = child.wait().expect("our own child");
    assert!(status.success(), "{command:?} ended with {status}");
    let after = daemon.map(Usage::of).unwrap_or_default();
    Cost {
        wall,
        cpu: own.cpu + after.cpu - before.cpu,
        peak_bytes: peak_bytes + daemon.map_or(0.0, peak_of),
        written_bytes: own.written_bytes + after.written_bytes - before.written_bytes,
        requests: 0,
    }
}

/// Waits until the child has ended, without collecting it, so that /proc still tells what it used.
fn watch(child: &Child) -> f64 {
    let pid = Pid::from_child(child);
    let mut peak = 0.0_f64;
    loop {
        peak = peak.max(peak_of(child.id()));
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        if waitid(WaitId::Pid(pid), options).expect("our own child").is_some() {
            return peak;
        }
        std::thread::sleep(LOOK);
    }
}

fn peak_of(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or_default();
    kib * 1024.0
}

#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    cpu: f64,
    written_bytes: f64,
}

impl Usage {
    /// CPU seconds and bytes written of a process and of all children it has collected.
    fn of(pid: u32) -> Usage {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in parentheses may hold spaces; the fields after it do not.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let ticks: f64 = fields.skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum();
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes:")?.trim().parse::<f64>().ok());
        Usage { cpu: ticks / TICKS, written_bytes: written.unwrap_or_default() }
    }
}
