//! What else must be right where a magic was found. A magic of two bytes is somewhere by chance; and
//! a structure that says it is elsewhere is a stray copy that nobody would look for here.

use super::source::{AccessError, Source, crc32};

/// Looks at the structure that begins at the offset.
pub(super) type Check = fn(&Source<'_>, u64) -> Answer;

type Answer = Result<bool, AccessError>;

/// The magic is telling enough.
pub(super) fn always(_: &Source<'_>, _: u64) -> Answer {
    Ok(true)
}

/// `super_offset` counts sectors of 512 bytes from the start to the superblock itself.
pub(super) fn md1(s: &Source<'_>, at: u64) -> Answer {
    Ok(s.le32(at + 4)? == 1 && s.le64(at + 128 + 16)? == at / 512)
}

pub(super) fn adaptec(s: &Source<'_>, at: u64) -> Answer {
    s.holds(at + 0x100, b"DPTM")
}

/// The first 0x13c bytes and the sum behind them make zero, in words of 16 bits.
pub(super) fn silicon(s: &Source<'_>, at: u64) -> Answer {
    Ok(s.u8(at + 0x116)? < 8 && sum16(&s.array::<0x140>(at)?) == 0)
}

pub(super) fn jmicron(s: &Source<'_>, at: u64) -> Answer {
    Ok(s.u8(at + 0x30)? <= 5 && sum16(&s.array::<128>(at)?) <= 1)
}

fn sum16(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
    words.fold(0, u16::wrapping_add)
}

pub(super) fn via(s: &Source<'_>, at: u64) -> Answer {
    let bytes: [u8; 51] = s.array(at)?;
    let sum = bytes[..50].iter().copied().fold(0, u8::wrapping_add);
    Ok(bytes[2] <= 2 && sum == bytes[50])
}

/// The label says which sector it is in, and has a checksum of what follows that.
pub(super) fn lvm2(s: &Source<'_>, at: u64) -> Answer {
    let label: [u8; 512] = s.array(at)?;
    Ok(label.starts_with(b"LABELONE")
        && s.le64(at + 8)? == at / 512
        && s.le32(at + 16)? == crc32(0xf597_a6cf, &label[20..]))
}

pub(super) fn luks(s: &Source<'_>, at: u64) -> Answer {
    Ok(matches!(s.be16(at + 6)?, 1 | 2))
}

pub(super) fn luks2_second(s: &Source<'_>, at: u64) -> Answer {
    Ok(s.be16(at + 6)? == 2 && s.be64(at + 256)? == at)
}

/// DOS had the same letters there; this one has a pointer to the metadata too.
pub(super) fn bitlocker_to_go(s: &Source<'_>, at: u64) -> Answer {
    s.holds(s.le64(at + 440)?, b"-FVE-FS-")
}

/// Bytes for which a bit of the bitmap stands: 4 KiB in every version.
pub(super) fn drbd(s: &Source<'_>, at: u64) -> Answer {
    Ok(s.be32(at + 80)? == 4096)
}

pub(super) fn ext2(s: &Source<'_>, at: u64) -> Answer {
    Ok(is_linux_ext(s, at)? && !has_journal(s, at)? && !has_ext4_features(s, at)?)
}

pub(super) fn ext3(s: &Source<'_>, at: u64) -> Answer {
    Ok(is_linux_ext(s, at)? && has_journal(s, at)? && !has_ext4_features(s, at)?)
}

pub(super) fn ext4(s: &Source<'_>, at: u64) -> Answer {
    Ok(is_linux_ext(s, at)? && has_ext4_features(s, at)?)
}

/// The journal of an ext3 or ext4 that has it on a device of its own.
pub(super) fn jbd(s: &Source<'_>, at: u64) -> Answer {
    Ok(s.le32(at + 96)? & 0x8 != 0 && is_ext(s, at)?)
}

fn is_linux_ext(s: &Source<'_>, at: u64) -> Answer {
    Ok(is_ext(s, at)? && !jbd(s, at)?)
}

/// Some blocks, of 1 to 64 KiB, and a known revision.
fn is_ext(s: &Source<'_>, at: u64) -> Answer {
    let blocks = u64::from(s.le32(at + 4)?) | u64::from(s.le32(at + 0x150)?) << 32;
    Ok(blocks > 0 && s.le32(at + 24)? <= 6 && s.le32(at + 76)? <= 1)
}

/// What neither ext2 nor ext3 of Linux knows: incompatible but for filetype, recovery and meta_bg;
/// read-only compatible but for sparse, large files and B-trees.
fn has_ext4_features(s: &Source<'_>, at: u64) -> Answer {
    Ok(s.le32(at + 96)? & !0x16 != 0 || s.le32(at + 100)? & !0x7 != 0)
}

fn has_journal(s: &Source<'_>, at: u64) -> Answer {
    Ok(s.le32(at + 92)? & 0x4 != 0)
}

pub(super) fn xfs(s: &Source<'_>, at: u64) -> Answer {
    let (block, sector) = (s.be32(at + 4)?, s.be16(at + 102)?);
    Ok(is_power(block.into(), 512, 65536)
        && is_power(sector.into(), 512, 32768)
        && s.be32(at + 88)? > 0)
}

/// `bytenr`: where this very copy is.
pub(super) fn btrfs(s: &Source<'_>, at: u64) -> Answer {
    Ok(s.le64(at + 0x30)? == at)
}

pub(super) fn ntfs(s: &Source<'_>, at: u64) -> Answer {
    Ok(is_power(s.le16(at + 11)?.into(), 256, 4096) && s.u8(at + 13)? != 0)
}

/// The BIOS parameter block, as strict as Linux' fs/fat/inode.c.
pub(super) fn fat(s: &Source<'_>, at: u64) -> Answer {
    let (media, fats, reserved) = (s.u8(at + 21)?, s.u8(at + 16)?, s.le16(at + 14)?);
    Ok(is_power(s.le16(at + 11)?.into(), 512, 4096)
        && s.u8(at + 13)?.is_power_of_two()
        && reserved != 0
        && fats != 0
        && (media >= 0xf8 || media == 0xf0))
}

pub(super) fn jfs(s: &Source<'_>, at: u64) -> Answer {
    Ok(matches!(s.le32(at + 4)?, 1 | 2) && is_power(s.le32(at + 16)?.into(), 512, 4096))
}

/// The checksum is over `s_bytes` bytes, itself as zeros among them.
pub(super) fn nilfs(s: &Source<'_>, at: u64) -> Answer {
    let len = usize::from(s.le16(at + 8)?);
    if !(20..=1024).contains(&len) {
        return Ok(false);
    }
    let mut bytes = s.vec(at, len)?;
    bytes[16..20].fill(0);
    Ok(crc32(s.le32(at + 12)?, &bytes) == s.le32(at + 16)?)
}

pub(super) fn minix1(s: &Source<'_>, at: u64) -> Answer {
    minix(s, at, s.le16(at + 2)?.into())
}

pub(super) fn minix2(s: &Source<'_>, at: u64) -> Answer {
    minix(s, at, s.le32(at + 20)?)
}

fn minix(s: &Source<'_>, at: u64, zones: u32) -> Answer {
    let inodes = u32::from(s.le16(at)?);
    let [inode_map, zone_map, first, log] =
        [s.le16(at + 4)?, s.le16(at + 6)?, s.le16(at + 8)?, s.le16(at + 10)?];
    // Only "valid" and "error" are states. An ext has the number of its free inodes here.
    Ok(s.le16(at + 18)? <= 3
        && !s.holds(at + 56, b"\x53\xef")?
        && log == 0
        && minix_maps(inodes, zones, inode_map, zone_map, first))
}

pub(super) fn minix3(s: &Source<'_>, at: u64) -> Answer {
    let (inodes, zones) = (s.le32(at)?, s.le32(at + 20)?);
    let [inode_map, zone_map, first, log] =
        [s.le16(at + 6)?, s.le16(at + 8)?, s.le16(at + 10)?, s.le16(at + 12)?];
    Ok(is_power(s.le16(at + 28)?.into(), 1024, 4096)
        && log == 0
        && minix_maps(inodes, zones, inode_map, zone_map, first))
}

/// The maps, in blocks of at least 1 KiB, have a bit for everything.
fn minix_maps(inodes: u32, zones: u32, inode_map: u16, zone_map: u16, first: u16) -> bool {
    let bits = |blocks: u16| u64::from(blocks) * 8192;
    inodes != 0
        && u32::from(first) < zones
        && bits(inode_map) > inodes.into()
        && bits(zone_map) > u64::from(zones - u32::from(first))
}

pub(super) fn apfs(s: &Source<'_>, at: u64) -> Answer {
    Ok(is_power(s.le32(at + 36)?.into(), 4096, 65536))
}

pub(super) fn hfsplus(s: &Source<'_>, at: u64) -> Answer {
    Ok(matches!(s.be16(at + 2)?, 4 | 5) && is_power(s.be32(at + 40)?.into(), 512, 1 << 31))
}

/// Allocation blocks are multiples of 512 bytes; the volume's name has 1 to 27 letters.
pub(super) fn hfs(s: &Source<'_>, at: u64) -> Answer {
    let block = s.be32(at + 20)?;
    Ok(block != 0 && block.is_multiple_of(512) && matches!(s.u8(at + 36)?, 1..=27))
}

pub(super) fn squashfs(s: &Source<'_>, at: u64) -> Answer {
    Ok(matches!(s.le16(at + 28)?, 1..=4))
}

/// Metadata of the type "superblock".
pub(super) fn gfs2(s: &Source<'_>, at: u64) -> Answer {
    Ok(s.be32(at + 4)? == 1)
}

fn is_power(value: u64, min: u64, max: u64) -> bool {
    value.is_power_of_two() && (min..=max).contains(&value)
}
