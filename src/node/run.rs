//! Wiring of the live node: endpoints, the inference thread, diagnostics, shutdown.
//!
//! Two parties share the node. The inference thread owns the model and all of a frame's work; the calling task owns timers,
//! diagnostics, lifecycle and the shutdown, and never waits for a frame while the node works. Between them are [`Health`], the
//! live parameters and a wake-up.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::config::{NodeConfig, ResolvedParams};
use super::error::NodeError;
use super::health::{Health, Identity, InputCounters, Phase};
use super::inference::{Inference, Outputs};
use super::lifecycle::{Asked, Managed, Step};
use super::live::LiveParams;
use super::logging::now;
use super::names::{self, NodeNames};
use super::param_services;
use super::timings::Timings;
use crate::msgs::autoware_perception_msgs::DetectedObjects;
use crate::msgs::diagnostic_msgs::{DiagnosticArray, DiagnosticStatus};
use crate::msgs::pivotal_msgs::FrameReport;
use crate::msgs::sensor_msgs::PointCloud2;
use crate::msgs::std_msgs::Header;
use crate::msgs::std_srvs::{SetBool, SetBoolRequest, SetBoolResponse};
use crate::msgs::vision_msgs::Detection3DArray;
use crate::msgs::visualization_msgs::MarkerArray;
use crate::msgs::{Message, cdr};
use crate::time::Stamp;
use crate::transport::service::ServiceServer;
use crate::transport::{Publisher, Qos, Subscription, Transport, TransportError};

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
    /// The inference thread ends after the frame in work.
    pub(super) stop: AtomicBool,
    /// Clouds are processed, not dropped.
    pub(super) enabled: AtomicBool,
    newest_stamp: Mutex<Stamp>,
}

impl Shared {
    pub(super) fn new(input: Subscription, health: Health) -> Self {
        Self {
            input,
            health: Mutex::new(health),
            changed: Notify::new(),
            stop: AtomicBool::new(false),
            enabled: AtomicBool::new(true),
            newest_stamp: Mutex::default(),
        }
    }

    /// Locks the health; its fields are whole after every call, so a panic elsewhere does not spoil them.
    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on clouds are processed, or dropped for the reason that the phase says.
    fn enter(&self, phase: Phase) {
        self.enabled.store(phase == Phase::Working, Ordering::Relaxed);
        self.health().set_phase(phase, Instant::now());
        self.changed.notify_one();
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
/// device keeps failing. A managed node whose model cannot be loaded says so to whoever asked, and goes on.
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
    let live = Arc::new(LiveParams::new(params));
    let _parameter_services = param_services::offer(&live, &names.node, transport)?;
    let shared = Arc::new(Shared::new(input, Health::new(identity, config.input_timeout, Instant::now())));
    let inference = Inference { live: Arc::clone(&live), outputs: Arc::new(outputs), shared: Arc::clone(&shared) };
    let mut reporter = DiagnosticsReporter { publisher: diagnostics, use_sim_time: config.use_sim_time, last: None };
    let (mut managed, _switch, mut thread) = if config.lifecycle {
        shared.enter(Phase::Unconfigured);
        (Some(Managed::offer(&names.node, transport)?), None, None)
    } else {
        (None, Some(offer_switch(names, transport, &shared)?), Some(InferenceThread::start(inference.clone())?))
    };
    // Also when the model cannot be loaded, there is word of the attempt.
    reporter.publish_periodic(&shared);

    let mut configuring: Option<Asked> = None;
    let mut period = config.diagnostics_period;
    let mut ticks = ticks_every(period);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            event = next_event(&mut thread) => match (event, configuring.take()) {
                (InferenceEvent::Ready, asked) => {
                    if let (Some(managed), Some(asked)) = (&managed, asked) {
                        shared.enter(Phase::Inactive);
                        managed.end(&asked, true);
                    }
                }
                (InferenceEvent::Ended(Err(error)), Some(asked)) => {
                    tracing::error!("not configured: {error}");
                    thread = None;
                    if let Some(managed) = &managed {
                        managed.end(&asked, false);
                    }
                }
                (InferenceEvent::Ended(result), _) => return result.map(|()| Ending::Complete),
            },
            asked = next_asked(&mut managed), if configuring.is_none() => {
                if asked.edge.step == Step::Configure {
                    thread = Some(InferenceThread::start(inference.clone())?);
                    configuring = Some(asked);
                } else {
                    let taken_down = take_step(asked.edge.step, &mut thread, &shared).await;
                    if let Err(error) = &taken_down {
                        tracing::error!("{error}");
                    }
                    if let Some(managed) = &managed {
                        managed.end(&asked, taken_down.is_ok());
                    }
                }
            }
            _ = ticks.tick() => reporter.publish_periodic(&shared),
            () = shared.changed.notified() => reporter.publish_on_change(&shared),
            () = live.changed.notified() => {
                let config = live.current().to_config();
                shared.health().set_input_timeout(config.input_timeout);
                if std::mem::replace(&mut period, config.diagnostics_period) != period {
                    ticks = ticks_every(period);
                }
            }
        }
    }
    let Some(thread) = thread else { return Ok(Ending::Complete) };
    match tokio::time::timeout(GRACE, thread.stop(&shared)).await {
        Ok(result) => result.map(|()| Ending::Complete),
        Err(_) => {
            tracing::warn!("the frame or start in work takes longer than {GRACE:?}; the node ends without it");
            Ok(Ending::ThreadLeftBehind)
        }
    }
}

/// The steps of a managed node that need no waiting for a model.
async fn take_step(step: Step, thread: &mut Option<InferenceThread>, shared: &Shared) -> Result<(), NodeError> {
    match step {
        Step::Activate => shared.enter(Phase::Working),
        Step::Deactivate => shared.enter(Phase::Inactive),
        Step::Cleanup | Step::Shutdown => {
            let stopped = match thread.take() {
                Some(thread) => thread.stop(shared).await,
                None => Ok(()),
            };
            shared.health().unloaded();
            shared.enter(if step == Step::Shutdown { Phase::Finalized } else { Phase::Unconfigured });
            stopped?;
        }
        Step::Configure => {}
    }
    Ok(())
}

/// `~/set_enabled` of a node that is not managed: clouds are dropped while it is off.
fn offer_switch(names: &NodeNames, transport: &Transport, shared: &Arc<Shared>) -> Result<ServiceServer, TransportError> {
    let shared = Arc::clone(shared);
    transport.serve::<SetBool>(&names::expand(&names.node, "~/set_enabled")?, move |SetBoolRequest { data }| {
        shared.enter(if data { Phase::Working } else { Phase::Disabled });
        let message = if data { "enabled" } else { "disabled" };
        tracing::info!("{message} by ~/set_enabled");
        SetBoolResponse { success: true, message: message.to_owned() }
    })
}

/// The thread that has the model.
struct InferenceThread {
    thread: JoinHandle<()>,
    /// `None` once it has come, or cannot come any more.
    ready: Option<oneshot::Receiver<()>>,
    result: oneshot::Receiver<Result<(), NodeError>>,
}

/// What the inference thread tells.
enum InferenceEvent {
    /// The model is loaded.
    Ready,
    Ended(Result<(), NodeError>),
}

impl InferenceThread {
    fn start(inference: Inference) -> Result<Self, NodeError> {
        let (tell_ready, ready) = oneshot::channel();
        let (send_result, result) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("inference".to_owned())
            .spawn(move || {
                // The receiver is gone only when the node no longer waits.
                let _ = send_result.send(inference.run(tell_ready));
            })
            .map_err(NodeError::Thread)?;
        Ok(Self { thread, ready: Some(ready), result })
    }

    async fn next(&mut self) -> InferenceEvent {
        if let Some(ready) = &mut self.ready {
            let came = ready.await;
            self.ready = None;
            // Otherwise the thread ended before.
            if came.is_ok() {
                return InferenceEvent::Ready;
            }
        }
        InferenceEvent::Ended((&mut self.result).await.unwrap_or(Err(NodeError::InferenceEnded)))
    }

    /// Ends the thread after the frame in work.
    async fn stop(self, shared: &Shared) -> Result<(), NodeError> {
        shared.stop.store(true, Ordering::Relaxed);
        let ended = self.result.await;
        shared.stop.store(false, Ordering::Relaxed);
        // The result is the last thing the thread sends, so this does not wait for a frame.
        match (ended, self.thread.join()) {
            (Ok(result), Ok(())) => result,
            _ => Err(NodeError::InferenceEnded),
        }
    }
}

async fn next_event(thread: &mut Option<InferenceThread>) -> InferenceEvent {
    match thread {
        Some(thread) => thread.next().await,
        None => std::future::pending().await,
    }
}

async fn next_asked(managed: &mut Option<Managed>) -> Asked {
    match managed {
        Some(managed) => managed.next().await,
        None => std::future::pending().await,
    }
}

fn ticks_every(period: Duration) -> Interval {
    let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Every topic of the node.
struct Endpoints {
    input: Subscription,
    outputs: Outputs,
    diagnostics: Publisher,
}

fn connect(names: &NodeNames, config: &NodeConfig, transport: &Transport) -> Result<Endpoints, TransportError> {
    let result = |topic, msg_type| transport.advertise(topic, msg_type, config.output_qos);
    Ok(Endpoints {
        input: transport.subscribe(&names.input, &PointCloud2::TYPE, config.input_qos)?,
        outputs: Outputs {
            objects: result(&names.objects, &Detection3DArray::TYPE)?,
            markers: config.publish_markers.then(|| result(&names.markers, &MarkerArray::TYPE)).transpose()?,
            report: config.publish_report.then(|| result(&names.report, &FrameReport::TYPE)).transpose()?,
            autoware: config.publish_autoware.then(|| result(&names.autoware, &DetectedObjects::TYPE)).transpose()?,
            timings: config.publish_timings.then(|| Timings::advertise(names, transport)).transpose()?,
        },
        diagnostics: transport.advertise(&names.diagnostics, &DiagnosticArray::TYPE, Qos::RELIABLE)?,
    })
}

/// Publishes `/diagnostics` and remembers what it last said.
struct DiagnosticsReporter {
    publisher: Publisher,
    use_sim_time: bool,
    last: Option<(u8, Phase)>,
}

impl DiagnosticsReporter {
    fn publish_periodic(&mut self, shared: &Shared) {
        shared.observe_input();
        let now = Instant::now();
        let mut health = shared.health();
        health.next_window(now);
        let (status, phase) = (health.status(now), health.phase());
        drop(health);
        self.publish(status, phase, shared);
    }

    fn publish_on_change(&mut self, shared: &Shared) {
        let health = shared.health();
        let (status, phase) = (health.status(Instant::now()), health.phase());
        drop(health);
        if self.last != Some((status.level, phase)) {
            self.publish(status, phase, shared);
        }
    }

    fn publish(&mut self, status: DiagnosticStatus, phase: Phase, shared: &Shared) {
        self.last = Some((status.level, phase));
        let stamp = if self.use_sim_time { shared.newest_stamp() } else { now() };
        let array = DiagnosticArray { header: Header::new(stamp, ""), status: vec![status] };
        if let Err(error) = self.publisher.publish(&cdr::to_bytes(&array)) {
            shared.health().not_published();
            tracing::debug!("diagnostics not published: {error}");
        }
    }
}
