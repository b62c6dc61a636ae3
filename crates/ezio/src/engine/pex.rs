//! Telling peers of each other (BEP 11): who listens where, whom each was told of, and when.
//!
//! It decides nothing about private torrents: the swarm neither offers nor takes `ut_pex` there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use swarm::swarm::{PeerId, TorrentId};
use swarm::wire::pex::{PEERS_MAX, Pex};

/// The connected peers whose listening addresses are known, or who want to be told of others.
#[derive(Default)]
pub(super) struct Gossip(BTreeMap<PeerId, Partner>);

struct Partner {
    torrent: TorrentId,
    /// Where it is.
    ip: IpAddr,
    /// Where it listens, if it said so or we dialled it.
    listens: Option<SocketAddr>,
    /// The id it wants messages with.
    id: Option<u8>,
    /// Whom it was told of.
    told: BTreeSet<SocketAddr>,
    /// When it may be told again.
    due: Instant,
    /// Not listened to before that time.
    deaf_until: Option<Instant>,
}

/// BEP 11: not more often than once a minute.
const PERIOD: Duration = Duration::from_secs(60);

/// The first message waits until a swarm that starts together is together.
const FIRST: Duration = Duration::from_secs(2);

/// Least time between two messages that are listened to: the period, less what a busy network and
/// other clocks make of it.
const PERIOD_LEAST: Duration = Duration::from_secs(45);

impl Gossip {
    /// `peer`, at `addr`, has said on which port it listens and with which id it wants messages.
    pub(super) fn met(
        &mut self,
        (peer, torrent): (PeerId, TorrentId),
        addr: SocketAddr,
        dialled: bool,
        (id, port): (Option<u8>, Option<u16>),
        now: Instant,
    ) {
        let said = port.filter(|&port| port != 0).map(|port| SocketAddr::new(addr.ip(), port));
        let partner = Partner {
            torrent,
            ip: addr.ip(),
            listens: if dialled { Some(addr) } else { said },
            id,
            told: BTreeSet::new(),
            due: now + FIRST,
            deaf_until: None,
        };
        // A second handshake changes ids, not what was told before.
        let known = self.0.entry(peer).or_insert(partner);
        known.id = id;
    }

    pub(super) fn forget(&mut self, peer: PeerId) {
        self.0.remove(&peer);
    }

    /// Whether what `peer` says now is to be listened to.
    pub(super) fn listen(&mut self, peer: PeerId, now: Instant) -> bool {
        let Some(partner) = self.0.get_mut(&peer) else { return false };
        let deaf = partner.deaf_until.is_some_and(|until| now < until);
        if !deaf {
            partner.deaf_until = Some(now + PERIOD_LEAST);
        }
        !deaf
    }

    /// What is to be said now, to whom and with which id; counted as said.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(PeerId, u8, Pex)> {
        let due = self.0.iter().filter(|(_, p)| p.id.is_some() && p.due <= now).map(|(&id, _)| id);
        let due: Vec<PeerId> = due.collect();
        let mut out = Vec::new();
        for peer in due {
            let others = self.others(peer);
            let Some(partner) = self.0.get_mut(&peer) else { continue };
            let Some(id) = partner.id else { continue };
            let pex = partner.news(&others);
            if !(pex.added.is_empty() && pex.dropped.is_empty()) {
                partner.due = now + PERIOD;
                out.push((peer, id, pex));
            }
        }
        out
    }

    /// Whom `peer` can be told of: an address that only this machine knows is of use only to who is
    /// here as well.
    fn others(&self, peer: PeerId) -> BTreeSet<SocketAddr> {
        let Some(to) = self.0.get(&peer) else { return BTreeSet::new() };
        let others = self.0.values().filter(|other| other.torrent == to.torrent);
        let listen = others.filter_map(|other| other.listens);
        let fits = |addr: &SocketAddr| {
            Some(*addr) != to.listens && addr.ip().is_loopback() == to.ip.is_loopback()
        };
        listen.filter(fits).collect()
    }
}

impl Partner {
    /// What has changed since the last message, as much as fits in one.
    fn news(&mut self, others: &BTreeSet<SocketAddr>) -> Pex {
        let added: Vec<_> = others.difference(&self.told).copied().take(PEERS_MAX).collect();
        let dropped: Vec<_> = self.told.difference(others).copied().take(PEERS_MAX).collect();
        self.told.extend(&added);
        self.told.retain(|addr| !dropped.contains(addr));
        Pex { added, dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: TorrentId = TorrentId(0);

    fn addr(number: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 6881))
    }

    fn meet(gossip: &mut Gossip, number: u16, torrent: TorrentId, now: Instant) -> PeerId {
        let peer = PeerId(number.into());
        gossip.met((peer, torrent), addr(number), false, (Some(7), Some(6881)), now);
        peer
    }

    fn told(said: &[(PeerId, u8, Pex)], to: PeerId) -> Option<&Pex> {
        said.iter().find(|(peer, ..)| *peer == to).map(|(.., pex)| pex)
    }

    #[test]
    fn each_is_told_of_the_others_of_its_torrent_once() {
        let (mut gossip, now) = (Gossip::default(), Instant::now());
        let a = meet(&mut gossip, 1, T, now);
        meet(&mut gossip, 2, T, now);
        meet(&mut gossip, 3, TorrentId(1), now);
        assert!(gossip.due(now).is_empty(), "others may come in a moment");
        let said = gossip.due(now + FIRST);
        assert_eq!(said.len(), 2, "the third has nobody to hear of: {said:?}");
        assert_eq!(told(&said, a).unwrap().added, [addr(2)]);
        assert!(gossip.due(now + PERIOD * 3).is_empty());
    }

    #[test]
    fn news_come_once_a_minute_and_fifty_at_a_time() {
        let (mut gossip, now) = (Gossip::default(), Instant::now());
        let first = meet(&mut gossip, 0, T, now);
        for number in 1..=60 {
            meet(&mut gossip, number, T, now);
        }
        let now = now + FIRST;
        assert_eq!(told(&gossip.due(now), first).unwrap().added.len(), 50);
        assert!(gossip.due(now + PERIOD / 2).is_empty());
        gossip.forget(PeerId(1));
        let said = gossip.due(now + PERIOD);
        let pex = told(&said, first).unwrap();
        assert_eq!((pex.added.len(), &pex.dropped[..]), (10, &[addr(1)][..]));
    }

    #[test]
    fn who_talks_too_often_is_not_listened_to() {
        let (mut gossip, now) = (Gossip::default(), Instant::now());
        let peer = meet(&mut gossip, 1, T, now);
        assert!(gossip.listen(peer, now) && !gossip.listen(peer, now + PERIOD / 2));
        assert!(gossip.listen(peer, now + PERIOD));
        assert!(!gossip.listen(PeerId(9), now), "it has not introduced itself");
    }

    #[test]
    fn addresses_of_this_machine_stay_on_it() {
        let (mut gossip, now) = (Gossip::default(), Instant::now());
        let far = meet(&mut gossip, 1, T, now);
        let local = SocketAddr::from(([127, 0, 0, 1], 6881));
        gossip.met((PeerId(2), T), local, true, (None, None), now);
        assert!(told(&gossip.due(now + FIRST), far).is_none());
    }
}
