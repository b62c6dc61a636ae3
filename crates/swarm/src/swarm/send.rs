//! The sending side: who may ask, for how much, for how long.
//!
//! A slot is a grant that is not over. There are few, so what a sender has begun it finishes soon
//! and the next node can pass it on; there is more than one, so the wire does not wait for the
//! round trip between the end of a grant and the requests of the next.
//!
//! Tried in `crates/sim`: makespan / ideal at 8 | 32 clients, the worse of seeds 1 and 2, ideal
//! network; in parentheses with control messages that queue behind data.
//!
//! | slots, pieces in flight | 256 pieces | 1000 pieces |
//! |---|---|---|
//! | 4, 6 | 1.026, 1.038 (1.040, 1.141) | 1.015, 1.017 (1.024, 1.122) |
//! | 5, 7 | 1.020, 1.037 (1.037, 1.081) | 1.008, 1.012 (1.019, 1.049) |
//! | 6, 9 | 1.023, 1.046 (1.032, 1.075) | 1.007, 1.012 (1.011, 1.039) |
//! | 8, 12 | 1.036, 1.045 (1.026, 1.063) | 1.010, 1.014 (1.009, 1.030) |
//! | 8, 14 | (1.031, 1.080) | (1.009, 1.090) |
//! | 8, 16 | 1.034, 1.055 (1.031, 1.074) | 1.011, 1.014 (1.009, 1.095) |
//!
//! 8, 12 was chosen for the figures in parentheses, and because on limited links, where a grant is
//! answered after a piece time or more, fewer leave the link idle: 8 clients with 256 pieces took 1.14
//! with 5, 7, 1.09 with 8, 12 and 1.06 to 1.08 with 8, 16. Since pieces are passed on while they come in, more
//! in flight cost nothing, and few cost all where a reply takes several piece times: 32 clients with 1024
//! pieces of 64 KiB (`sim --lab`'s room) took 1.49 with 8, 12 and 1.04 with 8, 18, which is what there is now.
//!
//! Tried since: 9, 12 and as many more as pass while a grant is answered. Simulated, 32 clients with 1000 pieces
//! and control in band went from 1.103 to 1.037, and mixed links in the lab's room from 1.075 to 1.030. In the
//! lab 8 clients of which one has a slow uplink took 1.060 to 1.161, median 1.11 of six runs, with 8, 18 1.059 to
//! 1.133, median 1.098 of five; mixed links 1.15, 1.167; 32 clients 1.109 to 1.127, 1.133. Not taken, as the lab
//! shows no gain.
//!
//! A refinement that helped: a grant nobody took up counts as less than a slot, but not as less than half of
//! one. Two slots until four pieces are given out helped before pieces were passed on as they come, and are
//! gone: 8 | 32 clients of `sim --lab` took 1.022, 1.086 with them, and 1.018, 1.065 without. Without effect:
//! no grant beyond what the receiver lacks; serving the oldest grant first instead of taking turns (a little
//! worse at 32); more slots while the link is not used. Extra slots for receivers with empty hands help only
//! where feedback is late, and cost 0.005 where it is not.

use super::inject::Injection;
use super::peer::{Grant, Kind, Peer};
use super::receive::STRANGER_STALL;
use super::torrent::{State, Torrent, UNIT};
use super::{Action, PeerId, Swarm, TorrentId};
use crate::time::Time;
use crate::wire::Message;
use crate::wire::extension::{self, Xg};
use alloc::vec::Vec;
use core::time::Duration;

impl Swarm {
    /// Gives turns out until all slots are used or nobody wants one.
    pub(super) fn fill_slots(&mut self) {
        while self.slots_filled() < self.slots() * CERTAIN
            && let Some(id) = self.next_receiver()
        {
            self.grant(id);
        }
    }

    /// The slots in use, in parts of [`CERTAIN`]: a grant nobody has asked for yet counts as much as
    /// it is likely to be used. Interest is stale by a round trip, so several senders answer the
    /// same wish, and only one of them is taken up. One whose bytes the peer does not take leaves
    /// the wire to others, and counts nothing: who does not read must not keep them out.
    fn slots_filled(&self) -> u32 {
        let idle = self.idle_after();
        let weight = |grant: &Grant| match grant.requested {
            _ if self.now.since(grant.progress) > idle => 0,
            0 => self.likely.max(LIKELY_MIN),
            _ => CERTAIN,
        };
        // The turns of crowds have a bound of their own, and keep none from others.
        let crowds = self.crowds();
        let filled = |strangers: bool| -> u32 {
            let peers = self.peers.values().filter(|peer| peer.is_stranger() == strangers);
            let peers = peers.filter(|peer| !crowds.iter().any(|crowd| crowd.has(peer)));
            peers.flat_map(|peer| &peer.grants).map(weight).sum()
        };
        let strangers = filled(true);
        // Their turns are long, and last for minutes if they are slow: they keep no more than half from ours.
        let most = if self.own_lack() { self.slots() * CERTAIN / 2 } else { strangers };
        filled(false) + strangers.min(most)
    }

    /// Whether one of our own nodes lacks something.
    fn own_lack(&self) -> bool {
        self.peers.values().any(|peer| peer.is_own() && !peer.have.all())
    }

    /// How long a grant may be without progress and still be taken for one that uses the wire: on a
    /// slow one the others have their turns in between.
    fn idle_after(&self) -> Duration {
        let turn = TURN * 1_000_000_000 / self.uplink().max(1);
        let all = Duration::from_nanos(turn).saturating_mul(TURNS);
        if self.uplink() == 0 { IDLE } else { IDLE.max(all) }
    }

    /// Slots of this node: more for a faster uplink than others have, and enough that a round trip
    /// is not felt.
    fn slots(&self) -> u32 {
        let (own, crowds) = (self.uplink(), self.crowds());
        let counts = |peer: &&Peer| peer.is_own() && !crowds.iter().any(|crowd| crowd.has(peer));
        let mut rates: Vec<u64> =
            self.peers.values().filter(counts).map(|peer| peer.rate).collect();
        rates.retain(|&rate| rate > 0);
        rates.sort_unstable();
        let median = rates.get(rates.len() / 2).copied().unwrap_or(own).max(1);
        let base = u64::from(self.config.slots);
        let scaled = if own == 0 { base } else { (base * own).div_ceil(median) };
        // Whoever has little to give does not know yet how fast it could.
        let early = self.torrents.values().all(|torrent| match &torrent.injection {
            Some(injection) => injection.given() < SETTLED && !injection.is_over(),
            None => torrent.have.count() < SETTLED && !torrent.have.all(),
        });
        let scaled = if early { scaled.min(base) } else { scaled };
        let smallest = self.torrents.values().map(|torrent| torrent.piece_len).min();
        let in_a_reply = self.reply.as_nanos() * u128::from(own)
            / u128::from(smallest.unwrap_or(u32::MAX))
            / 1_000_000_000;
        let for_reply = u64::try_from(in_a_reply).unwrap_or(0);
        u32::try_from(scaled.clamp(1, SLOTS_MAX) + for_reply.min(SLOTS_MAX)).unwrap_or(1)
    }

    /// Who gets the next turn.
    fn next_receiver(&self) -> Option<PeerId> {
        let crowded = self.strangers_crowd();
        let crowds = self.crowds();
        let waiting = |(&id, peer): (&PeerId, &Peer)| {
            if crowded && peer.is_stranger() {
                return None;
            }
            let torrent = self.torrents.get(&peer.torrent)?;
            let crowd = crowds.iter().find(|crowd| crowd.has(peer));
            if crowd.is_some_and(|crowd| crowd.turns >= GRANTS_PER_PEER) {
                return None;
            }
            let rank = (crowd.is_some(), self.receiver_rank(peer, torrent)?);
            Some((torrent.virtual_time, peer.torrent, rank, id))
        };
        self.peers.iter().filter_map(waiting).min().map(|(.., id)| id)
    }

    /// Machines with several nodes about one torrent, beside which others lack something: they
    /// have the turns of one, after those who have one, and keep no slot from them. Without that
    /// somebody who opens hundreds, under as many names, took the turns of all: with a tenth of a link
    /// he made eight clients wait 2.6 times as long. One slot for him was too many: a node that served
    /// him alone for a while learnt from him that its uplink is slow, and then had no other.
    pub(super) fn crowds(&self) -> Vec<Crowd> {
        let place = |p: &Peer| Some((p.torrent, p.machine?, p.node, p.grants.len()));
        let mut places: Vec<_> = self.peers.values().filter_map(place).collect();
        places.sort_unstable();
        type Place = (TorrentId, u64, u64, usize);
        let same = |a: &Place, b: &Place| (a.0, a.1) == (b.0, b.1);
        // A node that has come back may have a connection that is not known to be lost yet.
        let many = |places: &&[Place]| places[0].2 != places[places.len() - 1].2;
        let many = places.chunk_by(same).filter(many);
        let crowds = many.map(|places| Crowd {
            torrent: places[0].0,
            machine: places[0].1,
            turns: places.iter().map(|(.., turns)| turns).sum(),
        });
        let lacks = |crowd: &Crowd, peer: &Peer| {
            peer.torrent == crowd.torrent && !crowd.has(peer) && !peer.have.all()
        };
        crowds.filter(|crowd| self.peers.values().any(|peer| lacks(crowd, peer))).collect()
    }

    /// Whether strangers have their half of the slots.
    fn strangers_crowd(&self) -> bool {
        let idle = self.idle_after();
        let moves = |grant: &Grant| self.now.since(grant.progress) <= idle;
        let served = |peer: &&Peer| peer.is_stranger() && peer.grants.iter().any(moves);
        let strangers = self.peers.values().filter(served).count();
        self.own_lack() && strangers >= (self.slots() as usize / 2).max(1)
    }

    /// Who is served first: whoever has fewest turns of ours, then least on its way, then waits
    /// longest. What only a source has goes first to those who can pass it on quickly.
    fn receiver_rank(&self, peer: &Peer, torrent: &Torrent) -> Option<impl Ord + use<>> {
        let may = peer.interested
            && !torrent.paused
            && torrent.has_something()
            && self.now >= peer.snubbed_until
            && match peer.kind {
                Kind::Own { .. } => peer.grants.len() < GRANTS_PER_PEER,
                Kind::Stranger => peer.grants.is_empty(),
                Kind::Unknown(_) => false,
            }
            && !self.must_wait(peer, torrent);
        let injecting = torrent.injection.as_ref().is_some_and(|injection| !injection.is_over());
        let slow = injecting && Self::is_slow(peer.rate, self.uplink());
        let load = if peer.is_stranger() { STRANGER_LOAD } else { peer.load };
        may.then_some((slow, peer.grants.len(), load, peer.waiting_since))
    }

    fn grant(&mut self, id: PeerId) {
        let (now, crowds) = (self.now, self.crowds());
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(torrent) = self.torrents.get_mut(&peer.torrent) else { return };
        let piece_len = u64::from(torrent.piece_len);
        let crowded = crowds.iter().any(|crowd| crowd.has(peer));
        peer.waiting_since = now;
        self.slots_used += 1;
        self.totals.granted += 1;
        let (bytes, piece, message) = if peer.is_stranger() {
            let quota = (4 * piece_len).max(self.up.rate.saturating_mul(2));
            (quota, None, Some(Message::Unchoke))
        } else {
            // What only a source has is not left to one of many names: it chooses among the rest.
            let piece = if crowded { None } else { torrent.inject(id, &peer.have, now) };
            let bytes = piece.map_or(piece_len, |piece| u64::from(torrent.size(piece)));
            (bytes, piece, None)
        };
        peer.last_request = now;
        peer.grants.push_back(Grant::new(bytes, piece, now));
        let torrent_id = peer.torrent;
        self.charge(torrent_id, bytes);
        match message {
            Some(unchoke) => {
                self.out.push(Action::Allow(id, u64::MAX));
                self.send(id, unchoke);
            }
            None => {
                self.out.push(Action::Allow(id, bytes));
                let grant = Some(extension::Grant { bytes, piece });
                self.send_xg(id, Xg { grant, ..Xg::default() });
            }
        }
    }

    /// Moves a torrent's clock on: it is slower the more its peers lack.
    fn charge(&mut self, id: TorrentId, bytes: u64) {
        let Some(torrent) = self.torrents.get_mut(&id) else { return };
        let pieces = u64::from(torrent.pieces());
        let lack: u64 = torrent
            .peers
            .iter()
            .filter_map(|id| self.peers.get(id))
            .map(|peer| pieces - u64::from(peer.have.count()))
            .max()
            .unwrap_or(0);
        let weight = (lack * u64::from(torrent.piece_len)) >> 20;
        torrent.virtual_time += bytes / weight.max(1);
    }

    pub(super) fn on_interested(&mut self, id: PeerId, interested: bool) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.interested = interested;
        self.dirty = true;
        if !interested && peer.is_stranger() && peer.queued == 0 {
            self.revoke(id);
        } else if interested && peer.grants.is_empty() && peer.waiting_since == Time(0) {
            peer.waiting_since = now;
        }
    }

    pub(super) fn on_requested(&mut self, id: PeerId, piece: u32, bytes: u64) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.queued += bytes;
        peer.last_request = now;
        let mut left = bytes;
        for grant in &mut peer.grants {
            let part = grant.unrequested().min(left);
            if part > 0 {
                if grant.requested == 0 && peer.lapses > 0 && now.since(grant.issued) < REPLY {
                    peer.lapses -= 1;
                }
                if grant.requested == 0 && matches!(peer.kind, Kind::Own { .. }) {
                    // Eighths, as TCP smooths its round-trip time (RFC 6298).
                    self.reply = (self.reply * 7 + now.since(grant.issued)) / 8;
                }
                if grant.requested == 0 {
                    self.likely = (self.likely * 15 + CERTAIN) / 16;
                }
                grant.requested += part;
                grant.asked = Some(piece);
                grant.progress = now;
                left -= part;
            }
        }
    }

    /// The peer will not use so much of what it was granted.
    pub(super) fn on_unused(&mut self, id: PeerId, bytes: u64) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut left = bytes;
        let mut lost = None;
        for grant in &mut peer.grants {
            let part = grant.unrequested().min(left);
            grant.unused += part;
            left -= part;
            if part > 0 && grant.requested == 0 {
                self.likely = self.likely * 15 / 16;
                lost = grant.piece;
                // It had no use for a turn now, and would have none for the next: let others go first.
                peer.waiting_since = now;
                peer.snubbed_until = now + self.reply.clamp(DECLINED_LEAST, SNUB);
            }
        }
        if let (Some(piece), Some(torrent)) = (lost, self.torrents.get_mut(&peer.torrent))
            && let Some(injection) = &mut torrent.injection
            && !peer.have.has(piece)
        {
            injection.lose(piece);
        }
        self.end_grants(id);
    }

    /// Bytes left the queue: `sent` to the socket, or dropped.
    pub(super) fn on_served(&mut self, id: PeerId, bytes: u64, sent: bool) {
        if sent {
            self.totals.sent += bytes;
            self.up.add(bytes);
        }
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.queued = peer.queued.saturating_sub(bytes);
        peer.sent += if sent { bytes } else { 0 };
        let mut left = bytes;
        for grant in &mut peer.grants {
            let part = (grant.requested - grant.served).min(left);
            if part > 0 {
                grant.served += part;
                grant.progress = now;
                left -= part;
            }
        }
        self.end_grants(id);
    }

    /// Frees the slots of grants that are over.
    fn end_grants(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let before = peer.grants.len();
        peer.grants.retain(|grant| !grant.is_over());
        let ended = before - peer.grants.len();
        if ended == 0 {
            return;
        }
        self.dirty = true;
        // A peer has a handful of grants.
        self.slots_used -= ended as u32;
        if peer.is_stranger() && peer.grants.is_empty() {
            self.renew_or_choke(id);
        }
    }

    /// A stranger has used its turn: another one if nobody waits.
    fn renew_or_choke(&mut self, id: PeerId) {
        let now = self.now;
        let others_wait = self.next_receiver().is_some_and(|next| next != id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if others_wait || !peer.interested {
            peer.waiting_since = now;
            peer.queued = 0;
            self.send(id, Message::Choke);
            self.out.push(Action::Deny(id));
        } else {
            let mut grant = Grant::new((peer.queued + 4 * u64::from(UNIT)).max(1 << 20), None, now);
            grant.requested = peer.queued;
            peer.grants.push_back(grant);
            self.slots_used += 1;
        }
    }

    /// Takes back all that `id` was granted and has not been sent.
    pub(super) fn revoke(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.grants.is_empty() {
            return;
        }
        // A peer has a handful of grants.
        self.slots_used -= peer.grants.len() as u32;
        self.totals.revoked += peer.grants.len() as u64;
        self.dirty = true;
        let pieces: Vec<u32> = peer.grants.drain(..).filter_map(|grant| grant.piece).collect();
        peer.queued = 0;
        if let Some(torrent) = self.torrents.get_mut(&peer.torrent)
            && let Some(injection) = &mut torrent.injection
        {
            pieces.into_iter().filter(|&p| !peer.have.has(p)).for_each(|p| injection.lose(p));
        }
        if peer.is_stranger() {
            self.send(id, Message::Choke);
        } else {
            let grant = Some(extension::Grant { bytes: 0, piece: None });
            self.send_xg(id, Xg { grant, ..Xg::default() });
        }
        self.out.push(Action::Deny(id));
    }

    /// Takes back grants that nobody asks for, or whose bytes the peer does not take.
    pub(super) fn revoke_lapsed(&mut self) {
        let now = self.now;
        let mut lapsed = Vec::new();
        for (&id, peer) in &self.peers {
            let Some(torrent) = self.torrents.get(&peer.torrent) else { continue };
            let stall = self.stall_after(torrent.piece_len);
            let stall = if peer.is_own() { stall } else { stall.max(STRANGER_STALL) };
            // Doubled at each lapse: a slow peer hears of its grants behind what it is being sent.
            let reply = (self.reply * 4).max(REPLY).max(self.piece_time(torrent.piece_len) * 2)
                * (1 << peer.lapses.min(LAPSES_MAX));
            let stuck = |grant: &Grant| now.since(grant.progress) > stall;
            let silent = match peer.kind {
                Kind::Own { .. } => peer.grants.back().is_some_and(|grant| {
                    grant.requested == 0 && now.since(grant.issued) > reply.min(stall)
                }),
                _ => peer.queued == 0 && now.since(peer.last_request) > STRANGER_REPLY,
            };
            if !peer.grants.is_empty() && (silent || peer.grants.iter().any(stuck)) {
                lapsed.push(id);
            }
        }
        for id in lapsed {
            self.revoke(id);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.lapses += 1;
                peer.snubbed_until = now + SNUB;
            }
        }
    }

    /// Shows a stranger what an injecting source would give it next, and nothing else: it cannot
    /// ask for what another node has got already. Afterwards shows everything.
    pub(super) fn reveal(&mut self, id: PeerId) {
        let now = self.now;
        let Some(peer) = self.peers.get(&id) else { return };
        // What hundreds of one machine are shown would be kept from all others.
        let same = self.connections_of(peer).unwrap_or_else(|| alloc::vec![id]);
        let Some(torrent) = self.torrents.get_mut(&peer.torrent) else { return };
        if torrent.injection.is_none() || !peer.is_stranger() {
            return;
        }
        let ahead = AHEAD.max(self.up.rate / 50 / u64::from(torrent.piece_len));
        let shown = |injection| same.iter().map(|&id| Injection::on_way_to(injection, id)).sum();
        let shown: u64 = torrent.injection.as_ref().map_or(0, shown);
        let mut pieces = Vec::new();
        for _ in shown..ahead {
            pieces.extend(torrent.inject(id, &peer.have, now));
        }
        for piece in pieces {
            self.send(id, Message::Have(piece));
        }
    }

    /// Whether an uplink is less than half of another, as far as it is known; in bytes a second.
    pub(super) fn is_slow(uplink: u64, other: u64) -> bool {
        uplink > 0 && uplink.saturating_mul(2) < other
    }

    /// Who is about the same torrent and on the same machine, `peer` among them, if that is known.
    pub(super) fn connections_of(&self, peer: &Peer) -> Option<Vec<PeerId>> {
        let machine = peer.machine?;
        let same = |other: &Peer| other.machine == Some(machine) && other.torrent == peer.torrent;
        let same = self.peers.iter().filter(|(_, other)| same(other));
        Some(same.map(|(&id, _)| id).collect())
    }

    /// Looks whether there was something to send for so long that our uplink is known.
    ///
    /// Who is at the end of every chain is asked for nothing, and must not be taken for slow: then it gets
    /// nothing first, has nothing to give, and is never asked.
    pub(super) fn prove_uplink(&mut self) {
        let waits = |torrent: &Torrent, grant: &Grant| {
            let Some(piece) = grant.asked else { return false };
            let left = grant.requested - grant.served;
            let to_come = torrent.active.get(&piece).map_or(0, |active| {
                u64::from(active.units.len() - active.units.count()) * u64::from(UNIT)
            });
            let whole = torrent.states.get(piece as usize) != Some(&State::Missing);
            left > 0 && (whole || torrent.active.contains_key(&piece) && left > to_come + WAITING)
        };
        let busy = self.peers.values().any(|peer| {
            let torrent = self.torrents.get(&peer.torrent);
            torrent.is_some_and(|torrent| peer.grants.iter().any(|grant| waits(torrent, grant)))
        });
        self.busy = busy.then(|| self.busy.unwrap_or(self.now));
        self.proven |= self.busy.is_some_and(|since| self.now.since(since) >= PROVEN);
    }

    /// Our uplink in bytes a second for others to know, or 0 if it may well be more than was asked of it.
    pub(super) fn uplink_to_tell(&self) -> u64 {
        if self.config.uplink > 0 || self.proven { self.uplink() } else { 0 }
    }

    /// Our uplink in bytes a second as far as we know it, or 0.
    #[must_use]
    pub fn uplink(&self) -> u64 {
        if self.config.uplink > 0 { self.config.uplink } else { self.up.peak }
    }
}

/// A machine with several connections about one torrent.
pub(super) struct Crowd {
    torrent: TorrentId,
    machine: u64,
    /// That all of them have together.
    turns: usize,
}

impl Crowd {
    pub(super) fn has(&self, peer: &Peer) -> bool {
        peer.machine == Some(self.machine) && peer.torrent == self.torrent
    }
}

/// As long as a node has given or got fewer pieces, it does not take itself for faster than others.
const SETTLED: u32 = 32;

/// Something to send for so long fills some windows of the meter.
const PROVEN: Duration = Duration::from_millis(300);

/// Bytes of a piece that comes in have to wait for our uplink, and are not only on their way through.
const WAITING: u64 = 4 * UNIT as u64;

/// What a grant counts at the least: so there are never more than twice as many as slots. Where all declined
/// for a while, and then nobody does, eight times as many were a backlog of eight seconds on a slow link.
const LIKELY_MIN: u32 = CERTAIN / 2;

/// A grant without progress for so long does not use the wire, unless that is very slow.
const IDLE: Duration = Duration::from_secs(1);

/// Bytes that are handed to a socket at a time.
const TURN: u64 = 1 << 20;

/// Turns of others between two of one peer: three times as many as there are slots.
const TURNS: u32 = 16;

/// What a grant counts that was taken up.
const CERTAIN: u32 = 256;

/// More slots than this are not needed for any difference of uplinks.
const SLOTS_MAX: u64 = 64;

/// Turns one peer may have of us: with a single receiver they hide the round trip.
const GRANTS_PER_PEER: usize = 2;

/// How a stranger ranks among our nodes, which say how full their hands are.
const STRANGER_LOAD: u8 = 96;

/// Least time our own nodes have to ask for what they were granted.
const REPLY: Duration = Duration::from_millis(50);

/// Time strangers have: Transmission asks 0.6 to 1.0 s after an unchoke.
const STRANGER_REPLY: Duration = Duration::from_secs(3);

/// Who let a grant lapse gets none for that long.
const SNUB: Duration = Duration::from_millis(250);

/// Who declines a grant gets none for a round trip, and at least for that long. It may want what we have
/// and be allowed nothing of it, being nearer to its source; without this it was asked again at once,
/// hundreds of times a second.
const DECLINED_LEAST: Duration = Duration::from_millis(10);

/// After so many lapses patience doubles no more: the stall of its bytes decides then.
const LAPSES_MAX: u32 = 8;

/// Pieces a stranger is shown ahead of what it has.
const AHEAD: u64 = 4;
