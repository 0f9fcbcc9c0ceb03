//! Matching of greatest weight that grows by a few predictions at a time.
//!
//! Only pairs that overlap enough can end up matched, and they fall into small connected parts. A newcomer changes the part it
//! joins and no other. Each part is solved by trying all subsets of its smaller side, which also tells whether another matching
//! has the same weight: then, and for parts too large to try, the caller must ask the full assignment, whose order of visits
//! decides.

/// Largest smaller side of a part that is solved here: 2 to this power subsets are tried.
const MAX_SMALLER_SIDE: usize = 10;

/// Predictions and ground truths by their places in a group.
pub(super) struct GrowingMatching {
    /// For each prediction the ground truths it can match, with positive weights.
    candidates: Vec<Vec<(usize, i64)>>,
    /// For each ground truth the predictions that can match it.
    rivals: Vec<Vec<usize>>,
    is_in: Vec<bool>,
    partner: Vec<Option<usize>>,
    is_undecided: Vec<bool>,
}

impl GrowingMatching {
    /// Nobody is in yet. Weights are positive.
    pub fn new(candidates: Vec<Vec<(usize, i64)>>, n_truths: usize) -> Self {
        let mut rivals = vec![Vec::new(); n_truths];
        for (prediction, row) in candidates.iter().enumerate() {
            for &(truth, _) in row {
                rivals[truth].push(prediction);
            }
        }
        let n = candidates.len();
        Self { candidates, rivals, is_in: vec![false; n], partner: vec![None; n], is_undecided: vec![false; n] }
    }

    /// Lets predictions in.
    pub fn add(&mut self, newcomers: &[usize]) {
        for &prediction in newcomers {
            self.is_in[prediction] = true;
        }
        let mut is_seen = vec![false; self.candidates.len()];
        for &prediction in newcomers {
            if !is_seen[prediction] && !self.candidates[prediction].is_empty() {
                let part = self.part_around(prediction, &mut is_seen);
                self.solve(&part);
            }
        }
    }

    /// The partners of those that are in, in the order of their places; `None` when the weights do not decide.
    pub fn partners(&self) -> Option<Vec<Option<usize>>> {
        let is_in = |place: &usize| self.is_in[*place];
        let mut inside = (0..self.candidates.len()).filter(is_in);
        if inside.clone().any(|place| self.is_undecided[place]) {
            return None;
        }
        Some(inside.by_ref().map(|place| self.partner[place]).collect())
    }

    /// All that a prediction competes with, directly or through others.
    fn part_around(&self, first: usize, is_seen: &mut [bool]) -> Part {
        let mut part = Part { predictions: vec![first], truths: Vec::new() };
        is_seen[first] = true;
        let mut next = 0;
        while let Some(&prediction) = part.predictions.get(next) {
            next += 1;
            for &(truth, _) in &self.candidates[prediction] {
                if part.truths.contains(&truth) {
                    continue;
                }
                part.truths.push(truth);
                for &rival in &self.rivals[truth] {
                    if self.is_in[rival] && !std::mem::replace(&mut is_seen[rival], true) {
                        part.predictions.push(rival);
                    }
                }
            }
        }
        part
    }

    fn solve(&mut self, part: &Part) {
        let by_truth = part.truths.len() > part.predictions.len();
        let (long, short) = if by_truth { (&part.truths, &part.predictions) } else { (&part.predictions, &part.truths) };
        let mut rows = vec![Vec::new(); long.len()];
        for (prediction_row, &prediction) in part.predictions.iter().enumerate() {
            for &(truth, weight) in &self.candidates[prediction] {
                let Some(truth_row) = part.truths.iter().position(|&t| t == truth) else { continue };
                let (row, column) = if by_truth { (truth_row, prediction_row) } else { (prediction_row, truth_row) };
                rows[row].push((column, weight));
            }
        }
        let best = if short.len() <= MAX_SMALLER_SIDE { only_best(&rows, short.len()) } else { None };
        for &prediction in &part.predictions {
            self.partner[prediction] = None;
            self.is_undecided[prediction] = best.is_none();
        }
        for (row, column) in best.into_iter().flatten().enumerate() {
            if let Some(column) = column {
                let (prediction, truth) = if by_truth { (short[column], long[row]) } else { (long[row], short[column]) };
                self.partner[prediction] = Some(truth);
            }
        }
    }
}

/// A connected part.
struct Part {
    predictions: Vec<usize>,
    truths: Vec<usize>,
}

/// Best way so far to use exactly one subset of the columns.
#[derive(Clone, Copy)]
struct Best {
    weight: i64,
    has_equals: bool,
}

/// For each row its column in the matching of greatest weight; `None` when there are several such matchings.
fn only_best(rows: &[Vec<(usize, i64)>], n_columns: usize) -> Option<Vec<Option<usize>>> {
    let n_subsets = 1_usize << n_columns;
    let mut best: Vec<Option<Best>> = vec![None; n_subsets];
    best[0] = Some(Best { weight: 0, has_equals: false });
    // By row and subset used after it: the column the row took.
    let mut taken: Vec<Option<usize>> = vec![None; rows.len() * n_subsets];
    for (row, taken) in rows.iter().zip(taken.chunks_exact_mut(n_subsets)) {
        let before = best.clone();
        for (used, from) in before.iter().enumerate() {
            let Some(from) = from else { continue };
            for &(column, weight) in row.iter().filter(|(column, _)| used >> column & 1 == 0) {
                let to = used | 1 << column;
                let weight = from.weight + weight;
                match &mut best[to] {
                    Some(known) if known.weight > weight => {}
                    Some(known) if known.weight == weight => known.has_equals = true,
                    slot => {
                        *slot = Some(Best { weight, has_equals: from.has_equals });
                        taken[to] = Some(column);
                    }
                }
            }
        }
    }
    let greatest = best.iter().flatten().map(|b| b.weight).max()?;
    let mut winners = best.iter().enumerate().filter(|(_, b)| b.is_some_and(|b| b.weight == greatest));
    let (mut used, winner) = winners.next()?;
    if winners.next().is_some() || winner.is_some_and(|b| b.has_equals) {
        return None;
    }
    let mut columns = vec![None; rows.len()];
    for row in (0..rows.len()).rev() {
        columns[row] = taken[row * n_subsets + used];
        if let Some(column) = columns[row] {
            used &= !(1 << column);
        }
    }
    Some(columns)
}
