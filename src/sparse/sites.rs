//! The occupied cells of a lattice, on any device.

use tch::{Device, IndexOp, Kind, Tensor};

use super::{ConvShape, Lattice, SparseError, by_sort, lines};

/// Distinct cells in ascending order of (batch, z, y, x).
#[derive(Debug)]
pub struct Sites {
    lattice: Lattice,
    /// `[N]` i64, strictly ascending.
    keys: Tensor,
}

/// Row numbers are i32 in [`super::Rulebook`].
const MAX_SITES: usize = i32::MAX as usize;

impl Sites {
    /// Checks and orders sites. Also gives the row of `coords` each site came from, `[N]` i64: features follow by `index_select`.
    ///
    /// # Shapes
    /// - `coords`: `[N, 4]` of any integer type as (batch, z, y, x)
    ///
    /// # Errors
    /// [`SparseError::OutOfRange`] and [`SparseError::Duplicate`] name the first such site; [`SparseError::Shape`] when `coords` has not
    /// four columns.
    pub fn from_coords(coords: &Tensor, lattice: Lattice) -> Result<(Self, Tensor), SparseError> {
        let n = match coords.size()[..] {
            [n, 4] => n,
            _ => {
                return Err(SparseError::Shape {
                    what: "coords",
                    expected: "[N, 4]".to_owned(),
                    got: format!("{:?}", coords.size()),
                });
            }
        };
        if n as usize > MAX_SITES {
            return Err(SparseError::TooMany { n: n as usize, max: MAX_SITES });
        }
        let coords = coords.f_to_kind(Kind::Int64)?;
        let [nz, ny, nx] = lattice.shape();
        let sizes = Tensor::f_from_slice(&[lattice.batch(), nz, ny, nx])?.f_to_device(coords.device())?;
        let outside = coords.f_lt(0)?.f_logical_or(&coords.f_ge_tensor(&sizes)?)?.f_any_dim(1, false)?;
        if let Some(row) = first_true(&outside)? {
            return Err(SparseError::OutOfRange { site: site_at(&coords, row)?, batch: lattice.batch(), shape: lattice.shape() });
        }
        let column = |axis: i64| coords.i((.., axis));
        let keys = ((column(0) * nz + column(1)) * ny + column(2)) * nx + column(3);
        let (keys, rows) = keys.f_sort(0, false)?;
        if n > 1 {
            let repeated = keys.i(1..).f_eq_tensor(&keys.i(..n - 1))?;
            if let Some(row) = first_true(&repeated)? {
                return Err(SparseError::Duplicate { site: lattice.site(keys.int64_value(&[row])) });
            }
        }
        Ok((Self { lattice, keys }, rows))
    }

    /// Sites whose keys are known to ascend and to lie in the lattice.
    pub(super) fn from_ascending(keys: Tensor, lattice: Lattice) -> Self {
        Self { lattice, keys }
    }

    /// The sites of a strided convolution's output.
    ///
    /// # Errors
    /// [`SparseError::Geometry`] when the kernel does not fit; [`SparseError::Torch`].
    pub fn strided(&self, conv: &ConvShape) -> Result<Self, SparseError> {
        match self.device() {
            Device::Cpu => {
                let (keys, lattice) = lines::strided_keys(&self.host_keys()?, &self.lattice, conv)?;
                Ok(Self::from_ascending(Tensor::f_from_slice(&keys)?, lattice))
            }
            _ => by_sort::strided_sites(self, conv),
        }
    }

    /// The same by tensor operations, on any device.
    ///
    /// # Errors
    /// As [`Sites::strided`].
    pub fn strided_by_sort(&self, conv: &ConvShape) -> Result<Self, SparseError> {
        by_sort::strided_sites(self, conv)
    }

    /// N.
    pub fn len(&self) -> usize {
        self.keys.size().first().map_or(0, |n| *n as usize)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The grid they lie on.
    pub fn lattice(&self) -> &Lattice {
        &self.lattice
    }

    /// `[N]` i64: cell numbers, strictly ascending.
    pub fn keys(&self) -> &Tensor {
        &self.keys
    }

    /// Cell numbers in host memory.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn host_keys(&self) -> Result<Vec<i64>, SparseError> {
        Ok(Vec::try_from(&self.keys)?)
    }

    /// `[N, 4]` i64 as (batch, z, y, x).
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn coords(&self) -> Result<Tensor, SparseError> {
        let [nz, ny, nx] = self.lattice.shape();
        let over = |tensor: &Tensor, by: i64| tensor.f_divide_scalar_mode(by, "floor");
        let (line, plane) = (over(&self.keys, nx)?, over(&self.keys, nx * ny)?);
        let columns = [over(&plane, nz)?, plane.f_remainder(nz)?, line.f_remainder(ny)?, self.keys.f_remainder(nx)?];
        Ok(Tensor::f_stack(&columns, 1)?)
    }

    /// Where they live.
    pub fn device(&self) -> Device {
        self.keys.device()
    }

    /// Whether both are the same cells of the same lattice.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn same_as(&self, other: &Self) -> Result<bool, SparseError> {
        if self.lattice != other.lattice || self.len() != other.len() || self.device() != other.device() {
            return Ok(false);
        }
        Ok(self.keys.data_ptr() == other.keys.data_ptr() || self.keys.f_equal(&other.keys)?)
    }
}

/// Row of the first true of a `[N]` bool tensor.
fn first_true(flags: &Tensor) -> Result<Option<i64>, SparseError> {
    let rows = flags.f_nonzero()?;
    Ok(if rows.size()[0] == 0 { None } else { Some(rows.f_int64_value(&[0, 0])?) })
}

fn site_at(coords: &Tensor, row: i64) -> Result<[i64; 4], SparseError> {
    let mut site = [0; 4];
    for (axis, value) in (0..).zip(&mut site) {
        *value = coords.f_int64_value(&[row, axis])?;
    }
    Ok(site)
}
