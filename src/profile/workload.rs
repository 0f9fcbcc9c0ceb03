//! How much of a network's input depends on the cloud: voxels and the points in them.

use serde::Serialize;

use crate::cloud::PointCloud;
use crate::model::spec::ModelSpec;
use crate::voxel::Voxelizer;

/// Means over the frames that were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Workload {
    /// Frames; 0 when the numbers were given and not measured.
    pub n_frames: usize,
    /// Points of a cloud.
    pub points: f64,
    /// Points stored in voxels.
    pub points_in_voxels: f64,
    /// Pillars.
    pub voxels: f64,
    /// Places for points in the reference's padded tensor: voxels times the cap. Dynamic voxelisation pads nothing.
    pub slots: f64,
}

impl Workload {
    /// For a number of voxels that somebody else measured; every slot is taken to hold a point.
    pub fn given(spec: &ModelSpec, voxels: f64) -> Self {
        let slots = voxels * spec.grid.max_points_per_voxel.unwrap_or(1) as f64;
        Self { n_frames: 0, points: slots, points_in_voxels: slots, voxels, slots }
    }

    /// Voxelises the clouds with the grid and caps of a spec; `None` without a cloud.
    pub fn measure(spec: &ModelSpec, clouds: &[PointCloud]) -> Option<Self> {
        let mut voxelizer = Voxelizer::new(spec.grid(), spec.caps());
        let mut sums = [0; 4];
        for cloud in clouds {
            let counts = voxelizer.voxelize(&cloud.points, cloud.features.len().max(1)).counts;
            let slots = spec.grid.max_points_per_voxel.map_or(counts.in_voxels, |cap| counts.voxels * cap);
            for (sum, n) in sums.iter_mut().zip([counts.received, counts.in_voxels, counts.voxels, slots]) {
                *sum += n;
            }
        }
        let n_frames = clouds.len();
        let [points, points_in_voxels, voxels, slots] = sums.map(|sum| sum as f64 / n_frames as f64);
        (n_frames > 0).then_some(Self { n_frames, points, points_in_voxels, voxels, slots })
    }
}
