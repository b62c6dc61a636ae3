//! The receiving half of a connection: one thread that turns bytes into events.
//!
//! Blocks go from the socket straight into the buffer in which they stay. Requests are put into the
//! peer's outbox here, so that the scheduler is not on the way of a block that is served.

use super::link::Link;
use super::pieces::Pool;
use super::throttle::Throttle;
use super::{Input, Inputs, Shared};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use swarm::outbox::Refused;
use swarm::swarm::{Event, UNIT};
use swarm::wire::{self, BLOCK_LEN_MAX, Block, Message};

/// Reads until the connection ends, and tells the scheduler why.
pub(super) fn run(link: &Link, pool: &Arc<Pool>, inputs: &Inputs, shared: &Shared) {
    let limit = &shared.limits.receiving;
    let buffer = vec![0; BUFFER_LEN];
    let mut reader = Reader { link, pool, inputs, limit, buffer, start: 0, end: 0 };
    let why = match reader.read_all() {
        Ok(()) => "it closed the connection".to_owned(),
        Err(error) => crate::store::io_reason(&error),
    };
    link.close();
    inputs.send(Input::Disconnected { peer: link.id, why });
}

/// Many requests or small messages in one system call; of a block at most this much is copied.
const BUFFER_LEN: usize = 16 << 10;

/// Longest extended message (BEP 10) that the scheduler hears of, several times the longest that anybody
/// has reason to send us: 50 peers that came and 50 that went. Longer ones would take others' room there.
const EXTENDED_MAX: usize = 8 << 10;

/// The id of a bitfield (BEP 3).
const BITFIELD: u8 = 5;

struct Reader<'a> {
    link: &'a Link,
    pool: &'a Arc<Pool>,
    inputs: &'a Inputs,
    limit: &'a Throttle,
    buffer: Vec<u8>,
    /// What was received and not used yet.
    start: usize,
    end: usize,
}

impl Reader<'_> {
    fn read_all(&mut self) -> io::Result<()> {
        loop {
            let waiting = &self.buffer[self.start..self.end];
            self.check_bitfield(waiting)?;
            match wire::decode(waiting).map_err(|e| io::Error::other(e.to_string()))? {
                Some((message, used)) => {
                    self.start += used;
                    self.take(message)?;
                }
                None if !self.receive()? => return Ok(()),
                None => {}
            }
            if self.link.is_closed() {
                return Ok(());
            }
        }
    }

    /// Only of this torrent's length: the longest of any torrent has 1.6 MiB, which would be waited
    /// for, and kept room for, before the swarm could say so.
    fn check_bitfield(&self, waiting: &[u8]) -> io::Result<()> {
        if let [a, b, c, d, BITFIELD, ..] = *waiting {
            let len = u32::from_be_bytes([a, b, c, d]);
            if len != self.link.torrent.metainfo.piece_count().div_ceil(8) + 1 {
                return Err(io::Error::other("it sent a bitfield of another length"));
            }
        }
        Ok(())
    }

    /// Receives more bytes of a message that is not whole. `false` at the end of the stream.
    fn receive(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.buffer.len() {
            // A bitfield, whose length the decoder has found to be allowed.
            self.buffer.resize(2 * self.end, 0);
        } else if self.end < BUFFER_LEN && self.buffer.len() > BUFFER_LEN {
            // It has been taken. Every connection would keep its room, of megabytes for some torrents.
            self.buffer.truncate(BUFFER_LEN);
            self.buffer.shrink_to_fit();
        }
        match (&self.link.stream).read(&mut self.buffer[self.end..]) {
            Ok(0) => Ok(false),
            Ok(len) => {
                self.end += len;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::Error::other("nothing was heard of it for minutes"))
            }
            Err(error) => Err(error),
        }
    }

    fn take(&mut self, message: Message) -> io::Result<()> {
        match message {
            Message::Piece(block) => return self.block(block),
            Message::Request(block) => self.request(block)?,
            Message::Cancel(block) => {
                let bytes = self.link.with_outbox(|outbox| outbox.cancel(block));
                if bytes > 0 {
                    self.event(Event::Dropped(self.link.id, bytes));
                }
            }
            Message::Extended { payload, .. } if payload.len() > EXTENDED_MAX => {}
            message => {
                match message {
                    Message::Reject(block) => drop(self.link.take_expected(block)),
                    // BEP 3: a choke drops all requests; with BEP 6 each is answered all the same.
                    Message::Choke if !self.link.fast => self.link.expect_nothing(),
                    _ => {}
                }
                self.event(Event::Message(self.link.id, message));
            }
        }
        Ok(())
    }

    /// Receives a block. One that was not asked for, or is not awaited any more, is thrown away.
    fn block(&mut self, block: Block) -> io::Result<()> {
        if !self.can_be_asked_for(block) {
            return Err(io::Error::other("it sent other bytes than anybody asks for"));
        }
        // What waits here fills the socket, and the sender slows down.
        self.limit.wait(u64::from(block.len));
        let expected = self.link.take_expected(block);
        // The decoder allows no longer block.
        let mut buffer = self.pool.get(block.len as usize);
        self.read_exact(buffer.bytes_mut())?;
        if expected {
            for counter in [&self.link.torrent.received, &self.link.received] {
                counter.fetch_add(u64::from(block.len), Ordering::Relaxed);
            }
            self.inputs.send(Input::Block { peer: self.link.id, block, buffer });
        }
        Ok(())
    }

    /// Blocks are asked for in whole units, up to the end of a piece. The swarm counts units: a part
    /// of one would count as all of it.
    fn can_be_asked_for(&self, block: Block) -> bool {
        self.link.torrent.piece_len(block.piece).is_some_and(|len| {
            let end = u64::from(block.begin) + u64::from(block.len);
            let whole = end == u64::from(len) || end.is_multiple_of(UNIT.into());
            block.begin.is_multiple_of(UNIT) && end <= u64::from(len) && whole
        })
    }

    fn read_exact(&mut self, into: &mut [u8]) -> io::Result<()> {
        let here = (self.end - self.start).min(into.len());
        let (head, rest) = into.split_at_mut(here);
        head.copy_from_slice(&self.buffer[self.start..self.start + here]);
        self.start += here;
        (&self.link.stream).read_exact(rest)
    }

    fn request(&mut self, block: Block) -> io::Result<()> {
        let torrent = &self.link.torrent;
        let inside = torrent
            .piece_len(block.piece)
            .is_some_and(|len| u64::from(block.begin) + u64::from(block.len) <= u64::from(len));
        if !inside || block.len == 0 || block.len > BLOCK_LEN_MAX {
            return Err(io::Error::other("it asked for bytes that no piece has"));
        }
        if !torrent.is_served(block.piece) {
            self.link.with_outbox(|outbox| outbox.reject(block));
            return Ok(());
        }
        // The scheduler hears of it before the writer can have served it: what is served and was
        // not asked for ends no grant.
        let (peer, bytes) = (self.link.id, u64::from(block.len));
        self.event(Event::Requested(peer, block.piece, bytes));
        match self.link.with_outbox(|outbox| outbox.request(block)) {
            Ok(()) => {}
            // It was told if it knows BEP 6, and has to ask again if it does not.
            Err(Refused::Choked | Refused::Full) => self.event(Event::Dropped(peer, bytes)),
        }
        Ok(())
    }

    fn event(&self, event: Event) {
        self.inputs.send(Input::Event(event));
    }
}
