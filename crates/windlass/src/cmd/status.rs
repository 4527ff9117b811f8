//! `windlass status`: what the node daemon does.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value as Json;
use windlass_core::reason::Reason;
use windlass_node::NodeLock;
use windlass_node::client::NodeClient;
use windlass_node::status::{BackOffRow, CachedRow, NodeStatus, ProviderRow, PullRow};

use crate::args::Format;
use crate::failure::{Failure, shown};
use crate::output::size::{age, bytes};
use crate::output::table::Table;
use crate::output::{Report, write_out};
use crate::session::Session;
use crate::{interrupt, wire};

/// Failures shown.
const FAILURES_MAX: usize = 5;
/// Waiting images shown.
const BACK_OFF_MAX: usize = 10;
/// Takes back the lines of the picture before: to its beginning, and everything from there on.
const HOME: &str = "\u{1b}[H\u{1b}[J";
/// The whole screen, once.
const CLEAR: &str = "\u{1b}[2J";

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Goes on, showing each change, until it is interrupted.
    #[arg(short, long)]
    watch: bool,
    /// The daemon's socket [default: that of the daemon on --root, else node.socket].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let node = session.load()?.node;
    let running = || NodeLock::holder(&node.general.root).map(|holder| holder.socket);
    let socket = args.socket.clone().or_else(running).unwrap_or(node.daemon.socket);
    let client = NodeClient::new(&socket);
    let failed = |error: windlass_node::client::ClientError| {
        Failure::new(error.reason(), "cannot see the daemon", wire::chain(&error))
    };
    interrupt::to_end(async |cancel| {
        let work = async {
            if !args.watch {
                return session.screen.show(&Status(client.status().await.map_err(failed)?));
            }
            let mut answer = client.watch().await.map_err(failed)?;
            let mut picture = Picture::new(session);
            loop {
                picture.show(Status(answer.next().await.map_err(failed)?))?;
            }
        };
        tokio::select! {
            result = work => result,
            () = cancel.cancelled() => Err(Failure::new(Reason::Canceled, "interrupted", "")),
        }
    })
}

/// What is shown again and again.
struct Picture<'s> {
    session: &'s Session,
    /// Whether one picture is drawn over the other.
    is_drawn_over: bool,
    has_begun: bool,
}

impl Picture<'_> {
    fn new(session: &Session) -> Picture<'_> {
        let is_table = matches!(session.screen.format, Format::Table | Format::Wide);
        Picture { session, is_drawn_over: is_table && std::io::stdout().is_terminal(), has_begun: false }
    }

    fn show(&mut self, status: Status) -> Result<(), Failure> {
        let has_begun = std::mem::replace(&mut self.has_begun, true);
        match self.session.screen.format {
            // One document a line, so that a program can read them as they come.
            Format::Json => {
                let text = serde_json::to_string(&status.fields()).unwrap_or_default();
                write_out(&format!("{text}\n"))
            }
            Format::Table | Format::Wide if self.is_drawn_over => {
                if !has_begun {
                    write_out(CLEAR)?;
                }
                write_out(HOME)?;
                self.session.screen.show(&status)
            }
            Format::Table | Format::Wide | Format::Yaml | Format::Name => {
                if has_begun {
                    write_out(if self.session.screen.format == Format::Yaml { "---\n" } else { "\n" })?;
                }
                self.session.screen.show(&status)
            }
        }
    }
}

struct Status(NodeStatus);

impl Status {
    fn since(&self, at: Timestamp) -> String {
        age(Duration::try_from(self.0.now.duration_since(at)).unwrap_or_default())
    }

    fn head(&self) -> String {
        let NodeStatus { version, pid, state, image_count, .. } = &self.0;
        let up = self.since(self.0.started);
        format!("{}: version {version}, process {pid}, up {up}, {image_count} images", state.as_str())
    }

    /// What is not as it should be.
    fn problems(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.0.not_ready.iter().map(|check| format!("not ready: {}: {}", check.check, check.why)).collect();
        let configuration = &self.0.configuration;
        if let Some(problem) = &configuration.problem {
            lines.push(format!("the new configuration is not valid, the old one is in force: {problem}"));
        }
        if !configuration.needs_restart.is_empty() {
            lines.push(format!("a restart takes over {}", configuration.needs_restart.join(", ")));
        }
        if let Some(problem) = &self.0.logins.problem {
            lines.push(format!(
                "the new configuration of login providers is not valid, the old one is in force: {problem}"
            ));
        }
        let damaged = self.0.images.iter().flatten().filter(|image| image.damage.is_some()).count();
        if damaged > 0 {
            lines.push(format!("{damaged} images are damaged; `windlass fsck` says how"));
        }
        lines
    }

    fn disk(&self) -> Option<String> {
        let disk = self.0.disk.as_ref()?;
        let (free, all) = (bytes(disk.available_bytes), bytes(disk.capacity_bytes));
        let images = bytes(disk.images_bytes);
        Some(format!("disk: {} % used, {free} of {all} free, images take {images}", disk.used_percent))
    }

    fn provider(&self, row: &ProviderRow) -> String {
        let kept = |kept: &CachedRow| {
            let left = Duration::try_from(kept.expires.duration_since(self.0.now)).unwrap_or_default();
            format!("{} for {}", kept.key, age(left))
        };
        let kept: Vec<String> = row.cached.iter().map(kept).collect();
        let kept = if kept.is_empty() { String::new() } else { format!("; keeps {}", kept.join(", ")) };
        format!("logins: {} {}: asked {} times, {} failed{kept}", row.kind, row.name, row.calls, row.errors)
    }

    fn back_off(&self, row: &BackOffRow) -> String {
        let left = Duration::try_from(row.next_try.duration_since(self.0.now)).unwrap_or_default();
        format!("waiting: {} for {}, next try in {}: {}", row.image, row.who, age(left), row.cause)
    }

    fn cells(&self, pull: &PullRow, wide: bool) -> Vec<String> {
        let rate = pull.rate_bytes_per_second;
        let mut cells = vec![
            pull.image.clone(),
            pull.phase.clone(),
            format!("{}/{}", pull.layers_done, pull.layer_count),
            format!("{}/{}", bytes(pull.done_bytes), bytes(pull.total_bytes)),
            if rate > 0 { format!("{}/s", bytes(rate)) } else { String::new() },
            pull.eta_seconds.map_or_else(String::new, |seconds| age(Duration::from_secs(seconds))),
        ];
        if wide {
            cells.extend([self.since(pull.since), pull.platform.clone().unwrap_or_default()]);
        }
        cells
    }
}

impl Report for Status {
    fn kind(&self) -> &'static str {
        "NodeStatus"
    }

    fn fields(&self) -> Json {
        serde_json::to_value(&self.0).unwrap_or_default()
    }

    fn table(&self, wide: bool) -> Table {
        let mut table = Table::bare();
        if !self.0.pulls.is_empty() {
            let mut headings = vec!["IMAGE", "PHASE", "LAYERS", "DONE", "RATE", "ETA"];
            if wide {
                headings.extend(["AGE", "PLATFORM"]);
            }
            table = Table::new(headings);
        }
        for pull in &self.0.pulls {
            table = table.row(self.cells(pull, wide));
        }
        table = match self.0.pull_count.saturating_sub(self.0.pulls.len()) {
            0 if self.0.pulls.is_empty() => table.line("no pulls under way"),
            0 => table,
            more => table.line(format!("and {more} more pulls")),
        };
        table = table.line(self.head());
        for line in self.problems().into_iter().chain(self.disk()) {
            table = table.line(line);
        }
        for provider in &self.0.logins.providers {
            table = table.line(self.provider(provider));
        }
        for row in self.0.back_off.iter().take(BACK_OFF_MAX) {
            table = table.line(self.back_off(row));
        }
        for past in self.0.recent.iter().filter(|past| past.outcome == "failed").take(FAILURES_MAX) {
            let reason = past.reason.as_deref().unwrap_or_default();
            let credential = past.credential.as_deref().unwrap_or("anonymous");
            let message = past.message.as_deref().unwrap_or_default();
            let ago = self.since(past.at);
            table = table.line(format!("failed {ago} ago: {} ({reason}, by {credential}): {message}", past.image));
            for tried in &past.tried {
                table = table.line(format!("  tried: {tried}"));
            }
        }
        table
    }

    /// The images that are being pulled.
    fn names(&self) -> Vec<String> {
        self.0.pulls.iter().map(|pull| shown(&pull.image)).collect()
    }
}
