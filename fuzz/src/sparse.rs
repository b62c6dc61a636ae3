//! A device of gigabytes in an input of a kilobyte: zeros, but for some runs of bytes.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | what lies on the device: the target's choice |
//! | 4 | length of the device in bytes |
//! | 4 | where a run begins |
//! | 2 | bytes of the run |
//! | as many | the run |
//!
//! The last three rows repeat up to the end. Numbers are little-endian. A later run lies over an
//! earlier one.

use ezio::capture::filesystem::ReadAt;
use std::cell::Cell;
use std::io;

/// A device that can be told to fail, and counts what is asked of it.
#[derive(Debug, Default)]
pub struct Sparse<'a> {
    len: u64,
    runs: Vec<(u64, &'a [u8])>,
    /// How many reads succeed; the next one and all after it are I/O errors.
    pub good_reads: Option<usize>,
    /// Reads so far.
    pub reads: Cell<usize>,
    /// Bytes handed out so far.
    pub bytes: Cell<usize>,
}

/// The kind of the errors of a device told to fail: no decoder makes it up.
pub const FAILURE: io::ErrorKind = io::ErrorKind::HostUnreachable;

impl<'a> Sparse<'a> {
    /// The target's choice, and the device. `None` if there are not even those.
    #[must_use]
    pub fn parse(input: &'a [u8]) -> Option<(u8, Sparse<'a>)> {
        let (&choice, rest) = input.split_first()?;
        let (&len, mut rest) = rest.split_first_chunk()?;
        let mut runs = Vec::new();
        while let Some((&offset, after)) = rest.split_first_chunk() {
            let Some((&run, after)) = after.split_first_chunk() else { break };
            let run = usize::from(u16::from_le_bytes(run)).min(after.len());
            runs.push((u64::from(u32::from_le_bytes(offset)), &after[..run]));
            rest = &after[run..];
        }
        let len = u64::from(u32::from_le_bytes(len));
        Some((choice, Sparse { len, runs, ..Sparse::default() }))
    }

    /// The same device with one more run over all others.
    #[must_use]
    pub fn with<'b>(&self, offset: u64, run: &'b [u8]) -> Sparse<'b>
    where
        'a: 'b,
    {
        let mut runs = self.runs.clone();
        runs.push((offset, run));
        Sparse { len: self.len, runs, ..Sparse::default() }
    }

    /// The same device, failing after `reads` reads.
    #[must_use]
    pub fn failing_after(&self, reads: usize) -> Sparse<'a> {
        let runs = self.runs.clone();
        Sparse { len: self.len, runs, good_reads: Some(reads), ..Sparse::default() }
    }

    /// Bytes of the device.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The byte at `offset`, 0 behind the end.
    #[must_use]
    pub fn byte(&self, offset: u64) -> u8 {
        let at = |&(start, run): &(u64, &[u8])| {
            run.get(usize::try_from(offset.checked_sub(start)?).ok()?).copied()
        };
        self.runs.iter().rev().find_map(at).unwrap_or(0)
    }
}

impl ReadAt for Sparse<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.reads.replace(self.reads.get() + 1);
        if self.good_reads.is_some_and(|good| read >= good) {
            return Err(FAILURE.into());
        }
        let end = offset.saturating_add(buf.len() as u64).min(self.len);
        let len = usize::try_from(end.saturating_sub(offset)).map_err(io::Error::other)?;
        buf[..len].fill(0);
        for &(start, run) in &self.runs {
            let (from, to) = (start.max(offset), (start + run.len() as u64).min(end));
            if from < to {
                let here = (from - offset) as usize..(to - offset) as usize;
                let there = (from - start) as usize..(to - start) as usize;
                buf[here].copy_from_slice(&run[there]);
            }
        }
        self.bytes.set(self.bytes.get() + len);
        Ok(len)
    }
}
