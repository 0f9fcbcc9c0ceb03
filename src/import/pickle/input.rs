//! Reading opcodes' arguments: nothing is taken that is not there.

use super::PickleProblem;

/// Longest module or attribute name of a global.
pub const MAX_NAME: usize = 256;

/// The bytes and how far they are read.
pub struct Input<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Input<'a> {
    pub fn take(&mut self, length: u64) -> Result<&'a [u8], PickleProblem> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let taken = taken.ok_or(PickleProblem::Truncated { needed: length, left: rest.len() })?;
        self.at += taken.len();
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleProblem> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    /// A little-endian unsigned integer of 1, 2, 4 or 8 bytes.
    pub fn uint(&mut self, width: usize) -> Result<u64, PickleProblem> {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(self.take(width as u64)?);
        Ok(u64::from_le_bytes(wide))
    }

    pub fn u8(&mut self) -> Result<u8, PickleProblem> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u64(&mut self) -> Result<u64, PickleProblem> {
        self.array().map(u64::from_le_bytes)
    }

    /// Text up to a newline, which is consumed.
    pub fn line(&mut self) -> Result<&'a str, PickleProblem> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let window = &rest[..rest.len().min(MAX_NAME + 1)];
        let Some(length) = window.iter().position(|&byte| byte == b'\n') else {
            return Err(if rest.len() > MAX_NAME {
                PickleProblem::Limit { what: "bytes in a global's name", limit: MAX_NAME }
            } else {
                PickleProblem::Truncated { needed: rest.len() as u64 + 1, left: rest.len() }
            });
        };
        self.at += length + 1;
        std::str::from_utf8(&window[..length]).map_err(|_| PickleProblem::NotUtf8)
    }
}
