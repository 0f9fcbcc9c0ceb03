//! The CPU's inference way against the oracle.

use pivotal::sparse::{
    ConvShape, Epilogue, FusedConv, Kind, Lattice, Pairs, Rows, Rulebook, convolve, pairs_of, plain, strided_keys,
    weight_gradient,
};

use super::{cases, n_sites, random_cells, random_values, sites_of, to_vec, to_vec_f32};

#[test]
fn fused_convolution_equals_the_oracle() {
    let channels = [(5, 8), (8, 16), (16, 12), (12, 24), (3, 48), (7, 64), (4, 96), (2, 128), (16, 16), (1, 1)];
    for ((name, lattice, share, conv), (c_in, c_out)) in cases().into_iter().zip(channels.into_iter().cycle()) {
        let mut cells = random_cells(1, &lattice, n_sites(&lattice, share));
        cells.sort_unstable();
        let keys: Vec<i64> = cells.iter().map(|cell| lattice.key(*cell).unwrap()).collect();
        let (out_keys, out_lattice) = match conv.kind() {
            Kind::Submanifold => (keys.clone(), lattice),
            Kind::Strided => strided_keys(&keys, &lattice, &conv).unwrap(),
        };
        let out_cells: Vec<[i64; 4]> = out_keys.iter().map(|key| out_lattice.site(*key)).collect();
        let pairs = pairs_of(&keys, &lattice, &out_keys, &conv).unwrap();
        let x = random_values(2, &[keys.len() as i64, c_in]);
        let weight = random_values(3, &[conv.n_offsets() as i64, c_in, c_out]);
        let (bias, added) = (random_values(4, &[c_out]), random_values(5, &[out_keys.len() as i64, c_out]));
        let fused = FusedConv::new(&to_vec_f32(&weight), &to_vec_f32(&bias), conv.n_offsets(), c_in as usize).unwrap();
        let rows = Rows::new(&to_vec_f32(&x), c_in as usize);
        let add = Rows::new(&to_vec_f32(&added), c_out as usize);
        let sums = plain::convolve(&cells, &to_vec(&x), &to_vec(&weight), &to_vec(&bias), &out_cells, &conv);
        let added = to_vec(&added);
        for (with_add, relu) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut out = Rows::default();
            let epilogue = Epilogue { add: with_add.then_some(&add), relu };
            fused.run(&rows, &pairs, out_keys.len(), epilogue, &mut out).unwrap();
            assert_eq!((out.len(), out.channels()), (out_keys.len(), c_out as usize), "{name}");
            for (i, got) in out.rows().flatten().enumerate() {
                let sum = sums[i] + if with_add { added[i] } else { 0.0 };
                let expected = if relu { sum.max(0.0) } else { sum };
                assert!((f64::from(*got) - expected).abs() < 3e-5, "{name}, {c_in} to {c_out}: {got} for {expected}");
            }
        }
    }
}

#[test]
fn fused_convolution_has_the_same_bits_at_any_number_of_threads() {
    let lattice = Lattice::new(1, [20, 100, 100]).unwrap();
    let mut cells = random_cells(6, &lattice, 30_000);
    cells.sort_unstable();
    let keys: Vec<i64> = cells.iter().map(|cell| lattice.key(*cell).unwrap()).collect();
    let pairs = pairs_of(&keys, &lattice, &keys, &ConvShape::submanifold([3; 3]).unwrap()).unwrap();
    let rows = Rows::new(&to_vec_f32(&random_values(7, &[30_000, 16])), 16);
    let weight = to_vec_f32(&random_values(8, &[27, 16, 32]));
    let fused = FusedConv::new(&weight, &[0.1; 32], 27, 16).unwrap();
    let run = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let mut out = Rows::default();
        pool.install(|| fused.run(&rows, &pairs, keys.len(), Epilogue::default(), &mut out)).unwrap();
        out
    };
    let one = run(1);
    assert!(one == run(2) && one == run(3));
}

#[test]
fn memory_of_an_earlier_result_does_not_show() {
    let pairs = Pairs::from_offsets(&[(vec![0, 1], vec![0, 2])]).unwrap();
    let fused = FusedConv::new(&[2.0], &[0.5], 1, 1).unwrap();
    let mut out = Rows::new(&[9.0; 40], 10);
    fused.run(&Rows::new(&[1.0, 3.0], 1), &pairs, 3, Epilogue::default(), &mut out).unwrap();
    assert_eq!(out, Rows::new(&[2.5, 0.5, 6.5], 1));
}

#[test]
fn pairs_that_no_convolution_has_are_refused() {
    for (in_rows, out_rows) in [(vec![0, 1], vec![0]), (vec![1, 1], vec![0, 1]), (vec![0, 1], vec![2, 1])] {
        assert!(Pairs::from_offsets(&[(vec![0], vec![0]), (in_rows, out_rows)]).is_err());
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    assert!(FusedConv::new(&[1.0; 5], &[0.0; 2], 1, 2).is_err());
    assert!(FusedConv::new(&[], &[], 1, 2).is_err());
    let fused = FusedConv::new(&[1.0; 4], &[0.0; 2], 1, 2).unwrap();
    let pairs = |in_row, out_row| Pairs::from_offsets(&[(vec![in_row], vec![out_row])]).unwrap();
    let rows = |n: usize, channels: usize| Rows::new(&vec![1.0; n * channels], channels);
    let run = |x: &Rows, pairs: &Pairs, n_out, add: Option<&Rows>| {
        fused.run(x, pairs, n_out, Epilogue { add, relu: false }, &mut Rows::default())
    };
    assert!(run(&rows(3, 2), &pairs(2, 1), 2, Some(&rows(2, 2))).is_ok());
    assert!(run(&rows(3, 3), &pairs(2, 1), 2, None).is_err());
    assert!(run(&rows(3, 2), &pairs(3, 1), 2, None).is_err());
    assert!(run(&rows(3, 2), &pairs(2, 2), 2, None).is_err());
    assert!(run(&rows(3, 2), &Pairs::from_offsets(&[]).unwrap(), 2, None).is_err());
    assert!(run(&rows(3, 2), &pairs(2, 1), 2, Some(&rows(3, 2))).is_err());
    assert!(run(&rows(3, 2), &pairs(2, 1), 2, Some(&rows(2, 3))).is_err());
}

#[test]
fn weight_gradient_equals_that_of_autograd_at_any_number_of_threads() {
    let channels = [(5, 8), (8, 16), (16, 12), (12, 24), (3, 48), (7, 64), (1, 1)];
    for ((name, lattice, share, conv), (c_in, c_out)) in cases().into_iter().zip(channels.into_iter().cycle()) {
        let sites = sites_of(&random_cells(11, &lattice, n_sites(&lattice, share)), lattice);
        let output = match conv.kind() {
            Kind::Submanifold => sites_of(&random_cells(11, &lattice, n_sites(&lattice, share)), lattice),
            Kind::Strided => sites.strided(&conv).unwrap(),
        };
        let rules = Rulebook::new(&sites, &output, &conv).unwrap();
        let x = random_values(12, &[sites.len() as i64, c_in]);
        let weight = random_values(13, &[conv.n_offsets() as i64, c_in, c_out]).set_requires_grad(true);
        let gradient = random_values(14, &[output.len() as i64, c_out]);
        (convolve(&x, &weight, None, &rules).unwrap() * &gradient).sum(tch::Kind::Double).backward();
        let [rows, of_rows] =
            [(&x, c_in), (&gradient, c_out)].map(|(values, channels)| Rows::new(&to_vec_f32(values), channels as usize));
        let pairs = rules.to_pairs().unwrap();
        let run = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| weight_gradient(&rows, &of_rows, &pairs)).unwrap()
        };
        let ours = run(1);
        for (ours, expected) in ours.iter().zip(to_vec(&weight.grad())) {
            assert!((f64::from(*ours) - expected).abs() < 1e-4, "{name}, {c_in} to {c_out}: {ours} for {expected}");
        }
        assert!(ours == run(3), "{name}");
    }
}
