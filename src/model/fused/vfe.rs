//! Pillar features without padded slots.
//!
//! - A slot of zeros leaves the first layer as the constant ReLU(shift), so one more candidate in the maximum of a pillar that is not
//!   full replaces all of its padded slots.
//! - ReLU and the addition of a per-pillar constant commute with the maximum over slots, so the second layer multiplies the
//!   points' half of its input once per point and the pillar's half once per pillar.

use tch::{IndexOp, Tensor};

use crate::model::layers::BatchNorm;
use crate::model::pillar_vfe::PillarVfe;
use crate::model::segment::{decorate, segment_max};
use crate::voxel::{Grid, VoxelTensors};

/// PillarVFE with its norms folded in.
#[derive(Debug)]
pub struct FusedVfe {
    /// `[D + 6, C1]` and `[C1]`.
    first: (Tensor, Tensor),
    /// `[C1, C2]`: the points' half of the second layer.
    second_of_point: Tensor,
    /// `[C1, C2]` and `[C2]`: the pillar's half.
    second_of_pillar: (Tensor, Tensor),
    /// `[1, C1]` and `[1, C2]`: what a padded slot contributes to the two maxima.
    padded: (Tensor, Tensor),
    /// Slots of a pillar; `None` where none are padded.
    slots: Option<i64>,
}

impl FusedVfe {
    /// Folds a plain one.
    pub fn new(vfe: &PillarVfe, slots: Option<usize>) -> Self {
        let fold = |linear: &Tensor, norm: &BatchNorm| {
            let (scale, shift) = norm.scale_and_shift();
            ((linear * scale.view([-1, 1])).transpose(0, 1).contiguous(), shift)
        };
        let [first, second] = &vfe.layers;
        let first = fold(&first.linear, &first.norm);
        let (second, shift) = fold(&second.linear, &second.norm);
        let c1 = first.1.size()[0];
        let second_of_point = second.i((..c1, ..)).contiguous();
        let padded_first = first.1.relu().unsqueeze(0);
        let padded_second = padded_first.matmul(&second_of_point);
        Self {
            first,
            second_of_point,
            second_of_pillar: (second.i((c1.., ..)).contiguous(), shift),
            padded: (padded_first, padded_second),
            slots: slots.map(|cap| cap as i64),
        }
    }

    /// # Shapes
    /// - out: `[P, C]` f32
    pub fn features(&self, pillars: &VoxelTensors, grid: &Grid) -> Tensor {
        let x = self.first.1.addmm(&decorate(pillars, grid), &self.first.0).relu_(); // [N', C1]
        let has_padding = self.slots.map(|slots| pillars.num_points.lt(slots).unsqueeze(1));
        let with_padding = |highest: Tensor, constant: &Tensor| match &has_padding {
            Some(has_padding) => highest.maximum(constant).where_self(has_padding, &highest),
            None => highest,
        };
        let highest = with_padding(segment_max(&x, pillars), &self.padded.0); // [P, C1]
        let of_point = with_padding(segment_max(&x.matmul(&self.second_of_point), pillars), &self.padded.1); // [P, C2]
        (self.second_of_pillar.1.addmm(&highest, &self.second_of_pillar.0) + of_point).relu_()
    }
}
