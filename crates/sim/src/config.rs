//! What is simulated: nodes, links, disks, faults. All of it numbers, so a run can be repeated.

use std::ops::RangeInclusive;
use swarm::time::Time;

/// A run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Fixes everything that is left to chance.
    pub seed: u64,
    /// The images, all of which every node wants; node 0 has them.
    pub torrents: Vec<Image>,
    /// Node 0 is the source, the others want everything.
    pub nodes: Vec<NodeConfig>,
    /// The clients run on so many machines, in turn; 0: each has one of its own, as the source has.
    pub machines: u64,
    /// One way, without queues, in nanoseconds.
    pub latency_ns: u64,
    /// Largest piece of data that has the wire for itself, in bytes: what TCP and the switch
    /// interleave. Also the largest block.
    pub quantum: u32,
    /// Quanta sent on a connection and not yet taken by the receiver, as TCP's window bounds them.
    pub window: u32,
    /// Control messages wait behind data, on the uplink and at the receiver's port. If not, they
    /// only take `latency_ns`.
    pub in_band: bool,
    /// From the last byte of a piece to knowing that it is right, in nanoseconds.
    pub verify_ns: u64,
    /// Connections each node begins with: all others up to that many, chosen by chance above.
    pub degree: usize,
    /// Nodes know how fast their links are. If not, they learn it.
    pub tells_rates: bool,
    /// What goes wrong.
    pub faults: Faults,
    /// After how many events all invariants are checked; 0 for never. 1 is thorough and slow.
    pub check_every: u64,
    /// The run is given up then: somebody is stuck.
    pub end: Time,
    /// Print what happens.
    pub trace: bool,
    /// Settings of every node's swarm; rates and identities are filled in.
    pub swarm: swarm::swarm::Config,
}

/// What is to be deployed.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// Bytes.
    pub len: u64,
    /// Bytes of a piece.
    pub piece_len: u32,
}

/// One machine.
#[derive(Clone, Copy, Debug)]
pub struct NodeConfig {
    /// Bytes a second it can send.
    pub up: u64,
    /// Bytes a second it can receive, at the same time.
    pub down: u64,
    /// Bytes a second its disk writes; 0 if at once.
    pub disk: u64,
    /// When it comes.
    pub join: Time,
    /// Whether it speaks plain BitTorrent without our extension.
    pub plain: bool,
}

/// What goes wrong, on top of what [`NodeConfig`] makes slow.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Of a million blocks, how many are wrong when they arrive.
    pub corrupt_per_million: u64,
    /// Of a million blocks that are read from a disk, how many are read wrong that once.
    pub misread_per_million: u64,
    /// Nodes whose every block is wrong when it arrives.
    pub liars: Vec<usize>,
    /// Nodes that say things they do not mean: some of their messages are lost, said twice, or
    /// replaced by others, all of them well formed.
    pub babblers: Vec<usize>,
    /// Nodes that say that they have everything and never send any of it.
    pub promisers: Vec<usize>,
    /// Connections are reset this often on average, in nanoseconds; 0 for never.
    pub reset_every_ns: u64,
    /// A connection is lost this often on average, in nanoseconds; 0 for never. Nothing of it
    /// arrives any more, and both sides hear of that only after up to 20 seconds.
    pub lose_every_ns: u64,
    /// A connection stands still this often on average, in nanoseconds; 0 for never.
    pub stall_every_ns: u64,
    /// How long it stands still.
    pub stall_ns: u64,
    /// Of a million connections, how many are slow.
    pub slow_per_million: u64,
    /// What a slow one takes on top of the latency, each way, in nanoseconds.
    pub slow_ns: u64,
    /// The network falls in two.
    pub partitions: Vec<Partition>,
    /// Machines that stop.
    pub stops: Vec<Stop>,
    /// What becomes of single pieces on disks.
    pub decays: Vec<Decay>,
    /// Torrents that are paused: node, torrent, when, and for how many nanoseconds.
    pub pauses: Vec<(usize, usize, Time, u64)>,
    /// When nobody is told of anybody: from, and to. What is connected stays.
    pub tracker_away: Vec<(Time, Time)>,
    /// Of a million addresses, how many lead nowhere.
    pub dead_addresses_per_million: u64,
    /// Clients that leave as soon as they have everything.
    pub leavers: Vec<usize>,
    /// Faults that come again and again stop here, and the single ones are over. From then on it is
    /// asked that everybody gets what anybody has. 0: the run ends when everybody has finished.
    pub quiet: Time,
}

/// A network that falls in two.
#[derive(Clone, Copy, Debug)]
pub struct Partition {
    /// When.
    pub at: Time,
    /// When it is one again.
    pub heals: Time,
    /// A bit for each node: on which side it is.
    pub sides: u64,
}

impl Partition {
    /// Whether two nodes are on different sides.
    pub(crate) fn parts(&self, a: usize, b: usize) -> bool {
        (self.sides >> a ^ self.sides >> b) & 1 == 1
    }
}

/// What becomes of a piece on a disk.
#[derive(Clone, Copy, Debug)]
pub struct Decay {
    /// On whose disk.
    pub node: usize,
    /// Of which torrent.
    pub torrent: usize,
    /// Which piece.
    pub piece: u32,
    /// When.
    pub at: Time,
    /// Reading it fails. If not, it is wrong.
    pub unreadable: bool,
}

/// A machine that stops.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// Which.
    pub node: usize,
    /// When.
    pub at: Time,
    /// How.
    pub how: How,
}

/// How a machine stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Its connections are reset; it never comes back.
    Crash,
    /// The same, but it comes back after so many nanoseconds with what its disk has.
    Restart(u64),
    /// The power goes: of what was not flushed some is lost and some is torn. It comes back after so
    /// many nanoseconds, and nobody says to its peers that it is gone.
    PowerCut(u64),
    /// It comes back after so many nanoseconds with an empty disk.
    Blank(u64),
    /// It says nothing any more, and its connections stay; after so many nanoseconds it goes on.
    Freeze(u64),
    /// Its disk refuses the next write, being full or broken: it gives up and says so.
    DiskFails,
}

impl Config {
    /// `clients` equal machines and a source on links of 100 Mbit/s, `pieces` of 1 MiB, and the
    /// model of an ideal network: 16 quanta a piece, three of them in a connection's window, a
    /// round trip of 0.05 and a hash of 0.1 piece times, control messages out of band.
    #[must_use]
    pub fn equal(clients: usize, pieces: u32, seed: u64) -> Config {
        let piece_len: u32 = 1 << 20;
        let rate = 12_500_000;
        let node = NodeConfig { up: rate, down: rate, disk: 0, join: Time(0), plain: false };
        let piece_ns = u64::from(piece_len) * 1_000_000_000 / rate;
        Config {
            seed,
            torrents: vec![Image { len: u64::from(pieces) * u64::from(piece_len), piece_len }],
            nodes: vec![node; clients + 1],
            machines: 0,
            latency_ns: piece_ns / 40,
            quantum: piece_len / 16,
            window: 3,
            in_band: false,
            verify_ns: piece_ns / 10,
            degree: 24,
            tells_rates: true,
            faults: Faults::default(),
            check_every: 0,
            end: Time(piece_ns * (u64::from(pieces) * 12 + 2000)),
            trace: false,
            swarm: swarm::swarm::Config::default(),
        }
    }

    /// How long one piece of the first image takes on the source's link, in nanoseconds.
    #[must_use]
    pub fn piece_ns(&self) -> u64 {
        u64::from(self.torrents[0].piece_len) * 1_000_000_000 / self.nodes[0].up
    }

    /// How long all images take on the source's link, in nanoseconds: what nobody can beat.
    #[must_use]
    pub fn ideal_ns(&self) -> u64 {
        self.copies_ns(1, self.nodes[0].up)
    }

    /// What not even a fluid can beat until these clients have all, in nanoseconds: all images out of
    /// the source, into the slowest of them, and their copies out of all uplinks.
    #[must_use]
    pub fn bound_ns(&self, clients: RangeInclusive<usize>) -> u64 {
        let counting = &self.nodes[clients];
        let slowest = counting.iter().map(|node| node.down).fold(self.nodes[0].up, u64::min);
        let uplinks = self.nodes.iter().map(|node| node.up).sum();
        self.copies_ns(1, slowest).max(self.copies_ns(counting.len() as u64, uplinks))
    }

    fn copies_ns(&self, copies: u64, rate: u64) -> u64 {
        let bytes: u64 = self.torrents.iter().map(|image| image.len).sum();
        // Images of some terabytes at most: 2^43 * 10^9 needs 128 bits.
        (u128::from(bytes) * u128::from(copies) * 1_000_000_000 / u128::from(rate)) as u64
    }
}
