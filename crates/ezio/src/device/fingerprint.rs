//! Whether somebody wrote to a device or file between two moments.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::usage::backing_file;
use super::{BlockDevice, Device, Kernel, Kind, read_number, read_text, size_of};

/// The state of a device or file at one moment, as far as the kernel counts.
///
/// A block device's counters see what was written through this device or its partitions. They do
/// not see writes through the whole disk into one of its partitions, nor any while the disk's
/// `queue/iostats` is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    size_bytes: u64,
    /// Of the file itself, or of the file behind a loop device.
    file: Option<FileState>,
    block: Option<BlockState>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FileState {
    path: PathBuf,
    dev: u64,
    ino: u64,
    len: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct BlockState {
    /// Grows with every new disk the kernel sees, so it changes when a medium is exchanged.
    disk_sequence: Option<u64>,
    /// Sectors of 512 bytes. `None` if the kernel does not count.
    written: Option<u64>,
    discarded: Option<u64>,
}

impl Fingerprint {
    /// Takes it. What others have written but the kernel still holds back is flushed first, so that
    /// it does not show up later as a change.
    ///
    /// # Errors
    /// Flushing (a device that fails), seeking, or a device that has gone.
    pub fn take(file: &File, device: &Device) -> io::Result<Fingerprint> {
        flush(file)?;
        let size_bytes = size_of(file)?;
        Ok(match &device.kind {
            Kind::RegularFile { .. } => {
                let state = FileState::new(&device.path, &file.metadata()?);
                Fingerprint { size_bytes, file: Some(state), block: None }
            }
            Kind::BlockDevice(block) => {
                let kernel = Kernel::here();
                let (file, block) = (behind_loop(&kernel, block)?, counters(&kernel, block)?);
                Fingerprint { size_bytes, file, block: Some(block) }
            }
        })
    }

    /// What differs in `later`, in words; `None` if nothing does.
    pub fn changed(&self, later: &Fingerprint) -> Option<String> {
        if self.size_bytes != later.size_bytes {
            return Some(format!(
                "its size changed from {} to {} bytes",
                self.size_bytes, later.size_bytes
            ));
        }
        let by_device = match (&self.block, &later.block) {
            (Some(before), Some(after)) => before.changed(after),
            (None, None) => None,
            _ => Some("it is another kind of device now".to_owned()),
        };
        by_device.or_else(|| match (&self.file, &later.file) {
            (Some(before), Some(after)) => before.changed(after),
            (None, None) => None,
            _ => Some("its loop device was attached anew".to_owned()),
        })
    }
}

impl BlockState {
    fn changed(&self, later: &BlockState) -> Option<String> {
        if self.disk_sequence != later.disk_sequence {
            return Some("its medium was exchanged".to_owned());
        }
        grown(self.written, later.written, "written")
            .or_else(|| grown(self.discarded, later.discarded, "discarded"))
    }
}

impl FileState {
    fn new(path: &Path, meta: &fs::Metadata) -> FileState {
        FileState {
            path: path.to_owned(),
            dev: meta.dev(),
            ino: meta.ino(),
            len: meta.len(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    fn changed(&self, later: &FileState) -> Option<String> {
        let path = self.path.display();
        if (self.dev, self.ino) != (later.dev, later.ino) {
            return Some(format!("{path} was replaced by another file"));
        }
        if self.len != later.len {
            return Some(format!("{path} went from {} to {} bytes", self.len, later.len));
        }
        if self.mtime != later.mtime {
            return Some(format!("{path} was written to"));
        }
        // What is written through mmap may show here first; so do chmod, link and rename.
        (self.ctime != later.ctime).then(|| format!("{path} or its attributes were changed"))
    }
}

/// A file system that knows no flushing, or cannot write, has nothing held back.
fn flush(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(e)
            if Errno::from_io_error(&e)
                .is_some_and(|e| [Errno::INVAL, Errno::ROFS].contains(&e)) =>
        {
            Ok(())
        }
        flushed => flushed,
    }
}

fn grown(before: Option<u64>, after: Option<u64>, what: &str) -> Option<String> {
    let kib = after?.wrapping_sub(before?) / 2;
    (before != after).then(|| format!("{kib} KiB were {what} meanwhile"))
}

/// See `Documentation/block/stat.rst` of the kernel: the 7th number counts sectors written, the
/// 14th (since 4.18) sectors discarded.
fn counters(kernel: &Kernel, block: &BlockDevice) -> io::Result<BlockState> {
    let own = kernel.directory(block.major, block.minor)?;
    let disk = kernel.disk_directory(block)?;
    let stat = read_text(&own.join("stat")).unwrap_or_default();
    let counts = read_number(&disk.join("queue/iostats")) != Some(0);
    let column = |index| stat.split_whitespace().nth(index).filter(|_| counts)?.parse().ok();
    Ok(BlockState {
        disk_sequence: read_number(&disk.join("diskseq")),
        written: column(6),
        discarded: column(13),
    })
}

/// The file that a loop device, or the loop device a partition lies on, shows.
fn behind_loop(kernel: &Kernel, block: &BlockDevice) -> io::Result<Option<FileState>> {
    let Some(path) = backing_file(&kernel.disk_directory(block)?) else { return Ok(None) };
    // A deleted file cannot be looked at by name; nobody else can easily write to it either.
    Ok(fs::metadata(&path).ok().map(|meta| FileState::new(&path, &meta)))
}
