//! A device or file that an image is written to.

use super::device::{read_exact, read_failed};
use super::{Store, StoreError, for_spans};
use rustix::io::pwritev;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use swarm::layout::Layout;

/// An image in the making on a device or in a file, through the page cache.
///
/// Nothing is written outside of the layout's extents. The first [`HEAD_LEN`] bytes of the image,
/// where a file system or a disk says what it is, are kept in memory until
/// [`finish`](DeviceTarget::finish): a half-written target never looks usable.
#[derive(Debug)]
pub struct DeviceTarget {
    file: File,
    path: PathBuf,
    layout: Arc<Layout>,
    head: Mutex<Option<Vec<u8>>>,
}

/// Bytes of the image that are written last: a page, which holds the superblock of most file
/// systems and the partition table of a disk.
pub const HEAD_LEN: usize = 4096;

impl DeviceTarget {
    /// Writes to `file`, which was opened from `path` for reading and writing, and which the caller
    /// has found to be large enough and nobody else's.
    #[must_use]
    pub fn new(file: File, path: &Path, layout: Arc<Layout>) -> DeviceTarget {
        DeviceTarget { file, path: path.to_owned(), layout, head: Mutex::new(None) }
    }

    /// Writes verified bytes at the image offset `offset`; `parts` are laid end to end.
    ///
    /// # Errors
    /// What the kernel said, and where. Then any of the bytes may have been written.
    pub fn write(&self, offset: u64, parts: &[&[u8]]) -> Result<(), StoreError> {
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let mut rest = Parts { parts, skip: 0 };
        let mut at = offset;
        if offset < HEAD_LEN as u64 {
            let head_len = (HEAD_LEN as u64).min(self.layout.image_len());
            // Pieces are at least 16 KiB or the whole image, so the head is in the first.
            assert!(offset == 0 && len >= head_len, "the head of the image comes in one piece");
            let head = rest.take(head_len).concat();
            *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
            at = head_len;
        }
        for_spans(&self.layout, at..offset + len, |span, _| {
            self.write_device(span.device.offset, &rest.take(span.device.len))
        })
    }

    /// Brings everything to the medium, then the head of the image, then that.
    ///
    /// # Errors
    /// What the kernel said. Then the target is not to be used.
    pub fn finish(&self) -> Result<(), StoreError> {
        self.flush()?;
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(head) = head {
            for_spans(&self.layout, 0..head.len() as u64, |span, part| {
                self.write_device(span.device.offset, &[&head[part]])
            })?;
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(|error| self.failed("flush", 0, 0, error))
    }

    fn write_device(&self, offset: u64, parts: &[&[u8]]) -> Result<(), StoreError> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let (mut slices, mut at) = (&mut slices[..], offset);
        while !slices.is_empty() {
            let left: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
            let batch = &slices[..slices.len().min(IOV_MAX)];
            match pwritev(&self.file, batch, at) {
                Ok(0) => {
                    let error = io::ErrorKind::WriteZero.into();
                    return Err(self.failed("write", at, left, error));
                }
                Ok(written) => {
                    IoSlice::advance_slices(&mut slices, written);
                    at += written as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(self.failed("write", at, left, error.into())),
            }
        }
        Ok(())
    }

    fn failed(&self, what: &'static str, offset: u64, len: u64, error: io::Error) -> StoreError {
        StoreError { what, path: self.path.clone(), offset, len, error }
    }
}

/// Buffers of one system call at most (`UIO_MAXIOV`).
const IOV_MAX: usize = 1024;

impl Store for DeviceTarget {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let range = offset..offset + buf.len() as u64;
        for_spans(&self.layout, range.clone(), |span, part| {
            read_exact(&self.file, span.device.offset, &mut buf[part])
                .map_err(|e| read_failed(&self.path, span.device, e))
        })?;
        if range.start < HEAD_LEN as u64
            && let Some(head) = &*self.head.lock().unwrap_or_else(PoisonError::into_inner)
        {
            overlay(head, range, buf);
        }
        Ok(())
    }
}

/// Puts what `head` (the image's first bytes) says over what was read of `range`.
fn overlay(head: &[u8], range: Range<u64>, buf: &mut [u8]) {
    // Below the length of the head, so it fits.
    let from = range.start.min(head.len() as u64) as usize;
    let to = range.end.min(head.len() as u64) as usize;
    buf[..to - from].copy_from_slice(&head[from..to]);
}

/// A cursor over buffers laid end to end.
struct Parts<'a> {
    parts: &'a [&'a [u8]],
    /// Bytes of the first buffer that are taken.
    skip: usize,
}

impl<'a> Parts<'a> {
    /// The next `len` bytes.
    fn take(&mut self, mut len: u64) -> Vec<&'a [u8]> {
        let mut taken = Vec::new();
        while len > 0
            && let Some((first, rest)) = self.parts.split_first()
        {
            let part = &first[self.skip..];
            if (part.len() as u64) <= len {
                taken.push(part);
                len -= part.len() as u64;
                (self.parts, self.skip) = (rest, 0);
            } else {
                // Less than the buffer's length, so it fits.
                taken.push(&part[..len as usize]);
                self.skip += len as usize;
                len = 0;
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm::layout::Extent;

    fn target(extents: &[(u64, u64)], len: u64) -> (tempfile::NamedTempFile, DeviceTarget) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![0xee; len as usize]).unwrap();
        let extents = extents.iter().map(|&(offset, len)| Extent { offset, len }).collect();
        let layout = Arc::new(Layout::new(extents).unwrap());
        let target = DeviceTarget::new(file.reopen().unwrap(), file.path(), layout);
        (file, target)
    }

    #[test]
    fn the_head_is_written_last_and_nothing_outside_the_extents() {
        let (file, target) = target(&[(512, 3000), (5000, 40_000)], 50_000);
        let image: Vec<u8> = (0..43_000_u32).map(|i| (i % 251) as u8).collect();
        let (a, b) = image.split_at(16_384);
        target.write(16_384, &[&b[..7], &b[7..20_000], &b[20_000..]]).unwrap();
        target.write(0, &[&a[..1], &a[1..10_000], &a[10_000..]]).unwrap();

        let before = std::fs::read(file.path()).unwrap();
        assert_eq!(before[512..3512], [0xee; 3000]);
        assert_eq!(before[5000..6096], [0xee; 1096]);
        let mut found = vec![0; image.len()];
        target.read_at(0, &mut found).unwrap();
        assert_eq!(found, image, "what is not written yet is read all the same");

        target.finish().unwrap();
        let after = std::fs::read(file.path()).unwrap();
        assert_eq!(after[512..3512], image[..3000]);
        assert_eq!(after[5000..45_000], image[3000..]);
        let outside = [&after[..512], &after[3512..5000], &after[45_000..]].concat();
        assert!(outside.iter().all(|&byte| byte == 0xee));
        target.read_at(0, &mut found).unwrap();
        assert_eq!(found, image);
    }

    #[test]
    fn an_image_shorter_than_a_head_is_all_head() {
        let (file, target) = target(&[(0, 100)], 200);
        target.write(0, &[&[7; 100]]).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), [0xee; 200]);
        target.finish().unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), [[7; 100], [0xee; 100]].concat());
    }

    #[test]
    fn a_write_that_fails_says_where() {
        let file = File::options().read(true).write(true).open("/dev/full").unwrap();
        let layout = Layout::new(vec![Extent { offset: 0x1000, len: 20_000 }]).unwrap();
        let target = DeviceTarget::new(file, Path::new("/dev/full"), Arc::new(layout));
        let error = target.write(16_384, &[&[1; 3616]]).unwrap_err().to_string();
        assert_eq!(error, "write 3.5 KiB at 0x5000 of /dev/full: No space left on device");
    }
}
