//! The walk from points to boxes with the channels kept so far in hand.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::{InheritError, Rank, Remap, Wiring};
use crate::model::params::{ParamDecl, Weights};

/// Source channels in the order in which the student has them.
type Channels = Vec<i64>;

/// Where a weight has its outputs and inputs.
#[derive(Clone, Copy)]
enum Axes {
    /// `[out, in, ..]`: linear, 2-D convolution.
    OutIn,
    /// `[in, out, ..]`: transposed convolution.
    InOut,
    /// `[out, kz, ky, kx, in]`: sparse convolution.
    Sparse,
}

impl Axes {
    fn output(self) -> usize {
        if matches!(self, Self::InOut) { 1 } else { 0 }
    }

    fn input(self) -> usize {
        match self {
            Self::OutIn => 1,
            Self::InOut => 0,
            Self::Sparse => 4,
        }
    }
}

/// Which outputs a layer keeps.
#[derive(Clone, Copy)]
enum Keep<'a> {
    /// By rank; for sums of magnitudes over these inputs.
    Ranked(&'a [i64]),
    /// These.
    These(&'a [i64]),
    /// All of them: boxes and classes.
    All,
}

struct Walk<'a> {
    source: &'a Weights,
    student: BTreeMap<&'a str, &'a [i64]>,
    remap: Remap,
    inherited: Weights,
}

pub(super) fn walk(source: &Weights, student: &[ParamDecl], remap: Remap) -> Result<Weights, InheritError> {
    let shapes = student.iter().map(|decl| (decl.name.as_str(), decl.shape.as_slice())).collect();
    let mut walk = Walk { source, student: shapes, remap, inherited: Weights::new() };
    let features = match walk.has("backbone_3d.conv_input.0.weight") {
        true => walk.sparse_backbone()?,
        false => MapInput::plain(walk.pillar_features()?),
    };
    let map = walk.backbone(features)?;
    walk.head(&map)?;
    for name in shapes_of_counters(&walk.student) {
        let counter = walk.source(name)?.copy();
        walk.inherited.insert(name.to_owned(), counter);
    }
    Ok(walk.inherited)
}

/// Channels of the bird's-eye map, and those over which the released code sums magnitudes of the layer that takes it.
struct MapInput {
    channels: Channels,
    summed: Channels,
}

impl MapInput {
    fn plain(channels: Channels) -> Self {
        Self { summed: channels.clone(), channels }
    }
}

fn shapes_of_counters<'a>(student: &BTreeMap<&'a str, &'a [i64]>) -> Vec<&'a str> {
    student.keys().copied().filter(|name| name.ends_with("num_batches_tracked") || *name == "global_step").collect()
}

impl Walk<'_> {
    fn has(&self, name: &str) -> bool {
        self.student.contains_key(name)
    }

    fn source(&self, name: &str) -> Result<&Tensor, InheritError> {
        self.source.get(name).ok_or_else(|| InheritError::Missing { name: name.to_owned() })
    }

    fn is_exact(&self) -> bool {
        self.remap.wiring == Wiring::Exact
    }

    /// `vfe.*`: each layer but the last gives its features and, behind them, their maximum over the pillar.
    fn pillar_features(&mut self) -> Result<Channels, InheritError> {
        let layers: Vec<String> = (0..)
            .map(|idx| format!("vfe.pfn_layers.{idx}"))
            .take_while(|path| self.has(&format!("{path}.linear.weight")))
            .collect();
        let first = format!("{}.linear.weight", layers.first().map_or("vfe.pfn_layers.0", String::as_str));
        let mut inputs = all(self.channels_of(&first, Axes::OutIn.input())?);
        for (idx, path) in layers.iter().enumerate() {
            let linear = format!("{path}.linear");
            let kept = self.layer(&linear, Some(&format!("{path}.norm")), Axes::OutIn, &inputs, Keep::Ranked(&inputs))?;
            if idx + 1 == layers.len() {
                return Ok(kept);
            }
            let width = self.channels_of(&format!("{linear}.weight"), 0)?;
            inputs = match self.remap {
                Remap { rank: Rank::First, wiring: Wiring::Released } => all(2 * kept.len() as i64),
                _ => joined(&kept, width, 2),
            };
        }
        Ok(inputs)
    }

    /// `backbone_3d.*` up to the map that heights are joined into.
    fn sparse_backbone(&mut self) -> Result<MapInput, InheritError> {
        let mut kept = all(self.channels_of("backbone_3d.conv_input.0.weight", Axes::Sparse.input())?);
        kept = self.sparse("backbone_3d.conv_input.0", "backbone_3d.conv_input.1", &kept, None)?;
        let mut stage = 1;
        while self.has(&format!("backbone_3d.conv{stage}.1.conv1.weight")) {
            let path = format!("backbone_3d.conv{stage}");
            if self.has(&format!("{path}.0.0.weight")) {
                kept = self.sparse(&format!("{path}.0.0"), &format!("{path}.0.1"), &kept, None)?;
            }
            // A stage that begins with a strided convolution has it in place of the first block.
            let mut idx = if self.has(&format!("{path}.0.conv1.weight")) { 0 } else { 1 };
            while self.has(&format!("{path}.{idx}.conv1.weight")) {
                let block = format!("{path}.{idx}");
                let hidden = self.sparse(&format!("{block}.conv1"), &format!("{block}.bn1"), &kept, None)?;
                // The block's input is added to its output, so the two must be the same channels.
                let added_to = kept.clone();
                let forced = self.is_exact().then_some(added_to.as_slice());
                kept = self.sparse(&format!("{block}.conv2"), &format!("{block}.bn2"), &hidden, forced)?;
                idx += 1;
            }
            stage += 1;
        }
        let before = kept;
        let after = self.sparse("backbone_3d.conv_out.0", "backbone_3d.conv_out.1", &before, None)?;

        let width = self.channels_of("backbone_3d.conv_out.0.weight", Axes::Sparse.output())?;
        let heights = self.channels_of("backbone_2d.blocks.0.1.weight", 1)? / width.max(1);
        Ok(if self.is_exact() {
            MapInput::plain(after.iter().flat_map(|channel| (0..heights).map(move |height| channel * heights + height)).collect())
        } else {
            MapInput { channels: joined(&after, width, heights), summed: joined(&before, width, heights) }
        })
    }

    fn sparse(&mut self, path: &str, norm: &str, inputs: &[i64], forced: Option<&[i64]>) -> Result<Channels, InheritError> {
        let every = all(self.channels_of(&format!("{path}.weight"), Axes::Sparse.input())?);
        let summed = if self.is_exact() { inputs } else { &every };
        self.layer(path, Some(norm), Axes::Sparse, inputs, forced.map_or(Keep::Ranked(summed), Keep::These))
    }

    /// `backbone_2d.*`: channels of the joined map.
    fn backbone(&mut self, map: MapInput) -> Result<Channels, InheritError> {
        let MapInput { channels: mut kept, mut summed } = map;
        let (mut upsampled, mut offset) = (Vec::new(), 0);
        let mut block = 0;
        while self.has(&format!("backbone_2d.blocks.{block}.1.weight")) {
            let path = format!("backbone_2d.blocks.{block}");
            let mut idx = 1;
            while self.has(&format!("{path}.{idx}.weight")) {
                let norm = format!("{path}.{}", idx + 1);
                kept = self.layer(&format!("{path}.{idx}"), Some(&norm), Axes::OutIn, &kept, Keep::Ranked(&summed))?;
                summed.clone_from(&kept);
                idx += 3;
            }
            let path = format!("backbone_2d.deblocks.{block}");
            let up = self.layer(&format!("{path}.0"), Some(&format!("{path}.1")), Axes::InOut, &kept, Keep::Ranked(&kept))?;
            upsampled.extend(up.into_iter().map(|channel| channel + offset));
            offset += self.channels_of(&format!("{path}.0.weight"), Axes::InOut.output())?;
            block += 1;
        }
        Ok(upsampled)
    }

    /// `dense_head.*` of a centre head.
    fn head(&mut self, map: &[i64]) -> Result<(), InheritError> {
        let shared = "dense_head.shared_conv";
        let norm = format!("{shared}.1");
        let shared = self.layer(&format!("{shared}.0"), Some(&norm), Axes::OutIn, map, Keep::Ranked(map))?;
        let prefix = "dense_head.heads_list.";
        let branches: Vec<String> = self
            .student
            .keys()
            .filter_map(|name| name.strip_suffix(".0.0.weight").filter(|path| path.starts_with(prefix)).map(str::to_owned))
            .collect();
        for path in branches {
            let norm = format!("{path}.0.1");
            let hidden = self.layer(&format!("{path}.0.0"), Some(&norm), Axes::OutIn, &shared, Keep::Ranked(&shared))?;
            self.layer(&format!("{path}.1"), None, Axes::OutIn, &hidden, Keep::All)?;
        }
        Ok(())
    }

    /// One weight with its bias and norm; the channels kept of its output.
    fn layer(
        &mut self,
        path: &str,
        norm: Option<&str>,
        axes: Axes,
        inputs: &[i64],
        keep: Keep<'_>,
    ) -> Result<Channels, InheritError> {
        let name = format!("{path}.weight");
        let teacher = self.channels_of(&name, axes.output())?;
        let shape = *self.student.get(name.as_str()).ok_or_else(|| InheritError::Unused { count: 1, first: name.clone() })?;
        let student = shape.get(axes.output()).copied().unwrap_or_default();
        if student > teacher {
            return Err(InheritError::Wider { name, student, teacher });
        }
        if let Some(&beyond) = inputs.iter().find(|channel| **channel >= self.source[&name].size()[axes.input()]) {
            let got = self.source[&name].size();
            let expected = got.iter().enumerate().map(|(axis, n)| if axis == axes.input() { beyond + 1 } else { *n }).collect();
            return Err(InheritError::Shape { name, expected, got });
        }
        let weight = self.source(&name)?;
        let kept = match keep {
            Keep::All => all(teacher),
            Keep::These(channels) => channels.to_vec(),
            // The order of channels is free, so a layer that keeps all of them keeps it.
            Keep::Ranked(_) if self.remap.rank == Rank::First || (self.is_exact() && student == teacher) => all(student),
            Keep::Ranked(summed) => {
                let scores = match (self.remap.rank, norm) {
                    (Rank::NormScale, Some(norm)) => self.source(&format!("{norm}.weight"))?.abs().to_kind(Kind::Double),
                    _ => magnitudes(weight, axes, summed),
                };
                best(&scores, student, self.remap.rank)
            }
        };
        let chosen = if weight.size() == shape && !self.is_exact() {
            weight.copy()
        } else {
            let outputs = weight.index_select(axes.output() as i64, &Tensor::from_slice(&kept));
            outputs.index_select(axes.input() as i64, &Tensor::from_slice(inputs)).contiguous()
        };
        self.inherited.insert(name, chosen);

        let bias = format!("{path}.bias");
        let of_norm = norm.map(|norm| ["weight", "bias", "running_mean", "running_var"].map(|part| format!("{norm}.{part}")));
        for vector in of_norm.into_iter().flatten().chain(self.has(&bias).then_some(bias)) {
            let values = self.source(&vector)?;
            let copied = !self.is_exact() && values.size() == [kept.len() as i64];
            let values = if copied { values.copy() } else { values.index_select(0, &Tensor::from_slice(&kept)) };
            self.inherited.insert(vector, values);
        }
        Ok(kept)
    }

    /// Size of an axis of the teacher's tensor.
    fn channels_of(&self, name: &str, axis: usize) -> Result<i64, InheritError> {
        let shape = self.source(name)?.size();
        let got = || InheritError::Shape { name: name.to_owned(), expected: vec![], got: shape.clone() };
        shape.get(axis).copied().ok_or_else(got)
    }
}

fn all(n: i64) -> Channels {
    (0..n).collect()
}

/// The same channels of each of several parts of `width` channels lying behind one another.
fn joined(channels: &[i64], width: i64, parts: i64) -> Channels {
    (0..parts).flat_map(|part| channels.iter().map(move |channel| part * width + channel)).collect()
}

/// Sum of the magnitudes of each output's weights over some inputs, `[out]` f64: neighbours can be as near as 1e-8 of themselves.
fn magnitudes(weight: &Tensor, axes: Axes, inputs: &[i64]) -> Tensor {
    let chosen = weight.index_select(axes.input() as i64, &Tensor::from_slice(inputs)).abs();
    let others: Vec<i64> = (0..weight.dim() as i64).filter(|axis| *axis != axes.output() as i64).collect();
    chosen.sum_dim_intlist(others.as_slice(), false, Kind::Double)
}

fn best(scores: &Tensor, n: i64, rank: Rank) -> Channels {
    let score = |channel: &i64| scores.double_value(&[*channel]);
    let mut order = all(scores.size().first().copied().unwrap_or_default());
    // Stable, so equal scores keep the teacher's order.
    match rank {
        Rank::L1Smallest => order.sort_by(|a, b| score(a).total_cmp(&score(b))),
        _ => order.sort_by(|a, b| score(b).total_cmp(&score(a))),
    }
    order.truncate(n as usize);
    order
}
