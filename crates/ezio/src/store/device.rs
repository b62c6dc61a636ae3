//! An image on a raw device, or in a file that holds what a device would.

use super::{Store, StoreError, for_spans, open_reason};
use anyhow::{Context as _, bail};
use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use swarm::layout::{Extent, Layout};
use swarm::units::Bytes;

/// Extents of a device or of a plain file, read through the page cache.
#[derive(Debug)]
pub struct DeviceStore {
    file: File,
    path: PathBuf,
    layout: Arc<Layout>,
    /// The parts of a sparse file that hold data, ascending. What lies between reads as zeros, and
    /// is not read. `None`: everything is data.
    data: Option<Vec<Extent>>,
}

impl DeviceStore {
    /// Opens `path` for reading only.
    ///
    /// # Errors
    /// If it cannot be opened, or ends before the last extent does.
    pub fn open(path: &Path, layout: Arc<Layout>) -> anyhow::Result<DeviceStore> {
        let file = File::open(path)
            .map_err(|e| anyhow::anyhow!("open {}: {}", path.display(), open_reason(path, &e)))?;
        DeviceStore::new(file, path, layout)
    }

    /// Reads from `file`, which was opened from `path`.
    ///
    /// # Errors
    /// If it ends before the last extent does, or the kernel does not say where.
    pub fn new(file: File, path: &Path, layout: Arc<Layout>) -> anyhow::Result<DeviceStore> {
        let (shown, needed) = (path.display(), layout.device_end());
        let len =
            seek(&file, SeekFrom::End(0)).with_context(|| format!("find the end of {shown}"))?;
        if len < needed {
            bail!(
                "{shown} has {len} bytes ({}), but the image reaches to {needed} ({})",
                Bytes(len),
                Bytes(needed)
            );
        }
        // Twice the readahead of the kernel's default; prefetch() does the rest.
        let _ = fadvise(&file, 0, None, Advice::Sequential);
        let data = data_parts(&file, len);
        Ok(DeviceStore { file, path: path.to_owned(), layout, data })
    }

    /// Whether `part` seems to be in the page cache: asked of a byte in each MiB. The advice looks at
    /// every page, which for cached data costs a third of what reading it does. `None` if the file
    /// system does not tell; that is how tmpfs answers, where everything is in memory.
    fn is_cached(&self, part: Extent) -> Option<bool> {
        let at_once = |offset| {
            let mut byte = [0];
            let buffers = &mut [IoSliceMut::new(&mut byte)];
            preadv2(&self.file, buffers, offset, ReadWriteFlags::NOWAIT)
        };
        for offset in (part.offset..part.end()).step_by(1 << 20).chain([part.end() - 1]) {
            match at_once(offset) {
                Ok(1) => {}
                Err(Errno::OPNOTSUPP) => return None,
                _ => return Some(false),
            }
        }
        Some(true)
    }

    /// Reads from the file; what is known to be a hole is filled with zeros instead.
    fn read_device(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let Some(data) = &self.data else { return self.read_file(offset, buf) };
        let end = offset + buf.len() as u64;
        // Positions between `offset` and `end`, so their distance is inside of the buffer.
        let within = |from: u64, to: u64| (from - offset) as usize..(to - offset) as usize;
        let mut zeros_from = offset;
        for part in overlapping(data, offset..end) {
            let (from, to) = (part.offset.max(offset), part.end().min(end));
            buf[within(zeros_from, from)].fill(0);
            self.read_file(from, &mut buf[within(from, to)])?;
            zeros_from = to;
        }
        buf[within(zeros_from, end)].fill(0);
        Ok(())
    }

    fn read_file(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let wanted = Extent { offset, len: buf.len() as u64 };
        read_exact(&self.file, offset, buf).map_err(|e| read_failed(&self.path, wanted, e))
    }
}

pub(super) fn read_exact(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    file.read_exact_at(buf, offset)
}

pub(super) fn read_failed(path: &Path, wanted: Extent, error: io::Error) -> StoreError {
    StoreError {
        what: "read",
        path: path.to_owned(),
        offset: wanted.offset,
        len: wanted.len,
        error,
    }
}

impl Store for DeviceStore {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let range = offset..offset + buf.len() as u64;
        for_spans(&self.layout, range, |span, part| {
            self.read_device(span.device.offset, &mut buf[part])
        })
    }

    fn prefetch(&self, range: Range<u64>) {
        for span in self.layout.spans(range) {
            if self.is_cached(span.device) == Some(true) {
                continue;
            }
            // A hint: what it cannot do, the read does.
            let _ = fadvise(
                &self.file,
                span.device.offset,
                NonZeroU64::new(span.device.len),
                Advice::WillNeed,
            );
        }
    }

    fn in_file(&self, range: Range<u64>) -> Option<(&File, u64)> {
        let mut spans = self.layout.spans(range);
        let span = spans.next().filter(|_| self.data.is_none() && spans.next().is_none())?;
        (self.is_cached(span.device) != Some(false)).then_some((&self.file, span.device.offset))
    }

    fn is_hole(&self, range: Range<u64>) -> bool {
        self.data.as_ref().is_some_and(|data| {
            self.layout.spans(range).all(|span| {
                overlapping(data, span.device.offset..span.device.end()).next().is_none()
            })
        })
    }
}

/// The parts of `data` (ascending) that share a byte with `range`.
fn overlapping(data: &[Extent], range: Range<u64>) -> impl Iterator<Item = Extent> {
    let first = data.partition_point(|part| part.end() <= range.start);
    data[first..].iter().copied().take_while(move |part| part.offset < range.end)
}

/// Asks the file system which parts of a file hold data (`lseek(2)`, SEEK_DATA). `None` if it is
/// no sparse file, or the kernel cannot tell: then all of it is read.
fn data_parts(file: &File, len: u64) -> Option<Vec<Extent>> {
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        return None;
    }
    let mut parts = Vec::new();
    let mut at = 0;
    while at < len {
        let from = match seek(file, SeekFrom::Data(at)) {
            Ok(from) => from.min(len),
            // No data from here to the end.
            Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        let to = seek(file, SeekFrom::Hole(from)).ok()?.min(len);
        if to <= from {
            return None;
        }
        parts.push(Extent { offset: from, len: to - from });
        at = to;
    }
    let whole = [Extent { offset: 0, len }];
    (parts != whole).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn layout(extents: &[(u64, u64)]) -> Arc<Layout> {
        let extents = extents.iter().map(|&(offset, len)| Extent { offset, len }).collect();
        Arc::new(Layout::new(extents).unwrap())
    }

    #[test]
    fn holes_of_a_sparse_file_read_as_zeros() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let block = [7_u8; 4096];
        file.write_all(&block).unwrap();
        file.as_file().set_len(4 << 20).unwrap();
        file.as_file().write_all_at(&block, 1 << 20).unwrap();
        let store = DeviceStore::open(file.path(), layout(&[(0, 4 << 20)])).unwrap();
        let mut found = vec![1; 4 << 20];
        store.read_at(0, &mut found).unwrap();
        assert_eq!(found, std::fs::read(file.path()).unwrap());
        if store.data.is_none() {
            lab::skip!("the temporary directory's file system does not tell holes");
        }
        assert!(store.is_hole(2 << 20..4 << 20));
        assert!(!store.is_hole((1 << 20) + 4095..4 << 20));
        let mut across = vec![1; 8192];
        store.read_at((1 << 20) - 4096, &mut across).unwrap();
        assert_eq!(across, [[0_u8; 4096], block].concat());
    }

    #[test]
    fn a_device_smaller_than_the_image_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4095).unwrap();
        let error = DeviceStore::open(file.path(), layout(&[(0, 4096)])).unwrap_err();
        let shown = file.path().display();
        assert_eq!(
            error.to_string(),
            format!("{shown} has 4095 bytes (3.9 KiB), but the image reaches to 4096 (4 KiB)")
        );
    }

    #[test]
    fn a_file_that_shrank_is_an_error_with_its_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&[1; 8192], 0).unwrap();
        let store = DeviceStore::open(file.path(), layout(&[(4096, 4096)])).unwrap();
        file.as_file().set_len(4096).unwrap();
        let error = store.read_at(0, &mut [0; 4096]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "read 4 KiB at 0x1000 of {}: it ends before that; has it shrunk?",
                file.path().display()
            )
        );
    }

    #[test]
    fn io_error_numbers_are_left_out_of_messages() {
        assert_eq!(crate::store::io_reason(&io::Error::from_raw_os_error(5)), "Input/output error");
    }
}
