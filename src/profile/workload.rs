//! How much of a network's input depends on the cloud: voxels, the points in them, and the sites of a 3-D backbone.

use serde::Serialize;

use crate::cloud::PointCloud;
use crate::model::backbone_3d::{SparseConvSpec, cell_number, key_stages, lattice_shape};
use crate::model::net::{Front, Net};
use crate::model::params::Params;
use crate::model::spec::ModelSpec;
use crate::sparse::{Lattice, SparseError};
use crate::voxel::{Voxelizer, Voxels};

/// Means over the frames that were looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Workload {
    /// Frames; 0 when the numbers were given and not measured.
    pub n_frames: usize,
    /// Points of a cloud.
    pub points: f64,
    /// Points stored in voxels.
    pub points_in_voxels: f64,
    /// Pillars or voxels.
    pub voxels: f64,
    /// Places for points in the reference's padded tensor: voxels times the cap. Dynamic voxelisation pads nothing.
    pub slots: f64,
    /// Of each index key of the 3-D backbone, in order of first use; empty for pillars, and where only the number of voxels is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sparse: Vec<SparseWork>,
}

/// What the layers of one index key have to do.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct SparseWork {
    /// Pairs of input and output site.
    pub pairs: f64,
    /// Output sites.
    pub sites: f64,
}

impl Workload {
    /// For a number of voxels that somebody else measured; every slot is taken to hold a point. What a 3-D backbone has to do does not
    /// follow from it and is left out.
    pub fn given(spec: &ModelSpec, voxels: f64) -> Self {
        let slots = voxels * spec.grid.max_points_per_voxel.unwrap_or(1) as f64;
        Self { n_frames: 0, points: slots, points_in_voxels: slots, voxels, slots, sparse: Vec::new() }
    }

    /// Voxelises the clouds with the grid and caps of a spec; `None` without a cloud.
    ///
    /// # Errors
    /// When the spec has a 3-D backbone whose sites cannot be found.
    pub fn measure(spec: &ModelSpec, clouds: &[PointCloud]) -> Result<Option<Self>, SparseError> {
        let layers = sparse_layers(spec);
        let mut voxelizer = Voxelizer::new(spec.grid(), spec.caps());
        let (mut sums, mut sparse) = ([0; 4], Vec::new());
        for cloud in clouds {
            let voxels = voxelizer.voxelize(&cloud.points, cloud.features.len().max(1));
            let counts = voxels.counts;
            let slots = spec.grid.max_points_per_voxel.map_or(counts.in_voxels, |cap| counts.voxels * cap);
            for (sum, n) in sums.iter_mut().zip([counts.received, counts.in_voxels, counts.voxels, slots]) {
                *sum += n;
            }
            add_sparse(&mut sparse, spec, &layers, &voxels)?;
        }
        let n_frames = clouds.len();
        let mean = |sum: f64| sum / n_frames as f64;
        let [points, points_in_voxels, voxels, slots] = sums.map(|sum| mean(sum as f64));
        let sparse = sparse.iter().map(|work: &SparseWork| SparseWork { pairs: mean(work.pairs), sites: mean(work.sites) });
        let sparse = sparse.collect();
        Ok((n_frames > 0).then_some(Self { n_frames, points, points_in_voxels, voxels, slots, sparse }))
    }
}

/// Layers of the 3-D backbone, none for pillars.
fn sparse_layers(spec: &ModelSpec) -> Vec<SparseConvSpec> {
    // Listing parameters allocates none of them.
    match Net::new(&Params::list(), spec).front {
        Front::Pillar(_) => Vec::new(),
        Front::Voxel(backbone) => backbone.layers.into_iter().map(|layer| layer.spec).collect(),
    }
}

fn add_sparse(
    sums: &mut Vec<SparseWork>,
    spec: &ModelSpec,
    layers: &[SparseConvSpec],
    voxels: &Voxels,
) -> Result<(), SparseError> {
    if layers.is_empty() {
        return Ok(());
    }
    let shape = lattice_shape(&spec.grid());
    let mut keys: Vec<i64> = voxels.coords.iter().map(|cell| cell_number(cell.map(i64::from), shape)).collect();
    keys.sort_unstable();
    let stages = key_stages(layers, keys, Lattice::new(1, shape)?)?;
    sums.resize(stages.len(), SparseWork::default());
    for (sum, stage) in sums.iter_mut().zip(stages) {
        sum.pairs += stage.pairs.len() as f64;
        sum.sites += stage.keys.len() as f64;
    }
    Ok(())
}
