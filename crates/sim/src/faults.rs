//! What goes wrong in a run, and what counts as over.

use crate::config::{Decay, How};
use crate::world::{What, World};
use swarm::swarm::{Event, TorrentId};
use swarm::time::Time;
use swarm::wire::Message;
use swarm::wire::extension::{Coming, Grant, XG_ID, Xg};

impl World {
    pub(crate) fn plan_faults(&mut self) {
        let faults = self.config.faults.clone();
        for stop in faults.stops {
            self.plan(stop.at, What::Stop(stop.node, stop.how));
        }
        for (index, partition) in faults.partitions.iter().enumerate() {
            self.plan(partition.at, What::Split(index));
        }
        for decay in faults.decays {
            self.plan(decay.at, What::Decay(decay));
        }
        for (node, torrent, at, span_ns) in faults.pauses {
            self.plan(at, What::Pause(node, torrent, true));
            self.plan(Time(at.0 + span_ns), What::Pause(node, torrent, false));
        }
        self.plan_next(faults.reset_every_ns, What::ResetOne);
        self.plan_next(faults.lose_every_ns, What::LoseOne);
        self.plan_next(faults.stall_every_ns, What::StallOne);
    }

    /// Counts a fault that has happened.
    pub(crate) fn count(&mut self, fault: &'static str) {
        self.count_many(fault, 1);
    }

    pub(crate) fn count_many(&mut self, fault: &'static str, times: u64) {
        if times > 0 {
            *self.report.faults.entry(fault).or_default() += times;
        }
    }

    /// Whether a machine is not asked to finish: it is gone for good, or will be, or lies.
    pub(crate) fn stays_away(&self, node: usize) -> bool {
        let crashes = |how| matches!(how, How::Crash | How::DiskFails);
        let stops = &self.config.faults.stops;
        self.nodes[node].gone
            || stops.iter().any(|stop| stop.node == node && crashes(stop.how))
            || self.lies(node)
    }

    /// Whether a machine does not do what it should, on purpose.
    pub(crate) fn lies(&self, node: usize) -> bool {
        let faults = &self.config.faults;
        [&faults.liars, &faults.babblers, &faults.promisers].iter().any(|l| l.contains(&node))
    }

    /// Clients that should have finished and did not: each honest one that is there, and after the
    /// faults only if somebody has what it lacks.
    pub(crate) fn stuck(&self) -> Vec<usize> {
        let quiet = self.config.faults.quiet;
        let lacks = |node: usize| {
            if quiet == Time(0) || self.now < quiet || self.nodes[node].swarm.is_none() {
                return true;
            }
            self.obtainable().any(|(torrent, piece)| {
                let disk = &self.nodes[node].disk;
                !disk.was_written(torrent, piece)
            })
        };
        let clients = 1..self.nodes.len();
        clients
            .filter(|&node| {
                self.report.finished[node].is_none() && !self.stays_away(node) && lacks(node)
            })
            .collect()
    }

    /// The pieces that some honest machine has that stays.
    fn obtainable(&self) -> impl Iterator<Item = (usize, u32)> {
        let pieces = (0..self.config.torrents.len())
            .flat_map(|torrent| (0..self.nodes[0].disk.pieces(torrent)).map(move |p| (torrent, p)));
        pieces.filter(|&(torrent, piece)| {
            (0..self.nodes.len()).any(|node| {
                let machine = &self.nodes[node];
                let there = machine.swarm.is_some() && !machine.gone && !self.lies(node);
                there && machine.disk.is_intact(torrent, piece)
            })
        })
    }

    pub(crate) fn stop(&mut self, node: usize, how: How) {
        match how {
            How::Freeze(span_ns) => {
                self.count("a node freezes and goes on");
                self.nodes[node].frozen_until = Time(self.now.0 + span_ns);
                self.plan_in(span_ns, What::Thaw(node));
            }
            How::Crash => {
                self.count("a node crashes for good");
                self.switch_off(node);
            }
            How::Restart(span_ns) => {
                let fault = match node {
                    0 => "the seeder is gone and back",
                    _ => "a node crashes and returns with its disk",
                };
                self.count(fault);
                self.switch_off(node);
                self.plan_in(span_ns, What::Join(node));
            }
            How::PowerCut(span_ns) => self.cut_power(node, span_ns),
            How::Blank(span_ns) => {
                self.count("a node crashes and returns with nothing");
                self.switch_off(node);
                self.nodes[node].disk.replace();
                self.plan_in(span_ns, What::Join(node));
            }
            How::DiskFails => self.nodes[node].disk.refuses = true,
        }
    }

    /// A machine without power says nothing to anybody: its connections are lost.
    fn cut_power(&mut self, node: usize, span_ns: u64) {
        self.count("a node loses power and returns");
        let conns = self.conns_of(node);
        for &conn in &conns {
            self.lose(conn);
        }
        let pieces = self.nodes[node].disk.lose_power(&mut self.random);
        self.switch_off(node);
        self.count_many("a written piece lost or torn by a power cut", pieces);
        self.plan_in(span_ns, What::Join(node));
    }

    /// The disk did not take a piece: as the program does, the node gives the torrents up and leaves.
    pub(crate) fn fail(&mut self, node: usize) {
        if core::mem::replace(&mut self.nodes[node].gone, true) {
            return;
        }
        self.count("a disk refuses a write");
        for torrent in 0..self.config.torrents.len() {
            self.tell(node, Event::Remove(TorrentId(torrent as u32)));
        }
        self.plan(self.now, What::Leave(node));
    }

    pub(crate) fn leave(&mut self, node: usize) {
        self.nodes[node].gone = true;
        self.switch_off(node);
    }

    pub(crate) fn decay(&mut self, decay: Decay) {
        let disk = &mut self.nodes[decay.node].disk;
        if decay.unreadable {
            disk.go_bad(decay.torrent, decay.piece);
        } else if disk.rot(decay.torrent, decay.piece) {
            self.count("a piece rots on a disk");
        }
    }

    pub(crate) fn pause(&mut self, node: usize, torrent: usize, paused: bool) {
        let id = TorrentId(torrent as u32);
        if paused {
            self.count("a torrent is paused and resumed");
        }
        self.tell(node, if paused { Event::Pause(id) } else { Event::Resume(id) });
    }

    pub(crate) fn thaw(&mut self, node: usize) {
        self.tell(node, Event::Tick);
        self.take_next(node);
        self.send_next(node);
    }

    fn conns_of(&self, node: usize) -> Vec<usize> {
        let of_node =
            |conn: &usize| self.conns[*conn].up && self.conns[*conn].nodes.contains(&node);
        (0..self.conns.len()).filter(of_node).collect()
    }

    fn switch_off(&mut self, node: usize) {
        for conn in self.conns_of(node) {
            if !self.conns[conn].lost {
                self.hang_up(conn, Some(node));
            }
        }
        let machine = &mut self.nodes[node];
        machine.swarm = None;
        machine.life += 1;
        machine.port.clear();
        machine.disk.lose_memory();
        machine.shunned.clear();
        self.report.finished[node] = None;
    }

    pub(crate) fn reset_one(&mut self) {
        if let Some(conn) = self.some_conn() {
            self.count("a connection is reset");
            self.hang_up(conn, None);
        }
        self.plan_next(self.config.faults.reset_every_ns, What::ResetOne);
    }

    pub(crate) fn lose_one(&mut self) {
        if let Some(conn) = self.some_conn() {
            self.count("a connection is lost silently");
            self.lose(conn);
        }
        self.plan_next(self.config.faults.lose_every_ns, What::LoseOne);
    }

    /// Nothing arrives any more on a connection; its ends find out at some time.
    fn lose(&mut self, conn: usize) {
        if !core::mem::replace(&mut self.conns[conn].lost, true) {
            let span = 1_000_000_000 + self.random.below(19_000_000_000);
            self.plan_in(span, What::HangUp(conn));
        }
    }

    pub(crate) fn stall_one(&mut self) {
        if let Some(conn) = self.some_conn() {
            self.count("a connection stands still");
            self.stall(conn, Time(self.now.0 + self.config.faults.stall_ns));
        }
        self.plan_next(self.config.faults.stall_every_ns, What::StallOne);
    }

    /// One that stands still already does so as long as was planned: what it carries keeps its order.
    fn stall(&mut self, conn: usize, until: Time) {
        if self.conns[conn].stalled_until <= self.now {
            self.conns[conn].stalled_until = until;
            self.plan(until, What::Unstall(conn));
        }
    }

    /// The network falls in two: what crosses stands still, or is lost.
    pub(crate) fn split(&mut self, index: usize) {
        let partition = self.config.faults.partitions[index];
        self.count("the network falls in two and heals");
        let conns: Vec<usize> = (0..self.conns.len()).filter(|&c| self.conns[c].up).collect();
        for conn in conns {
            let [a, b] = self.conns[conn].nodes;
            if !partition.parts(a, b) {
                continue;
            }
            if self.random.below(2) == 0 {
                self.lose(conn);
            } else {
                self.stall(conn, partition.heals);
            }
        }
    }

    /// Whether two machines cannot reach each other now.
    pub(crate) fn is_parted(&self, a: usize, b: usize) -> bool {
        let partitions = &self.config.faults.partitions;
        partitions.iter().any(|p| p.at <= self.now && self.now < p.heals && p.parts(a, b))
    }

    /// Whether nobody is told of anybody now.
    pub(crate) fn tracker_is_away(&self) -> bool {
        let away = &self.config.faults.tracker_away;
        away.iter().any(|&(from, to)| from <= self.now && self.now < to)
    }

    fn some_conn(&mut self) -> Option<usize> {
        let up: Vec<usize> = (0..self.conns.len()).filter(|&conn| self.conns[conn].up).collect();
        let chosen = self.random.below(up.len() as u64) as usize;
        up.get(chosen).copied()
    }

    /// Whether faults that come again and again have ended.
    pub(crate) fn is_quiet(&self) -> bool {
        let quiet = self.config.faults.quiet;
        quiet > Time(0) && self.now >= quiet
    }

    /// Something that happens so often in a million, as long as faults happen.
    pub(crate) fn strikes(&mut self, per_million: u64) -> bool {
        per_million > 0 && !self.is_quiet() && self.random.chance(per_million)
    }

    /// Plans a fault after half to one and a half of its average distance.
    fn plan_next(&mut self, every_ns: u64, what: What) {
        if every_ns > 0 && !self.is_quiet() {
            let span = every_ns / 2 + self.random.below(every_ns);
            self.plan_in(span, what);
        }
    }

    /// What a node that babbles says for `message`.
    pub(crate) fn babble(&mut self, torrent: usize, message: Message) -> Vec<Message> {
        let babbled = match self.random.below(12) {
            0 => Vec::new(),
            1 => vec![message.clone(), message],
            2 => vec![self.nonsense(torrent)],
            3 => vec![message, self.nonsense(torrent)],
            _ => return vec![message],
        };
        self.count("a peer says what it does not mean");
        babbled
    }

    /// A message that is well formed, and true only by chance.
    fn nonsense(&mut self, torrent: usize) -> Message {
        let pieces = u64::from(self.nodes[0].disk.pieces(torrent));
        // Sometimes one behind the end.
        let reach = pieces + u64::from(self.random.below(8) == 0);
        let piece = self.random.below(reach) as u32;
        let size = u64::from(self.config.torrents[torrent].piece_len);
        let bytes = self.random.below(4 * size);
        let xg = |xg: Xg| Message::Extended { id: XG_ID, payload: xg.encode() };
        match self.random.below(12) {
            0 => Message::Have(piece),
            1 => Message::HaveAll,
            2 => Message::Interested,
            3 => Message::NotInterested,
            4 => Message::Choke,
            5 => Message::Unchoke,
            6 => xg(Xg { lost: Some(piece), ..Xg::default() }),
            7 => xg(Xg { unused: Some(bytes), ..Xg::default() }),
            8 => xg(Xg { grant: Some(Grant { bytes, piece: Some(piece) }), ..Xg::default() }),
            9 => xg(Xg { grant: Some(Grant { bytes, piece: None }), ..Xg::default() }),
            10 => {
                let (load, rate) = (Some(self.random.below(256) as u8), Some(bytes));
                xg(Xg { load, rate, ..Xg::default() })
            }
            _ => {
                let hops = 1 + self.random.below(9) as u8;
                xg(Xg { coming: Some(Coming { piece, hops }), ..Xg::default() })
            }
        }
    }
}
