//! Multiply-accumulates and activations of the layers, counted in two ways.

use serde::Serialize;

use super::layers::{Group, Layer, Operation, Places, layers};
use super::workload::{SparseWork, Workload};
use crate::model::spec::ModelSpec;

/// What counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// The paper's tool: padded slots of pillars are computed, a transposed convolution is charged its whole kernel at each output
    /// cell although only one weight in stride² meets it, batch norm costs two operations an element.
    ///
    /// # Source
    /// sparsekd-spec section 6.2.
    Paper,
    /// What has to be multiplied: stored points only, transposed convolutions once, batch norm folded into the layer before it.
    Actual,
}

/// Work of one frame. Fractional, because the number of pillars is a mean over frames.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Cost {
    /// Multiply-accumulates of linear layers and convolutions; the addition of a convolution's bias counts as one.
    pub layer_macs: f64,
    /// Operations of batch norms.
    pub norm_macs: f64,
    /// Values that linear layers and convolutions put out.
    pub activations: f64,
}

/// One part of a network.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GroupCost {
    /// Which part.
    pub group: Group,
    /// Trained values.
    pub params: u64,
    /// As the paper counts.
    pub paper: Cost,
    /// As it is.
    pub actual: Cost,
}

/// A network part by part, and as a whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NetworkCost {
    /// In the order in which they run.
    pub groups: Vec<GroupCost>,
    /// Trained values.
    pub params: u64,
    /// As the paper counts.
    pub paper: Cost,
    /// As it is.
    pub actual: Cost,
}

impl Cost {
    /// Layers and norms.
    pub fn macs(self) -> f64 {
        self.layer_macs + self.norm_macs
    }

    fn add(&mut self, other: Cost) {
        self.layer_macs += other.layer_macs;
        self.norm_macs += other.norm_macs;
        self.activations += other.activations;
    }
}

impl NetworkCost {
    /// Both countings of all parts but pillar features and 3-D backbone: what does not depend on the cloud.
    pub fn dense(&self) -> [Cost; 2] {
        let mut sums = [Cost::default(); 2];
        for group in self.groups.iter().filter(|group| !matches!(group.group, Group::Vfe | Group::Backbone3d)) {
            sums[0].add(group.paper);
            sums[1].add(group.actual);
        }
        sums
    }
}

/// Counts a spec's network for frames of a workload.
pub fn count(spec: &ModelSpec, workload: &Workload) -> NetworkCost {
    let mut total = NetworkCost { groups: Vec::new(), params: 0, paper: Cost::default(), actual: Cost::default() };
    for layer in layers(spec) {
        let (params, paper, actual) =
            (layer.n_params(), cost(&layer, workload, Counting::Paper), cost(&layer, workload, Counting::Actual));
        total.params += params;
        total.paper.add(paper);
        total.actual.add(actual);
        match total.groups.last_mut().filter(|last| last.group == layer.group) {
            Some(last) => {
                last.params += params;
                last.paper.add(paper);
                last.actual.add(actual);
            }
            None => total.groups.push(GroupCost { group: layer.group, params, paper, actual }),
        }
    }
    total
}

/// One layer and its norm.
pub fn cost(layer: &Layer, workload: &Workload, counting: Counting) -> Cost {
    let places = match (layer.places, counting) {
        (Places::Cells(n_cells), _) => n_cells as f64,
        (Places::Points, Counting::Paper) => workload.slots,
        (Places::Points, Counting::Actual) => workload.points_in_voxels,
        (Places::Pairs(key), _) => return sparse_cost(layer, workload.sparse.get(key).copied().unwrap_or_default(), counting),
    };
    let kernel = match (layer.operation, counting) {
        (Operation::Linear, _) | (Operation::Transposed { .. }, Counting::Actual) => 1,
        (Operation::Convolution { kernel } | Operation::Sparse { kernel }, _) => kernel,
        (Operation::Transposed { stride }, Counting::Paper) => stride * stride,
    };
    let activations = places * layer.c_out as f64;
    let layer_macs = activations * (layer.c_in * kernel + u64::from(layer.bias)) as f64;
    Cost { layer_macs, norm_macs: norm_macs(layer, activations, counting), activations }
}

/// A sparse layer: a product for each pair of sites and of channels. The paper's tool charges a bias once a site, not once a channel.
fn sparse_cost(layer: &Layer, work: SparseWork, counting: Counting) -> Cost {
    let activations = work.sites * layer.c_out as f64;
    let biases = match (layer.bias, counting) {
        (false, _) => 0.0,
        (true, Counting::Paper) => work.sites,
        (true, Counting::Actual) => activations,
    };
    let layer_macs = work.pairs * (layer.c_in * layer.c_out) as f64 + biases;
    Cost { layer_macs, norm_macs: norm_macs(layer, activations, counting), activations }
}

fn norm_macs(layer: &Layer, activations: f64, counting: Counting) -> f64 {
    if layer.norm && counting == Counting::Paper { 2.0 * activations } else { 0.0 }
}
