//! Is a target what it has to be? Read byte by byte, without the code that wrote it.

use super::image::PATTERN;
use crate::store::io_reason;
use anyhow::ensure;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use swarm::layout::Extent;

/// A target, and what it was made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison<'a> {
    pub(super) source: &'a Path,
    pub(super) target: &'a Path,
    /// Bytes of both.
    pub(super) len: u64,
    /// What was to be copied; all else was to be left as it was: [`PATTERN`] over and over.
    pub(super) extents: &'a [Extent],
}

/// The first wrong byte of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// Inside of an extent, at this offset: not the source's.
    Inside(u64),
    /// Outside of all extents, at this offset: somebody has written there.
    Outside(u64),
    /// The target has so many bytes.
    Len(u64),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Inside(at) => write!(f, "byte {at:#x} is not that of the source"),
            Difference::Outside(at) => {
                write!(f, "byte {at:#x}, which no extent covers, was written")
            }
            Difference::Len(len) => write!(f, "it is {len} bytes long"),
        }
    }
}

/// Bytes that are compared at once; a multiple of the pattern's.
const STEP: u64 = 1 << 20;

impl Comparison<'_> {
    /// The first difference.
    ///
    /// # Errors
    /// If a file cannot be read, or `stop` is set.
    pub(super) fn run(&self, stop: &AtomicBool) -> anyhow::Result<Option<Difference>> {
        let mut extents = self.extents.to_vec();
        extents.sort_unstable_by_key(|extent| extent.offset);
        let (source, target) = (open(self.source)?, open(self.target)?);
        let len = target.metadata().map_err(|e| failed("look at", self.target, &e))?.len();
        if len != self.len {
            return Ok(Some(Difference::Len(len)));
        }
        // At most a MiB.
        let mut wanted = vec![0; STEP as usize];
        let mut found = wanted.clone();
        for from in (0..len).step_by(STEP as usize) {
            ensure!(!stop.load(Ordering::Relaxed), "interrupted");
            let to = (from + STEP).min(len);
            let range = ..(to - from) as usize;
            for place in wanted.chunks_exact_mut(PATTERN.len()) {
                place.copy_from_slice(PATTERN);
            }
            for part in inside(&extents, from, to) {
                let (begin, end) = ((part.offset - from) as usize, (part.end() - from) as usize);
                source
                    .read_exact_at(&mut wanted[begin..end], part.offset)
                    .map_err(|e| failed("read", self.source, &e))?;
            }
            target
                .read_exact_at(&mut found[range], from)
                .map_err(|e| failed("read", self.target, &e))?;
            if wanted[range] != found[range] {
                return Ok(Some(first(&wanted[range], &found[range], from, &extents)));
            }
        }
        Ok(None)
    }
}

/// The parts of ascending `extents` between `from` and `to`.
fn inside(extents: &[Extent], from: u64, to: u64) -> impl Iterator<Item = Extent> + '_ {
    let start = extents.partition_point(|extent| extent.end() <= from);
    extents[start..].iter().take_while(move |extent| extent.offset < to).map(move |extent| {
        let offset = extent.offset.max(from);
        Extent { offset, len: extent.end().min(to) - offset }
    })
}

fn first(wanted: &[u8], found: &[u8], from: u64, extents: &[Extent]) -> Difference {
    let at = wanted.iter().zip(found).position(|(a, b)| a != b).unwrap_or_default() as u64 + from;
    if inside(extents, at, at + 1).next().is_some() {
        Difference::Inside(at)
    } else {
        Difference::Outside(at)
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).map_err(|e| failed("open", path, &e))
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> anyhow::Error {
    anyhow::anyhow!("{what} {}: {}", path.display(), io_reason(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = (2 << 20) + 777;

    /// Begins at 0, touches a step's end, crosses another, and reaches the end of the disk.
    const EXTENTS: [Extent; 4] = [
        Extent { offset: 0, len: 4096 },
        Extent { offset: 1 << 19, len: 1 << 19 },
        Extent { offset: (2 << 20) - 512, len: 1024 },
        Extent { offset: LEN - 100, len: 100 },
    ];

    /// Compares a right target after `change`.
    fn check(change: impl FnOnce(&mut Vec<u8>), wanted: Option<Difference>) {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source"), dir.path().join("target"));
        let source_bytes: Vec<u8> = (0..LEN).map(|at| (at * 7 % 251) as u8).collect();
        let mut bytes: Vec<u8> = PATTERN.iter().copied().cycle().take(LEN as usize).collect();
        for extent in EXTENTS {
            let range = extent.offset as usize..extent.end() as usize;
            bytes[range.clone()].copy_from_slice(&source_bytes[range]);
        }
        change(&mut bytes);
        std::fs::write(&source, source_bytes).unwrap();
        std::fs::write(&target, bytes).unwrap();
        // Not in the order of the device, as other tools' torrents may be.
        let extents = [EXTENTS[2], EXTENTS[0], EXTENTS[3], EXTENTS[1]];
        let comparison =
            Comparison { source: &source, target: &target, len: LEN, extents: &extents };
        assert_eq!(comparison.run(&AtomicBool::new(false)).unwrap(), wanted);
    }

    #[test]
    fn a_right_target_has_no_difference() {
        check(|_| (), None);
    }

    #[test]
    fn every_wrong_byte_is_noticed_and_named() {
        for extent in EXTENTS {
            for at in [extent.offset, extent.end() - 1] {
                check(|bytes| bytes[at as usize] ^= 1, Some(Difference::Inside(at)));
            }
        }
        for at in [4096, (1 << 19) - 1, 1 << 20, (2 << 20) + 512, LEN - 101] {
            check(|bytes| bytes[at as usize] ^= 0x80, Some(Difference::Outside(at)));
        }
    }

    #[test]
    fn a_target_of_another_length_is_noticed() {
        check(|bytes| bytes.push(0), Some(Difference::Len(LEN + 1)));
        check(|bytes| bytes.truncate(5), Some(Difference::Len(5)));
    }
}
