//! The decisions of one node: an [`Event`] in, [`Action`]s out.
//!
//! Time, chance and completed I/O are arguments; nothing here blocks, sleeps, or sees a byte of a
//! piece. One `Swarm` carries all torrents of the process, because the link, the buffers and the
//! disk are the node's.
//!
//! Among our own nodes nobody queues at a busy sender. A sender grants a few turns at a time
//! (`send`), each for one piece, to whoever has least on its way; the receiver decides which piece
//! (`receive`, `picker`) and asks for all of it at once. A source decides itself, so that
//! it sends everything once before it sends anything twice (`inject`). Strangers get the choking
//! and unchoking they know.
//!
//! | file | decides |
//! |---|---|
//! | `connect` | who somebody is, what they have, what they are told |
//! | `receive` | what to ask for, from whom, when to give up |
//! | `send` | who may ask, for how much, for how long |
//! | `inject` | the order of a source |
//! | `keep` | verified, stored, in memory, announced; wrong pieces and whom to blame |
//! | `caps` | what a person, or a tool, allows at the most |
//! | `metadata` | who is handed the torrent itself |
//! | `patience` | how long a silence is on a link that is slower than what was asked for |
//! | `tick` | what happens because time passes |

mod caps;
mod check;
mod connect;
mod inject;
mod keep;
mod metadata;
mod patience;
mod peer;
mod receive;
mod send;
mod tick;
mod torrent;

pub use caps::Caps;
pub use torrent::UNIT;

use crate::time::Time;
use crate::wire::Message;
use crate::wire::pex::Pex;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;
use patience::Patience;
use peer::{Meter, Peer};
use torrent::Torrent;

/// A torrent of this node. The caller numbers them and uses no number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TorrentId(pub u32);

/// How fast a peer sends, beside us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uplink {
    /// Less than half: acknowledgements of what it is sent wait behind what it sends itself, and say
    /// little about the way there.
    Slower,
    /// Somewhere between, or not known.
    #[default]
    Alike,
    /// More than twice: what waits in front of our link keeps our acknowledgements, and it from sending.
    Faster,
}

/// A connection. The caller numbers them and uses no number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerId(pub u32);

/// What a node is allowed and what it is told about itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which node this is among all, for example its peer id hashed.
    pub node: u64,
    /// Turns a node of median uplink has given out at any time.
    pub slots: u32,
    /// Pieces on their way at the least and at the most; the bytes have their own bound.
    pub in_flight: (u32, u32),
    /// Bytes of pieces in memory: on their way, not written yet, or kept for others. At least two
    /// pieces of the largest torrent.
    pub budget: u64,
    /// Uplink in bytes a second; 0 if not known, then it is learnt.
    pub uplink: u64,
    /// Downlink in bytes a second; 0 if not known, then it is learnt.
    pub downlink: u64,
    /// Largest block to send and to ask for, in bytes.
    pub block_max: u32,
    /// How long announcements of pieces may be gathered.
    pub gather: Duration,
    /// Connections of a torrent that are enough: below, more peers are asked for.
    pub peers_enough: u32,
    /// Listening port, told to peers.
    pub port: Option<u16>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            node: 0,
            slots: 8,
            in_flight: (18, 24),
            budget: 128 << 20,
            uplink: 0,
            downlink: 0,
            block_max: 1 << 20,
            gather: Duration::from_millis(1),
            peers_enough: 24,
            port: None,
        }
    }
}

/// What is already here of a torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Everything, and it is what others shall get first.
    Source,
    /// Nothing.
    Empty,
    /// Unknown: an [`Event::Found`] or [`Event::NotFound`] for each piece will tell.
    Unknown,
}

/// A torrent as the swarm sees it.
#[derive(Clone, Copy, Debug)]
pub struct TorrentSpec {
    /// Bytes of the image, at least 1.
    pub len: u64,
    /// Bytes of a piece, at least 16 KiB, a multiple of it.
    pub piece_len: u32,
    /// What is here.
    pub start: Start,
    /// Its peers are told of nobody, and nobody is taken from them (BEP 27); nor is anybody handed
    /// the torrent itself, which private trackers hand out.
    pub private: bool,
    /// Bytes of the `info` dictionary, which others may ask for (BEP 9); 0 if there is none.
    pub metadata_len: u32,
}

/// All that can happen to a node.
#[derive(Clone, Debug)]
pub enum Event {
    /// A torrent is to be carried.
    Add(TorrentId, TorrentSpec),
    /// From now on it keeps to these bounds.
    Cap(TorrentId, Caps),
    /// It is to be left alone until `Resume`: nothing is asked for, nothing served.
    Pause(TorrentId),
    /// It goes on.
    Resume(TorrentId),
    /// It is to be forgotten, its connections closed.
    Remove(TorrentId),
    /// Hashing found this piece on the medium.
    Found(TorrentId, u32),
    /// Hashing did not find this piece on the medium.
    NotFound(TorrentId, u32),
    /// Handshakes were exchanged.
    Connected {
        /// The new connection.
        peer: PeerId,
        /// What it is about.
        torrent: TorrentId,
        /// Which program it is: its peer id hashed.
        node: u64,
        /// Both sides know BEP 6.
        fast: bool,
        /// Both sides know BEP 10.
        extended: bool,
    },
    /// Which machine a connection comes from: those with the same number and torrent are served as
    /// one while somebody else lacks something, however many they are.
    From(PeerId, u64),
    /// A connection is gone.
    Disconnected(PeerId),
    /// The peer said this. Requests, cancellations and blocks are the reader's and the outbox's;
    /// they come as the events below.
    Message(PeerId, Message),
    /// The peer asked for so many bytes of this piece. Told before they can be served: what the outbox refuses
    /// then is [`Dropped`](Event::Dropped).
    Requested(PeerId, u32, u64),
    /// So many bytes of blocks were handed to the peer's socket.
    Served(PeerId, u64),
    /// Requests of so many bytes were cancelled, refused or dropped after the outbox took them.
    Dropped(PeerId, u64),
    /// These bytes of a piece came, asked for and whole: the first copy is kept, others are not.
    Received {
        /// From whom.
        peer: PeerId,
        /// Of which piece.
        piece: u32,
        /// Offset in the piece, a multiple of [`UNIT`].
        begin: u32,
        /// Bytes: whole units, or up to the end of the piece.
        len: u32,
    },
    /// [`Action::Verify`] is done: whether the piece is right.
    Verified(TorrentId, u32, bool),
    /// [`Action::Store`] is done.
    Stored(TorrentId, u32),
    /// A piece that was here cannot be read.
    Unreadable(TorrentId, u32),
    /// A stored piece does not read back as it was written: it is to be fetched and stored once more.
    Spoilt(TorrentId, u32),
    /// Nothing happened, but [`Swarm::next_timeout`] has come.
    Tick,
}

/// All that can have to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say this, in order with other messages, before queued blocks.
    Send(PeerId, Message),
    /// See [`Outbox::allow`](crate::outbox::Outbox::allow).
    Allow(PeerId, u64),
    /// See [`Outbox::deny`](crate::outbox::Outbox::deny). What it drops is known: no
    /// [`Event::Dropped`] for it.
    Deny(PeerId),
    /// Ask for these bytes, which are to be received into memory of their own.
    Request(PeerId, Run),
    /// These bytes are here or no longer awaited from this peer: send cancellations for the blocks
    /// asked of it that lie inside. If they still come they are thrown away.
    Cancel(PeerId, Run),
    /// All bytes of this piece were received: hash it.
    Verify(TorrentId, u32),
    /// This piece is right: write it. It can be served from now on.
    Store(TorrentId, u32),
    /// This piece is stored; its memory is wanted.
    Release(TorrentId, u32),
    /// Throw away what was received of this piece.
    Discard(TorrentId, u32),
    /// Every piece is stored.
    Finished(TorrentId),
    /// End the connection; the swarm has forgotten it.
    Close(PeerId, Reason),
    /// More connections would help.
    MorePeers(TorrentId),
    /// How the peer's uplink compares with ours.
    Uplink(PeerId, Uplink),
    /// The peer of a torrent that is not private has introduced itself.
    Met {
        /// Who.
        peer: PeerId,
        /// The id it wants `ut_pex` messages (BEP 11) with; `None` if it wants none.
        pex_id: Option<u8>,
        /// Where it listens, if it says so.
        port: Option<u16>,
    },
    /// The peer tells of others, who may be anybody.
    Pex(PeerId, Pex),
    /// Send the peer this piece of the `info` dictionary, or refuse it if too much waits to be sent.
    Metadata {
        /// Whom.
        peer: PeerId,
        /// The id it wants `ut_metadata` messages (BEP 9) with.
        id: u8,
        /// Which piece; it exists.
        piece: u32,
    },
    /// This peer alone sent this piece, and it was wrong. It is not asked for it again for a while;
    /// nothing is to be done but to tell.
    Wrong(TorrentId, PeerId, u32),
    /// Somebody got this piece from here, and it was wrong: read it, and if it is not right any more
    /// say so with [`Event::Unreadable`]. No answer is waited for.
    Recheck(TorrentId, u32),
}

pub use crate::outbox::Run;

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It broke the protocol; what it said, for the log.
    Nonsense(&'static str),
    /// It sent wrong pieces.
    Corrupt,
    /// It promised and did not send, again and again.
    Silent,
    /// Neither side has what the other lacks.
    Useless,
    /// The torrent was removed here.
    Removed,
    /// It has as many connections as its [`Caps`] allow.
    Full,
}

/// How far a torrent is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many pieces there are.
    pub pieces: u32,
    /// Right, stored or not.
    pub verified: u32,
    /// On the medium.
    pub stored: u32,
    /// On their way or being written.
    pub in_flight: u32,
    /// Cannot be read here.
    pub unreadable: u32,
    /// Missing, and no connected peer has them.
    pub nowhere: u32,
    /// Connected peers.
    pub peers: u32,
    /// Of these, peers that want something of us now.
    pub interested: u32,
}

/// What this node has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of blocks handed to sockets.
    pub sent: u64,
    /// Bytes of blocks received.
    pub received: u64,
    /// Of these, bytes that were here already.
    pub wasted: u64,
    /// Grants given.
    pub granted: u64,
    /// Grants given back at least in part.
    pub declined: u64,
    /// Grants taken back.
    pub revoked: u64,
    /// Leases given up for want of progress.
    pub stalled: u64,
    /// Pieces that were wrong.
    pub corrupt: u64,
    /// Control messages.
    pub messages: u64,
}

/// The decisions of one node.
#[derive(Debug)]
pub struct Swarm {
    config: Config,
    now: Time,
    torrents: BTreeMap<TorrentId, Torrent>,
    peers: BTreeMap<PeerId, Peer>,
    out: Vec<Action>,
    /// Something changed that interest or grants may depend on.
    dirty: bool,
    /// Grants given out and not over.
    slots_used: u32,
    /// Pieces in flight that are wanted at the moment: between the bounds of the configuration.
    cap: u32,
    /// Pieces active, or verified and not stored.
    in_flight: u32,
    /// Their bytes, and those of duplicates.
    in_flight_bytes: u64,
    /// Stored and still in memory, oldest first.
    window: VecDeque<(TorrentId, u32)>,
    window_bytes: u64,
    /// When gathered announcements are due.
    news_at: Option<Time>,
    ticked: Time,
    down: Meter,
    up: Meter,
    /// Since when there was always something to send, of pieces that are whole here.
    busy: Option<Time>,
    /// That has lasted, so `up` tells what our uplink can do and not only what was asked of it.
    proven: bool,
    /// How long a peer takes from our grant to its request: one round trip, smoothed.
    reply: Duration,
    /// How likely a grant is taken up, of 256, smoothed.
    likely: u32,
    /// Since when the cap, and nothing else, keeps us from asking for more.
    capped: Duration,
    adapted: Time,
    rate_told: (Time, u64),
    patience: Patience,
    totals: Totals,
}

impl Swarm {
    /// A node without torrents.
    #[must_use]
    pub fn new(config: Config) -> Swarm {
        let cap = config.in_flight.0;
        Swarm {
            config,
            now: Time(0),
            torrents: BTreeMap::new(),
            peers: BTreeMap::new(),
            out: Vec::new(),
            dirty: false,
            slots_used: 0,
            cap,
            in_flight: 0,
            in_flight_bytes: 0,
            window: VecDeque::new(),
            window_bytes: 0,
            news_at: None,
            ticked: Time(0),
            down: Meter::default(),
            up: Meter::default(),
            busy: None,
            proven: false,
            reply: Duration::ZERO,
            likely: 256,
            capped: Duration::ZERO,
            adapted: Time(0),
            rate_told: (Time(0), 0),
            patience: Patience::default(),
            totals: Totals::default(),
        }
    }

    /// Takes `event` in and appends to `out` what shall be done about it, in this order.
    ///
    /// Events about peers and torrents that are not (or no longer) known are ignored: threads
    /// report what they did after the swarm has forgotten why.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Action>) {
        self.now = self.now.max(now);
        self.dispatch(event);
        if self.dirty {
            self.settle();
        }
        out.append(&mut self.out);
    }

    /// When [`Event::Tick`] is due if nothing happens before.
    #[must_use]
    pub fn next_timeout(&self) -> Time {
        // Alone and lacking something, it still asks for peers.
        let lacks = self.torrents.values().any(|torrent| !torrent.have.all());
        let idle = self.peers.is_empty() && !lacks;
        let tick = if idle { Time::NEVER } else { self.ticked + TICK };
        tick.min(self.news_at.unwrap_or(Time::NEVER))
    }

    /// How far `torrent` is; `None` if it is not known.
    #[must_use]
    pub fn progress(&self, torrent: TorrentId) -> Option<Progress> {
        let torrent = self.torrents.get(&torrent)?;
        let unreadable = torrent.states.iter().filter(|s| **s == torrent::State::Unreadable);
        Some(Progress {
            pieces: torrent.pieces(),
            verified: torrent.have.count(),
            stored: torrent.stored,
            in_flight: torrent.in_flight,
            // Both are below 2^32 as there are at most that many pieces and peers.
            unreadable: unreadable.count() as u32,
            nowhere: torrent.nowhere(),
            peers: torrent.peers.len() as u32,
            interested: torrent
                .peers
                .iter()
                .filter(|peer| self.peers.get(peer).is_some_and(|peer| peer.interested))
                .count() as u32,
        })
    }

    /// What was done so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Add(id, spec) => self.add(id, &spec),
            Event::Cap(id, caps) => self.set_caps(id, caps),
            Event::Pause(id) => self.pause(id, true),
            Event::Resume(id) => self.pause(id, false),
            Event::Remove(id) => self.remove(id),
            Event::Found(id, piece) => self.on_found(id, piece, true),
            Event::NotFound(id, piece) => self.on_found(id, piece, false),
            Event::Connected { peer, torrent, node, fast, extended } => {
                self.on_connected(peer, torrent, node, fast, extended);
            }
            Event::From(peer, machine) => self.on_from(peer, machine),
            Event::Disconnected(peer) => self.forget(peer),
            Event::Message(peer, message) => self.on_message(peer, message),
            Event::Requested(peer, piece, bytes) => self.on_requested(peer, piece, bytes),
            Event::Served(peer, bytes) => self.on_served(peer, bytes, true),
            Event::Dropped(peer, bytes) => self.on_served(peer, bytes, false),
            Event::Received { peer, piece, begin, len } => {
                self.on_received(peer, piece, begin, len);
            }
            Event::Verified(id, piece, right) => self.on_verified(id, piece, right),
            Event::Stored(id, piece) => self.on_stored(id, piece),
            Event::Unreadable(id, piece) => self.on_unreadable(id, piece),
            Event::Spoilt(id, piece) => self.on_spoilt(id, piece),
            Event::Tick => {}
        }
        if self.now >= self.ticked + TICK {
            self.tick();
        }
        if self.news_at.is_some_and(|at| at <= self.now) {
            self.announce();
        }
    }

    /// After something changed: gives turns out, and tells peers whether we want one.
    fn settle(&mut self) {
        self.fill_slots();
        self.ask_strangers();
        self.tell_interest();
        // Asking changes what interest depends on, but that has just been told.
        self.dirty = false;
    }

    fn send(&mut self, peer: PeerId, message: Message) {
        self.totals.messages += 1;
        self.out.push(Action::Send(peer, message));
    }

    fn add(&mut self, id: TorrentId, spec: &TorrentSpec) {
        assert!(spec.len > 0 && spec.piece_len >= UNIT, "a torrent of no or tiny pieces: {spec:?}");
        assert!(spec.piece_len.is_multiple_of(UNIT), "pieces of whole units: {spec:?}");
        assert!(
            u64::from(spec.piece_len) * 2 <= self.config.budget,
            "the byte budget must hold two pieces: {spec:?}"
        );
        let mut torrent = Torrent::new(spec);
        // A newcomer does not owe the others what they got before it came.
        torrent.virtual_time = self.torrents.values().map(|t| t.virtual_time).max().unwrap_or(0);
        let fresh = self.torrents.insert(id, torrent).is_none();
        assert!(fresh, "torrent {id:?} is added twice");
    }

    fn pause(&mut self, id: TorrentId, paused: bool) {
        let Some(torrent) = self.torrents.get_mut(&id) else { return };
        torrent.paused = paused;
        self.dirty = true;
        if paused {
            let peers: Vec<PeerId> = torrent.peers.iter().copied().collect();
            for peer in peers {
                self.revoke(peer);
                self.drop_leases(peer, true);
            }
        }
    }

    fn remove(&mut self, id: TorrentId) {
        let Some(torrent) = self.torrents.get(&id) else { return };
        let peers: Vec<PeerId> = torrent.peers.iter().copied().collect();
        for peer in peers {
            self.close(peer, Reason::Removed);
        }
        self.drop_torrent(id);
    }

    fn close(&mut self, peer: PeerId, why: Reason) {
        if self.peers.contains_key(&peer) {
            self.forget(peer);
            self.out.push(Action::Close(peer, why));
        }
    }
}

/// How often what depends on time alone is looked at.
const TICK: Duration = Duration::from_millis(25);

#[cfg(test)]
mod tests;
