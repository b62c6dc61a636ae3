//! Which bytes, where, mean what. Offsets and magics are facts of the formats, each with its source;
//! what says more than fixed bytes at fixed places is in `walk`.

use super::check::{self, Check};

/// One magic at one place.
#[derive(Clone, Copy)]
pub(super) struct Magic {
    /// As `blkid` calls it.
    pub(super) name: &'static str,
    /// As `blkid` calls it, or which copy it is; may be empty.
    pub(super) version: &'static str,
    pub(super) effect: &'static str,
    pub(super) place: Place,
    /// Bytes from there to the magic.
    pub(super) at: u64,
    pub(super) magic: &'static [u8],
    /// Offset and length of further bytes by which it is recognised without the magic.
    pub(super) also: &'static [(u64, u64)],
    pub(super) check: Check,
    pub(super) id: Id,
}

/// Where a structure begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// So many bytes from the start.
    Start(u64),
    /// At least so many bytes before the end, at a multiple of the second number.
    End(u64, u64),
    /// So many logical sectors before the end.
    LastSectors(u64),
}

/// By what a person knows it. Offsets are from the structure's start.
#[derive(Clone, Copy)]
pub(super) enum Id {
    None,
    /// 16 bytes.
    Uuid(u64),
    /// At most so many bytes of text.
    Text(u64, usize),
}

impl Place {
    /// `None` on a device that is too short for it.
    pub(super) fn offset(self, len: u64, sector: u64) -> Option<u64> {
        match self {
            Place::Start(at) => (at < len).then_some(at),
            Place::End(back, align) => Some(len.checked_sub(back)? / align * align),
            Place::LastSectors(count) => Some((len / sector).checked_sub(count)? * sector),
        }
    }
}

pub(super) const RAID: &str = "make mdadm find an array that is not there";
pub(super) const FIRMWARE_RAID: &str =
    "make the firmware, dmraid or blkid find an array that is not there";
pub(super) const LVM: &str = "make LVM find a physical volume that is not there";
pub(super) const ZPOOL: &str = "make zpool find a pool that is not there";
pub(super) const CRYPT: &str = "make blkid and cryptsetup find an encrypted volume";
pub(super) const MEMBER: &str = "make its own programs take the device for theirs";
pub(super) const SWAP: &str = "make blkid find swap space";
pub(super) const RESUME: &str = "make a kernel try to wake up from it, which destroys data";
pub(super) const FILE_SYSTEM: &str = "make blkid and mount find another file system, or none";
pub(super) const PARTITIONS: &str = "make the kernel find partitions that are not there";
pub(super) const OLD_TABLE: &str = "make partitioning programs offer the old partitions again";
pub(super) const COPY: &str = "mislead repair programs, which look for such copies";

use Place::{End, LastSectors, Start};

/// What can be told by fixed bytes at a fixed place. A more telling magic of a name comes first.
pub(super) const TABLE: &[Magic] = &[
    // Linux MD, drivers/md/md.c, md_p.h: 0.90 in the last whole 64 KiB but one end; 1.0 at least
    // 8 KiB before the end, at a multiple of 4 KiB; 1.1 at the start; 1.2 after 4 KiB.
    row("linux_raid_member", "0.90", RAID, End(65536, 65536), 0, MD),
    row("linux_raid_member", "0.90", RAID, End(65536, 65536), 0, MD_BE),
    row("linux_raid_member", "1.0", RAID, End(8192, 4096), 0, MD).check(check::md1).id(MD_NAME),
    row("linux_raid_member", "1.1", RAID, Start(0), 0, MD).check(check::md1).id(MD_NAME),
    row("linux_raid_member", "1.2", RAID, Start(4096), 0, MD).check(check::md1).id(MD_NAME),
    // SNIA Common RAID Disk Data Format 2.0, 4.1: the anchor header is the last block; some put it
    // 257 blocks before the end.
    row("ddf_raid_member", "", RAID, End(512, 512), 0, DDF),
    row("ddf_raid_member", "", RAID, End(131_584, 512), 0, DDF),
    // mdadm, super-intel.c: the last sector but one.
    row("isw_raid_member", "", RAID, LastSectors(2), 0, b"Intel Raid ISM Cfg Sig. "),
    // The formats of controllers, as dmraid (lib/format/ataraid/*.h) and libblkid know them.
    row("nvidia_raid_member", "", FIRMWARE_RAID, End(1024, 512), 0, b"NVIDIA  "),
    row("lsi_mega_raid_member", "", FIRMWARE_RAID, End(512, 512), 0, b"$XIDE$"),
    row("adaptec_raid_member", "", FIRMWARE_RAID, End(512, 512), 0, b"\x37\xfc\x4d\x1e")
        .check(check::adaptec),
    row("silicon_medley_raid_member", "", FIRMWARE_RAID, End(512, 512), 0x60, b"\0\0\0\x2f")
        .check(check::silicon),
    row("jmicron_raid_member", "", FIRMWARE_RAID, End(512, 512), 0, b"JM").check(check::jmicron),
    row("via_raid_member", "", FIRMWARE_RAID, End(512, 512), 0, b"\x55\xaa").check(check::via),
    row("hpt45x_raid_member", "", FIRMWARE_RAID, End(5632, 512), 0, b"\xf3\x16\x78\x5a"),
    row("hpt45x_raid_member", "", FIRMWARE_RAID, End(5632, 512), 0, b"\xfd\x16\x78\x5a"),
    row("hpt37x_raid_member", "", FIRMWARE_RAID, Start(4608), 32, b"\xf0\x16\x78\x5a"),
    row("hpt37x_raid_member", "", FIRMWARE_RAID, Start(4608), 32, b"\xfd\x16\x78\x5a"),
    promise(63),
    promise(255),
    promise(256),
    promise(16),
    promise(399),
    promise(591),
    promise(675),
    promise(735),
    promise(911),
    promise(974),
    promise(991),
    promise(951),
    promise(3087),
    // LVM2, lib/format_text/layout.h and lib/label/label.h: the label is in one of four sectors.
    lvm2(0),
    lvm2(512),
    lvm2(1024),
    lvm2(1536),
    // LUKS2 On-Disk Format 1.1, 2.1: the second header begins after the first one's 16 KiB to 4 MiB.
    row("crypto_LUKS", "", CRYPT, Start(0), 0, b"LUKS\xba\xbe").check(check::luks).id(LUKS_UUID),
    luks2_second(0x4000),
    luks2_second(0x8000),
    luks2_second(0x1_0000),
    luks2_second(0x2_0000),
    luks2_second(0x4_0000),
    luks2_second(0x8_0000),
    luks2_second(0x10_0000),
    luks2_second(0x20_0000),
    luks2_second(0x40_0000),
    // libbde, BitLocker Drive Encryption format, 3: the volume header of Vista, 7 and later, To Go.
    row("BitLocker", "", CRYPT, Start(0), 0, b"\xeb\x52\x90-FVE-FS-"),
    row("BitLocker", "", CRYPT, Start(0), 0, b"\xeb\x58\x90-FVE-FS-"),
    row("BitLocker", "", CRYPT, Start(0), 0, b"\xeb\x58\x90MSWIN4.1").check(check::bitlocker_to_go),
    // Linux, include/uapi/linux/bcache.h (of 6.6) and bcachefs_format.h.
    row("bcache", "", MEMBER, Start(4096), 24, BCACHE).id(Id::Uuid(40)),
    row("bcachefs", "", MEMBER, Start(4096), 24, BCACHEFS).id(Id::Uuid(56)),
    row("bcachefs", "copy", MEMBER, Start(2 << 20), 24, BCACHEFS).id(Id::Uuid(56)),
    row("bcachefs", "copy", MEMBER, End(1 << 20, 512), 24, BCACHEFS).id(Id::Uuid(56)),
    // Linux, drivers/block/drbd/drbd_int.h and drbd_actlog.c: the last whole 4 KiB.
    row("drbd", "v08", MEMBER, End(4096, 4096), 60, b"\x83\x74\x02\x6b").check(check::drbd),
    row("drbd", "v08", MEMBER, End(4096, 4096), 60, b"\x83\x74\x02\x6c").check(check::drbd),
    row("drbd", "v09", MEMBER, End(4096, 4096), 60, b"\x83\x74\x02\x6d").check(check::drbd),
    // Stratis Software Design, "static header"; Ceph, BlueStore's label; Oracle ASM's disk header;
    // Linux, drivers/md/dm-vdo/encodings.c.
    row("stratis", "", MEMBER, Start(512), 4, STRATIS),
    row("stratis", "copy", MEMBER, Start(4608), 4, STRATIS),
    row("ceph_bluestore", "", MEMBER, Start(0), 0, b"bluestore block device"),
    row("oracleasm", "", MEMBER, Start(0), 32, b"ORCLDISK"),
    row("vdo", "", MEMBER, Start(0), 0, b"dmvdo001"),
    // libvmfs, vmfs_lvm.h and vmfs_fs.h.
    row("VMFS_volume_member", "", MEMBER, Start(1 << 20), 0, b"\x0d\xd0\x01\xc0"),
    row("VMFS", "", FILE_SYSTEM, Start(2 << 20), 0, b"\x5e\xf1\xab\x2f"),
    // Linux, include/linux/swap.h and kernel/power/swap.c: the last ten bytes of the first page, of
    // 4 to 64 KiB.
    swap(4096, b"SWAPSPACE2"),
    swap(8192, b"SWAPSPACE2"),
    swap(16384, b"SWAPSPACE2"),
    swap(32768, b"SWAPSPACE2"),
    swap(65536, b"SWAPSPACE2"),
    swap(4096, b"SWAP-SPACE"),
    swap(8192, b"SWAP-SPACE"),
    suspend(4096, b"S1SUSPEND"),
    suspend(4096, b"S2SUSPEND"),
    suspend(4096, b"ULSUSPEND"),
    suspend(4096, b"LINHIB0001"),
    suspend(8192, b"S1SUSPEND"),
    suspend(16384, b"S1SUSPEND"),
    suspend(32768, b"S1SUSPEND"),
    suspend(65536, b"S1SUSPEND"),
    // Linux, Documentation/filesystems/ext4, "Super Block"; whether 2, 3, 4 or a journal is told by
    // its features. Copies: see `walk`.
    row("ext2", "", FILE_SYSTEM, Start(1024), 56, EXT).check(check::ext2).id(Id::Uuid(104)),
    row("ext3", "", FILE_SYSTEM, Start(1024), 56, EXT).check(check::ext3).id(Id::Uuid(104)),
    row("ext4", "", FILE_SYSTEM, Start(1024), 56, EXT).check(check::ext4).id(Id::Uuid(104)),
    row("jbd", "", FILE_SYSTEM, Start(1024), 56, EXT).check(check::jbd).id(Id::Uuid(104)),
    // XFS Algorithms & Data Structures, "Superblocks". Copies: see `walk`.
    row("xfs", "", FILE_SYSTEM, Start(0), 0, b"XFSB").check(check::xfs).id(Id::Uuid(32)),
    // btrfs documentation, "On-disk Format", superblock and its mirrors.
    btrfs("", FILE_SYSTEM, 64 << 10),
    btrfs("mirror", COPY, 64 << 20),
    btrfs("mirror", COPY, 256 << 30),
    // Linux, Documentation/filesystems/f2fs.rst, "On-disk Layout": two superblocks.
    row("f2fs", "", FILE_SYSTEM, Start(1024), 0, b"\x10\x20\xf5\xf2").id(Id::Uuid(108)),
    row("f2fs", "copy", FILE_SYSTEM, Start(4096 + 1024), 0, b"\x10\x20\xf5\xf2").id(Id::Uuid(108)),
    // The NTFS documentation of Linux-NTFS, "$Boot"; the copy is the last sector.
    row("ntfs", "", FILE_SYSTEM, Start(0), 3, b"NTFS    ").check(check::ntfs).end_of_sector(),
    row("ntfs", "copy", COPY, LastSectors(1), 3, b"NTFS    ").check(check::ntfs),
    // Microsoft's exFAT specification, 3: the backup boot region begins with sector 12.
    row("exfat", "", FILE_SYSTEM, Start(0), 3, b"EXFAT   ").end_of_sector(),
    row("exfat", "copy", COPY, Start(12 * 512), 3, b"EXFAT   "),
    row("exfat", "copy", COPY, Start(12 * 4096), 3, b"EXFAT   "),
    // Microsoft's FAT specification (fatgen103), "Boot Sector and BPB"; FAT32's copy is in sector 6.
    fat("FAT32", 0, FILE_SYSTEM, 0x52, b"FAT32   "),
    fat("FAT16", 0, FILE_SYSTEM, 0x36, b"FAT16   "),
    fat("FAT12", 0, FILE_SYSTEM, 0x36, b"FAT12   "),
    fat("", 0, FILE_SYSTEM, 0x36, b"FAT     "),
    fat("", 0, FILE_SYSTEM, 0x36, b"MSDOS"),
    fat("", 0, FILE_SYSTEM, 0x52, b"MSWIN"),
    fat("FAT32 copy", 6 * 512, COPY, 0x52, b"FAT32   "),
    // Linux, include/uapi/linux/reiserfs_fs.h (of 6.6): at 64 KiB, an older one at 8 KiB.
    row("reiserfs", "3.6", FILE_SYSTEM, Start(65536), 52, b"ReIsEr2Fs").id(Id::Uuid(84)),
    row("reiserfs", "JR", FILE_SYSTEM, Start(65536), 52, b"ReIsEr3Fs").id(Id::Uuid(84)),
    row("reiserfs", "3.5", FILE_SYSTEM, Start(65536), 52, b"ReIsErFs"),
    row("reiserfs", "3.5", FILE_SYSTEM, Start(8192), 52, b"ReIsErFs"),
    row("reiser4", "4", FILE_SYSTEM, Start(65536), 0, b"ReIsEr4").id(Id::Uuid(20)),
    // Linux, fs/jfs/jfs_superblock.h, jfs_filsys.h: SUPER1_OFF and SUPER2_OFF.
    row("jfs", "", FILE_SYSTEM, Start(0x8000), 0, b"JFS1").check(check::jfs).id(Id::Uuid(136)),
    row("jfs", "copy", FILE_SYSTEM, Start(0xf000), 0, b"JFS1").check(check::jfs).id(Id::Uuid(136)),
    // Linux, include/uapi/linux/nilfs2_ondisk.h: NILFS_SB_OFFSET_BYTES, NILFS_SB2_OFFSET_BYTES.
    nilfs("", Start(1024)),
    nilfs("copy", End(4096, 4096)),
    // Linux, include/uapi/linux/minix_fs.h, of little-endian machines.
    row("minix", "1", FILE_SYSTEM, Start(1024), 16, b"\x7f\x13").check(check::minix1),
    row("minix", "1", FILE_SYSTEM, Start(1024), 16, b"\x8f\x13").check(check::minix1),
    row("minix", "2", FILE_SYSTEM, Start(1024), 16, b"\x68\x24").check(check::minix2),
    row("minix", "2", FILE_SYSTEM, Start(1024), 16, b"\x78\x24").check(check::minix2),
    row("minix", "3", FILE_SYSTEM, Start(1024), 24, b"\x5a\x4d").check(check::minix3),
    // Apple File System Reference, nx_superblock_t; TN1150, "Volume Header": a copy 1 KiB before
    // the end.
    row("apfs", "", FILE_SYSTEM, Start(0), 32, b"NXSB").check(check::apfs).id(Id::Uuid(72)),
    row("hfsplus", "", FILE_SYSTEM, Start(1024), 0, b"H+").check(check::hfsplus),
    row("hfsplus", "", FILE_SYSTEM, Start(1024), 0, b"HX").check(check::hfsplus),
    row("hfsplus", "copy", COPY, End(1024, 512), 0, b"H+").check(check::hfsplus),
    row("hfsplus", "copy", COPY, End(1024, 512), 0, b"HX").check(check::hfsplus),
    row("hfs", "", FILE_SYSTEM, Start(1024), 0, b"BD").check(check::hfs),
    row("hfs", "copy", COPY, End(1024, 512), 0, b"BD").check(check::hfs),
    // FreeBSD, sys/ufs/ffs/fs.h: SBLOCK_UFS1, SBLOCK_UFS2, SBLOCK_PIGGY.
    row("ufs", "1", FILE_SYSTEM, Start(8 << 10), 1372, b"\x54\x19\x01\x00"),
    row("ufs", "2", FILE_SYSTEM, Start(64 << 10), 1372, b"\x19\x01\x54\x19"),
    row("ufs", "2", FILE_SYSTEM, Start(256 << 10), 1372, b"\x19\x01\x54\x19"),
    // Linux, fs/squashfs/squashfs_fs.h; fs/cramfs; fs/erofs/erofs_fs.h; fs/ocfs2/ocfs2_fs.h;
    // include/uapi/linux/gfs2_ondisk.h; fs/zonefs; Microsoft's MS-REFS.
    row("squashfs", "", FILE_SYSTEM, Start(0), 0, b"hsqs").check(check::squashfs),
    row("cramfs", "", FILE_SYSTEM, Start(0), 0, b"\x45\x3d\xcd\x28"),
    row("erofs", "", FILE_SYSTEM, Start(1024), 0, b"\xe2\xe1\xf5\xe0"),
    row("ocfs2", "", FILE_SYSTEM, Start(1024), 0, b"OCFSV2"),
    row("ocfs2", "", FILE_SYSTEM, Start(2048), 0, b"OCFSV2"),
    row("ocfs2", "", FILE_SYSTEM, Start(4096), 0, b"OCFSV2"),
    row("ocfs2", "", FILE_SYSTEM, Start(8192), 0, b"OCFSV2"),
    row("gfs2", "", FILE_SYSTEM, Start(65536), 0, b"\x01\x16\x19\x70").check(check::gfs2),
    row("zonefs", "", FILE_SYSTEM, Start(0), 0, b"SFOZ"),
    row("ReFS", "", FILE_SYSTEM, Start(0), 0, b"\0\0\0ReFS\0"),
];

const fn row(
    name: &'static str,
    version: &'static str,
    effect: &'static str,
    place: Place,
    at: u64,
    magic: &'static [u8],
) -> Magic {
    let check = check::always;
    Magic { name, version, effect, place, at, magic, also: &[], check, id: Id::None }
}

impl Magic {
    const fn check(self, check: Check) -> Magic {
        Magic { check, ..self }
    }

    /// Without its name, a boot sector with its last two bytes would be taken for a partition table.
    const fn end_of_sector(self) -> Magic {
        Magic { also: &[(510, 2)], ..self }
    }

    const fn id(self, id: Id) -> Magic {
        Magic { id, ..self }
    }
}

const fn promise(sectors: u64) -> Magic {
    let name = "promise_fasttrack_raid_member";
    row(name, "", FIRMWARE_RAID, End(sectors * 512, 512), 0, b"Promise Technology, Inc.")
}

const fn lvm2(at: u64) -> Magic {
    row("LVM2_member", "", LVM, Start(at), 24, b"LVM2 001").check(check::lvm2).id(Id::Text(32, 32))
}

const fn luks2_second(at: u64) -> Magic {
    let luks = row("crypto_LUKS", "2, second header", CRYPT, Start(at), 0, b"SKUL\xba\xbe");
    luks.check(check::luks2_second).id(LUKS_UUID)
}

const fn swap(page: u64, magic: &'static [u8]) -> Magic {
    row("swap", "", SWAP, Start(0), page - 10, magic).id(Id::Uuid(1036))
}

const fn suspend(page: u64, magic: &'static [u8]) -> Magic {
    row("swsuspend", "", RESUME, Start(0), page - 10, magic)
}

const fn btrfs(version: &'static str, effect: &'static str, at: u64) -> Magic {
    let mirror = row("btrfs", version, effect, Start(at), 0x40, b"_BHRfS_M");
    mirror.check(check::btrfs).id(Id::Uuid(0x20))
}

/// Without the letters `blkid` still knows one by its jump and its last two bytes.
const fn fat(
    version: &'static str,
    at: u64,
    effect: &'static str,
    letters_at: u64,
    letters: &'static [u8],
) -> Magic {
    let row = row("vfat", version, effect, Start(at), letters_at, letters).check(check::fat);
    Magic { also: &[(0, 1), (510, 2)], ..row }
}

const fn nilfs(version: &'static str, place: Place) -> Magic {
    let row = row("nilfs2", version, FILE_SYSTEM, place, 6, b"\x34\x34");
    row.check(check::nilfs).id(Id::Uuid(152))
}

const MD: &[u8] = b"\xfc\x4e\x2b\xa9";
const MD_BE: &[u8] = b"\xa9\x2b\x4e\xfc";
const MD_NAME: Id = Id::Text(32, 32);
const DDF: &[u8] = b"\xde\x11\xde\x11";
const LUKS_UUID: Id = Id::Text(168, 40);
const EXT: &[u8] = b"\x53\xef";
const BCACHE: &[u8] = b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81";
const BCACHEFS: &[u8] = b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef";
const STRATIS: &[u8] = b"!Stra0tis\x86\xff\x02^\x41rh";
