//! The engine: threads around [`swarm::swarm::Swarm`], which decides.
//!
//! | thread | does |
//! |---|---|
//! | `scheduler` | events into the swarm, its actions to the others; waits for nobody |
//! | `connect` | listens, dials, exchanges handshakes; no connection owns a thread before |
//! | `read ADDR`, `write ADDR` | one pair a connection: the bytes |
//! | `disk N` | hashes and writes pieces |
//! | `check` | hashes pieces that may be on the target already, while others come |
//!
//! A block goes from the socket into a buffer of its own, the buffer to the scheduler, and when its
//! piece is whole the piece to a disk thread; others are served from those buffers until the swarm
//! wants the memory back. A request is served by the connection's own two threads.

mod connect;
mod disk;
mod inputs;
mod link;
mod pace;
mod pex;
mod pieces;
mod reader;
mod recheck;
mod scheduler;
mod tcp;
mod throttle;
mod writer;

use crate::panics::or_abort;
use crate::store::{Store, StoreError, Target};
use connect::Connector;
pub(crate) use connect::listen_on_all as listen;
use disk::Disk;
use inputs::Inputs;
use pieces::{Arriving, Buffer, Piece};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use swarm::metainfo::{Digest, Metainfo};
use swarm::networks::Networks;
use swarm::swarm::{Caps, Config, Event, PeerId, TorrentId};
use swarm::wire::{BLOCK_LEN_MAX, Block, Handshake};
use throttle::Limits;

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Where to listen; ports may be 0.
    pub listen: Vec<SocketAddr>,
    /// Bytes of pieces in memory: see [`Config::budget`].
    pub budget: u64,
    /// Who may be talked to.
    pub networks: Networks,
    /// Bytes a second that may be sent, and as many that may be received; `None` for no limit.
    pub limit: Option<u64>,
}

/// A torrent to carry.
pub struct Job {
    /// What it is.
    pub metainfo: Arc<Metainfo>,
    /// Where its bytes are, or shall be.
    pub content: Content,
}

/// Where the bytes of a torrent are.
pub enum Content {
    /// All of them are here, to be read only.
    Source(Arc<dyn Store>),
    /// They are to be written here.
    Target {
        /// Takes verified pieces.
        target: Arc<dyn Target>,
        /// Pieces that may be here already, ascending: each is hashed before it is trusted. The
        /// others are taken to be missing, without looking.
        check: Vec<u32>,
    },
}

/// What the engine tells its owner.
#[derive(Debug)]
pub enum Notice {
    /// Every piece is on the medium, flushed, and was verified before it was written.
    Finished(Digest),
    /// Writing failed: this target will never be whole.
    Failed(Digest, StoreError),
    /// A source cannot give this piece.
    Unreadable(Digest, u32, StoreError),
    /// A piece that was right is not any more: what it is on has changed, or rots. Nobody gets it from
    /// here.
    Rotten(Digest, u32),
    /// This peer alone sent this piece, and it was wrong. Others are asked for it.
    Wrong(Digest, u32, SocketAddr),
    /// The torrent lacks peers; more are wanted.
    MorePeers(Digest),
}

/// How far the torrents are, as of some tenths of a second ago.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// One for each torrent.
    pub torrents: Vec<TorrentStatus>,
}

/// How far a torrent is.
#[derive(Clone, Debug, Default)]
pub struct TorrentStatus {
    /// Which.
    pub info_hash: Digest,
    /// Bytes of the image.
    pub image_len: u64,
    /// All its pieces.
    pub pieces: u32,
    /// Pieces that are right.
    pub verified: u32,
    /// Pieces that are written.
    pub stored: u32,
    /// Pieces that may be here already and have not been looked at.
    pub checking: u32,
    /// Bytes received and sent so far.
    pub received: u64,
    /// Bytes of blocks sent so far.
    pub sent: u64,
    /// Pieces that are missing and that no connected peer has.
    pub nowhere: u32,
    /// Connections.
    pub peers: u32,
    /// Connections to peers that want something of us now.
    pub peers_interested: u32,
    /// The connections one by one.
    pub connections: Vec<PeerStatus>,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Of the other end; where it listens is known only if we have dialled.
    pub addr: SocketAddr,
    /// Its peer id (BEP 20).
    pub peer_id: [u8; 20],
    /// Bytes of blocks that came from it.
    pub received: u64,
    /// Bytes of blocks that went to it.
    pub sent: u64,
}

impl TorrentStatus {
    /// Bytes of the image that are on the medium, to a piece.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let bytes = u128::from(self.image_len) * u128::from(self.stored);
        // At most the length of the image.
        bytes.checked_div(self.pieces.into()).unwrap_or(0) as u64
    }
}

/// A running node.
pub struct Engine {
    inputs: Inputs,
    shared: Arc<Shared>,
    connector: Arc<Connector>,
    disk: Arc<Disk>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    status: Arc<Mutex<Status>>,
}

/// Inputs that may wait for the scheduler. It takes one in a few microseconds, so this is some
/// milliseconds of work; readers, writers and disk threads wait when it is full. What peers' messages
/// have of bytes is bounded beside that, see [`inputs`].
const INPUTS_MAX: usize = 4096;

impl Engine {
    /// Starts a node without torrents. What it has to tell goes to `notices`.
    ///
    /// # Errors
    /// If an address cannot be listened on, or a thread not be started.
    pub fn start(
        config: &EngineConfig,
        notices: impl Fn(Notice) + Send + 'static,
    ) -> anyhow::Result<Engine> {
        let (inputs, receiver) = inputs::channel(INPUTS_MAX);
        let shared = Arc::new(Shared {
            peer_id: new_peer_id()?,
            torrents: RwLock::default(),
            limits: Limits::new(config.limit),
            links: AtomicUsize::new(0),
            uplink: AtomicU64::new(0),
        });
        let connector = Arc::new(Connector::bind(
            &config.listen,
            config.networks.clone(),
            Arc::clone(&shared),
        )?);
        let disk = Arc::new(Disk::new(config.budget));
        let status = Arc::new(Mutex::new(Status::default()));
        let mut threads = Vec::new();
        {
            let (connector, inputs) = (Arc::clone(&connector), inputs.clone());
            threads.push(spawn("connect", move || connector.run(&inputs))?);
        }
        for number in 0..disk::THREADS {
            let (disk, inputs) = (Arc::clone(&disk), inputs.clone());
            threads.push(spawn(&format!("disk {number}"), move || disk.work(&inputs))?);
        }
        let swarm_config = Config {
            node: node_of(&shared.peer_id),
            budget: config.budget,
            port: connector.port(),
            // Unknown rates are learnt.
            uplink: config.limit.unwrap_or(0),
            downlink: config.limit.unwrap_or(0),
            block_max: config.limit.map_or(BLOCK_LEN_MAX, throttle::block_max),
            ..Config::default()
        };
        let scheduler = scheduler::Scheduler::new(
            swarm_config,
            inputs.clone(),
            Arc::clone(&shared),
            Arc::clone(&connector),
            Arc::clone(&disk),
            Arc::clone(&status),
            Box::new(notices),
        );
        threads.push(spawn("scheduler", move || scheduler.run(receiver))?);
        Ok(Engine { inputs, shared, connector, disk, threads: Mutex::new(threads), status })
    }

    /// The addresses that are listened on.
    #[must_use]
    pub fn listening(&self) -> Vec<SocketAddr> {
        self.connector.listening()
    }

    /// The name this node has among its peers (BEP 20).
    #[must_use]
    pub fn peer_id(&self) -> [u8; 20] {
        self.shared.peer_id
    }

    /// Carries a torrent from now on: who connects about it after this is let in.
    ///
    /// # Errors
    /// If it is carried already, or its pieces are such that the swarm cannot work with them.
    pub fn add(&self, job: Job) -> anyhow::Result<()> {
        let piece_len = job.metainfo.piece_len();
        anyhow::ensure!(
            piece_len.is_multiple_of(swarm::swarm::UNIT),
            "the torrent's pieces of {piece_len} bytes are not made of whole blocks of 16 KiB"
        );
        let (done, added) = sync_channel(1);
        self.inputs.send(Input::Add(Box::new(job), done));
        // A scheduler that has ended answers nobody.
        let _ = added.recv();
        Ok(())
    }

    /// Tells of an address at which a peer of the torrent listens.
    pub fn found(&self, info_hash: Digest, addr: SocketAddr) {
        self.inputs.send(Input::FoundPeer { info_hash, addr });
    }

    /// Leaves a torrent alone until it is resumed: connections stay, nothing is asked for, nothing
    /// served. What is not carried is ignored.
    pub fn pause(&self, info_hash: Digest, paused: bool) {
        self.inputs.send(Input::Pause { info_hash, paused });
    }

    /// Bounds the connections of a torrent, and how many peers it serves at a time. What is not
    /// carried is ignored.
    pub fn cap(&self, info_hash: Digest, caps: Caps) {
        self.inputs.send(Input::Cap { info_hash, caps });
    }

    /// Another [`EngineConfig::limit`] from now on.
    pub fn limit(&self, rate: Option<u64>) {
        self.shared.limits.set(rate);
    }

    /// Fetches and stores pieces once more that do not read back as they were written;
    /// [`Notice::Finished`] comes again. What is not carried, or not stored, is ignored.
    pub fn fetch_again(&self, info_hash: Digest, pieces: Vec<u32>) {
        self.inputs.send(Input::FetchAgain { info_hash, pieces });
    }

    /// Forgets a torrent and ends its connections. What of it waits to be written is not written any
    /// more; what is being written is. What is not carried is ignored.
    pub fn remove(&self, info_hash: Digest) -> Removed {
        let torrent = self.shared.torrent(&info_hash).map(|carried| carried.id);
        let (done, removed) = sync_channel(1);
        self.inputs.send(Input::Remove(info_hash, done));
        // A scheduler that has ended answers nobody.
        let _ = removed.recv();
        if let Some(torrent) = torrent {
            self.disk.forget(torrent);
        }
        Removed { disk: Arc::clone(&self.disk), torrent }
    }

    /// How far the torrents are.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pieces of a torrent that are here and right, eight a byte, the first in the highest bit
    /// as in a bitfield of BEP 3. `None` if it is not carried.
    #[must_use]
    pub fn have(&self, info_hash: &Digest) -> Option<Vec<u8>> {
        let carried = self.shared.torrent(info_hash)?;
        let mut bits = vec![0; carried.metainfo.piece_count().div_ceil(8) as usize];
        for piece in (0..carried.metainfo.piece_count()).filter(|&piece| carried.have.has(piece)) {
            bits[piece as usize / 8] |= 0x80 >> (piece % 8);
        }
        Some(bits)
    }

    /// Ends all connections and threads. What is being written is written.
    pub fn stop(&self) {
        self.inputs.send(Input::Stop);
        self.connector.close();
        self.disk.close();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
        self.connector.listen_no_more();
    }
}

/// A torrent that was carried, of which a piece may still be on its way to the disk: until that is over
/// nobody else may have the target.
#[must_use = "its target is written until this was waited for"]
pub struct Removed {
    disk: Arc<Disk>,
    torrent: Option<TorrentId>,
}

impl Removed {
    /// Waits until nothing of it is written any more.
    pub fn wait(&self) {
        if let Some(torrent) = self.torrent {
            self.disk.wait_until_written(torrent);
        }
    }
}

/// A torrent that is carried, as the threads of connections see it.
struct Carried {
    id: TorrentId,
    metainfo: Arc<Metainfo>,
    /// To read pieces that are not in memory.
    store: Arc<dyn Store>,
    /// To write them to; `None` for a source.
    target: Option<Arc<dyn Target>>,
    have: Have,
    memory: Memory,
    arriving: Arriving,
    /// Pieces that may be here already and have not been looked at.
    checking: AtomicU32,
    /// Bytes of blocks received and sent.
    received: AtomicU64,
    sent: AtomicU64,
}

impl Carried {
    /// Whether all of `block` can be sent.
    fn is_ready(&self, block: &Block) -> bool {
        self.have.has(block.piece)
            || self.arriving.has(block.piece, block.begin..block.begin.saturating_add(block.len))
    }

    /// Whether `piece` can be asked for: it is here, or comes in.
    fn is_served(&self, piece: u32) -> bool {
        self.have.has(piece) || self.arriving.has_some(piece)
    }

    fn piece_start(&self, piece: u32) -> u64 {
        u64::from(piece) * u64::from(self.metainfo.piece_len())
    }

    /// Bytes of the piece; `None` if there is no such piece.
    fn piece_len(&self, piece: u32) -> Option<u32> {
        (piece < self.metainfo.piece_count()).then(|| {
            let range = self.metainfo.piece_range(piece);
            // A piece has at most 64 MiB.
            (range.end - range.start) as u32
        })
    }
}

/// Which pieces can be served.
struct Have(Vec<AtomicU64>);

impl Have {
    fn new(pieces: u32, all: bool) -> Have {
        let word = || AtomicU64::new(if all { u64::MAX } else { 0 });
        Have((0..pieces.div_ceil(64)).map(|_| word()).collect())
    }

    fn has(&self, piece: u32) -> bool {
        let word = self.0.get(piece as usize / 64);
        word.is_some_and(|word| word.load(Ordering::Acquire) & 1 << (piece % 64) != 0)
    }

    fn insert(&self, piece: u32) {
        self.0[piece as usize / 64].fetch_or(1 << (piece % 64), Ordering::Release);
    }

    fn remove(&self, piece: u32) {
        self.0[piece as usize / 64].fetch_and(!(1 << (piece % 64)), Ordering::Release);
    }
}

/// Verified pieces in memory. The swarm's budget bounds them.
#[derive(Default)]
struct Memory(RwLock<BTreeMap<u32, Arc<Piece>>>);

impl Memory {
    fn get(&self, piece: u32) -> Option<Arc<Piece>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&piece).cloned()
    }

    fn insert(&self, index: u32, piece: Arc<Piece>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(index, piece);
    }

    fn remove(&self, index: u32) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&index);
    }
}

/// What all threads know.
struct Shared {
    peer_id: [u8; 20],
    /// By info-hash.
    torrents: RwLock<BTreeMap<Digest, Arc<Carried>>>,
    limits: Limits,
    /// Connections after their handshakes.
    links: AtomicUsize,
    /// What our own link sends, as far as it is known, in bytes a second.
    uplink: AtomicU64,
}

impl Shared {
    fn torrent(&self, info_hash: &Digest) -> Option<Arc<Carried>> {
        self.torrents.read().unwrap_or_else(PoisonError::into_inner).get(info_hash).cloned()
    }
}

/// What the scheduler is told.
enum Input {
    /// Told to the sender when it is done.
    Add(Box<Job>, SyncSender<()>),
    Pause {
        info_hash: Digest,
        paused: bool,
    },
    Cap {
        info_hash: Digest,
        caps: Caps,
    },
    FetchAgain {
        info_hash: Digest,
        pieces: Vec<u32>,
    },
    /// Told to the sender when it is done.
    Remove(Digest, SyncSender<()>),
    FoundPeer {
        info_hash: Digest,
        addr: SocketAddr,
    },
    Connected {
        torrent: Arc<Carried>,
        stream: TcpStream,
        addr: SocketAddr,
        outgoing: bool,
        handshake: Handshake,
    },
    DialFailed {
        addr: SocketAddr,
        error: io::Error,
    },
    Event(Event),
    Block {
        peer: PeerId,
        block: Block,
        buffer: Buffer,
    },
    Disconnected {
        peer: PeerId,
        why: String,
    },
    /// A piece that may have been here was looked at.
    Checked {
        torrent: TorrentId,
        piece: u32,
        right: bool,
    },
    Verified {
        torrent: TorrentId,
        piece: u32,
        right: bool,
    },
    Stored {
        torrent: TorrentId,
        piece: u32,
        written: Result<(), StoreError>,
    },
    Finished {
        torrent: TorrentId,
        result: Result<(), StoreError>,
    },
    Unreadable {
        torrent: TorrentId,
        piece: u32,
        error: StoreError,
    },
    /// A piece was read again, and is not what it was.
    Rotten {
        torrent: TorrentId,
        piece: u32,
    },
    Stop,
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    use anyhow::Context as _;
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || or_abort(work))
        .with_context(|| format!("start the thread `{name}`"))
}

/// A client's letters and version (BEP 20), then chance.
pub(crate) fn new_peer_id() -> anyhow::Result<[u8; 20]> {
    use anyhow::Context as _;
    let mut id = *b"-XG0100-............";
    let mut random = std::fs::File::open("/dev/urandom").context("open /dev/urandom")?;
    io::Read::read_exact(&mut random, &mut id[8..]).context("read /dev/urandom")?;
    Ok(id)
}

/// A peer id as the number by which the swarm knows a program.
fn node_of(peer_id: &[u8; 20]) -> u64 {
    let (_, tail) = peer_id.split_at(12);
    tail.iter().fold(0, |node, &byte| node << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests;
