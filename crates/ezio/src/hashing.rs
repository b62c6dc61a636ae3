//! Hashes the pieces of a store: as fast as the device or all cores allow, whichever is slower.
//!
//! Workers claim groups of consecutive pieces, as many as a core hashes side by side, and go
//! through a group in slices: a slice of each piece is read into a buffer that stays in the core's
//! own cache, then all lanes hash it there. One thread runs ahead and asks the kernel for the
//! image strictly in image order, which is device order; workers wait for it, so a disk sees one
//! ascending sweep although the lanes read in strides.

use crate::sha1::{Digest, Hasher, LANES_MAX, plan, update_many};
use crate::store::{Store, StoreError};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread;

/// What to hash, and whom to tell.
pub struct Hashing<'a> {
    /// The image.
    pub store: &'a dyn Store,
    /// Bytes of the image.
    pub image_len: u64,
    /// Bytes of every piece but the last.
    pub piece_len: u32,
    /// Image bytes hashed so far, for a progress display.
    pub done: &'a AtomicU64,
    /// Set from outside to end the work soon.
    pub stop: &'a AtomicBool,
    /// Sees all bytes as they are read: their image offset, and the bytes. An error ends the work.
    pub tee: Option<&'a Tee<'a>>,
}

/// Takes bytes of the image on the side.
pub type Tee<'a> = dyn Fn(u64, &[u8]) -> anyhow::Result<()> + Sync + 'a;

/// Bytes of a lane's slice. Sixteen of them are twice a core's second-level cache of 1 MiB and come
/// back from the third level in time; slices of 64 KiB were 3 % slower, those of 16 KiB a fifth, for
/// the system calls, and 256 KiB were no faster.
const SLICE_LEN: usize = 128 << 10;

/// What one lane reads at once when there is only one: then the cache is no concern.
const SLICE_LEN_ALONE: usize = 256 << 10;

/// Bytes of the image that may be asked for and not yet hashed. They lie in the page cache; when
/// memory is short the window is a quarter of what is available, and lanes become fewer.
const WINDOW_LEN_MAX: u64 = 1 << 30;

impl Hashing<'_> {
    /// Hashes every piece and calls `each` with the index and the result, in no fixed order, from
    /// several threads. Goes on after a piece that cannot be read unless `each` says `false`.
    ///
    /// # Errors
    /// What the tee answered. Unreadable pieces are told to `each`.
    pub fn run(
        &self,
        each: impl Fn(u64, Result<Digest, StoreError>) -> bool + Sync,
    ) -> anyhow::Result<()> {
        let pieces = self.image_len.div_ceil(u64::from(self.piece_len));
        let shape = Shape::choose(self.piece_len, pieces, window_len());
        let queue = Queue::new(pieces, shape);
        let failure = OnceLock::new();
        thread::scope(|scope| {
            let ahead = thread::Builder::new().name("read ahead".into());
            let running = ahead.spawn_scoped(scope, || {
                while let Some(piece) = queue.next_to_prefetch() {
                    self.store.prefetch(self.piece_range(piece));
                    queue.prefetched(piece);
                }
            });
            if running.is_err() {
                // Reading ahead only saves time: without its thread the workers read by themselves.
                queue.prefetched(pieces.saturating_sub(1));
            }
            for number in 0..shape.workers {
                let worker = || {
                    let mut lanes = Lanes::new(shape.lanes);
                    while let Some(group) = queue.claim() {
                        if self.stop.load(Ordering::Relaxed) {
                            queue.close();
                        } else if let Err(error) = self.group(group, &mut lanes, &queue, &each) {
                            let _ = failure.set(error);
                            queue.close();
                        }
                    }
                };
                if number + 1 == shape.workers {
                    // The caller's own thread works too, so one worker is always there.
                    worker();
                } else {
                    let builder = thread::Builder::new().name(format!("hash {number}"));
                    let _ = builder.spawn_scoped(scope, worker);
                }
            }
        });
        failure.into_inner().map_or(Ok(()), Err)
    }

    fn piece_range(&self, piece: u64) -> Range<u64> {
        let start = piece * u64::from(self.piece_len);
        start..(start + u64::from(self.piece_len)).min(self.image_len)
    }

    /// Hashes the pieces of `group` side by side, slice by slice.
    fn group(
        &self,
        group: Range<u64>,
        lanes: &mut Lanes,
        queue: &Queue,
        each: &(impl Fn(u64, Result<Digest, StoreError>) -> bool + Sync),
    ) -> anyhow::Result<()> {
        lanes.start(group.map(|piece| Lane { piece, left: self.piece_range(piece), error: None }));
        while !lanes.active.is_empty() {
            if self.stop.load(Ordering::Relaxed) || queue.is_closed() {
                return Ok(());
            }
            lanes.read_slices(self)?;
            while let Some((piece, result)) = lanes.take_finished() {
                if !each(piece, result) {
                    queue.close();
                }
            }
        }
        Ok(())
    }
}

/// How the work is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    workers: u64,
    /// Pieces of a group.
    lanes: u64,
    /// Pieces that may be asked for before they are claimed.
    ahead: u64,
}

impl Shape {
    /// As many lanes as are worth it, but not so many that the groups of all workers, and as many
    /// again read ahead, exceed the window; nor so many that a worker has nothing to do.
    fn choose(piece_len: u32, pieces: u64, window_len: u64) -> Shape {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get) as u64;
        let workers = cores.min(pieces).max(1);
        let held = window_len / u64::from(piece_len) / (2 * workers);
        let lanes = held.min(pieces.div_ceil(workers)).min(lanes_worth_it()).max(1);
        Shape { workers, lanes, ahead: lanes * workers }
    }
}

/// The fewest lanes that hash as fast as the CPU can, but for what measuring cannot tell: some CPUs
/// are as fast with four as with sixteen, and fewer lanes read with smaller strides.
fn lanes_worth_it() -> u64 {
    let plan = plan();
    let best = (1..=LANES_MAX).map(|lanes| plan.rate(lanes)).max().unwrap_or(0);
    let good = (1..LANES_MAX).find(|&lanes| plan.rate(lanes) >= best / 100 * 99);
    good.unwrap_or(LANES_MAX) as u64
}

/// A piece being hashed: what is left of it to read.
struct Lane {
    piece: u64,
    left: Range<u64>,
    error: Option<StoreError>,
}

/// The pieces that one worker hashes side by side, and the buffer for a slice of each.
struct Lanes {
    active: Vec<Lane>,
    /// `hashers[i]` is that of `active[i]`.
    hashers: Vec<Hasher>,
    buffer: Vec<u8>,
}

impl Lanes {
    fn new(lanes: u64) -> Lanes {
        let len = SLICE_LEN_ALONE.max(SLICE_LEN * lanes as usize);
        Lanes { active: Vec::new(), hashers: Vec::new(), buffer: vec![0; len] }
    }

    fn start(&mut self, lanes: impl Iterator<Item = Lane>) {
        self.active.clear();
        self.active.extend(lanes);
        self.hashers.clear();
        self.hashers.resize(self.active.len(), Hasher::new());
    }

    /// Reads the next slice of every lane and hashes them all.
    fn read_slices(&mut self, job: &Hashing<'_>) -> anyhow::Result<()> {
        let slice_len = (self.buffer.len() / self.active.len()).min(SLICE_LEN_ALONE);
        // Whole blocks of SHA-1, so that no lane has to keep a rest.
        let slice_len = slice_len / 64 * 64;
        let mut chunks: [&[u8]; LANES_MAX] = [&[]; LANES_MAX];
        let mut rest = &mut self.buffer[..];
        for (lane, chunk) in self.active.iter_mut().zip(&mut chunks) {
            // At most a slice, which fits in memory.
            let len = (lane.left.end - lane.left.start).min(slice_len as u64) as usize;
            let buf;
            (buf, rest) = rest.split_at_mut(len);
            match job.store.read_at(lane.left.start, buf) {
                Ok(()) => {
                    if let Some(tee) = job.tee {
                        tee(lane.left.start, buf)?;
                    }
                    lane.left.start += len as u64;
                    job.done.fetch_add(len as u64, Ordering::Relaxed);
                    *chunk = buf;
                }
                Err(error) => {
                    // The piece is lost, but the work counts as done: the display goes to its end.
                    job.done.fetch_add(lane.left.end - lane.left.start, Ordering::Relaxed);
                    lane.left.start = lane.left.end;
                    lane.error = Some(error);
                }
            }
        }
        update_many(&mut self.hashers, &chunks[..self.active.len()]);
        Ok(())
    }

    /// Takes out one lane that has come to its end, with its piece and the result.
    fn take_finished(&mut self) -> Option<(u64, Result<Digest, StoreError>)> {
        let index = self.active.iter().position(|lane| lane.left.is_empty())?;
        let lane = self.active.swap_remove(index);
        let digest = self.hashers.swap_remove(index).finish();
        Some((lane.piece, lane.error.map_or(Ok(digest), Err)))
    }
}

/// Which pieces have been asked for and which are claimed.
struct Queue {
    pieces: u64,
    shape: Shape,
    state: Mutex<QueueState>,
    changed: Condvar,
    closed: AtomicBool,
}

struct QueueState {
    /// Pieces below this one have been asked for.
    prefetched: u64,
    /// Pieces below this one belong to a worker.
    claimed: u64,
}

impl Queue {
    fn new(pieces: u64, shape: Shape) -> Queue {
        Queue {
            pieces,
            shape,
            state: Mutex::new(QueueState { prefetched: 0, claimed: 0 }),
            changed: Condvar::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// The next piece to ask for; waits while enough are asked for. `None` at the end.
    fn next_to_prefetch(&self) -> Option<u64> {
        let full = |s: &mut QueueState| {
            let may_be = s.claimed + self.shape.ahead;
            s.prefetched < self.pieces && s.prefetched >= may_be && !self.is_closed()
        };
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.changed.wait_while(state, full).unwrap_or_else(PoisonError::into_inner);
        (state.prefetched < self.pieces && !self.is_closed()).then_some(state.prefetched)
    }

    fn prefetched(&self, piece: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).prefetched = piece + 1;
        self.changed.notify_all();
    }

    /// The next group; waits until all of it has been asked for. `None` at the end.
    fn claim(&self) -> Option<Range<u64>> {
        let group_end = |s: &QueueState| (s.claimed + self.shape.lanes).min(self.pieces);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self
            .changed
            .wait_while(state, |s| s.prefetched < group_end(s) && !self.is_closed())
            .unwrap_or_else(PoisonError::into_inner);
        if state.claimed == self.pieces || self.is_closed() {
            return None;
        }
        let group = state.claimed..group_end(&state);
        state.claimed = group.end;
        self.changed.notify_all();
        Some(group)
    }

    /// Nothing more is handed out.
    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // Whoever waits has looked at `closed` under this lock, so nobody sleeps through it.
        drop(self.state.lock());
        self.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

/// How much may be read ahead: see [`WINDOW_LEN_MAX`].
fn window_len() -> u64 {
    memory_available().map_or(WINDOW_LEN_MAX / 4, |len| (len / 4).min(WINDOW_LEN_MAX))
}

/// Bytes that can be used without pushing anything out: what the machine has, or what the control
/// group leaves, whichever is less. `None` if `/proc` does not tell.
pub(crate) fn memory_available() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)?;
    Some(cgroup_limit().map_or(machine, |limit| limit.min(machine)))
}

/// `memory.max` of the control group (version 2) this process is in, or of one above it.
fn cgroup_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let group = std::path::Path::new("/sys/fs/cgroup").join(own);
    group
        .ancestors()
        .take_while(|dir| dir.starts_with("/sys/fs/cgroup"))
        .filter_map(|dir| std::fs::read_to_string(dir.join("memory.max")).ok())
        .filter_map(|text| text.trim().parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha1::digest;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::io;

    /// Bytes in memory; a part of them can be made unreadable.
    struct Memory {
        bytes: Vec<u8>,
        broken: Range<u64>,
        prefetched: Mutex<Vec<u64>>,
    }

    impl Store for Memory {
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
            let end = offset + buf.len() as u64;
            if offset < self.broken.end && self.broken.start < end {
                let (path, error) = ("memory".into(), io::Error::from_raw_os_error(5));
                return Err(StoreError {
                    what: "read",
                    path,
                    offset,
                    len: buf.len() as u64,
                    error,
                });
            }
            buf.copy_from_slice(&self.bytes[offset as usize..end as usize]);
            Ok(())
        }

        fn prefetch(&self, range: Range<u64>) {
            self.prefetched.lock().unwrap().push(range.start);
        }
    }

    fn memory(len: usize, broken: Range<u64>) -> Memory {
        let bytes = (0..len).map(|i| ((i * i) >> 7) as u8).collect();
        Memory { bytes, broken, prefetched: Mutex::default() }
    }

    fn run(store: &Memory, piece_len: u32) -> (BTreeMap<u64, Result<Digest, String>>, u64) {
        let done = AtomicU64::new(0);
        let results = Mutex::new(BTreeMap::new());
        let job = Hashing {
            store,
            image_len: store.bytes.len() as u64,
            piece_len,
            done: &done,
            stop: &AtomicBool::new(false),
            tee: None,
        };
        job.run(|piece, result| {
            results.lock().unwrap().insert(piece, result.map_err(|e| e.to_string()));
            true
        })
        .unwrap();
        (results.into_inner().unwrap(), done.into_inner())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_piece_has_the_hash_of_its_bytes(
            len in 1_usize..3_000_000, piece_len in 16_384_u32..400_000,
        ) {
            let store = memory(len, 0..0);
            let (results, done) = run(&store, piece_len);
            let wanted: BTreeMap<u64, _> = store.bytes.chunks(piece_len as usize)
                .map(|piece| Ok(digest(piece))).zip(0..).map(|(d, i)| (i, d)).collect();
            prop_assert_eq!(results, wanted);
            prop_assert_eq!(done, len as u64);
            prop_assert!(store.prefetched.into_inner().unwrap().is_sorted());
        }
    }

    #[test]
    fn a_piece_that_cannot_be_read_does_not_stop_the_others() {
        let store = memory(1_000_000, 130_000..130_001);
        let (results, done) = run(&store, 65_536);
        let failed: Vec<_> = results.iter().filter(|(_, r)| r.is_err()).map(|(i, _)| *i).collect();
        assert_eq!(failed, [1]);
        assert_eq!((results.len(), done), (16, 1_000_000));
    }

    #[test]
    fn the_caller_can_end_the_work() {
        let store = memory(10_000_000, 0..0);
        let seen = AtomicU64::new(0);
        let job = Hashing {
            store: &store,
            image_len: 10_000_000,
            piece_len: 16_384,
            done: &AtomicU64::new(0),
            stop: &AtomicBool::new(false),
            tee: None,
        };
        job.run(|_, _| {
            seen.fetch_add(1, Ordering::Relaxed);
            false
        })
        .unwrap();
        // Workers that were at it finish their groups at most.
        assert!(seen.into_inner() < 611);
    }

    #[test]
    fn an_error_of_the_tee_ends_the_work_and_is_returned() {
        let store = memory(1_000_000, 0..0);
        let job = Hashing {
            store: &store,
            image_len: 1_000_000,
            piece_len: 16_384,
            done: &AtomicU64::new(0),
            stop: &AtomicBool::new(false),
            tee: Some(&|offset, _| if offset > 100_000 { anyhow::bail!("full") } else { Ok(()) }),
        };
        assert_eq!(job.run(|_, _| true).unwrap_err().to_string(), "full");
    }

    #[test]
    fn lanes_become_fewer_when_memory_is_short() {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get) as u64;
        let lanes = |window| Shape::choose(16 << 20, 1_000_000, window).lanes;
        assert_eq!(lanes(64 << 30), lanes_worth_it());
        assert_eq!(lanes((16 << 20) * 2 * cores * 2), lanes_worth_it().min(2));
        assert_eq!(lanes(1), 1);
    }
}
