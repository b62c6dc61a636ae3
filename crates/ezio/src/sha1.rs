//! SHA-1 (FIPS 180-4) of many messages at once.
//!
//! Hashing is the dearest step of capture and verify. One message cannot be hashed faster than one
//! SHA unit goes, but pieces are independent: sixteen of them side by side in the lanes of vector
//! registers go three times as fast. A [`Hasher`] is one message in progress; [`update_many`]
//! moves any number of them forward. [`plan()`] knows which kernels the CPU has and how fast they
//! are; it decides about speed only, never about the result.
//!
//! It does not read, and starts no threads: the caller brings bytes, best while they are hot.

mod kernel;
mod plan;
#[cfg(test)]
mod tests;

pub use kernel::Kernel;
pub use plan::{LANES_MAX, Plan, Rate, plan};

/// A SHA-1 digest, as it stands in a torrent's `pieces`.
pub type Digest = [u8; 20];

/// One message in progress: 20 bytes of state, its length so far, and what does not fill a block.
#[derive(Clone, Debug)]
pub struct Hasher {
    state: State,
    /// Bytes taken in so far, pending ones included.
    len: u64,
    /// The last `len % 64` bytes, at the front. What is behind them is stale.
    pending: Block,
}

/// The five words between two blocks (FIPS 180-4, 6.1.2).
type State = [u32; 5];

/// What the hash works on. A message's tail is padded to whole blocks by [`Hasher::finish`].
type Block = [u8; BLOCK_LEN];

/// Bytes of a [`Block`].
const BLOCK_LEN: usize = 64;

/// Where the length stands in the last block (FIPS 180-4, 5.1.1).
const LENGTH_AT: usize = BLOCK_LEN - 8;

/// FIPS 180-4, 5.3.1.
const INITIAL: State = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// Takes `chunks[i]` into `hashers[i]`, for every `i`, as fast as the CPU can.
///
/// Any number of messages, chunks of any length and alignment, hashers at any progress. Best are
/// [`LANES_MAX`] messages (or few enough below, see [`Plan::rate`]) and chunks of one length of
/// at least 16 KiB: these are neither copied nor is anything allocated. Where lengths differ, a
/// message that ends makes room for the next one that waits. The first call measures the CPU for
/// some 5 ms, see [`plan()`].
///
/// # Panics
/// If there are not as many chunks as hashers.
pub fn update_many(hashers: &mut [Hasher], chunks: &[&[u8]]) {
    plan().update_many(hashers, chunks);
}

/// The digest of `data`, on one lane.
#[must_use]
pub fn digest(data: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(data);
    hasher.finish()
}

/// The digests of `messages`, in their order, on all lanes.
#[must_use]
pub fn digest_many(messages: &[&[u8]]) -> Vec<Digest> {
    let mut hashers = vec![Hasher::new(); messages.len()];
    update_many(&mut hashers, messages);
    hashers.into_iter().map(Hasher::finish).collect()
}

impl Hasher {
    /// A message of which nothing is known yet.
    #[must_use]
    pub fn new() -> Hasher {
        Hasher { state: INITIAL, len: 0, pending: [0; BLOCK_LEN] }
    }

    /// Takes in the next bytes of this message alone, at the rate of one lane.
    ///
    /// SHA-1 is defined for less than 2^61 bytes, which no device holds.
    pub fn update(&mut self, chunk: &[u8]) {
        let blocks = self.absorb(chunk);
        self.compress(blocks);
    }

    /// The digest of all bytes taken in.
    #[must_use]
    pub fn finish(mut self) -> Digest {
        let (end, bits) = (self.pending_len(), self.len.wrapping_mul(8));
        self.pending[end] = 0x80;
        self.pending[end + 1..].fill(0);
        if end >= LENGTH_AT {
            self.compress_pending();
            self.pending.fill(0);
        }
        self.pending[LENGTH_AT..].copy_from_slice(&bits.to_be_bytes());
        self.compress_pending();

        let mut digest = [0; 20];
        for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        digest
    }

    /// Takes in `chunk`, except for its whole blocks: those the caller owes to `state`.
    ///
    /// What follows them is in `pending` already, where nobody looks before the next chunk.
    fn absorb<'a>(&mut self, chunk: &'a [u8]) -> &'a [Block] {
        let rest = self.complete_pending(chunk);
        let (blocks, tail) = rest.as_chunks();
        let at = self.pending_len();
        self.pending[at..at + tail.len()].copy_from_slice(tail);
        self.len += rest.len() as u64;
        blocks
    }

    /// Fills up a block already begun, if `chunk` is long enough for that. Returns what is left.
    fn complete_pending<'a>(&mut self, chunk: &'a [u8]) -> &'a [u8] {
        let have = self.pending_len();
        if have == 0 || have + chunk.len() < BLOCK_LEN {
            return chunk;
        }
        let (head, rest) = chunk.split_at(BLOCK_LEN - have);
        self.pending[have..].copy_from_slice(head);
        self.len += head.len() as u64;
        self.compress_pending();
        rest
    }

    fn compress_pending(&mut self) {
        let block = self.pending;
        self.compress(&[block]);
    }

    /// Without the plan: an info-hash of some bytes is not worth measuring the CPU.
    fn compress(&mut self, blocks: &[Block]) {
        Kernel::of_one_lane().compress(std::slice::from_mut(&mut self.state), &[blocks]);
    }

    /// Bytes of a block begun: 0 to 63.
    fn pending_len(&self) -> usize {
        (self.len % BLOCK_LEN as u64) as usize
    }
}

impl Default for Hasher {
    fn default() -> Hasher {
        Hasher::new()
    }
}
