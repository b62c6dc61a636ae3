//! What is simulated: nodes, links, disks, faults. All of it numbers, so a run can be repeated.

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
    /// Of a million quanta, how many arrive wrong.
    pub corrupt_per_million: u64,
    /// Nodes whose every quantum is wrong when it arrives.
    pub liars: Vec<usize>,
    /// Connections are reset this often on average, in nanoseconds; 0 for never.
    pub reset_every_ns: u64,
    /// A connection stands still this often on average, in nanoseconds; 0 for never.
    pub stall_every_ns: u64,
    /// How long it stands still.
    pub stall_ns: u64,
    /// Machines that stop.
    pub stops: Vec<Stop>,
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
    /// It says nothing any more, and its connections stay; after so many nanoseconds it goes on.
    Freeze(u64),
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
            latency_ns: piece_ns / 40,
            quantum: piece_len / 16,
            window: 3,
            in_band: false,
            verify_ns: piece_ns / 10,
            degree: 24,
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
        let bytes: u64 = self.torrents.iter().map(|image| image.len).sum();
        // Images of some terabytes at most: 2^43 * 10^9 needs 128 bits.
        (u128::from(bytes) * 1_000_000_000 / u128::from(self.nodes[0].up)) as u64
    }
}
