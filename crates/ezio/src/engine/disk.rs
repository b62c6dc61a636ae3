//! A few threads that hash and write pieces, so that nobody waits for a disk who need not.

use super::pieces::Piece;
use super::{Carried, Input, Inputs};
use crate::sha1::{Digest, Hasher};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Work for the disk threads. It never holds more than the swarm's budget of pieces, for each job
/// is about a piece in flight: whoever adds to it never waits.
#[derive(Default)]
pub(super) struct Disk {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// Something to do with the bytes of a torrent.
pub(super) enum Job {
    /// Compare the piece with its hash.
    Verify(Arc<Carried>, u32, Arc<Piece>),
    /// Write the piece, which is right.
    Store(Arc<Carried>, u32, Arc<Piece>),
    /// Every piece is written: bring all to the medium.
    Finish(Arc<Carried>),
}

impl Disk {
    /// Adds a job. Hashes go first: a piece that is verified can be passed on.
    pub(super) fn push(&self, job: Job) {
        let mut queue = self.lock();
        match job {
            Job::Verify(..) => queue.jobs.push_front(job),
            Job::Store(..) | Job::Finish(_) => queue.jobs.push_back(job),
        }
        drop(queue);
        self.changed.notify_one();
    }

    /// Ends the threads when nothing is left to do.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// One thread's life.
    pub(super) fn work(&self, inputs: &Inputs) {
        while let Some(job) = self.next() {
            let input = match job {
                Job::Verify(torrent, index, piece) => {
                    let right = hash(&piece) == torrent.metainfo.piece_hash(index);
                    Input::Verified { torrent: torrent.id, piece: index, right }
                }
                Job::Store(torrent, index, piece) => {
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
            };
            inputs.send(input);
        }
    }

    fn next(&self) -> Option<Job> {
        let empty = |queue: &mut Queue| queue.jobs.is_empty() && !queue.closed;
        let mut queue =
            self.changed.wait_while(self.lock(), empty).unwrap_or_else(PoisonError::into_inner);
        queue.jobs.pop_front()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(piece: &Piece) -> Digest {
    let mut hasher = Hasher::new();
    for part in piece.all() {
        hasher.update(part);
    }
    hasher.finish()
}
