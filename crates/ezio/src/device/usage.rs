//! Who uses a device now: mounts, swap, the layers above it (LVM, dm-crypt, MD), loop devices over
//! a file, and the same for its partitions and for the disk it is a partition of.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{BlockDevice, Device, Kernel, Kind, last_name, numbers, read_text};

/// One way in which a device is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// A mounted file system.
    Mounted {
        /// The mount point.
        at: PathBuf,
        /// Mounted so that it cannot write: both the mount and the file system are read-only.
        read_only: bool,
    },
    /// Active swap space.
    Swap,
    /// A device the kernel has built upon it.
    Holder {
        /// The kernel's name: `dm-3`, `md0`.
        name: String,
        /// What it is to a person: `LVM volume vg-root`, `MD array`.
        what: String,
    },
    /// One of the devices of a mounted btrfs, by its UUID.
    BtrfsMember {
        /// The file system's UUID.
        uuid: String,
    },
    /// A loop device over this file or device that is in use itself.
    Loop {
        /// The kernel's name: `loop0`.
        name: String,
        /// How it is in use; not empty.
        uses: Vec<Use>,
    },
    /// One of its partitions is in use.
    Partition {
        /// The kernel's name: `sda1`.
        name: String,
        /// How it is in use; not empty.
        uses: Vec<Use>,
    },
    /// It is a partition of a disk that is in use as a whole.
    Disk {
        /// The kernel's name: `sda`.
        name: String,
        /// How it is in use; not empty.
        uses: Vec<Use>,
    },
}

/// All uses of `device` that the kernel shows to this process, as of now. A mount in another mount
/// namespace is not among them, only [`super::claim`] finds it.
///
/// # Errors
/// If `/proc/self/mountinfo` or the device's directory in `/sys` cannot be read.
pub fn usage(device: &Device) -> io::Result<Vec<Use>> {
    Kernel::here().usage(&device.kind)
}

impl Use {
    /// Whether this use may change bytes of the device: everything but read-only mounts.
    pub fn may_write(&self) -> bool {
        match self {
            Use::Mounted { read_only, .. } => !read_only,
            Use::Swap | Use::Holder { .. } | Use::BtrfsMember { .. } => true,
            Use::Loop { uses, .. } | Use::Partition { uses, .. } | Use::Disk { uses, .. } => {
                uses.iter().any(Use::may_write)
            }
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Use::Mounted { at, read_only: true } => {
                write!(f, "mounted read-only at {}", at.display())
            }
            Use::Mounted { at, .. } => write!(f, "mounted at {}", at.display()),
            Use::Swap => f.write_str("active swap space"),
            Use::Holder { name, what } => write!(f, "part of {name} ({what})"),
            Use::BtrfsMember { uuid } => write!(f, "part of the mounted btrfs {uuid}"),
            Use::Loop { name, uses } => nested(f, "its loop device", name, uses),
            Use::Partition { name, uses } => nested(f, "its partition", name, uses),
            Use::Disk { name, uses } => nested(f, "its disk", name, uses),
        }
    }
}

fn nested(f: &mut fmt::Formatter<'_>, what: &str, name: &str, uses: &[Use]) -> fmt::Result {
    write!(f, "{what} {name}: ")?;
    for (i, inner) in uses.iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        write!(f, "{comma}{inner}")?;
    }
    Ok(())
}

impl Kernel {
    pub(super) fn usage(&self, kind: &Kind) -> io::Result<Vec<Use>> {
        let tables = Tables::read(self)?;
        let mut uses = self.own_uses(kind, &tables)?;
        let Kind::BlockDevice(block) = kind else { return Ok(uses) };
        uses.extend(self.partition_uses(block, &tables)?);
        uses.extend(self.disk_uses(block, &tables)?);
        Ok(uses)
    }

    /// Uses of this very device or file, and of loop devices over it.
    fn own_uses(&self, kind: &Kind, tables: &Tables) -> io::Result<Vec<Use>> {
        let mut uses = Vec::new();
        if let Kind::BlockDevice(block) = kind {
            uses.extend(tables.mounts.iter().filter(|m| m.is_of(block)).map(Mount::as_use));
            uses.extend(self.holders(block)?);
            uses.extend(self.btrfs_membership(block, !uses.is_empty()));
        }
        if tables.swaps.iter().any(|path| is_path_of(path, kind)) {
            uses.push(Use::Swap);
        }
        uses.extend(self.loop_uses(kind, tables)?);
        Ok(uses)
    }

    fn holders(&self, block: &BlockDevice) -> io::Result<Vec<Use>> {
        let directory = self.directory(block.major, block.minor)?.join("holders");
        let mut names: Vec<String> = entries(&directory).iter().map(|p| last_name(p)).collect();
        names.sort();
        let as_use = |name: String| {
            let what = self.describe_holder(&name);
            Use::Holder { name, what }
        };
        Ok(names.into_iter().map(as_use).collect())
    }

    /// The device mapper's users tell who they are by the start of the UUID they give.
    fn describe_holder(&self, name: &str) -> String {
        let directory = self.sys.join("class/block").join(name);
        let Some(uuid) = read_text(&directory.join("dm/uuid")) else {
            return if name.starts_with("md") {
                "MD array".to_owned()
            } else if name.starts_with("bcache") {
                "bcache".to_owned()
            } else {
                "a device built upon it".to_owned()
            };
        };
        let mapped = read_text(&directory.join("dm/name")).unwrap_or_default();
        let kind = match uuid.split('-').next().unwrap_or_default() {
            "LVM" => "LVM volume",
            "CRYPT" => "encrypted volume",
            "mpath" => "multipath device",
            "DMRAID" => "firmware RAID",
            _ => "device mapper",
        };
        format!("{kind} {mapped}")
    }

    /// Only one device of a btrfs is named in mountinfo; the others are found here.
    fn btrfs_membership(&self, block: &BlockDevice, known: bool) -> Option<Use> {
        let mounted = entries(&self.sys.join("fs/btrfs"));
        let is_in = |d: &PathBuf| d.join("devices").join(&block.name).exists();
        let directory = mounted.iter().find(|d| !known && is_in(d))?;
        Some(Use::BtrfsMember { uuid: last_name(directory) })
    }

    fn loop_uses(&self, kind: &Kind, tables: &Tables) -> io::Result<Vec<Use>> {
        let mut found = Vec::new();
        for directory in entries(&self.sys.join("block")) {
            let Some(backing) = backing_file(&directory) else { continue };
            if !is_path_of(&backing, kind) {
                continue;
            }
            let name = last_name(&directory);
            let uses = self.uses_by_name(&directory, tables)?;
            if !uses.is_empty() {
                found.push(Use::Loop { name, uses });
            }
        }
        found.sort_by_key(|u| u.to_string());
        Ok(found)
    }

    /// Uses of the disk whose sysfs directory this is, and of its partitions.
    fn uses_by_name(&self, directory: &Path, tables: &Tables) -> io::Result<Vec<Use>> {
        let Some(block) = self.block_device_at(directory) else { return Ok(Vec::new()) };
        let kind = Kind::BlockDevice(block.clone());
        let mut uses = self.own_uses(&kind, tables)?;
        uses.extend(self.partition_uses(&block, tables)?);
        Ok(uses)
    }

    fn partition_uses(&self, block: &BlockDevice, tables: &Tables) -> io::Result<Vec<Use>> {
        let disk = self.directory(block.major, block.minor)?;
        let mut found = Vec::new();
        for partition in self.partitions(block)? {
            let Some(inner) = self.block_device_at(&disk.join(&partition.name)) else { continue };
            let uses = self.own_uses(&Kind::BlockDevice(inner), tables)?;
            if !uses.is_empty() {
                found.push(Use::Partition { name: partition.name, uses });
            }
        }
        Ok(found)
    }

    fn disk_uses(&self, block: &BlockDevice, tables: &Tables) -> io::Result<Option<Use>> {
        let Some(name) = block.disk.clone() else { return Ok(None) };
        let directory = self.disk_directory(block)?;
        let Some(disk) = self.block_device_at(&directory) else { return Ok(None) };
        let uses = self.own_uses(&Kind::BlockDevice(disk), tables)?;
        Ok((!uses.is_empty()).then_some(Use::Disk { name, uses }))
    }

    /// `None` if the device went away meanwhile.
    fn block_device_at(&self, directory: &Path) -> Option<BlockDevice> {
        let text = read_text(&directory.join("dev"))?;
        let (major, minor) = text.split_once(':')?;
        self.block_device(major.parse().ok()?, minor.parse().ok()?).ok()
    }
}

/// The file (or device) a loop device shows, if `directory` is one's directory in sysfs and it is
/// attached.
pub(super) fn backing_file(directory: &Path) -> Option<PathBuf> {
    let text = fs::read(directory.join("loop/backing_file")).ok()?;
    let end = text.iter().rposition(|b| *b != b'\n').map_or(0, |i| i + 1);
    Some(PathBuf::from(std::ffi::OsString::from_vec(text[..end].to_vec())))
}

/// `/proc/self/mountinfo` and `/proc/swaps`, read once for all questions.
struct Tables {
    mounts: Vec<Mount>,
    swaps: Vec<PathBuf>,
}

impl Tables {
    fn read(kernel: &Kernel) -> io::Result<Tables> {
        let mounts = fs::read(kernel.proc.join("self/mountinfo"))?;
        // A kernel without swap support has no such file.
        let swaps = fs::read(kernel.proc.join("swaps")).unwrap_or_default();
        Ok(Tables { mounts: parse_mountinfo(&mounts), swaps: parse_swaps(&swaps) })
    }
}

/// One line of `/proc/self/mountinfo`, see proc_pid_mountinfo(5).
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    number: String,
    at: PathBuf,
    source: PathBuf,
    read_only: bool,
}

impl Mount {
    /// btrfs has a made-up device number of its own, so the mount's source is asked too.
    fn is_of(&self, block: &BlockDevice) -> bool {
        self.number == block.number() || is_path_of(&self.source, &Kind::BlockDevice(block.clone()))
    }

    fn as_use(&self) -> Use {
        Use::Mounted { at: self.at.clone(), read_only: self.read_only }
    }
}

/// Lines that are not understood are skipped: the kernel may add some day what nobody knows now.
fn parse_mountinfo(text: &[u8]) -> Vec<Mount> {
    text.split(|b| *b == b'\n').filter_map(parse_mount).collect()
}

fn parse_mount(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    // The optional fields in the middle end with a lone dash.
    let dash = 6 + fields.get(6..)?.iter().position(|f| *f == b"-")?;
    let read_only = |options: &[u8]| options.split(|b| *b == b',').any(|o| o == b"ro");
    Some(Mount {
        number: String::from_utf8(fields[2].to_vec()).ok()?,
        at: unescape(fields[4]),
        source: unescape(fields.get(dash + 2)?),
        // A read-only mount of a writable file system still writes: its journal, another mount.
        read_only: read_only(fields.get(dash + 3)?),
    })
}

/// The paths in `/proc/swaps`, after its line of titles.
fn parse_swaps(text: &[u8]) -> Vec<PathBuf> {
    let lines = text.split(|b| *b == b'\n').skip(1);
    lines
        .filter_map(|line| line.split(|b| *b == b' ' || *b == b'\t').next())
        .filter(|path| !path.is_empty())
        .map(unescape)
        .collect()
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        match (first == b'\\').then(|| octal(after)).flatten() {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

fn octal(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits.get(..3)?).ok()?;
    u8::from_str_radix(text, 8).ok()
}

/// Whether `path` names the same device or file, whatever name it has there.
fn is_path_of(path: &Path, kind: &Kind) -> bool {
    // Sources like `tmpfs` are no paths; relative to our directory they must not mean a file.
    if !path.is_absolute() {
        return false;
    }
    let Ok(meta) = fs::metadata(path) else { return false };
    match kind {
        Kind::BlockDevice(block) => {
            meta.file_type().is_block_device() && numbers(meta.rdev()) == (block.major, block.minor)
        }
        Kind::RegularFile { dev, ino } => (meta.dev(), meta.ino()) == (*dev, *ino),
    }
}

/// The paths in a directory; none if there is no such directory.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(list) = fs::read_dir(directory) else { return Vec::new() };
    list.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_with_its_escapes_and_optional_fields() {
        let text = b"27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard\n\
            30 27 0:31 /@ /mnt/a\\040b\\134c ro - btrfs /dev/sd\\012a ro\n\
            31 27 0:32 /@ /mnt/ro ro,nosuid - btrfs /dev/sdb rw\n\
            junk\n\n1 2 3 4 5 6 7 -\n";
        let mount = |number: &str, at: &str, source: &str, read_only| Mount {
            number: number.to_owned(),
            at: at.into(),
            source: source.into(),
            read_only,
        };
        let expected = [
            mount("254:0", "/", "/dev/vda", false),
            mount("0:31", "/mnt/a b\\c", "/dev/sd\na", true),
            mount("0:32", "/mnt/ro", "/dev/sdb", false),
        ];
        assert_eq!(parse_mountinfo(text), expected);
    }

    #[test]
    fn swaps_are_read() {
        let text = b"Filename\t\tType\t\tSize\n/dev/sda2   partition\t61436\n/a\\040b\tfile\t1\n";
        assert_eq!(parse_swaps(text), [PathBuf::from("/dev/sda2"), PathBuf::from("/a b")]);
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        for (text, expected) in
            [("\\04", "\\04"), ("\\", "\\"), ("\\999", "\\999"), ("\\777", "\\777")]
        {
            assert_eq!(unescape(text.as_bytes()), PathBuf::from(expected));
        }
    }
}
