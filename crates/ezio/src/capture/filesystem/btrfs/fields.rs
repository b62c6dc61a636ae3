//! Numbers in a structure of btrfs: little-endian, not aligned.

use super::BtrfsError;

/// A structure, of which numbers are taken at offsets from its start.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// The part of `len` bytes from `at` on.
    pub(super) fn part(self, at: usize, len: usize) -> Result<&'a [u8], BtrfsError> {
        at.checked_add(len).and_then(|end| self.0.get(at..end)).ok_or_else(|| {
            let what = format!("a structure of {} bytes is too short", self.0.len());
            BtrfsError::Damaged { what }
        })
    }

    pub(super) fn array<const N: usize>(self, at: usize) -> Result<[u8; N], BtrfsError> {
        let mut array = [0; N];
        array.copy_from_slice(self.part(at, N)?);
        Ok(array)
    }

    pub(super) fn u8(self, at: usize) -> Result<u8, BtrfsError> {
        Ok(self.array::<1>(at)?[0])
    }

    pub(super) fn le16(self, at: usize) -> Result<u16, BtrfsError> {
        Ok(u16::from_le_bytes(self.array(at)?))
    }

    pub(super) fn le32(self, at: usize) -> Result<u32, BtrfsError> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    pub(super) fn le64(self, at: usize) -> Result<u64, BtrfsError> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }
}
