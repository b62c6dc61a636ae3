//! Whether a file system was left in a state in which its map of free blocks may be wrong.
//!
//! partclone believes that map. Blocks that the journal has taken into use, but the map does not
//! show yet, would be missing from the image: silent loss. So the superblock (for XFS the log, for
//! F2FS the checkpoints, for NTFS also its journal) is asked here, before partclone runs.
//!
//! What Debian's partclone 0.3.23 does by itself with such a file system: ext2/3/4, FAT16/32 with
//! their own flag and NTFS with its dirty flag are refused. XFS, btrfs, F2FS, Reiser4, exFAT, Minix,
//! FAT with Linux's flag and NTFS with an open journal are mapped as if they were clean. A btrfs with
//! 21 MB in its log tree lost all of them that way.
//!
//! One thing leaves no trace: a killed ntfs-3g, which keeps no journal. While it runs it holds the
//! device, so [`crate::device::claim`] finds it.

mod f2fs;
mod ntfs;
mod simple;
mod xfs;

use std::io;

use super::bytes::ReadAt;
use super::{FileSystem, Kind};

/// Why a file system's own map of its blocks cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirty {
    /// `its journal was not replayed (...)`.
    pub why: String,
    /// `mount it once and unmount it, or run e2fsck -f`.
    pub what_to_do: String,
}

impl Dirty {
    fn new(why: impl Into<String>, what_to_do: &str) -> Option<Dirty> {
        Some(Dirty { why: why.into(), what_to_do: what_to_do.to_owned() })
    }
}

/// Looks whether the file system was left unclean. `None`: it says it is clean, or it is of a kind
/// that keeps no such mark (VMFS; APFS and btrfs without a log tree are consistent at any moment).
///
/// Structures that make no sense, as after damage or truncation, count as dirty too.
///
/// # Errors
/// Only what the device says when it is read. No content of `source` makes it panic.
pub fn dirty(source: &dyn ReadAt, found: &FileSystem) -> io::Result<Option<Dirty>> {
    match check(source, found.kind) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(Dirty::new(
            format!("its structures as {} point outside of it (cut off or damaged)", found.kind),
            "look whether the source is complete, then run the file system's own check",
        )),
        checked => checked,
    }
}

fn check(source: &dyn ReadAt, kind: Kind) -> io::Result<Option<Dirty>> {
    match kind {
        Kind::Ext2 | Kind::Ext3 | Kind::Ext4 => simple::ext(source),
        Kind::Reiserfs => simple::reiserfs(source),
        Kind::Reiser4 => simple::reiser4(source),
        Kind::Xfs => xfs::check(source),
        Kind::Jfs => simple::jfs(source),
        Kind::Btrfs => simple::btrfs(source),
        Kind::F2fs => f2fs::check(source),
        Kind::Nilfs2 => simple::nilfs2(source),
        Kind::Fat12 | Kind::Fat16 | Kind::Fat32 => simple::fat(source, kind),
        Kind::ExFat => simple::exfat(source),
        Kind::Ntfs => ntfs::check(source),
        Kind::HfsPlus => simple::hfs_plus(source),
        Kind::Ufs => simple::ufs(source),
        Kind::Minix => simple::minix(source),
        Kind::Vmfs | Kind::Apfs => Ok(None),
    }
}
