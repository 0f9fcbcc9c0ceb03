//! Pairs and output sites in plain Rust, a line of sites at a time.
//!
//! Sites with the same batch, z and y are a line; keys ascend, so a line is a run of them and its x ascend. The input lines that
//! an output line needs for one (kz, ky) move forward with it, so each is found by advancing a cursor, and the x of two lines are
//! merged. Time and memory grow with the number of sites and pairs, not with the lattice.

use rayon::prelude::*;

use super::pairs::OffsetRows;
use super::{ConvShape, Kind, Lattice, Pairs, SparseError};

/// Sites of one task; tasks are put together in order, so their number does not show in the result.
const SITES_PER_TASK: usize = 8192;

/// Sites of the same batch, z and y.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Number of the line in the lattice: (batch * nz + z) * ny + y.
    at: i64,
    /// Row of its first site.
    start: usize,
    /// One past the row of its last.
    end: usize,
}

/// Sites by line.
#[derive(Debug)]
struct Lines {
    lines: Vec<Line>,
    /// Of each site.
    x: Vec<i32>,
    lattice: Lattice,
}

/// Keys of the output sites of a strided convolution, ascending, and their lattice.
///
/// # Shapes
/// - `keys`: `[N]`, strictly ascending cell numbers of `lattice`
///
/// # Errors
/// [`SparseError::Duplicate`] or [`SparseError::OutOfRange`] when the keys are not as they should be; [`SparseError::Geometry`] when
/// the kernel does not fit.
pub fn strided_keys(keys: &[i64], lattice: &Lattice, conv: &ConvShape) -> Result<(Vec<i64>, Lattice), SparseError> {
    let input = Lines::new(keys, lattice)?;
    let out_lattice = conv.output(lattice)?;
    let out_lines = input.reached_lines(conv, &out_lattice);
    let per_task = (out_lines.len() * SITES_PER_TASK).div_ceil(keys.len().max(1)).max(1);
    let parts: Vec<Vec<i64>> =
        out_lines.par_chunks(per_task).map(|lines| input.reached_keys(lines, conv, &out_lattice)).collect();
    Ok((parts.concat(), out_lattice))
}

/// Pairs of a convolution between given sites.
///
/// # Shapes
/// - `in_keys`, `out_keys`: `[N]`, `[N']`, strictly ascending cell numbers of `in_lattice` and of the lattice [`ConvShape::output`] gives
///
/// # Errors
/// As [`strided_keys`]; [`SparseError::TooMany`] when rows do not fit u32.
pub fn pairs_of(in_keys: &[i64], in_lattice: &Lattice, out_keys: &[i64], conv: &ConvShape) -> Result<Pairs, SparseError> {
    let input = Lines::new(in_keys, in_lattice)?;
    if conv.kind() == Kind::Submanifold && in_keys == out_keys {
        return submanifold_pairs(&input, conv);
    }
    let output = Lines::new(out_keys, &conv.output(in_lattice)?)?;
    let by_offset = pairs_by_offset(&input, &output, conv, conv.n_offsets());
    Pairs::from_offsets(&by_offset)
}

/// Offsets k and K - 1 - k hold the same pairs the other way round, and the middle one leads every site to itself.
fn submanifold_pairs(sites: &Lines, conv: &ConvShape) -> Result<Pairs, SparseError> {
    let n_offsets = conv.n_offsets();
    let mut by_offset = pairs_by_offset(sites, sites, conv, n_offsets / 2);
    let all: Vec<u32> = (0..sites.x.len() as u32).collect();
    by_offset.push((all.clone(), all));
    for k in (0..n_offsets / 2).rev() {
        let (in_rows, out_rows) = by_offset[k].clone();
        by_offset.push((out_rows, in_rows));
    }
    Pairs::from_offsets(&by_offset)
}

/// The first `n_offsets` offsets' pairs.
fn pairs_by_offset(input: &Lines, output: &Lines, conv: &ConvShape, n_offsets: usize) -> Vec<OffsetRows> {
    let per_task = (output.lines.len() * SITES_PER_TASK).div_ceil(output.x.len().max(1)).max(1);
    let parts: Vec<Vec<OffsetRows>> = output
        .lines
        .par_chunks(per_task)
        .map(|lines| {
            let mut by_offset = vec![(Vec::new(), Vec::new()); n_offsets];
            let mut cursors = Cursors::new(input, conv, &output.lattice);
            for line in lines {
                for kz_ky in 0..cursors.next_line.len() {
                    let first_offset = kz_ky * conv.kernel()[2] as usize;
                    if first_offset >= n_offsets {
                        break;
                    }
                    if let Some(in_line) = cursors.advance(kz_ky, line.at) {
                        merge(input, in_line, output, *line, conv, &mut by_offset[first_offset..]);
                    }
                }
            }
            by_offset
        })
        .collect();
    (0..n_offsets)
        .into_par_iter()
        .map(|k| {
            let rows = |side: fn(&OffsetRows) -> &Vec<u32>| {
                parts.iter().map(|part| side(&part[k]).as_slice()).collect::<Vec<_>>().concat()
            };
            (rows(|pairs| &pairs.0), rows(|pairs| &pairs.1))
        })
        .collect()
}

/// Pairs of two lines for every kx that `by_kx` has a place for.
fn merge(input: &Lines, from: Line, output: &Lines, to: Line, conv: &ConvShape, by_kx: &mut [OffsetRows]) {
    let (stride, padding) = (conv.stride()[2] as i32, conv.padding()[2] as i32);
    let width = (conv.kernel()[2] as i32).min(by_kx.len() as i32);
    let in_x = &input.x[from.start..from.end];
    let mut first = 0;
    for (out_row, out_x) in (to.start..).zip(&output.x[to.start..to.end]) {
        let left = out_x * stride - padding;
        while first < in_x.len() && in_x[first] < left {
            first += 1;
        }
        for (in_row, x) in (from.start + first..).zip(&in_x[first..]) {
            let kx = x - left;
            if kx >= width {
                break;
            }
            let (in_rows, out_rows) = &mut by_kx[kx as usize];
            in_rows.push(in_row as u32);
            out_rows.push(out_row as u32);
        }
    }
}

/// For each (kz, ky), where the search for the next input line goes on.
struct Cursors<'a> {
    input: &'a Lines,
    conv: &'a ConvShape,
    out_shape: [i64; 3],
    next_line: Vec<Option<usize>>,
}

impl<'a> Cursors<'a> {
    fn new(input: &'a Lines, conv: &'a ConvShape, output: &Lattice) -> Self {
        let n = (conv.kernel()[0] * conv.kernel()[1]) as usize;
        Self { input, conv, out_shape: output.shape(), next_line: vec![None; n] }
    }

    /// The input line that an output line meets at kz * Ky + ky; output lines must ascend from call to call.
    fn advance(&mut self, kz_ky: usize, out_line: i64) -> Option<Line> {
        let [_, kernel_y, _] = self.conv.kernel();
        let [nz, ny, _] = self.input.lattice.shape();
        let (out_plane, out_y) = (out_line / self.out_shape[1], out_line % self.out_shape[1]);
        let (batch, out_z) = (out_plane / self.out_shape[0], out_plane % self.out_shape[0]);
        let z = out_z * self.conv.stride()[0] - self.conv.padding()[0] + kz_ky as i64 / kernel_y;
        let y = out_y * self.conv.stride()[1] - self.conv.padding()[1] + kz_ky as i64 % kernel_y;
        if !(0..nz).contains(&z) || !(0..ny).contains(&y) {
            return None;
        }
        let wanted = (batch * nz + z) * ny + y;
        let lines = &self.input.lines;
        let mut next = self.next_line[kz_ky].unwrap_or_else(|| lines.partition_point(|line| line.at < wanted));
        while next < lines.len() && lines[next].at < wanted {
            next += 1;
        }
        self.next_line[kz_ky] = Some(next);
        lines.get(next).filter(|line| line.at == wanted).copied()
    }
}

impl Lines {
    fn new(keys: &[i64], lattice: &Lattice) -> Result<Self, SparseError> {
        if keys.len() > i32::MAX as usize {
            return Err(SparseError::TooMany { n: keys.len(), max: i32::MAX as usize });
        }
        let nx = lattice.shape()[2];
        let mut lines: Vec<Line> = Vec::new();
        let mut x = Vec::with_capacity(keys.len());
        let (mut line_begin, mut line_end, mut previous) = (0, 0, -1);
        for (row, key) in keys.iter().enumerate() {
            if *key <= previous {
                return Err(match *key < 0 {
                    true => SparseError::OutOfRange { site: lattice.site(*key), batch: lattice.batch(), shape: lattice.shape() },
                    false => SparseError::Duplicate { site: lattice.site(*key) },
                });
            }
            previous = *key;
            if *key >= line_end {
                let at = key / nx;
                (line_begin, line_end) = (at * nx, (at + 1) * nx);
                lines.push(Line { at, start: row, end: row });
            }
            if let Some(line) = lines.last_mut() {
                line.end = row + 1;
            }
            x.push((key - line_begin) as i32);
        }
        if previous >= lattice.n_cells() {
            let site = lattice.site(previous);
            return Err(SparseError::OutOfRange { site, batch: lattice.batch(), shape: lattice.shape() });
        }
        Ok(Self { lines, x, lattice: *lattice })
    }

    /// Numbers of the output lines that any line reaches, ascending.
    fn reached_lines(&self, conv: &ConvShape, output: &Lattice) -> Vec<i64> {
        let ([nz, ny, _], [out_nz, out_ny, _]) = (self.lattice.shape(), output.shape());
        let mut reached = Vec::new();
        for line in &self.lines {
            let (plane, y) = (line.at / ny, line.at % ny);
            let (batch, z) = (plane / nz, plane % nz);
            for out_z in reached_along(conv, 0, z, out_nz) {
                reached.extend(reached_along(conv, 1, y, out_ny).map(|out_y| (batch * out_nz + out_z) * out_ny + out_y));
            }
        }
        reached.sort_unstable();
        reached.dedup();
        reached
    }

    /// Keys of the cells that are reached on some ascending output lines.
    fn reached_keys(&self, out_lines: &[i64], conv: &ConvShape, output: &Lattice) -> Vec<i64> {
        let out_nx = output.shape()[2];
        let mut cursors = Cursors::new(self, conv, output);
        let mut is_reached = vec![0_u64; (out_nx as usize).div_ceil(64)]; // a bit for each cell of the line
        let mut keys = Vec::new();
        for out_line in out_lines {
            for kz_ky in 0..cursors.next_line.len() {
                let Some(line) = cursors.advance(kz_ky, *out_line) else {
                    continue;
                };
                for x in &self.x[line.start..line.end] {
                    for out_x in reached_along(conv, 2, i64::from(*x), out_nx) {
                        is_reached[out_x as usize / 64] |= 1 << (out_x % 64);
                    }
                }
            }
            for (word_idx, word) in is_reached.iter_mut().enumerate() {
                let mut bits = std::mem::take(word);
                while bits != 0 {
                    keys.push(out_line * out_nx + word_idx as i64 * 64 + i64::from(bits.trailing_zeros()));
                    bits &= bits - 1;
                }
            }
        }
        keys
    }
}

/// Output positions along an axis that have this input position under their kernel: at = o * stride - padding + k.
fn reached_along(conv: &ConvShape, axis: usize, at: i64, n_out: i64) -> std::ops::Range<i64> {
    let (kernel, stride, shifted) = (conv.kernel()[axis], conv.stride()[axis], at + conv.padding()[axis]);
    let first = (shifted - kernel + stride).div_euclid(stride).max(0); // ceil((shifted - kernel + 1) / stride)
    first..(shifted / stride + 1).min(n_out)
}
