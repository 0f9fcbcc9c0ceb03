//! The 3-D backbone in training on a CPU: plain rows forward, and the way back by hand.
//!
//! It computes what [`Backbone3d::forward`] and autograd compute, which is its oracle, in a fraction of the time: nothing is gathered
//! into a buffer, and each gradient is one pass over the pairs. Sums run in an order that does not depend on the number of threads.

use tch::{Device, Kind, Tensor};

use super::norm_rows::{NormStep, column_sums, mask_where_zero};
use super::{Backbone3d, Residual, SparseConvSpec, SparseLayer, cell_numbers, key_stages};
use crate::model::layers::Mode;
use crate::sparse::{ConvShape, Epilogue, FusedConv, Lattice, Pairs, Rows, SparseError, offsets_first, weight_gradient};

/// A forward pass that can be gone back through.
#[derive(Debug)]
pub struct Tape {
    steps: Vec<Step>,
    /// The backbone's input, then every layer's output.
    rows: Vec<Rows>,
    both_ways: Vec<(String, Pairs, Pairs)>,
    mode: Mode,
    /// `[N, C]` f32, wants a gradient: features of the last sites.
    pub encoded: Tensor,
    /// `[N]` i64: their cells.
    pub cells: Tensor,
    /// What these are cells of.
    pub lattice: Lattice,
}

/// A layer and what it met.
#[derive(Debug)]
struct Step {
    spec: SparseConvSpec,
    /// `[Cout, kz, ky, kx, Cin]`, the network's own tensor.
    weight: Tensor,
    /// The network's own.
    bias: Option<Tensor>,
    /// Output of the convolution.
    convolved: Rows,
    norm: NormStep,
}

impl Tape {
    /// Runs the backbone.
    ///
    /// # Shapes
    /// - `features`: `[P, D]` f32 on the CPU; `coords`: `[P, 4]` as (batch, z, y, x)
    ///
    /// # Errors
    /// When coordinates lie outside of the lattice or occur twice.
    pub fn forward(
        backbone: &Backbone3d,
        features: &Tensor,
        coords: &Tensor,
        batch_size: i64,
        mode: Mode,
    ) -> Result<Self, SparseError> {
        let lattice = Lattice::new(batch_size.max(1), backbone.lattice())?;
        let n_cells: i64 = backbone.lattice().iter().product();
        let cells = coords.f_select(1, 0)? * n_cells + cell_numbers(&coords.f_narrow(1, 1, 3)?, backbone.lattice());
        let (keys, order) = cells.f_sort(0, false)?;
        let specs: Vec<SparseConvSpec> = backbone.layers.iter().map(|layer| layer.spec.clone()).collect();
        let stages = key_stages(&specs, Vec::try_from(keys)?, lattice)?;
        let mut rows = vec![to_rows(&features.f_index_select(0, &order)?)?];
        let (mut steps, mut opened) = (Vec::new(), 0);
        for (layer_idx, layer) in backbone.layers.iter().enumerate() {
            let Some(stage) = stages.iter().find(|stage| stage.index_key == layer.spec.index_key) else { continue };
            if layer.spec.residual == Residual::Opens {
                opened = layer_idx;
            }
            let conv = forward_conv(layer)?;
            let mut convolved = Rows::default();
            conv.run(&rows[layer_idx], &stage.pairs, stage.keys.len(), Epilogue::default(), &mut convolved)?;
            let norm = NormStep::new(&layer.norm, &convolved, mode)?;
            let added = (layer.spec.residual == Residual::Closes).then(|| &rows[opened]);
            rows.push(norm.apply_and_relu(&convolved, added));
            let (weight, bias) = (layer.weight.shallow_clone(), layer.bias.as_ref().map(Tensor::shallow_clone));
            steps.push(Step { spec: layer.spec.clone(), weight, bias, convolved, norm });
        }
        let (cells, lattice) = stages.last().map_or((&[][..], lattice), |stage| (&stage.keys[..], stage.lattice));
        let cells = Tensor::f_from_slice(cells)?;
        let encoded = to_tensor(&rows[rows.len() - 1])?.f_set_requires_grad(true)?;
        let both_ways = stages.into_iter().map(|stage| (stage.index_key.to_owned(), stage.pairs.clone(), stage.pairs.inverse()));
        let both_ways = both_ways.collect();
        Ok(Self { steps, rows, both_ways, mode, encoded, cells, lattice })
    }

    /// The bird's-eye map, as [`super::compress_heights`] makes it; gradients flow to [`Self::encoded`].
    ///
    /// # Shapes
    /// - out: `[B, C * D, H, W]`
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn map(&self) -> Result<Tensor, SparseError> {
        let ([d, h, w], b) = (self.lattice.shape(), self.lattice.batch());
        let (_, c) = self.encoded.size2()?;
        let cells = Tensor::f_zeros([b * d * h * w, c], (Kind::Float, Device::Cpu))?;
        let dense = cells.f_index_copy(0, &self.cells, &self.encoded)?.f_view([b, d, h, w, c])?;
        Ok(dense.f_permute([0, 4, 1, 2, 3])?.f_reshape([b, c * d, h, w])?)
    }

    /// Goes back from the gradient that [`Self::encoded`] has been given, and adds to those of all weights, as autograd would.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn backward(&self) -> Result<(), SparseError> {
        let of_encoded = self.encoded.grad();
        if !of_encoded.defined() {
            return Ok(());
        }
        // Of a layer's output; and of the input of a residual block, on the way that goes round it.
        let (mut gradient, mut around) = (to_rows(&of_encoded)?, None);
        // The derivative of a sum of products is the other factor: with it autograd adds to what the weights have.
        let mut products = Vec::new();
        for (layer_idx, step) in self.steps.iter().enumerate().rev() {
            let Some((_, there, back)) = self.both_ways.iter().find(|(key, ..)| *key == step.spec.index_key) else { continue };
            mask_where_zero(&mut gradient, &self.rows[layer_idx + 1]);
            if step.spec.residual == Residual::Closes {
                around = Some(gradient.clone());
            }
            let [of_weight, of_bias] = step.norm.backward(&mut gradient, &step.convolved, self.mode);
            products.push(step.norm.weight.f_dot(&of_weight)?);
            products.push(step.norm.bias.f_dot(&of_bias)?);
            let x = &self.rows[layer_idx];
            products
                .push(step.weight.f_mul(&kernel_of(&weight_gradient(x, &gradient, there)?, &step.spec)?)?.f_sum(Kind::Float)?);
            if let Some(bias) = &step.bias {
                products.push(bias.f_dot(&Tensor::f_from_slice(&column_sums(&gradient))?)?);
            }
            if layer_idx > 0 {
                let add = if step.spec.residual == Residual::Opens { around.take() } else { None };
                let mut of_input = Rows::default();
                let epilogue = Epilogue { add: add.as_ref(), relu: false };
                backward_conv(step)?.run(&gradient, back, x.len(), epilogue, &mut of_input)?;
                gradient = of_input;
            }
        }
        let trained: Vec<Tensor> = products.into_iter().filter(Tensor::requires_grad).collect();
        if !trained.is_empty() {
            Tensor::f_stack(&trained, 0)?.f_sum(Kind::Float)?.f_backward()?;
        }
        Ok(())
    }
}

fn forward_conv(layer: &SparseLayer) -> Result<FusedConv, SparseError> {
    let bias = match &layer.bias {
        Some(bias) => values(bias)?,
        None => vec![0.0; layer.spec.c_out as usize],
    };
    FusedConv::new(&values(&offsets_first(&layer.weight)?)?, &bias, layer.spec.shape.n_offsets(), layer.spec.c_in as usize)
}

/// From the gradient of a layer's output to that of its input, over the inverse pairs.
fn backward_conv(step: &Step) -> Result<FusedConv, SparseError> {
    let weight = values(&offsets_first(&step.weight)?.f_transpose(1, 2)?)?; // [K, Cout, Cin]
    FusedConv::new(&weight, &vec![0.0; step.spec.c_in as usize], step.spec.shape.n_offsets(), step.spec.c_out as usize)
}

/// `[K, Cin, Cout]` to the shape of a weight, `[Cout, kz, ky, kx, Cin]`.
fn kernel_of(values: &[f32], spec: &SparseConvSpec) -> Result<Tensor, SparseError> {
    let [kz, ky, kx] = ConvShape::kernel(&spec.shape);
    let kernel = Tensor::f_from_slice(values)?.f_view([kz, ky, kx, spec.c_in, spec.c_out])?;
    Ok(kernel.f_permute([4, 0, 1, 2, 3])?)
}

fn values(tensor: &Tensor) -> Result<Vec<f32>, SparseError> {
    Ok(Vec::try_from(tensor.f_detach()?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?)?)
}

fn to_rows(tensor: &Tensor) -> Result<Rows, SparseError> {
    let (_, channels) = tensor.size2()?;
    Ok(Rows::new(&values(tensor)?, channels as usize))
}

fn to_tensor(rows: &Rows) -> Result<Tensor, SparseError> {
    let values: Vec<f32> = rows.rows().flatten().copied().collect();
    Ok(Tensor::f_from_slice(&values)?.f_view([rows.len() as i64, rows.channels() as i64])?)
}
