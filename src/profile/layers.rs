//! What a network multiplies: its layers with the number of places each one is applied at. The only walk over the layers that
//! efficiency figures rest on.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::model::backbone_3d::{Backbone3d, SparseLayer};
use crate::model::center_head::Branch;
use crate::model::layers::ConvNormRelu;
use crate::model::net::{Front, Net};
use crate::model::params::Params;
use crate::model::spec::ModelSpec;

/// Which part of the network a layer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Pillar features.
    Vfe,
    /// The sparse 3-D backbone.
    Backbone3d,
    /// Convolutions of one block of the 2-D backbone, by its index.
    Block(usize),
    /// All transposed convolutions of the 2-D backbone.
    Deblocks,
    /// Shared convolution and branches.
    Head,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Group::Vfe => f.write_str("vfe"),
            Group::Backbone3d => f.write_str("3-D backbone"),
            Group::Block(block_idx) => write!(f, "block {block_idx}"),
            Group::Deblocks => f.write_str("deblocks"),
            Group::Head => f.write_str("head"),
        }
    }
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where a layer is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// At every point of every pillar. The reference pads each pillar to the cap and computes the padding too.
    Points,
    /// At every cell of its output map of this many cells.
    Cells(u64),
    /// At every pair of sites of the index key of this number, [`super::Workload::sparse`].
    Pairs(usize),
}

/// What a layer computes at one place of its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A product with a matrix.
    Linear,
    /// A convolution with a kernel of this many cells.
    Convolution {
        /// Kernel height times width.
        kernel: u64,
    },
    /// A sparse convolution, whose products depend on the sites.
    Sparse {
        /// Offsets of the kernel.
        kernel: u64,
    },
    /// A transposed convolution whose kernel is as wide as its stride, so that each output cell has one input cell.
    Transposed {
        /// Of both axes.
        stride: u64,
    },
}

/// One layer with weights, and the batch norm behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Part of the network.
    pub group: Group,
    /// What it computes.
    pub operation: Operation,
    /// Input channels.
    pub c_in: u64,
    /// Output channels.
    pub c_out: u64,
    /// Whether it adds a bias.
    pub bias: bool,
    /// Whether a batch norm follows, with a weight and a bias per channel.
    pub norm: bool,
    /// Where.
    pub places: Places,
}

impl Layer {
    /// Trained values: weights, biases, scale and shift of the norm; not its running statistics.
    pub fn n_params(&self) -> u64 {
        let kernel = match self.operation {
            Operation::Linear => 1,
            Operation::Convolution { kernel } | Operation::Sparse { kernel } => kernel,
            Operation::Transposed { stride } => stride * stride,
        };
        let per_channel = u64::from(self.bias) + 2 * u64::from(self.norm);
        self.c_out * (self.c_in * kernel + per_channel)
    }
}

/// All layers of a spec's network, in the order in which they run.
pub fn layers(spec: &ModelSpec) -> Vec<Layer> {
    // Listing parameters allocates none of them.
    let params = Params::list();
    let net = Net::new(&params, spec);
    let [nx, ny, _] = spec.grid().shape;
    let mut layers = Vec::new();
    match &net.front {
        Front::Pillar(vfe) => layers.extend(vfe.layers.iter().map(|layer| {
            let [c_out, c_in] = channels(&layer.linear.size());
            let operation = Operation::Linear;
            Layer { group: Group::Vfe, operation, c_in, c_out, bias: false, norm: true, places: Places::Points }
        })),
        Front::Voxel(backbone) => layers.extend(sparse_layers(backbone)),
    }
    let stride = spec.network.stride() as u64;
    let (mut width, mut height) = (nx as u64 / stride, ny as u64 / stride);
    let mut deblocks = Vec::new();
    for (block_idx, block) in net.backbone.blocks.iter().enumerate() {
        for conv in &block.convs {
            (width, height) = (width / conv.stride as u64, height / conv.stride as u64);
            layers.push(convolution(Group::Block(block_idx), conv, width * height));
        }
        let stride = block.deconv.stride as u64;
        let [c_in, c_out] = channels(&block.deconv.weight.size());
        let places = Places::Cells(width * stride * height * stride);
        let operation = Operation::Transposed { stride };
        deblocks.push(Layer { group: Group::Deblocks, operation, c_in, c_out, bias: false, norm: true, places });
    }
    // Every transposed convolution leads to the map that the head works on.
    let stride = net.backbone.blocks.last().map_or(1, |block| block.deconv.stride as u64);
    let n_cells = width * stride * height * stride;
    layers.extend(deblocks);
    layers.push(convolution(Group::Head, &net.head.shared, n_cells));
    for branch in net.head.regression.iter().chain([&net.head.heat_map]) {
        layers.extend(of_branch(branch, n_cells));
    }
    layers
}

fn sparse_layers(backbone: &Backbone3d) -> impl Iterator<Item = Layer> {
    let mut keys: Vec<&str> = Vec::new();
    backbone.layers.iter().map(move |SparseLayer { spec, .. }| {
        let number = keys.iter().position(|key| **key == spec.index_key).unwrap_or_else(|| {
            keys.push(&spec.index_key);
            keys.len() - 1
        });
        Layer {
            group: Group::Backbone3d,
            operation: Operation::Sparse { kernel: spec.shape.n_offsets() as u64 },
            c_in: spec.c_in as u64,
            c_out: spec.c_out as u64,
            bias: spec.has_bias,
            norm: true,
            places: Places::Pairs(number),
        }
    })
}

fn convolution(group: Group, conv: &ConvNormRelu, n_cells: u64) -> Layer {
    let size = conv.weight.size();
    let [c_out, c_in] = channels(&size);
    let operation = Operation::Convolution { kernel: kernel(&size) };
    Layer { group, operation, c_in, c_out, bias: conv.bias.is_some(), norm: true, places: Places::Cells(n_cells) }
}

fn of_branch(branch: &Branch, n_cells: u64) -> [Layer; 2] {
    let size = branch.weight.size();
    let [c_out, c_in] = channels(&size);
    let operation = Operation::Convolution { kernel: kernel(&size) };
    let places = Places::Cells(n_cells);
    let last = Layer { group: Group::Head, operation, c_in, c_out, bias: true, norm: false, places };
    [convolution(Group::Head, &branch.hidden, n_cells), last]
}

/// The first two sizes of a weight.
fn channels(size: &[i64]) -> [u64; 2] {
    std::array::from_fn(|axis| size.get(axis).map_or(0, |n| *n as u64))
}

/// Cells of the kernel of a convolution's weight.
fn kernel(size: &[i64]) -> u64 {
    size.iter().skip(2).map(|n| *n as u64).product()
}
