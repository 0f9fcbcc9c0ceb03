//! The pairs of a convolution as tensors on the device of its sites.

use tch::{Device, Tensor};

use super::schedule::Schedule;
use super::{ConvShape, Kind, Pairs, Sites, SparseError, by_sort, lines};

/// Input and output rows of every product of a convolution between two sets of sites.
#[derive(Debug)]
pub struct Rulebook {
    /// Pairs of each offset; offsets follow each other in the tensors.
    counts: Vec<i64>,
    /// `[P]` i32.
    in_rows: Tensor,
    /// `[P]` i32.
    out_rows: Tensor,
    n_in: i64,
    n_out: i64,
    pub(super) schedule: Schedule,
}

impl Rulebook {
    /// Finds the pairs on the device of the sites. `output` must be `input` for a submanifold convolution, [`Sites::strided`] otherwise.
    ///
    /// # Errors
    /// [`SparseError::Shape`] when the two lattices do not fit the convolution or live on two devices; [`SparseError::Torch`].
    pub fn new(input: &Sites, output: &Sites, conv: &ConvShape) -> Result<Self, SparseError> {
        match input.device() {
            Device::Cpu => {
                check_ends(input, output, conv)?;
                let pairs = lines::pairs_of(&input.host_keys()?, input.lattice(), &output.host_keys()?, conv)?;
                Self::from_pairs(&pairs, input.len(), output.len())
            }
            _ => Self::by_sort(input, output, conv),
        }
    }

    /// The same by tensor operations, on any device.
    ///
    /// # Errors
    /// As [`Rulebook::new`].
    pub fn by_sort(input: &Sites, output: &Sites, conv: &ConvShape) -> Result<Self, SparseError> {
        check_ends(input, output, conv)?;
        let (counts, in_rows, out_rows) = by_sort::pairs(input, output, conv)?;
        Self::from_rows(counts, in_rows, out_rows, input.len() as i64, output.len() as i64)
    }

    /// From pairs found in plain code, on the CPU.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn from_pairs(pairs: &Pairs, n_in: usize, n_out: usize) -> Result<Self, SparseError> {
        let rows = |rows: &[u32]| -> Result<Tensor, SparseError> {
            let rows: Vec<i32> = rows.iter().map(|row| *row as i32).collect();
            Ok(Tensor::f_from_slice(&rows)?)
        };
        let (counts, (in_rows, out_rows)) = (pairs.counts().map(|n| n as i64).collect(), pairs.all());
        Self::from_rows(counts, rows(in_rows)?, rows(out_rows)?, n_in as i64, n_out as i64)
    }

    fn from_rows(counts: Vec<i64>, in_rows: Tensor, out_rows: Tensor, n_in: i64, n_out: i64) -> Result<Self, SparseError> {
        let schedule = Schedule::new(&counts, &in_rows, &out_rows, n_out)?;
        Ok(Self { counts, in_rows, out_rows, n_in, n_out, schedule })
    }

    /// The pairs in host memory.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn to_pairs(&self) -> Result<Pairs, SparseError> {
        let rows = |rows: &Tensor| -> Result<Vec<u32>, SparseError> {
            Ok(Vec::<i32>::try_from(rows)?.into_iter().map(|row| row as u32).collect())
        };
        let (in_rows, out_rows) = (rows(&self.in_rows)?, rows(&self.out_rows)?);
        let mut start = 0;
        let by_offset = self.counts.iter().map(|n| {
            let range = start..start + *n as usize;
            start = range.end;
            (in_rows[range.clone()].to_vec(), out_rows[range].to_vec())
        });
        Pairs::from_offsets(&by_offset.collect::<Vec<_>>())
    }

    /// The same products the other way round: from the output sites back to the input sites.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn inverse(&self) -> Result<Self, SparseError> {
        let (in_rows, out_rows) = (self.out_rows.shallow_clone(), self.in_rows.shallow_clone());
        Self::from_rows(self.counts.clone(), in_rows, out_rows, self.n_out, self.n_in)
    }

    /// Number of pairs: multiply-accumulates divided by Cin * Cout.
    pub fn n_pairs(&self) -> i64 {
        self.counts.iter().sum()
    }

    /// Number of offsets (K).
    pub fn n_offsets(&self) -> i64 {
        self.counts.len() as i64
    }

    /// Rows of the input.
    pub fn n_in(&self) -> i64 {
        self.n_in
    }

    /// Rows of the output.
    pub fn n_out(&self) -> i64 {
        self.n_out
    }
}

fn check_ends(input: &Sites, output: &Sites, conv: &ConvShape) -> Result<(), SparseError> {
    let lattice = conv.output(input.lattice())?;
    if *output.lattice() != lattice {
        let (expected, got) = (format!("{lattice:?}"), format!("{:?}", output.lattice()));
        return Err(SparseError::Shape { what: "lattice of the output sites", expected, got });
    }
    if input.device() != output.device() {
        let (expected, got) = (format!("{:?}", input.device()), format!("{:?}", output.device()));
        return Err(SparseError::Shape { what: "device of the output sites", expected, got });
    }
    if conv.kind() == Kind::Submanifold && !input.same_as(output)? {
        let (expected, got) = (format!("the {} input sites", input.len()), format!("{} other sites", output.len()));
        return Err(SparseError::Shape { what: "output sites of a submanifold convolution", expected, got });
    }
    Ok(())
}
