//! Some pieces of an image, laid end to end.

use super::{Store, StoreError};
use std::ops::Range;

/// A view of a store in which only some pieces are: to hash just those.
pub struct SomePieces<'a> {
    store: &'a dyn Store,
    piece_len: u64,
    pieces: &'a [u32],
}

impl<'a> SomePieces<'a> {
    /// The pieces `pieces` of `store`, ascending; a short last piece comes last, so that every piece
    /// before it is whole.
    #[must_use]
    pub fn new(store: &'a dyn Store, piece_len: u32, pieces: &'a [u32]) -> SomePieces<'a> {
        SomePieces { store, piece_len: piece_len.into(), pieces }
    }

    /// Where the bytes from `offset` on are in the image. They lie in one piece: whoever hashes
    /// pieces reads no others.
    fn place(&self, offset: u64) -> u64 {
        // An index of the list, which is in memory.
        let piece = self.pieces[(offset / self.piece_len) as usize];
        u64::from(piece) * self.piece_len + offset % self.piece_len
    }
}

impl Store for SomePieces<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        self.store.read_at(self.place(offset), buf)
    }

    fn prefetch(&self, range: Range<u64>) {
        let start = self.place(range.start);
        self.store.prefetch(start..start + (range.end - range.start));
    }
}
