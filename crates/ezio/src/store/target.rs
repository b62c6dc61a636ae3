//! A device or file that an image is written to.

use super::device::{read_exact, read_failed};
use super::{Parts, Store, StoreError, Target, for_spans, write_exact};
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use swarm::layout::Layout;

/// An image in the making on a device or in a file, through the page cache.
///
/// Nothing is written outside of the layout's extents. The first [`HEAD_LEN`] bytes of the image,
/// where a file system or a disk says what it is, are zeroed before anything else is written, and
/// written themselves by [`finish`](Target::finish): a half-written target looks neither like the
/// new image nor like what was there before.
#[derive(Debug)]
pub struct DeviceTarget {
    file: File,
    path: PathBuf,
    layout: Arc<Layout>,
    head: Mutex<Head>,
}

/// Bytes of the image that are written last: a page, which holds the superblock of most file
/// systems and the partition table of a disk.
pub const HEAD_LEN: usize = 4096;

#[derive(Debug, Default)]
struct Head {
    /// What belongs there, if it is known.
    bytes: Option<Vec<u8>>,
    /// Zeros are there: something was written, and it was not finished.
    cleared: bool,
}

impl DeviceTarget {
    /// Writes to `file`, which was opened from `path` for reading and writing, and which the caller
    /// has found to be large enough and nobody else's.
    #[must_use]
    pub fn new(file: File, path: &Path, layout: Arc<Layout>) -> DeviceTarget {
        DeviceTarget { file, path: path.to_owned(), layout, head: Mutex::default() }
    }

    fn head_len(&self) -> u64 {
        (HEAD_LEN as u64).min(self.layout.image_len())
    }

    /// Takes the old head off the medium before the first write.
    fn clear_head(&self) -> Result<(), StoreError> {
        let mut head = self.lock();
        if !head.cleared {
            self.write_head(&[0; HEAD_LEN][..self.head_len() as usize])?;
            self.flush()?;
            head.cleared = true;
        }
        Ok(())
    }

    fn write_head(&self, head: &[u8]) -> Result<(), StoreError> {
        for_spans(&self.layout, 0..head.len() as u64, |span, part| {
            self.write_device(span.device.offset, &[&head[part]])
        })
    }

    fn write_device(&self, offset: u64, parts: &[&[u8]]) -> Result<(), StoreError> {
        let end = offset + parts.iter().map(|part| part.len() as u64).sum::<u64>();
        write_exact(&self.file, offset, parts)
            .map_err(|(at, error)| self.failed("write", at, end - at, error))?;
        begin_writeback(&self.file, offset, end - offset);
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(|error| self.failed("flush", 0, 0, error))
    }

    fn read_file(&self, range: Range<u64>, buf: &mut [u8]) -> Result<(), StoreError> {
        for_spans(&self.layout, range, |span, part| {
            read_exact(&self.file, span.device.offset, &mut buf[part])
                .map_err(|e| read_failed(&self.path, span.device, e))
        })
    }

    fn failed(&self, what: &'static str, offset: u64, len: u64, error: io::Error) -> StoreError {
        StoreError { what, path: self.path.clone(), offset, len, error }
    }

    fn lock(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target for DeviceTarget {
    fn write(&self, offset: u64, parts: &[&[u8]]) -> Result<(), StoreError> {
        self.clear_head()?;
        let mut rest = Parts::new(parts);
        let (mut at, end) = (offset, offset + rest.len());
        if offset < HEAD_LEN as u64 {
            // Pieces are at least 16 KiB or the whole image, so the head is in the first.
            let head_len = self.head_len();
            assert!(offset == 0 && end >= head_len, "the head of the image comes in one piece");
            self.lock().bytes = Some(rest.take(head_len).concat());
            at = head_len;
        }
        for_spans(&self.layout, at..end, |span, _| {
            self.write_device(span.device.offset, &rest.take(span.device.len))
        })
    }

    fn finish(&self) -> Result<(), StoreError> {
        self.flush()?;
        let mut head = self.lock();
        // What was not cleared is as it was found.
        if head.cleared
            && let Some(bytes) = &head.bytes
        {
            self.write_head(bytes)?;
            self.flush()?;
            *head = Head::default();
        }
        Ok(())
    }

    fn drop_cache(&self) {
        // Best effort: a page that somebody else holds stays.
        let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
    }

    fn expect_content(&self) -> Result<(), StoreError> {
        // A head is a page.
        let mut bytes = vec![0; self.head_len() as usize];
        self.read_file(0..self.head_len(), &mut bytes)?;
        self.lock().bytes = Some(bytes);
        Ok(())
    }
}

impl Store for DeviceTarget {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let range = offset..offset + buf.len() as u64;
        // Held while the medium is read: between that and a look at what is kept back, it could be
        // written, and forgotten here.
        let head = (range.start < HEAD_LEN as u64).then(|| self.lock());
        self.read_file(range.clone(), buf)?;
        if let Some(head) = head.as_ref().and_then(|head| head.bytes.as_ref()) {
            overlay(head, range, buf);
        }
        Ok(())
    }
}

/// Has the kernel begin to bring a range to the medium (sync_file_range(2)). It would begin by itself
/// when a tenth of the memory waits to be written, and a slow disk would then be idle until there,
/// and busy for as long when everything else is done.
#[allow(unsafe_code)] // No library that we have offers this call.
fn begin_writeback(file: &File, offset: u64, len: u64) {
    // What does not fit is beyond any file; 0 would mean all to the end.
    let (Ok(offset), Ok(len @ 1..)) = (i64::try_from(offset), i64::try_from(len)) else { return };
    // SAFETY: it takes numbers only, and the descriptor is open as long as `file` is borrowed.
    // It is a hint: whether all is on the medium is known from the flush.
    let _ = unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE)
    };
}

/// Puts what `head` (the image's first bytes) says over what was read of `range`.
fn overlay(head: &[u8], range: Range<u64>, buf: &mut [u8]) {
    // Below the length of the head, so it fits.
    let from = range.start.min(head.len() as u64) as usize;
    let to = range.end.min(head.len() as u64) as usize;
    buf[..to - from].copy_from_slice(&head[from..to]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
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
        assert_eq!(before[512..3512], [0; 3000], "what was there before is gone too");
        assert_eq!(before[5000..6096], [0; 1096]);
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
        assert_eq!(std::fs::read(file.path()).unwrap(), [[0; 100], [0xee; 100]].concat());
        target.finish().unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), [[7; 100], [0xee; 100]].concat());
    }

    #[test]
    fn a_head_that_was_there_is_found_and_comes_back_at_the_end() {
        let (file, target) = target(&[(0, 40_000)], 40_000);
        target.expect_content().unwrap();
        target.finish().unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), [0xee; 40_000], "nothing was written");

        target.expect_content().unwrap();
        target.write(16_384, &[&[5; 16_384]]).unwrap();
        let mut first = vec![0; 16_384];
        target.read_at(0, &mut first).unwrap();
        assert_eq!(first, [0xee; 16_384], "hashing finds the first piece");
        assert_eq!(std::fs::read(file.path()).unwrap()[..HEAD_LEN], [0; HEAD_LEN]);
        target.finish().unwrap();
        let after = std::fs::read(file.path()).unwrap();
        assert_eq!(after[..16_384], [0xee; 16_384]);
        assert_eq!(after[16_384..32_768], [5; 16_384]);
    }

    #[test]
    fn who_reads_the_head_while_it_is_written_reads_no_zeros() {
        const LEN: usize = 1 << 20;
        let (_file, target) = target(&[(0, LEN as u64)], LEN as u64);
        let over = AtomicBool::new(false);
        target.expect_content().unwrap();
        let zeros = thread::scope(|scope| {
            let reader = || {
                let (mut found, mut wrong) = (vec![0; LEN], false);
                while !wrong && !over.load(Ordering::Relaxed) {
                    target.read_at(0, &mut found).unwrap();
                    wrong = found[..HEAD_LEN] != [0xee; HEAD_LEN];
                }
                wrong
            };
            let readers = [scope.spawn(reader), scope.spawn(reader)];
            for _ in 0..200 {
                target.expect_content().unwrap();
                target.write(16_384, &[&[5; 16_384]]).unwrap();
                target.finish().unwrap();
            }
            over.store(true, Ordering::Relaxed);
            readers.map(|reader| reader.join().unwrap())
        });
        assert_eq!(zeros, [false, false]);
    }

    #[test]
    fn a_write_that_fails_says_where() {
        let file = File::options().read(true).write(true).open("/dev/full").unwrap();
        let layout = Layout::new(vec![Extent { offset: 0x1000, len: 20_000 }]).unwrap();
        let target = DeviceTarget::new(file, Path::new("/dev/full"), Arc::new(layout));
        let error = target.write(16_384, &[&[1; 3616]]).unwrap_err().to_string();
        assert_eq!(error, "write 4 KiB at 0x1000 of /dev/full: No space left on device");
    }
}
