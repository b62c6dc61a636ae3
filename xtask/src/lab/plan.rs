//! A run as data: who takes part, over which links, with which disks, and what happens to whom.

use super::flood::Attack;
use super::options::{Shape, TargetKind};
use super::program::Program;
use lab::disk::Model;
use lab::net::goodput;
use lab::{Links, Need, Rates, TestDisk};
use std::fmt;

/// One run: a server and its clients.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) shape: Shape,
    /// Torrents that the image is cut into, which are served and deployed together.
    pub(super) images: usize,
    pub(super) server: Node,
    pub(super) clients: Vec<Node>,
    /// Bytes that the memory group of each client allows (`memory.max` of cgroup v2).
    pub(super) memory_max: Option<u64>,
    /// Somebody at the same switch who wants them to fail.
    pub(super) flooder: Option<Flooder>,
}

/// Who is no part of the deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flooder {
    pub(super) attack: Attack,
    pub(super) rates: Rates,
}

/// A machine of a run.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) program: Program,
    pub(super) rates: Rates,
    pub(super) disk: Disk,
    pub(super) start: Start,
    /// Whether the run waits for it, and its time is in the figures.
    pub(super) counts: bool,
    /// In their order.
    pub(super) events: Vec<Event>,
}

/// Where a server reads and a client writes. A libtorrent has files in memory, whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    /// A file in memory.
    File,
    /// A loop device over one.
    Loop,
    /// A disk that takes its time. A client's is a file without a page cache, as a disk is whose
    /// image is far larger than memory: a write takes what the disk takes. What the client sends
    /// to others is read from the disk too, where a page cache would still have most of it. A
    /// server's is a loop device, so that reading ahead works.
    Slow(Model),
    /// A loop device over such a disk. These images are smaller than a page cache, so it takes all
    /// of one at once, and the disk gets most of it when the client flushes.
    Cached(Model),
    /// A file on the disk of `--disk`.
    Real,
}

/// When a client begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Start {
    /// Seconds after the first one.
    At(f64),
    /// When those of the first wave have half of the image.
    HalfDone,
}

/// Something that happens to a client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Event {
    /// When the first wave's clients that count have this part of the image, on average.
    pub(super) at: f64,
    pub(super) what: What,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// SIGKILL.
    Kill,
    /// SIGSTOP: its connections stay, it says nothing.
    Freeze,
    /// Its cable is pulled out of the switch.
    Unplug,
    /// And put in again.
    Plug,
    /// Its link changes.
    Rates(Rates),
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Disk::File => "file",
            Disk::Loop => "loop",
            Disk::Slow(Model::HardDisk(_)) => "hard disk",
            Disk::Slow(_) => "slow disk",
            Disk::Cached(_) => "cached disk",
            Disk::Real => "disk",
        })
    }
}

impl From<TargetKind> for Disk {
    fn from(kind: TargetKind) -> Disk {
        match kind {
            TargetKind::File => Disk::File,
            TargetKind::Loop => Disk::Loop,
        }
    }
}

impl Plan {
    /// Everybody alike, and nothing happens.
    pub(super) fn equal(shape: Shape, program: Program, target: TargetKind) -> Plan {
        let node = Node {
            program,
            rates: Rates::both(shape.rate),
            disk: target.into(),
            start: Start::At(0.0),
            counts: true,
            events: Vec::new(),
        };
        let server = Node { disk: Disk::File, ..node.clone() };
        Plan {
            shape,
            images: 1,
            server,
            clients: vec![node; shape.nodes],
            memory_max: None,
            flooder: None,
        }
    }

    /// The same, with the server changed.
    pub(super) fn server(mut self, change: impl Fn(&mut Node)) -> Plan {
        change(&mut self.server);
        self
    }

    /// The same, with every client changed.
    pub(super) fn each(mut self, change: impl Fn(usize, &mut Node)) -> Plan {
        self.clients.iter_mut().enumerate().for_each(|(index, node)| change(index, node));
        self
    }

    /// The same, with the last `count` clients changed.
    pub(super) fn last(self, count: usize, change: impl Fn(&mut Node)) -> Plan {
        let first = self.clients.len().saturating_sub(count);
        self.each(|index, node| {
            if index >= first {
                change(node);
            }
        })
    }

    /// The same with another program everywhere; `None` if that cannot do it.
    pub(super) fn all(&self, program: Program) -> Option<Plan> {
        let possible = program == Program::Ours
            || self.images == 1
                && self.memory_max.is_none()
                && self.flooder.is_none()
                && self.nodes().all(|node| matches!(node.disk, Disk::File | Disk::Loop));
        let set = |node: &mut Node| node.program = program;
        possible.then(|| self.clone().server(set).each(|_, node| set(node)))
    }

    /// The server, then the clients.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.server).chain(&self.clients)
    }

    /// Whether `program` runs anywhere.
    pub(super) fn has(&self, program: Program) -> bool {
        self.nodes().any(|node| node.program == program)
    }

    /// The programs: `ezio`, `libtorrent`, or both with the server's first.
    pub(super) fn programs(&self) -> String {
        let mut names = vec![self.server.program.to_string()];
        for name in self.clients.iter().map(|client| client.program.to_string()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(" + ")
    }

    /// Whether all clients end by themselves, and well, when nobody needs them any more.
    pub(super) fn ends_well(&self) -> bool {
        !self.has(Program::Libtorrent)
            && self.clients.iter().all(|node| node.counts && node.events.is_empty())
    }

    /// What it needs of the machine.
    pub(super) fn needs(&self) -> Vec<Need> {
        let mut needs = Program::Ours.needs();
        if self.has(Program::Libtorrent) {
            needs.extend(Program::Libtorrent.needs());
        }
        let is_loop = |disk: Disk| matches!(disk, Disk::Loop | Disk::Cached(_));
        let slow_source = matches!(self.server.disk, Disk::Slow(_));
        if slow_source || self.nodes().any(|node| is_loop(node.disk)) {
            needs.extend([Need::Loop, Need::Program("losetup")]);
        }
        if self.nodes().any(|node| matches!(node.disk, Disk::Slow(_) | Disk::Cached(_))) {
            needs.extend(TestDisk::NEEDS);
        }
        needs
    }

    /// How many machines there are at the switch.
    pub(super) fn machines(&self) -> usize {
        1 + self.clients.len() + usize::from(self.flooder.is_some())
    }

    /// The links of all, the server being node 0; a flooder is the last.
    pub(super) fn links(&self, congestion: Option<String>) -> Links {
        let flooder = self.flooder.map(|flooder| flooder.rates);
        let rates = self.nodes().map(|node| node.rates).chain(flooder);
        let others = rates.enumerate().collect();
        Links { rates: Rates::default(), others, congestion }
    }

    /// Seconds that the image takes over one link of the run, and through the slower disk of a
    /// server and a client that counts: what a client takes that comes into a swarm which has
    /// everything. `None` without a limit.
    pub(super) fn ideal_seconds(&self) -> Option<f64> {
        let size = self.shape.size as f64;
        let clients = self.counting().map(Node::intake);
        let least = clients.fold(self.server.outgo(), f64::min);
        least.is_finite().then(|| size / least)
    }

    /// Seconds that nothing can be faster than if all begin at once: the image out of the server,
    /// into the slowest client that counts, and all copies out of all uplinks.
    pub(super) fn bound_seconds(&self) -> Option<f64> {
        let copies = self.counting().count() as f64;
        let out: f64 = self.nodes().map(|node| node.rates.up.map_or(f64::INFINITY, goodput)).sum();
        let shared = self.shape.size as f64 * copies / out;
        Some(self.ideal_seconds()?.max(shared))
    }

    fn counting(&self) -> impl Iterator<Item = &Node> {
        self.clients.iter().filter(|node| node.counts)
    }
}

impl Node {
    /// Bytes a second that it can take in.
    fn intake(&self) -> f64 {
        self.rates.down.map_or(f64::INFINITY, goodput).min(self.disk.rate())
    }

    /// Bytes a second that it can give.
    fn outgo(&self) -> f64 {
        self.rates.up.map_or(f64::INFINITY, goodput).min(self.disk.rate())
    }
}

impl Disk {
    /// Bytes a second in one stream.
    fn rate(self) -> f64 {
        match self {
            Disk::Slow(model) | Disk::Cached(model) => match model {
                Model::Rate { bytes_per_s } => bytes_per_s as f64,
                Model::HardDisk(disk) => disk.bytes_per_s as f64,
                Model::Instant => f64::INFINITY,
            },
            Disk::File | Disk::Loop | Disk::Real => f64::INFINITY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With an image that one link carries in a second.
    fn equal(nodes: usize) -> Plan {
        let rate = 12_500_000;
        let shape = Shape { nodes, rate, size: goodput(rate) as u64, piece_len: 1 << 16 };
        Plan::equal(shape, Program::Ours, TargetKind::File)
    }

    fn check(plan: &Plan, seconds: f64) {
        let bound = plan.bound_seconds().unwrap();
        assert!((bound - seconds).abs() < 0.001, "{bound} s and not {seconds} s");
    }

    #[test]
    fn the_bound_is_the_tightest_of_three() {
        let up = |share: f64| Some((12_500_000.0 * share) as u64);
        check(&equal(8), 1.0);
        check(&equal(8).server(|node| node.rates.up = up(0.5)), 2.0);
        check(&equal(8).last(1, |node| node.rates.down = up(0.25)), 4.0);
        check(&equal(8).last(3, |node| node.rates.up = up(0.1)), 8.0 / 6.3);
        // Who does not count still gives.
        let slow = |node: &mut Node| {
            node.rates = Rates { up: up(0.1), down: up(0.1) };
            node.counts = false;
        };
        check(&equal(8).last(1, slow), 1.0);
        let disk = Disk::Slow(Model::Rate { bytes_per_s: goodput(12_500_000) as u64 / 5 });
        check(&equal(8).each(|_, node| node.disk = disk), 5.0);
        let free = |node: &mut Node| node.rates = Rates::default();
        assert_eq!(equal(1).server(free).each(|_, node| free(node)).bound_seconds(), None);
    }

    #[test]
    fn another_program_takes_over_what_it_can() {
        let slow = Disk::Slow(Model::Rate { bytes_per_s: 1 });
        assert_eq!(equal(2).all(Program::Libtorrent).unwrap().programs(), "libtorrent");
        assert!(equal(2).server(|node| node.disk = slow).all(Program::Libtorrent).is_none());
        let mixed = equal(2).last(1, |node| node.program = Program::Libtorrent);
        assert_eq!(mixed.programs(), "ezio + libtorrent");
        assert!(!mixed.ends_well() && equal(2).ends_well());
    }
}
