//! How the node is doing, as `/diagnostics` tells it. Plain data and arithmetic: clocks and counters are handed in.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::msgs::diagnostic_msgs::{DiagnosticStatus, KeyValue};
use crate::msgs::pivotal_msgs::FrameReport;

/// What is known from the start.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Identity {
    /// Full name of the node.
    pub node: String,
    /// Topic of the clouds.
    pub input_topic: String,
    /// Name and hash of the model.
    pub model: String,
    /// Device and why it is that one.
    pub device: String,
    /// Arithmetic of the convolutions.
    pub precision: String,
}

/// The subscription's own counters, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InputCounters {
    /// Clouds that arrived.
    pub received: u64,
    /// Of these, replaced by newer ones before inference.
    pub overwritten: u64,
    /// Messages in an encoding that nothing defines, dropped and not among those that arrived.
    pub undecodable: u64,
    /// Publishers at this moment.
    pub publishers: usize,
}

/// What became of one cloud.
#[derive(Debug, Clone, PartialEq)]
pub enum FrameEvent {
    /// Went through the pipeline; unless a flag says otherwise, its objects were published.
    Processed {
        /// From receipt to publication.
        latency_ms: f64,
        /// From the message to the last box.
        total_ms: f64,
        /// Boxes published.
        n_objects: usize,
        /// Anything unusual, as in the report.
        flags: Vec<String>,
    },
    /// Malformed, or the pipeline failed.
    Failed {
        /// Why.
        reason: String,
    },
    /// Nobody listens, so nothing was done.
    Skipped,
}

/// Whether clouds are to be processed at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// They are.
    Working,
    /// Somebody switched the node off.
    Disabled,
    /// A managed node without a model.
    Unconfigured,
    /// A managed node with a model that waits.
    Inactive,
    /// A managed node that has ended its work.
    Finalized,
}

/// The state behind the diagnostics.
#[derive(Debug, Clone)]
pub struct Health {
    identity: Identity,
    input_timeout: Duration,
    phase: Phase,
    started: Instant,
    cold_start_ms: Option<f64>,
    layout: String,
    last_input: Option<Instant>,
    input: InputCounters,
    totals: Totals,
    window: Window,
    /// The last window that saw a frame: what is said while no new one comes.
    previous: Window,
    window_began: Instant,
    received_before_window: u64,
    input_rate_hz: f64,
}

#[derive(Debug, Clone, Default)]
struct Totals {
    processed: u64,
    failed: u64,
    skipped: u64,
    rebuilds: u64,
    unpublished: u64,
}

/// Frames between two periodic diagnostics.
#[derive(Debug, Clone, Default)]
struct Window {
    n_processed: u64,
    n_failed: u64,
    n_skipped: u64,
    last_failure: String,
    flags: BTreeSet<String>,
    worst_latency_ms: f64,
    last_latency_ms: f64,
    last_total_ms: f64,
    last_n_objects: usize,
}

impl Window {
    fn n_frames(&self) -> u64 {
        self.n_processed + self.n_failed + self.n_skipped
    }
}

/// Flags that deserve a warning; the others are only shown.
const WARNING_FLAGS: [&str; 6] =
    ["empty_cloud", "out_of_range", "point_cap", "voxel_cap", "non_finite_boxes", FrameReport::NOT_PUBLISHED];

impl Health {
    /// A node that has just been started.
    pub fn new(identity: Identity, input_timeout: Duration, now: Instant) -> Self {
        Self {
            identity,
            input_timeout,
            phase: Phase::Working,
            started: now,
            cold_start_ms: None,
            layout: String::new(),
            last_input: None,
            input: InputCounters::default(),
            totals: Totals::default(),
            window: Window::default(),
            previous: Window::default(),
            window_began: now,
            received_before_window: 0,
            input_rate_hz: 0.0,
        }
    }

    /// Silence after which the input is stale.
    pub fn set_input_timeout(&mut self, input_timeout: Duration) {
        self.input_timeout = input_timeout;
    }

    /// Whether clouds are to be processed from here on. Silence counts anew.
    pub fn set_phase(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.started = now;
        self.last_input = self.last_input.map(|_| now);
    }

    /// See [`Self::set_phase`].
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The model is no longer loaded.
    pub fn unloaded(&mut self) {
        self.cold_start_ms = None;
    }

    /// The model is loaded and has seen its warm-up frame.
    pub fn ready(&mut self, model: String, device: String, cold_start_ms: f64) {
        self.identity.model = model;
        self.identity.device = device;
        self.cold_start_ms = Some(cold_start_ms);
    }

    /// The subscription's counters at this moment.
    pub fn observe_input(&mut self, counters: InputCounters, now: Instant) {
        if counters.received > self.input.received {
            self.last_input = Some(now);
        }
        self.input = counters;
    }

    /// A layout of clouds that was not there before.
    pub fn layout_changed(&mut self, description: String) {
        self.layout = description;
    }

    /// The pipeline was set up anew after repeated failures.
    pub fn rebuilt(&mut self) {
        self.totals.rebuilds += 1;
    }

    /// The middleware refused a message.
    pub fn not_published(&mut self) {
        self.totals.unpublished += 1;
    }

    /// A cloud was dealt with.
    pub fn frame(&mut self, event: FrameEvent) {
        match event {
            FrameEvent::Processed { latency_ms, total_ms, n_objects, flags } => {
                self.totals.processed += 1;
                self.window.n_processed += 1;
                self.window.worst_latency_ms = self.window.worst_latency_ms.max(latency_ms);
                self.window.last_latency_ms = latency_ms;
                self.window.last_total_ms = total_ms;
                self.window.last_n_objects = n_objects;
                self.window.flags.extend(flags);
            }
            FrameEvent::Failed { reason } => {
                self.totals.failed += 1;
                self.window.n_failed += 1;
                self.window.last_failure = reason;
            }
            FrameEvent::Skipped => {
                self.totals.skipped += 1;
                self.window.n_skipped += 1;
            }
        }
    }

    /// Clouds that failed, since the start.
    pub fn n_failed(&self) -> u64 {
        self.totals.failed
    }

    /// Ends the window of the periodic diagnostics and starts the next; call it after [`Self::status`].
    pub fn next_window(&mut self, now: Instant) {
        let elapsed_s = now.duration_since(self.window_began).as_secs_f64();
        if elapsed_s > 0.0 {
            self.input_rate_hz = (self.input.received - self.received_before_window) as f64 / elapsed_s;
        }
        self.window_began = now;
        self.received_before_window = self.input.received;
        let ended = std::mem::take(&mut self.window);
        if ended.n_frames() > 0 {
            self.previous = ended;
        }
    }

    /// Level, one line and details.
    pub fn status(&self, now: Instant) -> DiagnosticStatus {
        let (level, message) = self.verdict(now);
        DiagnosticStatus {
            level,
            name: format!("{}: detection", self.identity.node.trim_start_matches('/')),
            message,
            hardware_id: self.identity.device.split(' ').next().unwrap_or_default().to_owned(),
            values: self.values(),
        }
    }

    fn shown(&self) -> &Window {
        if self.window.n_frames() > 0 { &self.window } else { &self.previous }
    }

    fn verdict(&self, now: Instant) -> (u8, String) {
        let (window, topic) = (self.shown(), &self.identity.input_topic);
        let resting = match self.phase {
            Phase::Working => None,
            Phase::Disabled => Some("disabled: ~/set_enabled was called with false"),
            Phase::Unconfigured => Some("unconfigured: no model is loaded"),
            Phase::Inactive => Some("inactive: the model is loaded, clouds are dropped"),
            Phase::Finalized => Some("finalized"),
        };
        if let Some(resting) = resting {
            return (DiagnosticStatus::OK, resting.to_owned());
        }
        if self.cold_start_ms.is_none() {
            return (DiagnosticStatus::WARN, "starting: the model is being loaded".to_owned());
        }
        let silence = now.duration_since(self.last_input.unwrap_or(self.started));
        if silence > self.input_timeout {
            let text = format!("no cloud on {topic} for {:.1} s, {} publishers", silence.as_secs_f64(), self.input.publishers);
            return (DiagnosticStatus::STALE, text);
        }
        if self.last_input.is_none() {
            let text = format!("no_input: no cloud on {topic} yet, {} publishers", self.input.publishers);
            return (DiagnosticStatus::WARN, text);
        }
        if window.n_failed > 0 {
            let text = format!("{} of {} clouds failed: {}", window.n_failed, window.n_frames(), window.last_failure);
            return (DiagnosticStatus::ERROR, text);
        }
        let warnings: Vec<_> = WARNING_FLAGS.into_iter().filter(|flag| window.flags.contains(*flag)).collect();
        if !warnings.is_empty() {
            return (DiagnosticStatus::WARN, warnings.join(", "));
        }
        if window.n_processed == 0 && window.n_skipped > 0 {
            return (DiagnosticStatus::OK, "idle: nobody subscribes".to_owned());
        }
        (DiagnosticStatus::OK, "detecting".to_owned())
    }

    fn values(&self) -> Vec<KeyValue> {
        let (window, totals) = (self.shown(), &self.totals);
        let flags: Vec<_> = window.flags.iter().map(String::as_str).collect();
        let pairs = [
            ("input_topic", self.identity.input_topic.clone()),
            ("input_publishers", self.input.publishers.to_string()),
            ("input_rate_hz", format!("{:.2}", self.input_rate_hz)),
            ("clouds_received", self.input.received.to_string()),
            ("clouds_overwritten", self.input.overwritten.to_string()),
            ("clouds_undecodable", self.input.undecodable.to_string()),
            ("clouds_processed", totals.processed.to_string()),
            ("clouds_failed", totals.failed.to_string()),
            ("clouds_skipped_idle", totals.skipped.to_string()),
            ("messages_not_published", totals.unpublished.to_string()),
            ("pipeline_rebuilds", totals.rebuilds.to_string()),
            ("latency_ms", format!("{:.1}", window.last_latency_ms)),
            ("worst_latency_ms", format!("{:.1}", window.worst_latency_ms)),
            ("total_ms", format!("{:.1}", window.last_total_ms)),
            ("objects", window.last_n_objects.to_string()),
            ("flags", flags.join(" ")),
            ("last_failure", window.last_failure.clone()),
            ("layout", self.layout.clone()),
            ("model", self.identity.model.clone()),
            ("device", self.identity.device.clone()),
            ("precision", self.identity.precision.clone()),
            ("cold_start_ms", self.cold_start_ms.map(|ms| format!("{ms:.0}")).unwrap_or_default()),
        ];
        pairs.into_iter().map(|(key, value)| KeyValue { key: key.to_owned(), value }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);

    fn started() -> (Health, Instant) {
        let now = Instant::now();
        let identity = Identity { node: "/left/d".into(), input_topic: "/points".into(), ..Identity::default() };
        (Health::new(identity, TIMEOUT, now), now)
    }

    fn running() -> (Health, Instant) {
        let (mut health, now) = started();
        health.ready("m sha256:1".into(), "cuda:0 (asked for)".into(), 12.0);
        health.observe_input(InputCounters { received: 1, publishers: 1, ..InputCounters::default() }, now);
        (health, now)
    }

    fn processed(flags: &[&str]) -> FrameEvent {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        FrameEvent::Processed { latency_ms: 5.0, total_ms: 4.0, n_objects: 3, flags }
    }

    fn failed() -> FrameEvent {
        FrameEvent::Failed { reason: "no field x".into() }
    }

    fn value(status: &DiagnosticStatus, key: &str) -> String {
        status.values.iter().find(|pair| pair.key == key).map(|pair| pair.value.clone()).unwrap_or_else(|| panic!("no {key}"))
    }

    #[test]
    fn level_follows_what_happened_since_the_last_report() {
        let cases: [(&[FrameEvent], u8, &str); 7] = [
            (&[processed(&[])], DiagnosticStatus::OK, "detecting"),
            (&[processed(&["time_jump_back"])], DiagnosticStatus::OK, "detecting"),
            (&[processed(&["empty_cloud"]), processed(&[])], DiagnosticStatus::WARN, "empty_cloud"),
            (&[processed(&["voxel_cap", "point_cap"])], DiagnosticStatus::WARN, "point_cap, voxel_cap"),
            (&[failed(), processed(&[])], DiagnosticStatus::ERROR, "1 of 2 clouds failed: no field x"),
            (&[FrameEvent::Skipped], DiagnosticStatus::OK, "idle: nobody subscribes"),
            (&[FrameEvent::Skipped, processed(&[])], DiagnosticStatus::OK, "detecting"),
        ];
        for (events, level, message) in cases {
            let (mut health, now) = running();
            events.iter().for_each(|event| health.frame(event.clone()));
            let status = health.status(now);
            assert_eq!((status.level, status.message.as_str()), (level, message), "{events:?}");
        }
    }

    #[test]
    fn input_missing_warns_and_turns_stale_after_the_timeout() {
        let (mut health, now) = started();
        assert_eq!(health.status(now).message, "starting: the model is being loaded");
        health.ready(String::new(), String::new(), 1.0);
        let early = health.status(now + TIMEOUT);
        assert_eq!(
            (early.level, early.message.as_str()),
            (DiagnosticStatus::WARN, "no_input: no cloud on /points yet, 0 publishers")
        );
        assert_eq!(health.status(now + TIMEOUT * 2).level, DiagnosticStatus::STALE);

        health.observe_input(InputCounters { received: 1, publishers: 1, ..InputCounters::default() }, now + TIMEOUT * 2);
        health.frame(processed(&[]));
        assert_eq!(health.status(now + TIMEOUT * 3).level, DiagnosticStatus::OK);
        // The same counters again are no sign of life.
        health.observe_input(InputCounters { received: 1, publishers: 1, ..InputCounters::default() }, now + TIMEOUT * 4);
        let stale = health.status(now + TIMEOUT * 5);
        assert_eq!(
            (stale.level, stale.message.as_str()),
            (DiagnosticStatus::STALE, "no cloud on /points for 6.0 s, 1 publishers")
        );
    }

    #[test]
    fn failure_is_forgotten_only_when_later_clouds_succeed() {
        let (mut health, now) = running();
        health.frame(failed());
        health.next_window(now);
        assert_eq!(health.status(now).level, DiagnosticStatus::ERROR, "nothing better is known");
        health.frame(processed(&[]));
        assert_eq!(health.status(now).level, DiagnosticStatus::OK);
        assert_eq!(health.n_failed(), 1);
    }

    #[test]
    fn values_hold_rate_counters_and_identity() {
        let (mut health, now) = running();
        health.next_window(now);
        health.observe_input(InputCounters { received: 21, overwritten: 5, undecodable: 2, publishers: 1 }, now);
        health.frame(processed(&["point_cap"]));
        health.frame(failed());
        health.frame(FrameEvent::Skipped);
        health.rebuilt();
        health.not_published();
        health.layout_changed("x y z".into());
        health.next_window(now + TIMEOUT);
        let status = health.status(now + TIMEOUT);
        assert_eq!((status.name.as_str(), status.hardware_id.as_str()), ("left/d: detection", "cuda:0"));
        for (key, expected) in [
            ("input_rate_hz", "10.00"),
            ("clouds_received", "21"),
            ("clouds_overwritten", "5"),
            ("clouds_undecodable", "2"),
            ("clouds_processed", "1"),
            ("clouds_failed", "1"),
            ("clouds_skipped_idle", "1"),
            ("pipeline_rebuilds", "1"),
            ("messages_not_published", "1"),
            ("latency_ms", "5.0"),
            ("objects", "3"),
            ("flags", "point_cap"),
            ("last_failure", "no field x"),
            ("layout", "x y z"),
            ("model", "m sha256:1"),
            ("device", "cuda:0 (asked for)"),
            ("cold_start_ms", "12"),
        ] {
            assert_eq!(value(&status, key), expected, "{key}");
        }
    }
}
