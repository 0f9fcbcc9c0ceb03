//! Wiring of the live node: endpoints, the inference thread, diagnostics, shutdown.
//!
//! Two parties share the node. The inference thread owns the model and all of a frame's work; the calling task owns timers,
//! diagnostics and the shutdown, and never waits for a frame. Between them are [`Health`] and a wake-up.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, oneshot};
use tokio::time::{MissedTickBehavior, interval_at};

use super::config::{NodeConfig, ResolvedParams};
use super::error::NodeError;
use super::health::{Health, Identity, InputCounters};
use super::inference::{Inference, Outputs};
use super::names::NodeNames;
use crate::msgs::diagnostic_msgs::{DiagnosticArray, DiagnosticStatus};
use crate::msgs::pivotal::FrameReport;
use crate::msgs::sensor_msgs::PointCloud2;
use crate::msgs::std_msgs::Header;
use crate::msgs::vision_msgs::Detection3DArray;
use crate::msgs::visualization_msgs::MarkerArray;
use crate::msgs::{Message, cdr};
use crate::time::Stamp;
use crate::transport::{Publisher, Qos, Reliability, Subscription, Transport, TransportError};

/// How long a frame in work may take after the shutdown; leaving DDS takes its part of the two seconds the node promises.
const GRACE: Duration = Duration::from_secs(1);

/// How a node ended that was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything is taken down.
    Complete,
    /// A frame, or the loading of the model, outlasted the grace period; its thread is still in libtorch. The process must
    /// end without running destructors: libtorch's, run beside its own work, crash.
    ThreadLeftBehind,
}

/// What the two parties share.
pub(super) struct Shared {
    pub(super) input: Subscription,
    health: Mutex<Health>,
    /// Something happened that may change the level of the diagnostics.
    pub(super) changed: Notify,
    /// Set once; the inference thread ends after the frame in work.
    pub(super) stop: AtomicBool,
    newest_stamp: Mutex<Stamp>,
}

impl Shared {
    pub(super) fn new(input: Subscription, health: Health) -> Self {
        Self {
            input,
            health: Mutex::new(health),
            changed: Notify::new(),
            stop: AtomicBool::new(false),
            newest_stamp: Mutex::default(),
        }
    }

    /// Locks the health; its fields are whole after every call, so a panic elsewhere does not spoil them.
    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the health what the subscription counts; both parties do, so that a long frame does not look like silence.
    pub(super) fn observe_input(&self) {
        let input = &self.input;
        let counters = InputCounters {
            received: input.received(),
            overwritten: input.overwritten(),
            undecodable: input.undecodable(),
            publishers: input.matched(),
        };
        self.health().observe_input(counters, Instant::now());
    }

    /// The newest cloud's stamp, for diagnostics in simulated time.
    pub(super) fn set_newest_stamp(&self, stamp: Stamp) {
        *self.newest_stamp.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
    }

    fn newest_stamp(&self) -> Stamp {
        *self.newest_stamp.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the node until `shutdown` completes; logs `ready` once clouds are processed.
///
/// A failed cloud is counted, reported and stepped over. Must be called inside a tokio runtime with time enabled.
///
/// # Errors
/// [`NodeError`] when the node cannot start (middleware, model, device, parameters that do not fit the model), and when the
/// device keeps failing.
pub async fn run(
    names: &NodeNames,
    params: ResolvedParams,
    transport: &Transport,
    shutdown: impl Future<Output = ()>,
) -> Result<Ending, NodeError> {
    let config = params.to_config();
    let Endpoints { input, outputs, diagnostics } = connect(names, &config, transport)?;
    let identity = Identity {
        node: names.node.to_string(),
        input_topic: names.input.to_string(),
        precision: params.text("precision"),
        ..Identity::default()
    };
    let shared = Arc::new(Shared::new(input, Health::new(identity, config.input_timeout, Instant::now())));
    let mut reporter = DiagnosticsReporter { publisher: diagnostics, use_sim_time: config.use_sim_time, level: None };
    // Also when the model cannot be loaded, there is word of the attempt.
    reporter.publish_periodic(&shared);
    let (send_result, mut result) = oneshot::channel();
    let inference = Inference { params, config: config.clone(), outputs, shared: Arc::clone(&shared) };
    let thread = std::thread::Builder::new()
        .name("inference".to_owned())
        .spawn(move || {
            // The receiver is gone only when the node no longer waits.
            let _ = send_result.send(inference.run());
        })
        .map_err(NodeError::Thread)?;

    let mut ticks = interval_at(tokio::time::Instant::now() + config.diagnostics_period, config.diagnostics_period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shutdown = std::pin::pin!(shutdown);
    let ended = loop {
        tokio::select! {
            () = &mut shutdown => break None,
            ended = &mut result => break Some(ended),
            _ = ticks.tick() => reporter.publish_periodic(&shared),
            () = shared.changed.notified() => reporter.publish_on_change(&shared),
        }
    };
    shared.stop.store(true, Ordering::Relaxed);
    let ended = match ended {
        Some(ended) => ended,
        None => match tokio::time::timeout(GRACE, result).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::warn!("the frame or start in work takes longer than {GRACE:?}; the node ends without it");
                return Ok(Ending::ThreadLeftBehind);
            }
        },
    };
    // The result is the last thing the thread sends, so this does not wait for a frame.
    let joined = thread.join();
    match (ended, joined) {
        (Ok(result), Ok(())) => result.map(|()| Ending::Complete),
        _ => Err(NodeError::InferenceEnded),
    }
}

/// Every topic of the node.
struct Endpoints {
    input: Subscription,
    outputs: Outputs,
    diagnostics: Publisher,
}

fn connect(names: &NodeNames, config: &NodeConfig, transport: &Transport) -> Result<Endpoints, TransportError> {
    let reliability = if config.input_reliable { Reliability::Reliable } else { Reliability::BestEffort };
    let input_qos = Qos { reliability, depth: config.input_depth };
    let advertise = |topic, msg_type| transport.advertise(topic, msg_type, Qos::RELIABLE);
    Ok(Endpoints {
        input: transport.subscribe(&names.input, &PointCloud2::TYPE, input_qos)?,
        outputs: Outputs {
            objects: advertise(&names.objects, &Detection3DArray::TYPE)?,
            markers: config.publish_markers.then(|| advertise(&names.markers, &MarkerArray::TYPE)).transpose()?,
            report: config.publish_report.then(|| advertise(&names.report, &FrameReport::TYPE)).transpose()?,
        },
        diagnostics: advertise(&names.diagnostics, &DiagnosticArray::TYPE)?,
    })
}

/// Publishes `/diagnostics` and remembers the level it last had.
struct DiagnosticsReporter {
    publisher: Publisher,
    use_sim_time: bool,
    level: Option<u8>,
}

impl DiagnosticsReporter {
    fn publish_periodic(&mut self, shared: &Shared) {
        shared.observe_input();
        let now = Instant::now();
        let mut health = shared.health();
        health.next_window(now);
        let status = health.status(now);
        drop(health);
        self.publish(status, shared);
    }

    fn publish_on_change(&mut self, shared: &Shared) {
        let status = shared.health().status(Instant::now());
        if self.level != Some(status.level) {
            self.publish(status, shared);
        }
    }

    fn publish(&mut self, status: DiagnosticStatus, shared: &Shared) {
        self.level = Some(status.level);
        let stamp = if self.use_sim_time { shared.newest_stamp() } else { system_stamp() };
        let array = DiagnosticArray { header: Header::new(stamp, ""), status: vec![status] };
        if let Err(error) = self.publisher.publish(&cdr::to_bytes(&array)) {
            shared.health().not_published();
            tracing::debug!("diagnostics not published: {error}");
        }
    }
}

fn system_stamp() -> Stamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Stamp { nanos: since_epoch.as_nanos() as i64 }
}
