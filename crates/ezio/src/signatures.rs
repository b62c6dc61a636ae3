//! What a device held before, by its signatures: the few bytes by which programs recognise a file
//! system, a member of an array, a partition table.
//!
//! An image is written to its extents only, so a signature that lies outside of them survives, and
//! mdadm, LVM, ZFS or the firmware later find something that is not there. A target machine may have
//! booted over the network with nothing installed: what `wipefs` would find is found here, and the
//! tests compare with it. Whether to erase anything is decided elsewhere.

mod check;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod walk;

use crate::capture::filesystem::ReadAt;
use rustix::fs::{Advice, fadvise};
use source::Source;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use swarm::layout::Layout;
use table::{Id, Magic, TABLE};

pub use source::AccessError;

/// Something that lies on a device, by the bytes that say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// As `blkid` calls it: `linux_raid_member`, `gpt`, `ext4`.
    pub name: &'static str,
    /// Its version, or which copy of it this is; may be empty.
    pub version: &'static str,
    /// The name or UUID by which a person may know it; may be empty. Printable.
    pub id: String,
    /// The bytes without which nobody recognises it, from the start of the device, the most telling
    /// ones first. Never empty.
    pub magics: Vec<Range<u64>>,
    /// What it would do to the next user, after "it would".
    effect: &'static str,
}

impl Signature {
    /// Where it is, from the start of the device, as `wipefs` counts: at the most telling bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.magics[0].start
    }
}

/// `linux_raid_member 1.0 (server:0) at 0x3ffe000`.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        for (before, text, after) in [(" ", self.version, ""), (" (", &self.id, ")")] {
            if !text.is_empty() {
                write!(f, "{before}{text}{after}")?;
            }
        }
        write!(f, " at {:#x}", self.offset())?;
        match self.magics.len() {
            1 => Ok(()),
            2 => f.write_str(" and one place more"),
            count => write!(f, " and {} places more", count - 1),
        }
    }
}

/// All signatures on a device of `len` bytes with logical sectors of `sector` bytes.
///
/// Reads some 200 places, half a MiB of them for ZFS, most of them in the first and the last MiB.
///
/// # Errors
/// Where the device could not be read.
pub fn find(device: &dyn ReadAt, len: u64, sector: u32) -> Result<Vec<Signature>, AccessError> {
    let source = Source { bytes: device, len, sector: u64::from(sector).max(512) };
    let mut found = Vec::new();
    for row in TABLE {
        found.extend(look(&source, row)?);
    }
    found.extend(walk::find(&source)?);
    for signature in &mut found {
        // On a device that ends in the middle of a structure there is less to erase.
        signature.magics.retain(|magic| magic.end <= len);
    }
    found.retain(|signature| !signature.magics.is_empty());
    found.sort_by_key(Signature::offset);
    Ok(found)
}

/// Those of `found` that would survive: at least one byte of them lies in no extent of `layout`.
#[must_use]
pub fn survivors(found: Vec<Signature>, layout: &Layout) -> Vec<Signature> {
    let covered = Covered::by(layout);
    let survives = |s: &Signature| s.magics.iter().any(|magic| !covered.rest(magic).is_empty());
    found.into_iter().filter(survives).collect()
}

/// Erases `survivors`: writes zeros over their magics, as far as these lie in no extent of `layout`,
/// brings them to the medium, and reads them from there again. Not one other byte is written.
///
/// # Errors
/// Where the device could not be written or read, or gave back something else.
pub fn wipe(file: &File, survivors: &[Signature], layout: &Layout) -> Result<(), AccessError> {
    let covered = Covered::by(layout);
    let magics = survivors.iter().flat_map(|signature| &signature.magics);
    let holes: Vec<Range<u64>> = magics.flat_map(|magic| covered.rest(magic)).collect();
    if holes.is_empty() {
        return Ok(());
    }
    for hole in &holes {
        file.write_all_at(&zeros(hole), hole.start).map_err(failed("write", hole))?;
    }
    let all = holes[0].start..holes[holes.len() - 1].end;
    file.sync_all().map_err(failed("flush", &all))?;
    for hole in &holes {
        // What is clean in the page cache now goes; it is only advice, but the kernel takes it.
        let len = std::num::NonZeroU64::new(hole.end - hole.start);
        let _ = fadvise(file, hole.start, len, Advice::DontNeed);
        let mut bytes = zeros(hole);
        file.read_exact_at(&mut bytes, hole.start).map_err(failed("read", hole))?;
        if bytes.iter().any(|&byte| byte != 0) {
            let lost = io::Error::other("zeros were written, and something else came back");
            return Err(failed("read", hole)(lost));
        }
    }
    Ok(())
}

/// What a target held before and the image would leave in place.
#[derive(Debug)]
pub struct Leftovers {
    file: File,
    path: PathBuf,
    layout: Arc<Layout>,
    survivors: Vec<Signature>,
}

impl Leftovers {
    /// Looks for them in `file`, which was opened from `path` and has `len` bytes and logical sectors
    /// of `sector` bytes, and to which `layout` will be written.
    ///
    /// # Errors
    /// Where it could not be read.
    pub fn find(
        file: File,
        path: &Path,
        (len, sector): (u64, u32),
        layout: Arc<Layout>,
    ) -> Result<Leftovers, AccessError> {
        let survivors = survivors(find(&file, len, sector)?, &layout);
        Ok(Leftovers { file, path: path.to_owned(), layout, survivors })
    }

    /// A sentence for each thing that they would do: what is there, where, and what comes of it.
    /// `wiped` if they are going to be erased.
    #[must_use]
    pub fn describe(&self, wiped: bool) -> Vec<String> {
        describe(&self.path, &self.survivors, wiped)
    }

    /// Erases them, see [`wipe`].
    ///
    /// # Errors
    /// Where that failed, and that it was this which failed.
    pub fn wipe(&self) -> anyhow::Result<()> {
        wipe(&self.file, &self.survivors, &self.layout).map_err(|error| {
            let shown = self.path.display();
            anyhow::anyhow!("remove old signatures from {shown}: {error}; nothing else was written")
        })
    }
}

fn describe(path: &Path, survivors: &[Signature], wiped: bool) -> Vec<String> {
    let mut effects: Vec<&str> = Vec::new();
    for survivor in survivors {
        if !effects.contains(&survivor.effect) {
            effects.push(survivor.effect);
        }
    }
    let of = |effect| {
        let same: Vec<String> = survivors
            .iter()
            .filter(|survivor| survivor.effect == effect)
            .map(Signature::to_string)
            .collect();
        let (they, them) = if same.len() == 1 { ("it", "it") } else { ("they", "them") };
        let is_wiped = if same.len() == 1 { "it is" } else { "they are" };
        let holds = format!(
            "{} still holds, outside of what will be written: {}",
            path.display(),
            same.join(", ")
        );
        if wiped {
            format!("{holds}; {is_wiped} removed first")
        } else {
            format!("{holds}; {they} would survive and {effect}; --wipe removes {them}")
        }
    };
    effects.into_iter().map(of).collect()
}

/// What the row says, if it is there.
fn look(source: &Source<'_>, row: &Magic) -> Result<Option<Signature>, AccessError> {
    let Some(base) = row.place.offset(source.len, source.sector) else { return Ok(None) };
    let at = base + row.at;
    if !source.holds(at, row.magic)? || !(row.check)(source, base)? {
        return Ok(None);
    }
    let also = row.also.iter().map(|&(at, len)| base + at..base + at + len);
    let magics = std::iter::once(at..at + row.magic.len() as u64).chain(also).collect();
    let found = signature(row.name, row.version, row.effect, magics);
    Ok(Some(Signature { id: identify(source, base, row.id)?, ..found }))
}

fn signature(
    name: &'static str,
    version: &'static str,
    effect: &'static str,
    magics: Vec<Range<u64>>,
) -> Signature {
    Signature { name, version, id: String::new(), magics, effect }
}

/// Empty if there is nothing a terminal may be given.
fn identify(source: &Source<'_>, base: u64, id: Id) -> Result<String, AccessError> {
    match id {
        Id::None => Ok(String::new()),
        Id::Uuid(at) => source.array(base + at).map(show_uuid),
        Id::Text(at, len) => source.vec(base + at, len).map(|bytes| show_text(&bytes)),
    }
}

fn show_uuid(bytes: [u8; 16]) -> String {
    if bytes == [0; 16] {
        return String::new();
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Up to the first zero.
fn show_text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    if text.iter().all(u8::is_ascii_graphic) {
        text.iter().copied().map(char::from).collect()
    } else {
        String::new()
    }
}

fn zeros(range: &Range<u64>) -> Vec<u8> {
    // A magic has at most 32 bytes.
    vec![0; (range.end - range.start) as usize]
}

fn failed(what: &'static str, range: &Range<u64>) -> impl FnOnce(io::Error) -> AccessError {
    let (offset, len) = (range.start, range.end - range.start);
    move |error| AccessError { what, offset, len, error }
}

/// The extents of a layout in device order: which bytes the image covers.
struct Covered(Vec<Range<u64>>);

impl Covered {
    fn by(layout: &Layout) -> Covered {
        let mut ranges: Vec<_> = layout.extents().iter().map(|e| e.offset..e.end()).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        Covered(ranges)
    }

    /// The parts of `range` that are in no extent.
    fn rest(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let (mut rest, mut at) = (Vec::new(), range.start);
        let first = self.0.partition_point(|extent| extent.end <= range.start);
        for extent in self.0[first..].iter().take_while(|extent| extent.start < range.end) {
            if extent.start > at {
                rest.push(at..extent.start);
            }
            at = extent.end;
        }
        if at < range.end {
            rest.push(at..range.end);
        }
        rest
    }
}
