//! From a sample of any source to the points and boxes a network is trained on (sparsekd-spec sections 1.2 to 1.4).

use std::collections::BTreeMap;
use std::ops::AddAssign;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::augment::{AugmentConfig, PointMover, WorldDraw, box_in_range, point_in_range};
use super::gt_database::GtDatabaseError;
use super::gt_sampling::{GtSampler, GtSamplingError, Pasted};
use super::inside::{BoxIndex, OWNERSHIP_MARGIN_M, REMOVAL_MARGIN_M};
use super::{Label, Sample, SampleId, chance};
use crate::cloud::columns::ColumnMap;
use crate::cloud::{CloudError, InputSpec};
use crate::geometry::Box3d;
use crate::train::SettingError;
use crate::train::targets::TrueBox;
use crate::voxel::Grid;

/// Which class of the model an object of the source is.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassMap {
    names: Vec<String>,
    index_of: BTreeMap<String, usize>,
}

impl ClassMap {
    /// Classes of the model under their own names, and further names of sources (`renamed`: source's name to model's).
    ///
    /// # Errors
    /// The first entry of `renamed` that names no class of the model.
    pub fn new(names: &[String], renamed: &BTreeMap<String, String>) -> Result<Self, PrepareError> {
        let mut index_of: BTreeMap<String, usize> = names.iter().enumerate().map(|(idx, name)| (name.clone(), idx)).collect();
        for (from, to) in renamed {
            let Some(idx) = names.iter().position(|name| name == to) else {
                return Err(PrepareError::UnknownClass { from: from.clone(), to: to.clone(), classes: names.to_vec() });
            };
            index_of.insert(from.clone(), idx);
        }
        Ok(Self { names: names.to_vec(), index_of })
    }

    /// Classes of the model in the order of its heat map.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The model's class of a source's class; `None` for what the model does not look for.
    pub fn index_of(&self, source_class: &str) -> Option<usize> {
        self.index_of.get(source_class).copied()
    }
}

/// A frame's place in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// From 0.
    pub epoch: u64,
    /// Index of the frame in its source.
    pub index: u64,
    /// Frames of the source.
    pub n_frames: u64,
}

/// What training does to frames at random.
#[derive(Debug, Clone)]
pub struct Augmenter {
    config: AugmentConfig,
    sampler: Option<GtSampler>,
}

impl Augmenter {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// A setting that breaks a rule, or a database that cannot serve this model.
    pub fn new(config: &AugmentConfig, classes: &ClassMap, input: &InputSpec) -> Result<Self, PrepareError> {
        config.check()?;
        let sampler = config.gt_sampling.as_ref().map(|sampling| GtSampler::open(sampling, classes, input)).transpose()?;
        Ok(Self { config: config.clone(), sampler })
    }

    /// Where pasted objects come from.
    pub fn sampler(&self) -> Option<&GtSampler> {
        self.sampler.as_ref()
    }
}

/// Everything that preparing a frame depends on beside the frame.
#[derive(Debug, Clone)]
pub struct Preparation {
    /// Columns and intensity of the model.
    pub input: InputSpec,
    /// Range of the student.
    pub grid: Grid,
    /// Classes of the model.
    pub classes: ClassMap,
    /// `None` for evaluation: nothing random is done and no box is left out.
    pub augmenter: Option<Augmenter>,
    /// Seed of the data, apart from that of a run: students of several runs may share a teacher's stored outputs.
    pub data_seed: u64,
}

/// A frame as a network is trained on it.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingFrame {
    /// Which one.
    pub id: SampleId,
    /// `[N, D]` row-major, columns and intensity as the model's input says; within the range in x and y.
    pub points: Vec<f32>,
    /// Objects of the model's classes, headings in [-pi, pi).
    pub boxes: Vec<TrueBox>,
}

/// What became of a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// `None` where there is nothing to learn: no labels, or no box or no point left. The counts say which.
    pub frame: Option<TrainingFrame>,
    /// Where points and boxes went.
    pub counts: PrepareCounts,
}

/// Where the points and labels of frames went, summed over them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PrepareCounts {
    /// Frames prepared, those without result included.
    pub frames: u64,
    /// Frames that nobody labelled.
    pub frames_unlabelled: u64,
    /// Labelled frames of which no box was left.
    pub frames_without_box: u64,
    /// Frames with boxes of which no point was left.
    pub frames_without_point: u64,
    /// Points of the samples. `points_received + points_pasted = points_kept + points_out_of_range + points_making_way +
    /// points_not_finite`, in frames with a box.
    pub points_received: u64,
    /// Points given to the network's voxeliser.
    pub points_kept: u64,
    /// Points outside the range in x or y, of the frame or of pasted objects.
    pub points_out_of_range: u64,
    /// Points of the frame inside pasted objects.
    pub points_making_way: u64,
    /// Points of pasted objects.
    pub points_pasted: u64,
    /// Points whose intensity was not finite after the model's scaling.
    pub points_not_finite: u64,
    /// Labels of the samples.
    pub labels: u64,
    /// Labels without a single point; not learnt from, and they keep no place free.
    pub labels_without_points: u64,
    /// Labels of classes that the model does not look for, by the source's name.
    pub labels_of_other_classes: BTreeMap<String, u64>,
    /// Boxes with no corner in range, pasted ones included.
    pub boxes_out_of_range: u64,
    /// Boxes given to training.
    pub boxes_kept: u64,
    /// Objects pasted.
    pub objects_pasted: u64,
    /// Objects drawn and not pasted because they overlapped something.
    pub objects_collided: u64,
}

impl AddAssign<&Self> for PrepareCounts {
    fn add_assign(&mut self, other: &Self) {
        self.frames += other.frames;
        self.frames_unlabelled += other.frames_unlabelled;
        self.frames_without_box += other.frames_without_box;
        self.frames_without_point += other.frames_without_point;
        self.points_received += other.points_received;
        self.points_kept += other.points_kept;
        self.points_out_of_range += other.points_out_of_range;
        self.points_making_way += other.points_making_way;
        self.points_pasted += other.points_pasted;
        self.points_not_finite += other.points_not_finite;
        self.labels += other.labels;
        self.labels_without_points += other.labels_without_points;
        for (class, n) in &other.labels_of_other_classes {
            *self.labels_of_other_classes.entry(class.clone()).or_default() += n;
        }
        self.boxes_out_of_range += other.boxes_out_of_range;
        self.boxes_kept += other.boxes_kept;
        self.objects_pasted += other.objects_pasted;
        self.objects_collided += other.objects_collided;
    }
}

/// Why a frame cannot be prepared, or any frame.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A label that is no box.
    #[error("{id}: label {label_idx} ({class}): {field} = {value}: {rule}")]
    Label {
        /// Which frame.
        id: SampleId,
        /// Index in the sample's labels.
        label_idx: usize,
        /// As the source names it.
        class: String,
        /// Which number.
        field: &'static str,
        /// Its value.
        value: f64,
        /// What it must keep to.
        rule: &'static str,
    },
    /// The cloud lacks a column that the model takes.
    #[error("{id}: {source}")]
    Cloud {
        /// Which frame.
        id: SampleId,
        /// Which column.
        r#source: CloudError,
    },
    /// An object of the ground-truth database cannot be read.
    #[error(transparent)]
    Database(#[from] GtDatabaseError),
    /// The ground-truth database does not fit the model.
    #[error(transparent)]
    Sampling(#[from] GtSamplingError),
    /// A setting that breaks a rule.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A class map that leads nowhere.
    #[error("class `{from}` is mapped to `{to}`; the model has {}", .classes.join(", "))]
    UnknownClass {
        /// Name in the source.
        from: String,
        /// Name it was mapped to.
        to: String,
        /// Classes of the model.
        classes: Vec<String>,
    },
}

/// Makes a training frame, or one for evaluation when there is no augmenter.
///
/// In training: boxes without points leave, objects are pasted, the frame is flipped, turned and scaled, boxes out of range and
/// points out of range in x or y leave, points are shuffled. In evaluation only the points out of range leave.
///
/// # Errors
/// A label that is not finite or has no size, a column that is missing, or a damaged database.
pub fn prepare(sample: &Sample, turn: Turn, setup: &Preparation) -> Result<Prepared, PrepareError> {
    let mut counts = PrepareCounts { frames: 1, points_received: sample.cloud.n_points() as u64, ..Default::default() };
    let Some(labels) = &sample.labels else {
        counts.frames_unlabelled = 1;
        return Ok(Prepared { frame: None, counts });
    };
    counts.labels = labels.len() as u64;
    check_labels(&sample.id, labels)?;
    for label in labels.iter().filter(|label| setup.classes.index_of(&label.class).is_none()) {
        *counts.labels_of_other_classes.entry(label.class.clone()).or_default() += 1;
    }
    let columns = ColumnMap::new(&sample.cloud.features, &setup.input)
        .map_err(|source| PrepareError::Cloud { id: sample.id.clone(), source })?;
    let standing: Vec<(Box3d, Option<usize>)> =
        labels.iter().map(|label| (label.box3d, setup.classes.index_of(&label.class))).collect();
    match &setup.augmenter {
        None => Ok(for_evaluation(sample, &standing, &columns, setup, counts)),
        Some(augmenter) => for_training(sample, labels, standing, &columns, augmenter, turn, setup, counts),
    }
}

/// Checks that every label is a box.
///
/// # Errors
/// [`PrepareError::Label`] for the first one that is none.
pub fn check_labels(id: &SampleId, labels: &[Label]) -> Result<(), PrepareError> {
    const FIELDS: [&str; 7] = ["x", "y", "z", "length", "width", "height", "yaw"];
    for (label_idx, label) in labels.iter().enumerate() {
        for (column, (value, field)) in label.box3d.to_row().into_iter().zip(FIELDS).enumerate() {
            let rule = match column {
                _ if !value.is_finite() => "must be finite",
                3..6 if value <= 0.0 => "must be greater than 0",
                _ => continue,
            };
            return Err(PrepareError::Label { id: id.clone(), label_idx, class: label.class.clone(), field, value, rule });
        }
    }
    Ok(())
}

fn for_evaluation(
    sample: &Sample,
    standing: &[(Box3d, Option<usize>)],
    columns: &ColumnMap,
    setup: &Preparation,
    mut counts: PrepareCounts,
) -> Prepared {
    let still = WorldDraw { flip_x: false, flip_y: false, rotation_rad: 0.0, scale: 1.0 };
    let mut boxes: Vec<Box3d> = standing.iter().map(|(b, _)| *b).collect();
    still.apply(&mut [], 1, &mut boxes);
    let boxes: Vec<TrueBox> =
        boxes.iter().zip(standing).filter_map(|(b, (_, class_idx))| Some(true_box(b, (*class_idx)?))).collect();
    let mut kept = Kept::new(still.point_mover(), setup, sample.cloud.n_points() * columns.n_columns());
    for row in sample.cloud.rows() {
        kept.push(row, columns, |_| false, &mut counts);
    }
    counts.boxes_kept = boxes.len() as u64;
    counts.points_kept = (kept.points.len() / columns.n_columns()) as u64;
    Prepared { frame: Some(TrainingFrame { id: sample.id.clone(), points: kept.points, boxes }), counts }
}

#[allow(clippy::too_many_arguments)] // the middle of `prepare`, whose locals these are
fn for_training(
    sample: &Sample,
    labels: &[Label],
    mut standing: Vec<(Box3d, Option<usize>)>,
    columns: &ColumnMap,
    augmenter: &Augmenter,
    turn: Turn,
    setup: &Preparation,
    mut counts: PrepareCounts,
) -> Result<Prepared, PrepareError> {
    let has_points = labels_with_points(sample, labels);
    let n_labels = standing.len();
    let mut keep = has_points.iter();
    standing.retain(|_| keep.next() == Some(&true));
    counts.labels_without_points = (n_labels - standing.len()) as u64;

    let (pasted, n_collided) =
        augmenter.sampler.as_ref().map_or_else(Default::default, |sampler| sampler.choose(setup.data_seed, turn, &standing));
    counts.objects_pasted = pasted.len() as u64;
    counts.objects_collided = n_collided;

    let draw = augmenter.config.draw(setup.data_seed, turn.epoch, &sample.id);
    let boxes = boxes_in_range(&standing, &pasted, &draw, &setup.grid, &mut counts);
    if boxes.is_empty() {
        counts.frames_without_box = 1;
        return Ok(Prepared { frame: None, counts });
    }
    let mut points = points_in_range(sample, &pasted, columns, augmenter, draw.point_mover(), setup, &mut counts)?;
    if points.is_empty() {
        counts.frames_without_point = 1;
        return Ok(Prepared { frame: None, counts });
    }
    if augmenter.config.shuffle {
        let mut random = chance::of_sample(setup.data_seed, turn.epoch, &sample.id, "shuffle");
        points = shuffled(&points, columns.n_columns(), &mut random);
    }
    Ok(Prepared { frame: Some(TrainingFrame { id: sample.id.clone(), points, boxes }), counts })
}

/// Whether each label has a point, by the source's count or, where it has none, by ours.
fn labels_with_points(sample: &Sample, labels: &[Label]) -> Vec<bool> {
    if labels.iter().all(|label| label.n_points.is_some()) {
        return labels.iter().map(|label| label.n_points != Some(0)).collect();
    }
    let boxes: Vec<Box3d> = labels.iter().map(|label| label.box3d).collect();
    let counted = BoxIndex::new(&boxes, OWNERSHIP_MARGIN_M).count(&sample.cloud.points, sample.cloud.features.len().max(1));
    labels.iter().zip(counted).map(|(label, counted)| label.n_points.unwrap_or(counted) > 0).collect()
}

/// Boxes of the model's classes after the move, those of the frame first.
fn boxes_in_range(
    standing: &[(Box3d, Option<usize>)],
    pasted: &[Pasted],
    draw: &WorldDraw,
    grid: &Grid,
    counts: &mut PrepareCounts,
) -> Vec<TrueBox> {
    let own = standing.iter().filter_map(|(b, class_idx)| Some((*b, (*class_idx)?)));
    let (mut boxes, class_idxs): (Vec<Box3d>, Vec<usize>) =
        own.chain(pasted.iter().map(|object| (object.box3d, object.class_idx))).unzip();
    draw.apply(&mut [], 1, &mut boxes);
    let all = boxes.len();
    let kept: Vec<TrueBox> = boxes
        .iter()
        .zip(class_idxs)
        .filter(|(b, _)| box_in_range(grid, b))
        .map(|(b, class_idx)| true_box(b, class_idx))
        .collect();
    counts.boxes_out_of_range = (all - kept.len()) as u64;
    counts.boxes_kept = kept.len() as u64;
    kept
}

/// The box in f32. Rounding may put a heading just below pi onto f32's pi, which the range [-pi, pi) leaves out.
fn true_box(b: &Box3d, class_idx: usize) -> TrueBox {
    let mut row = b.to_row().map(|v| v as f32);
    if row[6] >= std::f32::consts::PI {
        row[6] = -std::f32::consts::PI;
    }
    TrueBox { row, class_idx }
}

/// Points of the network: those of pasted objects, then those of the frame that are not inside them.
///
/// Range comes first and the intensity mode last, because most points of a far-seeing sensor leave with the first and the second
/// costs most. The order cannot be told from the result: every step decides about a point by itself.
fn points_in_range(
    sample: &Sample,
    pasted: &[Pasted],
    columns: &ColumnMap,
    augmenter: &Augmenter,
    mover: PointMover,
    setup: &Preparation,
    counts: &mut PrepareCounts,
) -> Result<Vec<f32>, PrepareError> {
    let mut kept = Kept::new(mover, setup, sample.cloud.n_points() * columns.n_columns());
    if let Some(sampler) = &augmenter.sampler {
        for object in pasted {
            sampler.points_of(object, |row| {
                counts.points_pasted += 1;
                kept.push(row, sampler.columns(), |_| false, counts);
            })?;
        }
    }
    let boxes: Vec<Box3d> = pasted.iter().map(|object| object.box3d).collect();
    let making_way = BoxIndex::new(&boxes, REMOVAL_MARGIN_M);
    for row in sample.cloud.rows() {
        kept.push(row, columns, |point| making_way.first_holding(point).is_some(), counts);
    }
    counts.points_kept = (kept.points.len() / columns.n_columns()) as u64;
    Ok(kept.points)
}

/// Points moved and kept so far.
struct Kept<'a> {
    points: Vec<f32>,
    mover: PointMover,
    grid: &'a Grid,
}

impl<'a> Kept<'a> {
    fn new(mover: PointMover, setup: &'a Preparation, capacity: usize) -> Self {
        Self { points: Vec::with_capacity(capacity), mover, grid: &setup.grid }
    }

    /// Takes a point over unless it leaves the range or has to make way; `row` is where it was before the move.
    #[inline]
    fn push(&mut self, row: &[f32], columns: &ColumnMap, makes_way: impl Fn(&[f32]) -> bool, counts: &mut PrepareCounts) {
        let moved = self.mover.moved([row[0], row[1], row[2]]);
        if !point_in_range(self.grid, moved[0], moved[1]) {
            counts.points_out_of_range += 1;
        } else if makes_way(row) {
            counts.points_making_way += 1;
        } else if columns.push(row, &mut self.points) {
            let start = self.points.len() - columns.n_columns();
            self.points[start..start + 3].copy_from_slice(&moved);
        } else {
            counts.points_not_finite += 1;
        }
    }
}

/// The same rows in random order.
fn shuffled(points: &[f32], n_columns: usize, random: &mut impl rand::Rng) -> Vec<f32> {
    let mut order: Vec<u32> = (0..(points.len() / n_columns) as u32).collect();
    order.shuffle(random);
    let mut rows = Vec::with_capacity(points.len());
    for row_idx in order {
        rows.extend_from_slice(&points[row_idx as usize * n_columns..][..n_columns]);
    }
    rows
}
