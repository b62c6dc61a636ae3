//! How many connections a torrent may have and how many peers it may serve at a time.
//!
//! By default the swarm decides both. A person's cap binds everybody; a hint, which tools send
//! without being asked, binds strangers only, because a few connections among many of our own nodes
//! make islands. Of the connections that fill a cap those that nobody uses give way to newcomers.

use super::peer::{Kind, Peer};
use super::torrent::Torrent;
use super::{PeerId, Reason, Swarm, TorrentId};
use alloc::vec::Vec;
use core::time::Duration;

/// Bounds of a torrent; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Peers that are served at a time.
    pub uploads: Option<u32>,
    /// Connections.
    pub connections: Option<u32>,
    /// Only strangers are counted and bound, never our own nodes.
    pub strangers_only: bool,
}

impl Caps {
    /// Whether it is about `peer`. Who has not said yet who it is may be one of our own.
    fn binds(self, peer: &Peer) -> bool {
        !self.strangers_only || peer.is_stranger()
    }
}

impl Swarm {
    /// Whether a cap keeps `torrent` from having more connections. A hint never does: whom we would
    /// dial may be one of our own.
    #[must_use]
    pub fn is_full(&self, torrent: TorrentId) -> bool {
        self.torrents.get(&torrent).is_some_and(|torrent| {
            let cap = torrent.caps.connections.filter(|_| !torrent.caps.strangers_only);
            cap.is_some_and(|cap| torrent.peers.len() >= cap as usize)
        })
    }

    pub(super) fn set_caps(&mut self, id: TorrentId, caps: Caps) {
        let Some(torrent) = self.torrents.get_mut(&id) else { return };
        torrent.caps = caps;
        // Who came before the cap did stays first.
        let peers: Vec<PeerId> = torrent.peers.iter().copied().collect();
        for peer in peers.into_iter().rev() {
            if self.is_crowded_by(peer) {
                self.close(peer, Reason::Full);
            }
        }
        self.dirty = true;
    }

    /// Has `id` keep to the bound of connections, now that it is here or known for a stranger: an
    /// idle one goes for it, or it has to go itself.
    pub(super) fn admit(&mut self, id: PeerId) {
        if !self.is_crowded_by(id) {
            return;
        }
        let Some(torrent) = self.peers.get(&id).and_then(|peer| self.torrents.get(&peer.torrent))
        else {
            return;
        };
        let others = torrent.peers.iter().copied().filter(|&other| other != id);
        let mut idle =
            others.filter(|other| self.peers.get(other).is_some_and(|p| self.is_idle(p)));
        let counted = |other: &PeerId| self.peers.get(other).is_some_and(|p| torrent.caps.binds(p));
        let leaves = idle.find(counted).unwrap_or(id);
        self.close(leaves, Reason::Full);
    }

    /// Whether there are more connections than allowed, and `id` is one of those that count. A
    /// second connection of the same node replaces the first, which is not gone yet.
    fn is_crowded_by(&self, id: PeerId) -> bool {
        let Some(peer) = self.peers.get(&id) else { return false };
        let Some(torrent) = self.torrents.get(&peer.torrent) else { return false };
        let Some(cap) = torrent.caps.connections.filter(|_| torrent.caps.binds(peer)) else {
            return false;
        };
        let others = torrent.peers.iter().filter(|&&other| other != id);
        let others = others.filter_map(|other| self.peers.get(other));
        let count = others.filter(|o| o.node != peer.node && torrent.caps.binds(o)).count();
        count >= cap as usize
    }

    /// Neither side wants anything of the other, and both have had the time to say so.
    fn is_idle(&self, peer: &Peer) -> bool {
        let known = !matches!(peer.kind, Kind::Unknown(_));
        known && !peer.interested && peer.wanted == 0 && self.now.since(peer.since) > IDLE_AFTER
    }

    /// Whether a bound of `torrent` keeps `peer` from being served beside those who are. Whoever has
    /// a turn may have another.
    pub(super) fn must_wait(&self, peer: &Peer, torrent: &Torrent) -> bool {
        let Some(cap) = torrent.caps.uploads.filter(|_| torrent.caps.binds(peer)) else {
            return false;
        };
        let peers = torrent.peers.iter().filter_map(|id| self.peers.get(id));
        let served = peers.filter(|p| !p.grants.is_empty() && torrent.caps.binds(p)).count();
        peer.grants.is_empty() && served >= cap as usize
    }
}

/// How long a new connection may be silent: ten times what a slow one takes to say what it has.
const IDLE_AFTER: Duration = Duration::from_secs(5);
