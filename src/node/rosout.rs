//! Log lines on `/rosout`, where consoles and recorders of ROS look for them.

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::layer::{Context, Layer};

use super::logging::now;
use crate::msgs::rcl_interfaces::Log;
use crate::msgs::{Message, cdr};
use crate::transport::names::TopicName;
use crate::transport::{Qos, Transport, TransportError};

const TOPIC: &str = "/rosout";

/// As rclcpp has it: late listeners get the last lines too.
const QOS: Qos = Qos { depth: 1000, latched: true, ..Qos::RELIABLE };

/// Lines that wait for the middleware, for instance those of the start; more are dropped.
const WAITING: usize = 1000;

/// Collects log lines; the other half of [`Lines`].
pub struct RosoutLayer {
    node_name: String,
    lines: Sender<Log>,
}

/// Lines to be published.
pub struct Lines(Receiver<Log>);

/// A layer for the node of this name, and where its lines come out.
pub fn layer(node_name: &str) -> (RosoutLayer, Lines) {
    let (lines, received) = channel(WAITING);
    (RosoutLayer { node_name: node_name.to_owned(), lines }, Lines(received))
}

/// Publishes lines for as long as they come.
///
/// # Errors
/// When the middleware refuses the topic.
pub async fn forward(mut lines: Lines, transport: &Transport) -> Result<(), TransportError> {
    let publisher = transport.advertise(&TopicName::new(TOPIC)?, &Log::TYPE, QOS)?;
    while let Some(line) = lines.0.recv().await {
        // A line about it would fail likewise.
        let _ = publisher.publish(&cdr::to_bytes(&line));
    }
    Ok(())
}

impl<S: Subscriber> Layer<S> for RosoutLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let level = match *metadata.level() {
            Level::ERROR => Log::ERROR,
            Level::WARN => Log::WARN,
            Level::INFO => Log::INFO,
            Level::DEBUG | Level::TRACE => Log::DEBUG,
        };
        let own = metadata.target().starts_with(env!("CARGO_CRATE_NAME"));
        let mut message = MessageOf(String::new());
        event.record(&mut message);
        let line = Log {
            stamp: now().into(),
            level,
            name: if own { self.node_name.clone() } else { metadata.target().to_owned() },
            msg: message.0,
            file: metadata.file().unwrap_or_default().to_owned(),
            function: metadata.module_path().unwrap_or_default().to_owned(),
            line: metadata.line().unwrap_or_default(),
        };
        // Full when nothing takes lines away, as while the node starts or the middleware hangs.
        let _ = self.lines.try_send(line);
    }
}

/// The text of an event.
struct MessageOf(String);

impl Visit for MessageOf {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Subscription;
    use std::time::Duration;
    use tracing_subscriber::layer::SubscriberExt;

    fn next(subscription: &Subscription) -> Log {
        let sample = subscription.recv(Duration::from_secs(20)).expect("open").expect("a line");
        cdr::from_bytes(&sample.bytes).expect("a log line")
    }

    #[test]
    fn lines_logged_before_they_can_be_published_come_with_level_name_and_place() {
        let transport = Transport::inproc();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("tokio");
        let (layer, lines) = super::layer("eyes");
        let near = transport.subscribe(&TopicName::new(TOPIC).expect("a name"), &Log::TYPE, QOS).expect("a subscription");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!("{} of {}", 3, 4);
            tracing::info!(target: "library", "hello");
        });
        // The layer is gone, so this ends.
        runtime.block_on(forward(lines, &transport)).expect("published");
        let (first, second) = (next(&near), next(&near));
        assert_eq!((first.level, first.name.as_str(), first.msg.as_str()), (Log::WARN, "eyes", "3 of 4"));
        assert!(first.file.ends_with("rosout.rs") && first.line > 0 && first.stamp.sec > 0, "{first:?}");
        assert_eq!((second.level, second.name.as_str(), second.msg.as_str()), (Log::INFO, "library", "hello"));
    }
}
