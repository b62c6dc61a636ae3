//! A bound on bytes a second, shared by all connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use swarm::swarm::UNIT;
use swarm::wire::BLOCK_LEN_MAX;

/// Bounds in both directions, each for all connections together. They may change at any time.
pub(super) struct Limits {
    pub(super) sending: Throttle,
    pub(super) receiving: Throttle,
}

impl Limits {
    /// `rate` bytes a second in each direction, at least one; `None` for no bound.
    pub(super) fn new(rate: Option<u64>) -> Limits {
        Limits { sending: Throttle::new(rate), receiving: Throttle::new(rate) }
    }

    /// Another rate from now on.
    pub(super) fn set(&self, rate: Option<u64>) {
        self.sending.set(rate);
        self.receiving.set(rate);
    }

    /// See [`block_max`]; `None` without a bound.
    pub(super) fn block_max(&self) -> Option<u32> {
        let rate = self.sending.rate.load(Ordering::Relaxed);
        (rate != UNBOUNDED).then(|| block_max(rate))
    }
}

/// The largest block worth asking for at `rate` bytes a second: some 50 ms of it, in whole units of
/// 16 KiB, so that control messages and other peers do not wait longer.
pub(super) fn block_max(rate: u64) -> u32 {
    let share = u32::try_from(rate / 20).unwrap_or(u32::MAX);
    (share / UNIT * UNIT).clamp(UNIT, BLOCK_LEN_MAX)
}

/// Whoever wants to move bytes waits here for its turn.
pub(super) struct Throttle {
    /// Bytes a second, or [`UNBOUNDED`].
    rate: AtomicU64,
    /// When all bytes that were let through so far are due to be gone.
    free_at: Mutex<Instant>,
}

/// What was not used may be caught up with: a link that pauses for a moment loses nothing.
const BURST: Duration = Duration::from_millis(50);

/// No bound.
const UNBOUNDED: u64 = u64::MAX;

impl Throttle {
    fn new(rate: Option<u64>) -> Throttle {
        let throttle = Throttle { rate: AtomicU64::new(0), free_at: Mutex::new(Instant::now()) };
        throttle.set(rate);
        throttle
    }

    fn set(&self, rate: Option<u64>) {
        self.rate.store(rate.map_or(UNBOUNDED, |rate| rate.max(1)), Ordering::Relaxed);
        // Those who wait have their turn; who comes next does not wait for what they booked.
        *self.free_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until `len` bytes may go. Turns are in the order of asking.
    pub(super) fn wait(&self, len: u64) {
        if self.rate.load(Ordering::Relaxed) == UNBOUNDED {
            return;
        }
        let turn = self.book(Instant::now(), len);
        thread::sleep(turn.saturating_duration_since(Instant::now()));
    }

    /// Takes the next free time for `len` bytes and returns its beginning.
    fn book(&self, now: Instant, len: u64) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let turn = (*free_at).max(earliest);
        let nanos = u128::from(len) * 1_000_000_000 / u128::from(self.rate.load(Ordering::Relaxed));
        // A block and the slowest rate are some days.
        *free_at = turn + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_each_other_at_the_rate() {
        let throttle = Throttle::new(Some(1_000_000));
        let now = *throttle.free_at.lock().unwrap();
        let at = |len| throttle.book(now, len).duration_since(now).as_millis();
        assert_eq!([at(500_000), at(250_000), at(1), at(1)], [0, 500, 750, 750]);
    }

    #[test]
    fn what_was_not_used_is_caught_up_with_only_for_a_moment() {
        let throttle = Throttle::new(Some(1_000_000));
        let later = *throttle.free_at.lock().unwrap() + Duration::from_secs(9);
        assert_eq!(throttle.book(later, 100_000), later - BURST);
        assert_eq!(throttle.book(later, 1), later + BURST);
    }

    #[test]
    fn a_bound_may_come_and_go() {
        let limits = Limits::new(None);
        assert_eq!(limits.block_max(), None);
        let started = Instant::now();
        (0..1000).for_each(|_| limits.receiving.wait(1 << 30));
        limits.set(Some(1_000_000));
        assert_eq!(limits.block_max(), Some(3 * UNIT));
        let now = *limits.sending.free_at.lock().unwrap();
        assert_eq!(limits.sending.book(now, 1_000_000), now);
        assert_eq!(limits.sending.book(now, 1), now + Duration::from_secs(1));
        limits.set(None);
        limits.sending.wait(1 << 30);
        assert!(started.elapsed() < Duration::from_secs(1), "somebody waited");
    }
}
