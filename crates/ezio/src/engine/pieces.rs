//! Bytes of pieces in memory: received, verified, served, written, and then their memory used again.
//!
//! A reader receives every block into a buffer of its own and hands it over; nobody copies it. A
//! piece is the buffers of its blocks, in order. How many pieces there are at once is decided by
//! the swarm's budget, not here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use swarm::wire::BLOCK_LEN_MAX;

/// Memory for blocks, given back when the last user of a block drops it: fresh pages from the
/// kernel cost a quarter of a CPU second per GiB, used ones nothing.
#[derive(Debug)]
pub(super) struct Pool {
    state: Mutex<PoolState>,
    /// Bytes in use and kept together, above which nothing is kept.
    kept_max: u64,
}

#[derive(Debug, Default)]
struct PoolState {
    /// By power of two, from [`CLASS_MIN`] up.
    free: [Vec<Box<[u8]>>; CLASSES],
    /// Bytes of all that is free or in use.
    bytes: u64,
}

/// The smallest buffer: a block of BEP 3.
const CLASS_MIN: usize = 16 << 10;

/// From 16 KiB to the largest block, 1 MiB.
const CLASSES: usize = (BLOCK_LEN_MAX as usize / CLASS_MIN).ilog2() as usize + 1;

impl Pool {
    /// Nothing yet. `budget`: bytes of pieces in memory, see [`swarm::swarm::Config::budget`].
    pub(super) fn new(budget: u64) -> Pool {
        Pool { state: Mutex::default(), kept_max: budget }
    }

    /// A buffer of `len` bytes, at most [`BLOCK_LEN_MAX`]; they hold anything.
    pub(super) fn get(self: &Arc<Pool>, len: usize) -> Buffer {
        let size = len.next_power_of_two().max(CLASS_MIN);
        let free = self.take(size);
        let bytes = free.unwrap_or_else(|| vec![0; size].into_boxed_slice());
        Buffer { bytes, len, pool: Arc::clone(self) }
    }

    /// A free buffer of `size` bytes. Without one, others make room for one that is to be made.
    fn take(&self, size: usize) -> Option<Box<[u8]>> {
        let mut state = self.lock();
        let free = class(size).and_then(|class| state.free[class].pop());
        if free.is_none() {
            state.bytes += size as u64;
            while state.bytes > self.kept_max
                && let Some(unused) = state.free.iter_mut().find_map(Vec::pop)
            {
                state.bytes -= unused.len() as u64;
            }
        }
        free
    }

    fn give_back(&self, bytes: Box<[u8]>) {
        let mut state = self.lock();
        match class(bytes.len()) {
            Some(class) if state.bytes <= self.kept_max => state.free[class].push(bytes),
            _ => state.bytes -= bytes.len() as u64,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn class(size: usize) -> Option<usize> {
    let class = (size.max(CLASS_MIN) / CLASS_MIN).ilog2() as usize;
    (class < CLASSES && size.is_power_of_two()).then_some(class)
}

/// Memory of one block.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    len: usize,
    pool: Arc<Pool>,
}

impl Buffer {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.bytes));
    }
}

/// Received bytes of a piece that are not whole yet.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    /// By the offset in the piece; none overlaps another.
    parts: BTreeMap<u32, Part>,
}

/// Bytes of a received block.
#[derive(Clone, Debug)]
struct Part {
    buffer: Arc<Buffer>,
    range: Range<usize>,
}

impl Assembly {
    /// Takes in a block that begins at `begin` of the piece. What is there already stays.
    pub(super) fn insert(&mut self, begin: u32, buffer: Buffer) {
        // A block has at most 1 MiB.
        let end = begin + buffer.bytes().len() as u32;
        let buffer = Arc::new(buffer);
        for gap in self.gaps(begin..end) {
            let range = (gap.start - begin) as usize..(gap.end - begin) as usize;
            self.parts.insert(gap.start, Part { buffer: Arc::clone(&buffer), range });
        }
    }

    /// The parts of `range` that are not here.
    fn gaps(&self, range: Range<u32>) -> Vec<Range<u32>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        let before = self.parts.range(..range.start).next_back();
        for (&start, part) in before.into_iter().chain(self.parts.range(range.clone())) {
            if start > at {
                gaps.push(at..start);
            }
            at = at.max(start + part.range.len() as u32);
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// What covers `range`; `None` if some of it has not come.
    fn part(&self, range: Range<u32>) -> Option<Piece> {
        if !self.gaps(range.clone()).is_empty() {
            return None;
        }
        let before = self.parts.range(..range.start).next_back();
        let parts = before.into_iter().chain(self.parts.range(range));
        Some(Piece { parts: parts.map(|(&start, part)| (start, part.clone())).collect() })
    }

    /// The whole piece of `len` bytes.
    ///
    /// # Panics
    /// If bytes are missing: the swarm says that a piece is whole, and it counts the same blocks.
    pub(super) fn finish(self, len: u32) -> Piece {
        let missing = self.gaps(0..len);
        assert!(missing.is_empty(), "a whole piece lacks {missing:?} of {len} bytes");
        Piece { parts: self.parts.into_iter().collect() }
    }
}

/// Pieces that come in or are being hashed. What has come of them is passed on to our own nodes.
#[derive(Debug, Default)]
pub(super) struct Arriving(Mutex<BTreeMap<u32, Unverified>>);

#[derive(Debug)]
enum Unverified {
    Parts(Assembly),
    Whole(Arc<Piece>),
}

impl Arriving {
    /// Takes in a block of `piece` that begins at `begin` of it.
    pub(super) fn insert(&self, piece: u32, begin: u32, buffer: Buffer) {
        let mut pieces = self.lock();
        let entry = pieces.entry(piece).or_insert_with(|| Unverified::Parts(Assembly::default()));
        if let Unverified::Parts(assembly) = entry {
            assembly.insert(begin, buffer);
        }
    }

    /// All `len` bytes of a piece that is whole now. It stays here until it is taken or discarded.
    ///
    /// # Panics
    /// See [`Assembly::finish`].
    pub(super) fn finish(&self, piece: u32, len: u32) -> Option<Arc<Piece>> {
        let mut pieces = self.lock();
        let Some(Unverified::Parts(assembly)) = pieces.get_mut(&piece) else { return None };
        let whole = Arc::new(std::mem::take(assembly).finish(len));
        pieces.insert(piece, Unverified::Whole(Arc::clone(&whole)));
        Some(whole)
    }

    /// The whole piece, if that is what is here.
    pub(super) fn whole(&self, piece: u32) -> Option<Arc<Piece>> {
        match self.lock().get(&piece) {
            Some(Unverified::Whole(whole)) => Some(Arc::clone(whole)),
            _ => None,
        }
    }

    /// Forgets what came of a piece.
    pub(super) fn remove(&self, piece: u32) {
        self.lock().remove(&piece);
    }

    /// Whether something has come of a piece.
    pub(super) fn has_some(&self, piece: u32) -> bool {
        self.lock().contains_key(&piece)
    }

    /// Whether all of a range of a piece has come.
    pub(super) fn has(&self, piece: u32, range: Range<u32>) -> bool {
        match self.lock().get(&piece) {
            Some(Unverified::Parts(assembly)) => assembly.gaps(range).is_empty(),
            Some(Unverified::Whole(_)) => true,
            None => false,
        }
    }

    /// What covers a range of a piece, if all of that has come.
    pub(super) fn get(&self, piece: u32, range: Range<u32>) -> Option<Arc<Piece>> {
        match self.lock().get(&piece)? {
            Unverified::Parts(assembly) => assembly.part(range).map(Arc::new),
            Unverified::Whole(whole) => Some(Arc::clone(whole)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Unverified>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A piece in memory, or as much of it as was asked for.
#[derive(Debug)]
pub(super) struct Piece {
    /// With the offset of each in the piece, ascending, without gaps.
    parts: Vec<(u32, Part)>,
}

impl Piece {
    /// The bytes of `range`, which lies inside of the piece.
    pub(super) fn slices(&self, range: Range<u32>) -> Vec<&[u8]> {
        let first = self.parts.partition_point(|(start, _)| *start <= range.start).max(1) - 1;
        let overlapping = self.parts[first..].iter().take_while(|(start, _)| *start < range.end);
        overlapping
            .map(|(start, part)| {
                let bytes = &part.buffer.bytes()[part.range.clone()];
                let from = range.start.saturating_sub(*start) as usize;
                let to = bytes.len().min((range.end - start) as usize);
                &bytes[from..to]
            })
            .collect()
    }

    /// Its bytes.
    pub(super) fn len(&self) -> u64 {
        self.parts.iter().map(|(_, part)| part.range.len() as u64).sum()
    }

    /// All of it.
    pub(super) fn all(&self) -> Vec<&[u8]> {
        self.slices(0..u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks that overlap: what came first stays.
    #[test]
    fn a_piece_is_put_together_from_blocks_that_overlap() {
        let pool = Arc::new(Pool::new(1 << 30));
        let mut assembly = Assembly::default();
        let mut insert = |begin: u32, len: usize, byte: u8| {
            let mut buffer = pool.get(len);
            buffer.bytes_mut().fill(byte);
            assembly.insert(begin, buffer);
        };
        insert(10, 10, 1);
        insert(0, 15, 2);
        insert(18, 12, 3);
        insert(5, 20, 4);
        let piece = assembly.finish(30);
        let whole = [[2; 10], [1; 10], [3; 10]].concat();
        assert_eq!(piece.all().concat(), whole);
        for start in 0..30 {
            for end in start..=30 {
                let found = piece.slices(start..end).concat();
                assert_eq!(found, whole[start as usize..end as usize], "{start}..{end}");
            }
        }
    }

    #[test]
    fn what_has_come_can_be_passed_on_before_the_piece_is_whole() {
        let pool = Arc::new(Pool::new(1 << 30));
        let arriving = Arriving::default();
        let come = |begin: u32, byte: u8| {
            let mut buffer = pool.get(10);
            buffer.bytes_mut().fill(byte);
            arriving.insert(3, begin, buffer);
        };
        let part = |range: Range<u32>| {
            let found = arriving.get(3, range.clone());
            assert_eq!(found.is_some(), arriving.has(3, range.clone()), "{range:?}");
            found.map(|piece| piece.slices(range).concat())
        };
        assert!(!arriving.has_some(3) && part(0..1).is_none());
        come(10, 2);
        assert!(arriving.has_some(3) && part(5..15).is_none() && part(15..25).is_none());
        assert_eq!(part(12..18), Some(vec![2; 6]));
        come(0, 1);
        assert_eq!(part(5..15), Some([[1; 5], [2; 5]].concat()));
        assert!(arriving.whole(3).is_none());
        let whole = arriving.finish(3, 20).expect("it came");
        assert_eq!(whole.all().concat(), [[1; 10], [2; 10]].concat());
        assert!(arriving.finish(3, 20).is_none(), "it is whole already");
        assert_eq!(part(5..15), Some([[1; 5], [2; 5]].concat()), "while it is hashed");
        assert!(arriving.whole(3).is_some());
        arriving.remove(3);
        assert!(!arriving.has_some(3) && part(0..1).is_none());
    }

    #[test]
    #[should_panic(expected = "lacks [4..6]")]
    fn a_piece_with_a_gap_is_not_whole() {
        let pool = Arc::new(Pool::new(1 << 30));
        let mut assembly = Assembly::default();
        assembly.insert(0, pool.get(4));
        assembly.insert(6, pool.get(4));
        assembly.finish(10);
    }

    #[test]
    fn buffers_are_used_again_and_what_is_kept_is_bounded() {
        let pool = Arc::new(Pool::new(3 << 20));
        let first = pool.get(1 << 20).bytes().as_ptr();
        assert_eq!(pool.get(700_000).bytes().as_ptr(), first);
        assert_eq!(pool.get(5).bytes().len(), 5);
        let small: Vec<_> = (0..64).map(|_| pool.get(16 << 10)).collect();
        drop(small);
        let large: Vec<_> = (0..5).map(|_| pool.get(1 << 20)).collect();
        assert_eq!(pool.lock().bytes, 5 << 20, "the small ones made room");
        drop(large);
        assert_eq!(pool.lock().bytes, 3 << 20);
        assert_eq!(pool.lock().free[CLASSES - 1].len(), 3);
    }
}
