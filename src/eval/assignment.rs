//! Assignment of greatest total weight, by the method of Kuhn and Munkres.
//!
//! The metric does not say which of several assignments of equal weight is taken, but the headings of the pairs differ, and so
//! does APH. This walks the rows and columns in the order of the official tool and therefore ends at the same one; a library's order
//! would be another.
//!
//! # Source
//! H. W. Kuhn, "The Hungarian method for the assignment problem", 1955; order of visits after `metrics/hungarian.cc` of
//! `waymo-research/waymo-open-dataset`.

/// For each row its column. `weights` has `n` rows of `n` columns, none negative.
pub fn greatest_assignment(n: usize, weights: &[i64]) -> Vec<usize> {
    debug_assert_eq!(weights.len(), n * n);
    let mut pairing = Pairing::default();
    pairing.reset(n, n);
    let mut search = Search {
        n,
        weights,
        row_price: weights.chunks_exact(n.max(1)).map(|row| row.iter().copied().max().unwrap_or(0)).collect(),
        column_price: vec![0; n],
        pairing,
    };
    for row in 0..n {
        search.assign(row);
    }
    search.pairing.column_of.into_iter().flatten().collect()
}

/// Prices never sum below the weight of their pair; a pair whose prices sum to its weight is tight. An assignment of tight pairs
/// only is one of greatest weight.
struct Search<'a> {
    n: usize,
    weights: &'a [i64],
    row_price: Vec<i64>,
    column_price: Vec<i64>,
    pairing: Pairing,
}

impl Search<'_> {
    fn slack(&self, row: usize, column: usize) -> i64 {
        self.row_price[row] + self.column_price[column] - self.weights[row * self.n + column]
    }

    /// Grows a tree of tight pairs from a free row until it reaches a free column, then swaps the pairs on the way.
    fn assign(&mut self, root: usize) {
        let mut rows = vec![root];
        let mut columns: Vec<TreeColumn> = Vec::new();
        let mut in_tree = vec![false; self.n];
        // Pairs of the tree's rows before this place, in order of joining and of columns, are slack or already in the tree.
        let mut place = (0, 0);
        loop {
            let Some(found) = self.next_tight(&rows, &in_tree, &mut place) else {
                self.lower_prices(&rows, &columns, &in_tree);
                place = (0, 0);
                continue;
            };
            in_tree[found.column] = true;
            let end = found.column;
            columns.push(found);
            match self.pairing.row_of[end] {
                Some(row) => rows.push(row),
                None => return self.pairing.swap_along(&rows, &columns),
            }
        }
    }

    fn next_tight(&self, rows: &[usize], in_tree: &[bool], place: &mut (usize, usize)) -> Option<TreeColumn> {
        while let Some(&row) = rows.get(place.0) {
            let tight = (place.1..self.n).find(|&column| !in_tree[column] && self.slack(row, column) == 0);
            if let Some(column) = tight {
                place.1 = column + 1;
                return Some(TreeColumn { column, parent: place.0 });
            }
            *place = (place.0 + 1, 0);
        }
        None
    }

    /// Makes at least one more pair of the tree's rows tight and keeps those of the tree tight.
    fn lower_prices(&mut self, rows: &[usize], columns: &[TreeColumn], in_tree: &[bool]) {
        let outside = |row| (0..self.n).filter(|&column| !in_tree[column]).map(move |column| (row, column));
        let Some(by) = rows.iter().copied().flat_map(outside).map(|(row, column)| self.slack(row, column)).min() else { return };
        for &row in rows {
            self.row_price[row] -= by;
        }
        for tree_column in columns {
            self.column_price[tree_column.column] += by;
        }
    }
}

/// Who has whom so far.
#[derive(Debug, Default)]
pub(super) struct Pairing {
    pub column_of: Vec<Option<usize>>,
    pub row_of: Vec<Option<usize>>,
}

impl Pairing {
    /// Nobody has anybody.
    pub fn reset(&mut self, n_rows: usize, n_columns: usize) {
        self.column_of.clear();
        self.column_of.resize(n_rows, None);
        self.row_of.clear();
        self.row_of.resize(n_columns, None);
    }

    /// Back from the last column of the tree to its root, each row takes the column before it on the way.
    pub fn swap_along(&mut self, rows: &[usize], columns: &[TreeColumn]) {
        let mut wanted = columns.last().map(|last| last.column);
        for &TreeColumn { column, parent } in columns.iter().rev() {
            if wanted == Some(column) {
                let row = rows[parent];
                wanted = self.column_of[row].replace(column);
                self.row_of[column] = Some(row);
            }
        }
    }
}

/// A column of the tree and the place of the row it was reached from.
#[derive(Debug)]
pub(super) struct TreeColumn {
    pub column: usize,
    pub parent: usize,
}
