//! What lies on a source: which file system, or what else, and whether its structures can be
//! trusted. The recognising is the real `blkid`'s, the names and checks are ours.
//!
//! Nothing here decides what to do about it, and nothing here writes.

mod blkid;
mod btrfs;
mod bytes;
mod devices;
mod dirty;
mod kind;
mod swap;

use std::io;
use std::path::Path;

use swarm::layout::Extent;

use crate::device::{Device, Partition};

pub use blkid::{RecogniseError, parse_export};
pub use btrfs::{BtrfsError, merge, used as btrfs_used};
pub use bytes::ReadAt;
pub use dirty::{Dirty, dirty};
pub use kind::{Kind, MissingProgram, find_program};

/// What was found on a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file system partclone knows, all of it on this one device.
    FileSystem(FileSystem),
    /// Swap space that holds nothing of value.
    Swap {
        /// The header, one page of the machine that made it: 4 to 64 KiB.
        header_bytes: u64,
    },
    /// Swap space that holds the memory of a hibernated machine.
    HibernatedSwap,
    /// A whole disk (or image of one) with partitions.
    PartitionTable {
        /// As blkid names it: `gpt`, `dos`, `bsd`, ...
        kind: String,
    },
    /// An encrypted volume, LUKS 1 or 2.
    Luks,
    /// A physical volume of LVM.
    LvmMember,
    /// A disk of a RAID array, with metadata of Linux or of a controller.
    RaidMember {
        /// As blkid names it: `linux_raid_member`, `isw_raid_member`, ...
        kind: String,
    },
    /// A volume encrypted by Windows.
    BitLocker,
    /// One of several devices that only together make a file system.
    MultiDevice {
        /// In words: `btrfs on 3 devices`.
        what: String,
    },
    /// A file system or other content blkid names and partclone does not know.
    Unsupported {
        /// As blkid names it: `squashfs`, `udf`, `iso9660`, `ocfs2`, ...
        blkid_type: String,
    },
    /// Nothing blkid knows, but the start is not all zeros.
    Unknown,
    /// Nothing blkid knows, and the first MiB is zeros.
    Empty,
}

/// A file system partclone can map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// Which.
    pub kind: Kind,
    /// blkid's TYPE: `vfat` for all three FATs.
    pub blkid_type: String,
    /// blkid's VERSION where it gives one.
    pub version: Option<String>,
}

/// Finds out what lies on the source at `path`, whose bytes `source` reads (both are the same
/// thing: blkid opens the path, the details are looked up in `source`).
///
/// # Errors
/// [`RecogniseError`] if blkid is missing, cannot read the source, or finds several answers.
pub fn recognise(path: &Path, source: &dyn ReadAt) -> Result<Content, RecogniseError> {
    let found = blkid::probe(path)?;
    let io = |e| RecogniseError::Io { path: path.to_owned(), source: e };
    let Some(tags) = found else {
        let empty = bytes::starts_with_zeros(source).map_err(io)?;
        return Ok(if empty { Content::Empty } else { Content::Unknown });
    };
    let table = tags.get("PTTYPE");
    let Some(blkid_type) = tags.get("TYPE") else {
        return Ok(match table {
            Some(kind) => Content::PartitionTable { kind: kind.clone() },
            None => Content::Unknown,
        });
    };
    if let Some(table) = table
        && !boots_like_a_disk(blkid_type)
        && has_partitions(source).map_err(io)?
    {
        let found = format!("a {blkid_type} and a partition table ({table})");
        return Err(RecogniseError::Ambivalent { path: path.to_owned(), found });
    }
    let tag = |name: &str| tags.get(name).map(String::as_str);
    classify(blkid_type, tag("VERSION"), tag("USAGE"), source).map_err(io)
}

/// What blkid's TYPE (with its VERSION and USAGE where it gives them) means, with what `source`
/// itself tells: on how many devices a file system lies, how long a swap header is.
///
/// # Errors
/// Only what the device says when it is read. No content of `source` makes it panic.
pub fn classify(
    blkid_type: &str,
    version: Option<&str>,
    usage: Option<&str>,
    source: &dyn ReadAt,
) -> io::Result<Content> {
    if let Some(kind) = Kind::from_blkid(blkid_type, version) {
        if let Some(what) = devices::several(kind, source)? {
            return Ok(Content::MultiDevice { what });
        }
        let blkid_type = blkid_type.to_owned();
        let version = version.map(str::to_owned);
        return Ok(Content::FileSystem(FileSystem { kind, blkid_type, version }));
    }
    Ok(match blkid_type {
        "swap" => swap::classify(source)?,
        "swsuspend" => Content::HibernatedSwap,
        "crypto_LUKS" => Content::Luks,
        "BitLocker" => Content::BitLocker,
        "LVM1_member" | "LVM2_member" => Content::LvmMember,
        "jbd" => multi("the external journal of an ext3 or ext4"),
        "xfs_external_log" => multi("the external log of an XFS"),
        "zfs_member" => multi("a device of a ZFS pool"),
        "bcache" => multi("a device of a bcache"),
        "bcachefs" => multi("a device of a bcachefs"),
        _ if usage == Some("raid") => Content::RaidMember { kind: blkid_type.to_owned() },
        _ => Content::Unsupported { blkid_type: blkid_type.to_owned() },
    })
}

/// The lines that tell a person how to get at the partitions of a disk or of an image of one.
/// `partitions` are what [`crate::device::partitions`] found; none for an image file.
pub fn how_to_reach_partitions(device: &Device, partitions: &[Partition]) -> String {
    if partitions.is_empty() {
        let path = device.path.display();
        return format!(
            "for its partitions run `losetup -rP --show -f {path}` and give one of the \
             /dev/loopNpM it makes"
        );
    }
    let list: Vec<String> = partitions.iter().map(Partition::to_string).collect();
    format!("give one of its partitions:\n  {}", list.join("\n  "))
}

/// Where the backup of NTFS's boot sector lies: the last whole sector of a partition of `size_bytes`.
/// NTFS itself ends before it, so partclone's map does not have it. Of length 0 only if not even one
/// sector fits, and no NTFS is that small.
pub fn ntfs_tail(size_bytes: u64, sector_bytes: u32) -> Extent {
    let sector_bytes = u64::from(sector_bytes.max(1));
    let end = size_bytes - size_bytes % sector_bytes;
    let offset = end.saturating_sub(sector_bytes);
    Extent { offset, len: end - offset }
}

/// File systems whose first sector looks like a partition table to blkid: it is boot code with the
/// same two last bytes.
fn boots_like_a_disk(blkid_type: &str) -> bool {
    matches!(blkid_type, "vfat" | "exfat" | "ntfs" | "BitLocker" | "iso9660" | "udf")
}

/// Whether the first sector has a partition entry that is one: a type, a start, a length, and a
/// status byte of 0 or 0x80. A boot loader in a partition's first sector has none.
fn has_partitions(source: &dyn ReadAt) -> io::Result<bool> {
    let sector = bytes::Block::read(source, 0, 512)?;
    let mut found = false;
    for entry in (446..510).step_by(16) {
        let status = sector.u8(entry)?;
        let typed = sector.u8(entry + 4)? != 0;
        let placed = sector.le32(entry + 8)? != 0 && sector.le32(entry + 12)? != 0;
        found |= typed && placed && (status == 0 || status == 0x80);
    }
    Ok(found)
}

fn multi(what: &str) -> Content {
    Content::MultiDevice { what: what.to_owned() }
}

#[cfg(test)]
mod tests;
