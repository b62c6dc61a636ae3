//! Reading on-disk structures without trusting them: every access is checked, what lies outside is
//! an error of kind `UnexpectedEof`, never a panic.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Something with bytes at offsets: a device, an image file, or a slice made up by a test.
pub trait ReadAt {
    /// Reads up to `buf.len()` bytes at `offset`; fewer than that only at the end.
    ///
    /// # Errors
    /// What the device says.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match FileExt::read_at(self, &mut buf[done..], offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Offsets from a damaged superblock may be more than the system takes.
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        let n = buf.len().min(self.len() - start);
        buf[..n].copy_from_slice(&self[start..start + n]);
        Ok(n)
    }
}

/// So that a `&[u8]` (which is no `Sized` thing behind its reference) becomes a `&dyn ReadAt`.
impl ReadAt for &[u8] {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buf, offset)
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.as_slice().read_at(buf, offset)
    }
}

/// A part of a source, from which numbers are taken at offsets counted from its own start.
pub(super) struct Block(Vec<u8>);

impl Block {
    /// Reads exactly `len` bytes at `offset`. `len` is the caller's constant or was bounded by it.
    pub(super) fn read(source: &dyn ReadAt, offset: u64, len: usize) -> io::Result<Block> {
        let mut bytes = vec![0; len];
        if source.read_at(&mut bytes, offset)? < len {
            return Err(outside());
        }
        Ok(Block(bytes))
    }

    pub(super) fn bytes(&self, at: usize, len: usize) -> io::Result<&[u8]> {
        let end = at.checked_add(len).ok_or_else(outside)?;
        self.0.get(at..end).ok_or_else(outside)
    }

    pub(super) fn bytes_mut(&mut self, at: usize, len: usize) -> io::Result<&mut [u8]> {
        let end = at.checked_add(len).ok_or_else(outside)?;
        self.0.get_mut(at..end).ok_or_else(outside)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn array<const N: usize>(&self, at: usize) -> io::Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(at, N)?);
        Ok(array)
    }

    pub(super) fn u8(&self, at: usize) -> io::Result<u8> {
        Ok(self.array::<1>(at)?[0])
    }

    pub(super) fn le16(&self, at: usize) -> io::Result<u16> {
        Ok(u16::from_le_bytes(self.array(at)?))
    }

    pub(super) fn le32(&self, at: usize) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    pub(super) fn le64(&self, at: usize) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }

    pub(super) fn be16(&self, at: usize) -> io::Result<u16> {
        Ok(u16::from_be_bytes(self.array(at)?))
    }

    pub(super) fn be32(&self, at: usize) -> io::Result<u32> {
        Ok(u32::from_be_bytes(self.array(at)?))
    }

    pub(super) fn be64(&self, at: usize) -> io::Result<u64> {
        Ok(u64::from_be_bytes(self.array(at)?))
    }
}

/// The structures point outside the source, or outside themselves.
pub(super) fn outside() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// `a * b` for offsets taken from a superblock.
pub(super) fn product(a: u64, b: u64) -> io::Result<u64> {
    a.checked_mul(b).ok_or_else(outside)
}

/// `a + b` for offsets taken from a superblock.
pub(super) fn sum(a: u64, b: u64) -> io::Result<u64> {
    a.checked_add(b).ok_or_else(outside)
}

/// Whether the first MiB, or all of a shorter source, is zeros.
pub(super) fn starts_with_zeros(source: &dyn ReadAt) -> io::Result<bool> {
    let mut bytes = vec![0; 1 << 20];
    let n = source.read_at(&mut bytes, 0)?;
    Ok(bytes[..n].iter().all(|b| *b == 0))
}
