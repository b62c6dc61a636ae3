//! Signatures whose place or length is told by other bytes: partition tables, ZFS, the volume
//! descriptors of optical discs, copies of superblocks, FAT without its letters.

use super::Signature;
use super::check;
use super::source::{AccessError, Source, crc32};
use super::table::{COPY, FILE_SYSTEM, Id, OLD_TABLE, PARTITIONS, ZPOOL};
use super::{identify, signature};
use std::ops::Range;

/// All of them.
pub(super) fn find(source: &Source<'_>) -> Result<Vec<Signature>, AccessError> {
    let mut found = Vec::new();
    found.extend(first_sector(source)?);
    found.extend(gpt(source)?);
    found.extend(zfs(source)?);
    found.extend(volume_descriptors(source)?);
    found.extend(ext_copies(source)?);
    found.extend(xfs_copies(source)?);
    Ok(found)
}

/// The two bytes at the end of the first sector: a partition table, the one that protects a GPT, or
/// a FAT without letters. Which of them is told as `libblkid` does (UEFI 2.10, 5.2; fatgen103).
fn first_sector(s: &Source<'_>) -> Result<Option<Signature>, AccessError> {
    if !s.holds(510, b"\x55\xaa")? {
        return Ok(None);
    }
    let name: [u8; 8] = s.array(3)?;
    let others = [b"NTFS    ", b"EXFAT   ", b"-FVE-FS-"];
    if others.contains(&&name) {
        return Ok(None);
    }
    if check::fat(s, 0)? {
        let jumps = matches!(s.u8(0)?, 0xeb | 0xe9);
        let lettered = has_fat_letters(s)?;
        let plain = signature("vfat", "", FILE_SYSTEM, vec![510..512, 0..1]);
        return Ok((jumps && !lettered).then_some(plain));
    }
    let table: [u8; 64] = s.array(446)?;
    let entries = table.chunks_exact(16);
    if entries.clone().any(|entry| !matches!(entry[0], 0 | 0x80)) {
        return Ok(None);
    }
    // A type, and a number of sectors.
    let is_used = |entry: &[u8]| entry[4] != 0 && entry[12..16] != [0; 4];
    Ok(if entries.clone().any(|entry| entry[4] == 0xee) {
        Some(signature("PMBR", "", PARTITIONS, one(510, 2)))
    } else if entries.clone().any(is_used) {
        Some(signature("dos", "", PARTITIONS, one(510, 2)))
    } else {
        None
    })
}

/// Then it is in the table.
fn has_fat_letters(s: &Source<'_>) -> Result<bool, AccessError> {
    for (at, letters) in [(0x52, &b"FAT32   "[..]), (0x52, b"MSWIN"), (0x36, b"MSDOS")] {
        if s.holds(at, letters)? {
            return Ok(true);
        }
    }
    s.holds(0x36, b"FAT")
}

/// Both headers of a GUID partition table: in sector 1, and in the last sector, or where the first
/// one says that the other is, which after a disk was copied to a larger one is in its middle
/// (UEFI 2.10, 5.3.2).
fn gpt(s: &Source<'_>) -> Result<Vec<Signature>, AccessError> {
    let mut found = Vec::new();
    let mut copies = vec![(s.len / s.sector).saturating_sub(1)];
    if is_gpt_header(s, 1)? {
        found.push(gpt_signature(s, 1, "", PARTITIONS));
        copies.push(s.le64(s.sector + 32)?);
    }
    copies.sort_unstable();
    copies.dedup();
    for lba in copies {
        if lba > 1 && is_gpt_header(s, lba)? {
            found.push(gpt_signature(s, lba, "backup", OLD_TABLE));
        }
    }
    Ok(found)
}

fn gpt_signature(
    s: &Source<'_>,
    lba: u64,
    version: &'static str,
    effect: &'static str,
) -> Signature {
    signature("gpt", version, effect, one(lba * s.sector, 8))
}

/// The header says in which sector it is, and has a checksum, itself as zeros in it.
fn is_gpt_header(s: &Source<'_>, lba: u64) -> Result<bool, AccessError> {
    let Some(at) = lba.checked_mul(s.sector).filter(|at| *at < s.len) else { return Ok(false) };
    if !s.holds(at, b"EFI PART")? || s.le64(at + 24)? != lba {
        return Ok(false);
    }
    let len = s.le32(at + 12)?;
    if len < 92 || u64::from(len) > s.sector {
        return Ok(false);
    }
    // At most a sector, so it fits.
    let mut header = s.vec(at, len as usize)?;
    header[16..20].fill(0);
    Ok(!crc32(!0, &header) == s.le32(at + 16)?)
}

/// The four labels of a ZFS vdev, 256 KiB each, two at the start and two at the end of the last
/// whole 256 KiB: a blank area and a boot header of 8 KiB each, 112 KiB of name-value pairs, 128 KiB
/// of uberblocks (ZFS On-Disk Specification, 1.2 and 1.3).
fn zfs(s: &Source<'_>) -> Result<Vec<Signature>, AccessError> {
    let mut found = Vec::new();
    // Below that ZFS takes no device.
    if s.len < 64 << 20 {
        return Ok(found);
    }
    let end = s.len / ZFS_LABEL_LEN * ZFS_LABEL_LEN;
    for (version, at) in [
        ("label 0", 0),
        ("label 1", ZFS_LABEL_LEN),
        ("label 2", end - 2 * ZFS_LABEL_LEN),
        ("label 3", end - ZFS_LABEL_LEN),
    ] {
        found.extend(zfs_label(s, at, version)?);
    }
    Ok(found)
}

/// What is erased makes all of it invalid: the header of the pairs, where the newer `libblkid` looks;
/// the magic of their checksum, without which ZFS takes none of them; and of every uberblock, where
/// the older `libblkid` looks.
fn zfs_label(
    s: &Source<'_>,
    at: u64,
    version: &'static str,
) -> Result<Option<Signature>, AccessError> {
    let mut magics = Vec::new();
    // The last 40 bytes of the pairs: a magic and a SHA-256.
    let checksum = at + (128 << 10) - 40;
    if is_either(s.array(checksum)?, ZEC_MAGIC) {
        magics.push(checksum..checksum + 8);
    }
    // 128 of 1 KiB; with larger sectors fewer and larger ones, at some of the same places.
    let ring = at + (128 << 10);
    let bytes = s.vec(ring, 128 << 10)?;
    for (block, at) in bytes.chunks_exact(1024).zip((ring..).step_by(1024)) {
        if let Some(&magic) = block.first_chunk()
            && is_either(magic, UBERBLOCK_MAGIC)
        {
            magics.push(at..at + 8);
        }
    }
    // Encoded as XDR, by a machine of either byte order. That alone could be anything.
    let pairs = at + (16 << 10);
    let [encoding, order, ..]: [u8; 4] = s.array(pairs)?;
    if !magics.is_empty() && encoding == 1 && order <= 1 {
        magics.push(pairs..pairs + 16);
    }
    magics.sort_unstable_by_key(|range| range.start);
    Ok((!magics.is_empty()).then(|| signature("zfs_member", version, ZPOOL, magics)))
}

fn is_either(bytes: [u8; 8], magic: u64) -> bool {
    u64::from_le_bytes(bytes) == magic || u64::from_be_bytes(bytes) == magic
}

const ZFS_LABEL_LEN: u64 = 256 << 10;
/// `ZEC_MAGIC` of OpenZFS' sys/zio.h.
const ZEC_MAGIC: u64 = 0x0210_da7a_b10c_7a11;
/// `UBERBLOCK_MAGIC` of OpenZFS' sys/uberblock_impl.h.
const UBERBLOCK_MAGIC: u64 = 0x00ba_b10c;

/// The descriptors from 32 KiB on that say whether a medium has ISO 9660, UDF or both (ECMA-119, 8;
/// ECMA-167, 2/8.3 and 2/9.1): one in each 2 KiB, on blocks of 4 KiB in each 4 KiB.
fn volume_descriptors(s: &Source<'_>) -> Result<Vec<Signature>, AccessError> {
    let step = if s.holds((32 << 10) + 2048 + 1, b"NSR")? || s.sector < 4096 { 2048 } else { 4096 };
    let (mut iso, mut udf, mut is_udf) = (Vec::new(), Vec::new(), false);
    for at in (32 << 10..).step_by(step).take(16) {
        let name: [u8; 5] = s.array(at + 1)?;
        match &name {
            b"CD001" => iso.push(at + 1..at + 6),
            b"NSR02" | b"NSR03" => {
                is_udf = true;
                udf.push(at + 1..at + 6);
            }
            b"BEA01" | b"BOOT2" | b"CDW02" | b"TEA01" => udf.push(at + 1..at + 6),
            _ => break,
        }
    }
    let mut found = Vec::new();
    if !iso.is_empty() {
        found.push(signature("iso9660", "", FILE_SYSTEM, iso));
    }
    if is_udf {
        found.push(signature("udf", "", FILE_SYSTEM, udf));
    }
    Ok(found)
}

/// The copies of the superblock of an ext2, ext3 or ext4 whose first one is still there: in group 1
/// and those whose number is a power of 3, 5 or 7, in two that the superblock names, or in each
/// (Linux, Documentation/filesystems/ext4, "Block Groups").
fn ext_copies(s: &Source<'_>) -> Result<Option<Signature>, AccessError> {
    let first = 1024;
    if !s.holds(first + 56, b"\x53\xef")? || s.le32(first + 24)? > 6 {
        return Ok(None);
    }
    let block = 1024 << s.le32(first + 24)?;
    let (start, group_blocks) = (s.le32(first + 20)?, s.le32(first + 32)?);
    let (compatible, read_only) = (s.le32(first + 92)?, s.le32(first + 100)?);
    let groups: Vec<u32> = if compatible & 0x200 != 0 {
        vec![s.le32(first + 0x24c)?, s.le32(first + 0x250)?]
    } else if read_only & 1 != 0 {
        sparse_groups()
    } else {
        (1..=COPIES_MAX).collect()
    };
    let mut places: Vec<u64> = groups
        .iter()
        // Below 2^16 + 2^64 / 2^16: block is at most 64 KiB, the rest below 2^64 in all.
        .filter_map(|&group| {
            let blocks = u64::from(group).checked_mul(group_blocks.into())?;
            blocks.checked_add(start.into())?.checked_mul(block)
        })
        .filter(|at| *at > first && *at < s.len)
        .collect();
    places.sort_unstable();
    places.dedup();
    let uuid: [u8; 16] = s.array(first + 104)?;
    let mut magics = Vec::new();
    for at in places {
        if s.holds(at + 56, b"\x53\xef")? && s.array(at + 104)? == uuid {
            magics.push(at + 56..at + 58);
        }
    }
    copies(s, "ext2/3/4", magics, first, Id::Uuid(104))
}

/// Group 1 and the powers of 3, 5 and 7.
fn sparse_groups() -> Vec<u32> {
    let powers = |base: u32| std::iter::successors(Some(base), move |n| n.checked_mul(base));
    [1].into_iter().chain([3, 5, 7].into_iter().flat_map(powers)).collect()
}

/// The copies of an XFS superblock whose first one is still there: at the start of every allocation
/// group (XFS Algorithms & Data Structures, "Allocation Groups").
fn xfs_copies(s: &Source<'_>) -> Result<Option<Signature>, AccessError> {
    if !s.holds(0, b"XFSB")? || !check::xfs(s, 0)? {
        return Ok(None);
    }
    // 2^32 blocks of 64 KiB at most.
    let group = u64::from(s.be32(84)?) * u64::from(s.be32(4)?);
    let count = s.be32(88)?.min(COPIES_MAX);
    let uuid: [u8; 16] = s.array(32)?;
    let mut magics = Vec::new();
    for index in 1..u64::from(count) {
        let at = index * group;
        if at > 0 && at < s.len && s.holds(at, b"XFSB")? && s.array(at + 32)? == uuid {
            magics.push(at..at + 4);
        }
    }
    copies(s, "xfs", magics, 0, Id::Uuid(32))
}

fn copies(
    s: &Source<'_>,
    name: &'static str,
    magics: Vec<Range<u64>>,
    first: u64,
    id: Id,
) -> Result<Option<Signature>, AccessError> {
    if magics.is_empty() {
        return Ok(None);
    }
    let found = signature(name, "superblock copies", COPY, magics);
    Ok(Some(Signature { id: identify(s, first, id)?, ..found }))
}

/// Copies that are looked at: each costs a disk with heads a seek, 10 ms. `mkfs.xfs` makes 4 to 32
/// groups on one disk; 128 GiB of ext2 with blocks of 1 KiB without `sparse_super` have 16 384.
const COPIES_MAX: u32 = 64;

#[expect(clippy::single_range_in_vec_init, reason = "one range, not its numbers")]
fn one(at: u64, len: u64) -> Vec<Range<u64>> {
    vec![at..at + len]
}
