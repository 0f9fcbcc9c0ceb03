//! Log lines on stderr in the form ROS consoles have: `[INFO] [1700000000.123456789] [detector_node]: ready`.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, Layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::args::{LogLevel, Severity};
use super::rosout::RosoutLayer;
use crate::time::Stamp;
use crate::transport::dds::LOG_FILTER;

/// Logs go to stderr, and to `rosout` if it is given, from here on.
///
/// `--log-level LEVEL` and `--log-level node:=LEVEL` (`node` being the node's name) are for this program's lines;
/// `--log-level library:=LEVEL` for a library's.
///
/// # Errors
/// When logging was set up before.
pub fn init(levels: &[LogLevel], node_name: &str, rosout: Option<RosoutLayer>) -> Result<(), TryInitError> {
    let layer = Layer::new().with_writer(std::io::stderr).event_format(RosFormat { node_name: node_name.to_owned() });
    tracing_subscriber::registry().with(targets(levels, node_name)).with(layer).with(rosout).try_init()
}

/// The system's time, as everything is stamped that carries no cloud's stamp.
pub(super) fn now() -> Stamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Stamp { nanos: since_epoch.as_nanos() as i64 }
}

/// Later levels win. What [`LOG_FILTER`] silences stays silent until named. Other libraries without a level of their own log
/// warnings and errors, or what `--log-level` asks for if that is less.
fn targets(levels: &[LogLevel], node_name: &str) -> Targets {
    let own = env!("CARGO_CRATE_NAME");
    let silenced: Targets = LOG_FILTER.parse().unwrap_or_default();
    let mut targets = silenced.with_default(LevelFilter::WARN).with_target(own, LevelFilter::INFO);
    for LogLevel { logger, severity } in levels {
        let level = filter(*severity);
        targets = match logger.as_deref() {
            None => targets.with_target(own, level).with_default(level.min(LevelFilter::WARN)),
            Some(name) if name == node_name => targets.with_target(own, level),
            Some(library) => targets.with_target(library, level),
        };
    }
    targets
}

fn filter(severity: Severity) -> LevelFilter {
    match severity {
        Severity::Debug => LevelFilter::DEBUG,
        Severity::Info => LevelFilter::INFO,
        Severity::Warn => LevelFilter::WARN,
        Severity::Error | Severity::Fatal => LevelFilter::ERROR,
    }
}

struct RosFormat {
    node_name: String,
}

impl<S, N> FormatEvent<S, N> for RosFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // Events of the `log` crate carry their origin beside the event.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let level = match *metadata.level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARN",
            Level::INFO => "INFO",
            Level::DEBUG | Level::TRACE => "DEBUG",
        };
        let (sec, nanosec) = now().to_ros();
        let logger = if metadata.target().starts_with(env!("CARGO_CRATE_NAME")) { &self.node_name } else { metadata.target() };
        write!(writer, "[{level}] [{sec}.{nanosec:09}] [{logger}]: ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(logger: Option<&str>, severity: Severity) -> LogLevel {
        LogLevel { logger: logger.map(str::to_owned), severity }
    }

    #[test]
    fn levels_apply_to_the_node_and_to_named_libraries() {
        let cases: [(&[LogLevel], &str, Level, bool); 10] = [
            (&[], "pivotal::node", Level::INFO, true),
            (&[], "pivotal::node", Level::DEBUG, false),
            (&[], "mcap", Level::WARN, true),
            (&[], "mcap", Level::INFO, false),
            (&[], "rustdds::rtps", Level::ERROR, false),
            (&[level(None, Severity::Debug)], "pivotal::node", Level::DEBUG, true),
            (&[level(None, Severity::Debug)], "rustdds::rtps", Level::ERROR, false),
            (&[level(None, Severity::Error)], "mcap", Level::WARN, false),
            (&[level(Some("left_detector"), Severity::Warn)], "pivotal::node", Level::INFO, false),
            (&[level(Some("rustdds"), Severity::Info)], "rustdds::rtps", Level::INFO, true),
        ];
        for (levels, target, event_level, expected) in cases {
            let enabled = targets(levels, "left_detector").would_enable(target, &event_level);
            assert_eq!(enabled, expected, "{levels:?} {target} {event_level}");
        }
    }
}
