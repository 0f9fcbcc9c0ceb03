//! Names and shapes of the CP-Voxel family's tensors: enough to initialise one network from another, without running either.

use tch::Kind;

use crate::model::center_head::REGRESSION_BRANCHES;
use crate::model::params::ParamDecl;

/// Channels of a network of the family; sparsekd-spec section 2.2.
struct Widths {
    /// Of the first stage and of the four strided ones, the last twice.
    sparse: [i64; 6],
    /// Of the two blocks of the 2-D part.
    blocks: [i64; 2],
    /// Of each upsampled map.
    upsampled: i64,
    /// Of the head.
    head: i64,
}

/// Convolutions after the first one of each 2-D block.
const LAYERS: i64 = 5;
/// Columns of a point.
const FEATURES: i64 = 5;
/// Heights left where 3-D features become a map.
const HEIGHTS: i64 = 2;
/// Classes of the heat map.
const CLASSES: i64 = 3;

fn widths(name: &str) -> Option<Widths> {
    let (sparse, flat) = match name {
        "cp-voxel" => (4, 4),
        "cp-voxel-s" => (4, 2),
        "cp-voxel-xs" => (3, 2),
        "cp-voxel-xxs" => (2, 1),
        _ => return None,
    };
    let quarters = |base: i64, n: i64| base * n / 4;
    Some(Widths {
        sparse: [16, 16, 32, 64, 128, 128].map(|base| quarters(base, sparse)),
        blocks: [128, 256].map(|base| quarters(base, flat)),
        upsampled: quarters(256, flat),
        head: quarters(64, flat),
    })
}

/// Every tensor but the counters of the training framework; sparse kernels as `[out, kz, ky, kx, in]`.
pub fn params(name: &str) -> Option<Vec<ParamDecl>> {
    let widths = widths(name)?;
    let mut list = Vec::new();
    let mut take = |name: String, shape: &[i64]| list.push(ParamDecl { name, shape: shape.to_vec(), kind: Kind::Float });
    sparse_backbone(&mut take, &widths);
    backbone(&mut take, &widths);
    head(&mut take, &widths);
    Some(list)
}

type Take<'a> = &'a mut dyn FnMut(String, &[i64]);

fn norm(take: Take<'_>, path: &str, channels: i64) {
    for part in ["weight", "bias", "running_mean", "running_var"] {
        take(format!("{path}.{part}"), &[channels]);
    }
}

fn sparse_backbone(take: Take<'_>, widths: &Widths) {
    let c = widths.sparse;
    take("backbone_3d.conv_input.0.weight".to_owned(), &[c[0], 3, 3, 3, FEATURES]);
    norm(take, "backbone_3d.conv_input.1", c[0]);
    for stage in 1..=4 {
        let path = format!("backbone_3d.conv{stage}");
        let (c_in, c_out) = (c[stage - 1], c[stage]);
        if stage > 1 {
            take(format!("{path}.0.0.weight"), &[c_out, 3, 3, 3, c_in]);
            norm(take, &format!("{path}.0.1"), c_out);
        }
        let blocks = if stage == 1 { [0, 1] } else { [1, 2] };
        for block in blocks {
            for conv in [1, 2] {
                take(format!("{path}.{block}.conv{conv}.weight"), &[c_out, 3, 3, 3, c_out]);
                take(format!("{path}.{block}.conv{conv}.bias"), &[c_out]);
                norm(take, &format!("{path}.{block}.bn{conv}"), c_out);
            }
        }
    }
    take("backbone_3d.conv_out.0.weight".to_owned(), &[c[5], 3, 1, 1, c[4]]);
    norm(take, "backbone_3d.conv_out.1", c[5]);
}

fn backbone(take: Take<'_>, widths: &Widths) {
    let mut c_in = HEIGHTS * widths.sparse[5];
    for (block, c_out) in widths.blocks.into_iter().enumerate() {
        for layer in 0..=LAYERS {
            take(format!("backbone_2d.blocks.{block}.{}.weight", 1 + 3 * layer), &[c_out, c_in, 3, 3]);
            norm(take, &format!("backbone_2d.blocks.{block}.{}", 2 + 3 * layer), c_out);
            c_in = c_out;
        }
        let stride = 1 << block;
        take(format!("backbone_2d.deblocks.{block}.0.weight"), &[c_out, widths.upsampled, stride, stride]);
        norm(take, &format!("backbone_2d.deblocks.{block}.1"), widths.upsampled);
    }
}

fn head(take: Take<'_>, widths: &Widths) {
    let c = widths.head;
    let mut block = |path: String, c_in: i64| {
        take(format!("{path}.0.weight"), &[c, c_in, 3, 3]);
        take(format!("{path}.0.bias"), &[c]);
        norm(take, &format!("{path}.1"), c);
    };
    block("dense_head.shared_conv".to_owned(), widths.blocks.len() as i64 * widths.upsampled);
    let branches = REGRESSION_BRANCHES.into_iter().chain([("hm", CLASSES)]);
    for (name, _) in branches.clone() {
        block(format!("dense_head.heads_list.0.{name}.0"), c);
    }
    for (name, outputs) in branches {
        take(format!("dense_head.heads_list.0.{name}.1.weight"), &[outputs, c, 3, 3]);
        take(format!("dense_head.heads_list.0.{name}.1.bias"), &[outputs]);
    }
}
