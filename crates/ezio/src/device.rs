//! What the kernel tells about a path: block device or regular file, its size, its sectors, who
//! uses it, whether it changed.
//!
//! Facts only, gathered read-only from `stat`, `/sys` and `/proc` (no udev, which a small initramfs
//! lacks). What follows from them, a refusal or a warning, is decided where they are asked for.

mod fingerprint;
mod usage;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock, ioctl_blkpbszget, ioctl_blksszget};
use rustix::io::Errno;

pub use fingerprint::Fingerprint;
pub use usage::{Use, usage};

/// A block device or a regular file that was opened and looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// As the user wrote it, for messages.
    pub path: PathBuf,
    /// Block device or regular file.
    pub kind: Kind,
    /// Bytes from the first to the last readable one; never 0.
    pub size_bytes: u64,
    /// Smallest unit a read or write may have: `BLKSSZGET`, 512 for a regular file.
    pub logical_sector_bytes: u32,
    /// Smallest unit the medium writes without reading first: `BLKPBSZGET`, 512 for a regular file.
    pub physical_sector_bytes: u32,
    /// A disk with seeks (`queue/rotational`). `None` where nobody knows, as for a regular file.
    pub rotational: Option<bool>,
    /// The kernel refuses to write to it (`ro` in sysfs). `false` for a regular file.
    pub read_only: bool,
}

/// Which of the two sorts of things that have bytes at offsets this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A block device.
    BlockDevice(BlockDevice),
    /// A regular file, known by its file system's device number and its inode number.
    RegularFile {
        /// `st_dev`.
        dev: u64,
        /// `st_ino`.
        ino: u64,
    },
}

/// A block device as sysfs knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDevice {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// The kernel's name: `sda1`, `dm-3`, `nvme0n1p2`, `loop0`.
    pub name: String,
    /// The kernel's name of the disk if this is a partition of it.
    pub disk: Option<String>,
}

/// A partition as the kernel sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The kernel's name: `sda1`.
    pub name: String,
    /// Its number in the table, from 1.
    pub number: u32,
    /// Where it begins on the disk.
    pub start_bytes: u64,
    /// Its length.
    pub size_bytes: u64,
}

/// Why a path cannot be used. Each says what to do where there is something to do.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no such path.
    #[error("open {}: no such file or device{}", .0.display(), advice_on_names(.0))]
    Missing(PathBuf),
    /// The caller lacks the right.
    #[error("open {}: permission denied, {}", .0.display(), advice_on_rights())]
    Denied(PathBuf),
    /// A directory, character device, FIFO or socket.
    #[error("open {}: {what}; give a block device or an image file", .path.display())]
    WrongKind {
        /// As the user wrote it.
        path: PathBuf,
        /// `it is a directory`, ...
        what: &'static str,
    },
    /// Size 0: an empty file, a card reader without a card.
    #[error("open {}: it has 0 bytes (an empty file, or a drive without a medium)", .0.display())]
    Empty(PathBuf),
    /// The exclusive open failed with EBUSY.
    #[error("open {} for this program alone: {}", .path.display(), in_use(.uses))]
    InUse {
        /// As the user wrote it.
        path: PathBuf,
        /// By whom, as far as the kernel tells; may be empty.
        uses: Vec<Use>,
    },
    /// Somebody has locked the file.
    #[error(
        "{} is in use: another program has locked it; is it being served, captured or deployed to?",
        .0.display()
    )]
    Locked(PathBuf),
    /// Anything else.
    #[error("{what} {}: {}", .path.display(), os_reason(.source))]
    Io {
        /// What was tried: `open`, `find the size of`.
        what: &'static str,
        /// As the user wrote it.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Opens a device or image file to read it and finds out what the kernel knows about it.
///
/// The open is a shared one; [`claim`] keeps others away.
///
/// # Errors
/// [`DeviceError`] for a path that is missing, forbidden, empty, or neither a block device nor a
/// regular file. A FIFO does not make it wait for a writer: it is refused before it is opened.
pub fn open_source(path: impl AsRef<Path>) -> Result<(File, Device), DeviceError> {
    let path = path.as_ref();
    let by_name = fs::metadata(path).map_err(|e| error("open", path, e))?;
    refuse_wrong_kind(path, &by_name)?;
    let file = File::open(path).map_err(|e| error("open", path, e))?;
    let device = describe(&file, path)?;
    Ok((file, device))
}

/// What the kernel knows about `file`, which was opened from `path` (the path is for messages).
///
/// # Errors
/// [`DeviceError`] as for [`open_source`]. The file's offset is left at its start.
pub fn describe(file: &File, path: &Path) -> Result<Device, DeviceError> {
    let meta = file.metadata().map_err(|e| error("look at", path, e))?;
    refuse_wrong_kind(path, &meta)?;
    let size_bytes = size_of(file).map_err(|e| error("find the size of", path, e))?;
    if size_bytes == 0 {
        return Err(DeviceError::Empty(path.to_owned()));
    }
    if meta.file_type().is_file() {
        return Ok(describe_file(path, &meta, size_bytes));
    }
    describe_block_device(file, path, &meta, size_bytes).map_err(|source| DeviceError::Io {
        what: "look in /sys for",
        path: path.to_owned(),
        source,
    })
}

/// What a [`Claim`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The device is read; others may read it too.
    Reading,
    /// The device is written.
    Writing,
}

/// The hold on a block device or file; dropping it gives the device back.
///
/// While it lives nobody can mount the device, use it as swap, put LVM, MD or dm-crypt on it, mount
/// one of its partitions or the disk it is a partition of: each of them takes the same kernel-wide
/// hold (`O_EXCL` on a block device) and gets EBUSY. Plain readers and writers are not stopped.
///
/// Of a regular file it is an advisory lock (flock(2)), shared by readers: an image that is being
/// served is not taken as a target.
#[derive(Debug)]
pub struct Claim(
    #[expect(dead_code, reason = "held, not read: closing it ends the claim")] Option<File>,
);

/// Takes the hold, or says who has it.
///
/// # Errors
/// [`DeviceError::InUse`], [`DeviceError::Locked`], or another [`DeviceError`] if the device cannot
/// be opened any more.
pub fn claim(device: &Device, purpose: Purpose) -> Result<Claim, DeviceError> {
    if matches!(device.kind, Kind::RegularFile { .. }) {
        return lock(device, purpose);
    }
    // O_EXCL without O_CREAT means this only for block devices (open(2)).
    let exclusive = OFlags::EXCL.bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(exclusive).open(&device.path) {
        Ok(file) => Ok(Claim(Some(file))),
        Err(e) if e.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => Err(DeviceError::InUse {
            path: device.path.clone(),
            uses: usage(device).unwrap_or_default(),
        }),
        Err(e) => Err(error("open", &device.path, e)),
    }
}

fn lock(device: &Device, purpose: Purpose) -> Result<Claim, DeviceError> {
    let file = File::open(&device.path).map_err(|e| error("open", &device.path, e))?;
    let operation = match purpose {
        Purpose::Reading => FlockOperation::NonBlockingLockShared,
        Purpose::Writing => FlockOperation::NonBlockingLockExclusive,
    };
    match flock(&file, operation) {
        Ok(()) => Ok(Claim(Some(file))),
        Err(Errno::WOULDBLOCK) => Err(DeviceError::Locked(device.path.clone())),
        // A file system without locks.
        Err(_) => Ok(Claim(None)),
    }
}

/// The partitions the kernel sees on a disk, in order of their numbers. Empty for a partition, for
/// a regular file (`losetup -P` makes a device of it), and where the kernel did not read the table.
///
/// # Errors
/// Only if sysfs cannot be read at all.
pub fn partitions(device: &Device) -> io::Result<Vec<Partition>> {
    match &device.kind {
        Kind::RegularFile { .. } => Ok(Vec::new()),
        Kind::BlockDevice(block) => Kernel::here().partitions(block),
    }
}

impl BlockDevice {
    /// `8:1`, the way sysfs and mountinfo write it.
    pub fn number(&self) -> String {
        format!("{}:{}", self.major, self.minor)
    }
}

/// `sda1: 50 MiB at 0x100000` for a list under a message.
impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.size_bytes >> 20;
        write!(f, "/dev/{}: {mib} MiB at {:#x}", self.name, self.start_bytes)
    }
}

/// Where the kernel publishes facts; tests put a small tree of files there.
#[derive(Debug, Clone)]
struct Kernel {
    sys: PathBuf,
    proc: PathBuf,
}

impl Kernel {
    fn here() -> Kernel {
        Kernel { sys: "/sys".into(), proc: "/proc".into() }
    }

    /// The device's own directory. A partition's lies inside its disk's.
    fn directory(&self, major: u32, minor: u32) -> io::Result<PathBuf> {
        fs::canonicalize(self.sys.join(format!("dev/block/{major}:{minor}")))
    }

    fn block_device(&self, major: u32, minor: u32) -> io::Result<BlockDevice> {
        let directory = self.directory(major, minor)?;
        let disk = if directory.join("partition").exists() {
            directory.parent().map(last_name)
        } else {
            None
        };
        Ok(BlockDevice { major, minor, name: last_name(&directory), disk })
    }

    /// The directory of the whole disk, where `queue` lives.
    fn disk_directory(&self, block: &BlockDevice) -> io::Result<PathBuf> {
        let mut directory = self.directory(block.major, block.minor)?;
        if block.disk.is_some() {
            directory.pop();
        }
        Ok(directory)
    }

    fn partitions(&self, block: &BlockDevice) -> io::Result<Vec<Partition>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.directory(block.major, block.minor)?)? {
            let directory = entry?.path();
            found.extend(partition_at(&directory));
        }
        found.sort_by_key(|p| p.number);
        Ok(found)
    }
}

/// The partition described by a directory in its disk's directory; `None` if it is none (`queue`).
fn partition_at(directory: &Path) -> Option<Partition> {
    let number = read_number(&directory.join("partition"))?;
    Some(Partition {
        name: last_name(directory),
        number: u32::try_from(number).ok()?,
        // sysfs counts in 512 bytes whatever the sector size is.
        start_bytes: read_number(&directory.join("start"))?.checked_mul(512)?,
        size_bytes: read_number(&directory.join("size"))?.checked_mul(512)?,
    })
}

fn describe_file(path: &Path, meta: &fs::Metadata, size_bytes: u64) -> Device {
    Device {
        path: path.to_owned(),
        kind: Kind::RegularFile { dev: meta.dev(), ino: meta.ino() },
        size_bytes,
        logical_sector_bytes: 512,
        physical_sector_bytes: 512,
        rotational: None,
        read_only: false,
    }
}

fn describe_block_device(
    file: &File,
    path: &Path,
    meta: &fs::Metadata,
    size_bytes: u64,
) -> io::Result<Device> {
    let kernel = Kernel::here();
    let (major, minor) = numbers(meta.rdev());
    let block = kernel.block_device(major, minor)?;
    let disk = kernel.disk_directory(&block)?;
    let own = kernel.directory(major, minor)?;
    Ok(Device {
        path: path.to_owned(),
        size_bytes,
        logical_sector_bytes: ioctl_blksszget(file)?,
        physical_sector_bytes: ioctl_blkpbszget(file)?,
        rotational: read_number(&disk.join("queue/rotational")).map(|n| n != 0),
        read_only: read_number(&own.join("ro")).is_some_and(|n| n != 0),
        kind: Kind::BlockDevice(block),
    })
}

/// The end as seeking finds it: for a block device `st_size` is 0.
fn size_of(mut file: &File) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    Ok(end)
}

fn refuse_wrong_kind(path: &Path, meta: &fs::Metadata) -> Result<(), DeviceError> {
    let kind = meta.file_type();
    let what = if kind.is_dir() {
        "it is a directory"
    } else if kind.is_char_device() {
        "it is a character device"
    } else if kind.is_fifo() {
        "it is a FIFO"
    } else if kind.is_socket() {
        "it is a socket"
    } else {
        return Ok(());
    };
    Err(DeviceError::WrongKind { path: path.to_owned(), what })
}

fn error(what: &'static str, path: &Path, source: io::Error) -> DeviceError {
    let no_medium = Errno::NOMEDIUM.raw_os_error();
    match source.kind() {
        io::ErrorKind::NotFound => DeviceError::Missing(path.to_owned()),
        io::ErrorKind::PermissionDenied => DeviceError::Denied(path.to_owned()),
        _ if source.raw_os_error() == Some(no_medium) => DeviceError::Empty(path.to_owned()),
        _ => DeviceError::Io { what, path: path.to_owned(), source },
    }
}

/// The system's own words without Rust's ` (os error 5)`.
fn os_reason(source: &io::Error) -> String {
    let text = source.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

pub(crate) fn advice_on_rights() -> &'static str {
    if rustix::process::geteuid().is_root() {
        "even to root (a container or a security module forbids it)"
    } else {
        "run as root"
    }
}

fn advice_on_names(path: &Path) -> &'static str {
    if path.starts_with("/dev") { "; `lsblk` lists the disks of this machine" } else { "" }
}

fn in_use(uses: &[Use]) -> String {
    if uses.is_empty() {
        return "in use, by whom the kernel does not tell (another program that holds it, such as \
                another ezio, fsck or partclone, a mount in another container, or it is the \
                journal of a mounted file system)"
            .to_owned();
    }
    let list: Vec<String> = uses.iter().map(Use::to_string).collect();
    format!("in use: {}", list.join("; "))
}

fn numbers(rdev: u64) -> (u32, u32) {
    (rustix::fs::major(rdev), rustix::fs::minor(rdev))
}

fn last_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn read_text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

fn read_number(path: &Path) -> Option<u64> {
    read_text(path)?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
