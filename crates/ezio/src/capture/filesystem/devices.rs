//! File systems that lie on more than one device: the superblock says so. Half of one must not pass
//! as a whole.

use std::io;

use super::Kind;
use super::bytes::{Block, ReadAt};

/// What the file system consists of, in words, if this source is not all of it.
pub(super) fn several(kind: Kind, source: &dyn ReadAt) -> io::Result<Option<String>> {
    let found = match kind {
        Kind::Btrfs => btrfs(source),
        Kind::Xfs => xfs(source),
        Kind::Ext3 | Kind::Ext4 => ext(source),
        Kind::F2fs => f2fs(source),
        Kind::Jfs => jfs(source),
        Kind::Reiserfs => reiserfs(source),
        Kind::Apfs => apfs(source),
        _ => Ok(None),
    };
    match found {
        // Too short for its own superblock: the check for damage will say so.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        found => found,
    }
}

/// `struct btrfs_super_block` of the kernel's `uapi/linux/btrfs_tree.h`, at 64 KiB.
fn btrfs(source: &dyn ReadAt) -> io::Result<Option<String>> {
    /// `BTRFS_SUPER_FLAG_SEEDING`: others may have grown upon it, itself it is whole.
    const SEEDING: u64 = 1 << 32;
    let superblock = Block::read(source, 65536, 4096)?;
    let (flags, count) = (superblock.le64(56)?, superblock.le64(136)?);
    if count > 1 {
        return Ok(Some(format!("btrfs on {count} devices")));
    }
    Ok((flags & SEEDING != 0).then(|| "a btrfs seed device".to_owned()))
}

/// `struct xfs_dsb` of `fs/xfs/libxfs/xfs_format.h`: `sb_logstart`, `sb_rblocks`.
fn xfs(source: &dyn ReadAt) -> io::Result<Option<String>> {
    let superblock = Block::read(source, 0, 512)?;
    if superblock.be64(48)? == 0 {
        return Ok(Some("XFS with an external log".to_owned()));
    }
    Ok((superblock.be64(16)? != 0).then(|| "XFS with a realtime device".to_owned()))
}

/// `s_feature_compat` has_journal, `s_journal_inum`, `s_journal_dev` of the kernel's
/// `Documentation/filesystems/ext4`.
fn ext(source: &dyn ReadAt) -> io::Result<Option<String>> {
    let superblock = Block::read(source, 1024, 1024)?;
    let has_journal = superblock.le32(0x5C)? & 0x4 != 0;
    let external = superblock.le32(0xE0)? == 0 && superblock.le32(0xE4)? != 0;
    Ok((has_journal && external).then(|| "ext3 or ext4 with an external journal".to_owned()))
}

/// `struct f2fs_super_block` of `include/linux/f2fs_fs.h`: `devs`, 8 entries of a path of 64 bytes
/// and a segment count, from byte 2201.
fn f2fs(source: &dyn ReadAt) -> io::Result<Option<String>> {
    let superblock = Block::read(source, 1024, 3072)?;
    let mut count = 0;
    for entry in (2201..2201 + 8 * 68).step_by(68) {
        count += usize::from(superblock.u8(entry)? != 0);
    }
    Ok((count > 1).then(|| format!("F2FS on {count} devices")))
}

/// `s_flag` of `fs/jfs/jfs_superblock.h`, at 32 KiB: the log is inline or on its own device.
fn jfs(source: &dyn ReadAt) -> io::Result<Option<String>> {
    const INLINE_LOG: u32 = 0x800;
    let superblock = Block::read(source, 32768, 512)?;
    let external = superblock.le32(36)? & INLINE_LOG == 0;
    Ok(external.then(|| "JFS with an external log".to_owned()))
}

/// `jp_journal_dev` of `struct journal_params`, at 64 KiB.
fn reiserfs(source: &dyn ReadAt) -> io::Result<Option<String>> {
    let superblock = Block::read(source, 65536, 512)?;
    Ok((superblock.le32(16)? != 0).then(|| "ReiserFS with an external journal".to_owned()))
}

/// `nx_incompatible_features` of Apple's File System Reference: a Fusion drive is an SSD and a disk.
fn apfs(source: &dyn ReadAt) -> io::Result<Option<String>> {
    const FUSION: u64 = 0x100;
    let superblock = Block::read(source, 0, 512)?;
    Ok((superblock.le64(64)? & FUSION != 0).then(|| "APFS on a Fusion drive".to_owned()))
}
