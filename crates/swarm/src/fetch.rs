//! Getting the `info` dictionary of a torrent of which only the hash is known from peers (BEP 9).
//!
//! Each attempt takes all of it from one peer, so whoever lies is known. One attempt runs; another
//! joins when that takes seconds, so that who is silent or slow costs seconds. Memory grows with
//! what has come, never with what was promised, and all attempts together have no more than the
//! caller allows one. Sockets and clocks are the caller's.

use crate::metainfo::Digest;
use crate::time::Time;
use crate::wire::metadata::METADATA_PIECE_LEN;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;
use sha1::{Digest as _, Sha1};

/// Most bytes of metadata that are ever taken, as many as a `.torrent` file may have.
pub const METADATA_LEN_MAX: u64 = 256 << 20;

/// A connection. The caller numbers them and uses no number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerId(pub u32);

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// There is a connection, with or without handshakes.
    Opened(PeerId),
    /// The peer introduced itself: the id it takes `ut_metadata` messages with, and how many bytes
    /// the metadata has.
    Hello(PeerId, Option<u8>, Option<u64>),
    /// The peer sent these bytes as this piece of the metadata.
    Data(PeerId, u32, &'a [u8]),
    /// The peer will not send this piece.
    Rejected(PeerId, u32),
    /// A connection is gone.
    Gone(PeerId),
    /// Nothing happened, but some tenths of a second have passed.
    Tick,
}

/// What shall be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the peer for this piece, with this id.
    Ask(PeerId, u8, u32),
    /// End the connection; it is forgotten here.
    Close(PeerId, Fault),
    /// This is it, its hash is right; the peer sent it. Nothing else will come.
    Whole(PeerId, Vec<u8>),
}

/// Why nothing more is wanted of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It says that it has none, or nothing about it.
    #[error("it does not hand out the torrent's metadata")]
    HasNone,
    /// It names a length that is impossible, or more than there is memory for.
    #[error(
        "it says that the metadata has {said} bytes, but at most {max} are taken with this machine's memory; \
         if it is right, give the .torrent file instead"
    )]
    Length {
        /// Bytes that it says there are.
        said: u64,
        /// Bytes that are taken.
        max: u64,
    },
    /// A piece that it was not asked for.
    #[error("it sent piece {0} of the metadata, which it was not asked for")]
    NotAsked(u32),
    /// A piece of another length than it must have.
    #[error("it sent {found} bytes as piece {piece} of the metadata, which has {wanted}")]
    PieceLength {
        /// Index of the piece.
        piece: u32,
        /// Bytes that came.
        found: usize,
        /// Bytes it must have.
        wanted: u32,
    },
    /// All of it came, but of something else.
    #[error("the metadata it sent has another SHA-1 than the info-hash")]
    Wrong,
    /// It refused.
    #[error("it refused to send the metadata")]
    Refused,
    /// It promised and did not send.
    #[error("it sent nothing for seconds")]
    Silent,
    /// Others are waiting who may be faster.
    #[error("it sent the metadata too slowly")]
    Slow,
}

impl Fault {
    /// Whether it is no use to ask this peer again.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Fault::HasNone | Fault::Refused | Fault::Silent | Fault::Slow)
    }
}

/// How far it is, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Connections.
    pub peers: u32,
    /// Of the attempt that has most: bytes that have come, and all it shall have.
    pub best: (u64, u64),
}

/// The decisions about one torrent's metadata.
#[derive(Debug)]
pub struct Fetch {
    info_hash: Digest,
    len_max: u64,
    peers: BTreeMap<PeerId, State>,
    /// When the last attempt began.
    begun: Option<Time>,
    over: bool,
}

#[derive(Debug)]
enum State {
    /// It has until then to introduce itself.
    Unknown(Time),
    /// It can be asked: with which id, for how many bytes.
    Ready(u8, u32),
    Asked(Attempt),
}

/// All of the metadata from one peer.
#[derive(Debug)]
struct Attempt {
    id: u8,
    len: u32,
    /// The next piece to ask for.
    next: u32,
    waiting: BTreeSet<u32>,
    pieces: BTreeMap<u32, Vec<u8>>,
    begun: Time,
    /// When something came.
    heard: Time,
}

impl Attempt {
    fn count(&self) -> u32 {
        self.len.div_ceil(METADATA_PIECE_LEN)
    }

    fn piece_len(&self, piece: u32) -> u32 {
        (self.len - piece * METADATA_PIECE_LEN).min(METADATA_PIECE_LEN)
    }

    /// Bytes that have come: 256 MiB at the most.
    fn came(&self) -> u64 {
        self.pieces.len() as u64 * u64::from(METADATA_PIECE_LEN)
    }

    /// Bytes a second, in thousandths of what would matter.
    fn rate(&self, now: Time) -> u64 {
        let ms = now.since(self.begun).as_millis().max(1);
        self.came().saturating_mul(1000) / u64::try_from(ms).unwrap_or(u64::MAX)
    }
}

impl Fetch {
    /// Nothing has come, nobody is known. At most `len_max` bytes are kept, and never more than
    /// [`METADATA_LEN_MAX`]: anybody can send as much, and only its hash says what it is.
    #[must_use]
    pub fn new(info_hash: Digest, len_max: u64) -> Fetch {
        let len_max = len_max.min(METADATA_LEN_MAX);
        Fetch { info_hash, len_max, peers: BTreeMap::new(), begun: None, over: false }
    }

    /// Takes `event` in and returns what shall be done about it, in this order.
    ///
    /// Events about peers that are not known any more are ignored.
    pub fn handle(&mut self, now: Time, event: Event<'_>) -> Vec<Action> {
        let mut out = Vec::new();
        if self.over {
            return out;
        }
        match event {
            Event::Opened(peer) => {
                self.peers.insert(peer, State::Unknown(now + HELLO_WITHIN));
            }
            Event::Hello(peer, id, len) => self.on_hello(peer, id, len, &mut out),
            Event::Data(peer, piece, bytes) => self.on_data(now, peer, piece, bytes, &mut out),
            // Only who is being asked can refuse.
            Event::Rejected(peer, _) => {
                if let Some(State::Asked(_)) = self.peers.get(&peer) {
                    self.close(peer, Fault::Refused, &mut out);
                }
            }
            Event::Gone(peer) => drop(self.peers.remove(&peer)),
            Event::Tick => self.tick(now, &mut out),
        }
        self.begin(now, &mut out);
        self.ask(&mut out);
        out
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let best = self.attempts().map(|(_, a)| (a.came().min(a.len.into()), a.len.into())).max();
        // The caller has as many sockets.
        Progress { peers: self.peers.len() as u32, best: best.unwrap_or_default() }
    }

    fn on_hello(&mut self, peer: PeerId, id: Option<u8>, len: Option<u64>, out: &mut Vec<Action>) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        // A second introduction may tell that it has got what it lacked, but not while it sends.
        if matches!(state, State::Asked(_)) {
            return;
        }
        let fault = match (id, len) {
            (Some(id), Some(len)) if (1..=self.len_max).contains(&len) => {
                // Checked just now.
                *state = State::Ready(id, len as u32);
                return;
            }
            (Some(_), Some(said)) => Fault::Length { said, max: self.len_max },
            _ => Fault::HasNone,
        };
        self.close(peer, fault, out);
    }

    fn on_data(
        &mut self,
        now: Time,
        peer: PeerId,
        piece: u32,
        bytes: &[u8],
        out: &mut Vec<Action>,
    ) {
        let fault = match self.peers.get_mut(&peer) {
            None => return,
            Some(State::Asked(attempt)) => attempt.take(now, piece, bytes).err(),
            Some(_) => Some(Fault::NotAsked(piece)),
        };
        match fault {
            Some(fault) => self.close(peer, fault, out),
            None => self.finish(peer, out),
        }
        self.keep_within(now, out);
    }

    /// Gives up the slowest attempt when all of them together have more than one may have.
    fn keep_within(&mut self, now: Time, out: &mut Vec<Action>) {
        let bytes: u64 = self.attempts().map(|(_, attempt)| attempt.came()).sum();
        let slowest = self.ranked(now).next().filter(|_| self.attempts().count() > 1);
        if let Some((peer, _)) = slowest
            && bytes > self.len_max
        {
            self.close(peer, Fault::Slow, out);
        }
    }

    /// Ends everything if `peer` has sent all of it, and the right thing.
    fn finish(&mut self, peer: PeerId, out: &mut Vec<Action>) {
        let Some(State::Asked(attempt)) = self.peers.get_mut(&peer) else { return };
        if attempt.pieces.len() < attempt.count() as usize {
            return;
        }
        let mut sha1 = Sha1::new();
        attempt.pieces.values().for_each(|piece| sha1.update(piece));
        if Digest::from(sha1.finalize()) != self.info_hash {
            return self.close(peer, Fault::Wrong, out);
        }
        let mut whole = Vec::with_capacity(attempt.len as usize);
        while let Some((_, piece)) = attempt.pieces.pop_first() {
            whole.extend(piece);
        }
        self.over = true;
        self.peers.clear();
        out.push(Action::Whole(peer, whole));
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Action>) {
        let silent = |state: &State| match state {
            State::Unknown(until) => now >= *until,
            State::Ready(..) => false,
            State::Asked(attempt) => now.since(attempt.heard) >= DATA_WITHIN,
        };
        let silent = self.peers.iter().filter(|(_, state)| silent(state)).map(|(&peer, _)| peer);
        for peer in silent.collect::<Vec<_>>() {
            self.close(peer, Fault::Silent, out);
        }
        let waiting = self.peers.values().any(|state| matches!(state, State::Ready(..)));
        let full = self.attempts().count() >= ATTEMPTS_MAX;
        if let Some((peer, age)) = self.ranked(now).next()
            && full
            && waiting
            && age >= SLOW_AFTER
        {
            self.close(peer, Fault::Slow, out);
        }
    }

    /// Whom we ask and since when, the slowest first.
    fn ranked(&self, now: Time) -> impl DoubleEndedIterator<Item = (PeerId, Duration)> + use<> {
        let key = |(peer, a): (PeerId, &Attempt)| (a.rate(now), peer, now.since(a.begun));
        let mut ranked: Vec<_> = self.attempts().map(key).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, peer, age)| (peer, age))
    }

    fn attempts(&self) -> impl Iterator<Item = (PeerId, &Attempt)> {
        self.peers.iter().filter_map(|(&peer, state)| match state {
            State::Asked(attempt) => Some((peer, attempt)),
            _ => None,
        })
    }

    /// Begins an attempt if there is none, or if the youngest has had its time.
    fn begin(&mut self, now: Time, out: &mut Vec<Action>) {
        let running = self.attempts().count();
        let patient = self.begun.is_some_and(|begun| now.since(begun) < NEXT_AFTER);
        if self.over || running >= ATTEMPTS_MAX || running > 0 && patient {
            return;
        }
        let ready = self.peers.iter_mut().find_map(|(_, state)| match *state {
            State::Ready(id, len) => Some((state, id, len)),
            _ => None,
        });
        let Some((state, id, len)) = ready else { return };
        let (waiting, pieces) = (BTreeSet::new(), BTreeMap::new());
        *state =
            State::Asked(Attempt { id, len, next: 0, waiting, pieces, begun: now, heard: now });
        self.begun = Some(now);
        self.ask(out);
    }

    /// Keeps some requests on their way to everybody we ask.
    fn ask(&mut self, out: &mut Vec<Action>) {
        for (&peer, state) in &mut self.peers {
            let State::Asked(attempt) = state else { continue };
            while attempt.next < attempt.count() && attempt.waiting.len() < WINDOW {
                out.push(Action::Ask(peer, attempt.id, attempt.next));
                attempt.waiting.insert(attempt.next);
                attempt.next += 1;
            }
        }
    }

    fn close(&mut self, peer: PeerId, why: Fault, out: &mut Vec<Action>) {
        if self.peers.remove(&peer).is_some() {
            out.push(Action::Close(peer, why));
        }
    }
}

impl Attempt {
    fn take(&mut self, now: Time, piece: u32, bytes: &[u8]) -> Result<(), Fault> {
        if !self.waiting.remove(&piece) {
            return Err(Fault::NotAsked(piece));
        }
        let wanted = self.piece_len(piece);
        if bytes.len() != wanted as usize {
            return Err(Fault::PieceLength { piece, found: bytes.len(), wanted });
        }
        self.pieces.insert(piece, bytes.to_vec());
        self.heard = now;
        Ok(())
    }
}

/// A connection, its handshake and the introduction: three round trips.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// A piece of 16 KiB takes 13 ms at 10 Mbit/s.
const DATA_WITHIN: Duration = Duration::from_secs(5);

/// An attempt may run alone for so long; torrents of 100 MB take a second at 1 Gbit/s.
const NEXT_AFTER: Duration = Duration::from_secs(3);

/// Nobody is sent away for being slow before.
const SLOW_AFTER: Duration = Duration::from_secs(10);

/// Attempts at a time.
const ATTEMPTS_MAX: usize = 4;

/// Requests on their way to one peer: 128 KiB a round trip. transmission lets 64 wait.
const WINDOW: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;
    use alloc::vec;

    /// Two pieces and a bit.
    const LEN: usize = 40_000;

    fn metadata() -> Vec<u8> {
        // Any bytes do.
        (0..LEN).map(|i| (i / 7) as u8).collect()
    }

    struct World {
        fetch: Fetch,
        now: Time,
    }

    impl World {
        fn new() -> World {
            World { fetch: Fetch::new(Sha1::digest(metadata()).into(), u64::MAX), now: Time(0) }
        }

        fn on(&mut self, event: Event<'_>) -> Vec<Action> {
            self.fetch.handle(self.now, event)
        }

        fn after(&mut self, seconds: u64) -> Vec<Action> {
            self.now = self.now + Duration::from_secs(seconds);
            self.on(Event::Tick)
        }

        /// A peer that has metadata of so many bytes.
        fn meet(&mut self, peer: u32, len: u64) -> Vec<Action> {
            self.on(Event::Opened(PeerId(peer)));
            self.on(Event::Hello(PeerId(peer), Some(7), Some(len)))
        }

        fn data(&mut self, peer: u32, piece: u32, bytes: &[u8]) -> Vec<Action> {
            self.on(Event::Data(PeerId(peer), piece, bytes))
        }

        /// The peer sends all that it is asked for of `bytes`; what that comes to.
        fn send_all(&mut self, peer: u32, bytes: &[u8]) -> Vec<Action> {
            let mut last = Vec::new();
            for (piece, bytes) in (0..).zip(bytes.chunks(16 << 10)) {
                last = self.data(peer, piece, bytes);
            }
            last
        }
    }

    fn ask(peer: u32, piece: u32) -> Action {
        Action::Ask(PeerId(peer), 7, piece)
    }

    fn close(peer: u32, why: Fault) -> Action {
        Action::Close(PeerId(peer), why)
    }

    #[test]
    fn it_is_got_from_one_peer() {
        let mut world = World::new();
        assert_eq!(world.meet(1, LEN as u64), [ask(1, 0), ask(1, 1), ask(1, 2)]);
        assert_eq!(world.meet(2, LEN as u64), [], "one is enough");
        assert_eq!(world.fetch.progress(), Progress { peers: 2, best: (0, LEN as u64) });
        assert_eq!(world.send_all(1, &metadata()), [Action::Whole(PeerId(1), metadata())]);
        assert_eq!(world.after(60), []);
    }

    #[test]
    fn no_more_is_asked_for_at_once_than_fits() {
        let mut world = World::new();
        let asked = world.meet(1, 20 << 14);
        assert_eq!(asked.len(), WINDOW);
        // In any order.
        assert_eq!(world.data(1, 3, &[0; 16 << 10]), [ask(1, 8)]);
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_anything_is_asked() {
        for len in [0, METADATA_LEN_MAX + 1, u64::MAX] {
            let length = Fault::Length { said: len, max: METADATA_LEN_MAX };
            assert_eq!(World::new().meet(1, len), [close(1, length)]);
        }
        let mut world = World::new();
        world.on(Event::Opened(PeerId(1)));
        assert_eq!(world.on(Event::Hello(PeerId(1), Some(7), None)), [close(1, Fault::HasNone)]);
        world.on(Event::Opened(PeerId(2)));
        assert_eq!(world.on(Event::Hello(PeerId(2), None, Some(9))), [close(2, Fault::HasNone)]);
    }

    #[test]
    fn more_than_there_is_memory_for_is_refused_with_both_numbers() {
        let mut world = World::new();
        world.fetch = Fetch::new([0; 20], LEN as u64);
        assert_eq!(world.meet(1, LEN as u64).len(), 3);
        let length = Fault::Length { said: LEN as u64 + 1, max: LEN as u64 };
        assert_eq!(world.meet(2, LEN as u64 + 1), [close(2, length)]);
        let said = length.to_string();
        assert!(said.contains("has 40001 bytes") && said.contains("at most 40000 are"), "{said}");
        assert!(said.contains("give the .torrent file"), "{said}");
    }

    /// Four who send nearly all of what they promise had four times as much kept.
    #[test]
    fn all_attempts_together_keep_no_more_than_one_may() {
        let mut world = World::new();
        let len = 100 << 14;
        world.fetch = Fetch::new([0; 20], len);
        (1..=4).for_each(|peer| drop(world.meet(peer, len)));
        let (mut next, mut most) = ([0_u32; 5], 0);
        for _ in 0..200 {
            let running: Vec<u32> = world.fetch.attempts().map(|(peer, _)| peer.0).collect();
            for peer in running {
                let piece = &mut next[peer as usize];
                if *piece < 99 {
                    world.data(peer, *piece, &[0; 16 << 10]);
                    *piece += 1;
                }
                most = most.max(world.fetch.attempts().map(|(_, a)| a.came()).sum());
            }
            world.after(1);
        }
        assert!(most > len / 2, "{most}: there was something to bound");
        assert!(most <= len, "{most} bytes, but at most {len} may be kept");
    }

    #[test]
    fn a_wrong_length_is_found_out_and_the_next_is_asked() {
        for wrong in [LEN - 1, LEN + 20_000, 5] {
            let mut world = World::new();
            world.meet(1, wrong as u64);
            world.meet(2, LEN as u64);
            let mut bytes = metadata();
            bytes.resize(wrong, 0);
            let actions = world.send_all(1, &bytes);
            assert_eq!(actions[0], close(1, Fault::Wrong), "{wrong}");
            assert_eq!(actions[1..], [ask(2, 0), ask(2, 1), ask(2, 2)]);
            let end = world.send_all(2, &metadata());
            assert_eq!(end, [Action::Whole(PeerId(2), metadata())]);
        }
    }

    #[test]
    fn one_wrong_byte_is_found_out() {
        let mut world = World::new();
        world.meet(1, LEN as u64);
        let mut bytes = metadata();
        bytes[LEN - 1] ^= 1;
        assert_eq!(world.send_all(1, &bytes), [close(1, Fault::Wrong)]);
    }

    #[test]
    fn pieces_that_nobody_asked_for_or_of_another_length_end_it() {
        let fault = |piece, bytes: &[u8]| {
            let mut world = World::new();
            world.meet(1, LEN as u64);
            world.data(1, 0, &metadata()[..16 << 10]);
            world.data(1, piece, bytes)
        };
        assert_eq!(fault(3, &[0; 5]), [close(1, Fault::NotAsked(3))]);
        assert_eq!(fault(0, &metadata()[..16 << 10]), [close(1, Fault::NotAsked(0))], "twice");
        let length = |piece, found, wanted| Fault::PieceLength { piece, found, wanted };
        assert_eq!(fault(1, &[0; 5]), [close(1, length(1, 5, 16 << 10))]);
        let last = LEN as u32 - (32 << 10);
        assert_eq!(fault(2, &[0; 16 << 10]), [close(1, length(2, 16 << 10, last))]);
        let mut world = World::new();
        world.meet(1, LEN as u64);
        world.meet(2, LEN as u64);
        assert_eq!(world.data(2, 0, &[]), [close(2, Fault::NotAsked(0))], "it is not asked yet");
    }

    #[test]
    fn who_is_silent_or_refuses_is_left_for_the_next() {
        let mut world = World::new();
        world.on(Event::Opened(PeerId(0)));
        world.meet(1, LEN as u64);
        world.after(2);
        assert_eq!(world.meet(2, LEN as u64), [], "the first has time left");
        assert_eq!(world.after(1), [ask(2, 0), ask(2, 1), ask(2, 2)]);
        assert_eq!(world.after(2), [close(1, Fault::Silent)]);
        assert_eq!(world.on(Event::Rejected(PeerId(2), 0)), [close(2, Fault::Refused)]);
        assert_eq!(world.after(5), [close(0, Fault::Silent)], "it did not even introduce itself");
        assert_eq!(world.fetch.progress(), Progress::default());
    }

    #[test]
    fn a_few_who_trickle_do_not_keep_the_others_waiting() {
        let mut world = World::new();
        let large = 1000 << 14;
        // Five who send a piece every four seconds, and behind them one that is honest.
        (1..=5).for_each(|peer| drop(world.meet(peer, large)));
        world.meet(6, LEN as u64);
        let (mut next, mut asked) = ([0_u32; 6], vec![]);
        for _ in 0..20 {
            let running: Vec<u32> = world.fetch.attempts().map(|(peer, _)| peer.0).collect();
            for peer in running.into_iter().filter(|&peer| peer <= 5) {
                world.data(peer, next[peer as usize], &[0; 16 << 10]);
                next[peer as usize] += 1;
            }
            asked = world.after(4);
            if asked.contains(&ask(6, 0)) {
                break;
            }
        }
        assert!(asked.contains(&ask(6, 0)), "it is never asked");
        let end = world.send_all(6, &metadata());
        assert_eq!(end, [Action::Whole(PeerId(6), metadata())]);
    }

    #[test]
    fn who_goes_is_forgotten_and_what_is_late_is_ignored() {
        let mut world = World::new();
        world.meet(1, LEN as u64);
        world.on(Event::Gone(PeerId(1)));
        assert_eq!(world.data(1, 0, &metadata()[..16 << 10]), []);
        assert_eq!(world.meet(2, LEN as u64).len(), 3, "the next is asked at once");
    }
}
