//! A connection after its handshake: what its reader, its writer and the scheduler share.

use super::Carried;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use swarm::outbox::{Outbox, Run};
use swarm::swarm::{PeerId, Uplink};
use swarm::wire::metadata::{METADATA_PIECE_LEN, Metadata};
use swarm::wire::{Block, Message};

/// One connection.
pub(super) struct Link {
    pub(super) id: PeerId,
    pub(super) torrent: Arc<Carried>,
    pub(super) stream: TcpStream,
    /// Of the other end; where it listens is known only if we have dialled.
    pub(super) addr: SocketAddr,
    /// Its peer id (BEP 20).
    pub(super) peer_id: [u8; 20],
    /// Both sides know BEP 6.
    pub(super) fast: bool,
    /// When handshakes had been exchanged.
    pub(super) since: Instant,
    /// Bytes of blocks that came and went by this connection.
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    /// How the other side's uplink compares with ours: an [`Uplink`].
    pub(super) uplink: AtomicU8,
    outbox: Mutex<Outbox>,
    /// Told when the outbox gets something, or the link is closed.
    changed: Condvar,
    /// What was asked of it and has not come. A handful of runs, unless it makes us ask for more and
    /// more and answers nothing.
    expected: Mutex<Vec<Run>>,
    closed: AtomicBool,
    /// The writer sleeps, and there are blocks it could send if they were here.
    waits: AtomicBool,
    /// When the last block came or went, or it was made.
    used: Mutex<Instant>,
}

impl Link {
    pub(super) fn new(
        id: PeerId,
        torrent: Arc<Carried>,
        stream: TcpStream,
        addr: SocketAddr,
        peer_id: [u8; 20],
        fast: bool,
    ) -> Link {
        Link {
            id,
            torrent,
            stream,
            addr,
            peer_id,
            fast,
            since: Instant::now(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            uplink: AtomicU8::new(Uplink::Alike as u8),
            outbox: Mutex::new(Outbox::new(fast)),
            changed: Condvar::new(),
            expected: Mutex::default(),
            closed: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            used: Mutex::new(Instant::now()),
        }
    }

    /// Whether blocks came or went.
    pub(super) fn has_moved_blocks(&self) -> bool {
        self.received.load(Ordering::Relaxed) > 0 || self.sent.load(Ordering::Relaxed) > 0
    }

    /// A block came or went.
    pub(super) fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Since when no block came or went.
    pub(super) fn used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the outbox and wakes the writer. A peer that lets too much wait is sent away.
    pub(super) fn with_outbox<T>(&self, change: impl FnOnce(&mut Outbox) -> T) -> T {
        let mut outbox = self.lock_outbox();
        let result = change(&mut outbox);
        let full = outbox.control_len() > self.control_max();
        drop(outbox);
        if full {
            self.close();
        }
        self.changed.notify_one();
        result
    }

    /// Hands out a piece of the torrent's metadata (BEP 9), which exists, with the id that the peer
    /// wants it with; refuses if it does not read what it has asked for.
    pub(super) fn hand_out(&self, id: u8, piece: u32) {
        let info = self.torrent.metainfo.info_bytes();
        let start = piece as usize * METADATA_PIECE_LEN as usize;
        let end = info.len().min(start + METADATA_PIECE_LEN as usize);
        let Some(bytes) = info.get(start..end) else { return };
        self.with_outbox(|outbox| {
            let data = Metadata::Data { piece, total: Some(info.len() as u64), bytes };
            let waits = outbox.control_len() > METADATA_WAITING_MAX;
            let payload = if waits { Metadata::Reject(piece) } else { data }.encode();
            outbox.say(&Message::Extended { id, payload });
        });
    }

    /// Bytes of control messages that may wait: all pieces announced at once, and a piece of 64 MiB
    /// in blocks of 16 KiB asked for, refused and cancelled, several times over.
    fn control_max(&self) -> usize {
        // A torrent has some million pieces at the most.
        CONTROL_LEN_MAX + 2 * HAVE_LEN * self.torrent.metainfo.piece_count() as usize
    }

    /// Waits until there is something to send. `None` once the link is closed.
    pub(super) fn wait(&self, keep_alive: Duration) -> Option<MutexGuard<'_, Outbox>> {
        let idle = |outbox: &mut Outbox| {
            // Said before it looks, so that a block that comes meanwhile is seen or wakes it.
            self.waits.store(outbox.has_blocks(), Ordering::SeqCst);
            let ready = outbox.has_ready(|block| self.torrent.is_ready(block));
            !outbox.has_control() && !ready && !self.is_closed()
        };
        let (mut outbox, waited) = self
            .changed
            .wait_timeout_while(self.lock_outbox(), keep_alive, idle)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            outbox.say(&Message::KeepAlive);
        }
        (!self.is_closed()).then_some(outbox)
    }

    /// A block came that the writer may wait for.
    pub(super) fn wake_if_waiting(&self) {
        if self.waits.swap(false, Ordering::SeqCst) {
            // It has looked, and sleeps once it lets go of this.
            drop(self.lock_outbox());
            self.changed.notify_one();
        }
    }

    /// Asks for a run: its blocks are expected from now on.
    pub(super) fn request(&self, run: Run) {
        let mut expected = self.lock_expected();
        expected.push(run);
        let full = expected.len() > EXPECTED_MAX;
        drop(expected);
        self.with_outbox(|outbox| {
            blocks(run).for_each(|block| outbox.say(&Message::Request(block)))
        });
        if full {
            self.close();
        }
    }

    /// What was asked for will not come.
    pub(super) fn expect_nothing(&self) {
        self.lock_expected().clear();
    }

    /// Takes a request back: what still comes of it is not expected.
    pub(super) fn cancel(&self, run: Run) {
        forget(&mut self.lock_expected(), run.piece, run.begin, run.len);
        self.with_outbox(|outbox| {
            blocks(run).for_each(|block| outbox.say(&Message::Cancel(block)))
        });
    }

    /// Whether all of `block` was asked for; then it is not expected a second time.
    pub(super) fn take_expected(&self, block: Block) -> bool {
        let mut expected = self.lock_expected();
        let inside = |run: &Run| {
            run.piece == block.piece
                && run.begin <= block.begin
                && u64::from(block.begin) + u64::from(block.len)
                    <= u64::from(run.begin) + u64::from(run.len)
        };
        let found = expected.iter().any(inside);
        if found {
            forget(&mut expected, block.piece, block.begin, block.len);
        }
        found
    }

    /// Ends the connection: both threads notice and stop.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // It may be closed by the other side already.
        let _ = self.stream.shutdown(Shutdown::Both);
        // The writer looks at `closed` under this lock, so it does not sleep through it.
        drop(self.lock_outbox());
        self.changed.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn set_options(&self, silence_max: Duration) -> io::Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_nodelay(true)?;
        super::tcp::choose_congestion(&self.stream);
        // Whoever takes not a byte for so long is gone, even if it goes on talking.
        self.stream.set_write_timeout(Some(silence_max))?;
        self.stream.set_read_timeout(Some(silence_max))
    }

    fn lock_outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_expected(&self) -> MutexGuard<'_, Vec<Run>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of control messages that may wait, whatever the torrent. Measured: some KiB.
const CONTROL_LEN_MAX: usize = 1 << 20;

/// With so much waiting no metadata is added: half of what may wait, and 32 pieces of it.
const METADATA_WAITING_MAX: usize = CONTROL_LEN_MAX / 2;

/// Runs that may be expected: the bytes of a whole budget in blocks of 16 KiB are twice as many,
/// but no peer gives leave to be asked for all of them one by one.
const EXPECTED_MAX: usize = 4096;

/// Bytes of a `have` message.
const HAVE_LEN: usize = 9;

/// The blocks of a run, as they are asked for.
pub(super) fn blocks(run: Run) -> impl Iterator<Item = Block> {
    (0..run.len.div_ceil(run.block)).map(move |i| {
        let skip = i * run.block;
        Block { piece: run.piece, begin: run.begin + skip, len: run.block.min(run.len - skip) }
    })
}

/// Takes a range out of the runs; one that is cut in the middle becomes two.
fn forget(runs: &mut Vec<Run>, piece: u32, begin: u32, len: u32) {
    let (from, to) = (u64::from(begin), u64::from(begin) + u64::from(len));
    for run in std::mem::take(runs) {
        let (start, end) = (u64::from(run.begin), u64::from(run.begin) + u64::from(run.len));
        if run.piece != piece || to <= start || end <= from {
            runs.push(run);
            continue;
        }
        // All are positions in the run's piece, which are below 2^32.
        if start < from {
            runs.push(Run { len: (from - start) as u32, ..run });
        }
        if to < end {
            runs.push(Run { begin: to as u32, len: (end - to) as u32, ..run });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(begin: u32, len: u32) -> Run {
        Run { piece: 1, begin, len, block: 10 }
    }

    #[test]
    fn a_range_is_taken_out_of_runs() {
        let check = |begin, len, left: &[Run]| {
            let mut runs = vec![run(0, 30), run(50, 10)];
            forget(&mut runs, 1, begin, len);
            assert_eq!(runs, left, "{begin}+{len}");
        };
        check(10, 10, &[run(0, 10), run(20, 10), run(50, 10)]);
        check(0, 30, &[run(50, 10)]);
        check(20, 35, &[run(0, 20), run(55, 5)]);
        check(30, 20, &[run(0, 30), run(50, 10)]);
    }

    #[test]
    fn the_last_block_of_a_run_may_be_short() {
        let found: Vec<_> = blocks(run(5, 25)).map(|b| (b.begin, b.len)).collect();
        assert_eq!(found, [(5, 10), (15, 10), (25, 5)]);
    }
}
