//! How far the images are, for people and scripts.

use super::{End, Task};
use crate::engine::TorrentStatus;
use crate::ui::{Part, Progress, Ui};
use serde_json::json;
use swarm::units::Rate;

/// A part for each target.
pub(super) fn parts(tasks: &[Task]) -> Vec<Part> {
    let part = |task: &Task| {
        let phase = if task.check.is_empty() { "downloading" } else { "checking" };
        Part::new(task.to.display().to_string(), phase, task.metainfo.layout().image_len())
    };
    tasks.iter().map(part).collect()
}

/// Shows how everything is.
pub(super) fn show(progress: &Progress, tasks: &[Task], status: &[TorrentStatus]) {
    for (index, task) in tasks.iter().enumerate() {
        let (part, len) = (progress.part(index), task.metainfo.layout().image_len());
        let hash = task.metainfo.info_hash();
        let now = status.iter().find(|torrent| torrent.info_hash == hash);
        match (task.end, now) {
            (Some(End::Done), _) => part.set("done", len, len),
            (Some(End::Failed), _) => part.set("failed", 0, len),
            (None, Some(now)) => {
                let (phase, done) = phase(now, task.outcome.looked_at);
                part.set(phase, done, len);
            }
            (None, None) => {}
        }
        part.peers(now.map_or(0, |now| now.peers));
    }
}

/// What is done to an image, as far as the engine knows, and how many of its bytes are through.
/// `looked_at` pieces might have been there before.
fn phase(status: &TorrentStatus, looked_at: usize) -> (&'static str, u64) {
    let looked_at = u32::try_from(looked_at).unwrap_or(u32::MAX).max(status.checking);
    if status.checking > 0 {
        let looked = u128::from(looked_at - status.checking);
        let bytes = u128::from(status.image_len) * looked / u128::from(looked_at);
        // At most the length of the image.
        ("checking", bytes as u64)
    } else if status.stored == status.pieces {
        ("flushing", status.image_len)
    } else {
        ("downloading", status.stored_bytes())
    }
}

/// What others get of this machine, and at which rate.
pub(super) struct Giving {
    live: crate::ui::Live,
    sent: u64,
    at: std::time::Instant,
}

impl Giving {
    pub(super) fn new(ui: Ui) -> Giving {
        Giving { live: ui.live("seeding"), sent: u64::MAX, at: std::time::Instant::now() }
    }

    /// Shows how it is.
    pub(super) fn show(&mut self, status: &[TorrentStatus]) {
        if !self.live.is_due() {
            return;
        }
        let sent: u64 = status.iter().map(|torrent| torrent.sent).sum();
        let peers: u32 = status.iter().map(|torrent| torrent.peers).sum();
        let wanting: u32 = status.iter().map(|torrent| torrent.peers_interested).sum();
        let time = self.at.elapsed().as_secs_f64().max(0.05);
        // A float's 53 bits are enough for people.
        let rate = (sent.saturating_sub(self.sent) as f64 / time) as u64;
        (self.sent, self.at) = (sent, std::time::Instant::now());
        let text = format!("serving the others: {wanting} of {peers} want more, {}", Rate(rate));
        let json = json!({
            "sent_bytes": sent, "bytes_per_second": rate, "peers": peers, "wanting": wanting,
        });
        self.live.set(&text, json);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_follows_from_what_the_engine_knows() {
        let check = |checking, stored, looked_at, wanted| {
            let (image_len, pieces) = (1000, 10);
            let status =
                TorrentStatus { image_len, pieces, checking, stored, ..Default::default() };
            assert_eq!(phase(&status, looked_at), wanted);
        };
        check(0, 0, 0, ("downloading", 0));
        check(0, 5, 0, ("downloading", 500));
        check(4, 3, 8, ("checking", 500));
        check(9, 0, 8, ("checking", 0));
        check(0, 10, 8, ("flushing", 1000));
    }
}
