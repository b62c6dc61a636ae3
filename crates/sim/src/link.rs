//! Ports and connections: how bytes get from one machine to another, and how long that takes.

use crate::disk::Reading;
use crate::world::{What, World};
use std::collections::{BTreeSet, VecDeque};
use swarm::outbox::{Outbox, Run};
use swarm::swarm::{Event, PeerId, TorrentId};
use swarm::time::Time;
use swarm::wire::{Block, Message, decode};

/// One connection about one torrent. Its index is the peer's id on both sides.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) nodes: [usize; 2],
    pub(crate) torrent: usize,
    pub(crate) up: bool,
    /// Nothing arrives any more, and nobody knows.
    pub(crate) lost: bool,
    /// What it takes on top of the latency, each way, in nanoseconds.
    pub(crate) slow_ns: u64,
    pub(crate) stalled_until: Time,
    pub(crate) ends: [End; 2],
}

/// What one side of a connection holds.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) outbox: Outbox,
    /// Quanta sent and not yet taken by the other side.
    in_window: u32,
    /// Blocks asked for and not here.
    pub(crate) expected: BTreeSet<Block>,
    /// Whether it is in line for its uplink.
    in_line: bool,
    /// Whether it is in line with control messages.
    in_control_line: bool,
}

/// A machine's port, both directions.
#[derive(Debug, Default)]
pub(crate) struct Port {
    sending: bool,
    line: VecDeque<usize>,
    control_line: VecDeque<usize>,
    arrived: VecDeque<Packet>,
    taking: Option<Packet>,
}

/// Something on the wire, from side `side` of a connection.
#[derive(Debug)]
pub(crate) struct Packet {
    conn: usize,
    side: usize,
    load: Load,
}

#[derive(Debug)]
enum Load {
    Control(Vec<u8>),
    /// Whether it was wrong when it was sent.
    Data(Run, bool),
}

impl Conn {
    pub(crate) fn new(nodes: [usize; 2], torrent: usize, fast: bool) -> Conn {
        let end = || End {
            outbox: Outbox::new(fast),
            in_window: 0,
            expected: BTreeSet::new(),
            in_line: false,
            in_control_line: false,
        };
        let (up, lost, slow_ns, stalled_until) = (true, false, 0, Time(0));
        Conn { nodes, torrent, up, lost, slow_ns, stalled_until, ends: [end(), end()] }
    }

    pub(crate) fn side_of(&self, node: usize) -> usize {
        usize::from(self.nodes[1] == node)
    }
}

impl Port {
    fn control_first(&self) -> bool {
        self.arrived.front().is_some_and(|packet| matches!(packet.load, Load::Control(_)))
    }

    /// Control messages that do not wait behind data come behind each other all the same.
    fn push_control(&mut self, packet: Packet) {
        let data = |packet: &Packet| matches!(packet.load, Load::Data(..));
        let at = self.arrived.iter().position(data).unwrap_or(self.arrived.len());
        self.arrived.insert(at, packet);
    }

    /// Loses what has arrived and not been taken.
    pub(crate) fn clear(&mut self) {
        self.arrived.clear();
    }
}

impl World {
    /// Puts a connection's end in line for its uplink, for what it has to send.
    pub(crate) fn line_up(&mut self, conn: usize, side: usize) {
        let node = self.conns[conn].nodes[side];
        let end = &mut self.conns[conn].ends[side];
        let port = &mut self.nodes[node].port;
        if end.outbox.has_control() && !end.in_control_line {
            end.in_control_line = true;
            port.control_line.push_back(conn);
        }
        let torrent = self.conns[conn].torrent;
        let disk = &self.nodes[node].disk;
        let end = &mut self.conns[conn].ends[side];
        let ready = end.outbox.has_ready(|block| disk.ready(torrent, block));
        if end.outbox.has_blocks() && !ready {
            self.nodes[node].waiting.insert(conn);
        }
        let port = &mut self.nodes[node].port;
        if ready && end.in_window < self.config.window && !end.in_line {
            end.in_line = true;
            port.line.push_back(conn);
        }
        self.send_next(node);
    }

    /// Puts the next things on a node's uplink if it is free.
    pub(crate) fn send_next(&mut self, node: usize) {
        let frozen = self.is_frozen(node);
        if frozen || (self.nodes[node].port.sending && self.config.in_band) {
            return;
        }
        while let Some(conn) = self.nodes[node].port.control_line.pop_front() {
            let side = self.conns[conn].side_of(node);
            let end = &mut self.conns[conn].ends[side];
            end.in_control_line = false;
            let mut bytes = Vec::new();
            if end.outbox.take_control(&mut bytes) && self.conns[conn].up {
                let packet = Packet { conn, side, load: Load::Control(bytes) };
                let span = self.config.latency_ns + self.conns[conn].slow_ns;
                self.plan_in(span, What::Arrive(packet));
            }
        }
        if self.nodes[node].port.sending {
            return;
        }
        while let Some(conn) = self.nodes[node].port.line.pop_front() {
            let side = self.conns[conn].side_of(node);
            let stalled = self.conns[conn].stalled_until > self.now;
            let link = &mut self.conns[conn];
            let end = &mut link.ends[side];
            end.in_line = false;
            if !link.up || link.lost || stalled || end.in_window >= self.config.window {
                continue;
            }
            let disk = &self.nodes[node].disk;
            let ready = |block: &Block| disk.ready(link.torrent, block);
            let Some(run) = end.outbox.take(self.config.quantum, ready) else { continue };
            let Some(wrong) = self.read(conn, side, run) else { continue };
            self.conns[conn].ends[side].in_window += 1;
            self.nodes[node].port.sending = true;
            if node == 0 {
                self.report.source_sent += u64::from(run.len);
            }
            self.tell(node, Event::Served(peer_id(conn), run.len.into()));
            let span = u64::from(run.len) * 1_000_000_000 / self.config.nodes[node].up;
            self.plan_in(span, What::Sent(node));
            let packet = Packet { conn, side, load: Load::Data(run, wrong) };
            let latency = self.config.latency_ns + self.conns[conn].slow_ns;
            self.plan_in(span + latency, What::Arrive(packet));
            self.line_up(conn, side);
            return;
        }
    }

    /// Reads what is to be sent. Returns whether it is wrong; `None` if it cannot be read, and then
    /// does what the writer of a connection does.
    fn read(&mut self, conn: usize, side: usize, run: Run) -> Option<bool> {
        let (node, torrent) = (self.conns[conn].nodes[side], self.conns[conn].torrent);
        let other = self.conns[conn].nodes[1 - side];
        let strange = self.config.nodes[node].plain || self.config.nodes[other].plain;
        if strange && !self.lies(node) && !self.lies(other) {
            let verified = self.nodes[node].disk.was_verified(torrent, run.piece);
            assert!(verified, "a stranger gets piece {} before it is verified", run.piece);
        }
        match self.nodes[node].disk.read(torrent, run.piece) {
            Reading::Wrong => {
                self.count("a wrong block is sent on, or read from a rotten piece");
                Some(true)
            }
            Reading::Right => {
                let from_disk = self.nodes[node].disk.is_on_disk_only(torrent, run.piece);
                let misread = from_disk && self.strikes(self.config.faults.misread_per_million);
                if misread {
                    self.count("a block is read wrong");
                }
                Some(misread)
            }
            Reading::Failed => {
                self.count("a piece cannot be read");
                let outbox = &mut self.conns[conn].ends[side].outbox;
                run.blocks().for_each(|block| outbox.reject(block));
                let dropped = u64::from(run.len) + outbox.drop_piece(run.piece);
                self.tell(node, Event::Dropped(peer_id(conn), dropped));
                self.tell(node, Event::Unreadable(TorrentId(torrent as u32), run.piece));
                // Without BEP 6 there is no way to say it.
                if strange {
                    self.hang_up(conn, None);
                }
                self.line_up(conn, side);
                None
            }
        }
    }

    pub(crate) fn on_sent(&mut self, node: usize) {
        self.nodes[node].port.sending = false;
        self.send_next(node);
    }

    /// Something has come through the switch.
    pub(crate) fn on_arrive(&mut self, packet: Packet) {
        let conn = &self.conns[packet.conn];
        if !conn.up || conn.lost {
            return;
        }
        if conn.stalled_until > self.now {
            let at = conn.stalled_until;
            return self.plan(at, What::Arrive(packet));
        }
        let node = conn.nodes[1 - packet.side];
        let port = &mut self.nodes[node].port;
        match packet.load {
            Load::Control(_) if !self.config.in_band => port.push_control(packet),
            _ => port.arrived.push_back(packet),
        }
        self.take_next(node);
    }

    /// A node takes what has arrived, in order, at its rate.
    pub(crate) fn take_next(&mut self, node: usize) {
        while !self.is_frozen(node)
            && let port = &mut self.nodes[node].port
            && (port.taking.is_none() || (!self.config.in_band && port.control_first()))
            && let Some(packet) = port.arrived.pop_front()
        {
            match packet.load {
                Load::Control(ref bytes) => {
                    if self.conns[packet.conn].up {
                        self.hear(packet.conn, 1 - packet.side, bytes);
                    }
                }
                Load::Data(run, _) => {
                    let rate = self.config.nodes[node].down;
                    self.nodes[node].port.taking = Some(packet);
                    self.plan_in(u64::from(run.len) * 1_000_000_000 / rate, What::Taken(node));
                }
            }
        }
    }

    pub(crate) fn on_taken(&mut self, node: usize) {
        let Some(Packet { conn, side, load }) = self.nodes[node].port.taking.take() else { return };
        if let Load::Data(run, wrong) = load
            && self.conns[conn].up
        {
            let span = self.config.latency_ns + self.conns[conn].slow_ns;
            self.plan_in(span, What::Acked(conn, side));
            run.blocks().for_each(|block| self.receive(conn, 1 - side, block, wrong));
        }
        self.take_next(node);
    }

    pub(crate) fn on_acked(&mut self, conn: usize, side: usize) {
        self.conns[conn].ends[side].in_window -= 1;
        if self.conns[conn].up {
            self.line_up(conn, side);
        }
    }

    /// A block is here: kept if it is still expected.
    fn receive(&mut self, conn: usize, side: usize, block: Block, wrong: bool) {
        let link = &mut self.conns[conn];
        let node = link.nodes[side];
        if !link.ends[side].expected.remove(&block) {
            self.report.unasked += u64::from(block.len);
            return;
        }
        let liar = self.config.faults.liars.contains(&link.nodes[1 - side]);
        let corrupt = self.strikes(self.config.faults.corrupt_per_million);
        if corrupt {
            self.count("a block is corrupted on the wire");
        }
        if liar {
            self.count("a liar sends a wrong block");
        }
        self.deliver(node, peer_id(conn), block, wrong || liar || corrupt);
    }

    /// Control messages are here: what the reader of a connection does.
    fn hear(&mut self, conn: usize, side: usize, mut bytes: &[u8]) {
        let (node, peer) = (self.conns[conn].nodes[side], peer_id(conn));
        let (mut requested, mut of) = (0, 0);
        while let Some((message, used)) = decode(bytes).expect("our own messages are well formed") {
            bytes = &bytes[used..];
            if let Message::Request(block) = message {
                (requested, of) = (requested + self.take_request(conn, side, block), block.piece);
                continue;
            }
            if requested > 0 {
                self.tell(node, Event::Requested(peer, of, core::mem::take(&mut requested)));
            }
            let end = &mut self.conns[conn].ends[side];
            match message {
                Message::Cancel(block) => match end.outbox.cancel(block) {
                    0 => {}
                    dropped => self.tell(node, Event::Dropped(peer, dropped)),
                },
                Message::Reject(block) => {
                    end.expected.remove(&block);
                    self.tell(node, Event::Message(peer, message));
                }
                message => self.tell(node, Event::Message(peer, message)),
            }
        }
        assert!(bytes.is_empty(), "our own messages are whole");
        if requested > 0 {
            self.tell(node, Event::Requested(peer, of, requested));
        }
        self.line_up(conn, side);
    }

    /// Returns the bytes that were queued.
    fn take_request(&mut self, conn: usize, side: usize, block: Block) -> u64 {
        let link = &mut self.conns[conn];
        let node = link.nodes[side];
        let serves = self.nodes[node].disk.serves(link.torrent, block);
        let end = &mut link.ends[side];
        if self.config.faults.promisers.contains(&node) {
            self.count("a promise is not kept");
            return 0;
        }
        if !serves {
            end.outbox.reject(block);
            return 0;
        }
        end.outbox.request(block).map_or(0, |()| u64::from(block.len))
    }
}

pub(crate) fn peer_id(conn: usize) -> PeerId {
    PeerId(u32::try_from(conn).expect("fewer than 2^32 connections in a run"))
}
