//! [`greatest_assignment`](super::assignment::greatest_assignment) for weights that are mostly zero: the same columns, with work
//! in proportion to the weights that are not.
//!
//! What makes it short is that a free column has never had its price raised, so it costs nothing, and a row whose own price is
//! nothing is tight with all of them. Such a row takes the first free column wherever the search meets it; rows without weights
//! never disturb others. The remaining rows are tight with columns of positive weight only.

use super::assignment::{Pairing, TreeColumn};

/// Room for assignments that are made one after the other.
#[derive(Debug, Default)]
pub struct SparseAssignment {
    row_price: Vec<i64>,
    column_price: Vec<i64>,
    pairing: Pairing,
    /// No column before it is free.
    first_free: usize,
    /// The root of the tree each column joined last.
    joined_for: Vec<Option<usize>>,
    /// The tree in work.
    tree_rows: Vec<usize>,
    tree_columns: Vec<TreeColumn>,
}

/// For each row its positive weights, by ascending column.
type Rows<'a> = [&'a [(usize, i64)]];

impl SparseAssignment {
    /// For each row its column among `n_columns`, of which there are at least as many as rows. `rows` holds for each row its
    /// positive weights, by ascending column.
    pub fn solve(&mut self, rows: &Rows<'_>, n_columns: usize) -> impl Iterator<Item = usize> {
        self.row_price.clear();
        self.row_price.extend(rows.iter().map(|row| row.iter().map(|&(_, weight)| weight).max().unwrap_or(0)));
        self.column_price.clear();
        self.column_price.resize(n_columns, 0);
        self.joined_for.clear();
        self.joined_for.resize(n_columns, None);
        self.pairing.reset(rows.len(), n_columns);
        self.first_free = 0;
        for row in 0..rows.len() {
            self.assign(rows, row);
        }
        self.pairing.column_of.iter().copied().flatten()
    }

    fn slack(&self, row: usize, (column, weight): (usize, i64)) -> i64 {
        self.row_price[row] + self.column_price[column] - weight
    }

    fn assign(&mut self, weights: &Rows<'_>, root: usize) {
        self.tree_columns.clear();
        self.tree_rows.clear();
        self.tree_rows.push(root);
        let mut next = (0, 0);
        loop {
            let Some(found) = self.next_tight(weights, root, &mut next) else {
                self.lower_prices(weights, root);
                next = (0, 0);
                continue;
            };
            let end = found.column;
            self.joined_for[end] = Some(root);
            self.tree_columns.push(found);
            match self.pairing.row_of[end] {
                Some(row) => self.tree_rows.push(row),
                None => return self.pairing.swap_along(&self.tree_rows, &self.tree_columns),
            }
        }
    }

    /// The next tight pair by row of the tree and column, from `next` on. Of a row without price it is the one that ends the
    /// search; paired columns before that would only add rows that are not looked at any more.
    fn next_tight(&mut self, weights: &Rows<'_>, root: usize, next: &mut (usize, usize)) -> Option<TreeColumn> {
        while let Some(&row) = self.tree_rows.get(next.0) {
            if self.row_price[row] == 0 {
                return Some(TreeColumn { column: self.first_free(), parent: next.0 });
            }
            while let Some(&pair) = weights[row].get(next.1) {
                next.1 += 1;
                if self.joined_for[pair.0] != Some(root) && self.slack(row, pair) == 0 {
                    return Some(TreeColumn { column: pair.0, parent: next.0 });
                }
            }
            *next = (next.0 + 1, 0);
        }
        None
    }

    /// There is one as long as a row has no column.
    fn first_free(&mut self) -> usize {
        while self.pairing.row_of[self.first_free].is_some() {
            self.first_free += 1;
        }
        self.first_free
    }

    /// Until a pair of positive weight gets tight, or a row loses its price and with that gets tight with what is free.
    fn lower_prices(&mut self, weights: &Rows<'_>, root: usize) {
        let mut by = i64::MAX;
        for &row in &self.tree_rows {
            by = by.min(self.row_price[row]);
            for &pair in weights[row] {
                if self.joined_for[pair.0] != Some(root) {
                    by = by.min(self.slack(row, pair));
                }
            }
        }
        for &row in &self.tree_rows {
            self.row_price[row] -= by;
        }
        for tree_column in &self.tree_columns {
            self.column_price[tree_column.column] += by;
        }
    }
}
