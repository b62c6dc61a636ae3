//! What must always be true. Broken, it is a bug here, not a peer's: the node stops.

use super::torrent::{Active, State, Torrent};
use super::{PeerId, Swarm};
use alloc::vec::Vec;

impl Swarm {
    /// Recounts everything that is kept as a count, for simulators and tests: it looks at every
    /// piece and peer, so it is too slow for each event of a real node.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn check_invariants(&self) {
        let (mut in_flight, mut bytes, mut grants) = (0, 0, 0);
        for torrent in self.torrents.values() {
            in_flight += torrent.in_flight;
            bytes += self.check_torrent(torrent);
        }
        for (id, peer) in &self.peers {
            let torrent = self.torrents.get(&peer.torrent).expect("a peer's torrent is known");
            assert!(torrent.peers.contains(id), "{id:?} is not among its torrent's peers");
            assert_eq!(peer.wanted, torrent.open.count_both(&peer.have), "wanted of {id:?}");
            let got = torrent.have.count_both(&peer.have);
            assert_eq!(peer.useful, peer.have.count() - got, "useful of {id:?}");
            grants += peer.grants.len();
        }
        assert_eq!(self.slots_used as usize, grants, "slots in use");
        assert_eq!(self.in_flight, in_flight, "pieces in flight");
        assert_eq!(self.in_flight_bytes, bytes, "bytes in flight");
        let kept = self.window.iter().map(|&(id, piece)| {
            u64::from(self.torrents.get(&id).expect("the window's torrents are known").size(piece))
        });
        assert_eq!(self.window_bytes, kept.sum::<u64>(), "bytes in the window");
        let held = self.in_flight_bytes + self.window_bytes;
        assert!(held <= self.config.budget, "{held} bytes held, {} allowed", self.config.budget);
    }

    /// Returns the bytes the torrent has in flight.
    fn check_torrent(&self, torrent: &Torrent) -> u64 {
        let (mut stored, mut in_flight, mut bytes) = (0, 0, 0);
        for (piece, &state) in (0..).zip(&torrent.states) {
            let has = matches!(state, State::Verified | State::Stored);
            assert_eq!(torrent.have.has(piece), has, "piece {piece} is {state:?}");
            assert_eq!(torrent.open.has(piece), torrent.is_open(piece), "piece {piece} open");
            stored += u32::from(state == State::Stored);
            let active = torrent.active.contains_key(&piece);
            assert!(!active || matches!(state, State::Missing | State::Verifying));
            assert!(active || state != State::Verifying, "piece {piece} lost its sources");
            if active || state == State::Verified {
                in_flight += 1;
                bytes += u64::from(torrent.size(piece));
            }
            let copies = torrent.peers.iter().filter_map(|id| self.peers.get(id));
            let copies = copies.filter(|peer| peer.have.has(piece)).count();
            assert_eq!(usize::from(torrent.copies[piece as usize]), copies, "copies of {piece}");
        }
        assert_eq!(torrent.stored, stored, "stored pieces");
        assert_eq!(torrent.in_flight, in_flight, "pieces in flight of a torrent");
        for (&piece, active) in &torrent.active {
            check_twice(piece, active);
            for lease in &active.leases {
                assert!(torrent.peers.contains(&lease.peer), "a lease of a lost peer: {lease:?}");
                assert!(
                    lease.waiting(&active.units) > 0,
                    "a lease that waits for nothing: {lease:?}"
                );
                if lease.duplicate {
                    bytes += u64::from(torrent.bytes(piece, &lease.units));
                }
            }
        }
        bytes
    }
}

/// What is asked for twice near the end is asked of two peers, and of no third: the wire is for what
/// has not been asked for.
fn check_twice(piece: u32, active: &Active) {
    if active.leases.len() < 2 {
        return;
    }
    for unit in (0..active.units.len()).filter(|&unit| !active.units.has(unit)) {
        let peers = active.leases.iter().filter(|lease| lease.units.contains(&unit));
        let peers: Vec<PeerId> = peers.map(|lease| lease.peer).collect();
        let same = matches!(peers[..], [a, b] if a == b);
        assert!(peers.len() <= 2 && !same, "unit {unit} of piece {piece} is asked of {peers:?}");
    }
}
