//! Convolution over the occupied cells of a 3-D grid only.
//!
//! A cell that holds something is a *site*; features are one row per site. A convolution is a list of *pairs* for each offset of its
//! kernel: input row, output row ([`Pairs`], [`Rulebook`]). Which pairs there are follows from the sites alone, so layers over the
//! same sites share them ([`Rulebooks`]).
//!
//! # Semantics
//! Cross-correlation over (z, y, x), as of a dense convolution without flip, computed at output sites:
//! - submanifold: output sites are the input sites, stride 1, padding half the (odd) kernel
//! - strided: o is a site if any input site is i = o * stride - padding + k for a k of the kernel;
//!   the output extent is floor((n + 2 padding - kernel) / stride) + 1
//! - inverse: from the output sites of a strided convolution back to its input sites, with the same pairs the other way round
//!
//! # Order
//! Sites ascend by (batch, z, y, x), whatever order they came in. Within an offset, pairs ascend strictly in *both* columns: an
//! offset moves all sites alike. Every row is therefore written at most once per offset, and sums run over offsets in one order:
//! results have the same bits at any number of threads.
//!
//! # Two ways to compute
//! - [`convolve`] composes tensor operations: autograd, any device, any element type. Pairs come from a [`Rulebook`].
//! - [`FusedConv`] and [`weight_gradient`] are for CPUs: plain slices, pairs straight from [`pairs_of`], norm folded in, ReLU and addition fused.
//!
//! [`plain`] is the oracle for both.
//!
//! # Source
//! sparsekd-spec section 2.1; the method is Graham, Engelcke and van der Maaten (CVPR 2018) and, for strided ones, Yan, Mao
//! and Li (SECOND, 2018).

mod aligned;
mod by_sort;
mod cache;
mod conv;
mod fused;
mod geometry;
mod kernel;
mod lines;
mod pairs;
pub mod plain;
mod rulebook;
mod schedule;
mod sites;

pub use cache::Rulebooks;
pub use conv::{convolve, offsets_first, to_dense};
pub use fused::{Epilogue, FusedConv, Rows, weight_gradient};
pub use geometry::{ConvShape, Kind, Lattice};
pub use lines::{pairs_of, strided_keys};
pub use pairs::{OffsetRows, Pairs};
pub use rulebook::Rulebook;
pub use sites::Sites;

/// Why sites, pairs or weights cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SparseError {
    /// A lattice whose cells cannot be numbered, or with no cell.
    #[error("lattice of {batch} x {shape:?} cells: every extent must be at least 1 and the number of cells below 2^62")]
    Lattice {
        /// Clouds in the batch.
        batch: i64,
        /// Cells along z, y, x.
        shape: [i64; 3],
    },
    /// A site outside its lattice.
    #[error("site (batch, z, y, x) = {site:?} is outside the lattice of {batch} x {shape:?} cells")]
    OutOfRange {
        /// The first of them.
        site: [i64; 4],
        /// Clouds in the batch.
        batch: i64,
        /// Cells along z, y, x.
        shape: [i64; 3],
    },
    /// Two sites in one cell.
    #[error("site (batch, z, y, x) = {site:?} occurs more than once")]
    Duplicate {
        /// The first of them.
        site: [i64; 4],
    },
    /// More sites than row numbers.
    #[error("{n} sites, at most {max} are possible")]
    TooMany {
        /// How many there are.
        n: usize,
        /// How many there may be.
        max: usize,
    },
    /// Kernel, stride and padding that no convolution can have.
    #[error("kernel {kernel:?}, stride {stride:?}, padding {padding:?} over {shape:?} cells: {rule}")]
    Geometry {
        /// Along z, y, x.
        kernel: [i64; 3],
        /// Along z, y, x.
        stride: [i64; 3],
        /// Along z, y, x.
        padding: [i64; 3],
        /// Cells along z, y, x of the input.
        shape: [i64; 3],
        /// What is asked of them.
        rule: &'static str,
    },
    /// Pairs that no convolution has.
    #[error("pairs of offset {offset}: input rows and output rows must be equally many and each ascend strictly")]
    Pairs {
        /// The first such offset of the kernel.
        offset: usize,
    },
    /// An index key that already names other pairs.
    #[error("index key `{key}` stands for {known}, and is now used for {asked}")]
    Key {
        /// The key.
        key: String,
        /// What it was made for.
        known: String,
        /// What it is asked for.
        asked: String,
    },
    /// An inverse convolution without the strided one it inverts.
    #[error("index key `{key}`: an inverse convolution needs the strided convolution of that key to come first")]
    NoStrided {
        /// The key.
        key: String,
    },
    /// Sizes that do not fit each other.
    #[error("{what}: expected {expected}, got {got}")]
    Shape {
        /// Which of the arguments.
        what: &'static str,
        /// What the others ask for.
        expected: String,
        /// What it is.
        got: String,
    },
    /// libtorch failed, for instance for want of memory.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}
