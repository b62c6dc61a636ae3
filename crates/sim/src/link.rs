//! Ports and connections: how bytes get from one machine to another, and how long that takes.

use crate::world::{What, World};
use std::collections::{BTreeSet, VecDeque};
use swarm::outbox::{Outbox, Run};
use swarm::swarm::{Event, PeerId};
use swarm::time::Time;
use swarm::wire::{Block, Message, decode};

/// One connection about one torrent. Its index is the peer's id on both sides.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) nodes: [usize; 2],
    pub(crate) torrent: usize,
    pub(crate) up: bool,
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
        Conn { nodes, torrent, up: true, stalled_until: Time(0), ends: [end(), end()] }
    }

    pub(crate) fn side_of(&self, node: usize) -> usize {
        usize::from(self.nodes[1] == node)
    }
}

impl Port {
    fn control_first(&self) -> bool {
        self.arrived.front().is_some_and(|packet| matches!(packet.load, Load::Control(_)))
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
                self.plan_in(self.config.latency_ns, What::Arrive(packet));
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
            if !link.up || stalled || end.in_window >= self.config.window {
                continue;
            }
            let disk = &self.nodes[node].disk;
            let ready = |block: &Block| disk.ready(link.torrent, block);
            let Some(run) = end.outbox.take(self.config.quantum, ready) else { continue };
            end.in_window += 1;
            let wrong = disk.is_wrong(link.torrent, run.piece);
            self.nodes[node].port.sending = true;
            if node == 0 {
                self.report.source_sent += u64::from(run.len);
            }
            self.tell(node, Event::Served(peer_id(conn), run.len.into()));
            let span = u64::from(run.len) * 1_000_000_000 / self.config.nodes[node].up;
            self.plan_in(span, What::Sent(node));
            let packet = Packet { conn, side, load: Load::Data(run, wrong) };
            self.plan_in(span + self.config.latency_ns, What::Arrive(packet));
            self.line_up(conn, side);
            return;
        }
    }

    pub(crate) fn on_sent(&mut self, node: usize) {
        self.nodes[node].port.sending = false;
        self.send_next(node);
    }

    /// Something has come through the switch.
    pub(crate) fn on_arrive(&mut self, packet: Packet) {
        let conn = &self.conns[packet.conn];
        if !conn.up {
            return;
        }
        if conn.stalled_until > self.now {
            let at = conn.stalled_until;
            return self.plan(at, What::Arrive(packet));
        }
        let node = conn.nodes[1 - packet.side];
        let port = &mut self.nodes[node].port;
        match packet.load {
            Load::Control(_) if !self.config.in_band => port.arrived.push_front(packet),
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
            self.plan_in(self.config.latency_ns, What::Acked(conn, side));
            run.blocks().for_each(|block| self.receive(conn, 1 - side, block, wrong));
            for waiting in core::mem::take(&mut self.nodes[node].waiting) {
                let side = self.conns[waiting].side_of(node);
                self.line_up(waiting, side);
            }
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
        let wrong = wrong || liar || self.random.chance(self.config.faults.corrupt_per_million);
        self.nodes[node].disk.receive(link.torrent, block, wrong);
        let Block { piece, begin, len } = block;
        self.tell(node, Event::Received { peer: peer_id(conn), piece, begin, len });
    }

    /// Control messages are here: what the reader of a connection does.
    fn hear(&mut self, conn: usize, side: usize, mut bytes: &[u8]) {
        let (node, peer) = (self.conns[conn].nodes[side], peer_id(conn));
        let mut requested = 0;
        while let Some((message, used)) = decode(bytes).expect("our own messages are well formed") {
            bytes = &bytes[used..];
            if let Message::Request(block) = message {
                requested += self.take_request(conn, side, block);
                continue;
            }
            if requested > 0 {
                self.tell(node, Event::Requested(peer, core::mem::take(&mut requested)));
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
            self.tell(node, Event::Requested(peer, requested));
        }
        self.line_up(conn, side);
    }

    /// Returns the bytes that were queued.
    fn take_request(&mut self, conn: usize, side: usize, block: Block) -> u64 {
        let link = &mut self.conns[conn];
        let serves = self.nodes[link.nodes[side]].disk.serves(link.torrent, block);
        let end = &mut link.ends[side];
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
