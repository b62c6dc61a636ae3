//! When nothing comes any more: since when, and why as far as this machine can tell.

use crate::engine::TorrentStatus;
use std::time::{Duration, Instant};

/// Notices that nothing comes any more, and why.
pub(super) struct Stuck {
    received: u64,
    since: Instant,
    /// When to say it again.
    again: Duration,
}

impl Stuck {
    pub(super) fn new() -> Stuck {
        Stuck { received: 0, since: Instant::now(), again: STUCK_AFTER }
    }

    /// Looks again; `Some` if people should know.
    pub(super) fn look(&mut self, status: &[TorrentStatus]) -> Option<String> {
        let received = status.iter().map(|t| t.received + u64::from(t.verified)).sum();
        if received != self.received {
            *self = Stuck { received, ..Stuck::new() };
        }
        let waiting = self.since.elapsed();
        if waiting < self.again {
            return None;
        }
        self.again = 2 * waiting;
        let missing = status.iter().find(|torrent| torrent.stored < torrent.pieces)?;
        let (peers, nowhere) = (missing.peers, missing.nowhere);
        let why = if peers == 0 {
            "no peer was found; does the server run, and do its address and ports 6881 to 6889 \
             answer from here?"
                .to_owned()
        } else if nowhere > 0 {
            format!("none of the {peers} peers has the last {nowhere} pieces that are missing")
        } else {
            format!("{peers} peers have what is missing, but send nothing")
        };
        Some(format!("nothing has come for {} s: {why}", waiting.as_secs()))
    }
}

/// Nothing has come for so long: people should know why.
const STUCK_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_deployment_waiting_is_said() {
        let check = |peers, nowhere, words| {
            let mut stuck = Stuck { again: Duration::ZERO, ..Stuck::new() };
            let status =
                TorrentStatus { pieces: 9, stored: 2, peers, nowhere, ..Default::default() };
            let said = stuck.look(std::slice::from_ref(&status)).expect("it has waited");
            assert!(said.contains(words), "{said}");
            let moving = TorrentStatus { received: 1, ..status };
            assert_eq!(stuck.look(&[moving]), None);
        };
        check(0, 7, "no peer was found");
        check(3, 7, "none of the 3 peers has the last 7 pieces");
        check(3, 0, "send nothing");
    }
}
