//! What a simulated machine really has in memory and on its disk, kept apart from what its swarm
//! believes, so that the two can be compared.

use crate::config::Image;
use swarm::bitfield::Bitfield;
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
    Stored,
}

/// The memory and the disk of one machine.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    images: Vec<(Image, Vec<Piece>)>,
    /// Bytes a second; 0: at once.
    rate: u64,
    free_at: Time,
}

impl Disk {
    pub(crate) fn new(images: &[Image], full: bool, rate: u64) -> Disk {
        let pieces = |image: &Image| {
            let count = image.len.div_ceil(u64::from(image.piece_len));
            let piece = if full { Piece::Stored } else { Piece::Nothing };
            vec![piece; usize::try_from(count).expect("a simulated image has few pieces")]
        };
        let images = images.iter().map(|image| (*image, pieces(image))).collect();
        Disk { images, rate, free_at: Time(0) }
    }

    /// Bytes of a piece.
    pub(crate) fn size(&self, torrent: usize, piece: u32) -> u32 {
        let image = self.images[torrent].0;
        let begin = u64::from(piece) * u64::from(image.piece_len);
        (image.len - begin).min(u64::from(image.piece_len)) as u32
    }

    /// Whether `block` is inside a piece that may be served, now or as it comes in.
    pub(crate) fn serves(&self, torrent: usize, block: Block) -> bool {
        let (_, pieces) = &self.images[torrent];
        !matches!(pieces.get(block.piece as usize), None | Some(Piece::Nothing))
            && block
                .begin
                .checked_add(block.len)
                .is_some_and(|end| end <= self.size(torrent, block.piece))
    }

    /// Whether all of `block`, which is served, is here.
    pub(crate) fn ready(&self, torrent: usize, block: &Block) -> bool {
        match &self.images[torrent].1[block.piece as usize] {
            Piece::Nothing => false,
            Piece::Partly(units, _) => (block.begin / UNIT
                ..(block.begin + block.len).div_ceil(UNIT))
                .all(|unit| units.has(unit)),
            Piece::Hashing { .. } | Piece::Verified | Piece::Stored => true,
        }
    }

    /// Whether what is here of a piece is wrong.
    pub(crate) fn is_wrong(&self, torrent: usize, piece: u32) -> bool {
        let piece = &self.images[torrent].1[piece as usize];
        matches!(piece, Piece::Partly(_, true) | Piece::Hashing { right: false })
    }

    /// Keeps the first copy of every unit.
    pub(crate) fn receive(&mut self, torrent: usize, block: Block, wrong: bool) {
        let units = self.size(torrent, block.piece).div_ceil(UNIT);
        let piece = &mut self.images[torrent].1[block.piece as usize];
        if matches!(piece, Piece::Nothing) {
            *piece = Piece::Partly(Bitfield::new(units), false);
        }
        if let Piece::Partly(got, bad) = piece {
            let range = block.begin / UNIT..(block.begin + block.len).div_ceil(UNIT);
            for unit in range {
                *bad |= got.insert(unit) && wrong;
            }
        }
    }

    /// Forgets what came of a piece.
    pub(crate) fn discard(&mut self, torrent: usize, piece: u32) {
        let piece = &mut self.images[torrent].1[piece as usize];
        assert!(!matches!(piece, Piece::Verified | Piece::Stored), "a right piece thrown away");
        *piece = Piece::Nothing;
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

    /// Begins to write a piece. Returns when it will be done.
    pub(crate) fn store(&mut self, torrent: usize, piece: u32, now: Time) -> Time {
        let size = self.size(torrent, piece);
        let place = &mut self.images[torrent].1[piece as usize];
        assert!(matches!(place, Piece::Verified), "piece {piece} written in {place:?}");
        let span = match self.rate {
            0 => 0,
            rate => u64::from(size) * 1_000_000_000 / rate,
        };
        self.free_at = Time(self.free_at.max(now).0 + span);
        self.free_at
    }

    /// A piece is on the disk.
    pub(crate) fn stored(&mut self, torrent: usize, piece: u32) {
        let place = &mut self.images[torrent].1[piece as usize];
        assert!(matches!(place, Piece::Verified), "piece {piece} stored in {place:?}");
        *place = Piece::Stored;
    }

    /// Loses what is not on the disk, as a machine that restarts.
    pub(crate) fn lose_memory(&mut self) {
        for piece in self.images.iter_mut().flat_map(|(_, pieces)| pieces) {
            if !matches!(piece, Piece::Stored) {
                *piece = Piece::Nothing;
            }
        }
        self.free_at = Time(0);
    }

    /// Which pieces of a torrent are on the disk.
    pub(crate) fn on_disk(&self, torrent: usize) -> Vec<bool> {
        self.images[torrent].1.iter().map(|piece| matches!(piece, Piece::Stored)).collect()
    }
}
