//! XFS: a log that was closed ends with an unmount record. Anything after it is work that is not in
//! its place yet, and the free-space trees may be stale; `partclone.xfs` does not look.
//!
//! The log is a ring of 512-byte blocks. In each the first word (in a record's header the second)
//! is the number of the round in which it was written, so the newest block is where the number
//! drops by one. Structures: the kernel's `fs/xfs/libxfs/xfs_log_format.h`; all big-endian.

use std::io;

use super::super::bytes::{Block, ReadAt, outside, product, sum};
use super::Dirty;

const BASIC_BLOCK: u64 = 512;
const RECORD_MAGIC: u32 = 0xFEED_BABE;
/// `XLOG_UNMOUNT_TRANS` in `oh_flags`.
const UNMOUNT: u8 = 0x20;
/// A header describes at most 32 KiB; longer records have more header blocks.
const HEADER_COVERS: u64 = 32 << 10;
/// `XLOG_MAX_RECORD_BSIZE`: no record is longer, so none begins farther before its end.
const RECORD_BYTES_MAX: u64 = 256 << 10;

pub(super) fn check(source: &dyn ReadAt) -> io::Result<Option<Dirty>> {
    const IN_PROGRESS_AT: usize = 126;
    const NEEDS_REPAIR: u32 = 1 << 4;
    let superblock = Block::read(source, 0, 512)?;
    if superblock.u8(IN_PROGRESS_AT)? != 0 {
        return Ok(Dirty::new(
            "its mkfs or growfs did not finish (XFS sb_inprogress)",
            "make it anew",
        ));
    }
    let version_5 = superblock.be16(100)? & 0xF == 5;
    if version_5 && superblock.be32(216)? & NEEDS_REPAIR != 0 {
        return Ok(Dirty::new("it needs repair (XFS NEEDSREPAIR)", "run xfs_repair"));
    }
    let log = Log::of(source, &superblock)?;
    if log.is_closed()? {
        return Ok(None);
    }
    Ok(Dirty::new(
        "its log was not replayed (XFS, no unmount record at its end)",
        "mount it once and unmount it, or run xfs_repair",
    ))
}

struct Log<'a> {
    source: &'a dyn ReadAt,
    start: u64,
    /// Basic blocks in the ring; at least 2.
    blocks: u64,
}

impl Log<'_> {
    /// Only for an internal log: `sb_logstart` is not 0.
    fn of<'a>(source: &'a dyn ReadAt, superblock: &Block) -> io::Result<Log<'a>> {
        let block_bytes = u64::from(superblock.be32(4)?);
        let group_bits = u32::from(superblock.u8(124)?);
        let address = superblock.be64(48)?;
        // A block's address is its group's number, then its number in the group.
        let group = address.checked_shr(group_bits).ok_or_else(outside)?;
        let in_group = address - (group << group_bits);
        let block = sum(product(group, u64::from(superblock.be32(84)?))?, in_group)?;
        let blocks = product(u64::from(superblock.be32(96)?), block_bytes)? / BASIC_BLOCK;
        let log = Log { source, start: product(block, block_bytes)?, blocks };
        if blocks < 2 || address == 0 {
            return Err(outside());
        }
        // So that no offset inside the ring can overflow later.
        sum(log.start, product(blocks, BASIC_BLOCK)?)?;
        Ok(log)
    }

    /// Whether the last record is an unmount record, or the log was never used.
    fn is_closed(&self) -> io::Result<bool> {
        let first = self.cycle(0)?;
        if first == 0 {
            return Ok(true);
        }
        let head = self.head(first)?;
        self.unmount_record_ends_at(head)
    }

    /// The block after the newest one, in `1..=blocks`.
    ///
    /// Round numbers are `n n n n n-1 n-1` (or 0 in a log that was never full), so bisection finds
    /// the drop. A crash may leave holes near it; the kernel reads up to the first of them, and if
    /// bisection lands on another, then what lies before it is not an unmount record.
    fn head(&self, first: u32) -> io::Result<u64> {
        let (mut newest, mut after) = (0, self.blocks);
        while after - newest > 1 {
            let middle = newest + (after - newest) / 2;
            if self.cycle(middle)? == first {
                newest = middle;
            } else {
                after = middle;
            }
        }
        Ok(after)
    }

    /// Looks back from `head` for the header of the last record and whether it is an unmount record
    /// that ends exactly there, across the ring's end if need be.
    fn unmount_record_ends_at(&self, head: u64) -> io::Result<bool> {
        let reach = (RECORD_BYTES_MAX + HEADER_COVERS) / BASIC_BLOCK;
        for back in 1..=reach.min(self.blocks) {
            let header = self.block(self.before(head, back))?;
            if header.be32(0)? == RECORD_MAGIC {
                return self.is_unmount_record(&header, head, back);
            }
        }
        Ok(false)
    }

    fn is_unmount_record(&self, header: &Block, head: u64, back: u64) -> io::Result<bool> {
        let header_blocks = header_blocks(header)?;
        let data_blocks = u64::from(header.be32(12)?).div_ceil(BASIC_BLOCK);
        let operations = header.be32(40)?;
        if operations != 1 || back != header_blocks + data_blocks || data_blocks == 0 {
            return Ok(false);
        }
        let first_data = self.block(self.before(head, data_blocks))?;
        Ok(first_data.u8(9)? & UNMOUNT != 0)
    }

    /// The block `back` before `head`, around the ring; `back` is at most the ring's length.
    fn before(&self, head: u64, back: u64) -> u64 {
        (head + self.blocks - back) % self.blocks
    }

    fn cycle(&self, index: u64) -> io::Result<u32> {
        let block = self.block(index)?;
        let at = if block.be32(0)? == RECORD_MAGIC { 4 } else { 0 };
        block.be32(at)
    }

    fn block(&self, index: u64) -> io::Result<Block> {
        Block::read(self.source, self.start + index * BASIC_BLOCK, 512)
    }
}

/// Version 1 has always one; version 2 one for each 32 KiB of the size of its log buffers.
fn header_blocks(header: &Block) -> io::Result<u64> {
    const VERSION_2: u32 = 2;
    let size = u64::from(header.be32(320)?);
    let several = header.be32(8)? & VERSION_2 != 0 && size > HEADER_COVERS;
    Ok(if several { size.div_ceil(HEADER_COVERS) } else { 1 })
}
