//! Small labelled frames, and a source that holds them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use pivotal::cloud::{Feature, InputSpec, IntensityMode, PointCloud};
use pivotal::data::prepare::{ClassMap, Preparation, Turn};
use pivotal::data::{DataError, Fingerprint, Label, Sample, SampleId, Source};
use pivotal::geometry::Box3d;
use pivotal::voxel::Grid;

pub const RAW_COLUMNS: [Feature; 4] = [Feature::X, Feature::Y, Feature::Z, Feature::Intensity];
pub const FIRST: Turn = Turn { epoch: 0, index: 0, n_frames: 1 };

pub fn id(frame: u64) -> SampleId {
    SampleId { drive: "street".to_owned(), frame }
}

pub fn box_at(x: f64, y: f64) -> Box3d {
    Box3d { center: [x, y, 1.0], size: [4.0, 2.0, 2.0], yaw: 0.3 }
}

pub fn label(class: &str, box3d: Box3d) -> Label {
    Label { box3d, class: class.to_owned(), track_id: None, n_points: Some(10), difficulty: Some(1), velocity_mps: None }
}

/// Points with raw intensity.
pub fn sample(frame: u64, points: &[[f32; 4]], labels: Option<Vec<Label>>) -> Sample {
    let cloud = PointCloud { features: RAW_COLUMNS.to_vec(), points: points.concat(), ..PointCloud::default() };
    Sample { id: id(frame), cloud, labels, in_no_label_zone: Vec::new(), world_from_cloud: None }
}

/// A frame with two objects and points in and around them; every frame another. Objects of 28 frames in a row stand clear of each
/// other.
pub fn street(frame: u64) -> Sample {
    let (column, row) = ((frame % 7) as f64, (frame / 7 % 4) as f64);
    let boxes = [box_at(-16.0 + 5.0 * column, 3.0 + 4.0 * row), box_at(16.0 - 5.0 * column, -15.0 + 4.0 * row)];
    let mut points = Vec::new();
    for step in 0..400u16 {
        let t = f32::from(step) + frame as f32 * 0.37;
        points.push([(t * 1.3) % 60.0 - 30.0, (t * 2.9) % 60.0 - 30.0, (t * 0.11) % 3.0, t]);
    }
    for b in boxes {
        points.extend((0..12u8).map(|n| [b.center[0] as f32 + f32::from(n) * 0.1 - 0.6, b.center[1] as f32, 1.0, 50.0]));
    }
    sample(frame, &points, Some(vec![label("Vehicle", boxes[0]), label("Cyclist", boxes[1])]))
}

pub fn classes() -> ClassMap {
    let names = ["Vehicle", "Pedestrian", "Cyclist"].map(str::to_owned);
    ClassMap::new(&names, &BTreeMap::new()).unwrap()
}

/// x, y, z, tanh(intensity), and elongation, which the clouds here do not have.
pub fn input() -> InputSpec {
    let features = vec![Feature::X, Feature::Y, Feature::Z, Feature::Intensity, Feature::Elongation];
    InputSpec { features, intensity: IntensityMode::Tanh, fill_absent: [(Feature::Elongation, 0.25)].into() }
}

pub fn grid() -> Grid {
    Grid::new([-20.48, -20.48, -2.0, 20.48, 20.48, 4.0], [0.64, 0.64, 6.0])
}

/// Without an augmenter.
pub fn evaluation() -> Preparation {
    Preparation { input: input(), grid: grid(), classes: classes(), augmenter: None, data_seed: 5 }
}

/// What happens when a frame is loaded.
#[derive(Debug, Clone)]
pub enum Frame {
    Good(Box<Sample>),
    Unreadable,
    Panics,
}

impl Frame {
    pub fn good(sample: Sample) -> Self {
        Self::Good(Box::new(sample))
    }
}

/// Frames in memory.
#[derive(Debug)]
pub struct Frames {
    pub frames: Vec<Frame>,
    pub n_loaded: AtomicUsize,
}

impl Frames {
    pub fn new(frames: Vec<Frame>) -> Self {
        Self { frames, n_loaded: AtomicUsize::new(0) }
    }

    pub fn streets(n: u64) -> Self {
        Self::new((0..n).map(|frame| Frame::good(street(frame))).collect())
    }
}

impl Source for Frames {
    fn len(&self) -> usize {
        self.frames.len()
    }

    fn id(&self, index: usize) -> SampleId {
        id(index as u64)
    }

    fn load(&self, _epoch: u64, index: usize) -> Result<Sample, DataError> {
        self.n_loaded.fetch_add(1, Ordering::Relaxed);
        match &self.frames[index] {
            Frame::Good(sample) => Ok(Sample::clone(sample)),
            Frame::Unreadable => {
                let (path, place, reason) = ("street".to_owned(), format!("frame {index}"), "is torn".to_owned());
                Err(DataError::Format { path, place, reason })
            }
            Frame::Panics => panic!("frame {index} bites"),
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint { source: "streets".to_owned(), sha256: format!("{:064}", self.frames.len()) }
    }
}
