//! The sending half of a connection: one thread that takes messages and blocks from the outbox.
//!
//! Blocks are sent from the memory of a piece that was received a moment ago, or read from the
//! store; some milliseconds of them with one system call, and control messages between.

use super::link::Link;
use super::pace::{self, Pace};
use super::pieces::Piece;
use super::tcp::Window;
use super::{Input, Inputs, Shared};
use rustix::fs::sendfile;
use rustix::io::Errno;
use socket2::SockRef;
use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use swarm::outbox::{Outbox, Run};
use swarm::swarm::Event;
use swarm::wire::{Block, Message, PIECE_HEADER_LEN};

/// Writes until the connection is closed.
pub(super) fn run(link: &Link, inputs: &Inputs, shared: &Shared) {
    let (pace, window) = (Pace::new(), Window::new());
    let (control, disk) = (Vec::new(), Vec::new());
    let mut writer = Writer { link, inputs, shared, pace, window, control, disk, taken: 0 };
    // The reader tells the scheduler why the connection has ended.
    if writer.write_all().is_err() {
        link.close();
    }
}

/// BEP 3: clients close connections after two minutes of silence.
const KEEP_ALIVE: Duration = Duration::from_secs(90);

/// Blocks from this length on are sent from their file, each with a system call of its own; for
/// shorter ones it is cheaper to read many and send them with one.
const FROM_FILE_MIN: u32 = 128 << 10;

struct Writer<'a> {
    link: &'a Link,
    inputs: &'a Inputs,
    shared: &'a Shared,
    pace: Pace,
    window: Window,
    control: Vec<u8>,
    /// Bytes read from the store.
    disk: Vec<u8>,
    /// Bytes of blocks that the socket has taken of the portion that is being sent.
    taken: u64,
}

impl Writer<'_> {
    fn write_all(&mut self) -> io::Result<()> {
        self.tell_kernel()?;
        while let Some(mut outbox) = self.link.wait(KEEP_ALIVE) {
            outbox.take_control(&mut self.control);
            let run_len = self.shared.limits.block_max().unwrap_or(pace::MOST);
            let run = outbox.take(run_len, |block| self.link.torrent.is_ready(block));
            drop(outbox);
            self.say()?;
            if let Some(run) = run {
                self.shared.limits.sending.wait(u64::from(run.len));
                self.blocks(run)?;
            }
        }
        Ok(())
    }

    /// Sends the control messages that were taken from the outbox.
    fn say(&mut self) -> io::Result<()> {
        (&self.link.stream).write_all(&self.control)?;
        self.control.clear();
        Ok(())
    }

    fn blocks(&mut self, run: Run) -> io::Result<()> {
        let in_memory = self.in_memory(run);
        if in_memory.is_none() && !self.link.torrent.have.has(run.piece) {
            self.drop_run(run);
            return Ok(());
        }
        if in_memory.is_none() && run.block >= FROM_FILE_MIN && self.send_from_file(run)? {
            return Ok(());
        }
        let mut disk = std::mem::take(&mut self.disk);
        if in_memory.is_none() {
            // A run has at most 1 MiB.
            disk.resize(run.len as usize, 0);
            let torrent = &self.link.torrent;
            let offset = torrent.piece_start(run.piece) + u64::from(run.begin);
            // A fault that passes, such as a cable that shook, must not cost the swarm a piece.
            let read = torrent.store.read_at(offset, &mut disk);
            if let Err(error) = read.or_else(|_| torrent.store.read_at(offset, &mut disk)) {
                return self.unreadable(run, error);
            }
        }
        let mut rest = Some(run);
        while let Some(run_left) = rest {
            let (portion, later) = split(run_left, self.pace.portion());
            let range = portion.begin..portion.begin + portion.len;
            let parts = match &in_memory {
                Some(piece) => piece.slices(range),
                None => {
                    let from = (portion.begin - run.begin) as usize;
                    vec![&disk[from..from + portion.len as usize]]
                }
            };
            self.portion(portion, |writer| writer.blocks_of(portion, &parts))?;
            rest = later;
        }
        self.disk = disk;
        Ok(())
    }

    /// Has the kernel send a run from the file that it is in (sendfile(2)): half of what reading and
    /// writing costs. `false` if it is not in one.
    fn send_from_file(&mut self, run: Run) -> io::Result<bool> {
        let torrent = &self.link.torrent;
        let start = torrent.piece_start(run.piece) + u64::from(run.begin);
        let Some((file, at)) = torrent.store.in_file(start..start + u64::from(run.len)) else {
            return Ok(false);
        };
        for block in run.blocks() {
            let portion = Run { begin: block.begin, len: block.len, ..run };
            let place = at + u64::from(block.begin - run.begin);
            self.portion(portion, |writer| writer.block_of(file, place, block))?;
        }
        Ok(true)
    }

    /// Sends a block that is at `place` of `file`. What the kernel cannot send is read.
    fn block_of(&mut self, file: &File, place: u64, block: Block) -> io::Result<()> {
        let stream = &self.link.stream;
        let mut header = Vec::with_capacity(PIECE_HEADER_LEN);
        Message::Piece(block).encode(&mut header);
        let mut sent = 0;
        while sent < header.len() {
            // Not a packet of its own.
            sent += SockRef::from(stream).send_with_flags(&header[sent..], libc::MSG_MORE)?;
        }
        let (mut at, end) = (place, place + u64::from(block.len));
        while at < end {
            // A block has at most 1 MiB.
            let left = (end - at) as usize;
            match sendfile(stream, file, Some(&mut at), left) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.taken += at - place;
        // Less than a block.
        let done = (at - place) as u32;
        self.read_and_send(Block { begin: block.begin + done, len: block.len - done, ..block })
    }

    /// Sends the end of a block whose beginning has been sent.
    fn read_and_send(&mut self, rest: Block) -> io::Result<()> {
        if rest.len == 0 {
            return Ok(());
        }
        self.disk.resize(rest.len as usize, 0);
        let torrent = &self.link.torrent;
        let start = torrent.piece_start(rest.piece) + u64::from(rest.begin);
        if let Err(error) = torrent.store.read_at(start, &mut self.disk) {
            torrent.have.remove(rest.piece);
            let (torrent, piece) = (torrent.id, rest.piece);
            self.inputs.send(Input::Unreadable { torrent, piece, error });
            return Err(io::Error::other("a block could not be read to its end"));
        }
        write_all_vectored(&self.link.stream, &mut [IoSlice::new(&self.disk)], &mut self.taken)
    }

    /// Sends the blocks of a run with their headers; `parts` laid end to end are their bytes.
    fn blocks_of(&mut self, run: Run, parts: &[&[u8]]) -> io::Result<()> {
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
        let mut taken = 0;
        let result = write_all_vectored(&self.link.stream, &mut slices, &mut taken);
        self.taken += without_headers(&blocks, taken);
        result
    }

    /// What is in memory of a run: verified, or as it comes in.
    fn in_memory(&self, run: Run) -> Option<Arc<Piece>> {
        let torrent = &self.link.torrent;
        let verified = || torrent.memory.get(run.piece);
        let arriving = || torrent.arriving.get(run.piece, run.begin..run.begin + run.len);
        // It may have been verified between the first look and the second.
        verified().or_else(arriving).or_else(verified)
    }

    /// The run's piece was thrown away since its blocks were taken from the outbox.
    fn drop_run(&self, run: Run) {
        self.link.with_outbox(|outbox| reject(outbox, run));
        self.inputs.send(Input::Event(Event::Dropped(self.link.id, run.len.into())));
    }

    /// Sends some blocks, and before them what has been said since the last ones.
    fn portion(
        &mut self,
        portion: Run,
        hand: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        self.link.with_outbox(|outbox| outbox.take_control(&mut self.control));
        self.say()?;
        let begin = Instant::now();
        self.taken = 0;
        let handed = hand(self);
        // The peer has them and keeps the whole blocks, even if the connection ends now.
        for counter in [&self.link.torrent.sent, &self.link.sent] {
            counter.fetch_add(self.taken, Ordering::Relaxed);
        }
        handed?;
        let (links, uplink) = (&self.shared.links, &self.shared.uplink);
        let (links, uplink) = (links.load(Ordering::Relaxed), uplink.load(Ordering::Relaxed));
        self.window.follow(self.link, links, uplink)?;
        if self.pace.handed(portion.len, begin.elapsed()) {
            self.tell_kernel()?;
        }
        self.inputs.send(Input::Event(Event::Served(self.link.id, portion.len.into())));
        Ok(())
    }

    fn tell_kernel(&self) -> io::Result<()> {
        SockRef::from(&self.link.stream).set_tcp_notsent_lowat(self.pace.portion())
    }

    /// The source cannot give a piece: nobody gets it from here any more.
    fn unreadable(&self, run: Run, error: crate::store::StoreError) -> io::Result<()> {
        self.link.torrent.have.remove(run.piece);
        let dropped = self.link.with_outbox(|outbox| {
            reject(outbox, run);
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

/// Refuses a run that was taken from the outbox.
fn reject(outbox: &mut Outbox, run: Run) {
    super::link::blocks(run).for_each(|block| outbox.reject(block));
}

/// Cuts the blocks off that make about `len` bytes, at least one; and what is left.
fn split(run: Run, len: u32) -> (Run, Option<Run>) {
    let len = (len / run.block).max(1).saturating_mul(run.block).min(run.len);
    let later = Run { begin: run.begin + len, len: run.len - len, ..run };
    (Run { len, ..run }, (later.len > 0).then_some(later))
}

/// How many of the first `sent` bytes of these blocks' messages are not headers.
fn without_headers(blocks: &[Block], sent: u64) -> u64 {
    let (mut left, mut bytes) = (sent, 0);
    for block in blocks {
        left = left.saturating_sub(PIECE_HEADER_LEN as u64);
        let here = left.min(block.len.into());
        (left, bytes) = (left - here, bytes + here);
    }
    bytes
}

/// Adds to `taken` what the socket takes, also when it fails in the middle.
fn write_all_vectored(
    mut stream: &std::net::TcpStream,
    mut slices: &mut [IoSlice<'_>],
    taken: &mut u64,
) -> io::Result<()> {
    while !slices.is_empty() {
        match stream.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => {
                *taken += len as u64;
                IoSlice::advance_slices(&mut slices, len);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_not_counted() {
        let blocks = [10, 20].map(|len| Block { piece: 0, begin: 0, len });
        let check = |sent, bytes| assert_eq!(without_headers(&blocks, sent), bytes, "{sent}");
        check(0, 0);
        check(12, 0);
        check(14, 1);
        check(23, 10);
        check(30, 10);
        check(37, 11);
        check(56, 30);
    }

    #[test]
    fn runs_are_cut_between_blocks() {
        let check = |run_len: u32, block: u32, len: u32, cut: u32| {
            let run = Run { piece: 3, begin: 100, len: run_len, block };
            let (now, later) = split(run, len);
            assert_eq!((now.begin, now.len), (100, cut));
            let rest = (cut < run_len).then_some((100 + cut, run_len - cut));
            assert_eq!(later.map(|run| (run.begin, run.len)), rest);
        };
        check(100, 10, 35, 30);
        check(100, 10, 5, 10);
        check(95, 10, 1000, 95);
        check(95, 10, 95, 90);
        check(5, 10, 1, 5);
    }
}
