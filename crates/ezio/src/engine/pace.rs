//! How much is handed to a socket at once, so that control messages do not wait behind data.
//!
//! Grants, announcements and requests go over the same connections as blocks. What has been handed
//! to a socket cannot be overtaken, and a socket takes megabytes: at 100 Mbit/s a request then
//! waits for a tenth of a second, in which the one it is sent to has nothing to do. So data goes in
//! portions of a few milliseconds, and the kernel is told to want no more than one of them that it
//! has not sent (`TCP_NOTSENT_LOWAT`, tcp(7)); what is on its way does not count.

use std::time::Duration;

/// The portion of one connection, which follows what its link takes.
pub(super) struct Pace {
    portion: u32,
}

/// What a portion shall take: about what a block does at the rate that its length was chosen for.
const TIME: Duration = Duration::from_millis(5);

/// 32 KiB: shorter ones cost a wake-up each and gain nothing against the queues of the network.
const LEAST: u32 = 32 << 10;

/// 1 MiB: 0.8 ms of a 10 Gbit/s link, and what is read from a disk at once.
pub(super) const MOST: u32 = 1 << 20;

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { portion: LEAST }
    }

    /// Bytes of a portion.
    pub(super) fn portion(&self) -> u32 {
        self.portion
    }

    /// `len` bytes took `time` until the socket had taken them. Returns whether that has changed
    /// the portion.
    ///
    /// In steps of two, because a socket that was empty takes the first ones at once.
    pub(super) fn handed(&mut self, len: u32, time: Duration) -> bool {
        let before = self.portion;
        // What the whole portion would have taken.
        let time = time.as_nanos() * u128::from(self.portion) / u128::from(len.max(1));
        if time < TIME.as_nanos() / 2 && len >= self.portion {
            self.portion = (self.portion * 2).min(MOST);
        } else if time > TIME.as_nanos() * 2 {
            self.portion = (self.portion / 2).max(LEAST);
        }
        self.portion != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The portion after so many at `rate` bytes a second.
    fn check(rate: u64, portions: usize) -> u32 {
        let mut pace = Pace::new();
        for _ in 0..portions {
            let len = pace.portion();
            pace.handed(len, Duration::from_nanos(u64::from(len) * 1_000_000_000 / rate));
        }
        pace.portion()
    }

    #[test]
    fn a_portion_is_some_milliseconds_of_the_link() {
        assert_eq!(check(1_250_000, 20), LEAST);
        assert_eq!(check(12_500_000, 20), LEAST, "2.6 ms");
        assert_eq!(check(125_000_000, 20), 512 << 10, "4.2 ms");
        assert_eq!(check(1_250_000_000, 20), MOST);
        assert_eq!(check(1_250_000_000, 2), 128 << 10, "an empty socket takes anything");
    }

    #[test]
    fn a_link_that_becomes_slower_gets_smaller_portions() {
        let mut pace = Pace { portion: MOST };
        assert!(pace.handed(16 << 10, Duration::from_millis(1)));
        assert_eq!(pace.portion(), MOST / 2);
        assert!(!pace.handed(16 << 10, Duration::ZERO), "a short one says little");
    }
}
