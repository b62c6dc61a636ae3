//! When a torrent has been served for long enough: the rules of the C++ EZIO, 1.x and 2.x.
//!
//! 1.x applies its rule itself; the daemon of 2.x never stops, and its helper programs do.

use super::messages::Torrent;

/// `-e` and `-t` of 1.x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OneShot {
    /// Stops when more than so many whole images were sent: at ratio N + 1.
    pub(super) ratio: i64,
    /// Minutes without sending; if nothing was ever sent, without receiving.
    pub(super) timeout_min: i64,
}

impl OneShot {
    /// Whether `torrent`, which is finished, was served for long enough.
    pub(super) fn is_over(self, torrent: &Torrent) -> bool {
        let idle =
            if torrent.last_upload >= 0 { torrent.last_upload } else { torrent.last_download };
        let images = torrent.total_payload_upload / torrent.total.max(1);
        images > self.ratio || idle > self.timeout_min.saturating_mul(60)
    }
}

/// `-w` and `-l` of `ezio_ui.py` and `ezio_cli.py` of 2.x, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watching {
    /// How long to serve at least.
    pub(super) wait_secs: i64,
    /// And how long after the last byte sent.
    pub(super) last_upload_secs: i64,
}

impl Watching {
    /// Whether `torrent` is to be paused now.
    pub(super) fn is_over(self, torrent: &Torrent) -> bool {
        let much = torrent.total_payload_upload > torrent.total_done.saturating_mul(3);
        let unwanted = torrent.last_upload == -1 || torrent.last_upload > self.last_upload_secs;
        let idle = torrent.finished_time > self.wait_secs && unwanted;
        torrent.is_finished && !torrent.is_paused && (much || idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_of_3_ends_at_4() {
        let rule = OneShot { ratio: 3, timeout_min: 15 };
        let check = |sent, over| {
            let torrent = Torrent { total: 10, total_payload_upload: sent, ..Torrent::default() };
            assert_eq!(rule.is_over(&torrent), over, "{sent}");
        };
        check(39, false);
        check(40, true);
    }

    #[test]
    fn idleness_counts_from_the_last_byte_sent_or_else_received() {
        let rule = OneShot { ratio: 3, timeout_min: 1 };
        let check = |last_upload, last_download, over| {
            let torrent = Torrent { total: 10, last_upload, last_download, ..Torrent::default() };
            assert_eq!(rule.is_over(&torrent), over, "{last_upload} {last_download}");
        };
        check(60, 500, false);
        check(61, 500, true);
        check(-1, 60, false);
        check(-1, 61, true);
        check(-1, -1, false);
    }

    #[test]
    fn the_watchers_of_the_daemon_wait_for_a_time_and_for_silence() {
        let rule = Watching { wait_secs: 90, last_upload_secs: 15 };
        let finished = Torrent { is_finished: true, total_done: 10, ..Torrent::default() };
        let check = |finished_time, last_upload, sent, over| {
            let torrent = Torrent {
                finished_time,
                last_upload,
                total_payload_upload: sent,
                ..finished.clone()
            };
            assert_eq!(rule.is_over(&torrent), over, "{finished_time} {last_upload} {sent}");
            let paused = Torrent { is_paused: true, ..torrent.clone() };
            let unfinished = Torrent { is_finished: false, ..torrent };
            assert!(!rule.is_over(&paused) && !rule.is_over(&unfinished));
        };
        check(90, -1, 0, false);
        check(91, -1, 0, true);
        check(91, 15, 5, false);
        check(91, 16, 5, true);
        check(0, 0, 30, false);
        check(0, 0, 31, true);
    }
}
