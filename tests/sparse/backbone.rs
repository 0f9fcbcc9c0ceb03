//! The 3-D backbone of CP-Voxel as a list of layers, run by either way to compute.

use std::collections::BTreeMap;
use std::rc::Rc;

use pivotal::sparse::{ConvShape, Epilogue, FusedConv, Lattice, Pairs, Rows, Rulebooks, Sites, convolve, pairs_of, strided_keys};
use tch::Tensor;

/// Convolution, norm, maybe the addition of what was kept, ReLU.
pub struct Layer {
    pub conv_path: String,
    pub norm_path: String,
    pub key: String,
    pub conv: ConvShape,
    pub c_in: i64,
    pub c_out: i64,
    pub has_bias: bool,
    /// Whether its input is what the next `adds` adds.
    pub keeps_input: bool,
    pub adds: bool,
    /// Name of its output in the golden files.
    pub output: Option<&'static str>,
}

/// Channels after `conv_input` and each stage, the last after `conv_out`.
pub fn voxel_res_backbone(channels: [i64; 6]) -> Vec<Layer> {
    let cube = ConvShape::submanifold([3; 3]).unwrap();
    let layer = |conv_path: &str, norm_path: &str, key: &str, conv, c_in, c_out, has_bias| Layer {
        conv_path: format!("backbone_3d.{conv_path}"),
        norm_path: format!("backbone_3d.{norm_path}"),
        key: key.to_owned(),
        conv,
        c_in,
        c_out,
        has_bias,
        keeps_input: false,
        adds: false,
        output: None,
    };
    let mut layers = vec![layer("conv_input.0", "conv_input.1", "subm1", cube, 5, channels[0], false)];
    layers[0].output = Some("conv_input");
    for stage in 1..=4 {
        let c = channels[stage];
        let name = ["", "conv1", "conv2", "conv3", "conv4"][stage];
        if stage > 1 {
            let padding = if stage == 4 { [0, 1, 1] } else { [1; 3] };
            let down = ConvShape::strided([3; 3], [2; 3], padding).unwrap();
            let (path, norm) = (format!("{name}.0.0"), format!("{name}.0.1"));
            layers.push(layer(&path, &norm, &format!("spconv{stage}"), down, channels[stage - 1], c, false));
        }
        for block in 0..2 {
            let index = if stage > 1 { block + 1 } else { block };
            for half in [1, 2] {
                let (path, norm) = (format!("{name}.{index}.conv{half}"), format!("{name}.{index}.bn{half}"));
                let mut one = layer(&path, &norm, &format!("subm{stage}"), cube, c, c, true);
                (one.keeps_input, one.adds) = (half == 1, half == 2);
                layers.push(one);
            }
        }
        layers.last_mut().unwrap().output = Some(name);
    }
    let out = ConvShape::strided([3, 1, 1], [2, 1, 1], [0; 3]).unwrap();
    layers.push(layer("conv_out.0", "conv_out.1", "spconv_down2", out, channels[4], channels[5], false));
    layers.last_mut().unwrap().output = Some("encoded");
    layers
}

/// Weights in the layout `[K, Cin, Cout]` and norms by name.
pub type Weights = BTreeMap<String, Tensor>;

/// Weight and bias with the norm folded in.
pub fn folded(layer: &Layer, weights: &Weights) -> (Tensor, Tensor) {
    let norm = |name: &str| &weights[&format!("{}.{name}", layer.norm_path)];
    let scale = norm("weight") / (norm("running_var") + 1e-3).sqrt();
    let shift = norm("bias") - norm("running_mean") * &scale;
    let bias = match layer.has_bias {
        true => &weights[&format!("{}.bias", layer.conv_path)] * &scale + shift,
        false => shift,
    };
    (&weights[&format!("{}.weight", layer.conv_path)] * &scale, bias)
}

/// By tensor operations, unfused, norms in evaluation mode.
pub fn run_tensors(layers: &[Layer], weights: &Weights, x: &Tensor, sites: Rc<Sites>) -> Vec<(&'static str, Rc<Sites>, Tensor)> {
    let mut rulebooks = Rulebooks::default();
    let (mut x, mut sites, mut kept, mut outputs) = (x.shallow_clone(), sites, None, Vec::new());
    for layer in layers {
        if layer.keeps_input {
            kept = Some(x.shallow_clone());
        }
        let (out_sites, rules) = rulebooks.get(&layer.key, &sites, &layer.conv).unwrap();
        let bias = layer.has_bias.then(|| &weights[&format!("{}.bias", layer.conv_path)]);
        x = convolve(&x, &weights[&format!("{}.weight", layer.conv_path)], bias, &rules).unwrap();
        let norm = |name: &str| Some(&weights[&format!("{}.{name}", layer.norm_path)]);
        x = x.batch_norm(norm("weight"), norm("bias"), norm("running_mean"), norm("running_var"), false, 0.01, 1e-3, false);
        if let (true, Some(kept)) = (layer.adds, &kept) {
            x += kept;
        }
        x = x.relu();
        sites = out_sites;
        if let Some(name) = layer.output {
            outputs.push((name, sites.clone(), x.shallow_clone()));
        }
    }
    outputs
}

/// Output keys, lattice and pairs of every index key, in order of first use.
pub struct Plan {
    pub by_key: BTreeMap<String, (Vec<i64>, Lattice, Pairs)>,
}

impl Plan {
    pub fn new(layers: &[Layer], keys: &[i64], lattice: Lattice) -> Self {
        let mut by_key: BTreeMap<String, (Vec<i64>, Lattice, Pairs)> = BTreeMap::new();
        let (mut keys, mut lattice) = (keys.to_vec(), lattice);
        for layer in layers {
            if by_key.contains_key(&layer.key) {
                continue;
            }
            let (out_keys, out_lattice) = match layer.conv.kind() {
                pivotal::sparse::Kind::Submanifold => (keys.clone(), lattice),
                pivotal::sparse::Kind::Strided => strided_keys(&keys, &lattice, &layer.conv).unwrap(),
            };
            let pairs = pairs_of(&keys, &lattice, &out_keys, &layer.conv).unwrap();
            by_key.insert(layer.key.clone(), (out_keys.clone(), out_lattice, pairs));
            (keys, lattice) = (out_keys, out_lattice);
        }
        Self { by_key }
    }
}

/// The fused convolutions of all layers.
pub fn fused(layers: &[Layer], weights: &Weights) -> Vec<FusedConv> {
    let to_vec = |tensor: &Tensor| Vec::<f32>::try_from(tensor.contiguous().view([-1])).unwrap();
    let fuse = |layer: &Layer| {
        let (weight, bias) = folded(layer, weights);
        FusedConv::new(&to_vec(&weight), &to_vec(&bias), layer.conv.n_offsets(), layer.c_in as usize).unwrap()
    };
    layers.iter().map(fuse).collect()
}

/// The fused way; `seen` gets every layer's index and output.
pub fn run_fused(layers: &[Layer], convs: &[FusedConv], plan: &Plan, x: Rows, mut seen: impl FnMut(usize, &Rows)) -> Rows {
    let (mut x, mut kept, mut spare) = (x, Rows::default(), Rows::default());
    for (index, (layer, conv)) in layers.iter().zip(convs).enumerate() {
        let (out_keys, _, pairs) = &plan.by_key[&layer.key];
        let add = layer.adds.then_some(&kept);
        conv.run(&x, pairs, out_keys.len(), Epilogue { add, relu: true }, &mut spare).unwrap();
        std::mem::swap(&mut x, &mut spare);
        if layer.keeps_input {
            std::mem::swap(&mut kept, &mut spare);
        }
        seen(index, &x);
    }
    x
}
