//! How long a silence is on a link that is slower than what was asked for.
//!
//! What is given up still comes for a while and fills the link before what is asked for instead. If that
//! is given up as early, nothing ever comes in time. So who had to give something up before all that was
//! asked for could have come waits twice as long from then on, until answers come sooner again. Does not
//! know why nothing came: where everybody is silent the waits become longer, too.

use core::time::Duration;

/// The longest silence that turned out to be too short, forgotten bit by bit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience(Duration);

impl Patience {
    /// Least silence that counts: twice what was too short.
    pub(crate) fn least(self) -> Duration {
        self.0 * 2
    }

    /// Something was given up after a silence of `span`, and it may have been the link.
    pub(crate) fn was_short(&mut self, span: Duration) {
        self.0 = self.0.max(span).min(LONGEST);
    }

    /// An answer came after a silence of `span`. Those that nearly came too late teach nothing.
    pub(crate) fn heard_after(&mut self, span: Duration) {
        if span < self.0 / 2 {
            self.0 -= self.0 / 8;
        }
        if self.0 < FORGOTTEN {
            self.0 = Duration::ZERO;
        }
    }
}

/// Half a minute, so nobody is waited for longer than a minute because of this: 3.7 MB at the 62 KB/s
/// with which it was found.
const LONGEST: Duration = Duration::from_secs(30);

/// Below the least silence that counts anyway.
const FORGOTTEN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn it_doubles_to_a_bound_and_is_forgotten_when_answers_come_at_once() {
        let mut patience = Patience::default();
        let mut waits = Vec::new();
        for _ in 0..7 {
            let wait = patience.least().max(Duration::from_secs(1));
            waits.push(wait.as_secs());
            patience.was_short(wait);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60]);
        patience.heard_after(Duration::from_secs(20));
        assert_eq!(patience.least(), Duration::from_secs(60), "an answer that was nearly too late");
        for _ in 0..40 {
            patience.heard_after(Duration::from_millis(1));
        }
        assert_eq!(patience.least(), Duration::ZERO);
    }
}
