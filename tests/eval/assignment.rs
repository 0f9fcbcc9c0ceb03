//! The assignment against the `pathfinding` crate, and its choice between equals against the official code.

use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;
use pivotal::eval::assignment::greatest_assignment;
use pivotal::eval::sparse_assignment::SparseAssignment;
use proptest::prelude::*;

fn total(n: usize, weights: &[i64], columns: &[usize]) -> i64 {
    columns.iter().enumerate().map(|(row, column)| weights[row * n + column]).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn random_weights_are_assigned_with_the_greatest_total(
        (n, weights) in (1_usize..12, 1_i64..1000).prop_flat_map(|(n, most)| (Just(n), prop::collection::vec(0..most, n * n)))
    ) {
        let columns = greatest_assignment(n, &weights);
        let mut sorted = columns.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..n).collect::<Vec<_>>());
        let (wanted, _) = kuhn_munkres(&Matrix::from_vec(n, n, weights.clone()).unwrap());
        prop_assert_eq!(total(n, &weights, &columns), wanted);
    }
}

/// The sparse version on the rows of a matrix, the last ones of which may be padding.
fn sparse(n: usize, weights: &[i64], n_rows: usize) -> Vec<usize> {
    let positive = |row: &[i64]| row.iter().copied().enumerate().filter(|(_, weight)| *weight > 0).collect::<Vec<_>>();
    let rows: Vec<Vec<(usize, i64)>> = weights.chunks_exact(n).take(n_rows).map(positive).collect();
    SparseAssignment::default().solve(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), n).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn sparse_assignment_is_the_plain_one_column_by_column(
        (n, n_rows, weights) in (1_usize..14, 1_i64..6, 1_usize..5).prop_flat_map(|(n, most, rarity)| {
            let weight = (0..most, 0..rarity).prop_map(|(weight, blank)| if blank == 0 { weight } else { 0 });
            (Just(n), 0..=n, prop::collection::vec(weight, n * n))
        })
    ) {
        let mut weights = weights;
        weights[n_rows * n..].fill(0);
        let plain = greatest_assignment(n, &weights);
        prop_assert_eq!(sparse(n, &weights, n_rows), &plain[..n_rows]);
    }
}

/// Random weights with at least four best matchings each, assigned by `metrics/hungarian.cc` itself.
#[test]
fn equal_totals_are_decided_as_the_official_code_does() {
    for (n, weights, officially) in [
        (5, vec![0, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1], vec![1, 3, 4, 0, 2]),
        (5, vec![2, 0, 2, 3, 0, 1, 0, 2, 3, 0, 2, 0, 0, 2, 0, 3, 0, 0, 0, 1, 0, 1, 0, 0, 0], vec![3, 2, 0, 4, 1]),
        (4, vec![0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 0, 0, 0, 1, 0, 0], vec![0, 2, 1, 3]),
        (4, vec![2, 0, 0, 2, 1, 2, 2, 0, 1, 0, 0, 0, 1, 0, 0, 1], vec![3, 1, 0, 2]),
        (5, vec![0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], vec![2, 0, 3, 1, 4]),
        (5, vec![0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0], vec![4, 2, 3, 1, 0]),
        (4, vec![0, 0, 1, 2, 3, 0, 1, 0, 2, 1, 2, 3, 2, 0, 0, 2], vec![3, 0, 2, 1]),
        (5, vec![1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 1, 0, 1, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0], vec![0, 4, 2, 1, 3]),
        (4, vec![0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0], vec![1, 0, 2, 3]),
        (5, vec![0, 0, 1, 2, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0], vec![3, 1, 2, 0, 4]),
    ] {
        assert_eq!(greatest_assignment(n, &weights), officially, "{weights:?}");
        assert_eq!(sparse(n, &weights, n), officially, "sparse {weights:?}");
    }
}

#[test]
fn nothing_to_assign_gives_nothing() {
    assert!(greatest_assignment(0, &[]).is_empty());
    let mut sparse = SparseAssignment::default();
    assert_eq!(sparse.solve(&[&[(2, 5)], &[]], 3).collect::<Vec<_>>(), [2, 0]);
    assert_eq!(sparse.solve(&[], 0).count(), 0);
    assert_eq!(sparse.solve(&[&[], &[]], 3).collect::<Vec<_>>(), [0, 1], "nothing is left of an earlier assignment");
}
