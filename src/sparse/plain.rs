//! The oracle: sparse convolution as its definition reads, cell by cell, sums in f64.

use std::collections::{BTreeSet, HashMap};

use super::{ConvShape, Kind, Lattice};

/// Output sites by the definition, in order.
///
/// # Shapes
/// - `sites`: (batch, z, y, x) of each input site
pub fn output_sites(sites: &[[i64; 4]], input: &Lattice, output: &Lattice, conv: &ConvShape) -> Vec<[i64; 4]> {
    if conv.kind() == Kind::Submanifold {
        return sites.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    }
    let occupied: BTreeSet<[i64; 4]> = sites.iter().copied().collect();
    let reaches = |key: &i64| conv.offsets().any(|k| occupied.contains(&moved(output.site(*key), k, conv)));
    debug_assert_eq!(input.batch(), output.batch());
    (0..output.n_cells()).filter(reaches).map(|key| output.site(key)).collect()
}

/// Output features at given sites.
///
/// # Shapes
/// - `sites`: `[N]`; `features`: `[N, Cin]`; `weight`: `[K, Cin, Cout]`; `bias`: `[Cout]` or empty; `out_sites`: `[N']`; out: `[N', Cout]`
pub fn convolve(
    sites: &[[i64; 4]],
    features: &[f64],
    weight: &[f64],
    bias: &[f64],
    out_sites: &[[i64; 4]],
    conv: &ConvShape,
) -> Vec<f64> {
    let row_of: HashMap<[i64; 4], usize> = sites.iter().enumerate().map(|(row, site)| (*site, row)).collect();
    let c_in = features.len() / sites.len().max(1);
    let c_out = weight.len() / (conv.n_offsets() * c_in).max(1);
    let mut out = Vec::with_capacity(out_sites.len() * c_out);
    for site in out_sites {
        let mut sums = if bias.is_empty() { vec![0.0; c_out] } else { bias.to_vec() };
        for (k, offset) in conv.offsets().enumerate() {
            let Some(row) = row_of.get(&moved(*site, offset, conv)) else {
                continue;
            };
            for ci in 0..c_in {
                for (co, sum) in sums.iter_mut().enumerate() {
                    *sum += features[row * c_in + ci] * weight[(k * c_in + ci) * c_out + co];
                }
            }
        }
        out.extend(sums);
    }
    out
}

/// The input cell that an output cell has under an offset of the kernel.
fn moved(site: [i64; 4], offset: [i64; 3], conv: &ConvShape) -> [i64; 4] {
    let at = |axis: usize| site[axis + 1] * conv.stride()[axis] - conv.padding()[axis] + offset[axis];
    [site[0], at(0), at(1), at(2)]
}
