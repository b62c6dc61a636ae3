//! The tracker (BEP 3, 7, 23, 24, 48): who has which torrent, and whom to tell about whom.
//!
//! [`Tracker`] is the state and the decisions of ours; what it has to know of the world (time,
//! chance, who asks) comes in with each call. What it says, and what other trackers say to us, is
//! bytes in and values out: [`Announce`] is the question, [`Reply`] our answer, [`Answer`]
//! anybody's.
//!
//! It is made for one owner's LAN: only registered torrents, short intervals, an answer that never
//! leaves a peer without somebody who has data.

mod query;
mod reply;

pub use query::{Announce, Event, QueryError, SCRAPE_MAX, parse_scrape, percent_encode, url};
pub use reply::{
    Answer, AnswerError, Counts, Entry, REPLY_PEERS_MAX, Reply, encode_failure, encode_scrape,
};

use crate::metainfo::Digest;
use crate::networks::Networks;
use crate::random::Random;
use crate::time::Time;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

/// What a tracker grants. Every bound is what a stranger can make it hold.
#[derive(Clone, Debug)]
pub struct Config {
    /// How often peers shall announce.
    pub interval: Duration,
    /// How often they may: a node without anybody to ask does so.
    pub min_interval: Duration,
    /// Peers of one torrent.
    pub torrent_peers_max: usize,
    /// Peers of one torrent at one address. Several are several clients on one machine.
    pub address_peers_max: usize,
    /// Peers of all torrents.
    pub peers_max: usize,
    /// Peers in one answer, whatever is asked for.
    pub numwant_max: u32,
    /// Whom to deal with: others are refused, and told to nobody.
    pub networks: Networks,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            interval: Duration::from_secs(30),
            min_interval: Duration::from_secs(5),
            torrent_peers_max: 4096,
            address_peers_max: 64,
            peers_max: 16_384,
            numwant_max: 200,
            networks: Networks::default(),
        }
    }
}

/// Why a tracker does not answer with peers. The text goes out as `failure reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not [`Tracker::register`]ed.
    #[error("this tracker does not know the torrent")]
    UnknownTorrent,
    /// Outside of [`Config::networks`].
    #[error("this tracker does not serve your network")]
    Network,
    /// More than [`Config::address_peers_max`].
    #[error("too many peers at your address")]
    Address,
    /// More than [`Config::torrent_peers_max`] or [`Config::peers_max`].
    #[error("this tracker is full")]
    Full,
}

/// A peer that shares its process with the tracker. Its address is whatever address of this
/// machine the others reach the tracker at, so it cannot be a wrong one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// Where it listens.
    pub port: u16,
    /// Which program it is; its announces by HTTP are answered, and change nothing.
    pub peer_id: [u8; 20],
    /// Whether it has the whole image.
    pub complete: bool,
}

/// What a tracker knows of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which program it is; `None` if we only heard of it (BEP 14).
    pub peer_id: Option<[u8; 20]>,
    /// Bytes it lacks, if it said so.
    pub left: Option<u64>,
    /// Bytes it sent, as it says.
    pub uploaded: u64,
    /// Bytes it received, as it says.
    pub downloaded: u64,
    /// When it was heard of last.
    pub seen: Time,
    /// The longest silence between two of its announces, after which it was still there.
    gap: Option<Duration>,
}

/// Who has which torrent.
#[derive(Clone, Debug)]
pub struct Tracker {
    config: Config,
    torrents: BTreeMap<Digest, Torrent>,
    /// Peers of all torrents.
    total: usize,
}

#[derive(Clone, Debug, Default)]
struct Torrent {
    own: Option<Own>,
    peers: BTreeMap<SocketAddr, Member>,
    downloaded: u32,
}

impl Tracker {
    /// A tracker of no torrent.
    #[must_use]
    pub fn new(config: Config) -> Tracker {
        Tracker { config, torrents: BTreeMap::new(), total: 0 }
    }

    /// From now on peers may ask for `info_hash`; `own` takes the place of the one before.
    pub fn register(&mut self, info_hash: Digest, own: Option<Own>) {
        self.torrents.entry(info_hash).or_default().own = own;
    }

    /// Forgets a torrent and its peers.
    pub fn unregister(&mut self, info_hash: &Digest) {
        if let Some(torrent) = self.torrents.remove(info_hash) {
            self.total -= torrent.peers.len();
        }
    }

    /// Takes an announce from `remote`, which reached us at our address `local`. `seed` decides
    /// which peers are told if there are more than wanted.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn announce(
        &mut self,
        now: Time,
        announce: &Announce,
        remote: IpAddr,
        local: IpAddr,
        seed: u64,
    ) -> Result<Reply, Refusal> {
        let (remote, local) = (remote.to_canonical(), local.to_canonical());
        if !self.config.networks.allow(remote) {
            return Err(Refusal::Network);
        }
        let torrent = self.torrents.get(&announce.info_hash).ok_or(Refusal::UnknownTorrent)?;
        let is_own = torrent.own.is_some_and(|own| own.peer_id == announce.peer_id);
        let addr = SocketAddr::new(remote, announce.port);
        self.expire(&announce.info_hash, now);
        if announce.event == Event::Stopped {
            self.forget(&announce.info_hash, addr);
        } else if !is_own && can_be_told(addr) {
            self.keep(now, announce, addr)?;
        }
        let asker = Asker { addr, local, is_own };
        // It was there two lines ago.
        let torrent = self.torrents.get(&announce.info_hash).ok_or(Refusal::UnknownTorrent)?;
        Ok(Reply {
            interval: self.config.interval,
            min_interval: self.config.min_interval,
            counts: torrent.counts(),
            peers: torrent.choose(announce, asker, self.config.numwant(announce), seed),
            external_ip: remote,
            compact: announce.compact,
            no_peer_id: announce.no_peer_id,
        })
    }

    /// Tells the tracker of a peer that was found in another way. It is handed out as long as one
    /// that announced once. Nothing happens if the torrent is not known, the peer is not welcome,
    /// or there is no room.
    pub fn introduce(&mut self, now: Time, info_hash: &Digest, addr: SocketAddr) {
        let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        if !self.config.networks.allow(addr.ip()) || !can_be_told(addr) {
            return;
        }
        self.expire(info_hash, now);
        if self.room(info_hash, addr).is_err() {
            return;
        }
        let Some(torrent) = self.torrents.get_mut(info_hash) else { return };
        let member = torrent.peers.entry(addr).or_insert_with(|| {
            self.total += 1;
            Member { peer_id: None, left: None, uploaded: 0, downloaded: 0, seen: now, gap: None }
        });
        member.seen = now;
    }

    /// How many peers the torrents of `wanted` have (all torrents if it is empty), ascending.
    /// Torrents that are not known are left out.
    #[must_use]
    pub fn scrape(&self, wanted: &[Digest]) -> Vec<(Digest, Counts)> {
        let asked = |hash: &Digest| wanted.is_empty() || wanted.contains(hash);
        let found = self.torrents.iter().filter(|(hash, _)| asked(hash));
        found.map(|(hash, torrent)| (*hash, torrent.counts())).collect()
    }

    /// Forgets peers of all torrents that were silent for too long.
    pub fn expire_all(&mut self, now: Time) {
        let hashes: Vec<Digest> = self.torrents.keys().copied().collect();
        for hash in &hashes {
            self.expire(hash, now);
        }
    }

    /// The peers of a torrent without our own.
    pub fn peers(&self, info_hash: &Digest) -> impl Iterator<Item = (SocketAddr, &Member)> {
        let peers = self.torrents.get(info_hash).into_iter().flat_map(|torrent| &torrent.peers);
        peers.map(|(addr, member)| (*addr, member))
    }

    fn keep(&mut self, now: Time, announce: &Announce, addr: SocketAddr) -> Result<(), Refusal> {
        self.room(&announce.info_hash, addr)?;
        let Some(torrent) = self.torrents.get_mut(&announce.info_hash) else {
            return Err(Refusal::UnknownTorrent);
        };
        let before = torrent.peers.get(&addr);
        if announce.event == Event::Completed && before.is_none_or(|b| b.left != Some(0)) {
            torrent.downloaded = torrent.downloaded.saturating_add(1);
        }
        let known = before.filter(|b| b.peer_id == Some(announce.peer_id));
        let gap = known.map(|b| b.gap.unwrap_or_default().max(now.since(b.seen)));
        self.total += usize::from(before.is_none());
        let member = Member {
            peer_id: Some(announce.peer_id),
            left: announce.left,
            uploaded: announce.uploaded,
            downloaded: announce.downloaded,
            seen: now,
            gap,
        };
        torrent.peers.insert(addr, member);
        Ok(())
    }

    /// Whether a peer at `addr` is known already, or fits in.
    fn room(&self, info_hash: &Digest, addr: SocketAddr) -> Result<(), Refusal> {
        let torrent = self.torrents.get(info_hash).ok_or(Refusal::UnknownTorrent)?;
        if torrent.peers.contains_key(&addr) {
            return Ok(());
        }
        let ports = SocketAddr::new(addr.ip(), 0)..=SocketAddr::new(addr.ip(), u16::MAX);
        if torrent.peers.range(ports).count() >= self.config.address_peers_max {
            return Err(Refusal::Address);
        }
        let full = torrent.peers.len() >= self.config.torrent_peers_max;
        if full || self.total >= self.config.peers_max { Err(Refusal::Full) } else { Ok(()) }
    }

    fn forget(&mut self, info_hash: &Digest, addr: SocketAddr) {
        let Some(torrent) = self.torrents.get_mut(info_hash) else { return };
        self.total -= usize::from(torrent.peers.remove(&addr).is_some());
    }

    fn expire(&mut self, info_hash: &Digest, now: Time) {
        let Some(torrent) = self.torrents.get_mut(info_hash) else { return };
        let (before, interval) = (torrent.peers.len(), self.config.interval);
        torrent.peers.retain(|_, member| now.since(member.seen) <= member.patience(interval));
        self.total -= before - torrent.peers.len();
    }
}

impl Config {
    /// How many peers an announce gets at the most.
    fn numwant(&self, announce: &Announce) -> usize {
        let wanted = announce.numwant.unwrap_or(NUMWANT_DEFAULT).min(self.numwant_max);
        if announce.event == Event::Stopped { 0 } else { wanted as usize }
    }
}

impl Member {
    /// How long it may be silent before it counts as gone. Some clients announce when they are
    /// asked to, others (libtorrent) not before five minutes have passed; so three times the
    /// longest silence that proved to be none, and much for those of whom we know too little.
    fn patience(&self, interval: Duration) -> Duration {
        self.gap.map_or(PATIENCE_MAX, |gap| {
            (gap * 3).clamp((interval * 3).min(PATIENCE_MAX), PATIENCE_MAX)
        })
    }
}

/// Who announces.
#[derive(Clone, Copy)]
struct Asker {
    addr: SocketAddr,
    /// Where it reached us.
    local: IpAddr,
    is_own: bool,
}

impl Torrent {
    fn counts(&self) -> Counts {
        let complete = self.peers.values().filter(|member| member.left == Some(0)).count();
        let incomplete = self.peers.len() - complete;
        let own = |complete| usize::from(self.own.is_some_and(|own| own.complete == complete));
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Counts {
            complete: number(complete + own(true)),
            incomplete: number(incomplete + own(false)),
            downloaded: self.downloaded,
        }
    }

    /// `numwant` peers that can do something for the asker: our own first, then one that has
    /// everything, so that no answer leads into a clique without data; then chance.
    fn choose(&self, announce: &Announce, asker: Asker, numwant: usize, seed: u64) -> Vec<Entry> {
        let complete = announce.left == Some(0);
        let mut chosen: Vec<Entry> = Vec::new();
        let useless = |own: &Own| asker.is_own || (own.complete && complete);
        if let Some(own) = self.own.filter(|own| !useless(own)) {
            let addr = SocketAddr::new(asker.local, own.port);
            if can_be_told(addr) {
                chosen.push(Entry { addr, peer_id: Some(own.peer_id) });
            }
        }
        let mut rest: Vec<(&SocketAddr, &Member)> = self
            .peers
            .iter()
            .filter(|(addr, _)| **addr != asker.addr && can_reach(asker.addr.ip(), addr.ip()))
            .filter(|(_, member)| member.peer_id != Some(announce.peer_id))
            .filter(|(_, member)| !(complete && member.left == Some(0)))
            .collect();
        let mut random = Random::new(seed);
        let mut sorted = 0;
        let sources: Vec<usize> =
            (0..rest.len()).filter(|index| rest[*index].1.left == Some(0)).collect();
        if !sources.is_empty() {
            // Below the length of a vector, so it fits.
            rest.swap(0, sources[random.below(sources.len() as u64) as usize]);
            sorted = 1;
        }
        for index in sorted..rest.len().min(numwant) {
            let other = index + random.below((rest.len() - index) as u64) as usize;
            rest.swap(index, other);
        }
        let entry = |&(addr, member): &(&SocketAddr, &Member)| Entry {
            addr: *addr,
            peer_id: member.peer_id,
        };
        chosen.extend(rest.iter().map(entry));
        chosen.truncate(numwant);
        chosen
    }
}

/// Peers told to those that do not say how many they want (BEP 3 suggests it).
const NUMWANT_DEFAULT: u32 = 50;

/// Silence after which anybody counts as gone: three announces of a libtorrent that keeps its five
/// minutes.
const PATIENCE_MAX: Duration = Duration::from_mins(15);

/// Whether anybody could connect to `addr` if told. Port 0 is nowhere, and an address that is
/// valid on one link only needs the link's name, for which answers have no room.
fn can_be_told(addr: SocketAddr) -> bool {
    let local = matches!(addr.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
    addr.port() != 0 && !local
}

/// Whether somebody at `from` means by `to` what the tracker means by it.
fn can_reach(from: IpAddr, to: IpAddr) -> bool {
    from.is_loopback() || !to.is_loopback()
}

#[cfg(test)]
mod tests;
