//! Times and rates of one torrent as the C++ EZIO tells them, from what is observed now and then.
//!
//! It reads no clock: the time since the program's start is an argument.

use std::collections::VecDeque;
use std::time::Duration;

/// What is known of a torrent at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Bytes sent and received since the start.
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) finished: bool,
    pub(super) paused: bool,
}

/// Times of a torrent.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    now: Duration,
    last: Seen,
    active: Duration,
    finished: Duration,
    uploaded_at: Option<Duration>,
    downloaded_at: Option<Duration>,
    /// When, and how much had been sent and received.
    samples: VecDeque<(Duration, u64, u64)>,
}

/// Rates are means over so long: shorter ones flicker from piece to piece.
const WINDOW: Duration = Duration::from_secs(3);

impl Clock {
    /// A torrent that is added now.
    pub(super) fn new(now: Duration, seen: Seen) -> Clock {
        Clock {
            now,
            last: seen,
            active: Duration::ZERO,
            finished: Duration::ZERO,
            uploaded_at: None,
            downloaded_at: None,
            samples: VecDeque::from([(now, seen.sent, seen.received)]),
        }
    }

    /// Takes in what is seen now. Time counts as what the torrent was before.
    pub(super) fn observe(&mut self, now: Duration, seen: Seen) {
        let passed = now.saturating_sub(self.now);
        if !self.last.paused {
            self.active += passed;
            self.finished += if self.last.finished { passed } else { Duration::ZERO };
        }
        if seen.sent > self.last.sent {
            self.uploaded_at = Some(now);
        }
        if seen.received > self.last.received {
            self.downloaded_at = Some(now);
        }
        self.samples.push_back((now, seen.sent, seen.received));
        while self.samples.get(1).is_some_and(|(at, ..)| *at + WINDOW <= now) {
            self.samples.pop_front();
        }
        (self.now, self.last) = (now, seen);
    }

    /// Seconds it was not paused.
    pub(super) fn active_secs(&self) -> i64 {
        secs(self.active)
    }

    /// Seconds it was finished and not paused.
    pub(super) fn finished_secs(&self) -> i64 {
        secs(self.finished)
    }

    /// Seconds since something was sent; -1 for never.
    pub(super) fn last_upload(&self) -> i64 {
        self.uploaded_at.map_or(-1, |at| secs(self.now - at))
    }

    /// Seconds since something came; -1 for never.
    pub(super) fn last_download(&self) -> i64 {
        self.downloaded_at.map_or(-1, |at| secs(self.now - at))
    }

    /// Bytes a second, sent and received.
    pub(super) fn rates(&self) -> (i64, i64) {
        let Some(&(at, sent, received)) = self.samples.front() else { return (0, 0) };
        let millis = (self.now - at).as_millis().max(1);
        let rate = |bytes: u64| i64::try_from(u128::from(bytes) * 1000 / millis);
        let (up, down) = (self.last.sent - sent, self.last.received - received);
        (rate(up).unwrap_or(i64::MAX), rate(down).unwrap_or(i64::MAX))
    }
}

fn secs(time: Duration) -> i64 {
    // 292 years fit.
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn pauses_do_not_count() {
        let mut clock = Clock::new(at(100), Seen::default());
        let finished = Seen { finished: true, ..Seen::default() };
        clock.observe(at(110), finished);
        clock.observe(at(115), Seen { paused: true, ..finished });
        clock.observe(at(175), finished);
        clock.observe(at(176), finished);
        assert_eq!((clock.active_secs(), clock.finished_secs()), (16, 6));
    }

    #[test]
    fn the_last_bytes_are_remembered() {
        let mut clock = Clock::new(at(0), Seen::default());
        assert_eq!((clock.last_upload(), clock.last_download()), (-1, -1));
        clock.observe(at(1), Seen { received: 5, ..Seen::default() });
        clock.observe(at(4), Seen { received: 5, sent: 1, ..Seen::default() });
        clock.observe(at(9), Seen { received: 5, sent: 1, ..Seen::default() });
        assert_eq!((clock.last_upload(), clock.last_download()), (5, 8));
    }

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let mut clock = Clock::new(at(0), Seen::default());
        for second in 1..=20 {
            clock.observe(at(second), Seen { received: second.min(10) * 1000, ..Seen::default() });
            let rate = if second <= 10 {
                1000
            } else {
                1000 * 13_i64.saturating_sub_unsigned(second).max(0) / 3
            };
            assert_eq!(clock.rates(), (0, rate), "{second}");
        }
    }
}
