//! What happens because time passes.

use super::inject::Injection;
use super::peer::Kind;
use super::torrent::{State, Torrent};
use super::{Action, PeerId, Reason, Swarm, TorrentId};
use crate::wire::Message;
use crate::wire::extension::Xg;
use alloc::vec::Vec;
use core::time::Duration;

impl Swarm {
    pub(super) fn tick(&mut self) {
        let span = self.now.since(self.ticked);
        self.ticked = self.now;
        self.up.roll(self.now, METER);
        self.down.roll(self.now, METER);
        self.prove_uplink();
        self.revoke_lapsed();
        self.drop_stalled_leases();
        self.drop_orphans();
        self.end_waits();
        self.refetch_lost();
        self.reveal_all();
        self.adapt(span);
        self.tell_rate();
        self.ask_for_peers();
        // Endgame and lapsed waits depend on time.
        self.dirty = true;
    }

    /// Peers that have not said who they are become strangers; pieces that were wrong may be asked
    /// of the same peer again.
    fn end_waits(&mut self) {
        let now = self.now;
        let mut strangers = Vec::new();
        let mut again: Vec<(PeerId, u32)> = Vec::new();
        for (&id, peer) in &mut self.peers {
            if matches!(peer.kind, Kind::Unknown(until) if until <= now) {
                strangers.push(id);
            }
            peer.bad.retain(|&piece, (until, said)| {
                let over = *until <= now;
                if over && *said {
                    again.push((id, piece));
                }
                !over
            });
        }
        strangers.into_iter().for_each(|id| self.is_stranger(id));
        again.into_iter().for_each(|(id, piece)| self.gain(id, piece));
    }

    /// Pieces begun that nobody can finish now must not hold the room of those somebody could. As
    /// long as they are in nobody's way they are kept: who has them may come back.
    fn drop_orphans(&mut self) {
        let blocked = |torrent: &Torrent| {
            let peers = torrent.peers.iter().filter_map(|id| self.peers.get(id));
            !self.has_room(torrent, 0) && peers.map(|peer| peer.wanted).max().unwrap_or(0) > 0
        };
        if !self.torrents.values().any(blocked) {
            return;
        }
        let mut orphans: Vec<(TorrentId, u32)> = Vec::new();
        for (&id, torrent) in &self.torrents {
            for (&piece, active) in &torrent.active {
                let missing = torrent.states[piece as usize] == State::Missing;
                if missing && active.leases.is_empty() && torrent.copies[piece as usize] == 0 {
                    orphans.push((id, piece));
                }
            }
        }
        for (id, piece) in orphans {
            self.retract(id, piece);
            self.out.push(Action::Discard(id, piece));
            self.retire(id, piece);
            self.refresh_open(id, piece);
        }
    }

    /// What a source gave away and nobody announced is given away again, also to strangers, who ask for
    /// nothing that they are not shown.
    fn refetch_lost(&mut self) {
        let now = self.now;
        let mut waiting = Vec::new();
        for torrent in self.torrents.values_mut() {
            let rate = self.up.peak.max(self.config.uplink).max(1);
            let piece_time =
                Duration::from_nanos(u64::from(torrent.piece_len) * 1_000_000_000 / rate);
            if let Some(injection) = &mut torrent.injection {
                injection.lose_older(now - LOST_AFTER.max(piece_time * 64));
                if !injection.is_over() {
                    waiting.extend(torrent.peers.iter().copied());
                }
            }
        }
        waiting.into_iter().for_each(|id| self.reveal(id));
    }

    /// A source that has sent everything once hides nothing any more.
    fn reveal_all(&mut self) {
        let mut haves = Vec::new();
        for torrent in self.torrents.values_mut() {
            if !torrent.injection.as_mut().is_some_and(Injection::reveal_now) {
                continue;
            }
            for &id in &torrent.peers {
                if let Some(peer) = self.peers.get(&id)
                    && peer.is_stranger()
                {
                    let lacks = torrent.have.iter().filter(|&piece| !peer.have.has(piece));
                    haves.extend(lacks.map(|piece| (id, piece)));
                }
            }
        }
        for (id, piece) in haves {
            self.send(id, Message::Have(piece));
        }
    }

    /// Keeps more pieces on their way if the link could take more and only the cap forbids it.
    fn adapt(&mut self, span: Duration) {
        let (least, most) = self.config.in_flight;
        if self.in_flight >= self.cap {
            self.capped += span;
        }
        let piece_len = self.torrents.values().map(|torrent| torrent.piece_len).max();
        let period = (self.piece_time(piece_len.unwrap_or(0)) * 4).max(METER * 2);
        let waited = self.now.since(self.adapted);
        if waited < period {
            return;
        }
        let full = self.config.downlink.max(self.down.peak);
        let often = self.capped * 4 > waited * 3;
        if often && self.down.rate / 93 < full / 100 {
            self.cap = (self.cap + 1).min(most);
        } else if self.down.rate / 99 > full / 100 {
            self.cap = (self.cap - 1).max(least);
        }
        (self.capped, self.adapted) = (Duration::ZERO, self.now);
    }

    /// Our own nodes give us as many turns as our uplink is worth.
    fn tell_rate(&mut self) {
        let (uplink, (at, told)) = (self.uplink_to_tell(), self.rate_told);
        let changed = uplink.abs_diff(told) > told / 4;
        if self.now.since(at) < if changed { RATE_CHANGED } else { RATE_EVERY } {
            return;
        }
        self.rate_told = (self.now, uplink);
        let rate = Some(uplink);
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.send_xg(id, Xg { rate, ..Xg::default() });
        }
    }

    /// Asks for more connections where there are few, or where none has what is lacking.
    fn ask_for_peers(&mut self) {
        let enough = self.config.peers_enough;
        let mut useless = Vec::new();
        for (&id, torrent) in &mut self.torrents {
            let peers = || torrent.peers.iter().filter_map(|id| Some((*id, self.peers.get(id)?)));
            if torrent.have.all() {
                // Two that have everything have nothing to say, unless they are ours.
                let done = peers().filter(|(_, peer)| peer.is_stranger() && peer.have.all());
                useless.extend(done.map(|(id, _)| id));
                continue;
            }
            let starving = !torrent.open.none() && peers().all(|(_, peer)| peer.wanted == 0);
            let cap = torrent.caps.connections.filter(|_| !torrent.caps.strangers_only);
            let few = torrent.peers.len() < cap.map_or(enough, |cap| cap.min(enough)) as usize;
            if (few || starving) && !torrent.paused && self.now >= torrent.more_peers_at {
                torrent.more_peers_at = self.now + MORE_PEERS_EVERY;
                self.out.push(Action::MorePeers(id));
            }
        }
        useless.into_iter().for_each(|id| self.close(id, Reason::Useless));
    }
}

/// Window of the rate meters: ten windows a second follow a link, and hold several blocks even at
/// 10 Mbit/s.
const METER: Duration = Duration::from_millis(100);

/// Least time until a piece a source gave away counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// How often our uplink is told.
const RATE_EVERY: Duration = Duration::from_secs(5);

/// The same, if it has changed by more than a quarter.
const RATE_CHANGED: Duration = Duration::from_millis(500);

/// How often more peers are asked for.
const MORE_PEERS_EVERY: Duration = Duration::from_secs(1);
