//! Pieces that are whole: verified, announced, stored, kept in memory for a while; or wrong, and
//! whom to blame.

use super::peer::Peer;
use super::torrent::State;
use super::{Action, PeerId, Reason, Swarm, TorrentId};
use crate::wire::Message;
use crate::wire::extension::{Coming, Xg};
use alloc::vec::Vec;
use core::time::Duration;

impl Swarm {
    pub(super) fn on_found(&mut self, id: TorrentId, piece: u32, found: bool) {
        let Some(torrent) = self.torrents.get_mut(&id) else { return };
        if piece >= torrent.pieces() || *torrent.state(piece) != State::Unknown {
            return;
        }
        if found {
            *torrent.state(piece) = State::Stored;
            torrent.stored += 1;
            self.acquire(id, piece);
            self.tell_finished(id);
        } else {
            *torrent.state(piece) = State::Missing;
            self.refresh_open(id, piece);
        }
    }

    pub(super) fn on_verified(&mut self, id: TorrentId, piece: u32, right: bool) {
        let Some(torrent) = self.torrents.get_mut(&id) else { return };
        if piece >= torrent.pieces() || *torrent.state(piece) != State::Verifying {
            return;
        }
        if !right {
            return self.on_wrong(id, piece);
        }
        *torrent.state(piece) = State::Verified;
        torrent.suspects.remove(&piece);
        let active = torrent.active.remove(&piece);
        for source in active.iter().flat_map(|active| &active.sources) {
            if let Some(peer) = self.peers.get_mut(source) {
                peer.right_count += 1;
            }
        }
        self.out.push(Action::Store(id, piece));
        self.acquire(id, piece);
    }

    pub(super) fn on_stored(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.torrents.get_mut(&id) else { return };
        if piece >= torrent.pieces() || *torrent.state(piece) != State::Verified {
            return;
        }
        *torrent.state(piece) = State::Stored;
        torrent.stored += 1;
        torrent.in_flight -= 1;
        self.in_flight -= 1;
        let size = u64::from(torrent.size(piece));
        self.in_flight_bytes -= size;
        self.window.push_back((id, piece));
        self.window_bytes += size;
        self.dirty = true;
        self.make_room();
        self.tell_finished(id);
    }

    pub(super) fn on_unreadable(&mut self, id: TorrentId, piece: u32) {
        self.unstore(id, piece, State::Unreadable);
    }

    /// A source has no other copy to store, so it is asked for nothing.
    pub(super) fn on_spoilt(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.torrents.get(&id) else { return };
        if torrent.injection.is_some() || !self.unstore(id, piece, State::Missing) {
            return;
        }
        let Some(torrent) = self.torrents.get_mut(&id) else { return };
        torrent.finished_told = false;
        let size = u64::from(torrent.size(piece));
        if let Some(place) = self.window.iter().position(|&kept| kept == (id, piece)) {
            self.window.remove(place);
            self.window_bytes -= size;
            self.out.push(Action::Release(id, piece));
        }
        self.refresh_open(id, piece);
    }

    /// Takes a stored piece away and tells our own nodes. Returns whether it was stored.
    fn unstore(&mut self, id: TorrentId, piece: u32, state: State) -> bool {
        let Some(torrent) = self.torrents.get_mut(&id) else { return false };
        if piece >= torrent.pieces() || *torrent.state(piece) != State::Stored {
            return false;
        }
        *torrent.state(piece) = state;
        torrent.stored -= 1;
        torrent.have.remove(piece);
        torrent.news.retain(|&new| new != piece);
        let peers: Vec<PeerId> = torrent.peers.iter().copied().collect();
        for peer in peers {
            if let Some(known) = self.peers.get_mut(&peer) {
                known.useful += u32::from(known.have.has(piece));
            }
            self.send_xg(peer, Xg { lost: Some(piece), ..Xg::default() });
        }
        true
    }

    /// A piece can be served from now on.
    fn acquire(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.torrents.get_mut(&id) else { return };
        torrent.have.insert(piece);
        torrent.news.push(piece);
        for peer in &torrent.peers {
            if let Some(peer) = self.peers.get_mut(peer)
                && peer.have.has(piece)
            {
                peer.useful -= 1;
            }
        }
        self.dirty = true;
        self.announce_soon();
    }

    /// Has [`announce`](Swarm::announce) called when news were gathered for a while.
    pub(super) fn announce_soon(&mut self) {
        let due = self.now + self.config.gather;
        self.news_at = Some(self.news_at.map_or(due, |at| at.min(due)));
    }

    /// Tells our own nodes that what came of a piece is thrown away.
    pub(super) fn retract(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.torrents.get_mut(&id) else { return };
        let Some(active) = torrent.active.get_mut(&piece) else { return };
        if !core::mem::take(&mut active.offered) {
            return;
        }
        let peers: Vec<PeerId> = torrent.peers.iter().copied().collect();
        for peer in peers {
            if self.peers.get(&peer).is_some_and(|peer| !peer.source) {
                self.send_xg(peer, Xg { lost: Some(piece), ..Xg::default() });
            }
        }
    }

    /// Tells peers which pieces came since they were told last, but not those of ours who have them
    /// whole: who only offers a piece may have lost those it came from. Sources and strangers, which
    /// may be sources that show what they have bit by bit, must know what has arrived.
    pub(super) fn announce(&mut self) {
        self.news_at = None;
        let (mut haves, mut offers) = (Vec::new(), Vec::new());
        for torrent in self.torrents.values_mut() {
            for piece in core::mem::take(&mut torrent.arriving) {
                // It may have been thrown away, or be whole, since.
                let Some(active) = torrent.active.get(&piece).filter(|active| active.offered)
                else {
                    continue;
                };
                let coming = Coming { piece, hops: active.hops };
                for &id in &torrent.peers {
                    let wants = |peer: &Peer| peer.is_own() && !peer.have.has(piece);
                    if self.peers.get(&id).is_some_and(wants) {
                        offers.push((id, coming));
                    }
                }
            }
            for piece in core::mem::take(&mut torrent.news) {
                for &id in &torrent.peers {
                    let wants = |peer: &Peer| {
                        let whole = peer.have.has(piece) && peer.hops(piece) == 0;
                        peer.source || peer.is_stranger() || !whole
                    };
                    if self.peers.get(&id).is_some_and(wants) {
                        haves.push((id, piece));
                    }
                }
            }
        }
        for (id, piece) in haves {
            self.send(id, Message::Have(piece));
        }
        for (id, coming) in offers {
            self.send_xg(id, Xg { coming: Some(coming), ..Xg::default() });
        }
        self.dirty = true;
    }

    /// Lets go of the oldest stored pieces in memory until the budget is kept.
    pub(super) fn make_room(&mut self) {
        while self.in_flight_bytes + self.window_bytes > self.config.budget
            && let Some((id, piece)) = self.window.pop_front()
        {
            if let Some(torrent) = self.torrents.get(&id) {
                self.window_bytes -= u64::from(torrent.size(piece));
                self.out.push(Action::Release(id, piece));
            }
        }
    }

    /// Forgets a torrent without connections and its claims on memory.
    pub(super) fn drop_torrent(&mut self, id: TorrentId) {
        let Some(torrent) = self.torrents.remove(&id) else { return };
        self.in_flight -= torrent.in_flight;
        let (mut flying, mut kept) = (0, 0);
        for (piece, state) in (0..).zip(&torrent.states) {
            let held = *state == State::Verified || torrent.active.contains_key(&piece);
            flying += if held { u64::from(torrent.size(piece)) } else { 0 };
        }
        self.window.retain(|&(of, piece)| {
            kept += if of == id { u64::from(torrent.size(piece)) } else { 0 };
            of != id
        });
        self.in_flight_bytes -= flying;
        self.window_bytes -= kept;
        self.dirty = true;
    }

    /// A piece was wrong. From one source: that one is to blame. From several: it is fetched again
    /// whole from one, and then it is clear.
    fn on_wrong(&mut self, id: TorrentId, piece: u32) {
        self.totals.corrupt += 1;
        self.retract(id, piece);
        let Some(torrent) = self.torrents.get_mut(&id) else { return };
        *torrent.state(piece) = State::Missing;
        let Some(active) = torrent.active.get(&piece) else { return };
        let sources: Vec<PeerId> = active.sources.iter().copied().collect();
        let relayed = active.hops > 1;
        torrent.suspects.insert(piece);
        self.retire(id, piece);
        self.out.push(Action::Discard(id, piece));
        self.refresh_open(id, piece);
        if relayed {
            // Who passed it on could not know, and will say so when it has the piece. Next time it
            // comes from a node that has verified it.
            return self.lose_offers(id, piece);
        }
        if let [source] = sources[..] {
            self.blame(source, piece);
        }
    }

    /// Forgets all offers of `piece` as it comes in.
    fn lose_offers(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.torrents.get(&id) else { return };
        let offers = |peer: &PeerId| self.peers.get(peer).is_some_and(|peer| peer.hops(piece) > 0);
        let peers: Vec<PeerId> = torrent.peers.iter().copied().filter(offers).collect();
        peers.into_iter().for_each(|peer| self.lose(peer, piece));
    }

    /// `id` alone sent a wrong piece. It is not asked for that one for a while, as it may be the
    /// only one who has it and its memory may err only sometimes. A disk that has rotted here and
    /// there is good for the rest; whose pieces are wrong one after the other is left alone.
    fn blame(&mut self, id: PeerId, piece: u32) {
        self.lose(id, piece);
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(torrent) = self.torrents.get_mut(&peer.torrent) else { return };
        if torrent.wrong.len() >= WRONG_MAX {
            // Somebody comes as somebody else each time.
            torrent.wrong.pop_first();
        }
        let (until, times) = torrent.wrong.entry((peer.node, piece)).or_default();
        *until = now + BAD_FOR * (1 << (*times).min(BAD_DOUBLED));
        *times += 1;
        peer.bad_count += u32::from(*times == 1);
        peer.bad.insert(piece, (*until, true));
        let too_bad = peer.bad_count >= BAD_MAX && peer.bad_count * 4 > peer.right_count;
        let (torrent, own) = (peer.torrent, peer.is_own());
        self.out.push(Action::Wrong(torrent, id, piece));
        if own {
            self.send_xg(id, Xg { wrong: Some(piece), ..Xg::default() });
        }
        if too_bad {
            self.close(id, Reason::Corrupt);
        }
    }

    /// A peer got `piece` from here and found it wrong. That may be a lie, so looking costs no more
    /// than one piece in a while.
    pub(super) fn on_doubt(&mut self, id: PeerId, piece: u32) {
        let Some(peer) = self.peers.get(&id) else { return };
        let Some(torrent) = self.torrents.get_mut(&peer.torrent) else { return };
        let stored = piece < torrent.pieces() && *torrent.state(piece) == State::Stored;
        if stored && self.now >= torrent.recheck_at {
            torrent.recheck_at = self.now + RECHECK_EVERY;
            self.out.push(Action::Recheck(peer.torrent, piece));
        }
    }

    fn tell_finished(&mut self, id: TorrentId) {
        let Some(torrent) = self.torrents.get_mut(&id) else { return };
        if torrent.stored == torrent.pieces() && !torrent.finished_told {
            torrent.finished_told = true;
            self.out.push(Action::Finished(id));
        }
    }
}

/// Different wrong pieces of one peer until it is left alone, unless four times as many were right.
const BAD_MAX: u32 = 3;

/// A wrong piece is not asked for again of the same node for that long, doubled each time.
const BAD_FOR: Duration = Duration::from_secs(1);

/// How often it is doubled: up to four minutes.
const BAD_DOUBLED: u32 = 8;

/// Time between looks at pieces that others have found wrong. Of several at once the others are found
/// when they are asked for again.
const RECHECK_EVERY: Duration = Duration::from_millis(200);

/// Wrong pieces that are remembered of all nodes together.
const WRONG_MAX: usize = 1024;
