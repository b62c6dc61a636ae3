//! What goes wrong with a test disk, where, and when.

use std::ops::{Bound, Range, RangeBounds};

/// An order to a [`TestDisk`](super::TestDisk): operations of some kind that touch a range go wrong.
///
/// An operation that fails does nothing at all, as far as it is not [`Fault::Short`].
#[derive(Clone, Debug)]
pub struct Failure {
    kinds: &'static [Access],
    range: Range<u64>,
    fault: Fault,
    /// How many matching operations still go well.
    after: u64,
    /// How many fail then.
    times: u64,
}

/// How an operation goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO, as from a sector that cannot be read.
    Io,
    /// ENOSPC, as from a file system or a thin device that is full.
    NoSpace,
    /// EROFS, as from a stick that protects itself.
    ReadOnly,
    /// ENODEV, as from a disk that was pulled out. The kernel makes EIO of it on a loop device.
    NoDevice,
    /// About half of it happens, in whole sectors, and the answer says so; one sector or less happens
    /// wholly. Not under a loop device: the kernel's driver takes a short write for a whole one.
    Short,
    /// All is as ever, but the byte at this offset, if it is among those that are written, becomes
    /// another: a bit that tips over on the way, and no checksum that sees it.
    Flip(u64),
    /// The power is cut, see [`TestDisk::cut_power`](super::TestDisk::cut_power); EIO.
    PowerCut(Loss),
}

/// What a power cut takes of the sectors that were written since the last flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of them.
    All,
    /// Each or not, as chance has it: a disk writes in an order of its own. The seed chooses also how
    /// many about.
    BySeed(u64),
}

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    Flush,
}

impl Failure {
    /// Reads that touch `range` fail with EIO.
    pub fn read(range: impl RangeBounds<u64>) -> Failure {
        Failure::new(&[Access::Read], range)
    }

    /// Writes that touch `range` fail with EIO.
    pub fn write(range: impl RangeBounds<u64>) -> Failure {
        Failure::new(&[Access::Write], range)
    }

    /// Flushes fail with EIO. Nothing becomes durable by them.
    #[must_use]
    pub fn flush() -> Failure {
        Failure::new(&[Access::Flush], ..)
    }

    /// Everything fails with EIO.
    #[must_use]
    pub fn everything() -> Failure {
        Failure::new(&[Access::Read, Access::Write, Access::Flush], ..)
    }

    /// The same with another fault.
    #[must_use]
    pub fn with(self, fault: Fault) -> Failure {
        Failure { fault, ..self }
    }

    /// The same, but the first `count` operations that it is about go well.
    #[must_use]
    pub fn after(self, count: u64) -> Failure {
        Failure { after: count, ..self }
    }

    /// The same, but only one operation fails.
    #[must_use]
    pub fn once(self) -> Failure {
        Failure { times: 1, ..self }
    }

    fn new(kinds: &'static [Access], range: impl RangeBounds<u64>) -> Failure {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        Failure { kinds, range: start..end, fault: Fault::Io, after: 0, times: u64::MAX }
    }

    /// What it does to an operation, and counts it. A flush touches everything.
    pub(super) fn meet(&mut self, kind: Access, touched: &Range<u64>) -> Option<Fault> {
        let touches = kind == Access::Flush
            || touched.start < self.range.end && self.range.start < touched.end;
        if !touches || !self.kinds.contains(&kind) {
            return None;
        }
        if self.after > 0 {
            self.after -= 1;
            return None;
        }
        self.times = self.times.checked_sub(1)?;
        Some(self.fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the reads of 10 bytes at 0, 10, 20, ... fail.
    fn check(mut failure: Failure, wanted: &str) {
        let mut read = |i: u64| failure.meet(Access::Read, &(i * 10..(i + 1) * 10));
        let found: String = (0..8).map(|i| if read(i).is_some() { 'x' } else { '-' }).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn failures_know_where_and_when() {
        check(Failure::read(..), "xxxxxxxx");
        check(Failure::read(19..21), "-xx-----");
        check(Failure::read(20..=20), "--x-----");
        check(Failure::read(60..), "------xx");
        check(Failure::read(..).after(3), "---xxxxx");
        check(Failure::read(20..).after(3).once(), "-----x--");
        check(Failure::everything().once(), "x-------");
        check(Failure::write(..), "--------");
        check(Failure::flush(), "--------");
    }
}
