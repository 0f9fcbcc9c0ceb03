//! Training frames of one step as the networks take them: pillars of the student, and of the teacher where its cells differ.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};
use tch::{Device, TchError, Tensor};

use super::SampleId;
use super::prepare::{PrepareCounts, TrainingFrame};
use crate::cloud::Feature;
use crate::model::pillar_vfe::PaddedVoxels;
use crate::model::spec::ModelSpec;
use crate::train::targets::TrueBox;
use crate::voxel::{Grid, VoxelCaps, VoxelCounts, Voxelizer, Voxels};

/// The frames of one step.
#[derive(Debug)]
pub struct Batch {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Step of the epoch, from 0.
    pub step: u64,
    /// Which frames (B).
    pub ids: Vec<SampleId>,
    /// Their objects (B).
    pub boxes: Vec<Vec<TrueBox>>,
    /// Voxels of the student.
    pub student: PaddedVoxels,
    /// Voxels of the teacher from the same points; `None` where it takes the student's.
    pub teacher: Option<PaddedVoxels>,
    /// What was dropped on the way, frames that were replaced included.
    pub counts: BatchCounts,
    /// Frames that could not be read and were replaced or left out.
    pub unreadable: Vec<Unreadable>,
}

/// A frame that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Which one.
    pub id: SampleId,
    /// Why.
    pub reason: String,
}

/// Where points and boxes went, summed over frames.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BatchCounts {
    /// Before the voxeliser.
    pub prepare: PrepareCounts,
    /// In the student's voxeliser.
    pub student: VoxelCounts,
    /// In the teacher's; zeros where it takes the student's pillars.
    pub teacher: VoxelCounts,
}

impl AddAssign<&Self> for BatchCounts {
    fn add_assign(&mut self, other: &Self) {
        self.prepare += &other.prepare;
        add_voxels(&mut self.student, &other.student);
        add_voxels(&mut self.teacher, &other.teacher);
    }
}

fn add_voxels(total: &mut VoxelCounts, other: &VoxelCounts) {
    total.received += other.received;
    total.out_of_range += other.out_of_range;
    total.in_voxels += other.in_voxels;
    total.over_point_cap += other.over_point_cap;
    total.in_dropped_voxels += other.in_dropped_voxels;
    total.voxels += other.voxels;
    total.dropped_voxels += other.dropped_voxels;
}

/// Cells and caps of one network.
#[derive(Debug, Clone, PartialEq)]
pub struct Voxelization {
    /// Range and cells.
    pub grid: Grid,
    /// Caps.
    pub caps: VoxelCaps,
}

/// How frames become pillars.
#[derive(Debug, Clone, PartialEq)]
pub struct VoxelPlan {
    /// Columns of the points (D).
    pub n_features: usize,
    /// For the student.
    pub student: Voxelization,
    /// For the teacher, where it is another.
    pub teacher: Option<Voxelization>,
}

/// Why a teacher cannot be fed with its student's points.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The networks take different columns, or scale intensity differently.
    #[error("teacher `{teacher}` takes {teacher_input}, student `{student}` takes {student_input}; both are fed the same points")]
    Input {
        /// Name of the teacher.
        teacher: String,
        /// Its columns and intensity.
        teacher_input: String,
        /// Name of the student.
        student: String,
        /// Its columns and intensity.
        student_input: String,
    },
    /// The student's range is no whole number of the teacher's cells.
    #[error("the student's range {range:?} along {axis} is {cells:.4} cells of teacher `{teacher}` ({size} m), must be whole")]
    Cells {
        /// Name of the teacher.
        teacher: String,
        /// `[xmin, ymin, zmin, xmax, ymax, zmax]` in metres.
        range: [f32; 6],
        /// Which axis.
        axis: &'static str,
        /// Edge length of the teacher's cells in metres.
        size: f32,
        /// Range over edge length.
        cells: f64,
    },
}

impl VoxelPlan {
    /// For a student, and a teacher on the student's range (sparsekd-spec section 5.2).
    ///
    /// # Errors
    /// When the teacher cannot be fed with the student's points.
    pub fn new(student: &ModelSpec, teacher: Option<&ModelSpec>) -> Result<Self, PlanError> {
        let own = Voxelization { grid: student.grid(), caps: student.caps() };
        let teacher = teacher.map(|teacher| teacher_voxelization(student, teacher)).transpose()?;
        let teacher = teacher.filter(|teacher| *teacher != own);
        Ok(Self { n_features: student.input.features.len(), student: own, teacher })
    }
}

fn teacher_voxelization(student: &ModelSpec, teacher: &ModelSpec) -> Result<Voxelization, PlanError> {
    let (ours, theirs) = (&student.input, &teacher.input);
    if ours.features != theirs.features || ours.intensity != theirs.intensity {
        let in_words = |spec: &ModelSpec| {
            let columns = spec.input.features.iter().map(|feature: &Feature| feature.name()).collect::<Vec<_>>().join(", ");
            format!("{columns} with intensity {:?}", spec.input.intensity)
        };
        return Err(PlanError::Input {
            teacher: teacher.name.clone(),
            teacher_input: in_words(teacher),
            student: student.name.clone(),
            student_input: in_words(student),
        });
    }
    let (range, voxel_size) = (student.grid.range, teacher.grid.voxel_size);
    for (axis, name) in ["x", "y", "z"].into_iter().enumerate() {
        let size = voxel_size[axis];
        let cells = (f64::from(range[axis + 3]) - f64::from(range[axis])) / f64::from(size);
        if (cells - cells.round()).abs() > 1e-3 {
            return Err(PlanError::Cells { teacher: teacher.name.clone(), range, axis: name, size, cells });
        }
    }
    Ok(Voxelization { grid: Grid::new(range, voxel_size), caps: teacher.caps() })
}

/// Why frames cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// libtorch refused, for instance for want of memory.
    #[error(transparent)]
    Torch(#[from] TchError),
}

/// Makes batches; keeps the voxelisers' memory from batch to batch.
#[derive(Debug)]
pub struct BatchBuilder {
    n_features: usize,
    student: Voxelizer,
    teacher: Option<Voxelizer>,
}

impl BatchBuilder {
    /// For one plan.
    pub fn new(plan: &VoxelPlan) -> Self {
        let voxelizer = |v: &Voxelization| Voxelizer::new(v.grid.clone(), v.caps);
        Self { n_features: plan.n_features, student: voxelizer(&plan.student), teacher: plan.teacher.as_ref().map(voxelizer) }
    }

    /// Lays the frames out for both networks, on the CPU. `counts` are those of their preparation.
    ///
    /// # Errors
    /// When libtorch fails, for instance for want of memory.
    pub fn build(&mut self, frames: Vec<TrainingFrame>, counts: PrepareCounts) -> Result<Batch, BatchError> {
        let mut counts = BatchCounts { prepare: counts, ..Default::default() };
        let student = padded_pillars(&mut self.student, &frames, self.n_features, &mut counts.student)?;
        let teacher = match &mut self.teacher {
            Some(voxelizer) => Some(padded_pillars(voxelizer, &frames, self.n_features, &mut counts.teacher)?),
            None => None,
        };
        let (ids, boxes) = frames.into_iter().map(|frame| (frame.id, frame.boxes)).unzip();
        Ok(Batch { epoch: 0, step: 0, ids, boxes, student, teacher, counts, unreadable: Vec::new() })
    }
}

impl Batch {
    /// The same on another device; on the CPU nothing is copied.
    ///
    /// # Errors
    /// When libtorch fails, for instance for want of memory.
    pub fn to_device(self, device: Device) -> Result<Self, BatchError> {
        let student = pillars_to_device(&self.student, device)?;
        let teacher = self.teacher.as_ref().map(|pillars| pillars_to_device(pillars, device)).transpose()?;
        Ok(Self { student, teacher, ..self })
    }
}

fn pillars_to_device(pillars: &PaddedVoxels, device: Device) -> Result<PaddedVoxels, BatchError> {
    let PaddedVoxels { voxels, num_points, coords, batch_size, padding_takes_part } = pillars;
    Ok(PaddedVoxels {
        voxels: voxels.f_to_device(device)?,
        num_points: num_points.f_to_device(device)?,
        coords: coords.f_to_device(device)?,
        batch_size: *batch_size,
        padding_takes_part: *padding_takes_part,
    })
}

/// The pillars of all frames in one padded tensor.
///
/// Written in one pass over the points kept, where [`PaddedVoxels::from_clouds`], which gives the same, copies them four times.
/// No libtorch operation runs here: each loader thread would start a pool of its own.
fn padded_pillars(
    voxelizer: &mut Voxelizer,
    frames: &[TrainingFrame],
    n_features: usize,
    counts: &mut VoxelCounts,
) -> Result<PaddedVoxels, BatchError> {
    let slots = voxelizer.caps().max_points_per_voxel;
    let clouds: Vec<Voxels> = frames.iter().map(|frame| voxelizer.voxelize(&frame.points, n_features)).collect();
    let fullest = || clouds.iter().flat_map(|cloud| &cloud.num_points).max().map_or(1, |n| *n as usize);
    let slots_per_pillar = slots.unwrap_or_else(fullest).max(1);
    let n_voxels: usize = clouds.iter().map(|cloud| cloud.coords.len()).sum();

    let mut voxels = vec![0f32; n_voxels * slots_per_pillar * n_features];
    let (mut num_points, mut coords) = (Vec::with_capacity(n_voxels), Vec::with_capacity(4 * n_voxels));
    let mut pillars_out = voxels.chunks_exact_mut((slots_per_pillar * n_features).max(1));
    for (batch_idx, (cloud, frame)) in clouds.iter().zip(frames).enumerate() {
        add_voxels(counts, &cloud.counts);
        let mut rows = cloud.point_index.iter();
        for ((n, [z, y, x]), out) in cloud.num_points.iter().zip(&cloud.coords).zip(&mut pillars_out) {
            for (row_idx, slot) in rows.by_ref().take(*n as usize).zip(out.chunks_exact_mut(n_features)) {
                slot.copy_from_slice(&frame.points[*row_idx as usize * n_features..][..n_features]);
            }
            num_points.push(i64::from(*n));
            coords.extend([batch_idx as i64, i64::from(*z), i64::from(*y), i64::from(*x)]);
        }
    }
    let p = n_voxels as i64;
    Ok(PaddedVoxels {
        voxels: Tensor::f_from_slice(&voxels)?.f_view([p, slots_per_pillar as i64, n_features as i64])?,
        num_points: Tensor::f_from_slice(&num_points)?,
        coords: Tensor::f_from_slice(&coords)?.f_view([p, 4])?,
        batch_size: frames.len() as i64,
        padding_takes_part: slots.is_some(),
    })
}
