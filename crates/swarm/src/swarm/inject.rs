//! Ordered injection: a source sends every piece once, in ascending order, before it sends any
//! twice.
//!
//! So the swarm receives at the source's full rate from the first second, works in a moving window
//! of some tens of pieces, and the source's disk is read once, in order. The cursor skips what a
//! connected peer has already, and goes back for what was lost on the way.

use super::PeerId;
use super::torrent::Torrent;
use crate::time::Time;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// What a source has not yet given to anybody.
#[derive(Debug)]
pub(crate) struct Injection {
    /// All pieces below were granted once or were had by a peer.
    cursor: u32,
    end: u32,
    /// Below the cursor, but nobody has them: first to be granted again.
    lost: BTreeSet<u32>,
    /// How often each piece was given that nobody has announced: one that is wrong on our own disk, or
    /// goes to who says nothing, must not keep the others back.
    tries: BTreeMap<u32, u32>,
    /// Granted to that peer then, and not announced by anybody yet.
    out: BTreeMap<u32, (PeerId, Time)>,
    /// Whether strangers were shown everything.
    revealed: bool,
}

impl Injection {
    pub(crate) fn new(pieces: u32) -> Injection {
        Injection {
            cursor: 0,
            end: pieces,
            lost: BTreeSet::new(),
            tries: BTreeMap::new(),
            out: BTreeMap::new(),
            revealed: false,
        }
    }

    /// Whether everything was granted once: from now on the receivers choose.
    pub(crate) fn is_over(&self) -> bool {
        self.cursor == self.end && self.lost.is_empty()
    }

    /// Whether the time has come to show strangers everything: once, and again when what was lost
    /// since is given. Who came meanwhile was shown little.
    pub(crate) fn reveal_now(&mut self) -> bool {
        let over = self.is_over();
        let now = over && !self.revealed;
        self.revealed = over;
        now
    }

    /// How many pieces the cursor has passed.
    pub(crate) fn given(&self) -> u32 {
        self.cursor
    }

    /// How many pieces were granted to `peer` and not seen since.
    pub(crate) fn on_way_to(&self, peer: PeerId) -> u64 {
        self.out.values().filter(|(to, _)| *to == peer).map(|_| 1).sum()
    }

    /// A peer said it has `piece`.
    pub(crate) fn seen(&mut self, piece: u32) {
        self.out.remove(&piece);
        self.lost.remove(&piece);
        self.tries.remove(&piece);
    }

    /// `piece` will not come to where it was granted.
    pub(crate) fn lose(&mut self, piece: u32) {
        self.out.remove(&piece);
        if piece < self.cursor && self.tries_left(piece) {
            self.lost.insert(piece);
        }
    }

    /// Everything on its way to `peer` is lost.
    pub(crate) fn lose_peer(&mut self, peer: PeerId) {
        self.lose_where(|(to, _)| *to == peer);
    }

    /// As if `peer` had been given nothing.
    pub(crate) fn take_back(&mut self, peer: PeerId) {
        for piece in self.out.iter().filter(|(_, (to, _))| *to == peer).map(|(piece, _)| piece) {
            if let Some(tries) = self.tries.get_mut(piece) {
                *tries = tries.saturating_sub(1);
            }
        }
        self.lose_peer(peer);
    }

    /// Everything granted before `then` and not seen since is lost.
    pub(crate) fn lose_older(&mut self, then: Time) {
        self.lose_where(|(_, at)| *at < then);
    }

    /// Whether a piece may be given once more.
    fn tries_left(&self, piece: u32) -> bool {
        self.tries.get(&piece).is_none_or(|&tries| tries < TRIES_MAX)
    }

    fn lose_where(&mut self, which: impl Fn(&(PeerId, Time)) -> bool) {
        let gone: Vec<u32> =
            self.out.iter().filter(|(_, out)| which(out)).map(|(&piece, _)| piece).collect();
        gone.into_iter().for_each(|piece| self.lose(piece));
    }
}

impl Torrent {
    /// The next piece to give to `peer`, which has `had`. `None` if injection is over, or what
    /// remains is nothing for this peer.
    pub(crate) fn inject(
        &mut self,
        peer: PeerId,
        had: &crate::bitfield::Bitfield,
        now: Time,
    ) -> Option<u32> {
        let injection = self.injection.as_mut()?;
        // What cannot be read any more must not keep the injection from its end.
        injection.lost.retain(|&piece| self.have.has(piece));
        let lost = injection.lost.iter().copied().find(|&p| !had.has(p));
        let piece = match lost {
            Some(piece) => {
                injection.lost.remove(&piece);
                piece
            }
            None => {
                let piece = (injection.cursor..injection.end)
                    .find(|&p| self.copies[p as usize] == 0 && self.have.has(p));
                injection.cursor = piece.map_or(injection.end, |piece| piece + 1);
                piece?
            }
        };
        injection.out.insert(piece, (peer, now));
        *injection.tries.entry(piece).or_default() += 1;
        Some(piece)
    }
}

/// How often a source gives a piece that nobody announces. Then it is left to those who ask for it.
const TRIES_MAX: u32 = 4;
