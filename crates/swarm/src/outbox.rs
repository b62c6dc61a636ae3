//! What one peer shall be sent: control messages, and the blocks it asked for.
//!
//! The reader of a connection puts requests in, its writer takes them out, the scheduler says how
//! much may be asked for. No bytes of pieces are here: a [`Run`] says which to send. Control
//! messages go before queued blocks, so between any two blocks.

use crate::wire::{Block, Message};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Requests that wait at most: a piece of 64 MiB in blocks of 16 KiB. More are refused.
pub const REQUESTS_MAX: usize = 4096;

/// Consecutive blocks of one piece, to be sent with one system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which piece.
    pub piece: u32,
    /// Offset in the piece where the first block begins, in bytes.
    pub begin: u32,
    /// Bytes of all blocks together.
    pub len: u32,
    /// Bytes of each block but perhaps the last: each has a message header of its own.
    pub block: u32,
}

/// Why a request is not queued. The peer has been told if it knows BEP 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has leave to ask for less, or for nothing.
    #[error("the peer may not ask for that much now")]
    Choked,
    /// [`REQUESTS_MAX`] are waiting.
    #[error("too many requests wait")]
    Full,
}

/// The waiting messages and requests of one connection.
#[derive(Debug)]
pub struct Outbox {
    fast: bool,
    control: Vec<u8>,
    requests: VecDeque<Block>,
    /// Bytes the peer may still ask for.
    allowed: u64,
}

impl Outbox {
    /// An empty outbox in which nothing is allowed. `fast`: both sides know BEP 6.
    #[must_use]
    pub fn new(fast: bool) -> Outbox {
        Outbox { fast, control: Vec::new(), requests: VecDeque::new(), allowed: 0 }
    }

    /// Queues a control message.
    pub fn say(&mut self, message: &Message) {
        message.encode(&mut self.control);
    }

    /// Moves the waiting control messages behind what `out` holds. Returns whether there were any.
    pub fn take_control(&mut self, out: &mut Vec<u8>) -> bool {
        out.append(&mut self.control);
        !out.is_empty()
    }

    /// Bytes of control messages that wait: a peer that does not read lets them become more with
    /// every answer it provokes.
    #[must_use]
    pub fn control_len(&self) -> usize {
        self.control.len()
    }

    /// Whether control messages wait.
    #[must_use]
    pub fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// Whether blocks wait, ready to be sent or not.
    #[must_use]
    pub fn has_blocks(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Whether a block waits that is `ready` to be sent.
    #[must_use]
    pub fn has_ready(&self, ready: impl Fn(&Block) -> bool) -> bool {
        self.requests.iter().any(ready)
    }

    /// Allows `bytes` more to be asked for; `u64::MAX` for all that comes.
    pub fn allow(&mut self, bytes: u64) {
        self.allowed = self.allowed.saturating_add(bytes);
    }

    /// Allows nothing from now on and drops what waits. Returns the bytes dropped.
    pub fn deny(&mut self) -> u64 {
        self.allowed = 0;
        self.drop_requests(|_| true)
    }

    /// Drops what waits of `piece`, which cannot be read any more. Returns the bytes dropped.
    pub fn drop_piece(&mut self, piece: u32) -> u64 {
        self.drop_requests(|block| block.piece == piece)
    }

    /// Queues a request. The caller has checked that the block is inside a piece we have.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn request(&mut self, block: Block) -> Result<(), Refused> {
        let refused = if self.allowed < u64::from(block.len) {
            Some(Refused::Choked)
        } else if self.requests.len() == REQUESTS_MAX {
            Some(Refused::Full)
        } else {
            None
        };
        if let Some(why) = refused {
            self.reject(block);
            return Err(why);
        }
        if self.allowed != u64::MAX {
            self.allowed -= u64::from(block.len);
        }
        self.requests.push_back(block);
        Ok(())
    }

    /// Tells the peer that it will not get `block`, if it knows BEP 6.
    pub fn reject(&mut self, block: Block) {
        if self.fast {
            self.say(&Message::Reject(block));
        }
    }

    /// Takes a request back. Returns the bytes that will not be sent: 0 if it is gone already.
    pub fn cancel(&mut self, block: Block) -> u64 {
        let Some(at) = self.requests.iter().position(|&waiting| waiting == block) else {
            return 0;
        };
        self.requests.remove(at);
        // BEP 6 wants an answer to each request, cancelled or not.
        self.reject(block);
        u64::from(block.len)
    }

    /// Takes the longest run of consecutive, equally long blocks, of those that are `ready` the first
    /// in the queue, that has at most `bytes_max` bytes, but at least one block.
    pub fn take(&mut self, bytes_max: u32, ready: impl Fn(&Block) -> bool) -> Option<Run> {
        let at = self.requests.iter().position(&ready)?;
        let first = self.requests.remove(at)?;
        let mut run =
            Run { piece: first.piece, begin: first.begin, len: first.len, block: first.len };
        while let Some(next) = self.requests.get(at)
            && ready(next)
            && next.piece == run.piece
            && run.begin.checked_add(run.len) == Some(next.begin)
            && next.len <= run.block
            && run.len.is_multiple_of(run.block)
            && run.len.checked_add(next.len).is_some_and(|len| len <= bytes_max)
        {
            run.len += next.len;
            self.requests.remove(at);
        }
        Some(run)
    }

    fn drop_requests(&mut self, which: impl Fn(&Block) -> bool) -> u64 {
        let mut bytes = 0;
        for _ in 0..self.requests.len() {
            if let Some(block) = self.requests.pop_front() {
                if which(&block) {
                    bytes += u64::from(block.len);
                    self.reject(block);
                } else {
                    self.requests.push_back(block);
                }
            }
        }
        bytes
    }
}

impl Run {
    /// The blocks the run consists of, in order.
    pub fn blocks(self) -> impl Iterator<Item = Block> {
        (0..self.len).step_by(self.block.max(1) as usize).map(move |at| Block {
            piece: self.piece,
            begin: self.begin + at,
            len: self.block.min(self.len - at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::decode;
    use alloc::vec::Vec;

    const K: u32 = 16 << 10;

    /// Queues blocks given as (piece, begin, len) in units of 16 KiB and takes runs of at most
    /// `max` of them: each is (piece, begin, len, block).
    fn check(blocks: &[(u32, u32, u32)], max: u32, runs: &[(u32, u32, u32, u32)]) {
        let mut outbox = Outbox::new(true);
        outbox.allow(u64::MAX);
        for &(piece, begin, len) in blocks {
            let block = Block { piece, begin: begin * K, len: len * K };
            assert_eq!(outbox.request(block), Ok(()));
        }
        let taken: Vec<_> = core::iter::from_fn(|| outbox.take(max * K, |_| true)).collect();
        let wanted: Vec<_> = runs
            .iter()
            .map(|&(piece, begin, len, block)| Run {
                piece,
                begin: begin * K,
                len: len * K,
                block: block * K,
            })
            .collect();
        assert_eq!(taken, wanted, "{blocks:?}");
        let sent: Vec<_> = taken.iter().flat_map(|run| run.blocks()).collect();
        assert_eq!(sent.len(), blocks.len());
    }

    #[test]
    fn consecutive_blocks_are_taken_together() {
        check(&[(0, 0, 1), (0, 1, 1), (0, 2, 1)], 8, &[(0, 0, 3, 1)]);
        check(&[(0, 0, 1), (0, 1, 1), (0, 2, 1)], 2, &[(0, 0, 2, 1), (0, 2, 1, 1)]);
        check(&[(0, 0, 4)], 1, &[(0, 0, 4, 4)]);
        check(&[(0, 3, 1), (1, 4, 1), (1, 6, 1)], 8, &[(0, 3, 1, 1), (1, 4, 1, 1), (1, 6, 1, 1)]);
        check(&[(0, 0, 2), (0, 2, 1), (0, 3, 2)], 8, &[(0, 0, 3, 2), (0, 3, 2, 2)]);
    }

    #[test]
    fn what_is_refused_is_rejected() {
        let block = Block { piece: 0, begin: 0, len: K };
        let mut outbox = Outbox::new(true);
        assert_eq!(outbox.request(block), Err(Refused::Choked));
        outbox.allow(u64::from(K));
        assert_eq!(outbox.request(block), Ok(()));
        assert_eq!(outbox.request(block), Err(Refused::Choked));
        assert_eq!(outbox.deny(), u64::from(K));
        outbox.allow(u64::MAX);
        assert_eq!((outbox.request(block), outbox.cancel(block)), (Ok(()), u64::from(K)));
        assert_eq!(outbox.cancel(block), 0);
        assert_eq!(outbox.take(K, |_| true), None);
        let mut bytes = Vec::new();
        assert!(outbox.take_control(&mut bytes));
        for _ in 0..4 {
            let (message, used) = decode(&bytes).expect("well formed").expect("whole");
            assert_eq!(message, Message::Reject(block));
            bytes.drain(..used);
        }
        assert!(bytes.is_empty() && !outbox.has_control());
    }
}
