//! From logical addresses, which trees use, to the places on the device.

use super::fields::Fields;
use super::tree::KEY_LEN;
use super::{BtrfsError, CHUNK_ITEM};

/// The device all must lie on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    pub(super) id: u64,
    /// In bytes.
    pub(super) len: u64,
}

/// A range of logical addresses.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) start: u64,
    pub(super) len: u64,
    /// Where on the device each copy begins: the first one in `.0`, the others behind it. Few.
    pub(super) copies: Vec<u64>,
}

/// All chunks of a file system, by logical address. None overlaps another.
#[derive(Debug)]
pub(super) struct Chunks(Vec<Chunk>);

impl Chunks {
    pub(super) fn new(mut chunks: Vec<Chunk>) -> Result<Chunks, BtrfsError> {
        chunks.sort_by_key(|chunk| chunk.start);
        for pair in chunks.windows(2) {
            if pair[1].start - pair[0].start < pair[0].len {
                return Err(damaged(pair[1].start, "it overlaps another one"));
            }
        }
        Ok(Chunks(chunks))
    }

    /// From the superblock's own array: keys with their items, end to end.
    pub(super) fn from_array(array: &[u8], device: Device) -> Result<Chunks, BtrfsError> {
        let (mut at, mut chunks) = (0, Vec::new());
        while at < array.len() {
            let key = Fields(array).part(at, KEY_LEN)?;
            let item = Fields(&array[at + KEY_LEN..]);
            let start = Fields(key).le64(9)?;
            if key[8] != CHUNK_ITEM {
                return Err(damaged(start, "in the superblock it has a wrong key"));
            }
            chunks.push(Chunk::parse(start, item, device)?);
            at += KEY_LEN + HEAD_LEN + STRIPE_LEN * usize::from(item.le16(44)?);
        }
        Chunks::new(chunks)
    }

    /// The chunk with the `len` bytes at the logical `address`, and how far into it they begin.
    pub(super) fn find(&self, address: u64, len: u64) -> Result<(&Chunk, u64), BtrfsError> {
        let behind = self.0.partition_point(|chunk| chunk.start <= address);
        let chunk = behind.checked_sub(1).map(|i| &self.0[i]);
        let found = chunk.and_then(|chunk| {
            let skip = address - chunk.start;
            (skip < chunk.len && len <= chunk.len - skip).then_some((chunk, skip))
        });
        found.ok_or_else(|| BtrfsError::Damaged {
            what: format!("no chunk has the {len} bytes at {address:#x}"),
        })
    }
}

impl Chunk {
    /// `struct btrfs_chunk`, which begins at the logical address `start`. What it says lies on
    /// `device` and ends before both of their ends.
    pub(super) fn parse(start: u64, item: Fields<'_>, device: Device) -> Result<Chunk, BtrfsError> {
        let (len, flags, count) = (item.le64(0)?, item.le64(24)?, item.le16(44)?);
        if len == 0 || start.checked_add(len).is_none() {
            return Err(damaged(start, &format!("it has {len} bytes")));
        }
        let stripes = item.part(HEAD_LEN, STRIPE_LEN * usize::from(count))?;
        let mut copies = Vec::with_capacity(usize::from(count));
        for stripe in stripes.chunks_exact(STRIPE_LEN).map(Fields) {
            let (id, offset) = (stripe.le64(0)?, stripe.le64(8)?);
            if id != device.id {
                let what = format!("its chunk at {start:#x} has a part on device {id}");
                return Err(BtrfsError::Devices { what });
            }
            if offset.checked_add(len).is_none_or(|end| end > device.len) {
                return Err(damaged(start, "it ends behind the end of the device"));
            }
            copies.push(offset);
        }
        check_profile(start, flags, copies.len())?;
        Ok(Chunk { start, len, copies })
    }
}

/// Whether the stripes are whole copies, and as many as the profile wants.
fn check_profile(start: u64, flags: u64, count: usize) -> Result<(), BtrfsError> {
    if flags & KIND == 0 {
        return Err(damaged(start, "it is for nothing"));
    }
    let (name, copies) = match flags & !KIND {
        0 => ("single", 1),
        // One stripe of a RAID0 is all of it: possible since Linux 5.15.
        RAID0 if count == 1 => ("RAID0", 1),
        RAID1 => ("RAID1", 2),
        DUP => ("DUP", 2),
        RAID1C3 => ("RAID1C3", 3),
        RAID1C4 => ("RAID1C4", 4),
        other => {
            let name = STRIPED.iter().find(|(flag, _)| *flag == other).map(|(_, name)| *name);
            let name = name.map_or_else(|| format!("of profile {other:#x}"), str::to_owned);
            let what = format!("its chunk at {start:#x} is {name}");
            return Err(BtrfsError::Devices { what });
        }
    };
    if count == copies {
        return Ok(());
    }
    Err(damaged(start, &format!("it is {name} and has {count} stripes")))
}

fn damaged(start: u64, why: &str) -> BtrfsError {
    BtrfsError::Damaged { what: format!("chunk at {start:#x}: {why}") }
}

/// Bytes of a `struct btrfs_chunk` before its stripes, and of a `struct btrfs_stripe`.
const HEAD_LEN: usize = 48;
const STRIPE_LEN: usize = 32;

/// `BTRFS_BLOCK_GROUP_DATA`, `_SYSTEM`, `_METADATA`: what it is for.
const KIND: u64 = 0b111;

/// `BTRFS_BLOCK_GROUP_*`: how it is spread.
const RAID0: u64 = 1 << 3;
const RAID1: u64 = 1 << 4;
const DUP: u64 = 1 << 5;
const RAID1C3: u64 = 1 << 9;
const RAID1C4: u64 = 1 << 10;

/// Those that cut a chunk in pieces.
const STRIPED: [(u64, &str); 4] =
    [(RAID0, "RAID0"), (1 << 6, "RAID10"), (1 << 7, "RAID5"), (1 << 8, "RAID6")];
