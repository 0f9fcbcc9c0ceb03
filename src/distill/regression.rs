//! Knowledge distillation on boxes, where true objects are.

use tch::{Kind, Tensor};

use crate::train::loss::{at_cells, box_loss};
use crate::train::targets::Targets;

/// L1 distance of the student's from the teacher's box values at the cells of true objects, over the number of objects, without its
/// weight. Zero when the two maps differ in resolution: a cell's values count from the cell's corner, so they mean different things.
///
/// # Shapes
/// - `student`, `teacher`: `[B, 8, H, W]` raw outputs
/// - `targets`: of the true boxes alone, at the teacher's resolution
/// - out: a scalar
///
/// # Source
/// sparsekd-spec section 3.3.
pub fn regression_kd(student: &Tensor, teacher: &Tensor, targets: &Targets) -> Tensor {
    if student.size() != teacher.size() {
        return Tensor::zeros([0; 0], (Kind::Float, student.device()));
    }
    let wanted = at_cells(teacher, &targets.index);
    box_loss(student, &wanted, &targets.index, &targets.mask).sum(Kind::Float)
}
