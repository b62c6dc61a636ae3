//! One torrent of a node: what is here, what is asked for from whom, who has what.
//!
//! A piece that is being fetched is an [`Active`] with leases: runs of it that one peer was asked
//! for. Everything is counted in units of 16 KiB, the block of BEP 3.

use super::{Caps, PeerId, Start, TorrentSpec};
use crate::bitfield::Bitfield;
use crate::swarm::inject::Injection;
use crate::swarm::peer::Peer;
use crate::time::Time;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

/// Bytes of a unit: the block every client knows, and what leases are counted in.
pub const UNIT: u32 = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It may be on the medium: somebody is hashing.
    Unknown,
    /// It is not here; if it is in `active`, some of it is or is on its way.
    Missing,
    /// All of it is here, in memory, and being hashed.
    Verifying,
    /// It is right, and being written.
    Verified,
    /// It is on the medium.
    Stored,
    /// It was here and cannot be read.
    Unreadable,
}

#[derive(Debug)]
pub(crate) struct Torrent {
    pub(crate) len: u64,
    pub(crate) piece_len: u32,
    pub(crate) states: Vec<State>,
    /// Verified, so others may have it.
    pub(crate) have: Bitfield,
    /// Missing, with units nobody was asked for.
    pub(crate) open: Bitfield,
    /// Missing or verifying, with leases or units.
    pub(crate) active: BTreeMap<u32, Active>,
    /// How many connected peers have each piece.
    pub(crate) copies: Vec<u16>,
    pub(crate) stored: u32,
    pub(crate) peers: BTreeSet<PeerId>,
    pub(crate) paused: bool,
    pub(crate) finished_told: bool,
    pub(crate) injection: Option<Injection>,
    /// Verified, not yet announced.
    pub(crate) news: Vec<u32>,
    /// Begun to come in, not yet offered.
    pub(crate) arriving: Vec<u32>,
    /// Bytes granted per weight: the torrent that is furthest behind is served first.
    pub(crate) virtual_time: u64,
    /// Pieces in flight: active, or verified and not stored.
    pub(crate) in_flight: u32,
    pub(crate) more_peers_at: Time,
    /// When a piece may be read again because somebody says that it is wrong.
    pub(crate) recheck_at: Time,
    /// Pieces that were wrong: the next time each comes whole from one peer that has it whole, so that
    /// blame is clear.
    pub(crate) suspects: BTreeSet<u32>,
    /// Pieces that were wrong when a node alone sent them: until when it is not asked for them again,
    /// and how often that happened. It outlives the connection, for the node dials again.
    pub(crate) wrong: BTreeMap<(u64, u32), (Time, u32)>,
    pub(crate) caps: Caps,
    pub(crate) private: bool,
    /// Bytes of the `info` dictionary that are handed out; 0 if it is not.
    pub(crate) metadata_len: u32,
}

/// A piece some of which was asked for.
#[derive(Debug)]
pub(crate) struct Active {
    /// Units that are here.
    pub(crate) units: Bitfield,
    pub(crate) leases: Vec<Lease>,
    /// Who sent units that are here.
    pub(crate) sources: BTreeSet<PeerId>,
    /// It is among the suspects.
    pub(crate) sole: bool,
    /// Until then a suspect waits for the one who has sent some of it, and how long for the next.
    pub(crate) faithful: (Time, Duration),
    /// Connections its bytes cross from a node that has it whole; 0 as long as nobody was asked.
    pub(crate) hops: u8,
    /// Our own nodes were told that they can have it as it comes in.
    pub(crate) offered: bool,
}

/// Some of a piece that one peer was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) peer: PeerId,
    pub(crate) units: Range<u32>,
    /// Up to which unit requests were sent.
    pub(crate) asked_to: u32,
    pub(crate) began: Time,
    /// When the last of it came.
    pub(crate) progress: Time,
    /// Bytes that had come from anybody by then.
    pub(crate) heard: u64,
    /// Asked from a second peer, near the end: its bytes are counted on top of the piece's.
    pub(crate) duplicate: bool,
}

impl Torrent {
    pub(crate) fn new(spec: &TorrentSpec) -> Torrent {
        let count = spec.len.div_ceil(u64::from(spec.piece_len));
        let count = u32::try_from(count).expect("a torrent has at most 2^32 pieces");
        let here = spec.start == Start::Source;
        let state = match spec.start {
            Start::Source => State::Stored,
            Start::Empty => State::Missing,
            Start::Unknown => State::Unknown,
        };
        let empty = spec.start == Start::Empty;
        let all_if = |yes| if yes { Bitfield::full(count) } else { Bitfield::new(count) };
        Torrent {
            len: spec.len,
            piece_len: spec.piece_len,
            states: vec![state; count as usize],
            have: all_if(here),
            open: all_if(empty),
            active: BTreeMap::new(),
            copies: vec![0; count as usize],
            stored: if here { count } else { 0 },
            peers: BTreeSet::new(),
            paused: false,
            finished_told: here,
            injection: here.then(|| Injection::new(count)),
            news: Vec::new(),
            arriving: Vec::new(),
            virtual_time: 0,
            in_flight: 0,
            more_peers_at: Time(0),
            recheck_at: Time(0),
            suspects: BTreeSet::new(),
            wrong: BTreeMap::new(),
            caps: Caps::default(),
            private: spec.private,
            metadata_len: if spec.private { 0 } else { spec.metadata_len },
        }
    }

    pub(crate) fn pieces(&self) -> u32 {
        self.have.len()
    }

    pub(crate) fn state(&mut self, piece: u32) -> &mut State {
        &mut self.states[piece as usize]
    }

    /// Bytes of `piece`: the last one may be short.
    pub(crate) fn size(&self, piece: u32) -> u32 {
        let begin = u64::from(piece) * u64::from(self.piece_len);
        let left = self.len.saturating_sub(begin);
        u32::try_from(left).map_or(self.piece_len, |left| left.min(self.piece_len))
    }

    /// Whether there is anything that others can have.
    pub(crate) fn has_something(&self) -> bool {
        !self.have.none() || self.active.values().any(|active| active.offered)
    }

    pub(crate) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.active.values().flat_map(|active| &active.leases)
    }

    pub(crate) fn units(&self, piece: u32) -> u32 {
        self.size(piece).div_ceil(UNIT)
    }

    /// Bytes from the start of `piece` to the start of `unit`, or to its end.
    pub(crate) fn offset(&self, piece: u32, unit: u32) -> u32 {
        unit.saturating_mul(UNIT).min(self.size(piece))
    }

    pub(crate) fn bytes(&self, piece: u32, units: &Range<u32>) -> u32 {
        self.offset(piece, units.end) - self.offset(piece, units.start)
    }

    /// Pieces that are missing and that no connected peer has.
    pub(crate) fn nowhere(&self) -> u32 {
        let states = self.states.iter().zip(&self.copies);
        let nowhere = states.filter(|&(state, &copies)| *state == State::Missing && copies == 0);
        // At most as many as there are pieces.
        u32::try_from(nowhere.count()).unwrap_or(u32::MAX)
    }

    /// Whether `peer` can go on with a piece that was begun, which takes no more room than it has.
    pub(crate) fn begun_at(&self, peer: &Peer) -> bool {
        self.active.iter().any(|(&piece, active)| {
            let open = self.open.has(piece) && peer.have.has(piece);
            open && active.may_come_over(peer.hops(piece))
        })
    }

    /// Whether some peer should be asked for more of `piece`, as it is now.
    pub(crate) fn is_open(&self, piece: u32) -> bool {
        self.states[piece as usize] == State::Missing
            && self.active.get(&piece).is_none_or(|active| active.gap().is_some())
    }
}

/// How long a piece that has to come whole from one peer waits for the first; twice as long for the next,
/// and so on. A turn of a stranger that chokes may be a minute away.
const FAITHFUL: Duration = Duration::from_secs(10);

impl Active {
    pub(crate) fn new(units: u32) -> Active {
        Active {
            units: Bitfield::new(units),
            leases: Vec::new(),
            sources: BTreeSet::new(),
            sole: false,
            faithful: (Time(0), FAITHFUL),
            hops: 0,
            offered: false,
        }
    }

    /// Whether a peer that is so many hops from a whole copy may be asked: it must be nearer than we
    /// have told others that we are, or two could wait for each other.
    pub(crate) fn may_come_over(&self, hops: u8) -> bool {
        self.hops == 0 || hops < self.hops
    }

    /// The first run of units that are not here and not leased.
    pub(crate) fn gap(&self) -> Option<Range<u32>> {
        if self.sole && !self.leases.is_empty() {
            return None;
        }
        let free = |unit: u32| !self.units.has(unit) && !self.is_leased(unit);
        let begin = (0..self.units.len()).find(|&unit| free(unit))?;
        let end = (begin..self.units.len()).find(|&unit| !free(unit));
        Some(begin..end.unwrap_or(self.units.len()))
    }

    /// The first run of units that are not here, leased or not.
    pub(crate) fn absent(&self) -> Option<Range<u32>> {
        let begin = (0..self.units.len()).find(|&unit| !self.units.has(unit))?;
        let end = (begin..self.units.len()).find(|&unit| self.units.has(unit));
        Some(begin..end.unwrap_or(self.units.len()))
    }

    pub(crate) fn lease_of(&self, peer: PeerId) -> Option<usize> {
        self.leases.iter().position(|lease| lease.peer == peer)
    }

    fn is_leased(&self, unit: u32) -> bool {
        self.leases.iter().any(|lease| lease.units.contains(&unit))
    }
}

impl Lease {
    /// Units that were promised and are not here.
    pub(crate) fn waiting(&self, units: &Bitfield) -> u32 {
        let waiting = self.units.clone().filter(|&unit| !units.has(unit)).count();
        // At most as many as a piece has units.
        u32::try_from(waiting).unwrap_or(u32::MAX)
    }
}
