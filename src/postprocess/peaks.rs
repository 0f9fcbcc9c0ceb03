//! The best cells of a heat map.

use tch::{Device, Kind, Tensor};

use super::PostprocessError;

/// Cells of a heat map, best first; everything on the map's device. M of them.
#[derive(Debug)]
pub struct Peaks {
    /// f32 `[M]` in (0, 1), descending.
    pub scores: Tensor,
    /// i64 `[M]`, channel of the heat map.
    pub class_idx: Tensor,
    /// i64 `[M]`, y of the cell.
    pub row: Tensor,
    /// i64 `[M]`, x of the cell.
    pub col: Tensor,
}

/// The `max_peaks` highest cells of `hm_logits` `[K, H, W]` over all classes, fewer if the map is smaller.
///
/// The paper takes the best `max_peaks` of each class and then the best of those; the overall best are the same set. Neighbours
/// of a peak are not suppressed here.
///
/// Order: logit descending, then class ascending, then row, then column, whatever the device. Cells are ranked by logit because
/// the sigmoid is monotone; where it rounds two logits to one score, the higher logit still comes first. NaN ranks above
/// everything, so that a broken network shows up as non-finite boxes instead of as an empty scene.
///
/// # Errors
/// When `hm_logits` is not `[K, H, W]`, or libtorch fails.
pub fn top_peaks(hm_logits: &Tensor, max_peaks: usize) -> Result<Peaks, PostprocessError> {
    let shape = hm_logits.size();
    let &[_, n_rows, n_cols] = shape.as_slice() else {
        return Err(PostprocessError::Shape { tensor: "heat map", expected: "[K, H, W]".into(), got: shape });
    };
    let flat = hm_logits.f_to_kind(Kind::Float)?.f_reshape([-1])?;
    let best = if flat.device() == Device::Cpu { best_in_memory(&flat, max_peaks)? } else { best_on_device(&flat, max_peaks)? };
    // An empty map has no peaks but may have no columns to divide by either.
    let (n_rows, n_cols) = (n_rows.max(1), n_cols.max(1));
    Ok(Peaks {
        // In f64, so that devices whose f32 sigmoids differ in the last bit give the same score.
        scores: flat.f_index_select(0, &best)?.f_to_kind(Kind::Double)?.f_sigmoid()?.f_to_kind(Kind::Float)?,
        class_idx: best.f_divide_scalar_mode(n_rows * n_cols, "floor")?,
        row: best.f_divide_scalar_mode(n_cols, "floor")?.f_remainder(n_rows)?,
        col: best.f_remainder(n_cols)?,
    })
}

/// Indices of the best values of a CPU tensor `[L]`, best first. One pass: most cells fail a comparison with the worst kept so
/// far.
fn best_in_memory(flat: &Tensor, max_peaks: usize) -> Result<Tensor, PostprocessError> {
    let values = Vec::<f32>::try_from(flat)?;
    let n_peaks = max_peaks.min(values.len());
    if n_peaks == 0 {
        return Ok(Tensor::f_zeros([0], (Kind::Int64, Device::Cpu))?);
    }
    let best_first = |a: &(i32, i64), b: &(i32, i64)| b.0.cmp(&a.0).then(a.1.cmp(&b.1));
    let room = n_peaks.saturating_mul(8).min(values.len());
    let mut candidates: Vec<(i32, i64)> = Vec::with_capacity(room);
    let mut floor = i32::MIN;
    for (idx, &value) in values.iter().enumerate() {
        let rank = rank_of(value);
        // Equal to the floor is not enough: the cells kept come earlier and win the tie.
        if rank > floor {
            candidates.push((rank, idx as i64));
            if candidates.len() == room && room > n_peaks {
                floor = candidates.select_nth_unstable_by(n_peaks - 1, best_first).1.0;
                candidates.truncate(n_peaks);
            }
        }
    }
    candidates.sort_unstable_by(best_first);
    candidates.truncate(n_peaks);
    let indices: Vec<i64> = candidates.into_iter().map(|(_, idx)| idx).collect();
    Ok(Tensor::f_from_slice(&indices)?)
}

/// Indices of the best values of a tensor `[L]` on any device, best first. `topk` would leave the order of ties open.
fn best_on_device(flat: &Tensor, max_peaks: usize) -> Result<Tensor, PostprocessError> {
    let n_peaks = max_peaks.min(flat.size1()? as usize) as i64;
    let (_, order) = flat.f_sort_stable(true, 0, true)?;
    Ok(order.f_narrow(0, 0, n_peaks)?)
}

/// An integer that orders as the value does; NaN above all, -0 equal to +0.
fn rank_of(value: f32) -> i32 {
    if value.is_nan() {
        return i32::MAX;
    }
    let bits = (value + 0.0).to_bits() as i32;
    bits ^ ((bits >> 31) & i32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn best_on_any_device_is_the_best_in_memory() {
        // Whatever device runs it, the tensor version must order as the plain one does; the CPU shows it.
        let mut values: Vec<f32> =
            (0..50_000_u32).map(|idx| ((idx.wrapping_mul(2_654_435_761) >> 16) % 300) as f32 / 10.0 - 20.0).collect();
        values[100] = f32::NAN;
        values[200] = -f32::NAN;
        values[300] = f32::INFINITY;
        values[400] = -0.0;
        values[500] = f32::NEG_INFINITY;
        let neighbours: Vec<f32> = (0..50_000_u32).map(|idx| f32::from_bits(0xBF80_0000 - idx * 7_919 % 50_000)).collect();
        let rising: Vec<f32> = (0..50_000).map(|idx| idx as f32).collect();
        for values in [values, neighbours, rising, vec![1.0; 50_000]] {
            let flat = Tensor::from_slice(&values);
            for max_peaks in [0, 1, 500, 7_000, 50_000, 60_000] {
                let in_memory = Vec::<i64>::try_from(best_in_memory(&flat, max_peaks).unwrap()).unwrap();
                let on_device = Vec::<i64>::try_from(best_on_device(&flat, max_peaks).unwrap()).unwrap();
                assert_eq!(in_memory, on_device, "{max_peaks}");
            }
        }
    }
}
