//! PillarVFE over stored points only, with gradients: what training runs instead of the padded one, which it must agree with.
//!
//! A padded slot enters the first layer as zeros, so it leaves it with the same values in every pillar, and the second layer with
//! the same values in every slot of a pillar. These are computed once and counted in the batch statistics as often as they stand in
//! the padded tensor; two slots in three are padded on real clouds.

use tch::{IndexOp, Kind, Tensor, no_grad};

use super::layers::Mode;
use super::pillar_vfe::{PaddedVoxels, PillarVfe, pillar_centers};
use super::segment::segment_argmax;

/// The stored points of a batch of padded pillars.
///
/// # Shapes
/// N counts them; they are grouped by pillar.
struct FlatPillars {
    /// `[N, D + 6]`: input of the first layer.
    decorated: Tensor,
    /// `[N]` i64, ascending.
    voxel_of_point: Tensor,
    /// `[P]` i64.
    num_points: Tensor,
    /// `[P, 1]` f32: padded slots of each pillar.
    n_padded: Tensor,
    /// `[P, 1]` bool: whether padded slots take part in the pillar's maximum.
    padding_counts: Tensor,
    /// P T: values of a channel that batch statistics are taken over.
    n_slots: f64,
}

impl PillarVfe {
    /// Pillar features `[P, C]` as [`PillarVfe::forward`] gives them.
    pub fn forward_flat(&self, pillars: &PaddedVoxels, mode: Mode) -> Tensor {
        let flat = no_grad(|| self.flatten(pillars));
        let (points, padded) = self.first_layer(&flat, mode); // [N, C / 2], [C / 2]
        let signs = Tensor::ones_like(&padded);
        let highest = flat.maximum(&points, &signs, &padded.unsqueeze(0), |x| x.shallow_clone()); // [P, C / 2]
        self.second_layer(&flat, &points, &padded, &highest, mode)
    }

    fn flatten(&self, pillars: &PaddedVoxels) -> FlatPillars {
        let PaddedVoxels { voxels, num_points, coords, .. } = pillars;
        let (p, t, d) = voxels.size3().unwrap_or((0, 0, 0));
        let slot = pillars.stored_slots().view([-1]).nonzero().view([-1]); // [N]
        let voxel_of_point = slot.divide_scalar_mode(t.max(1), "floor");
        let points = voxels.reshape([p * t, d]).index_select(0, &slot);
        let count = num_points.to_kind(Kind::Float).view([-1, 1]);
        let mean = voxels.i((.., .., ..3)).sum_dim_intlist([1].as_slice(), false, Kind::Float) / count.clamp_min(1.0);
        let origins = Tensor::cat(&[mean, pillar_centers(&self.grid, &coords.i((.., 1..)))], 1); // [P, 6]
        let xyz = points.i((.., ..3));
        let offsets = Tensor::cat(&[&xyz, &xyz], 1) - origins.index_select(0, &voxel_of_point);
        let n_padded: Tensor = t as f64 - count;
        FlatPillars {
            decorated: Tensor::cat(&[points, offsets], 1),
            voxel_of_point,
            num_points: num_points.shallow_clone(),
            padding_counts: n_padded.gt(0.0).logical_and(&Tensor::from(pillars.padding_takes_part).to_device(voxels.device())),
            n_padded,
            n_slots: (p * t) as f64,
        }
    }

    /// What the first layer makes of each point (`[N, C]`) and of a padded slot (`[C]`).
    ///
    /// The input is no variable, so the statistics of the linear layer's output follow from the input's mean and covariance, and the
    /// norm becomes part of the linear layer.
    fn first_layer(&self, flat: &FlatPillars, mode: Mode) -> (Tensor, Tensor) {
        let layer = &self.layers[0];
        let (scale, shift) = match mode {
            Mode::Eval => layer.norm.scale_and_shift(),
            Mode::Train => {
                let (mean, covariance) = no_grad(|| flat.moments());
                let linear = layer.linear.to_kind(Kind::Double);
                let variance = (linear.matmul(&covariance) * &linear).sum_dim_intlist([1].as_slice(), false, Kind::Double);
                let [mean, variance] = [linear.mv(&mean), variance.clamp_min(0.0)].map(|x| x.to_kind(Kind::Float));
                layer.norm.scale_and_shift_of_batch(&mean, &variance, flat.n_slots)
            }
        };
        let linear = &layer.linear * scale.unsqueeze(1);
        (shift.addmm(&flat.decorated, &linear.tr()).relu(), shift.relu())
    }

    /// Pillar features from the first layer's points (`[N, C]`), padded slot (`[C]`) and maximum (`[P, C]`).
    fn second_layer(&self, flat: &FlatPillars, points: &Tensor, padded: &Tensor, highest: &Tensor, mode: Mode) -> Tensor {
        let layer = &self.layers[1];
        // The input is a point's values beside its pillar's maximum; the latter's share is the same for all slots of a pillar.
        let c = padded.size()[0];
        let (of_point, of_highest) = (layer.linear.narrow(1, 0, c), layer.linear.narrow(1, c, c));
        let shared = highest.matmul(&of_highest.tr()); // [P, C']
        let padded = &shared + of_point.mv(padded); // [P, C']
        let points = shared.index_select(0, &flat.voxel_of_point).addmm(points, &of_point.tr()); // [N, C']
        let (scale, shift) = match mode {
            Mode::Eval => layer.norm.scale_and_shift(),
            Mode::Train => {
                let over_slots = |points: &Tensor, padded: &Tensor| {
                    let sum = |x: &Tensor| x.sum_dim_intlist([0].as_slice(), false, Kind::Float);
                    (sum(points) + sum(&(padded * &flat.n_padded))) / flat.n_slots
                };
                let mean = over_slots(&points, &padded);
                let variance = over_slots(&(&points - &mean).square(), &(&padded - &mean).square());
                layer.norm.scale_and_shift_of_batch(&mean, &variance, flat.n_slots)
            }
        };
        // Norm and ReLU never fall where the scale is positive and never rise where it is negative.
        flat.maximum(&points, &scale.sign(), &padded, |x| (x * &scale + &shift).relu())
    }
}

impl FlatPillars {
    /// Mean (`[F]`) and covariance (`[F, F]`) of the first layer's input over all slots, f64.
    fn moments(&self) -> (Tensor, Tensor) {
        let x = self.decorated.to_kind(Kind::Double);
        let mean = x.sum_dim_intlist([0].as_slice(), false, Kind::Double) / self.n_slots;
        let covariance = x.tr().matmul(&x) / self.n_slots - mean.outer(&mean);
        (mean, covariance)
    }

    /// Maximum of `f` over the slots of each pillar, where `f` grows with `signs` (`[C]`) times its argument.
    ///
    /// # Shapes
    /// - `points`: `[N, C]`; `padded`: `[P, C]` or `[1, C]`, before `f`; out: `[P, C]`
    fn maximum(&self, points: &Tensor, signs: &Tensor, padded: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let row = no_grad(|| segment_argmax(&points.detach(), &signs.detach(), &self.num_points, &self.voxel_of_point));
        let highest = f(&points.gather(0, &row, false));
        highest.maximum(&f(padded)).where_self(&self.padding_counts, &highest)
    }
}
