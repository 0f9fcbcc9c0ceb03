//! The teacher at work: what it says about a batch, without gradients.

use tch::{Device, IndexOp, Kind, Tensor};

use super::TeacherMode;
use crate::model::center_head::HeadMaps;
use crate::model::directory::LoadedModel;
use crate::model::fused::FusedNet;
use crate::model::layers::Mode;
use crate::model::net::Net;
use crate::model::params::{Params, Weights, differences};
use crate::model::pillar_vfe::PaddedVoxels;
use crate::model::spec::{ModelSpec, SpecError};
use crate::pipeline::{Precision, guard};
use crate::postprocess::{self, Detection, Peaks, PostprocessError};
use crate::voxel::{Grid, VoxelCounts, VoxelTensors};

/// What a teacher said about a batch. Nothing in it has a gradient.
#[derive(Debug)]
pub struct TeacherOutput {
    /// `[B, K, H, W]` f32 logits.
    pub heat_map: Tensor,
    /// `[B, 8, H, W]` f32 raw outputs; absent where nobody asked for them.
    pub regression: Option<Tensor>,
    /// Of each frame: over the teacher's score threshold and inside its limits, best first, not suppressed.
    pub boxes: Vec<Vec<Detection>>,
}

/// How a teacher is run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TeacherOptions {
    /// Statistics of its batch norms.
    pub mode: TeacherMode,
    /// Arithmetic from the bird's-eye map to the head's outputs.
    pub precision: Precision,
    /// Whether the full regression maps are wanted, not only boxes.
    pub regression: bool,
    /// Where it runs.
    pub device: Device,
}

/// Why a teacher cannot be set up or asked.
#[derive(Debug, thiserror::Error)]
pub enum TeacherError {
    /// Its weights are not those of its spec.
    #[error("weights do not fit the spec `{name}`: {}", .problems.join("; "))]
    Weights {
        /// Name of the spec.
        name: String,
        /// Every difference.
        problems: Vec<String>,
    },
    /// It cannot be run over the student's range.
    #[error("the teacher cannot be run over the student's range: {0}")]
    Range(SpecError),
    /// Its maps could not be turned into boxes.
    #[error(transparent)]
    Postprocess(#[from] PostprocessError),
    /// An operation failed, for instance for want of memory.
    #[error("the teacher failed: {0}")]
    Network(String),
    /// libtorch refused something.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}

/// A teacher ready to be asked.
#[derive(Debug)]
pub struct Teacher {
    spec: ModelSpec,
    sha256: String,
    grid: Grid,
    options: TeacherOptions,
    net: Network,
}

#[derive(Debug)]
enum Network {
    /// Statistics of the batch. Its running ones change with every batch and are read by nobody.
    Plain(Box<Net>, Kind),
    /// Statistics of its training.
    Fused(Box<FusedNet>),
}

impl Teacher {
    /// Sets a loaded model up as the teacher of a student whose clouds cover `range` (`[xmin, ymin, zmin, xmax, ymax, zmax]` in
    /// metres), with the teacher's own cells: both must see the same points. The model's tensors are not shared with it.
    ///
    /// # Errors
    /// When the range is no whole number of the teacher's cells and strides, or libtorch fails.
    pub fn new(model: &LoadedModel, range: [f32; 6], options: TeacherOptions) -> Result<Self, TeacherError> {
        Self::from_parts(model.spec.clone(), &model.weights, &model.sha256, range, options)
    }

    /// As [`Teacher::new`], from a spec and weights in memory; `sha256` is the weights' identity.
    ///
    /// # Errors
    /// As [`Teacher::new`], and when the weights are not the spec's.
    pub fn from_parts(
        mut spec: ModelSpec,
        weights: &Weights,
        sha256: &str,
        range: [f32; 6],
        options: TeacherOptions,
    ) -> Result<Self, TeacherError> {
        spec.grid.range = range;
        // Thresholds of deployment would hide boxes from label distillation, which has thresholds of its own.
        spec.postprocess.class_score_thresholds.clear();
        spec.postprocess.distance_score_thresholds.clear();
        spec.check(&spec.name).map_err(TeacherError::Range)?;
        let problems = differences(&crate::model::expected_params(&spec), weights);
        if !problems.is_empty() {
            return Err(TeacherError::Weights { name: spec.name, problems });
        }
        let kind = match options.precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        };
        let net = guard(TeacherError::Network, || {
            let own: Weights = weights.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
            let plain = Net::new(&Params::load(&own, options.device), &spec);
            Ok(match options.mode {
                TeacherMode::Eval => {
                    Network::Fused(Box::new(FusedNet::new(&plain, &spec.grid(), spec.grid.max_points_per_voxel, kind)))
                }
                TeacherMode::Train => Network::Plain(Box::new(plain), kind),
            })
        })?;
        Ok(Self { grid: spec.grid(), sha256: sha256.to_owned(), spec, options, net })
    }

    /// Its spec, over the student's range.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Identity of its weights.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// How it is run.
    pub fn options(&self) -> TeacherOptions {
        self.options
    }

    /// Cells of its voxels.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// Cells of the grid along one edge of a cell of its maps.
    pub fn stride(&self) -> usize {
        self.spec.network.stride()
    }

    /// Asks it about a batch of its own voxels.
    ///
    /// # Errors
    /// When libtorch fails, or the maps are not what the spec says.
    pub fn output(&self, voxels: &PaddedVoxels) -> Result<TeacherOutput, TeacherError> {
        guard(TeacherError::Network, || match &self.net {
            Network::Plain(net, kind) => self.of_plain(net, *kind, voxels),
            Network::Fused(net) => self.of_fused(net, voxels),
        })
    }

    fn of_plain(&self, net: &Net, kind: Kind, voxels: &PaddedVoxels) -> Result<TeacherOutput, TeacherError> {
        let HeadMaps { heat_map, regression, .. } = net.forward_fast(voxels, Mode::Train, kind).maps;
        let [heat_map, regression] = [heat_map, regression].map(|map| map.contiguous());
        let mut boxes = Vec::new();
        for frame_idx in 0..voxels.batch_size {
            let peaks = postprocess::top_peaks(&heat_map.i(frame_idx), self.spec.postprocess.max_peaks)?;
            let (_, channels, _, w) = regression.size4()?;
            let cells = regression.i(frame_idx).view([channels, -1]).index_select(1, &(&peaks.row * w + &peaks.col));
            boxes.push(self.boxes(&peaks, &cells.transpose(0, 1))?);
        }
        Ok(TeacherOutput { heat_map, regression: self.options.regression.then_some(regression), boxes })
    }

    fn of_fused(&self, net: &FusedNet, voxels: &PaddedVoxels) -> Result<TeacherOutput, TeacherError> {
        let (mut heat_maps, mut regressions, mut boxes) = (Vec::new(), Vec::new(), Vec::new());
        for frame_idx in 0..voxels.batch_size {
            let voxels = frame_of(voxels, frame_idx);
            let shared = net.head.shared(&net.backbone(&net.map_of(&voxels)));
            let heat_map = net.head.heat_map(&shared);
            let peaks = postprocess::top_peaks(&heat_map, self.spec.postprocess.max_peaks)?;
            boxes.push(self.boxes(&peaks, &net.head.regression_at(&shared, &peaks.row, &peaks.col))?);
            if self.options.regression {
                regressions.push(net.head.regression(&shared));
            }
            heat_maps.push(heat_map);
        }
        let regression = self.options.regression.then(|| Tensor::stack(&regressions, 0));
        Ok(TeacherOutput { heat_map: Tensor::stack(&heat_maps, 0), regression, boxes })
    }

    fn boxes(&self, peaks: &Peaks, regression: &Tensor) -> Result<Vec<Detection>, TeacherError> {
        let ModelSpec { classes, postprocess, .. } = &self.spec;
        let decoded = postprocess::decode_boxes(peaks, regression, &self.grid, self.stride(), classes, postprocess)?;
        Ok(decoded.detections)
    }
}

/// One frame of a padded batch without its padding.
fn frame_of(voxels: &PaddedVoxels, frame_idx: i64) -> VoxelTensors {
    let rows = voxels.coords.i((.., 0)).eq(frame_idx).nonzero().view([-1]);
    let num_points = voxels.num_points.index_select(0, &rows);
    let padded = voxels.voxels.index_select(0, &rows); // [P, T, D]
    let (n_voxels, slots, d) = padded.size3().unwrap_or_default();
    let slot = Tensor::arange(slots, (Kind::Int64, padded.device())).view([1, -1]);
    let stored = slot.lt_tensor(&num_points.view([-1, 1])).view([-1]).nonzero().view([-1]);
    let n_points = stored.size()[0] as usize;
    VoxelTensors {
        points: padded.view([-1, d]).index_select(0, &stored),
        point_index: Tensor::arange(n_points as i64, (Kind::Int64, padded.device())),
        voxel_of_point: stored.divide_scalar_mode(slots.max(1), "floor"),
        coords: voxels.coords.index_select(0, &rows).i((.., 1..)),
        num_points,
        counts: VoxelCounts { received: n_points, in_voxels: n_points, voxels: n_voxels as usize, ..VoxelCounts::default() },
    }
}
