//! Numbers and bytes of a device at offsets. What lies behind its end counts as zeros, which no
//! signature is; a device that cannot be read is an error.

use crate::capture::filesystem::ReadAt;
use crate::store::io_reason;
use std::fmt;
use std::io;

/// A device or file, as long as it was found to be.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) bytes: &'a dyn ReadAt,
    /// Bytes of it.
    pub(super) len: u64,
    /// Bytes of a logical sector: what GPT and some others count in.
    pub(super) sector: u64,
}

/// Where a target could not be read or written, and why.
#[derive(Debug, thiserror::Error)]
pub struct AccessError {
    /// `read`, `write`, `flush`.
    pub what: &'static str,
    /// Bytes from the start of the device.
    pub offset: u64,
    /// How many bytes there.
    pub len: u64,
    /// The system's reason.
    pub error: io::Error,
}

/// `read 8 bytes at 0x1000: Input/output error`.
impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AccessError { what, offset, len, error } = self;
        write!(f, "{what} {len} bytes at {offset:#x}: {}", io_reason(error))
    }
}

impl Source<'_> {
    /// Fills `buf` from `at` on.
    pub(super) fn fill(&self, buf: &mut [u8], at: u64) -> Result<(), AccessError> {
        let len = buf.len() as u64;
        if at >= self.len {
            buf.fill(0);
            return Ok(());
        }
        // The device may have grown since; nobody has asked for what is there now.
        let room = usize::try_from(self.len - at).unwrap_or(usize::MAX).min(buf.len());
        let failed = |error| AccessError { what: "read", offset: at, len, error };
        let read = self.bytes.read_at(&mut buf[..room], at).map_err(failed)?;
        buf[read..].fill(0);
        Ok(())
    }

    pub(super) fn vec(&self, at: u64, len: usize) -> Result<Vec<u8>, AccessError> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes, at)?;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&self, at: u64) -> Result<[u8; N], AccessError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, at)?;
        Ok(bytes)
    }

    /// Whether `magic` stands at `at`.
    pub(super) fn holds(&self, at: u64, magic: &[u8]) -> Result<bool, AccessError> {
        // The longest magic has 32 bytes.
        let found = self.array::<32>(at)?;
        Ok(found.starts_with(magic))
    }

    pub(super) fn u8(&self, at: u64) -> Result<u8, AccessError> {
        Ok(self.array::<1>(at)?[0])
    }

    pub(super) fn le16(&self, at: u64) -> Result<u16, AccessError> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub(super) fn le32(&self, at: u64) -> Result<u32, AccessError> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(super) fn le64(&self, at: u64) -> Result<u64, AccessError> {
        self.array(at).map(u64::from_le_bytes)
    }

    pub(super) fn be16(&self, at: u64) -> Result<u16, AccessError> {
        self.array(at).map(u16::from_be_bytes)
    }

    pub(super) fn be32(&self, at: u64) -> Result<u32, AccessError> {
        self.array(at).map(u32::from_be_bytes)
    }

    pub(super) fn be64(&self, at: u64) -> Result<u64, AccessError> {
        self.array(at).map(u64::from_be_bytes)
    }
}

/// The reflected CRC-32 of the polynomial 0x04c11db7, neither inverted before nor after: GPT, LVM
/// and nilfs2 differ in where they start and what they do with the result.
pub(super) fn crc32(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xedb8_8320 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        // The check value of CRC-32/ISO-HDLC in every catalogue of CRCs.
        assert_eq!(!crc32(!0, b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn behind_the_end_are_zeros() {
        let bytes = vec![7; 10];
        let source = Source { bytes: &bytes, len: 6, sector: 512 };
        assert_eq!(source.array::<4>(4).unwrap(), [7, 7, 0, 0]);
        assert_eq!(source.le64(u64::MAX).unwrap(), 0);
    }
}
