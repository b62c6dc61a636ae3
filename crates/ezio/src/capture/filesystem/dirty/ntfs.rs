//! NTFS: the dirty flag in `$Volume` (set by Windows and ntfs-3g when something is wrong), and the
//! state of the journal `$LogFile`, which a crash, hibernation or Windows' fast startup leaves open.
//!
//! Structures as documented by the Linux-NTFS project (`layout.h`, `logfile.h` of ntfs-3g and of the
//! kernel's former `fs/ntfs`); all little-endian.

use std::io;

use super::super::bytes::{Block, ReadAt, outside, product, sum};
use super::Dirty;

const LOG_FILE: u64 = 2;
const VOLUME: u64 = 3;
const VOLUME_INFORMATION: u32 = 0x70;
const DATA: u32 = 0x80;
const END: u32 = 0xFFFF_FFFF;
/// The unit of the fix-ups, whatever the disk's sector size.
const FIXUP_BYTES: usize = 512;
const ADVICE: &str = "start Windows and shut it down fully (`shutdown /s /f /t 0`, fast startup and \
                      hibernation off), or run chkdsk /f";

pub(super) fn check(source: &dyn ReadAt) -> io::Result<Option<Dirty>> {
    let volume = Volume::of(source)?;
    if volume.flags()? & 1 != 0 {
        return Ok(Dirty::new("its dirty flag is set (NTFS $Volume)", ADVICE));
    }
    volume.journal()
}

struct Volume<'a> {
    source: &'a dyn ReadAt,
    cluster_bytes: u64,
    table_at: u64,
    record_bytes: usize,
}

impl Volume<'_> {
    fn of(source: &dyn ReadAt) -> io::Result<Volume<'_>> {
        let boot = Block::read(source, 0, 512)?;
        let sector_bytes = u64::from(boot.le16(0x0B)?);
        let cluster_bytes = product(sector_bytes, sectors_per_cluster(boot.u8(0x0D)?)?)?;
        Ok(Volume {
            source,
            cluster_bytes,
            table_at: product(boot.le64(0x30)?, cluster_bytes)?,
            record_bytes: record_bytes(boot.u8(0x40)?, cluster_bytes)?,
        })
    }

    fn flags(&self) -> io::Result<u16> {
        let record = self.record(VOLUME)?;
        let at = attribute(&record, VOLUME_INFORMATION)?;
        let value = at + usize::from(record.le16(at + 20)?);
        record.le16(value + 10)
    }

    fn record(&self, number: u64) -> io::Result<Block> {
        let at = sum(self.table_at, product(number, self.record_bytes as u64)?)?;
        let mut record = Block::read(self.source, at, self.record_bytes)?;
        if record.bytes(0, 4)? != b"FILE" {
            return Err(outside());
        }
        undo_fixups(&mut record)?;
        Ok(record)
    }

    /// The newer of the journal's two restart pages says whether it is in use.
    fn journal(&self) -> io::Result<Option<Dirty>> {
        let start = self.first_run(&self.record(LOG_FILE)?)?;
        let mut newest: Option<Restart> = None;
        for page in [0, 4096] {
            let page = Block::read(self.source, sum(start, page)?, 4096)?;
            if let Some(restart) = Restart::of(&page)?
                && newest.as_ref().is_none_or(|n| n.sequence < restart.sequence)
            {
                newest = Some(restart);
            }
        }
        // ntfs-3g and mkfs fill it with 0xFF: nothing to replay.
        Ok(newest.and_then(|restart| restart.dirty()))
    }

    /// Where the first run of clusters of a file's unnamed data begins. The journal's restart pages
    /// are at the start of it.
    fn first_run(&self, record: &Block) -> io::Result<u64> {
        let at = attribute(record, DATA)?;
        if record.u8(at + 8)? == 0 {
            return Err(outside());
        }
        let run = at + usize::from(record.le16(at + 32)?);
        let sizes = record.u8(run)?;
        let (len_bytes, offset_bytes) = (usize::from(sizes & 0xF), usize::from(sizes >> 4));
        if offset_bytes > 8 {
            return Err(outside());
        }
        let mut cluster = [0; 8];
        let stored = record.bytes(run + 1 + len_bytes, offset_bytes)?;
        cluster[..offset_bytes].copy_from_slice(stored);
        product(u64::from_le_bytes(cluster), self.cluster_bytes)
    }
}

/// What a restart page says.
struct Restart {
    /// Of the last write; the page with the greater one counts.
    sequence: u64,
    in_use: bool,
    clean: bool,
    major_version: u16,
}

impl Restart {
    /// `None` if the page is none.
    fn of(page: &Block) -> io::Result<Option<Restart>> {
        const NO_CLIENT: u16 = 0xFFFF;
        const VOLUME_IS_CLEAN: u16 = 2;
        if page.bytes(0, 4)? != b"RSTR" {
            return Ok(None);
        }
        let area = usize::from(page.le16(24)?);
        Ok(Some(Restart {
            sequence: page.le64(area)?,
            in_use: page.le16(area + 12)? != NO_CLIENT,
            clean: page.le16(area + 14)? & VOLUME_IS_CLEAN != 0,
            major_version: page.le16(28)?,
        }))
    }

    /// Windows 8 and later keep the journal at version 2 while they use a volume and take it back to
    /// 1.1 when they let go of it; fast startup does not let go.
    fn dirty(&self) -> Option<Dirty> {
        if !self.in_use || self.clean {
            return None;
        }
        let why = if self.major_version >= 2 {
            "Windows has not let go of it: fast startup, hibernation or a crash (NTFS $LogFile)"
        } else {
            "its journal was not closed (NTFS $LogFile)"
        };
        Dirty::new(why, ADVICE)
    }
}

/// Above 0x80 it is the negative of a power of two (clusters of more than 64 KiB).
fn sectors_per_cluster(stored: u8) -> io::Result<u64> {
    match stored {
        0 => Err(outside()),
        1..=0x80 => Ok(u64::from(stored)),
        _ => 1u64.checked_shl(u32::from(stored.wrapping_neg())).ok_or_else(outside),
    }
}

/// In clusters, or as the negative of a power of two of bytes. Real ones have 1 or 4 KiB.
fn record_bytes(stored: u8, cluster_bytes: u64) -> io::Result<usize> {
    let bytes = match stored.cast_signed() {
        clusters @ 1.. => product(u64::from(clusters.unsigned_abs()), cluster_bytes)?,
        power => 1u64.checked_shl(u32::from(power.unsigned_abs())).ok_or_else(outside)?,
    };
    let sane = (512..=65536).contains(&bytes) && bytes.is_power_of_two();
    usize::try_from(bytes).ok().filter(|_| sane).ok_or_else(outside)
}

/// The last two bytes of every 512 were exchanged for a number that tells torn writes; the real ones
/// stand in the record's head.
fn undo_fixups(record: &mut Block) -> io::Result<()> {
    let array = usize::from(record.le16(4)?);
    for index in 0..record.len() / FIXUP_BYTES {
        let end = (index + 1) * FIXUP_BYTES - 2;
        if record.bytes(end, 2)? != record.bytes(array, 2)? {
            return Err(outside());
        }
        let real = record.le16(array + 2 + 2 * index)?.to_le_bytes();
        record.bytes_mut(end, 2)?.copy_from_slice(&real);
    }
    Ok(())
}

/// Where the first attribute of this type without a name begins.
fn attribute(record: &Block, wanted: u32) -> io::Result<usize> {
    let mut at = usize::from(record.le16(20)?);
    loop {
        let found = record.le32(at)?;
        if found == wanted && record.u8(at + 9)? == 0 {
            return Ok(at);
        }
        let len = usize::try_from(record.le32(at + 4)?).unwrap_or(usize::MAX);
        // At least its own head, or the walk would not end.
        if found == END || len < 16 {
            return Err(outside());
        }
        at = at.checked_add(len).ok_or_else(outside)?;
    }
}
