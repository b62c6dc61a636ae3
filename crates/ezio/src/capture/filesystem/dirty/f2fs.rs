//! F2FS: the newer of its two valid checkpoints tells how it was left. Without `CP_UMOUNT_FLAG` the
//! kernel rolls forward at the next mount, and what it finds lies in blocks the checkpoint does not
//! count as used. See the kernel's `include/linux/f2fs_fs.h`.

use std::io;

use super::super::bytes::{Block, ReadAt, outside, product, sum};
use super::Dirty;

const MAGIC: u32 = 0xF2F5_2010;
const BLOCK_BYTES: usize = 4096;
const UMOUNT: u32 = 0x1;
const ERROR: u32 = 0x8;
const FSCK: u32 = 0x10;

pub(super) fn check(source: &dyn ReadAt) -> io::Result<Option<Dirty>> {
    let Some(flags) = newest_checkpoint_flags(source)? else {
        return Ok(Dirty::new("it has no valid checkpoint (F2FS)", "run fsck.f2fs -f"));
    };
    if flags & (ERROR | FSCK) != 0 {
        return Ok(Dirty::new("it has errors (F2FS checkpoint flags)", "run fsck.f2fs -f"));
    }
    if flags & UMOUNT == 0 {
        return Ok(Dirty::new(
            "it was not unmounted (F2FS checkpoint flags)",
            "mount it once and unmount it",
        ));
    }
    Ok(None)
}

/// `ckpt_flags` of the valid checkpoint with the greater version.
fn newest_checkpoint_flags(source: &dyn ReadAt) -> io::Result<Option<u32>> {
    let superblock = superblock(source)?;
    let block_bytes = 1u64.checked_shl(superblock.le32(16)?).ok_or_else(outside)?;
    let segment_blocks = 1u64.checked_shl(superblock.le32(20)?).ok_or_else(outside)?;
    let first = product(u64::from(superblock.le32(76)?), block_bytes)?;
    let second = sum(first, product(segment_blocks, block_bytes)?)?;
    let mut newest = None;
    for start in [first, second] {
        newest = newest.max(valid_pack(source, start, block_bytes)?);
    }
    Ok(newest.map(|(_, flags)| flags))
}

/// The superblock has a copy in the next block.
fn superblock(source: &dyn ReadAt) -> io::Result<Block> {
    for at in [1024, 1024 + 4096] {
        let block = Block::read(source, at, 512)?;
        if block.le32(0)? == MAGIC {
            return Ok(block);
        }
    }
    Err(outside())
}

/// Version and flags of the pack at `start` if its first and last block are whole and agree.
fn valid_pack(source: &dyn ReadAt, start: u64, block_bytes: u64) -> io::Result<Option<(u64, u32)>> {
    let Some(head) = valid_block(source, start)? else { return Ok(None) };
    let blocks = u64::from(head.le32(136)?).max(1);
    let end = sum(start, product(blocks - 1, block_bytes)?)?;
    let Some(foot) = valid_block(source, end)? else { return Ok(None) };
    let version = head.le64(0)?;
    Ok((foot.le64(0)? == version).then_some((version, head.le32(132)?)))
}

/// A checkpoint block whose CRC fits, `None` if it does not or the block lies outside.
fn valid_block(source: &dyn ReadAt, at: u64) -> io::Result<Option<Block>> {
    let block = match Block::read(source, at, BLOCK_BYTES) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        block => block?,
    };
    let crc_at = usize::try_from(block.le32(164)?).unwrap_or(usize::MAX);
    // Less would leave the CRC inside the fixed part (CP_MIN_CHKSUM_OFFSET).
    if !(192..=BLOCK_BYTES - 4).contains(&crc_at) {
        return Ok(None);
    }
    let fits = block.le32(crc_at)? == crc32(block.bytes(0, crc_at)?);
    Ok(fits.then_some(block))
}

/// The reflected CRC-32 (0xEDB88320) begun with F2FS's magic and not inverted at the end.
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(MAGIC, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 != 0 { 0xEDB8_8320 } else { 0 }
        })
    })
}
