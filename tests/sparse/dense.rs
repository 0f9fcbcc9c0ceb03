//! The tensor way against dense convolution, values and gradients, in f64.

use pivotal::sparse::{ConvShape, Kind as ConvKind, Lattice, Rulebook, Sites, convolve, offsets_first, plain, to_dense};
use tch::{Device, Kind, Tensor};

use super::{cases, n_sites, random_cells, random_values, sites_of, to_vec};

const C_IN: i64 = 3;
const C_OUT: i64 = 4;

fn output_of(input: &Sites, conv: &ConvShape) -> Sites {
    match conv.kind() {
        ConvKind::Submanifold => Sites::from_coords(&input.coords().unwrap(), *input.lattice()).unwrap().0,
        ConvKind::Strided => input.strided(conv).unwrap(),
    }
}

/// Rows of a dense grid `[B, C, D, H, W]` at sites.
fn rows_at(dense: &Tensor, sites: &Sites) -> Tensor {
    let c = dense.size()[1];
    dense.permute([0, 2, 3, 4, 1]).reshape([-1, c]).index_select(0, sites.keys())
}

/// Result and gradients of features, weight and bias for a fixed pull on the result.
fn with_gradients(x: &Tensor, weight: &Tensor, bias: &Tensor, run: impl Fn(&Tensor, &Tensor, &Tensor) -> Tensor) -> Vec<Tensor> {
    let leaves = [x, weight, bias].map(|tensor| tensor.detach().copy().set_requires_grad(true));
    let out = run(&leaves[0], &leaves[1], &leaves[2]);
    let pull = random_values(99, &out.size()).to_kind(out.kind());
    (&out * pull).sum(out.kind()).backward();
    let mut results = vec![out.detach()];
    results.extend(leaves.iter().map(Tensor::grad));
    results
}

fn assert_close(name: &str, got: &[Tensor], expected: &[Tensor]) {
    for (what, (got, expected)) in ["values", "of features", "of weight", "of bias"].iter().zip(got.iter().zip(expected)) {
        assert_eq!(got.size(), expected.size(), "{name}: {what}");
        let difference = if got.numel() == 0 { 0.0 } else { (got - expected).abs().max().double_value(&[]) };
        assert!(difference < 1e-12, "{name}: {what} differ by {difference}");
    }
}

fn dense_conv(x: &Tensor, weight: &Tensor, bias: &Tensor, sites: &Sites, output: &Sites, conv: &ConvShape) -> Tensor {
    let kernel = weight.permute([0, 4, 1, 2, 3]);
    let dense = to_dense(x, sites).unwrap().conv3d(&kernel, Some(bias), conv.stride(), conv.padding(), [1, 1, 1], 1);
    rows_at(&dense, output)
}

#[test]
fn values_and_gradients_equal_dense_convolution() {
    for (name, lattice, share, conv) in cases() {
        let sites = sites_of(&random_cells(11, &lattice, n_sites(&lattice, share)), lattice);
        let output = output_of(&sites, &conv);
        let rules = Rulebook::new(&sites, &output, &conv).unwrap();
        let [kz, ky, kx] = conv.kernel();
        let x = random_values(12, &[sites.len() as i64, C_IN]);
        let (weight, bias) = (random_values(13, &[C_OUT, kz, ky, kx, C_IN]), random_values(14, &[C_OUT]));
        let sparse = with_gradients(&x, &weight, &bias, |x, weight, bias| {
            convolve(x, &offsets_first(weight).unwrap(), Some(bias), &rules).unwrap()
        });
        let dense = with_gradients(&x, &weight, &bias, |x, w, bias| dense_conv(x, w, bias, &sites, &output, &conv));
        assert_close(name, &sparse, &dense);
        assert!(sites.is_empty() || !output.is_empty(), "{name}: the case shows nothing");
    }
}

#[test]
fn inverse_equals_dense_transposed_convolution_at_the_sites_it_came_from() {
    for (name, lattice, share, conv) in cases().into_iter().filter(|(.., conv)| conv.kind() == ConvKind::Strided) {
        let sites = sites_of(&random_cells(21, &lattice, n_sites(&lattice, share)), lattice);
        let below = output_of(&sites, &conv);
        let rules = Rulebook::new(&sites, &below, &conv).unwrap().inverse().unwrap();
        let [kz, ky, kx] = conv.kernel();
        let x = random_values(22, &[below.len() as i64, C_IN]);
        let (weight, bias) = (random_values(23, &[C_OUT, kz, ky, kx, C_IN]), random_values(24, &[C_OUT]));
        let sparse = with_gradients(&x, &weight, &bias, |x, weight, bias| {
            convolve(x, &offsets_first(weight).unwrap(), Some(bias), &rules).unwrap()
        });
        let dense = with_gradients(&x, &weight, &bias, |x, weight, bias| {
            let kernel = weight.permute([4, 0, 1, 2, 3]); // [Cin, Cout, kz, ky, kx]
            let whole: [i64; 3] = std::array::from_fn(|axis| {
                let covered =
                    (below.lattice().shape()[axis] - 1) * conv.stride()[axis] - 2 * conv.padding()[axis] + conv.kernel()[axis];
                lattice.shape()[axis] - covered
            });
            let up = to_dense(x, &below).unwrap();
            let dense = up.conv_transpose3d(&kernel, Some(bias), conv.stride(), conv.padding(), whole, 1, [1, 1, 1]);
            rows_at(&dense, &sites)
        });
        assert_close(name, &sparse, &dense);
    }
}

#[test]
fn the_oracle_equals_dense_convolution() {
    for (name, lattice, share, conv) in cases() {
        let cells = random_cells(31, &lattice, n_sites(&lattice, share));
        let sites = sites_of(&cells, lattice);
        let output = output_of(&sites, &conv);
        let [kz, ky, kx] = conv.kernel();
        let x = random_values(32, &[sites.len() as i64, C_IN]);
        let (weight, bias) = (random_values(33, &[C_OUT, kz, ky, kx, C_IN]), random_values(34, &[C_OUT]));
        let site_list = |sites: &Sites| -> Vec<[i64; 4]> {
            sites.host_keys().unwrap().iter().map(|key| sites.lattice().site(*key)).collect()
        };
        let by_offset = to_vec(&offsets_first(&weight).unwrap());
        let plain = plain::convolve(&site_list(&sites), &to_vec(&x), &by_offset, &to_vec(&bias), &site_list(&output), &conv);
        let dense = to_vec(&dense_conv(&x, &weight, &bias, &sites, &output, &conv));
        assert_eq!(plain.len(), dense.len(), "{name}");
        assert!(plain.iter().zip(&dense).all(|(a, b)| (a - b).abs() < 1e-12), "{name}");
    }
}

#[test]
fn clouds_of_a_batch_do_not_see_each_other() {
    let (one, two) = (Lattice::new(1, [5, 6, 7]).unwrap(), Lattice::new(2, [5, 6, 7]).unwrap());
    let clouds = [random_cells(41, &one, 50), random_cells(42, &one, 70)];
    let both: Vec<[i64; 4]> =
        (0..).zip(&clouds).flat_map(|(b, cells)| cells.iter().map(move |[_, z, y, x]| [b, *z, *y, *x])).collect();
    for conv in [ConvShape::submanifold([3; 3]).unwrap(), ConvShape::strided([3; 3], [2; 3], [1; 3]).unwrap()] {
        let weight = random_values(43, &[27, C_IN, C_OUT]);
        let run = |cells: &[[i64; 4]], lattice| {
            let sites = sites_of(cells, lattice);
            let output = output_of(&sites, &conv);
            let x = sites.coords().unwrap().narrow(1, 1, 3).to_kind(Kind::Double).sin();
            convolve(&x, &weight, None, &Rulebook::new(&sites, &output, &conv).unwrap()).unwrap()
        };
        let alone = Tensor::cat(&[run(&clouds[0], one), run(&clouds[1], one)], 0);
        assert_close("batch", &[run(&both, two)], &[alone]);
    }
}

#[test]
fn forward_and_backward_have_the_same_bits_at_any_number_of_threads() {
    let lattice = Lattice::new(2, [20, 60, 60]).unwrap();
    let sites = sites_of(&random_cells(51, &lattice, 20_000), lattice);
    for conv in [ConvShape::submanifold([3; 3]).unwrap(), ConvShape::strided([3; 3], [2; 3], [1; 3]).unwrap()] {
        let rules = Rulebook::new(&sites, &output_of(&sites, &conv), &conv).unwrap();
        let x = random_values(52, &[sites.len() as i64, 16]).to_kind(Kind::Float);
        let (weight, bias) =
            (random_values(53, &[27, 16, 16]).to_kind(Kind::Float), random_values(54, &[16]).to_kind(Kind::Float));
        let run = |n_threads| {
            tch::set_num_threads(n_threads);
            with_gradients(&x, &weight, &bias, |x, weight, bias| convolve(x, weight, Some(bias), &rules).unwrap())
        };
        let (one, two, four) = (run(1), run(2), run(4));
        for (what, result) in ["values", "of features", "of weight", "of bias"].iter().zip(0..) {
            assert_eq!(one[result], two[result], "{what}");
            assert_eq!(one[result], four[result], "{what}");
        }
    }
}

#[test]
fn half_precision_is_near_single_precision() {
    let lattice = Lattice::new(1, [6, 20, 20]).unwrap();
    let sites = sites_of(&random_cells(61, &lattice, 600), lattice);
    let conv = ConvShape::submanifold([3; 3]).unwrap();
    let rules = Rulebook::new(&sites, &output_of(&sites, &conv), &conv).unwrap();
    let (x, weight, bias) = (random_values(62, &[600, 8]), random_values(63, &[27, 8, 8]), random_values(64, &[8]));
    let run = |kind: Kind| {
        let x = x.to_kind(kind);
        with_gradients(&x, &weight, &bias, |x, weight, bias| convolve(x, weight, Some(bias), &rules).unwrap())
    };
    let exact = run(Kind::Double);
    for (kind, tolerance) in [(Kind::Float, 1e-6), (Kind::BFloat16, 3e-2), (Kind::Half, 4e-3)] {
        for (got, exact) in run(kind).iter().zip(&exact) {
            let scale = exact.abs().max().double_value(&[]);
            let difference = (got.to_kind(Kind::Double).to_device(Device::Cpu) - exact).abs().max().double_value(&[]);
            assert!(difference < tolerance * scale, "{kind:?}: {difference} of {scale}");
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let lattice = Lattice::new(1, [4, 4, 4]).unwrap();
    let sites = sites_of(&random_cells(71, &lattice, 9), lattice);
    let conv = ConvShape::submanifold([3; 3]).unwrap();
    let rules = Rulebook::new(&sites, &output_of(&sites, &conv), &conv).unwrap();
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let fits = convolve(&zeros(&[9, 2]), &zeros(&[27, 2, 5]), Some(&zeros(&[5])), &rules);
    assert_eq!(fits.unwrap().size(), [9, 5]);
    for (x, weight, bias) in [([8, 2], [27, 2, 5], 5), ([9, 3], [27, 2, 5], 5), ([9, 2], [9, 2, 5], 5), ([9, 2], [27, 2, 5], 4)] {
        assert!(convolve(&zeros(&x), &zeros(&weight), Some(&zeros(&[bias])), &rules).is_err(), "{x:?} {weight:?} {bias}");
    }
    assert!(to_dense(&zeros(&[8, 2]), &sites).is_err());
    assert!(offsets_first(&zeros(&[27, 2, 5])).is_err());
}
