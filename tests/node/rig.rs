//! A node on the in-process transport, its peers, and a model small enough for debug builds.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use pivotal::model::directory::provenance::Provenance;
use pivotal::model::directory::{self, SaveOptions, WeightsDtype};
use pivotal::model::expected_params;
use pivotal::model::init::{HeadMultipliers, hash_weights};
use pivotal::model::spec::ModelSpec;
use pivotal::msgs::builtin_interfaces::Time;
use pivotal::msgs::diagnostic_msgs::{DiagnosticArray, DiagnosticStatus};
use pivotal::msgs::pivotal_msgs::FrameReport;
use pivotal::msgs::sensor_msgs::{PointCloud2, PointField};
use pivotal::msgs::std_msgs::Header;
use pivotal::msgs::vision_msgs::Detection3DArray;
use pivotal::msgs::visualization_msgs::MarkerArray;
use pivotal::msgs::{Message, cdr};
use pivotal::node::args::split_ros_args;
use pivotal::node::config::ResolvedParams;
use pivotal::node::error::NodeError;
use pivotal::node::names::NodeNames;
use pivotal::node::run::{self, Ending};
use pivotal::transport::names::TopicName;
use pivotal::transport::{Publisher, Qos, Subscription, Transport};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Far beyond what anything here takes; a test that gets here has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The narrowest student on a range of 20 m, with a threshold under which made-up weights find boxes.
pub fn tiny_spec() -> ModelSpec {
    let mut spec = ModelSpec::builtin("cp-pillar-v0.64-xxs").unwrap();
    spec.grid.range = [-10.24, -10.24, -2.0, 10.24, 10.24, 4.0];
    spec.postprocess.score_threshold = 0.01;
    spec
}

/// A model directory of the tiny spec.
pub fn save_tiny_model(dir: &Path) {
    save_model(dir, &tiny_spec());
}

/// A model directory with made-up weights.
pub fn save_model(dir: &Path, spec: &ModelSpec) {
    let decls: Vec<_> = expected_params(spec).into_iter().filter(|decl| !decl.name.ends_with("num_batches_tracked")).collect();
    let weights = hash_weights(&decls, 7, &HeadMultipliers { hm_weight: 3.0 });
    let options = SaveOptions { dtype: WeightsDtype::F32, overwrite: false };
    directory::save(dir, spec, &weights, &Provenance::new("test", "made-up weights"), options).unwrap();
}

/// A cloud of `n_points` points on a spiral within the tiny range, with the fields x, y, z, intensity.
pub fn cloud(stamp_s: i32, n_points: usize) -> PointCloud2 {
    let fields = ["x", "y", "z", "intensity"].into_iter().zip((0..).step_by(4));
    let mut data = Vec::with_capacity(16 * n_points);
    for point_idx in 0..n_points {
        let angle = point_idx as f32 * 0.37;
        let radius = 1.0 + 8.0 * point_idx as f32 / n_points as f32;
        for value in [radius * angle.cos(), radius * angle.sin(), (point_idx % 5) as f32 * 0.3 - 0.5, 0.5] {
            data.extend(value.to_le_bytes());
        }
    }
    PointCloud2 {
        header: Header { stamp: Time { sec: stamp_s, nanosec: 250 }, frame_id: "lidar".into() },
        height: 1,
        width: n_points as u32,
        fields: fields.map(|(name, offset)| PointField::scalar(name, offset, PointField::FLOAT32)).collect(),
        is_bigendian: false,
        point_step: 16,
        row_step: 16 * n_points as u32,
        data,
        is_dense: true,
    }
}

/// A running node. Dropping the rig without [`Rig::stop`] leaves the node to the end of the test process.
pub struct Rig {
    pub transport: Transport,
    pub clouds: Publisher,
    pub diagnostics: Subscription,
    pub names: NodeNames,
    shutdown: oneshot::Sender<()>,
    thread: JoinHandle<Result<Ending, NodeError>>,
    _model: TempDir,
}

impl Rig {
    /// Starts a node with the tiny model and waits until it has subscribed; diagnostics come ten times a second.
    pub fn start(ros_args: &[&str]) -> Self {
        let model = tempfile::tempdir().unwrap();
        let dir = model.path().join("tiny");
        save_tiny_model(&dir);
        Self::start_with(&dir, ros_args, model)
    }

    pub fn start_with(model_dir: &Path, ros_args: &[&str], model: TempDir) -> Self {
        let model_param = format!("model_dir:={}", model_dir.display());
        let always = ["--ros-args", "-p", &model_param, "-p", "device:=cpu", "-p", "diagnostics_period_s:=0.1"];
        let (_, ros) = split_ros_args(always.iter().chain(ros_args).map(|arg| (*arg).to_owned())).unwrap();
        let (names, _) = NodeNames::resolve(&ros.remaps).unwrap();
        let params = ResolvedParams::new(&ros.params, &names.node.to_string()).unwrap();

        let transport = Transport::inproc();
        // Deep enough that no message of a test is lost.
        let diagnostics =
            transport.subscribe(&names.diagnostics, &DiagnosticArray::TYPE, Qos { depth: 1000, ..Qos::RELIABLE }).unwrap();
        let clouds = transport.advertise(&names.input, &PointCloud2::TYPE, Qos::SENSOR).unwrap();
        let (shutdown, asked) = oneshot::channel();
        let (node_names, node_transport) = (names.clone(), transport.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let shutdown = async {
                let _ = asked.await;
            };
            runtime.block_on(run::run(&node_names, params, &node_transport, shutdown))
        });
        let rig = Self { transport, clouds, diagnostics, names, shutdown, thread, _model: model };
        // The first diagnostics come after the subscription was made.
        rig.diagnostics.recv(PATIENCE).unwrap().expect("a node that says how it is");
        rig
    }

    /// A peer that keeps everything it gets.
    pub fn listen<M: Message>(&self, topic: &TopicName) -> Listener<M> {
        let qos = Qos { depth: 1000, ..Qos::RELIABLE };
        Listener { subscription: self.transport.subscribe(topic, &M::TYPE, qos).unwrap(), message: std::marker::PhantomData }
    }

    pub fn objects(&self) -> Listener<Detection3DArray> {
        self.listen(&self.names.objects)
    }

    pub fn markers(&self) -> Listener<MarkerArray> {
        self.listen(&self.names.markers)
    }

    pub fn reports(&self) -> Listener<FrameReport> {
        self.listen(&self.names.report)
    }

    pub fn send(&self, cloud: &PointCloud2) {
        self.clouds.publish(&cdr::to_bytes(cloud)).unwrap();
    }

    /// The first diagnostics for which `holds`; those before are dropped.
    pub fn wait_for_status(&self, what: &str, holds: impl Fn(&DiagnosticStatus) -> bool) -> DiagnosticStatus {
        let mut last = None;
        while let Some(sample) = self.diagnostics.recv(PATIENCE).unwrap() {
            let array: DiagnosticArray = cdr::from_bytes(&sample.bytes).unwrap();
            let status = array.status.into_iter().next().expect("one component");
            if holds(&status) {
                return status;
            }
            assert!(sample.received.elapsed() < PATIENCE, "no diagnostics with {what}; last: {last:?}");
            last = Some(status);
        }
        panic!("no diagnostics with {what}; last: {last:?}");
    }

    /// What a node that ends by itself says.
    pub fn ended(self) -> Result<Ending, NodeError> {
        let result = self.thread.join().unwrap();
        drop(self.shutdown);
        result
    }

    /// Ends the node as a signal would.
    pub fn stop(self) -> Result<Ending, NodeError> {
        self.shutdown.send(()).expect("a node that has not ended by itself");
        self.thread.join().unwrap()
    }
}

/// A subscription whose bytes are one kind of message.
pub struct Listener<M> {
    subscription: Subscription,
    message: std::marker::PhantomData<M>,
}

impl<M: Message> Listener<M> {
    pub fn next(&self) -> M {
        let sample = self.subscription.recv(PATIENCE).unwrap().unwrap_or_else(|| panic!("no {}", M::TYPE.ros));
        cdr::from_bytes(&sample.bytes).unwrap()
    }
}

impl<M> Listener<M> {
    pub fn n_publishers(&self) -> usize {
        self.subscription.matched()
    }
}

/// A value of the diagnostics.
pub fn value<'a>(status: &'a DiagnosticStatus, key: &str) -> &'a str {
    let pair = status.values.iter().find(|pair| pair.key == key);
    &pair.unwrap_or_else(|| panic!("no `{key}` in {status:?}")).value
}
