//! The grid sites lie on, and what a convolution does to it.

use super::SparseError;

/// A batch of 3-D grids of equal extent. Cells are numbered row by row: x runs fastest, then y, z, batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lattice {
    batch: i64,
    shape: [i64; 3],
}

/// How output sites follow from input sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Output sites are the input sites.
    Submanifold,
    /// Every cell that a site reaches is an output site.
    Strided,
}

/// Kernel, stride and padding along z, y, x.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvShape {
    kind: Kind,
    kernel: [i64; 3],
    stride: [i64; 3],
    padding: [i64; 3],
}

/// Largest extent, stride or padding along an axis; keeps every sum and product below 2^62.
const MAX_EXTENT: i64 = 1 << 20;

impl Lattice {
    /// `shape` is along z, y, x.
    ///
    /// # Errors
    /// [`SparseError::Lattice`] when an extent is below 1 or the cells are too many to number.
    pub fn new(batch: i64, shape: [i64; 3]) -> Result<Self, SparseError> {
        let n_cells = shape.iter().try_fold(batch, |product, n| product.checked_mul(*n));
        let fits = n_cells.is_some_and(|n| n < 1 << 62) && shape.iter().all(|n| *n <= MAX_EXTENT);
        if batch < 1 || shape.iter().any(|n| *n < 1) || !fits {
            return Err(SparseError::Lattice { batch, shape });
        }
        Ok(Self { batch, shape })
    }

    /// Clouds in the batch.
    pub fn batch(&self) -> i64 {
        self.batch
    }

    /// Cells along z, y, x.
    pub fn shape(&self) -> [i64; 3] {
        self.shape
    }

    /// All cells of the batch.
    pub fn n_cells(&self) -> i64 {
        self.batch * self.shape.iter().product::<i64>()
    }

    /// Number of the cell (batch, z, y, x), `None` outside.
    #[inline]
    pub fn key(&self, site: [i64; 4]) -> Option<i64> {
        let sizes = [self.batch, self.shape[0], self.shape[1], self.shape[2]];
        let inside = site.iter().zip(sizes).all(|(at, size)| (0..size).contains(at));
        inside.then(|| site.iter().zip(sizes).fold(0, |key, (at, size)| key * size + at))
    }

    /// The cell (batch, z, y, x) of a number.
    #[inline]
    pub fn site(&self, key: i64) -> [i64; 4] {
        let [nz, ny, nx] = self.shape;
        let (line, x) = (key / nx, key % nx);
        let (plane, y) = (line / ny, line % ny);
        [plane / nz, plane % nz, y, x]
    }
}

impl ConvShape {
    /// A submanifold convolution.
    ///
    /// # Errors
    /// [`SparseError::Geometry`] when the kernel is even or below 1 along an axis.
    pub fn submanifold(kernel: [i64; 3]) -> Result<Self, SparseError> {
        let shape = Self { kind: Kind::Submanifold, kernel, stride: [1; 3], padding: kernel.map(|k| k / 2) };
        shape.check()?;
        match kernel.iter().all(|k| k % 2 == 1) {
            true => Ok(shape),
            false => Err(shape.error([0; 3], "a submanifold kernel is odd along every axis")),
        }
    }

    /// A strided convolution; its stride may be 1.
    ///
    /// # Errors
    /// [`SparseError::Geometry`] when a kernel or stride is below 1, a padding below 0 or not below the kernel, or any of them huge.
    pub fn strided(kernel: [i64; 3], stride: [i64; 3], padding: [i64; 3]) -> Result<Self, SparseError> {
        let shape = Self { kind: Kind::Strided, kernel, stride, padding };
        shape.check()?;
        Ok(shape)
    }

    /// How output sites follow from input sites.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Along z, y, x.
    pub fn kernel(&self) -> [i64; 3] {
        self.kernel
    }

    /// Along z, y, x.
    pub fn stride(&self) -> [i64; 3] {
        self.stride
    }

    /// Along z, y, x.
    pub fn padding(&self) -> [i64; 3] {
        self.padding
    }

    /// Offsets of the kernel (K), numbered with kx fastest.
    pub fn n_offsets(&self) -> usize {
        self.kernel.iter().product::<i64>() as usize
    }

    /// Offsets (kz, ky, kx) in order of their number.
    pub fn offsets(&self) -> impl Iterator<Item = [i64; 3]> {
        let [kz, ky, kx] = self.kernel;
        (0..kz).flat_map(move |z| (0..ky).flat_map(move |y| (0..kx).map(move |x| [z, y, x])))
    }

    /// The lattice of the output sites.
    ///
    /// # Errors
    /// [`SparseError::Geometry`] when the kernel does not fit into the padded input.
    pub fn output(&self, input: &Lattice) -> Result<Lattice, SparseError> {
        let extent = |axis: usize| input.shape[axis] + 2 * self.padding[axis] - self.kernel[axis];
        if (0..3).any(|axis| extent(axis) < 0) {
            return Err(self.error(input.shape, "the kernel is larger than the padded input"));
        }
        Lattice::new(input.batch, std::array::from_fn(|axis| extent(axis) / self.stride[axis] + 1))
    }

    fn check(&self) -> Result<(), SparseError> {
        let huge = |values: [i64; 3], least: i64| values.iter().any(|value| *value < least || *value > MAX_EXTENT);
        if huge(self.kernel, 1) || huge(self.stride, 1) || huge(self.padding, 0) {
            return Err(self.error([0; 3], "kernel and stride are at least 1, padding at least 0, all at most 2^20"));
        }
        if self.kernel.iter().product::<i64>() > MAX_OFFSETS {
            return Err(self.error([0; 3], "a kernel has at most 1000 offsets"));
        }
        if (0..3).any(|axis| self.padding[axis] >= self.kernel[axis]) {
            return Err(self.error([0; 3], "padding is smaller than the kernel"));
        }
        Ok(())
    }

    fn error(&self, shape: [i64; 3], rule: &'static str) -> SparseError {
        SparseError::Geometry { kernel: self.kernel, stride: self.stride, padding: self.padding, shape, rule }
    }
}

/// Each offset has a list of pairs.
const MAX_OFFSETS: i64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_sites_are_each_others_inverse() {
        let lattice = Lattice::new(2, [3, 4, 5]).expect("a valid lattice");
        assert_eq!(lattice.n_cells(), 120);
        for key in 0..120 {
            assert_eq!(lattice.key(lattice.site(key)), Some(key));
        }
        for outside in [[2, 0, 0, 0], [0, 3, 0, 0], [0, 0, 4, 0], [0, 0, 0, 5], [0, 0, 0, -1], [-1, 0, 0, 0]] {
            assert_eq!(lattice.key(outside), None, "{outside:?}");
        }
    }

    #[test]
    fn lattices_and_kernels_out_of_bounds_are_refused() {
        for (batch, shape) in
            [(0, [1, 1, 1]), (1, [0, 1, 1]), (1, [1, -1, 1]), (i64::MAX, [2, 2, 2]), (8, [1 << 20, 1 << 20, 1 << 20])]
        {
            assert!(Lattice::new(batch, shape).is_err(), "{batch} {shape:?}");
        }
        assert!(ConvShape::submanifold([3, 2, 3]).is_err());
        assert!(ConvShape::submanifold([1 << 19, 1 << 19, 1]).is_err());
        for (kernel, stride, padding) in
            [([0; 3], [1; 3], [0; 3]), ([3; 3], [0; 3], [0; 3]), ([3; 3], [1; 3], [-1; 3]), ([3; 3], [1; 3], [3; 3])]
        {
            assert!(ConvShape::strided(kernel, stride, padding).is_err(), "{kernel:?} {stride:?} {padding:?}");
        }
        let wide = ConvShape::strided([3; 3], [2; 3], [0; 3]).expect("a valid kernel");
        assert!(wide.output(&Lattice::new(1, [2, 9, 9]).expect("a valid lattice")).is_err());
    }

    #[test]
    fn extents_of_the_voxel_backbone_are_those_of_the_reference() {
        let mut lattice = Lattice::new(1, [41, 1504, 1504]).expect("a valid lattice");
        let stages = [
            ([3; 3], [2; 3], [1; 3], [21, 752, 752]),
            ([3; 3], [2; 3], [1; 3], [11, 376, 376]),
            ([3; 3], [2; 3], [0, 1, 1], [5, 188, 188]),
            ([3, 1, 1], [2, 1, 1], [0; 3], [2, 188, 188]),
        ];
        for (kernel, stride, padding, expected) in stages {
            lattice = ConvShape::strided(kernel, stride, padding).and_then(|conv| conv.output(&lattice)).expect("it fits");
            assert_eq!(lattice.shape(), expected);
        }
    }
}
