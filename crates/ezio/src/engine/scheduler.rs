//! The one thread that decides: inputs become events of the swarm, its actions go to the others.
//!
//! It waits for nobody: what it does is a short look under a lock, or a push to a queue that the
//! swarm's budget bounds.

use super::connect::Connector;
use super::disk::Disk;
use super::inputs::Waiting;
use super::link::Link;
use super::pex::Gossip;
use super::pieces::{Arriving, Buffer, Pool};
use super::{
    Carried, Content, Have, Input, Inputs, Job, Memory, Notice, PeerStatus, Shared, Status,
    TorrentStatus, node_of, reader, recheck, writer,
};
use crate::inspect::hex;
use crate::panics::or_abort;
use crate::store::Store;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use swarm::metainfo::Digest;
use swarm::swarm::{Action, Config, Event, PeerId, Reason, Start, Swarm, TorrentId, TorrentSpec};
use swarm::time::Time;
use swarm::wire::pex::Pex;
use swarm::wire::{Block, Handshake, Message};

pub(super) struct Scheduler {
    swarm: Swarm,
    started: Instant,
    inputs: Inputs,
    shared: Arc<Shared>,
    connector: Arc<Connector>,
    disk: Arc<Disk>,
    pool: Arc<Pool>,
    status: Arc<Mutex<Status>>,
    notices: Box<dyn Fn(Notice) + Send>,
    torrents: BTreeMap<TorrentId, Arc<Carried>>,
    links: BTreeMap<PeerId, Arc<Link>>,
    /// What is to be told to the swarm when its actions are done.
    later: Vec<Event>,
    addresses: BTreeMap<(TorrentId, SocketAddr), Address>,
    gossip: Gossip,
    next_torrent: u32,
    next_peer: u32,
    published: Instant,
    /// Set at the end, for the threads that check.
    stopped: Arc<AtomicBool>,
    checks: Vec<JoinHandle<()>>,
}

/// An address at which a peer is said to listen.
enum Address {
    /// Nobody is there, or nobody now; when to try again, and how often it failed.
    Idle {
        again: Instant,
        failures: u32,
    },
    Dialling {
        failures: u32,
    },
    /// By this connection, whoever made it.
    Connected {
        peer: PeerId,
        failures: u32,
    },
    /// It is ourselves.
    Own,
}

impl Address {
    /// To be tried again after this many failures in a row: in a second, then in two, four, ...
    fn after(failures: u32) -> Address {
        let wait = Duration::from_secs(1 << failures.saturating_sub(1).min(5));
        Address::Idle { again: Instant::now() + wait, failures }
    }

    fn failures(&self) -> u32 {
        match *self {
            Address::Idle { failures, .. }
            | Address::Dialling { failures }
            | Address::Connected { failures, .. } => failures,
            Address::Own => 0,
        }
    }
}

/// How often the status is published.
const STATUS_PERIOD: Duration = Duration::from_millis(200);

/// Connections of this process at most: each has two threads.
const LINKS_MAX: usize = 64;

/// Addresses that are remembered: a swarm at its largest, and as many wrong ones. A tracker tells
/// 512 at the most at a time.
const ADDRESSES_MAX: usize = 1024;

/// How long not to dial who was sent away for silence, and who for anything else.
const SILENT_FOR: Duration = Duration::from_secs(10);
const BAD_FOR: Duration = Duration::from_secs(60);

/// A connection is idle if no block came or went for so long: a piece of 16 MiB at 10 Mbit/s takes
/// half of it.
const IDLE_MIN: Duration = Duration::from_secs(30);

/// Who was sent away for what it did is dialled after all others.
const BAD_FAILURES: u32 = 6;

/// A peer that says nothing at all for so long is gone; BEP 3's keep-alives come every two minutes.
const SILENCE_MAX: Duration = Duration::from_secs(150);

/// Threads that look at pieces at the same time.
const CHECKS_MAX: usize = 4;

/// Dials at a time while all places are taken.
const SQUEEZED_MAX: usize = 8;

/// Addresses at one machine that are remembered: it may have some clients, and no thousand.
const AT_MACHINE_MAX: usize = 32;

/// A connection that ends sooner was a failed attempt: the peer has no use for us, nor we for it.
const SHORT_LIVED: Duration = Duration::from_secs(10);

impl Scheduler {
    pub(super) fn new(
        config: Config,
        inputs: Inputs,
        shared: Arc<Shared>,
        connector: Arc<Connector>,
        disk: Arc<Disk>,
        status: Arc<Mutex<Status>>,
        notices: Box<dyn Fn(Notice) + Send>,
    ) -> Scheduler {
        let now = Instant::now();
        Scheduler {
            started: now,
            inputs,
            shared,
            connector,
            disk,
            pool: Arc::new(Pool::new(config.budget)),
            swarm: Swarm::new(config),
            status,
            notices,
            torrents: BTreeMap::new(),
            links: BTreeMap::new(),
            later: Vec::new(),
            addresses: BTreeMap::new(),
            gossip: Gossip::default(),
            next_torrent: 0,
            next_peer: 0,
            published: now,
            stopped: Arc::default(),
            checks: Vec::new(),
        }
    }

    pub(super) fn run(mut self, receiver: Receiver<Waiting>) {
        loop {
            match receiver.recv_timeout(self.timeout()) {
                Ok(Waiting { input: Input::Stop, .. }) | Err(RecvTimeoutError::Disconnected) => {
                    break;
                }
                Ok(waiting) => self.take(waiting.input),
                Err(RecvTimeoutError::Timeout) => self.handle(Event::Tick),
            }
            if self.published.elapsed() >= STATUS_PERIOD {
                self.dial_idle();
                self.tell_of_others();
                self.publish();
            }
        }
        for link in self.links.values() {
            link.close();
        }
        self.stopped.store(true, Ordering::Relaxed);
        // They may wait to tell something that nobody will hear.
        drop(receiver);
        for thread in self.checks {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }

    fn timeout(&self) -> Duration {
        let due = self.swarm.next_timeout().since(self.now());
        due.min(STATUS_PERIOD.saturating_sub(self.published.elapsed()))
    }

    fn now(&self) -> Time {
        // 584 years fit.
        Time(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Add(job, done) => {
                self.add(*job);
                // There is a place for it, and somebody who waits.
                let _ = done.send(());
            }
            Input::Pause { info_hash, paused } => self.pause(&info_hash, paused),
            Input::Cap { info_hash, caps } => {
                if let Some(carried) = self.shared.torrent(&info_hash) {
                    self.handle(Event::Cap(carried.id, caps));
                }
            }
            Input::FetchAgain { info_hash, pieces } => self.fetch_again(&info_hash, &pieces),
            Input::Remove(info_hash, done) => {
                self.remove(&info_hash);
                let _ = done.send(());
            }
            Input::FoundPeer { info_hash, addr } => self.found(&info_hash, addr),
            Input::Connected { torrent, stream, addr, outgoing, handshake } => {
                self.connected(torrent, stream, addr, outgoing, &handshake);
            }
            Input::DialFailed { addr, error } => {
                tracing::debug!(peer = %addr, %error, "a peer could not be reached");
                self.failed(addr);
            }
            Input::Event(event) => {
                if let Event::Served(peer, _) = event {
                    self.link(peer, Link::touch);
                }
                self.handle(event);
            }
            Input::Block { peer, block, buffer } => self.block(peer, block, buffer),
            Input::Disconnected { peer, why } => self.disconnected(peer, &why),
            Input::Checked { torrent, piece, right } => self.checked(torrent, piece, right),
            Input::Verified { torrent, piece, right } => {
                if !right {
                    tracing::debug!(piece, "a piece that came is not right; it comes again");
                }
                self.handle(Event::Verified(torrent, piece, right));
            }
            Input::Stored { torrent, piece, written } => match written {
                Ok(()) => self.handle(Event::Stored(torrent, piece)),
                Err(error) => {
                    self.notify(torrent, |hash| Notice::Failed(hash, error));
                    self.handle(Event::Remove(torrent));
                }
            },
            Input::Finished { torrent, result } => {
                // Who hears that it is finished and asks how far it is must not hear less.
                self.publish();
                self.notify(torrent, |hash| match result {
                    Ok(()) => Notice::Finished(hash),
                    Err(error) => Notice::Failed(hash, error),
                });
            }
            Input::Unreadable { torrent, piece, error } => {
                if let Some(carried) = self.torrents.get(&torrent) {
                    carried.have.remove(piece);
                }
                self.handle(Event::Unreadable(torrent, piece));
                self.notify(torrent, |hash| Notice::Unreadable(hash, piece, error));
            }
            Input::Rotten { torrent, piece } => {
                if let Some(carried) = self.torrents.get(&torrent) {
                    carried.have.remove(piece);
                }
                self.handle(Event::Unreadable(torrent, piece));
                self.notify(torrent, |hash| Notice::Rotten(hash, piece));
            }
            // The loop has taken it.
            Input::Stop => {}
        }
    }

    fn handle(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.swarm.handle(self.now(), event, &mut actions);
        self.act_all(actions);
    }

    fn act_all(&mut self, actions: Vec<Action>) {
        actions.into_iter().for_each(|action| self.act(action));
        while let Some(event) = self.later.pop() {
            self.handle(event);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send(peer, message) => {
                self.link(peer, |link| link.with_outbox(|outbox| outbox.say(&message)));
            }
            Action::Allow(peer, bytes) => {
                self.link(peer, |link| link.with_outbox(|outbox| outbox.allow(bytes)));
            }
            Action::Uplink(peer, uplink) => {
                self.link(peer, |link| link.uplink.store(uplink as u8, Ordering::Relaxed));
            }
            Action::Deny(peer) => {
                // What it drops is known to the swarm.
                self.link(peer, |link| {
                    link.with_outbox(|outbox| outbox.deny());
                });
            }
            Action::Request(peer, run) => self.link(peer, |link| link.request(run)),
            Action::Cancel(peer, run) => self.link(peer, |link| link.cancel(run)),
            Action::Verify(torrent, piece) => self.verify(torrent, piece),
            Action::Store(torrent, piece) => self.store(torrent, piece),
            Action::Release(torrent, piece) => {
                if let Some(carried) = self.torrents.get(&torrent) {
                    carried.memory.remove(piece);
                }
            }
            Action::Discard(torrent, piece) => {
                self.discard(torrent, piece);
            }
            Action::Finished(torrent) => {
                if let Some(carried) = self.torrents.get(&torrent)
                    && carried.target.is_some()
                {
                    self.disk.finish(Arc::clone(carried));
                }
            }
            Action::Close(peer, reason) => {
                let brief = matches!(reason, Reason::Silent | Reason::Full);
                let wait = if brief { SILENT_FOR } else { BAD_FOR };
                self.link(peer, |link| {
                    log_close(link, reason, wait);
                    link.close();
                });
                let again = Instant::now() + wait;
                self.change_addresses(peer, |_| Address::Idle { again, failures: BAD_FAILURES });
            }
            Action::Met { peer, pex_id, port } => self.met(peer, pex_id, port),
            Action::Pex(peer, pex) => self.told_of(peer, &pex),
            Action::Metadata { peer, id, piece } => {
                self.link(peer, |link| link.hand_out(id, piece))
            }
            Action::MorePeers(torrent) => self.notify(torrent, Notice::MorePeers),
            Action::Wrong(torrent, peer, piece) => {
                if let Some(link) = self.links.get(&peer) {
                    self.notify(torrent, |hash| Notice::Wrong(hash, piece, link.addr));
                }
            }
            Action::Recheck(torrent, piece) => self.check_again(torrent, piece),
        }
    }

    /// A link that has ended has nothing to be told.
    fn link(&self, peer: PeerId, tell: impl FnOnce(&Link)) {
        if let Some(link) = self.links.get(&peer) {
            tell(link);
        }
    }

    fn notify(&self, torrent: TorrentId, notice: impl FnOnce(Digest) -> Notice) {
        if let Some(carried) = self.torrents.get(&torrent) {
            (self.notices)(notice(carried.metainfo.info_hash()));
        }
    }

    fn add(&mut self, job: Job) {
        let id = TorrentId(self.next_torrent);
        self.next_torrent += 1;
        let metainfo = job.metainfo;
        let (store, target, start, check): (Arc<dyn Store>, _, _, _) = match job.content {
            Content::Source(store) => (store, None, Start::Source, Vec::new()),
            Content::Target { target, check } => {
                let start = if check.is_empty() { Start::Empty } else { Start::Unknown };
                (Arc::clone(&target) as Arc<dyn Store>, Some(target), start, check)
            }
        };
        let have = Have::new(metainfo.piece_count(), start == Start::Source);
        let spec = TorrentSpec {
            len: metainfo.layout().image_len(),
            piece_len: metainfo.piece_len(),
            start,
            private: metainfo.is_private(),
            // A torrent has 256 MiB at the most.
            metadata_len: metainfo.info_bytes().len() as u32,
        };
        let info_hash = metainfo.info_hash();
        let carried = Arc::new(Carried {
            id,
            metainfo,
            store,
            target,
            have,
            memory: Memory::default(),
            arriving: Arriving::default(),
            // A torrent has some million pieces at the most.
            checking: AtomicU32::new(check.len() as u32),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        self.torrents.insert(id, Arc::clone(&carried));
        self.handle(Event::Add(id, spec));
        if start == Start::Unknown {
            self.check(&carried, check);
        }
        let mut shared = self.shared.torrents.write().unwrap_or_else(PoisonError::into_inner);
        shared.insert(info_hash, carried);
    }

    fn pause(&mut self, info_hash: &Digest, paused: bool) {
        if let Some(carried) = self.shared.torrent(info_hash) {
            let event = if paused { Event::Pause } else { Event::Resume };
            self.handle(event(carried.id));
        }
    }

    fn fetch_again(&mut self, info_hash: &Digest, pieces: &[u32]) {
        let Some(carried) = self.shared.torrent(info_hash) else { return };
        for &piece in pieces {
            carried.have.remove(piece);
            self.handle(Event::Spoilt(carried.id, piece));
        }
    }

    fn remove(&mut self, info_hash: &Digest) {
        let mut shared = self.shared.torrents.write().unwrap_or_else(PoisonError::into_inner);
        let removed = shared.remove(info_hash);
        drop(shared);
        let Some(carried) = removed else { return };
        let id = carried.id;
        self.handle(Event::Remove(id));
        self.torrents.remove(&id);
        self.addresses.retain(|(torrent, _), _| *torrent != id);
    }

    /// Has the pieces `check` looked at; the others are missing.
    fn check(&mut self, carried: &Arc<Carried>, check: Vec<u32>) {
        let mut wanted = check.iter().copied().peekable();
        for piece in 0..carried.metainfo.piece_count() {
            if wanted.next_if_eq(&piece).is_none() {
                self.handle(Event::NotFound(carried.id, piece));
            }
        }
        let (checked, inputs, stop) =
            (Arc::clone(carried), self.inputs.clone(), Arc::clone(&self.stopped));
        let list = check.clone();
        let thread = thread::Builder::new().name("check".to_owned());
        match thread.spawn(move || recheck::run(&checked, &list, &stop, &inputs)) {
            Ok(thread) => self.checks.push(thread),
            // Without the thread nothing is trusted.
            Err(_) => {
                carried.checking.store(0, Ordering::Relaxed);
                for piece in check {
                    self.handle(Event::NotFound(carried.id, piece));
                }
            }
        }
    }

    /// Reads a piece again on a thread of its own. If there is none, it is done when it is asked for
    /// the next time.
    fn check_again(&mut self, torrent: TorrentId, piece: u32) {
        let Some(carried) = self.torrents.get(&torrent).map(Arc::clone) else { return };
        self.checks.retain(|thread| !thread.is_finished());
        if self.checks.len() >= CHECKS_MAX {
            return;
        }
        let (inputs, stop) = (self.inputs.clone(), Arc::clone(&self.stopped));
        let thread = thread::Builder::new().name("check".to_owned());
        let work = move || or_abort(|| recheck::again(&carried, piece, &stop, &inputs));
        self.checks.extend(thread.spawn(work).ok());
    }

    fn checked(&mut self, torrent: TorrentId, piece: u32, right: bool) {
        if let Some(carried) = self.torrents.get(&torrent) {
            carried.checking.fetch_sub(1, Ordering::Relaxed);
        }
        if !right {
            return self.handle(Event::NotFound(torrent, piece));
        }
        if let Some(carried) = self.torrents.get(&torrent) {
            carried.have.insert(piece);
            self.handle(Event::Found(torrent, piece));
        }
    }

    fn block(&mut self, peer: PeerId, block: Block, buffer: Buffer) {
        let Some(link) = self.links.get(&peer) else { return };
        link.touch();
        let carried = Arc::clone(&link.torrent);
        let wasted = self.swarm.totals().wasted;
        let Block { piece, begin, len } = block;
        let mut actions = Vec::new();
        self.swarm.handle(self.now(), Event::Received { peer, piece, begin, len }, &mut actions);
        // The swarm keeps the first copy of a block, and only of what it waits for.
        if self.swarm.totals().wasted == wasted {
            carried.arriving.insert(piece, begin, buffer);
            let waiting = self.links.values().filter(|link| link.torrent.id == carried.id);
            waiting.for_each(|link| link.wake_if_waiting());
        }
        self.act_all(actions);
    }

    /// Throws away what came of a piece. Who was to have it from here gets it elsewhere.
    fn discard(&mut self, torrent: TorrentId, piece: u32) {
        let Some(carried) = self.torrents.get(&torrent) else { return };
        carried.arriving.remove(piece);
        for (&peer, link) in self.links.iter().filter(|(_, link)| link.torrent.id == torrent) {
            let dropped = link.with_outbox(|outbox| outbox.drop_piece(piece));
            if dropped > 0 {
                self.later.push(Event::Dropped(peer, dropped));
            }
        }
    }

    fn verify(&mut self, torrent: TorrentId, piece: u32) {
        let Some(carried) = self.torrents.get(&torrent) else { return };
        let Some(len) = carried.piece_len(piece) else { return };
        if let Some(whole) = carried.arriving.finish(piece, len) {
            self.disk.verify(Arc::clone(carried), piece, whole);
        }
    }

    fn store(&mut self, torrent: TorrentId, piece: u32) {
        let Some(carried) = self.torrents.get(&torrent) else { return };
        let Some(whole) = carried.arriving.whole(piece) else { return };
        carried.memory.insert(piece, Arc::clone(&whole));
        carried.have.insert(piece);
        // Only now: a writer that does not find it here looks there next.
        carried.arriving.remove(piece);
        self.disk.store(Arc::clone(carried), piece, whole);
    }

    fn found(&mut self, info_hash: &Digest, addr: SocketAddr) {
        if let Some(torrent) = self.shared.torrent(info_hash)
            && self.connector.may_dial(addr)
        {
            let key = (torrent.id, addr);
            let known = self.addresses.contains_key(&key);
            if !known && self.is_bearable(&key) && self.make_place() {
                let idle = Address::Idle { again: Instant::now(), failures: 0 };
                self.addresses.insert(key, idle);
                self.dial_idle();
            }
        }
    }

    /// Whether not too many addresses at the same machine are remembered already.
    fn is_bearable(&self, &(torrent, addr): &(TorrentId, SocketAddr)) -> bool {
        let port = |port| (torrent, SocketAddr::new(addr.ip(), port));
        let many = || self.addresses.range(port(0)..=port(u16::MAX)).count() >= AT_MACHINE_MAX;
        // Tests and demonstrations have many nodes on one machine.
        addr.ip().to_canonical().is_loopback() || !many()
    }

    /// Forgets the address that failed most if there are too many. Returns whether there is room.
    fn make_place(&mut self) -> bool {
        if self.addresses.len() >= ADDRESSES_MAX {
            let failures = |address: &Address| match *address {
                Address::Idle { failures, .. } if failures > 0 => Some(failures),
                _ => None,
            };
            let known = self.addresses.iter();
            let worst = known.filter_map(|(&key, address)| Some((failures(address)?, key))).max();
            if let Some((_, key)) = worst {
                self.addresses.remove(&key);
            }
        }
        self.addresses.len() < ADDRESSES_MAX
    }

    /// Dials as many as there is room for: first those that failed least.
    fn dial_idle(&mut self) {
        let now = Instant::now();
        let dialling = |address: &&Address| matches!(address, Address::Dialling { .. });
        let dialled = self.addresses.values().filter(dialling).count();
        let room = LINKS_MAX.saturating_sub(self.links.len() + dialled);
        // Where somebody else has taken all places, there is still one for who has none.
        let squeezed = SQUEEZED_MAX.saturating_sub(dialled);
        let mut due: Vec<_> = self
            .addresses
            .iter()
            .filter_map(|(&key, address)| match *address {
                Address::Idle { again, failures } if again <= now && !self.swarm.is_full(key.0) => {
                    Some((failures, again, key))
                }
                _ => None,
            })
            .collect();
        due.sort_unstable();
        let squeeze = |key: &(TorrentId, SocketAddr)| self.one_of_many(key.1).is_some();
        let fits = |number: usize, key: &(TorrentId, SocketAddr)| {
            number < room || number < squeezed && squeeze(key)
        };
        let due = due.into_iter().enumerate().take_while(|(number, (.., key))| fits(*number, key));
        let due: Vec<_> = due.map(|(_, due)| due).collect();
        for (failures, _, key) in due {
            if let Some(carried) = self.torrents.get(&key.0) {
                self.addresses.insert(key, Address::Dialling { failures });
                self.connector.dial(key.1, Arc::clone(carried));
            }
        }
    }

    fn met(&mut self, peer: PeerId, pex_id: Option<u8>, port: Option<u16>) {
        let Some(link) = self.links.get(&peer) else { return };
        let torrent = link.torrent.id;
        let known = self.addresses.get(&(torrent, link.addr));
        let dialled = matches!(known, Some(Address::Connected { .. }));
        let now = Instant::now();
        self.gossip.met((peer, torrent), link.addr, dialled, (pex_id, port), now);
    }

    /// A peer tells of others: they are held to what holds for those that a tracker tells of.
    fn told_of(&mut self, peer: PeerId, pex: &Pex) {
        let Some(link) = self.links.get(&peer) else { return };
        let info_hash = link.torrent.metainfo.info_hash();
        if self.gossip.listen(peer, Instant::now()) {
            tracing::trace!(peer = %link.addr, others = pex.added.len(), "a peer tells of others");
            pex.added.iter().for_each(|&addr| self.found(&info_hash, addr));
        }
    }

    fn tell_of_others(&mut self) {
        for (peer, id, pex) in self.gossip.due(Instant::now()) {
            let message = Message::Extended { id, payload: pex.encode() };
            self.link(peer, |link| link.with_outbox(|outbox| outbox.say(&message)));
        }
    }

    fn failed(&mut self, addr: SocketAddr) {
        for ((_, known), address) in &mut self.addresses {
            if let Address::Dialling { failures } = *address
                && *known == addr
            {
                *address = Address::after(failures + 1);
            }
        }
    }

    fn connected(
        &mut self,
        torrent: Arc<Carried>,
        stream: std::net::TcpStream,
        addr: SocketAddr,
        outgoing: bool,
        handshake: &Handshake,
    ) {
        let key = (torrent.id, addr);
        if handshake.peer_id == self.shared.peer_id {
            if outgoing {
                self.addresses.insert(key, Address::Own);
            }
            return;
        }
        let twin = self.links.values().find(|link| {
            link.peer_id == handshake.peer_id && link.torrent.id == torrent.id && !link.is_closed()
        });
        let twin = twin.map(Arc::clone);
        // From elsewhere, and under a name that is at work here already: one machine by two networks, or
        // somebody who took the name to have that connection ended. Whoever dialled gives it up.
        let apart = twin.as_ref().is_some_and(|twin| {
            twin.has_moved_blocks() && machine_at(twin.addr) != machine_at(addr)
        });
        let twin = twin.filter(|_| outgoing || !apart);
        if let Some(twin) = &twin
            && (apart || !outlives(&self.shared.peer_id, &handshake.peer_id, outgoing))
        {
            if outgoing {
                let twin = Address::Connected { peer: twin.id, failures: 0 };
                self.addresses.insert(key, twin);
            }
            return;
        }
        if twin.is_none() && !self.make_place_for_link(addr) {
            return self.failed(addr);
        }
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        let (fast, extended) = (handshake.fast(), handshake.extended());
        let link = Arc::new(Link::new(id, torrent, stream, addr, handshake.peer_id, fast));
        if link.set_options(SILENCE_MAX).is_err() || self.start_threads(&link).is_err() {
            link.close();
            return self.failed(addr);
        }
        if let Some(twin) = twin {
            twin.close();
            self.change_addresses(twin.id, |failures| Address::Connected { peer: id, failures });
        }
        if outgoing && let Some(address) = self.addresses.get_mut(&key) {
            let failures = address.failures();
            *address = Address::Connected { peer: id, failures };
        }
        self.links.insert(id, Arc::clone(&link));
        self.shared.links.store(self.links.len(), Ordering::Relaxed);
        log_connection(&link, outgoing);
        let (torrent, node) = (link.torrent.id, node_of(&handshake.peer_id));
        self.handle(Event::Connected { peer: id, torrent, node, fast, extended });
        self.handle(Event::From(id, machine_at(addr)));
    }

    /// Ends the connection that was idle longest if there are too many: it comes back if it is
    /// needed. If none is idle, a machine that has many gives one of them up for a machine that has
    /// fewer. Returns whether there is room for somebody at `addr`.
    fn make_place_for_link(&self, addr: SocketAddr) -> bool {
        if self.open_links().count() < LINKS_MAX {
            return true;
        }
        let idlest = self.open_links().min_by_key(|link| link.used());
        let idle = idlest.filter(|link| link.used().elapsed() > IDLE_MIN);
        let leaves = idle.or_else(|| self.one_of_many(addr));
        if let Some(link) = leaves {
            link.close();
        }
        leaves.is_some()
    }

    fn open_links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.links.values().filter(|link| !link.is_closed())
    }

    /// Of the machine with the most connections that one which was used the longest ago, if even
    /// without it that machine has more than the one at `addr` has with another.
    fn one_of_many(&self, addr: SocketAddr) -> Option<&Arc<Link>> {
        let of = |machine| self.open_links().filter(move |link| machine_at(link.addr) == machine);
        let machines = self.open_links().map(|link| machine_at(link.addr));
        let (count, most) = machines.map(|machine| (of(machine).count(), machine)).max()?;
        let own = of(machine_at(addr)).count();
        of(most).filter(|_| count > own + 1).min_by_key(|link| link.used())
    }

    fn start_threads(&self, link: &Arc<Link>) -> std::io::Result<()> {
        let (reading, inputs, pool) =
            (Arc::clone(link), self.inputs.clone(), Arc::clone(&self.pool));
        let shared = Arc::clone(&self.shared);
        thread::Builder::new()
            .name(format!("read {}", link.addr.ip()))
            .spawn(move || or_abort(|| reader::run(&reading, &pool, &inputs, &shared)))?;
        let (writing, inputs) = (Arc::clone(link), self.inputs.clone());
        let shared = Arc::clone(&self.shared);
        thread::Builder::new()
            .name(format!("write {}", link.addr.ip()))
            .spawn(move || or_abort(|| writer::run(&writing, &inputs, &shared)))?;
        Ok(())
    }

    fn disconnected(&mut self, peer: PeerId, why: &str) {
        let Some(link) = self.links.remove(&peer) else { return };
        self.shared.links.store(self.links.len(), Ordering::Relaxed);
        self.gossip.forget(peer);
        let (received, sent) =
            (link.received.load(Ordering::Relaxed), link.sent.load(Ordering::Relaxed));
        tracing::info!(peer = %link.addr, why, received, sent, "a peer is gone");
        let failed = link.since.elapsed() < SHORT_LIVED;
        let again = |failures| Address::after(if failed { failures + 1 } else { 1 });
        self.change_addresses(peer, again);
        self.handle(Event::Disconnected(peer));
    }

    /// Changes what is said of every address that `peer` is connected by, from its failures so far.
    fn change_addresses(&mut self, peer: PeerId, change: impl Fn(u32) -> Address) {
        for address in self.addresses.values_mut() {
            if let Address::Connected { peer: by, failures } = *address
                && by == peer
            {
                *address = change(failures);
            }
        }
    }

    fn connections(&self, torrent: TorrentId) -> Vec<PeerStatus> {
        let links = self.links.values().filter(|link| link.torrent.id == torrent);
        let status = |link: &Arc<Link>| PeerStatus {
            addr: link.addr,
            peer_id: link.peer_id,
            received: link.received.load(Ordering::Relaxed),
            sent: link.sent.load(Ordering::Relaxed),
        };
        links.map(status).collect()
    }

    fn publish(&mut self) {
        self.shared.uplink.store(self.swarm.uplink(), Ordering::Relaxed);
        self.published = Instant::now();
        let torrents = self.torrents.values().filter_map(|carried| {
            let progress = self.swarm.progress(carried.id)?;
            Some(TorrentStatus {
                info_hash: carried.metainfo.info_hash(),
                image_len: carried.metainfo.layout().image_len(),
                pieces: progress.pieces,
                verified: progress.verified,
                stored: progress.stored,
                checking: carried.checking.load(Ordering::Relaxed),
                received: carried.received.load(Ordering::Relaxed),
                sent: carried.sent.load(Ordering::Relaxed),
                nowhere: progress.nowhere,
                peers: progress.peers,
                peers_interested: progress.interested,
                connections: self.connections(carried.id),
            })
        });
        let status = Status { torrents: torrents.collect() };
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

fn log_connection(link: &Link, outgoing: bool) {
    let client = String::from_utf8_lossy(&link.peer_id[..8]);
    let torrent = hex(&link.torrent.metainfo.info_hash());
    tracing::info!(peer = %link.addr, %client, %torrent, outgoing, "a peer is connected");
}

/// What a peer did wrong is for people to know: it, or what lies between, is broken.
fn log_close(link: &Link, reason: Reason, wait: Duration) {
    let (peer, seconds) = (link.addr, wait.as_secs());
    match reason {
        Reason::Nonsense(why) => {
            tracing::warn!(%peer, why, seconds, "a peer broke the protocol and is shut out");
        }
        Reason::Corrupt => {
            tracing::warn!(%peer, seconds, "a peer sent wrong pieces and is shut out");
        }
        reason => tracing::debug!(%peer, ?reason, seconds, "a connection is closed"),
    }
}

/// Both sides may have dialled, and both must keep the same one of the two connections: the one
/// that the greater peer id made, as libtorrent has it.
fn outlives(own: &[u8; 20], theirs: &[u8; 20], outgoing: bool) -> bool {
    outgoing == (own > theirs)
}

/// Which machine is at an address: a number that others do not have. There may be a whole network
/// behind one address; it is served as one machine then, and has its own peers to ask.
fn machine_at(addr: SocketAddr) -> u64 {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        // Folded: one half tells networks apart, the other machines. Above all of IPv4.
        IpAddr::V6(ip) => ((ip.to_bits() >> 64) as u64 ^ ip.to_bits() as u64) | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_keep_the_connection_that_the_greater_peer_id_made() {
        let (small, great) = (*b"-LT2080-SKOiz9vyqmY~", *b"-XG0100-............");
        assert!(outlives(&great, &small, true) && outlives(&small, &great, false));
        assert!(!outlives(&great, &small, false) && !outlives(&small, &great, true));
    }

    #[test]
    fn an_address_that_fails_is_tried_less_and_less_often() {
        let waits = [1, 2, 3, 6, 7].map(|failures| match Address::after(failures) {
            Address::Idle { again, .. } => (again - Instant::now()).as_secs_f64().ceil(),
            _ => unreachable!("it is to be tried again"),
        });
        assert_eq!(waits, [1.0, 2.0, 4.0, 32.0, 32.0]);
    }
}
