//! What a simulated machine really has in memory and on its disk, kept apart from what its swarm
//! believes, so that the two can be compared.

use crate::config::Image;
use std::collections::BTreeSet;
use swarm::bitfield::Bitfield;
use swarm::random::Random;
use swarm::swarm::UNIT;
use swarm::time::Time;
use swarm::wire::Block;

#[derive(Clone, Debug)]
enum Piece {
    Nothing,
    /// Units that came, and whether one of them was wrong.
    Partly(Bitfield, bool),
    Hashing {
        right: bool,
    },
    Verified,
    Writing,
    Stored,
    /// Written, and not what was written any more.
    Rotten,
    /// Written, and reading it fails.
    Unreadable,
    /// On the disk when the machine came up, and not hashed since.
    Unchecked {
        right: bool,
    },
}

/// The memory and the disk of one machine.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    images: Vec<(Image, Vec<Piece>)>,
    /// Bytes a second; 0: at once.
    rate: u64,
    free_at: Time,
    /// Pieces that hold memory, whole or not.
    held: BTreeSet<(usize, u32)>,
    held_bytes: u64,
    /// Written and not yet said to be finished: a power cut may take it back.
    unflushed: BTreeSet<(usize, u32)>,
    /// Pieces whose sectors cannot be read; found out when they are.
    bad_sectors: BTreeSet<(usize, u32)>,
    /// Every write fails from now on: full, or broken.
    pub(crate) refuses: bool,
}

/// What became of the reading of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Right,
    Wrong,
    Failed,
}

impl Disk {
    pub(crate) fn new(images: &[Image], full: bool, rate: u64) -> Disk {
        let pieces = |image: &Image| {
            let count = image.len.div_ceil(u64::from(image.piece_len));
            let piece = if full { Piece::Stored } else { Piece::Nothing };
            vec![piece; usize::try_from(count).expect("a simulated image has few pieces")]
        };
        Disk {
            images: images.iter().map(|image| (*image, pieces(image))).collect(),
            rate,
            free_at: Time(0),
            held: BTreeSet::new(),
            held_bytes: 0,
            unflushed: BTreeSet::new(),
            bad_sectors: BTreeSet::new(),
            refuses: false,
        }
    }

    /// Bytes of a piece.
    pub(crate) fn size(&self, torrent: usize, piece: u32) -> u32 {
        let image = self.images[torrent].0;
        let begin = u64::from(piece) * u64::from(image.piece_len);
        (image.len - begin).min(u64::from(image.piece_len)) as u32
    }

    /// How many pieces a torrent has.
    pub(crate) fn pieces(&self, torrent: usize) -> u32 {
        u32::try_from(self.images[torrent].1.len()).expect("a simulated image has few pieces")
    }

    /// Bytes of memory that pieces hold, each counted whole.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    fn hold(&mut self, torrent: usize, piece: u32) {
        if self.held.insert((torrent, piece)) {
            self.held_bytes += u64::from(self.size(torrent, piece));
        }
    }

    fn let_go(&mut self, torrent: usize, piece: u32) {
        if self.held.remove(&(torrent, piece)) {
            self.held_bytes -= u64::from(self.size(torrent, piece));
        }
    }

    /// Lets go of the memory of a piece that is on the disk.
    pub(crate) fn release(&mut self, torrent: usize, piece: u32) {
        let place = &self.images[torrent].1[piece as usize];
        let written = matches!(place, Piece::Stored | Piece::Rotten | Piece::Unreadable);
        assert!(written, "the memory of piece {piece} is given back in {place:?}");
        self.let_go(torrent, piece);
    }

    /// Whether `block` is inside a piece that may be served, now or as it comes in.
    pub(crate) fn serves(&self, torrent: usize, block: Block) -> bool {
        let (_, pieces) = &self.images[torrent];
        let place = pieces.get(block.piece as usize);
        let absent = matches!(
            place,
            None | Some(Piece::Nothing | Piece::Unreadable | Piece::Unchecked { .. })
        );
        !absent
            && block
                .begin
                .checked_add(block.len)
                .is_some_and(|end| end <= self.size(torrent, block.piece))
    }

    /// Whether all of `block`, which is served, is here.
    pub(crate) fn ready(&self, torrent: usize, block: &Block) -> bool {
        match &self.images[torrent].1[block.piece as usize] {
            Piece::Nothing | Piece::Unreadable | Piece::Unchecked { .. } => false,
            Piece::Partly(units, _) => (block.begin / UNIT
                ..(block.begin + block.len).div_ceil(UNIT))
                .all(|unit| units.has(unit)),
            _ => true,
        }
    }

    /// Whether what is here of a piece was hashed and found right once.
    pub(crate) fn was_verified(&self, torrent: usize, piece: u32) -> bool {
        use Piece::{Rotten, Stored, Verified, Writing};
        matches!(self.images[torrent].1[piece as usize], Verified | Writing | Stored | Rotten)
    }

    /// Reads a piece that is ready, from memory or from the disk.
    pub(crate) fn read(&mut self, torrent: usize, piece: u32) -> Reading {
        let in_memory = self.held.contains(&(torrent, piece));
        let bad = self.bad_sectors.contains(&(torrent, piece));
        let place = &mut self.images[torrent].1[piece as usize];
        match place {
            Piece::Stored | Piece::Rotten if bad && !in_memory => {
                *place = Piece::Unreadable;
                Reading::Failed
            }
            Piece::Rotten if !in_memory => Reading::Wrong,
            Piece::Partly(_, true) | Piece::Hashing { right: false } => Reading::Wrong,
            _ => Reading::Right,
        }
    }

    /// Looks at a piece on the disk again. Returns whether it is rotten; then it is not used any more.
    pub(crate) fn give_up(&mut self, torrent: usize, piece: u32) -> bool {
        let place = &mut self.images[torrent].1[piece as usize];
        let rotten = matches!(place, Piece::Rotten);
        if rotten {
            *place = Piece::Unreadable;
        }
        rotten
    }

    /// Whether reading a piece means to read the disk.
    pub(crate) fn is_on_disk_only(&self, torrent: usize, piece: u32) -> bool {
        !self.held.contains(&(torrent, piece))
    }

    /// Keeps the first copy of every unit.
    pub(crate) fn receive(&mut self, torrent: usize, block: Block, wrong: bool) {
        let units = self.size(torrent, block.piece).div_ceil(UNIT);
        self.hold(torrent, block.piece);
        let piece = &mut self.images[torrent].1[block.piece as usize];
        if matches!(piece, Piece::Nothing) {
            *piece = Piece::Partly(Bitfield::new(units), false);
        }
        let Piece::Partly(got, bad) = piece else {
            panic!("a block of piece {} is kept in {piece:?}", block.piece)
        };
        let range = block.begin / UNIT..(block.begin + block.len).div_ceil(UNIT);
        for unit in range {
            *bad |= got.insert(unit) && wrong;
        }
    }

    /// Forgets what came of a piece.
    pub(crate) fn discard(&mut self, torrent: usize, piece: u32) {
        let place = &mut self.images[torrent].1[piece as usize];
        let unverified = matches!(place, Piece::Nothing | Piece::Partly(..));
        assert!(unverified, "piece {piece} is thrown away in {place:?}");
        *place = Piece::Nothing;
        self.let_go(torrent, piece);
    }

    /// Begins to hash a piece. Returns whether it is right.
    pub(crate) fn hash(&mut self, torrent: usize, piece: u32) -> bool {
        let place = &mut self.images[torrent].1[piece as usize];
        let Piece::Partly(units, wrong) = place else {
            panic!("piece {piece} hashed in {place:?}")
        };
        assert!(units.all(), "piece {piece} hashed before it was whole");
        let right = !*wrong;
        *place = Piece::Hashing { right };
        right
    }

    /// A piece's hash is known.
    pub(crate) fn hashed(&mut self, torrent: usize, piece: u32) {
        let place = &mut self.images[torrent].1[piece as usize];
        *place = match place {
            Piece::Hashing { right: true } => Piece::Verified,
            Piece::Hashing { right: false } => Piece::Nothing,
            other => panic!("piece {piece} was hashed in {other:?}"),
        };
    }

    /// Begins to write a piece. Returns when it will be done; `None` if the disk takes nothing.
    pub(crate) fn store(&mut self, torrent: usize, piece: u32, now: Time) -> Option<Time> {
        let size = self.size(torrent, piece);
        let place = &mut self.images[torrent].1[piece as usize];
        assert!(matches!(place, Piece::Verified), "piece {piece} written in {place:?}");
        if self.refuses {
            return None;
        }
        *place = Piece::Writing;
        let span = match self.rate {
            0 => 0,
            rate => u64::from(size) * 1_000_000_000 / rate,
        };
        self.free_at = Time(self.free_at.max(now).0 + span);
        Some(self.free_at)
    }

    /// A piece is on the disk.
    pub(crate) fn stored(&mut self, torrent: usize, piece: u32) {
        let place = &mut self.images[torrent].1[piece as usize];
        assert!(matches!(place, Piece::Writing), "piece {piece} stored in {place:?}");
        *place = Piece::Stored;
        self.unflushed.insert((torrent, piece));
        // Writing over a bad sector has the disk use another.
        self.bad_sectors.remove(&(torrent, piece));
    }

    /// All of a torrent is flushed.
    pub(crate) fn flush(&mut self, torrent: usize) {
        self.unflushed.retain(|(of, _)| *of != torrent);
    }

    /// Loses what is not on the disk, as a machine that restarts. What is, has to be hashed.
    pub(crate) fn lose_memory(&mut self) {
        for place in self.images.iter_mut().flat_map(|(_, pieces)| pieces) {
            let right = match place {
                Piece::Stored | Piece::Unchecked { right: true } => true,
                Piece::Rotten | Piece::Unreadable | Piece::Unchecked { right: false } => false,
                _ => {
                    *place = Piece::Nothing;
                    continue;
                }
            };
            *place = Piece::Unchecked { right };
        }
        (self.free_at, self.held_bytes) = (Time(0), 0);
        self.held.clear();
    }

    /// The power goes: what was not flushed is lost or torn, by chance. Returns how many pieces are.
    pub(crate) fn lose_power(&mut self, random: &mut Random) -> u64 {
        let mut lost = 0;
        for (torrent, piece) in core::mem::take(&mut self.unflushed) {
            let place = &mut self.images[torrent].1[piece as usize];
            let after = match random.below(4) {
                0 => Piece::Nothing,
                1 => Piece::Rotten,
                _ => continue,
            };
            (*place, lost) = (after, lost + 1);
        }
        lost
    }

    /// Another disk: everything is gone.
    pub(crate) fn replace(&mut self) {
        let images: Vec<Image> = self.images.iter().map(|(image, _)| *image).collect();
        *self = Disk::new(&images, false, self.rate);
    }

    /// What is on the disk of a piece turns wrong. Returns whether there was something.
    pub(crate) fn rot(&mut self, torrent: usize, piece: u32) -> bool {
        let place = &mut self.images[torrent].1[piece as usize];
        let there = matches!(place, Piece::Stored | Piece::Unchecked { right: true });
        match place {
            Piece::Stored => *place = Piece::Rotten,
            Piece::Unchecked { right } => *right = false,
            _ => {}
        }
        there
    }

    /// A piece's sectors go bad: it will be known when they are read.
    pub(crate) fn go_bad(&mut self, torrent: usize, piece: u32) {
        self.bad_sectors.insert((torrent, piece));
    }

    /// A piece that was there at the start is hashed. Returns whether it is right.
    pub(crate) fn check(&mut self, torrent: usize, piece: u32) -> bool {
        let bad = self.bad_sectors.contains(&(torrent, piece));
        let place = &mut self.images[torrent].1[piece as usize];
        let right = matches!(place, Piece::Unchecked { right: true }) && !bad;
        *place = if right { Piece::Stored } else { Piece::Nothing };
        right
    }

    /// The pieces of a torrent that may be on the disk and have to be hashed.
    pub(crate) fn unchecked(&self, torrent: usize) -> Vec<u32> {
        let places = (0..).zip(&self.images[torrent].1);
        let unchecked = places.filter(|(_, place)| matches!(place, Piece::Unchecked { .. }));
        unchecked.map(|(piece, _)| piece).collect()
    }

    /// As a source comes up: it trusts its disk.
    pub(crate) fn trust(&mut self) {
        for place in self.images.iter_mut().flat_map(|(_, pieces)| pieces) {
            if let Piece::Unchecked { right } = *place {
                *place = if right { Piece::Stored } else { Piece::Rotten };
            }
        }
    }

    /// Which pieces of a torrent were written, whatever became of them since.
    pub(crate) fn was_written(&self, torrent: usize, piece: u32) -> bool {
        let place = &self.images[torrent].1[piece as usize];
        matches!(place, Piece::Stored | Piece::Rotten | Piece::Unreadable)
    }

    /// Whether a piece is on the disk, and right, and can be read.
    pub(crate) fn is_intact(&self, torrent: usize, piece: u32) -> bool {
        let stored = matches!(self.images[torrent].1[piece as usize], Piece::Stored);
        stored && !self.bad_sectors.contains(&(torrent, piece))
    }
}
