//! What is set once for the whole process.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tracing_subscriber::EnvFilter;

use crate::args::Color;
use crate::config::node::{Log, LogFormat, LogLevel};

/// No core file and no debugger of the same user may see credentials; one TLS provider for all.
pub(crate) fn protect() {
    // Both can only fail where a sandbox forbids the call; running on is then no worse than before.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // Fails only where one is installed already, which is as good.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

/// Makes the choice of colour known to everything that prints.
pub(crate) fn colour(choice: Color) {
    match choice {
        Color::Auto => anstream::ColorChoice::Auto,
        Color::Always => anstream::ColorChoice::Always,
        Color::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Changes what the running log shows.
pub(crate) type LogControl = Box<dyn Fn(LogLevel) + Send + Sync>;

/// Starts the log on standard error.
pub(crate) fn log(settings: &Log) -> LogControl {
    let log = tracing_subscriber::fmt().with_env_filter(filter(settings.level)).with_writer(std::io::stderr);
    // A second initialisation happens in tests only, where the first log serves.
    match settings.format {
        LogFormat::Text => {
            let log = log.with_target(false).with_filter_reloading();
            let handle = log.reload_handle();
            drop(log.try_init());
            Box::new(move |level| drop(handle.reload(filter(level))))
        }
        LogFormat::Json => {
            let log = log.json().with_filter_reloading();
            let handle = log.reload_handle();
            drop(log.try_init());
            Box::new(move |level| drop(handle.reload(filter(level))))
        }
    }
}

/// Libraries below us log bytes of requests at debug and trace: they stay at info, so no header is ever shown.
fn filter(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    EnvFilter::new(format!("{},windlass={level}", if matches!(level, "debug" | "trace") { "info" } else { level }))
}
