//! The log, on standard error: text on a terminal, else one JSON object a line.

use std::io::IsTerminal;
use std::panic::{self, Location, PanicHookInfo};
use std::thread;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::terminal::LogWriter;
use crate::config::{Log, LogFormat, LogLevel};

/// The target of the events "stored" and "state changed". Their fields contain
/// parts of a push's body, which must never be logged, so only an observer
/// receives them.
pub(crate) const EVENTS: &str = "northbridge::events";

/// A layer that receives events beside the log and filters them itself.
pub type Observer = Box<dyn Layer<Registry> + Send + Sync>;

/// What the log of the process contains.
#[derive(Debug, Clone)]
pub struct LogFilter(reload::Handle<Targets, Registry>);

impl LogFilter {
    /// Changes the level from now on.
    pub(crate) fn set(&self, level: LogLevel) {
        // Fails only if the log has ended.
        let _ = self.0.reload(log_filter(level));
    }
}

/// Starts the log of the process; a second call has no effect. `log.level`
/// applies to the log alone, not to what `observer` receives.
pub fn start(log: &Log, observer: Option<Observer>) -> LogFilter {
    let terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let format = fmt::layer().with_writer(|| LogWriter);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = if json {
        format
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed()
    } else {
        format.with_ansi(terminal).with_target(false).boxed()
    };
    let (filter, handle) = reload::Layer::new(log_filter(log.level));
    let mut layers = vec![layer.with_filter(filter).boxed()];
    layers.extend(observer);
    let _already_started = tracing_subscriber::registry().with(layers).try_init();
    panic::set_hook(Box::new(log_panic));
    LogFilter(handle)
}

/// Logs a panic in the format of the log.
fn log_panic(info: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let location = info.location().map(Location::to_string);
    let payload = info.payload();
    let reason = payload.downcast_ref::<&str>().copied();
    let reason = reason.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    tracing::error!(
        thread = thread.name(),
        location,
        reason,
        "panic, which is a bug"
    );
}

fn log_filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_default(level)
        .with_target(EVENTS, LevelFilter::OFF)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn no_level_logs_parts_of_a_body() {
        for level in [LogLevel::Error, LogLevel::Debug, LogLevel::Trace] {
            assert!(!log_filter(level).would_enable(EVENTS, &Level::DEBUG));
        }
        assert!(log_filter(LogLevel::Debug).would_enable("northbridge", &Level::DEBUG));
    }
}
