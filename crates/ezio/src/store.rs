//! Where the bytes of an image are: addressed by image offsets, whatever lies below.
//!
//! A store turns image offsets into places through the torrent's
//! [`Layout`]. It never knows what the bytes mean; who reads them verifies
//! them.

mod device;
mod dir;
mod dir_target;
mod some_pieces;
mod target;

pub use device::DeviceStore;
pub use dir::{DirStore, Names};
pub use dir_target::DirTarget;
pub use some_pieces::SomePieces;
pub use target::{DeviceTarget, HEAD_LEN};

use rustix::io::pwritev;
use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use swarm::layout::Layout;
use swarm::metainfo::Metainfo;
use swarm::units::Bytes;

/// An image that can be read by many threads at once.
pub trait Store: Send + Sync {
    /// Fills `buf` with the image's bytes from `offset` on.
    ///
    /// # Errors
    /// What the kernel answered, with the place on the device it was asked for. `buf` then holds
    /// anything.
    ///
    /// # Panics
    /// If the bytes are not all inside the image.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError>;

    /// Says that `range` of the image will be read soon, so that the kernel may begin now. Returns
    /// when the requests are with the device, not when they are answered.
    fn prefetch(&self, range: Range<u64>) {
        let _ = range;
    }

    /// The file that holds all of `range` in one piece, and the offset there, unless it is known not
    /// to be in the page cache: the kernel can send it from there, and is not expected to fail.
    fn in_file(&self, range: Range<u64>) -> Option<(&File, u64)> {
        let _ = range;
        None
    }

    /// Whether all of `range` is known, without reading, to be zeros.
    fn is_hole(&self, range: Range<u64>) -> bool {
        let _ = range;
        false
    }
}

/// An image in the making. What was written is read back through [`Store`].
pub trait Target: Store {
    /// Writes verified bytes at the image offset `offset`; `parts` are laid end to end.
    ///
    /// # Errors
    /// What the kernel said, and where. Then any of the bytes may have been written.
    fn write(&self, offset: u64, parts: &[&[u8]]) -> Result<(), StoreError>;

    /// Brings everything to the medium. Returns when it is there.
    ///
    /// # Errors
    /// What the kernel said. Then the target is not to be used.
    fn finish(&self) -> Result<(), StoreError>;

    /// Drops what the kernel keeps in memory of the image, as far as it is on the medium: what is
    /// read next comes from there.
    fn drop_cache(&self);

    /// Says that pieces may be here already and will be looked at: what is kept back until the end
    /// is read first, so that looking finds it.
    ///
    /// # Errors
    /// If it cannot be read.
    fn expect_content(&self) -> Result<(), StoreError>;
}

/// Opens what `path` is, to read the image of `torrent` from it: a directory of block files, a
/// device, or a file with the device's bytes.
///
/// Block files lie in `path` itself or, as the C++ EZIO keeps them, below it in a directory with
/// the torrent's name.
///
/// # Errors
/// What could not be opened and why; a device or file that is too small for the image.
pub fn open(torrent: &Metainfo, path: &Path) -> anyhow::Result<Arc<dyn Store>> {
    let metadata = std::fs::metadata(path)
        .map_err(|e| anyhow::anyhow!("open {}: {}", path.display(), open_reason(path, &e)))?;
    if metadata.is_dir() {
        return Ok(Arc::new(DirStore::open(torrent, path)?));
    }
    let layout = Arc::new(torrent.layout().clone());
    Ok(Arc::new(DeviceStore::open(path, layout)?))
}

/// A read or write that failed, and where.
#[derive(Debug)]
pub struct StoreError {
    /// What was tried: `read`, `write`, `flush`.
    pub what: &'static str,
    /// The device or file.
    pub path: PathBuf,
    /// Where on it that began, in bytes.
    pub offset: u64,
    /// Bytes wanted.
    pub len: u64,
    /// What the kernel said.
    pub error: io::Error,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StoreError { what, path, offset, len, error } = self;
        match len {
            0 => write!(f, "{what} {}: ", path.display())?,
            len => write!(f, "{what} {} at {offset:#x} of {}: ", Bytes(*len), path.display())?,
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => write!(f, "it ends before that; has it shrunk?"),
            _ => write!(f, "{}", io_reason(error)),
        }
    }
}

impl std::error::Error for StoreError {}

/// The kernel's words without the number that the standard library appends to them.
#[must_use]
pub fn io_reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Why `path` could not be opened, and what to do about it.
pub(crate) fn open_reason(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound if path.starts_with("/dev") => {
            "no such file or device; `lsblk` lists the disks of this machine".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            format!("permission denied, {}", crate::device::advice_on_rights())
        }
        _ => io_reason(error),
    }
}

/// A cursor over buffers laid end to end.
struct Parts<'a> {
    parts: &'a [&'a [u8]],
    /// Bytes of the first buffer that are taken.
    skip: usize,
}

impl<'a> Parts<'a> {
    fn new(parts: &'a [&'a [u8]]) -> Parts<'a> {
        Parts { parts, skip: 0 }
    }

    /// Bytes of all that is left.
    fn len(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum::<u64>() - self.skip as u64
    }

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

/// Buffers of one system call at most (`UIO_MAXIOV`).
const IOV_MAX: usize = 1024;

/// Writes all of `parts` at `offset` of `file`. On failure also says at which offset.
fn write_exact(file: &File, offset: u64, parts: &[&[u8]]) -> Result<(), (u64, io::Error)> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let (mut slices, mut at) = (&mut slices[..], offset);
    while !slices.is_empty() {
        let batch = &slices[..slices.len().min(IOV_MAX)];
        match pwritev(file, batch, at) {
            Ok(0) => return Err((at, io::ErrorKind::WriteZero.into())),
            Ok(written) => {
                IoSlice::advance_slices(&mut slices, written);
                at += written as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err((at, error.into())),
        }
    }
    Ok(())
}

/// Runs `each` with every part of `range`: which span of the layout, and which bytes of the range.
fn for_spans<E>(
    layout: &Layout,
    range: Range<u64>,
    mut each: impl FnMut(swarm::layout::Span, Range<usize>) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = 0;
    for span in layout.spans(range) {
        // A span is a part of a buffer in memory, so its length fits.
        let len = span.device.len as usize;
        each(span, at..at + len)?;
        at += len;
    }
    Ok(())
}
