//! A few threads that hash and write pieces, so that nobody waits for a disk who need not.

use super::pieces::Piece;
use super::{Carried, Input, Inputs};
use crate::sha1::{Digest, Hasher, LANES_MAX, update_many};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use swarm::swarm::TorrentId;

/// Work for the disk threads. It never holds more than the swarm's budget of pieces, for each job
/// is about a piece in flight: whoever adds to it never waits.
pub(super) struct Disk {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Told when a thread is done with the disk, for who waits until nothing of a torrent is written.
    written: Condvar,
    /// Bytes of pieces that are hashed side by side at most.
    together_max: u64,
}

#[derive(Default)]
struct Queue {
    /// To be compared with their hashes, the first come first.
    whole: VecDeque<Whole>,
    /// Bytes of `whole`.
    whole_bytes: u64,
    /// When the last of them came, and whether that was soon after the one before.
    last_came: Option<Instant>,
    more_will_come: bool,
    /// To be written, in the order in which they came.
    stores: VecDeque<Store>,
    /// Behind the piece that was given to the disk last.
    head: Place,
    /// How often the first of `stores` was overtaken.
    overtaken: usize,
    finishes: VecDeque<Arc<Carried>>,
    /// What threads are with the disk for.
    writing: Vec<TorrentId>,
    closed: bool,
}

/// A piece all of which has come.
struct Whole {
    torrent: Arc<Carried>,
    index: u32,
    piece: Arc<Piece>,
    since: Instant,
}

/// The number of a torrent, and a piece of it: so they lie on a disk of several partitions.
type Place = (u32, u32);

/// A piece that is right.
struct Store {
    torrent: Arc<Carried>,
    index: u32,
    piece: Arc<Piece>,
}

/// Something to do with a disk.
enum Job {
    Store(Store),
    Finish(Arc<Carried>),
}

/// What a thread does next.
enum Work {
    Hash(Vec<Whole>),
    Disk(Job),
}

/// Threads that hash and write. One never writes: a slow disk must not keep others from being
/// served with what has come.
pub(super) const THREADS: usize = 3;

/// How long a piece waits for others to be hashed beside it, if they come that fast: four pieces
/// side by side take as long as two one after the other. Our own nodes have been sent the piece by
/// then. At 1 Gbit/s a piece of 4 MiB comes every 35 ms.
const GATHER: Duration = Duration::from_millis(40);

impl Disk {
    /// No work yet. `budget`: bytes of pieces in memory, see [`swarm::swarm::Config::budget`].
    pub(super) fn new(budget: u64) -> Disk {
        // The other half is for what comes in and what is being written.
        let (changed, written) = (Condvar::new(), Condvar::new());
        Disk { queue: Mutex::default(), changed, written, together_max: budget / 2 }
    }

    /// Has a piece compared with its hash.
    pub(super) fn verify(&self, torrent: Arc<Carried>, index: u32, piece: Arc<Piece>) {
        let since = Instant::now();
        let mut queue = self.lock();
        let before = queue.last_came.replace(since);
        queue.more_will_come = before.is_some_and(|before| since - before < GATHER);
        queue.whole_bytes += piece.len();
        queue.whole.push_back(Whole { torrent, index, piece, since });
        drop(queue);
        self.changed.notify_one();
    }

    /// Has a piece written that is right.
    pub(super) fn store(&self, torrent: Arc<Carried>, index: u32, piece: Arc<Piece>) {
        self.lock().stores.push_back(Store { torrent, index, piece });
        self.changed.notify_one();
    }

    /// Has all that was written brought to the medium.
    pub(super) fn finish(&self, torrent: Arc<Carried>) {
        self.lock().finishes.push_back(torrent);
        self.changed.notify_one();
    }

    /// Forgets what waits of a torrent that nobody hears of any more.
    pub(super) fn forget(&self, torrent: TorrentId) {
        let mut queue = self.lock();
        let Queue { whole, stores, finishes, .. } = &mut *queue;
        whole.retain(|whole| whole.torrent.id != torrent);
        stores.retain(|store| store.torrent.id != torrent);
        finishes.retain(|finish| finish.id != torrent);
        queue.whole_bytes = queue.whole.iter().map(|whole| whole.piece.len()).sum();
    }

    /// Waits until nothing of a torrent, of which nothing waits, is being written.
    pub(super) fn wait_until_written(&self, torrent: TorrentId) {
        let writes = |queue: &mut Queue| queue.writing.contains(&torrent);
        let waited = self.written.wait_while(self.lock(), writes);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Ends the threads when nothing is left to do.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// One thread's life.
    pub(super) fn work(&self, inputs: &Inputs) {
        while let Some(work) = self.next() {
            match work {
                Work::Hash(pieces) => verify_all(&pieces, inputs),
                Work::Disk(job) => {
                    let torrent = job.torrent();
                    inputs.send(job.run());
                    self.lock().leave(torrent);
                    // One that is left waiting may have been kept from the disk.
                    self.changed.notify_one();
                    self.written.notify_all();
                }
            }
        }
    }

    /// Waits for something to do. `None` when nothing will come any more.
    fn next(&self) -> Option<Work> {
        let mut queue = self.lock();
        loop {
            let gathering = match queue.gathering(self.together_max) {
                Some(Duration::ZERO) => return Some(Work::Hash(queue.take(self.together_max))),
                gathering => gathering,
            };
            if queue.writing.len() < THREADS - 1
                && let Some(job) = queue.job()
            {
                queue.writing.push(job.torrent());
                return Some(Work::Disk(job));
            }
            if queue.closed && queue.whole.is_empty() && queue.is_written() {
                return None;
            }
            let wait = gathering.unwrap_or(Duration::MAX);
            let waited = self.changed.wait_timeout(queue, wait);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// How long those that are to be hashed wait for more; `None` if there are none.
    fn gathering(&self, bytes_max: u64) -> Option<Duration> {
        let first = self.whole.front()?;
        let full =
            self.whole.len() >= LANES_MAX || self.whole_bytes + first.piece.len() > bytes_max;
        if full || self.closed || !self.more_will_come {
            return Some(Duration::ZERO);
        }
        Some(GATHER.saturating_sub(first.since.elapsed()))
    }

    /// What the disk does next.
    fn job(&mut self) -> Option<Job> {
        if let Some(torrent) = self.finishes.pop_front() {
            return Some(Job::Finish(torrent));
        }
        let places = self.stores.iter().map(|store| (store.torrent.id.0, store.index));
        let next = if self.overtaken < OVERTAKEN_MAX { next(places, self.head)? } else { 0 };
        self.overtaken = if next == 0 { 0 } else { self.overtaken + 1 };
        let store = self.stores.remove(next)?;
        self.head = (store.torrent.id.0, store.index + 1);
        Some(Job::Store(store))
    }

    /// A thread that was with the disk for this torrent is not any more.
    fn leave(&mut self, torrent: TorrentId) {
        if let Some(at) = self.writing.iter().position(|&writing| writing == torrent) {
            self.writing.swap_remove(at);
        }
    }

    fn is_written(&self) -> bool {
        self.stores.is_empty() && self.finishes.is_empty()
    }

    /// As many as are hashed side by side.
    fn take(&mut self, bytes_max: u64) -> Vec<Whole> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.whole.front()
            && taken.len() < LANES_MAX
            && (taken.is_empty() || bytes + next.piece.len() <= bytes_max)
        {
            bytes += next.piece.len();
            taken.extend(self.whole.pop_front());
        }
        self.whole_bytes -= bytes;
        taken
    }
}

/// How often a piece that waits is overtaken by others: enough for some of them to lie side by side,
/// and not so long that a piece keeps its memory for a round of the image.
const OVERTAKEN_MAX: usize = 16;

/// Which of `places` the head of a disk comes to first that only goes forward, and then begins anew.
fn next(places: impl Iterator<Item = Place>, head: Place) -> Option<usize> {
    let (index, _) = places.enumerate().min_by_key(|(_, place)| (*place < head, *place))?;
    Some(index)
}

impl Job {
    fn torrent(&self) -> TorrentId {
        match self {
            Job::Store(store) => store.torrent.id,
            Job::Finish(torrent) => torrent.id,
        }
    }

    fn run(self) -> Input {
        match self {
            Job::Store(Store { torrent, index, piece }) => {
                let written = match &torrent.target {
                    Some(target) => target.write(torrent.piece_start(index), &piece.all()),
                    None => Ok(()),
                };
                Input::Stored { torrent: torrent.id, piece: index, written }
            }
            Job::Finish(torrent) => {
                let result = torrent.target.as_ref().map_or(Ok(()), |target| target.finish());
                Input::Finished { torrent: torrent.id, result }
            }
        }
    }
}

fn verify_all(pieces: &[Whole], inputs: &Inputs) {
    let bytes: Vec<Vec<&[u8]>> = pieces.iter().map(|whole| whole.piece.all()).collect();
    hash_all(&bytes, |place, digest| {
        let Whole { torrent, index, .. } = &pieces[place];
        let right = digest == torrent.metainfo.piece_hash(*index);
        inputs.send(Input::Verified { torrent: torrent.id, piece: *index, right });
    });
}

/// Bytes of each message that are hashed at once: see the same in `hashing`.
const STEP: usize = 128 << 10;

/// Hashes messages side by side, each of them parts laid end to end, and tells `each` its place
/// among them and its digest as soon as that is known.
fn hash_all(messages: &[Vec<&[u8]>], mut each: impl FnMut(usize, Digest)) {
    let mut lanes: Vec<Lane<'_>> = messages.iter().enumerate().map(Lane::new).collect();
    let mut hashers = vec![Hasher::new(); lanes.len()];
    loop {
        // The last first, so that what is moved to its place has been looked at.
        for lane in (0..lanes.len()).rev() {
            if lanes[lane].part.is_empty() {
                each(lanes.swap_remove(lane).place, hashers.swap_remove(lane).finish());
            }
        }
        let Some(step) = lanes.iter().map(|lane| lane.part.len()).min() else { return };
        let mut chunks: [&[u8]; LANES_MAX] = [&[]; LANES_MAX];
        for (lane, chunk) in lanes.iter_mut().zip(&mut chunks) {
            *chunk = lane.take(step.min(STEP));
        }
        update_many(&mut hashers, &chunks[..lanes.len()]);
    }
}

/// What is left to hash of a message.
struct Lane<'a> {
    place: usize,
    /// Empty only at the end.
    part: &'a [u8],
    rest: std::slice::Iter<'a, &'a [u8]>,
}

impl<'a> Lane<'a> {
    fn new((place, parts): (usize, &'a Vec<&'a [u8]>)) -> Lane<'a> {
        let mut lane = Lane { place, part: &[], rest: parts.iter() };
        lane.take(0);
        lane
    }

    /// The next `len` bytes, which the part has.
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, left) = self.part.split_at(len);
        self.part = left;
        while self.part.is_empty()
            && let Some(next) = self.rest.next()
        {
            self.part = next;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha1::digest;
    use proptest::prelude::*;

    #[test]
    fn a_disk_goes_forward_and_begins_anew() {
        let check = |head: u32, wanted: Option<usize>, places: &[(u32, u32)]| {
            assert_eq!(next(places.iter().copied(), (1, head)), wanted);
        };
        check(5, None, &[]);
        check(5, Some(1), &[(1, 9), (1, 5), (1, 7)]);
        check(5, Some(0), &[(2, 0), (1, 4)]);
        check(5, Some(2), &[(1, 4), (1, 3), (0, 7)]);
    }

    proptest! {
        #[test]
        fn pieces_of_any_parts_have_their_hashes_side_by_side(
            messages in proptest::collection::vec(
                proptest::collection::vec(0_usize..300_000, 0..5), 0..=LANES_MAX,
            ),
        ) {
            let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
            let messages: Vec<Vec<&[u8]>> = messages
                .iter()
                .map(|lens| lens.iter().map(|&len| &bytes[300_000 - len..]).collect())
                .collect();
            let mut found = vec![None; messages.len()];
            hash_all(&messages, |place, digest| assert_eq!(found[place].replace(digest), None));
            let wanted: Vec<_> = messages.iter().map(|m| Some(digest(&m.concat()))).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
