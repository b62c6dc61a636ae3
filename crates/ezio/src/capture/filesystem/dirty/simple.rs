//! File systems whose superblock has a mark of its own. Offsets are from the start of the
//! superblock unless said otherwise; all numbers little-endian but HFS+'s.

use std::io;

use super::super::Kind;
use super::super::bytes::{Block, ReadAt, outside, product, sum};
use super::Dirty;

const MOUNT_ONCE: &str = "mount it once and unmount it";

/// `s_state`, `s_feature_incompat`: kernel `Documentation/filesystems/ext4/super.rst`.
pub(super) fn ext(source: &dyn ReadAt) -> io::Result<Option<Dirty>> {
    const VALID: u16 = 1;
    const ERRORS: u16 = 2;
    const RECOVER: u32 = 0x4;
    let superblock = Block::read(source, 1024, 1024)?;
    let (state, incompat) = (superblock.le16(0x3A)?, superblock.le32(0x60)?);
    if incompat & RECOVER != 0 {
        return Ok(Dirty::new(
            "its journal was not replayed (ext needs_recovery)",
            "mount it once and unmount it, or run e2fsck -f",
        ));
    }
    if state & ERRORS != 0 {
        return Ok(Dirty::new("the kernel has found errors in it (ext s_state)", "run e2fsck -f"));
    }
    if state & VALID == 0 {
        return Ok(Dirty::new("it was not unmounted (ext s_state)", "run e2fsck -f"));
    }
    Ok(None)
}

/// `s_umount_state`, `s_fs_state` of the ReiserFS superblock, at 64 KiB or (3.5) at 8 KiB.
pub(super) fn reiserfs(source: &dyn ReadAt) -> io::Result<Option<Dirty>> {
    const VALID: u16 = 1;
    let advice = "run reiserfsck --check (it replays the journal)";
    let mut superblock = Block::read(source, 65536, 512)?;
    if !superblock.bytes(52, 6)?.eq(b"ReIsEr") {
        superblock = Block::read(source, 8192, 512)?;
    }
    if superblock.le16(50)? != VALID {
        return Ok(Dirty::new("it was not unmounted (ReiserFS s_umount_state)", advice));
    }
    if superblock.le16(62)? != 0 {
        return Ok(Dirty::new("it has errors (ReiserFS s_fs_state)", "run reiserfsck --check"));
    }
    Ok(None)
}

/// Format40 keeps the last committed transaction in block 19 and the last one written to its place
/// in block 20 (counted from the master superblock at 64 KiB: the 3rd and 4th after it).
pub(super) fn reiser4(source: &dyn ReadAt) -> io::Result<Option<Dirty>> {
    let master = Block::read(source, 65536, 512)?;
    let block_bytes = u64::from(master.le16(18)?);
    let header = Block::read(source, sum(65536, product(3, block_bytes)?)?, 8)?;
    let footer = Block::read(source, sum(65536, product(4, block_bytes)?)?, 8)?;
    if header.le64(0)? != footer.le64(0)? {
        return Ok(Dirty::new(
            "its journal was not replayed (Reiser4 format40)",
            "run fsck.reiser4 (it replays the journal)",
        ));
    }
    Ok(None)
}

/// `s_state` of `fs/jfs/jfs_superblock.h`, at 32 KiB; 0 is clean.
pub(super) fn jfs(source: &dyn ReadAt) -> io::Result<Option<Dirty>> {
    let state = Block::read(source, 32768, 512)?.le32(40)?;
    let why = match state {
        0 => return Ok(None),
        1 => "it was not unmounted",
        2 => "it was mounted although it was not clean",
        4 => "its log could not be replayed",
        _ => "its state is not clean",
    };
    Ok(Dirty::new(format!("{why} (JFS s_state {state})"), "run jfs_fsck (it replays the log)"))
}

/// `log_root`: what was fsynced since the last commit waits in a log tree, whose extents the extent
/// tree does not show yet.
pub(super) fn btrfs(source: &dyn ReadAt) -> io::Result<Option<Dirty>> {
    if Block::read(source, 65536, 4096)?.le64(96)? == 0 {
        return Ok(None);
    }
    Ok(Dirty::new("it was not unmounted (btrfs log_root)", MOUNT_ONCE))
}

/// `s_state` of the kernel's `uapi/linux/nilfs2_ondisk.h`.
pub(super) fn nilfs2(source: &dyn ReadAt) -> io::Result<Option<Dirty>> {
    const VALID: u16 = 1;
    const ERRORS: u16 = 2;
    let state = Block::read(source, 1024, 1024)?.le16(116)?;
    if state & ERRORS != 0 {
        return Ok(Dirty::new("the kernel has found errors in it (NILFS2 s_state)", MOUNT_ONCE));
    }
    if state & VALID == 0 {
        return Ok(Dirty::new("it was not unmounted (NILFS2 s_state)", MOUNT_ONCE));
    }
    Ok(None)
}

/// Entry 1 of the first FAT has two flags that are 1 when all is well (Microsoft's FAT
/// specification; FAT12 has no room for them). Linux sets bit 0 of the boot sector's
/// `BS_Reserved1` instead (`fs/fat/inode.c`).
pub(super) fn fat(source: &dyn ReadAt, kind: Kind) -> io::Result<Option<Dirty>> {
    let advice = "run fsck.vfat, or chkdsk /f on Windows";
    let boot = Block::read(source, 0, 512)?;
    let start = product(u64::from(boot.le16(14)?), u64::from(boot.le16(11)?))?;
    let (clean, good) = match kind {
        Kind::Fat32 => {
            let entry = Block::read(source, sum(start, 4)?, 4)?.le32(0)?;
            (entry & 0x0800_0000 != 0, entry & 0x0400_0000 != 0)
        }
        Kind::Fat16 => {
            let entry = Block::read(source, sum(start, 2)?, 2)?.le16(0)?;
            (entry & 0x8000 != 0, entry & 0x4000 != 0)
        }
        _ => (true, true),
    };
    if !good {
        return Ok(Dirty::new("it has seen I/O errors (FAT entry 1)", advice));
    }
    if !clean || linux_left_fat_mounted(&boot, kind)? {
        return Ok(Dirty::new("it was not unmounted (FAT dirty flag)", advice));
    }
    Ok(None)
}

/// The byte exists only before an extended boot signature; without one boot code may be there.
fn linux_left_fat_mounted(boot: &Block, kind: Kind) -> io::Result<bool> {
    let at = if kind == Kind::Fat32 { 0x41 } else { 0x25 };
    let has_state = matches!(boot.u8(at + 1)?, 0x28 | 0x29);
    Ok(has_state && boot.u8(at)? & 1 != 0)
}

/// `VolumeFlags` of Microsoft's exFAT specification, 3.1.13.
pub(super) fn exfat(source: &dyn ReadAt) -> io::Result<Option<Dirty>> {
    let advice = "run fsck.exfat, or chkdsk /f on Windows";
    let flags = Block::read(source, 0, 512)?.le16(0x6A)?;
    if flags & 4 != 0 {
        return Ok(Dirty::new("it has seen I/O errors (exFAT MediaFailure)", advice));
    }
    if flags & 2 != 0 {
        return Ok(Dirty::new("it was not unmounted (exFAT VolumeDirty)", advice));
    }
    Ok(None)
}

/// The volume header's `attributes` and the journal header's two ends: Apple's TN1150.
pub(super) fn hfs_plus(source: &dyn ReadAt) -> io::Result<Option<Dirty>> {
    const UNMOUNTED: u32 = 1 << 8;
    const INCONSISTENT: u32 = 1 << 11;
    const JOURNALED: u32 = 1 << 13;
    let advice = "run fsck.hfsplus, or mount and unmount it on a Mac";
    let start = hfs_plus_start(source)?;
    let header = Block::read(source, sum(start, 1024)?, 512)?;
    let attributes = header.be32(4)?;
    if attributes & JOURNALED != 0 && hfs_journal_has_work(source, start, &header)? {
        return Ok(Dirty::new("its journal was not replayed (HFS+)", advice));
    }
    if attributes & UNMOUNTED == 0 {
        return Ok(Dirty::new("it was not unmounted (HFS+ attributes)", advice));
    }
    if attributes & INCONSISTENT != 0 {
        return Ok(Dirty::new("it is marked inconsistent (HFS+ attributes)", advice));
    }
    Ok(None)
}

/// 0, or where the HFS+ lies inside the HFS wrapper that old Macs needed.
fn hfs_plus_start(source: &dyn ReadAt) -> io::Result<u64> {
    let outer = Block::read(source, 1024, 512)?;
    if outer.bytes(0, 2)? != b"BD" || outer.bytes(0x7C, 2)? != b"H+" {
        return Ok(0);
    }
    let first = product(512, u64::from(outer.be16(0x1C)?))?;
    let blocks = product(u64::from(outer.be16(0x7E)?), u64::from(outer.be32(0x14)?))?;
    sum(first, blocks)
}

fn hfs_journal_has_work(source: &dyn ReadAt, start: u64, header: &Block) -> io::Result<bool> {
    const ON_THIS_VOLUME: u32 = 1;
    const NOT_YET_MADE: u32 = 4;
    let block_bytes = u64::from(header.be32(40)?);
    let info_at = sum(start, product(u64::from(header.be32(12)?), block_bytes)?)?;
    let info = Block::read(source, info_at, 52)?;
    let flags = info.be32(0)?;
    if flags & ON_THIS_VOLUME == 0 || flags & NOT_YET_MADE != 0 {
        return Ok(false);
    }
    let journal = Block::read(source, sum(start, info.be64(36)?)?, 24)?;
    // The journal is in the byte order of the machine that wrote it: PowerPC or Intel. Whether two
    // numbers are equal does not depend on it.
    if !matches!(journal.bytes(0, 4)?, b"JNLx" | b"xLNJ") {
        return Err(outside());
    }
    Ok(journal.le64(8)? != journal.le64(16)?)
}

/// `fs_clean` of FreeBSD's `ufs/ffs/fs.h`, in UFS1 at 8 KiB and UFS2 at 64 KiB. 1 is clean, and
/// Solaris has other values for clean; 0 is mounted, 0xFF bad.
pub(super) fn ufs(source: &dyn ReadAt) -> io::Result<Option<Dirty>> {
    let is_magic = |bytes: &[u8]| {
        matches!(
            bytes,
            [0x54, 0x19, 1, 0] | [0, 1, 0x19, 0x54] | [0x19, 1, 0x54, 0x19] | [0x19, 0x54, 1, 0x19]
        )
    };
    for at in [8192, 65536, 262_144] {
        let superblock = match Block::read(source, at, 1376) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => continue,
            superblock => superblock?,
        };
        if !is_magic(superblock.bytes(1372, 4)?) {
            continue;
        }
        return Ok(match superblock.u8(209)? {
            0 | 0xFF => Dirty::new("it was not unmounted (UFS fs_clean)", "run fsck_ffs"),
            _ => None,
        });
    }
    Err(outside())
}

/// `s_state` of the kernel's `uapi/linux/minix_fs.h`; version 3 has none.
pub(super) fn minix(source: &dyn ReadAt) -> io::Result<Option<Dirty>> {
    const VALID: u16 = 1;
    const ERRORS: u16 = 2;
    const VERSIONS_1_AND_2: [u16; 4] = [0x137F, 0x138F, 0x2468, 0x2478];
    let superblock = Block::read(source, 1024, 512)?;
    if !VERSIONS_1_AND_2.contains(&superblock.le16(16)?) {
        return Ok(None);
    }
    let state = superblock.le16(18)?;
    if state & ERRORS != 0 {
        return Ok(Dirty::new("it has errors (Minix s_state)", "run fsck.minix"));
    }
    if state & VALID == 0 {
        return Ok(Dirty::new("it was not unmounted (Minix s_state)", "run fsck.minix"));
    }
    Ok(None)
}
