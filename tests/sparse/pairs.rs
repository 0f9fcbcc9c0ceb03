//! Sites, pairs and their sharing.

use std::rc::Rc;

use pivotal::sparse::{ConvShape, Kind, Lattice, Pairs, Rulebook, Rulebooks, Sites, SparseError, pairs_of, plain, strided_keys};
use tch::Tensor;

use super::{cases, n_sites, random_cells, sites_of, tensor_of};

fn ends(seed: u64, lattice: &Lattice, share: f64, conv: &ConvShape) -> (Sites, Sites) {
    let input = sites_of(&random_cells(seed, lattice, n_sites(lattice, share)), *lattice);
    let output = match conv.kind() {
        Kind::Submanifold => Sites::from_coords(&input.coords().unwrap(), *lattice).unwrap().0,
        Kind::Strided => input.strided(conv).unwrap(),
    };
    (input, output)
}

#[test]
fn output_sites_are_those_of_the_definition_on_either_way() {
    for (name, lattice, share, conv) in cases() {
        let cells = random_cells(3, &lattice, n_sites(&lattice, share));
        let (input, output) = ends(3, &lattice, share, &conv);
        let expected = plain::output_sites(&cells, &lattice, output.lattice(), &conv);
        let keys: Vec<i64> = expected.iter().map(|site| output.lattice().key(*site).unwrap()).collect();
        assert_eq!(output.host_keys().unwrap(), keys, "{name}");
        if conv.kind() == Kind::Strided {
            let by_sort = input.strided_by_sort(&conv).unwrap();
            assert!(by_sort.same_as(&output).unwrap(), "{name}");
            assert_eq!(by_sort.host_keys().unwrap(), keys, "{name}");
        }
    }
}

#[test]
fn pairs_are_those_of_the_definition_on_either_way() {
    for (name, lattice, share, conv) in cases() {
        let (input, output) = ends(4, &lattice, share, &conv);
        let (in_keys, out_keys) = (input.host_keys().unwrap(), output.host_keys().unwrap());
        let expected: Vec<(Vec<u32>, Vec<u32>)> = conv
            .offsets()
            .map(|offset| {
                let pair = |(out_row, key): (usize, &i64)| {
                    let [batch, at @ ..] = output.lattice().site(*key);
                    let moved = |axis: usize| at[axis] * conv.stride()[axis] - conv.padding()[axis] + offset[axis];
                    let in_key = lattice.key([batch, moved(0), moved(1), moved(2)])?;
                    Some((in_keys.binary_search(&in_key).ok()? as u32, out_row as u32))
                };
                out_keys.iter().enumerate().filter_map(pair).unzip()
            })
            .collect();
        let expected = Pairs::from_offsets(&expected).unwrap();
        assert_eq!(pairs_of(&in_keys, &lattice, &out_keys, &conv).unwrap(), expected, "{name}: plain code");
        let by_sort = Rulebook::by_sort(&input, &output, &conv).unwrap();
        assert_eq!(by_sort.to_pairs().unwrap(), expected, "{name}: tensor operations");
        let rules = Rulebook::new(&input, &output, &conv).unwrap();
        assert_eq!(rules.to_pairs().unwrap(), expected, "{name}");
        assert_eq!(rules.inverse().unwrap().to_pairs().unwrap(), expected.clone().inverse(), "{name}: inverse");
        for k in 0..expected.n_offsets() {
            let (in_rows, out_rows) = expected.offset(k);
            assert!(in_rows.is_sorted_by(|a, b| a < b) && out_rows.is_sorted_by(|a, b| a < b), "{name}: offset {k}");
        }
    }
}

#[test]
fn pairs_of_many_sites_are_the_same_on_either_way_and_at_any_number_of_threads() {
    let lattice = Lattice::new(2, [20, 100, 120]).unwrap();
    let input = sites_of(&random_cells(5, &lattice, 40_000), lattice);
    let keys = input.host_keys().unwrap();
    let down = ConvShape::strided([3; 3], [2; 3], [1; 3]).unwrap();
    let run = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| {
            let (out_keys, _) = strided_keys(&keys, &lattice, &down).unwrap();
            let submanifold = pairs_of(&keys, &lattice, &keys, &ConvShape::submanifold([3; 3]).unwrap()).unwrap();
            (pairs_of(&keys, &lattice, &out_keys, &down).unwrap(), submanifold, out_keys)
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(3));
    let output = input.strided_by_sort(&down).unwrap();
    assert_eq!(output.host_keys().unwrap(), one.2);
    assert!(Rulebook::by_sort(&input, &output, &down).unwrap().to_pairs().unwrap() == one.0);
}

#[test]
fn sites_do_not_depend_on_the_order_they_came_in() {
    let lattice = Lattice::new(2, [5, 6, 7]).unwrap();
    let cells = random_cells(6, &lattice, 80);
    let mut turned = cells.clone();
    turned.reverse();
    let (sites, rows) = Sites::from_coords(&tensor_of(&cells), lattice).unwrap();
    let (same, other_rows) = Sites::from_coords(&tensor_of(&turned).to_kind(tch::Kind::Int), lattice).unwrap();
    assert!(sites.same_as(&same).unwrap());
    assert_eq!(tensor_of(&cells).index_select(0, &rows), sites.coords().unwrap());
    assert_eq!(tensor_of(&turned).index_select(0, &other_rows), sites.coords().unwrap());
    let keys = sites.host_keys().unwrap();
    assert!(keys.is_sorted_by(|a, b| a < b));
}

#[test]
fn sites_that_repeat_or_lie_outside_are_refused_by_name() {
    let lattice = Lattice::new(2, [5, 6, 7]).unwrap();
    let refused = |cells: &[[i64; 4]]| Sites::from_coords(&tensor_of(cells), lattice).expect_err("refused").to_string();
    assert!(refused(&[[0, 1, 2, 3], [1, 4, 5, 6], [0, 1, 2, 3]]).contains("[0, 1, 2, 3] occurs more than once"));
    for outside in [[2, 0, 0, 0], [0, 5, 0, 0], [0, 0, 6, 0], [0, 0, 0, 7], [0, 0, 0, -1], [i64::MAX, 0, 0, 0]] {
        let message = refused(&[[0, 1, 2, 3], outside]);
        assert!(message.contains(&format!("{outside:?} is outside")), "{message}");
    }
    let three_columns = Tensor::from_slice(&[0_i64; 6]).view([2, 3]);
    assert!(matches!(Sites::from_coords(&three_columns, lattice), Err(SparseError::Shape { .. })));
    let conv = ConvShape::submanifold([3; 3]).unwrap();
    for keys in [&[3, 3][..], &[5, 4], &[-1, 4], &[0, 420]] {
        assert!(pairs_of(keys, &lattice, keys, &conv).is_err(), "{keys:?}");
    }
}

#[test]
fn layers_of_one_key_share_pairs_and_misuse_is_refused() {
    let lattice = Lattice::new(1, [5, 6, 7]).unwrap();
    let sites = Rc::new(sites_of(&random_cells(7, &lattice, 60), lattice));
    let (cube, down) = (ConvShape::submanifold([3; 3]).unwrap(), ConvShape::strided([3; 3], [2; 3], [1; 3]).unwrap());
    let mut rulebooks = Rulebooks::default();
    let (same, first) = rulebooks.get("subm1", &sites, &cube).unwrap();
    assert!(Rc::ptr_eq(&same, &sites));
    assert!(Rc::ptr_eq(&first, &rulebooks.get("subm1", &sites, &cube).unwrap().1));
    let (below, _) = rulebooks.get("down", &sites, &down).unwrap();
    assert!(matches!(rulebooks.get("subm1", &sites, &down), Err(SparseError::Key { .. })));
    assert!(matches!(rulebooks.get("subm1", &below, &cube), Err(SparseError::Key { .. })));
    let (back, _) = rulebooks.inverse("down", &below).unwrap();
    assert!(Rc::ptr_eq(&back, &sites));
    assert!(matches!(rulebooks.inverse("down", &sites), Err(SparseError::Key { .. })));
    assert!(matches!(rulebooks.inverse("other", &below), Err(SparseError::NoStrided { .. })));
    assert!(matches!(Rulebook::new(&sites, &below, &cube), Err(SparseError::Shape { .. })));
}
