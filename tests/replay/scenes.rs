//! Small bags and a small model to replay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use pivotal::bag::{BagWriter, OfferedQos, WriterOptions};
use pivotal::cloud::Feature;
use pivotal::cloud::decode::SensorOverrides;
use pivotal::model::expected_params;
use pivotal::model::init::{HeadMultipliers, hash_weights};
use pivotal::model::spec::{BackboneSpec, ModelSpec, NetworkSpec, PillarNetSpec};
use pivotal::msgs::builtin_interfaces::Time;
use pivotal::msgs::sensor_msgs::{PointCloud2, PointField};
use pivotal::msgs::std_msgs::Header;
use pivotal::msgs::tf2_msgs::TFMessage;
use pivotal::msgs::{Message, cdr};
use pivotal::pipeline::{Pipeline, PipelineOptions, Precision};
use pivotal::replay::{self, ModelInfo, PictureOptions, ReplayError, ReplayOptions, ReplaySummary};

pub const TOPIC: &str = "/lidar/points";
/// Log time of the first cloud; the next ones follow every 0.1 s.
pub const START_NS: i64 = 1_700_000_000_000_000_000;
pub const PERIOD_NS: i64 = 100_000_000;

/// A network of one block on a grid of `2 * half_cells` squared cells, with weights made from its seed: boxes are
/// many and mean nothing.
pub fn small_pipeline(half_cells: u32) -> Pipeline {
    // Shared between threads, each of its operations waits longer than it computes, above all while other tests run.
    tch::set_num_threads(1);
    let mut spec = ModelSpec::builtin("cp-pillar-v0.64-xxs").unwrap();
    let half_m = half_cells as f32 * 0.64;
    spec.grid.range = [-half_m, -half_m, -3.0, half_m, half_m, 3.0];
    spec.grid.voxel_size = [0.64, 0.64, 6.0];
    spec.input.fill_absent = BTreeMap::from([(Feature::Intensity, 0.0), (Feature::Elongation, 0.0)]);
    let backbone_2d = BackboneSpec {
        layer_nums: vec![1],
        strides: vec![1],
        filters: vec![8],
        upsample_strides: vec![1],
        upsample_filters: vec![8],
    };
    spec.network = NetworkSpec::Pillar(PillarNetSpec { vfe_filters: vec![8, 8], backbone_2d, head_channels: 8 });
    spec.postprocess.max_peaks = 20;
    let weights = hash_weights(&expected_params(&spec), 7, &HeadMultipliers { hm_weight: 4.0 });
    let options = PipelineOptions { device: "cpu".to_owned(), precision: Precision::F32 };
    Pipeline::new(spec, &weights, &options).unwrap()
}

/// A cloud of 600 points on a wavy ground, different for each index.
pub fn cloud(index: i32) -> PointCloud2 {
    let values = (0..600).flat_map(|point_idx| {
        let angle = (point_idx * 7 + index * 3) as f32 * 0.05;
        let range = 1.0 + (point_idx % 20) as f32;
        [range * angle.cos(), range * angle.sin(), (range * 0.3).sin() - 1.0, (point_idx % 10) as f32 / 10.0]
    });
    let data: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    PointCloud2 {
        header: Header { stamp: Time { sec: 1_700_000_000 + index, nanosec: 500 }, frame_id: "lidar".to_owned() },
        height: 1,
        width: 600,
        fields: [("x", 0), ("y", 4), ("z", 8), ("intensity", 12)]
            .map(|(name, offset)| PointField::scalar(name, offset, PointField::FLOAT32))
            .into(),
        is_bigendian: false,
        point_step: 16,
        row_step: 600 * 16,
        data,
        is_dense: true,
    }
}

/// A bag with one topic of clouds and `/tf_static`; gives its mcap file.
pub fn write_bag(folder: &Path, clouds: &[Vec<u8>]) -> PathBuf {
    let mut bag = BagWriter::create(folder, &WriterOptions::default()).unwrap();
    let points = bag.add_topic(TOPIC, PointCloud2::TYPE, OfferedQos::SENSOR).unwrap();
    let frames = bag.add_topic("/tf_static", TFMessage::TYPE, OfferedQos::LATCHED).unwrap();
    bag.write(frames, START_NS, &cdr::to_bytes(&TFMessage::default())).unwrap();
    for (bytes, index) in clouds.iter().zip(0..) {
        bag.write(points, START_NS + index * PERIOD_NS, bytes).unwrap();
    }
    bag.finish().unwrap();
    let mut files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.extension().is_some_and(|extension| extension == "mcap")).unwrap()
}

/// Serialised clouds 0 to `n_clouds`.
pub fn clouds(n_clouds: i32) -> Vec<Vec<u8>> {
    (0..n_clouds).map(|index| cdr::to_bytes(&cloud(index))).collect()
}

/// Everything on, small pictures.
pub fn options(bag: &Path, out: &Path) -> ReplayOptions {
    ReplayOptions {
        bag: bag.to_owned(),
        topic: None,
        sensor: SensorOverrides::default(),
        out: out.to_owned(),
        overwrite: false,
        pictures: PictureOptions { edge_px: 240, ..PictureOptions::default() },
        foxglove: true,
        start_offset_s: 0.0,
        end_offset_s: None,
        max_frames: None,
        score_threshold: 0.0,
        truth_topic: None,
        command_line: "detector_node replay".to_owned(),
    }
}

pub fn replay(options: &ReplayOptions, pipeline: &mut Pipeline) -> Result<ReplaySummary, ReplayError> {
    let model = ModelInfo {
        name: "small".to_owned(),
        device: "cpu".to_owned(),
        weights_sha256: "none".to_owned(),
        spec_line: "small".to_owned(),
        provenance: "seed 7".to_owned(),
    };
    replay::run(options, pipeline, &model, &mut |_| {}, &AtomicBool::new(false))
}
