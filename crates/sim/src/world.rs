//! The machines, what happens to them, and what they do about it.

use crate::config::{Config, Decay, How};
use crate::disk::Disk;
use crate::heap::Heap;
use crate::link::{Conn, Packet, Port, peer_id};
use crate::report::Report;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use swarm::outbox::Run;
use swarm::random::{Random, mix};
use swarm::swarm::{Action, Event, PeerId, Reason, Start, Swarm, TorrentId, TorrentSpec};
use swarm::time::Time;
use swarm::wire::extension::{XG_ID, Xg};
use swarm::wire::{Block, Message};

/// A run under way.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) now: Time,
    heap: Heap<What>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) conns: Vec<Conn>,
    pub(crate) random: Random,
    /// Told to swarms once the step that caused it is over. Of a block: whether it is wrong.
    events: VecDeque<(usize, Event, bool)>,
    /// Something happened that may have been the last thing to wait for.
    maybe_over: bool,
    pub(crate) report: Report,
}

/// A machine.
#[derive(Debug)]
pub(crate) struct Node {
    /// `None` while it is off.
    pub(crate) swarm: Option<Swarm>,
    /// How often it was switched on: what an earlier life planned is void.
    pub(crate) life: u32,
    pub(crate) disk: Disk,
    pub(crate) port: Port,
    pub(crate) frozen_until: Time,
    /// It left for good.
    pub(crate) gone: bool,
    /// Whom it sent away, and until when it does not dial them.
    pub(crate) shunned: BTreeMap<usize, Time>,
    tick_at: Time,
    finished: BTreeSet<TorrentId>,
    /// Other machine and torrent of each connection that is up.
    pub(crate) links: BTreeSet<(usize, usize)>,
    /// Connections with blocks to send that are not here yet.
    pub(crate) waiting: BTreeSet<usize>,
}

/// What can be planned.
#[derive(Debug)]
pub(crate) enum What {
    Join(usize),
    Tick(usize, u32),
    Connected(usize),
    Sent(usize),
    Arrive(Packet),
    Taken(usize),
    Acked(usize, usize),
    Hashed(usize, u32, TorrentId, u32, bool),
    Stored(usize, u32, TorrentId, u32),
    Checked(usize, u32, TorrentId, u32),
    Reread(usize, u32, TorrentId, u32),
    Gone(usize, u32, PeerId),
    Stop(usize, How),
    Leave(usize),
    Thaw(usize),
    Unstall(usize),
    HangUp(usize),
    Split(usize),
    Decay(Decay),
    Pause(usize, usize, bool),
    Quiet,
    ResetOne,
    LoseOne,
    StallOne,
}

impl World {
    pub(crate) fn new(config: Config) -> World {
        let nodes = config.nodes.iter().enumerate().map(|(index, node)| Node {
            swarm: None,
            life: 0,
            disk: Disk::new(&config.torrents, index == 0, node.disk),
            port: Port::default(),
            frozen_until: Time(0),
            gone: false,
            shunned: BTreeMap::new(),
            tick_at: Time::NEVER,
            finished: BTreeSet::new(),
            links: BTreeSet::new(),
            waiting: BTreeSet::new(),
        });
        let report = Report {
            finished: vec![None; config.nodes.len()],
            joined: config.nodes.iter().map(|node| node.join).collect(),
            ideal_ns: config.ideal_ns(),
            image_len: config.torrents.iter().map(|image| image.len).sum(),
            ..Report::default()
        };
        World {
            now: Time(0),
            heap: Heap::new(),
            nodes: nodes.collect(),
            conns: Vec::new(),
            random: Random::new(config.seed),
            events: VecDeque::new(),
            maybe_over: false,
            report,
            config,
        }
    }

    pub(crate) fn run(mut self) -> Report {
        for (index, node) in self.config.nodes.clone().iter().enumerate() {
            self.plan(node.join, What::Join(index));
        }
        self.plan_faults();
        self.plan(self.config.faults.quiet, What::Quiet);
        while !self.is_over()
            && let Some((at, what)) = self.heap.next()
            && at <= self.config.end
        {
            assert!(at >= self.now, "time runs forward");
            self.now = at;
            self.happen(what);
            while let Some((node, event, wrong)) = self.events.pop_front() {
                self.handle(node, event, wrong);
            }
        }
        self.report.stuck = self.stuck();
        let clients = 1..self.nodes.len();
        let asked_nothing =
            |&node: &usize| self.report.finished[node].is_none() && self.stays_away(node);
        self.report.away = clients.filter(asked_nothing).count() as u64;
        self.report.ended = self.now;
        let totals = self.nodes.iter().map(|node| node.swarm.as_ref().map(Swarm::totals));
        self.report.totals = totals.map(Option::unwrap_or_default).collect();
        self.report
    }

    pub(crate) fn plan(&mut self, at: Time, what: What) {
        self.heap.plan(at, what);
    }

    pub(crate) fn plan_in(&mut self, span_ns: u64, what: What) {
        self.heap.plan(Time(self.now.0 + span_ns), what);
    }

    /// Has `event` told to a node's swarm after this step.
    pub(crate) fn tell(&mut self, node: usize, event: Event) {
        self.events.push_back((node, event, false));
    }

    /// Has a block told to a node's swarm after this step.
    pub(crate) fn deliver(&mut self, node: usize, peer: PeerId, block: Block, wrong: bool) {
        let Block { piece, begin, len } = block;
        self.events.push_back((node, Event::Received { peer, piece, begin, len }, wrong));
    }

    pub(crate) fn is_frozen(&self, node: usize) -> bool {
        self.nodes[node].frozen_until > self.now
    }

    fn is_over(&mut self) -> bool {
        core::mem::take(&mut self.maybe_over)
            && self.now >= self.config.faults.quiet
            && self.stuck().is_empty()
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Join(node) => self.join(node),
            What::Tick(node, life) => {
                // One that was planned before an earlier one is void.
                if self.nodes[node].life == life && self.nodes[node].tick_at == self.now {
                    self.nodes[node].tick_at = Time::NEVER;
                    self.tell(node, Event::Tick);
                }
            }
            What::Connected(conn) => self.on_connected(conn),
            What::Sent(node) => self.on_sent(node),
            What::Arrive(packet) => self.on_arrive(packet),
            What::Taken(node) => self.on_taken(node),
            What::Acked(conn, side) => self.on_acked(conn, side),
            What::Hashed(node, life, id, piece, right) => {
                if self.nodes[node].life == life {
                    self.nodes[node].disk.hashed(id.0 as usize, piece);
                    self.tell(node, Event::Verified(id, piece, right));
                }
            }
            What::Reread(node, life, id, piece) => {
                let alive = self.nodes[node].life == life;
                if alive && self.nodes[node].disk.give_up(id.0 as usize, piece) {
                    self.count("a rotten piece is found because others say so");
                    self.tell(node, Event::Unreadable(id, piece));
                }
            }
            What::Stored(node, life, id, piece) => {
                if self.nodes[node].life == life {
                    self.nodes[node].disk.stored(id.0 as usize, piece);
                    self.maybe_over = true;
                    self.tell(node, Event::Stored(id, piece));
                }
            }
            What::Checked(node, life, id, piece) => {
                if self.nodes[node].life == life {
                    self.checked(node, id, piece);
                }
            }
            What::Gone(node, life, peer) => {
                if self.nodes[node].life == life {
                    self.tell(node, Event::Disconnected(peer));
                }
            }
            What::Stop(node, how) => {
                self.maybe_over = true;
                if !self.nodes[node].gone && self.nodes[node].swarm.is_some() {
                    self.stop(node, how);
                }
            }
            What::Leave(node) => {
                self.maybe_over = true;
                self.leave(node);
            }
            What::Thaw(node) => self.thaw(node),
            What::Unstall(conn) => {
                self.line_up(conn, 0);
                self.line_up(conn, 1);
            }
            What::HangUp(conn) => self.hang_up(conn, None),
            What::Split(index) => self.split(index),
            What::Decay(decay) => self.decay(decay),
            What::Pause(node, torrent, paused) => self.pause(node, torrent, paused),
            What::Quiet => self.maybe_over = true,
            What::ResetOne => self.reset_one(),
            What::LoseOne => self.lose_one(),
            What::StallOne => self.stall_one(),
        }
    }

    /// A machine is switched on: it knows what is on its disk, and asks who is there.
    pub(crate) fn join(&mut self, index: usize) {
        let limits = self.config.nodes[index];
        let mut settings = self.config.swarm.clone();
        settings.node = identity(index);
        if self.config.tells_rates {
            (settings.uplink, settings.downlink) = (limits.up, limits.down);
        }
        let node = &mut self.nodes[index];
        node.swarm = Some(Swarm::new(settings));
        node.life += 1;
        node.tick_at = Time::NEVER;
        node.finished.clear();
        if index == 0 {
            node.disk.trust();
        }
        self.maybe_over = true;
        for number in 0..self.config.torrents.len() {
            self.add(index, number);
            let degree = self.config.degree;
            self.dial(index, number, degree);
        }
    }

    /// Adds a torrent, and hashes what may be there of it, one piece after the other.
    fn add(&mut self, index: usize, number: usize) {
        let (id, image) = (TorrentId(number as u32), self.config.torrents[number]);
        let unchecked = self.nodes[index].disk.unchecked(number);
        let start = match index {
            0 => Start::Source,
            _ if unchecked.is_empty() => Start::Empty,
            _ => Start::Unknown,
        };
        let spec = TorrentSpec {
            len: image.len,
            piece_len: image.piece_len,
            start,
            private: false,
            metadata_len: 0,
        };
        self.tell(index, Event::Add(id, spec));
        if start != Start::Unknown {
            return;
        }
        for piece in 0..self.nodes[index].disk.pieces(number) {
            if !unchecked.contains(&piece) {
                self.tell(index, Event::NotFound(id, piece));
            }
        }
        let life = self.nodes[index].life;
        for (nth, piece) in (1..).zip(unchecked) {
            self.plan_in(nth * self.config.verify_ns, What::Checked(index, life, id, piece));
        }
    }

    fn checked(&mut self, node: usize, id: TorrentId, piece: u32) {
        let right = self.nodes[node].disk.check(id.0 as usize, piece);
        let outcome = if right { "a piece is found again" } else { "a wrong piece is found out" };
        self.count(outcome);
        self.maybe_over = true;
        self.tell(node, if right { Event::Found(id, piece) } else { Event::NotFound(id, piece) });
    }

    /// Connects `index` with up to `count` machines it is not connected with, as far as it is told
    /// of them.
    fn dial(&mut self, index: usize, torrent: usize, count: usize) {
        if self.tracker_is_away() {
            return self.count("the tracker is away");
        }
        let others = (0..self.nodes.len()).filter(|&other| {
            let shunned = self.nodes[index].shunned.get(&other);
            other != index
                && self.nodes[other].swarm.is_some()
                && !self.nodes[index].links.contains(&(other, torrent))
                && shunned.is_none_or(|&until| until <= self.now)
        });
        let mut others: Vec<usize> = others.collect();
        for _ in 0..count.min(others.len()) {
            let chosen = others.swap_remove(self.random.below(others.len() as u64) as usize);
            if self.random.chance(self.config.faults.dead_addresses_per_million) {
                self.count("the tracker tells of nobody's address");
            } else if !self.is_parted(index, chosen) {
                self.connect(index, chosen, torrent);
            }
        }
    }

    fn connect(&mut self, index: usize, other: usize, torrent: usize) {
        let plain = self.config.nodes[index].plain || self.config.nodes[other].plain;
        self.nodes[index].links.insert((other, torrent));
        self.nodes[other].links.insert((index, torrent));
        let mut conn = Conn::new([index, other], torrent, !plain);
        if self.random.chance(self.config.faults.slow_per_million) {
            self.count("a connection is slow");
            conn.slow_ns = self.config.faults.slow_ns;
        }
        self.conns.push(conn);
        // Two round trips: TCP's handshake, and BitTorrent's.
        self.plan_in(self.config.latency_ns * 4, What::Connected(self.conns.len() - 1));
    }

    fn on_connected(&mut self, index: usize) {
        let conn = &self.conns[index];
        let ([a, b], torrent) = (conn.nodes, TorrentId(conn.torrent as u32));
        if !conn.up || conn.lost {
            return;
        }
        let plain = self.config.nodes[a].plain || self.config.nodes[b].plain;
        for (node, other) in [(a, b), (b, a)] {
            self.tell(
                node,
                Event::Connected {
                    peer: peer_id(index),
                    torrent,
                    node: identity(other),
                    fast: !plain,
                    extended: !plain,
                },
            );
            let machine = machine(other, self.config.machines);
            self.tell(node, Event::From(peer_id(index), machine));
            if self.config.faults.promisers.contains(&node) {
                let field = swarm::bitfield::Bitfield::full(
                    self.nodes[node].disk.pieces(torrent.0 as usize),
                );
                let all = Message::Bitfield(field.to_bytes());
                self.with_end(node, peer_id(index), |end| end.outbox.say(&all));
            }
        }
    }

    fn handle(&mut self, index: usize, event: Event, wrong: bool) {
        let Some(swarm) = &mut self.nodes[index].swarm else { return };
        self.report.events += 1;
        let mut actions = Vec::new();
        if self.config.trace {
            println!("{:>12} {index:>3} < {}", self.now.0 / 1000, told(&event));
        }
        let wasted = swarm.totals().wasted;
        let received = received(&event);
        swarm.handle(self.now, event, &mut actions);
        let every = self.config.check_every;
        let checked = every > 0 && self.report.events.is_multiple_of(every);
        if checked {
            swarm.check_invariants();
        }
        let timeout = swarm.next_timeout();
        // The swarm keeps the first copy of a block, and only of what it waits for.
        if let Some((peer, block)) = received
            && swarm.totals().wasted == wasted
        {
            let torrent = self.conns[peer.0 as usize].torrent;
            self.nodes[index].disk.receive(torrent, block, wrong);
            self.wake_waiting(index);
        }
        for action in actions {
            if self.config.trace {
                println!("{:>12} {index:>3} > {}", self.now.0 / 1000, done(&action));
            }
            self.act(index, action);
        }
        let node = &mut self.nodes[index];
        if checked && !node.gone {
            let held = node.disk.held_bytes();
            let budget = self.config.swarm.budget;
            assert!(held <= budget, "pieces of {held} bytes in memory, {budget} allowed");
        }
        if timeout < node.tick_at && node.frozen_until <= self.now {
            node.tick_at = timeout.max(self.now);
            let (at, life) = (node.tick_at, node.life);
            self.plan(at, What::Tick(index, life));
        }
    }

    /// Something came that others may wait for.
    fn wake_waiting(&mut self, node: usize) {
        for waiting in core::mem::take(&mut self.nodes[node].waiting) {
            let side = self.conns[waiting].side_of(node);
            self.line_up(waiting, side);
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        let life = self.nodes[node].life;
        match action {
            Action::Send(peer, message) => self.say(node, peer, message),
            Action::Uplink(..) => {}
            Action::Allow(peer, bytes) => self.with_end(node, peer, |end| end.outbox.allow(bytes)),
            Action::Deny(peer) => self.with_end(node, peer, |end| {
                end.outbox.deny();
            }),
            Action::Request(peer, run) => self.with_end(node, peer, |end| {
                for block in run.blocks() {
                    end.expected.insert(block);
                    end.outbox.say(&Message::Request(block));
                }
            }),
            Action::Cancel(peer, run) => self.with_end(node, peer, |end| {
                let inside: Vec<Block> =
                    end.expected.iter().copied().filter(|block| covers(&run, block)).collect();
                for block in inside {
                    end.expected.remove(&block);
                    end.outbox.say(&Message::Cancel(block));
                }
            }),
            Action::Verify(id, piece) => {
                let right = self.nodes[node].disk.hash(id.0 as usize, piece);
                let what = What::Hashed(node, life, id, piece, right);
                self.plan_in(self.config.verify_ns, what);
            }
            Action::Store(id, piece) => {
                let now = self.now;
                match self.nodes[node].disk.store(id.0 as usize, piece, now) {
                    Some(at) => self.plan(at, What::Stored(node, life, id, piece)),
                    None => self.fail(node),
                }
            }
            Action::Release(id, piece) => self.nodes[node].disk.release(id.0 as usize, piece),
            Action::Discard(id, piece) => self.discard(node, id, piece),
            Action::Finished(id) => self.finish(node, id),
            Action::Close(peer, why) => {
                self.report.closed.push((node, why));
                self.shun(node, peer, why);
                self.hang_up(peer.0 as usize, Some(node));
            }
            // Whoever is here is known to all.
            Action::Met { .. } | Action::Pex(..) | Action::Metadata { .. } => {}
            Action::MorePeers(id) => self.dial(node, id.0 as usize, 2),
            Action::Wrong(..) => {}
            Action::Recheck(id, piece) => {
                self.plan_in(self.config.verify_ns, What::Reread(node, life, id, piece));
            }
        }
    }

    fn say(&mut self, node: usize, peer: PeerId, message: Message) {
        let said = if self.config.faults.babblers.contains(&node) {
            self.babble(self.conns[peer.0 as usize].torrent, message)
        } else {
            vec![message]
        };
        self.with_end(node, peer, |end| said.iter().for_each(|message| end.outbox.say(message)));
    }

    /// Who was sent away is not dialled for a while, as in the program.
    fn shun(&mut self, node: usize, peer: PeerId, why: Reason) {
        let other = self.conns[peer.0 as usize].nodes.into_iter().find(|&other| other != node);
        let wait = if why == Reason::Silent { SILENT_FOR } else { BAD_FOR };
        let until = self.now + wait;
        self.nodes[node].shunned.extend(other.map(|other| (other, until)));
    }

    /// Throws away what came of a piece, and the requests of those who were to have it.
    fn discard(&mut self, node: usize, id: TorrentId, piece: u32) {
        self.nodes[node].disk.discard(id.0 as usize, piece);
        for conn in 0..self.conns.len() {
            let link = &mut self.conns[conn];
            if !link.up || link.torrent != id.0 as usize || !link.nodes.contains(&node) {
                continue;
            }
            let side = link.side_of(node);
            let dropped = link.ends[side].outbox.drop_piece(piece);
            if dropped > 0 {
                self.tell(node, Event::Dropped(peer_id(conn), dropped));
                self.line_up(conn, side);
            }
        }
    }

    fn with_end(&mut self, node: usize, peer: PeerId, work: impl FnOnce(&mut crate::link::End)) {
        let conn = peer.0 as usize;
        let side = self.conns[conn].side_of(node);
        if self.conns[conn].up {
            work(&mut self.conns[conn].ends[side]);
            self.line_up(conn, side);
        }
    }

    fn finish(&mut self, index: usize, id: TorrentId) {
        let node = &mut self.nodes[index];
        let torrent = id.0 as usize;
        let mut pieces = 0..node.disk.pieces(torrent);
        let whole = pieces.all(|piece| node.disk.was_written(torrent, piece));
        assert!(whole, "node {index} says it has finished and has not");
        node.disk.flush(torrent);
        node.finished.insert(id);
        if node.finished.len() == self.config.torrents.len() {
            self.report.finished[index] = Some(self.now);
            self.maybe_over = true;
            if self.config.faults.leavers.contains(&index) {
                self.count("a client leaves when it has everything");
                let span = self.random.below(1_000_000_000);
                self.plan_in(span, What::Leave(index));
            }
        }
    }

    /// Ends a connection. Both sides hear of it after a while, but for the one who did it.
    pub(crate) fn hang_up(&mut self, index: usize, by: Option<usize>) {
        let conn = &mut self.conns[index];
        if !core::mem::take(&mut conn.up) {
            return;
        }
        let ([a, b], torrent) = (conn.nodes, conn.torrent);
        self.nodes[a].links.remove(&(b, torrent));
        self.nodes[b].links.remove(&(a, torrent));
        for node in [a, b] {
            if by != Some(node) {
                let gone = What::Gone(node, self.nodes[node].life, peer_id(index));
                self.plan_in(self.config.latency_ns, gone);
            }
        }
    }
}

/// The program's scheduler has these: how long not to dial who was sent away for silence, and who for
/// anything else.
const SILENT_FOR: Duration = Duration::from_secs(10);
const BAD_FOR: Duration = Duration::from_secs(60);

fn received(event: &Event) -> Option<(PeerId, Block)> {
    match *event {
        Event::Received { peer, piece, begin, len } => Some((peer, Block { piece, begin, len })),
        _ => None,
    }
}

/// An event for the trace.
fn told(event: &Event) -> String {
    match event {
        Event::Message(peer, message) => format!("{peer:?} says {}", said(message)),
        event => format!("{event:?}"),
    }
}

/// An action for the trace.
fn done(action: &Action) -> String {
    match action {
        Action::Send(peer, message) => format!("{peer:?} is told {}", said(message)),
        action => format!("{action:?}"),
    }
}

/// A message for the trace: those of our extension are read.
fn said(message: &Message) -> String {
    match message {
        Message::Extended { id: XG_ID, payload } => match Xg::decode(payload) {
            Ok(xg) => format!("{xg:?}"),
            Err(why) => why.to_string(),
        },
        Message::Extended { payload, .. } => String::from_utf8_lossy(payload).into_owned(),
        message => format!("{message:?}"),
    }
}

/// Whether a run holds all of a block.
fn covers(run: &Run, block: &Block) -> bool {
    block.piece == run.piece
        && block.begin >= run.begin
        && block.begin + block.len <= run.begin + run.len
}

fn identity(index: usize) -> u64 {
    mix(index as u64 + 1)
}

/// Where a node runs, if clients are on so many machines.
fn machine(index: usize, machines: u64) -> u64 {
    match (index as u64, machines) {
        (index, 0) | (index @ 0, _) => index,
        (index, machines) => 1 + index % machines,
    }
}
