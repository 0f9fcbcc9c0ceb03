//! Values that begin at a cache line: registers as wide as a line are loaded a third slower across two.

use std::ops::{Deref, DerefMut};

/// Values in a cache line.
const LINE: usize = 16;

/// f32 values whose first one lies at the begin of a cache line.
#[derive(Debug, Default)]
pub(super) struct Aligned {
    storage: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// Values of some length that nobody has set yet; memory is used again.
    pub(super) fn reset(&mut self, len: usize) {
        self.storage.resize(len + LINE, 0.0);
        // Where a line cannot be found, values are merely read more slowly.
        self.start = self.storage.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        self.len = len;
    }

    pub(super) fn zeros(len: usize) -> Self {
        let mut values = Self::default();
        values.reset(len);
        values
    }

    pub(super) fn from_slice(values: &[f32]) -> Self {
        let mut aligned = Self::zeros(values.len());
        aligned.copy_from_slice(values);
        aligned
    }
}

impl Deref for Aligned {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.storage[self.start..self.start + self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

impl Clone for Aligned {
    fn clone(&self) -> Self {
        Self::from_slice(self)
    }
}

impl PartialEq for Aligned {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
