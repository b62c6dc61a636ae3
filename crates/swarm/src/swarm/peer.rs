//! One connection: what the peer has, what it may ask of us, what we asked of it.

use super::{TorrentId, Uplink};
use crate::bitfield::Bitfield;
use crate::time::Time;
use alloc::collections::{BTreeMap, VecDeque};
use core::time::Duration;

/// Whom we speak with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It speaks BEP 10 and has not said yet whether it knows `xg`. Decided at this time at last.
    Unknown(Time),
    /// One of our own nodes.
    Own {
        /// The id it wants `xg` messages with.
        xg_id: u8,
    },
    /// Any other client.
    Stranger,
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) torrent: TorrentId,
    /// Which program it is, the same on all its connections.
    pub(crate) node: u64,
    /// How its uplink compares with ours, as was told outside.
    pub(crate) uplink: Uplink,
    /// Which machine it runs on, if that is known.
    pub(crate) machine: Option<u64>,
    pub(crate) fast: bool,
    /// When it connected.
    pub(crate) since: Time,
    /// The id it wants `ut_metadata` messages with.
    pub(crate) metadata_id: Option<u8>,
    /// Pieces of the metadata it was handed.
    pub(crate) metadata_given: u32,
    pub(crate) kind: Kind,
    /// One of our own that injects the image.
    pub(crate) source: bool,
    /// Its uplink in bytes a second; 0 if it did not say.
    pub(crate) rate: u64,
    /// Largest block it takes and serves, in bytes.
    pub(crate) block: u32,
    /// Requests it lets wait.
    pub(crate) reqq: u32,

    pub(crate) have: Bitfield,
    /// Of those, pieces it passes on while they come in, and how many hops they are from a node that
    /// has them whole.
    pub(crate) coming: BTreeMap<u32, u8>,
    /// Pieces it has that are open here.
    pub(crate) wanted: u32,
    /// Pieces it has that are not verified here.
    pub(crate) useful: u32,
    /// Pieces that were wrong when it alone sent them, or that it refused: not asked for again before
    /// that time. And whether it has said that it has them.
    pub(crate) bad: BTreeMap<u32, (Time, bool)>,
    /// How many different pieces were wrong when it alone sent them.
    pub(crate) bad_count: u32,
    /// How many pieces were right of which it sent some.
    pub(crate) right_count: u32,

    /// Whether it serves us (strangers only).
    pub(crate) choking: bool,
    /// What we told it last.
    pub(crate) told_interested: bool,
    pub(crate) told_load: u8,
    /// Units asked for and not yet here.
    pub(crate) outstanding: u32,
    /// Not asked for anything before that time: it was too slow.
    pub(crate) avoid_until: Time,
    pub(crate) strikes: u32,
    pub(crate) received: u64,

    /// What it told us last.
    pub(crate) interested: bool,
    pub(crate) load: u8,
    /// Since when it waits for a grant.
    pub(crate) waiting_since: Time,
    pub(crate) grants: VecDeque<Grant>,
    /// Bytes it asked for that were neither handed to its socket nor dropped.
    pub(crate) queued: u64,
    pub(crate) last_request: Time,
    /// Not granted anything before that time: it let a grant lapse.
    pub(crate) snubbed_until: Time,
    /// Grants it let lapse, less those it answered at once.
    pub(crate) lapses: u32,
    pub(crate) sent: u64,
}

/// A slot: what a peer may ask us for.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) bytes: u64,
    pub(crate) piece: Option<u32>,
    /// What the peer asked for last.
    pub(crate) asked: Option<u32>,
    pub(crate) issued: Time,
    /// When the last of it was asked for or handed to the socket.
    pub(crate) progress: Time,
    pub(crate) requested: u64,
    pub(crate) served: u64,
    pub(crate) unused: u64,
}

impl Peer {
    pub(crate) fn new(torrent: TorrentId, node: u64, fast: bool, kind: Kind, pieces: u32) -> Peer {
        Peer {
            torrent,
            node,
            uplink: Uplink::default(),
            machine: None,
            fast,
            since: Time(0),
            metadata_id: None,
            metadata_given: 0,
            kind,
            source: false,
            rate: 0,
            block: super::UNIT,
            reqq: REQQ_UNSAID,
            have: Bitfield::new(pieces),
            coming: BTreeMap::new(),
            wanted: 0,
            useful: 0,
            bad: BTreeMap::new(),
            bad_count: 0,
            right_count: 0,
            choking: true,
            told_interested: false,
            told_load: 0,
            outstanding: 0,
            avoid_until: Time(0),
            strikes: 0,
            received: 0,
            interested: false,
            load: 0,
            waiting_since: Time(0),
            grants: VecDeque::new(),
            queued: 0,
            last_request: Time(0),
            snubbed_until: Time(0),
            lapses: 0,
            sent: 0,
        }
    }

    pub(crate) fn is_own(&self) -> bool {
        matches!(self.kind, Kind::Own { .. })
    }

    /// How far this peer's `piece`, which it has or offers, is from a whole one: 0 if it is whole.
    pub(crate) fn hops(&self, piece: u32) -> u8 {
        self.coming.get(&piece).copied().unwrap_or(0)
    }

    pub(crate) fn is_stranger(&self) -> bool {
        self.kind == Kind::Stranger
    }
}

impl Grant {
    pub(crate) fn new(bytes: u64, piece: Option<u32>, now: Time) -> Grant {
        Grant {
            bytes,
            piece,
            asked: None,
            issued: now,
            progress: now,
            requested: 0,
            served: 0,
            unused: 0,
        }
    }

    /// Bytes that may still be asked for.
    pub(crate) fn unrequested(&self) -> u64 {
        self.bytes - self.requested - self.unused
    }

    pub(crate) fn is_over(&self) -> bool {
        self.served + self.unused >= self.bytes
    }
}

/// Bytes over time: the rate now, and the best that lasted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    bytes: u64,
    since: Time,
    /// Bytes a second in the last full window.
    pub(crate) rate: u64,
    /// The last full windows, and how many there have been of them, up to all.
    recent: [u64; LASTING],
    full: usize,
    /// The best rate over some windows without the best of them; decays by 1/64 a window, so a link
    /// that got slower is learnt.
    ///
    /// A single window tells more than a link: what is handed to a dozen empty sockets is taken at
    /// once. A source on a link of 12.5 Mbit/s with 32 clients believed to have nine times that, and
    /// gave as many turns, so that all had a little of many pieces and none had one.
    pub(crate) peak: u64,
}

/// Windows that a rate has to last for.
const LASTING: usize = 3;

impl Meter {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Ends the window if it is at least `window` long.
    pub(crate) fn roll(&mut self, now: Time, window: Duration) {
        let span = now.since(self.since);
        if span < window {
            return;
        }
        let rate = u128::from(self.bytes) * 1_000_000_000 / span.as_nanos().max(1);
        self.rate = u64::try_from(rate).unwrap_or(u64::MAX);
        // Of a link on which nothing happens nothing is learnt: waits that are measured by the peak would
        // grow faster than they pass.
        let decay = if self.bytes > 0 { self.peak / 64 } else { 0 };
        (self.bytes, self.since) = (0, now);
        self.recent.rotate_right(1);
        self.recent[0] = self.rate;
        if self.full < LASTING {
            // Better than nothing, and forgotten when more is known.
            self.full += usize::from(self.rate > 0 || self.full > 0);
            self.peak = self.rate;
            return;
        }
        let sum = self.recent.iter().fold(0, |sum: u64, &rate| sum.saturating_add(rate));
        let best = self.recent.iter().copied().max().unwrap_or(0);
        let lasted = (sum - best) / (LASTING as u64 - 1);
        self.peak = (self.peak - decay).max(lasted);
    }
}

/// What a client that does not say `reqq` takes: libtorrent's default.
pub(crate) const REQQ_UNSAID: u32 = 250;

#[cfg(test)]
mod tests {
    use super::*;

    /// A meter after windows of 100 ms in which so many bytes went.
    fn after(windows: &[u64]) -> Meter {
        let window = Duration::from_millis(100);
        let mut meter = Meter::default();
        for (nth, &bytes) in (1..).zip(windows) {
            meter.add(bytes);
            meter.roll(Time(0) + window * nth, window);
        }
        meter
    }

    #[test]
    fn what_empty_sockets_take_at_once_is_no_rate() {
        assert_eq!(after(&[1_000_000]).peak, 10_000_000, "nothing else is known");
        let meter = after(&[1_000_000, 100_000, 100_000, 100_000]);
        assert_eq!(meter.peak, 1_000_000);
        let meter = after(&[100_000, 100_000, 100_000, 900_000, 100_000, 100_000]);
        assert!((950_000..=1_000_000).contains(&meter.peak), "{}", meter.peak);
    }

    #[test]
    fn a_rate_that_lasts_is_learnt() {
        let meter = after(&[100_000, 100_000, 100_000, 500_000, 500_000, 500_000]);
        assert_eq!(meter.peak, 5_000_000);
    }
}
