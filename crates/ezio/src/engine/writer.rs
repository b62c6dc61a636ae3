//! The sending half of a connection: one thread that takes messages and blocks from the outbox.
//!
//! Blocks are sent from the memory of a piece that was received a moment ago, or read from the
//! store; many of them with one system call.

use super::link::Link;
use super::throttle::Limits;
use super::{Input, Inputs, Shared};
use std::io::{self, IoSlice, Write as _};
use std::sync::atomic::Ordering;
use std::time::Duration;
use swarm::outbox::Run;
use swarm::swarm::Event;
use swarm::wire::{Block, Message, PIECE_HEADER_LEN};

/// Writes until the connection is closed.
pub(super) fn run(link: &Link, inputs: &Inputs, shared: &Shared) {
    let limits = shared.limits.as_ref();
    let mut writer = Writer { link, inputs, limits, control: Vec::new(), disk: Vec::new() };
    // The reader tells the scheduler why the connection has ended.
    if writer.write_all().is_err() {
        link.close();
    }
}

/// BEP 3: clients close connections after two minutes of silence.
const KEEP_ALIVE: Duration = Duration::from_secs(90);

/// 1 MiB: 0.8 ms of a 10 Gbit/s link, after which control messages get their turn.
const RUN_LEN_MAX: u32 = 1 << 20;

struct Writer<'a> {
    link: &'a Link,
    inputs: &'a Inputs,
    limits: Option<&'a Limits>,
    control: Vec<u8>,
    /// Bytes read from the store.
    disk: Vec<u8>,
}

impl Writer<'_> {
    fn write_all(&mut self) -> io::Result<()> {
        let run_len = self.limits.map_or(RUN_LEN_MAX, |limits| limits.block_max);
        while let Some(mut outbox) = self.link.wait(KEEP_ALIVE) {
            self.control.clear();
            outbox.take_control(&mut self.control);
            let run = outbox.take(run_len);
            drop(outbox);
            (&self.link.stream).write_all(&self.control)?;
            if let Some(run) = run {
                if let Some(limits) = self.limits {
                    limits.sending.wait(u64::from(run.len));
                }
                self.blocks(run)?;
            }
        }
        Ok(())
    }

    fn blocks(&mut self, run: Run) -> io::Result<()> {
        let (torrent, range) = (&self.link.torrent, run.begin..run.begin + run.len);
        let in_memory = torrent.memory.get(run.piece);
        let parts = match &in_memory {
            Some(piece) => piece.slices(range),
            None => {
                // A run has at most 1 MiB.
                self.disk.resize(run.len as usize, 0);
                let offset = torrent.piece_start(run.piece) + u64::from(run.begin);
                // A fault that passes, such as a cable that shook, must not cost the swarm a piece.
                let read = torrent.store.read_at(offset, &mut self.disk);
                if let Err(error) = read.or_else(|_| torrent.store.read_at(offset, &mut self.disk))
                {
                    return self.unreadable(run, error);
                }
                vec![&self.disk[..]]
            }
        };
        send(&self.link.stream, run, &parts)?;
        torrent.sent.fetch_add(u64::from(run.len), Ordering::Relaxed);
        self.inputs.send(Input::Event(Event::Served(self.link.id, u64::from(run.len))));
        Ok(())
    }

    /// The source cannot give a piece: nobody gets it from here any more.
    fn unreadable(&self, run: Run, error: crate::store::StoreError) -> io::Result<()> {
        self.link.torrent.have.remove(run.piece);
        let dropped = self.link.with_outbox(|outbox| {
            for block in super::link::blocks(run) {
                outbox.reject(block);
            }
            outbox.drop_piece(run.piece)
        });
        let (peer, id) = (self.link.id, self.link.torrent.id);
        self.inputs.send(Input::Event(Event::Dropped(peer, dropped + u64::from(run.len))));
        self.inputs.send(Input::Unreadable { torrent: id, piece: run.piece, error });
        if self.link.fast {
            return Ok(());
        }
        // Without BEP 6 there is no way to say it.
        Err(io::Error::other("a block could not be read"))
    }
}

/// Sends the blocks of a run with their headers; `parts` laid end to end are their bytes.
fn send(stream: &std::net::TcpStream, run: Run, parts: &[&[u8]]) -> io::Result<()> {
    let mut headers = Vec::with_capacity(PIECE_HEADER_LEN);
    let blocks: Vec<Block> = super::link::blocks(run).collect();
    for &block in &blocks {
        Message::Piece(block).encode(&mut headers);
    }
    let mut slices = Vec::with_capacity(2 * blocks.len() + parts.len());
    let mut parts = parts.iter();
    let mut part: &[u8] = &[];
    for (block, header) in blocks.iter().zip(headers.chunks(PIECE_HEADER_LEN)) {
        slices.push(IoSlice::new(header));
        let mut left = block.len as usize;
        while left > 0 {
            if part.is_empty() {
                part = parts.next().ok_or(io::ErrorKind::UnexpectedEof)?;
            }
            let (now, later) = part.split_at(part.len().min(left));
            slices.push(IoSlice::new(now));
            (part, left) = (later, left - now.len());
        }
    }
    write_all_vectored(stream, &mut slices)
}

fn write_all_vectored(
    mut stream: &std::net::TcpStream,
    mut slices: &mut [IoSlice<'_>],
) -> io::Result<()> {
    while !slices.is_empty() {
        match stream.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => IoSlice::advance_slices(&mut slices, len),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
