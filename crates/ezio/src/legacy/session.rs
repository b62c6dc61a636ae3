//! The torrents of a legacy run, 1.x or 2.x, on one node: added at any time, paused, looked at.

use super::clock::{Clock, Seen};
use super::messages::{DOWNLOADING, Detail, Peer, SEEDING, Torrent};
use crate::device::{self, Claim, Purpose, Use};
use crate::engine::{Content, Job, Notice, PeerStatus, Removed, TorrentStatus};
use crate::inspect::hex;
use crate::node::{Message, Node, NodeOptions, name_of};
use crate::preflight::{self, Checks};
use crate::store::{self, io_reason};
use anyhow::{Context as _, anyhow, ensure};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use swarm::metainfo::{Digest, Metainfo};
use swarm::swarm::Caps;

/// A node and what it carries. Many threads may use it.
pub(super) struct Session {
    /// Images are directories of block files, not devices: of a whole run, as in the C++ EZIO.
    files: bool,
    started: Instant,
    stopped: AtomicBool,
    inner: Mutex<Inner>,
}

struct Inner {
    /// `None` once it has ended.
    node: Option<Node>,
    /// In the order in which they were added.
    entries: Vec<Entry>,
    /// Torrents whose devices are being looked at.
    opening: BTreeSet<Digest>,
}

struct Entry {
    info_hash: Digest,
    name: String,
    save_path: String,
    /// The last that was seen: of a failed torrent the engine tells nothing.
    last: TorrentStatus,
    clock: Clock,
    finished: bool,
    paused: bool,
    /// Why it will never be whole.
    error: Option<String>,
    held: Held,
}

/// What keeps others from mounting a device, or writing it.
#[derive(Default)]
struct Held {
    claim: Option<Claim>,
    /// Of one that failed or was removed: tells when nothing is written to it any more.
    removed: Option<Removed>,
}

/// Why a torrent is not carried.
#[derive(Debug)]
pub(super) enum Refused {
    /// It is no torrent that can be used.
    Torrent(anyhow::Error),
    /// Its device, file or directory cannot be used.
    Path(anyhow::Error),
    /// It is carried already.
    Twice(String),
}

impl Refused {
    pub(super) fn why(self) -> anyhow::Error {
        match self {
            Refused::Torrent(why) | Refused::Path(why) => why,
            Refused::Twice(why) => anyhow!(why),
        }
    }
}

/// Something that people should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// All of the image is on the medium: its path.
    Finished(String),
    /// It will never be whole: path and reason.
    Failed(String, String),
    /// Anything else.
    Note(String),
}

impl Session {
    /// Starts a node that carries nothing.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub(super) fn start(options: &NodeOptions, files: bool) -> anyhow::Result<Session> {
        let node = Some(Node::start(options, None, None)?);
        let inner = Inner { node, entries: Vec::new(), opening: BTreeSet::new() };
        let (started, stopped) = (Instant::now(), AtomicBool::new(false));
        Ok(Session { files, started, stopped, inner: Mutex::new(inner) })
    }

    /// Carries the torrent of these bytes, whose image is at `path`, all of it if `seed`; else it
    /// is written there from the beginning. It keeps to `caps`. Returns its info-hash.
    ///
    /// # Errors
    /// What stands against it; then nothing was written.
    pub(super) fn add(
        &self,
        torrent: Vec<u8>,
        path: &Path,
        seed: bool,
        caps: Caps,
    ) -> Result<Digest, Refused> {
        let metainfo = Metainfo::parse(torrent).context("failed to decode node");
        let metainfo = Arc::new(metainfo.map_err(Refused::Torrent)?);
        let info_hash = metainfo.info_hash();
        let failed = {
            let mut inner = self.lock();
            let carried =
                inner.entries.iter().any(|e| e.info_hash == info_hash && e.error.is_none());
            if carried || !inner.opening.insert(info_hash) {
                let name = name_of(&metainfo);
                return Err(Refused::Twice(format!(
                    "{name} is carried already; pause or resume it"
                )));
            }
            // One that failed is tried again, on the same device as likely as not.
            let before = inner.entries.iter_mut().find(|entry| entry.info_hash == info_hash);
            before.map(|entry| std::mem::take(&mut entry.held)).unwrap_or_default()
        };
        failed.let_go();
        // That may take seconds; meanwhile others are answered.
        let opened = self.open(&metainfo, path, seed);
        let mut inner = self.lock();
        inner.opening.remove(&info_hash);
        let (content, claim) = opened.map_err(Refused::Path)?;
        inner.carry(metainfo, content, claim, path, self.started.elapsed())?;
        if let Some(node) = &inner.node {
            node.cap(info_hash, caps);
        }
        Ok(info_hash)
    }

    fn open(
        &self,
        metainfo: &Metainfo,
        path: &Path,
        seed: bool,
    ) -> anyhow::Result<(Content, Option<Claim>)> {
        let shown = path.display();
        ensure!(!path.as_os_str().is_empty(), "no path was given for {}", name_of(metainfo));
        let is_dir = path.is_dir();
        if seed || !self.files {
            // Whoever mistypes the name of a device wants no file of that name.
            let exists = std::fs::metadata(path);
            exists.map_err(|e| anyhow!("failed to open {shown}: {}", io_reason(&e)))?;
        }
        ensure!(
            !is_dir || self.files,
            "{shown} is a directory, but a device or a file is wanted; a run with -F, of 1.x with \
             -f, takes directories"
        );
        if self.files && path.exists() {
            ensure!(is_dir, "{shown} is no directory; with -F, of 1.x with -f, all paths are");
        }
        if seed {
            let store = store::open(metainfo, path)?;
            return Ok((Content::Source(store), if is_dir { None } else { hold(path)? }));
        }
        let target = if self.files {
            preflight::open_dir(path, metainfo)?
        } else {
            preflight::open(path, metainfo, Checks::default())?
        };
        Ok((Content::Target { target: target.store, check: Vec::new() }, target.claim))
    }

    /// Tells of an address at which a peer of the torrent listens.
    pub(super) fn found(&self, info_hash: Digest, addr: SocketAddr) {
        if let Some(node) = &self.lock().node {
            node.found(info_hash, addr);
        }
    }

    /// Pauses or resumes the torrent with these hexadecimal digits, if it is carried.
    pub(super) fn pause(&self, hash: &str, paused: bool) {
        let mut inner = self.lock();
        let Inner { node: Some(node), entries, .. } = &mut *inner else { return };
        if let Some(entry) = entries.iter_mut().find(|entry| hex(&entry.info_hash) == hash) {
            entry.paused = paused;
            node.pause(entry.info_hash, paused);
        }
    }

    /// How far the torrents are, in the order in which they were added.
    pub(super) fn torrents(&self) -> Vec<Torrent> {
        let mut inner = self.lock();
        inner.observe(self.started.elapsed());
        inner.entries.iter().map(Entry::describe).collect()
    }

    /// Forgets the torrent with these hexadecimal digits and lets go of its device. Returns whether
    /// it was carried.
    pub(super) fn remove(&self, hash: &str) -> bool {
        let mut inner = self.lock();
        let Inner { node: Some(node), entries, .. } = &mut *inner else { return false };
        let Some(index) = entries.iter().position(|entry| hex(&entry.info_hash) == hash) else {
            return false;
        };
        let mut entry = entries.remove(index);
        let removed = node.remove(entry.info_hash);
        entry.held.removed.get_or_insert(removed);
        // Its device may be slow; meanwhile others are answered.
        drop(inner);
        entry.held.let_go();
        true
    }

    /// What `ezio.EZIO` cannot tell, in the order in which they were added.
    pub(super) fn details(&self) -> Vec<Detail> {
        let mut inner = self.lock();
        inner.observe(self.started.elapsed());
        let detail = |entry: &Entry| Detail {
            hash: hex(&entry.info_hash),
            error: entry.error.clone().unwrap_or_default(),
            pieces: i64::from(entry.last.pieces),
            nowhere: i64::from(entry.last.nowhere),
            peers_interested: i64::from(entry.last.peers_interested),
            peers: entry.last.connections.iter().map(peer).collect(),
        };
        inner.entries.iter().map(detail).collect()
    }

    /// Deals with what happened. To be called some times a second.
    pub(super) fn pump(&self) -> Vec<News> {
        let mut inner = self.lock();
        let mut news = Vec::new();
        while let Some(message) = inner.node.as_ref().and_then(next) {
            news.extend(inner.take(message));
        }
        inner.observe(self.started.elapsed());
        news
    }

    /// Asks whoever runs this session to end it.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether it is to end.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Ends all connections and threads. What is being written is written.
    pub(super) fn end(&self) {
        let node = self.lock().node.take();
        if let Some(node) = node {
            node.stop();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn carry(
        &mut self,
        metainfo: Arc<Metainfo>,
        content: Content,
        claim: Option<Claim>,
        path: &Path,
        now: Duration,
    ) -> Result<(), Refused> {
        let Some(node) = &mut self.node else {
            return Err(Refused::Path(anyhow!("EZIO is ending")));
        };
        let (info_hash, name) = (metainfo.info_hash(), name_of(&metainfo));
        // It failed before, else it would have been refused as the second.
        self.entries.retain(|entry| entry.info_hash != info_hash);
        let finished = matches!(content, Content::Source(_));
        let last = TorrentStatus {
            info_hash,
            image_len: metainfo.layout().image_len(),
            pieces: metainfo.piece_count(),
            stored: if finished { metainfo.piece_count() } else { 0 },
            verified: if finished { metainfo.piece_count() } else { 0 },
            ..TorrentStatus::default()
        };
        let trackers = metainfo.trackers().to_vec();
        node.add(Job { metainfo, content }, trackers, finished).map_err(Refused::Torrent)?;
        let save_path = path.to_string_lossy().into_owned();
        tracing::info!(device = %save_path, image = %name, whole = finished, "a torrent is carried");
        let seen = Seen { finished, ..Seen::default() };
        self.entries.push(Entry {
            info_hash,
            name,
            save_path,
            last,
            clock: Clock::new(now, seen),
            finished,
            paused: false,
            error: None,
            held: Held { claim, removed: None },
        });
        Ok(())
    }

    fn take(&mut self, message: Message) -> Option<News> {
        let index = |hash: Digest| self.entries.iter().position(|entry| entry.info_hash == hash);
        match message {
            Message::Note(text) | Message::Warning(text) => Some(News::Note(text)),
            Message::Engine(Notice::MorePeers(_)) => None,
            Message::Engine(Notice::Wrong(_, piece, addr)) => {
                Some(News::Note(format!("piece {piece} from {addr} was wrong")))
            }
            Message::Engine(Notice::Rotten(hash, piece)) => {
                let path = &self.entries[index(hash)?].save_path;
                Some(News::Note(format!("piece {piece} of {path} is not what it was any more")))
            }
            Message::Engine(Notice::Finished(hash)) => {
                let entry = index(hash).and_then(|index| self.entries.get_mut(index))?;
                entry.finished = true;
                Some(News::Finished(entry.save_path.clone()))
            }
            Message::Engine(Notice::Unreadable(hash, piece, error)) => {
                let entry = &self.entries[index(hash)?];
                let path = &entry.save_path;
                Some(News::Note(format!("piece {piece} of {path} cannot be served: {error}")))
            }
            Message::Engine(Notice::Failed(hash, error)) => {
                let index = index(hash)?;
                let removed = self.node.as_mut().map(|node| node.remove(hash));
                let entry = &mut self.entries[index];
                entry.held.removed = removed;
                let why = format!("{error}; what was written there is not usable");
                (entry.error, entry.finished) = (Some(why.clone()), false);
                Some(News::Failed(entry.save_path.clone(), why))
            }
        }
    }

    fn observe(&mut self, now: Duration) {
        let status = self.node.as_ref().map(Node::status).unwrap_or_default();
        for entry in &mut self.entries {
            let seen = status.iter().find(|status| status.info_hash == entry.info_hash);
            if let (Some(seen), None) = (seen, &entry.error) {
                entry.last = seen.clone();
            }
            let (sent, received) = (entry.last.sent, entry.last.received);
            let (finished, paused) = (entry.finished, entry.paused || entry.error.is_some());
            entry.clock.observe(now, Seen { sent, received, finished, paused });
        }
    }
}

impl Held {
    /// Gives the device back once nothing is written to it any more.
    fn let_go(self) {
        if let Some(removed) = &self.removed {
            removed.wait();
        }
        drop(self.claim);
    }
}

impl Entry {
    fn describe(&self) -> Torrent {
        let (up, down) = self.clock.rates();
        let done = self.last.stored_bytes();
        let int = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Torrent {
            hash: hex(&self.info_hash),
            name: self.name.clone(),
            // For people: a float's 53 bits are enough.
            progress: done as f64 / self.last.image_len.max(1) as f64,
            download_rate: down,
            upload_rate: up,
            active_time: self.clock.active_secs(),
            is_finished: self.finished,
            num_peers: i64::from(self.last.peers),
            state: if self.finished { SEEDING } else { DOWNLOADING },
            total_done: int(done),
            total: int(self.last.image_len),
            num_pieces: i64::from(self.last.verified),
            finished_time: self.clock.finished_secs(),
            seeding_time: self.clock.finished_secs(),
            total_payload_download: int(self.last.received),
            total_payload_upload: int(self.last.sent),
            is_paused: self.paused,
            save_path: self.save_path.clone(),
            last_upload: self.clock.last_upload(),
            last_download: self.clock.last_download(),
        }
    }
}

fn peer(connection: &PeerStatus) -> Peer {
    // Eight characters tell the program and its version (BEP 20).
    let client = connection.peer_id[..8].iter().copied();
    let text = client.clone().all(|byte| byte.is_ascii_graphic());
    Peer {
        address: connection.addr.to_string(),
        client: if text { client.map(char::from).collect() } else { String::new() },
        // What is ever sent fits.
        received: i64::try_from(connection.received).unwrap_or(i64::MAX),
        sent: i64::try_from(connection.sent).unwrap_or(i64::MAX),
    }
}

/// What the node has to tell, without waiting; what it keeps to itself is passed over.
fn next(node: &Node) -> Option<Message> {
    node.wait(Duration::ZERO)
}

/// Keeps others from mounting a source to write while it is served. One that is in use already is
/// served all the same, as the C++ EZIO does.
fn hold(path: &Path) -> anyhow::Result<Option<Claim>> {
    let (_, device) = device::open_source(path)?;
    let uses: Vec<Use> =
        device::usage(&device).with_context(|| format!("find out who uses {}", path.display()))?;
    if uses.is_empty() {
        return Ok(Some(device::claim(&device, Purpose::Reading)?));
    }
    Ok(None)
}
