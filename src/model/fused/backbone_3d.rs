//! The 3-D backbone for inference: on a CPU through [`FusedConv`] over plain rows, elsewhere by tensor operations.

use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use crate::model::backbone_3d::{Backbone3d, Residual, SparseConvSpec, SparseLayer, cell_numbers, expect_sparse, key_stages};
use crate::sparse::{Epilogue, FusedConv, Lattice, Rows, Rulebooks, Sites, SparseError, convolve, offsets_first};

/// The backbone with its norms folded in.
#[derive(Debug)]
pub struct FusedBackbone3d {
    layers: Vec<SparseConvSpec>,
    kernels: Kernels,
    lattice: Lattice,
    /// Heights of the last stage's lattice (D).
    heights: i64,
}

#[derive(Debug)]
enum Kernels {
    Host(Vec<FusedConv>),
    /// Weights `[K, Cin, Cout]` and biases, both of the maps' element type.
    Device(Vec<(Tensor, Tensor)>, Kind),
}

/// Features of the last stage's sites.
#[derive(Debug)]
pub struct SparseFeatures {
    rows: FeatureRows,
    lattice: Lattice,
}

#[derive(Debug)]
enum FeatureRows {
    /// Rows and the number of each one's cell.
    Host(Rows, Vec<i64>),
    /// `[N, C]` and the number of each row's cell, `[N]` i64.
    Device(Tensor, Tensor),
}

impl FusedBackbone3d {
    /// Folds a plain one where its weights are.
    pub fn new(backbone: &Backbone3d, kind: Kind) -> Self {
        expect_sparse(Self::try_new(backbone, kind))
    }

    fn try_new(backbone: &Backbone3d, kind: Kind) -> Result<Self, SparseError> {
        let lattice = Lattice::new(1, backbone.lattice())?;
        let mut last = lattice;
        for layer in &backbone.layers {
            last = layer.spec.shape.output(&last)?;
        }
        let on_cpu = backbone.layers.iter().all(|layer| layer.weight.device() == Device::Cpu);
        let kernels = if on_cpu {
            let fuse = |layer: &SparseLayer| {
                let (weight, bias) = folded(layer)?;
                let values = |tensor: &Tensor| Vec::<f32>::try_from(tensor.contiguous().view([-1]));
                FusedConv::new(&values(&weight)?, &values(&bias)?, layer.spec.shape.n_offsets(), layer.spec.c_in as usize)
            };
            Kernels::Host(backbone.layers.iter().map(fuse).collect::<Result<_, _>>()?)
        } else {
            let fuse = |layer: &SparseLayer| folded(layer).map(|(weight, bias)| (weight.to_kind(kind), bias.to_kind(kind)));
            Kernels::Device(backbone.layers.iter().map(fuse).collect::<Result<_, _>>()?, kind)
        };
        let layers = backbone.layers.iter().map(|layer| layer.spec.clone()).collect();
        Ok(Self { layers, kernels, lattice, heights: last.shape()[0] })
    }

    /// The weight of the convolution over [`SparseFeatures::to_map`]: its inputs as that has them, the heights of a channel apart.
    ///
    /// # Shapes
    /// - `[Cout, C * D, 3, 3]` to `[Cout, D * C, 3, 3]`
    pub fn heights_first(&self, weight: Tensor) -> Tensor {
        let (c_out, c_in, h, w) = weight.size4().unwrap_or_default();
        weight.view([c_out, c_in / self.heights, self.heights, h, w]).transpose(1, 2).reshape([c_out, c_in, h, w])
    }

    /// # Shapes
    /// - `features`: `[P, D]` f32; `coords`: `[P, 3]` i64 as (z, y, x)
    pub fn forward(&self, features: &Tensor, coords: &Tensor) -> SparseFeatures {
        let cells = cell_numbers(coords, self.lattice.shape());
        expect_sparse(match &self.kernels {
            Kernels::Host(convs) => self.on_host(convs, features, &cells),
            Kernels::Device(weights, kind) => self.on_device(weights, &features.to_kind(*kind), coords),
        })
    }

    fn on_host(&self, convs: &[FusedConv], features: &Tensor, cells: &Tensor) -> Result<SparseFeatures, SparseError> {
        let (keys, order) = cells.f_sort(0, false)?;
        let (_, d) = features.size2()?;
        let values = Vec::<f32>::try_from(features.f_index_select(0, &order)?.f_view([-1])?)?;
        let stages = key_stages(&self.layers, Vec::try_from(keys)?, self.lattice)?;
        let (mut x, mut kept, mut spare) = (Rows::new(&values, d as usize), Rows::default(), Rows::default());
        let mut end = None;
        for (layer, conv) in self.layers.iter().zip(convs) {
            let Some(stage) = stages.iter().find(|stage| stage.index_key == layer.index_key) else { continue };
            let add = (layer.residual == Residual::Closes).then_some(&kept);
            conv.run(&x, &stage.pairs, stage.keys.len(), Epilogue { add, relu: true }, &mut spare)?;
            std::mem::swap(&mut x, &mut spare);
            if layer.residual == Residual::Opens {
                std::mem::swap(&mut kept, &mut spare);
            }
            end = Some(stage);
        }
        let (keys, lattice) = end.map_or((Vec::new(), self.lattice), |stage| (stage.keys.clone(), stage.lattice));
        Ok(SparseFeatures { rows: FeatureRows::Host(x, keys), lattice })
    }

    fn on_device(&self, weights: &[(Tensor, Tensor)], features: &Tensor, coords: &Tensor) -> Result<SparseFeatures, SparseError> {
        let coords = coords.f_constant_pad_nd([1, 0, 0, 0])?; // batch 0 in front
        let (sites, rows) = Sites::from_coords(&coords, self.lattice)?;
        let (mut sites, mut x) = (Rc::new(sites), features.f_index_select(0, &rows)?);
        let (mut rulebooks, mut kept) = (Rulebooks::default(), None);
        for (layer, (weight, bias)) in self.layers.iter().zip(weights) {
            if layer.residual == Residual::Opens {
                kept = Some(x.shallow_clone());
            }
            let (out_sites, rules) = rulebooks.get(&layer.index_key, &sites, &layer.shape)?;
            x = convolve(&x, weight, Some(bias), &rules)?;
            if let (Residual::Closes, Some(kept)) = (layer.residual, &kept) {
                x = x.f_add(kept)?;
            }
            let _ = x.f_relu_()?;
            sites = out_sites;
        }
        let lattice = *sites.lattice();
        Ok(SparseFeatures { rows: FeatureRows::Device(x, sites.keys().shallow_clone()), lattice })
    }
}

/// Weight `[K, Cin, Cout]` and bias of a layer with its norm folded in.
fn folded(layer: &SparseLayer) -> Result<(Tensor, Tensor), SparseError> {
    let (scale, shift) = layer.norm.scale_and_shift();
    let bias = match &layer.bias {
        Some(bias) => bias * &scale + shift,
        None => shift,
    };
    Ok((offsets_first(&layer.weight)? * scale, bias))
}

impl SparseFeatures {
    /// Height compression with the heights of a channel apart: channel `c` at height `d` becomes channel `d * C + c`.
    ///
    /// # Shapes
    /// - out: `[1, D * C, H, W]` channels-last, zero where no site is
    pub fn to_map(&self, kind: Kind) -> Tensor {
        let [d, h, w] = self.lattice.shape();
        let (map, c) = match &self.rows {
            FeatureRows::Host(rows, keys) => (host_map(rows, keys, [d, h, w]), rows.channels() as i64),
            FeatureRows::Device(features, keys) => {
                let c = features.size().get(1).copied().unwrap_or_default();
                let (height, cell) = (keys.divide_scalar_mode(h * w, "floor"), keys.remainder(h * w));
                let mut map = Tensor::zeros([h * w * d, c], (features.kind(), features.device()));
                let _ = map.index_copy_(0, &(cell * d + height), features);
                (map, c)
            }
        };
        map.to_kind(kind).view([1, h, w, d * c]).permute([0, 3, 1, 2])
    }
}

fn host_map(rows: &Rows, keys: &[i64], [d, h, w]: [i64; 3]) -> Tensor {
    let c = rows.channels();
    let mut map = vec![0f32; (d * h * w) as usize * c];
    for (row, key) in rows.rows().zip(keys) {
        let (height, cell) = (key / (h * w), key % (h * w));
        let at = (cell * d + height) as usize * c;
        map[at..at + c].copy_from_slice(row);
    }
    Tensor::from_slice(&map)
}
