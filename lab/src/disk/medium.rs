//! The bytes of a test disk: what is read now, and what a power cut leaves.

use super::Loss;
use crate::Random;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Bytes that a disk writes wholly or not at all.
pub(super) const SECTOR: u64 = 512;

/// In memory twice; what was never written needs none.
pub(super) struct Medium {
    now: Vec<u8>,
    /// As of the last flush.
    durable: Vec<u8>,
    /// Whether a sector was written since.
    unflushed: Vec<bool>,
}

impl Medium {
    pub(super) fn new(len: usize) -> Medium {
        let sectors = len.div_ceil(SECTOR as usize);
        Medium { now: vec![0; len], durable: vec![0; len], unflushed: vec![false; sectors] }
    }

    pub(super) fn len(&self) -> u64 {
        self.now.len() as u64
    }

    /// The part of `offset..offset + len` that is there.
    pub(super) fn clip(&self, offset: u64, len: u64) -> Range<usize> {
        // Both are at most the length of a slice.
        let start = offset.min(self.len()) as usize;
        let end = offset.saturating_add(len).min(self.len()) as usize;
        start..end
    }

    pub(super) fn read(&self, range: Range<usize>) -> &[u8] {
        &self.now[range]
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.now[offset..offset + bytes.len()].copy_from_slice(bytes);
            let sector = SECTOR as usize;
            self.unflushed[offset / sector..=(offset + bytes.len() - 1) / sector].fill(true);
        }
    }

    pub(super) fn flush(&mut self) {
        for range in self.take_unflushed() {
            self.durable[range.clone()].copy_from_slice(&self.now[range]);
        }
    }

    /// Forgets what was not flushed. Sectors that survive are durable from then on.
    pub(super) fn cut_power(&mut self, loss: Loss) {
        let mut survives = survivors(loss);
        for range in self.take_unflushed() {
            let sectors = self.now[range.clone()].chunks_mut(SECTOR as usize);
            for (now, durable) in sectors.zip(self.durable[range].chunks_mut(SECTOR as usize)) {
                if survives() {
                    durable.copy_from_slice(now);
                } else {
                    now.copy_from_slice(durable);
                }
            }
        }
    }

    /// Makes the beginning equal to the file `source`, flushed.
    pub(super) fn load(&mut self, source: &Path) -> io::Result<()> {
        let file = File::open(source)?;
        let mut part = vec![0; 1 << 20];
        let mut at = 0;
        while at < self.now.len() {
            let len = part.len().min(self.now.len() - at);
            let count = file.read_at(&mut part[..len], at as u64)?;
            if count == 0 {
                break;
            }
            // Zeros on zeros would only take memory.
            if part[..count] != self.now[at..at + count] {
                self.write(at, &part[..count]);
            }
            at += count;
        }
        self.flush();
        Ok(())
    }

    /// What was written since the last flush, in whole sectors, neighbours together; nothing is
    /// afterwards.
    fn take_unflushed(&mut self) -> Vec<Range<usize>> {
        let (sector, len) = (SECTOR as usize, self.now.len());
        let mut start = 0;
        let mut ranges = Vec::new();
        for run in self.unflushed.chunk_by_mut(|a, b| a == b) {
            let end = start + run.len();
            if run[0] {
                run.fill(false);
                ranges.push(start * sector..len.min(end * sector));
            }
            start = end;
        }
        ranges
    }
}

/// Says of one sector after the other whether it survives. The seed also chooses how many do.
fn survivors(loss: Loss) -> impl FnMut() -> bool {
    let (mut random, of_hundred) = match loss {
        Loss::All => (Random::new(0), 0),
        Loss::BySeed(seed) => {
            let mut random = Random::new(seed);
            let of_hundred = random.below(101);
            (random, of_hundred)
        }
    };
    move || random.below(100) < of_hundred
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_forgets_exactly_what_was_not_flushed() {
        let mut medium = Medium::new(2000);
        medium.write(0, &[1; 1000]);
        medium.flush();
        medium.write(500, &[2; 600]);
        medium.write(1999, &[3]);
        assert_eq!(medium.read(499..501), [1, 2]);
        medium.cut_power(Loss::All);
        assert_eq!(medium.read(0..1000), [1; 1000]);
        assert_eq!(medium.read(1000..2000), [0; 1000]);
    }

    #[test]
    fn a_seed_keeps_whole_sectors_and_they_stay() {
        let survived = |seed| {
            let mut medium = Medium::new(512 * 1000);
            medium.write(0, &vec![7; 512 * 1000]);
            medium.cut_power(Loss::BySeed(seed));
            let after = medium.read(0..512 * 1000).to_vec();
            medium.cut_power(Loss::All);
            assert_eq!(medium.read(0..512 * 1000), after);
            let sectors = after.chunks(512).map(|sector| {
                assert!(sector == [0; 512] || sector == [7; 512]);
                sector[0] == 7
            });
            sectors.collect::<Vec<bool>>()
        };
        assert_eq!(survived(3), survived(3));
        let counts: Vec<usize> =
            (0..20).map(|seed| survived(seed).iter().filter(|kept| **kept).count()).collect();
        assert!(counts.iter().any(|&n| n < 300) && counts.iter().any(|&n| n > 700), "{counts:?}");
    }
}
