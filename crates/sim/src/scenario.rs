//! A whole run drawn from one number: sizes, rates, settings, and what goes wrong.
//!
//! Each kind of fault is there or not by itself, so that most runs have some, and every two meet.
//! What only ever happens together hides what one of them would show.

use crate::config::{Config, Decay, Faults, How, Image, NodeConfig, Partition, Stop};
use swarm::random::{Random, mix};
use swarm::time::Time;

impl Config {
    /// The run of `seed`. All invariants are checked after every event, and at the end of its faults
    /// everybody has to get what anybody has.
    #[must_use]
    pub fn drawn(seed: u64) -> Config {
        let mut draw = Draw(Random::new(mix(seed)));
        let clients = 1 + draw.below(draw_up_to(&[2, 4, 7], seed)) as usize;
        let torrents = draw.torrents();
        let bytes: u64 = torrents.iter().map(|image| image.len).sum();
        let wanted_ns = draw.scale(200_000_000, 10_000_000_000);
        let rate = (u128::from(bytes) * 1_000_000_000 / u128::from(wanted_ns)) as u64;
        let rate = rate.max(RATE_MIN);
        let ideal_ns = bytes * 1_000_000_000 / rate + 1_000_000;
        let nodes = (0..=clients).map(|_| draw.node(rate, ideal_ns)).collect();
        let mut config = Config { nodes, torrents, ..Config::equal(clients, 1, seed) };
        config.nodes[0].join = Time(draw.one_in(4) * draw.below(ideal_ns));
        config.latency_ns = draw.scale(20_000, 20_000_000);
        // At most a fiftieth of a second of the link, as the program's writers have it.
        let most = u32::try_from(rate / 50).unwrap_or(u32::MAX).max(16 << 10);
        config.quantum = draw.of(&[16 << 10, 64 << 10, 256 << 10]).min(most);
        config.window = draw.of(&[1, 2, 3, 8]);
        config.in_band = draw.one_in(4) == 0;
        config.tells_rates = draw.one_in(2) == 0;
        config.verify_ns = config.piece_ns() / draw.of(&[1, 10, 100]);
        config.degree = 1 + draw.below(clients as u64) as usize;
        config.check_every = 1;
        // In a quarter of the runs several are at one address.
        config.machines = if seed % 4 == 1 { 1 + seed / 4 % 3 } else { 0 };
        draw.settings(&mut config);
        draw.strangers(&mut config);
        draw.faults(&mut config, ideal_ns);
        let faults = &config.faults;
        if [&faults.liars, &faults.babblers, &faults.promisers].iter().all(|l| l.is_empty()) {
            // Among honest nodes a few neighbours are enough.
            config.swarm.peers_enough = draw.of(&[2, 24]);
        }
        let bound = BOUND_NS + ideal_ns * 20;
        config.end = Time(config.faults.quiet.0 + bound);
        config
    }
}

/// Bytes a second of the slowest links, but for nodes that are slower than the others: timeouts are
/// made for networks of 10 Mbit/s and more, and a block of 16 KiB takes 30 ms of this.
const RATE_MIN: u64 = 500_000;

/// Simulated time after the last fault in which everybody has to have finished, besides what the
/// transfer takes: ten times the longest that somebody is not dialled.
const BOUND_NS: u64 = 600_000_000_000;

fn draw_up_to(choices: &[u64], seed: u64) -> u64 {
    choices[(seed % choices.len() as u64) as usize]
}

struct Draw(Random);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    /// 1 once in `n` times, else 0.
    fn one_in(&mut self, n: u64) -> u64 {
        u64::from(self.below(n) == 0)
    }

    fn happens(&mut self, one_in: u64) -> bool {
        self.one_in(one_in) == 1
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A number between the two, each power of two as likely as the others.
    fn scale(&mut self, least: u64, most: u64) -> u64 {
        let doublings = u64::from((most / least.max(1)).max(1).ilog2());
        let base = least << self.below(doublings + 1);
        (base + self.below(base)).min(most)
    }

    fn torrents(&mut self) -> Vec<Image> {
        let count = if self.happens(4) { 2 + self.below(2) } else { 1 };
        let images = (0..count).map(|_| {
            let piece_len = self.of(&[16_u32 << 10, 64 << 10, 128 << 10, 256 << 10]);
            let pieces = self.scale(1, 32 / count);
            // The last piece may be short.
            let len = pieces * u64::from(piece_len) - self.below(u64::from(piece_len));
            Image { len, piece_len }
        });
        images.collect()
    }

    fn node(&mut self, rate: u64, ideal_ns: u64) -> NodeConfig {
        let slower = |draw: &mut Draw| (rate >> draw.of(&[0, 0, 0, 0, 0, 1, 2, 3])).max(1);
        let disk = self.of(&[0, 0, 0, rate * 2, rate, rate / 4 + 1]);
        let join = self.one_in(4) * self.below(ideal_ns * 3);
        NodeConfig { up: slower(self), down: slower(self), disk, join: Time(join), plain: false }
    }

    fn settings(&mut self, config: &mut Config) {
        let largest = config.torrents.iter().map(|image| image.piece_len).max().unwrap_or(0);
        if self.happens(3) {
            config.swarm.budget = u64::from(largest) * (2 + self.below(8));
        }
        config.swarm.block_max = self.of(&[16 << 10, 64 << 10, 1 << 20]);
        if self.happens(4) {
            config.swarm.slots = 1 + self.below(8) as u32;
            let least = 1 + self.below(12) as u32;
            config.swarm.in_flight = (least, least + self.below(8) as u32);
        }
    }

    fn strangers(&mut self, config: &mut Config) {
        if self.happens(4) {
            for node in 0..config.nodes.len() {
                config.nodes[node].plain = self.happens(2);
            }
        }
    }

    fn faults(&mut self, config: &mut Config, ideal_ns: u64) {
        if self.happens(20) {
            config.faults.quiet = self.quiet(config, ideal_ns);
            return;
        }
        let often = |draw: &mut Draw| draw.one_in(4) * draw.scale(ideal_ns / 32, ideal_ns);
        let mut faults = Faults {
            corrupt_per_million: self.one_in(4) * self.scale(500, 50_000),
            misread_per_million: self.one_in(5) * self.scale(500, 50_000),
            reset_every_ns: often(self),
            lose_every_ns: often(self),
            stall_every_ns: often(self),
            stall_ns: self.scale(10_000_000, 10_000_000_000),
            slow_per_million: self.one_in(4) * self.below(700_000),
            slow_ns: self.scale(10_000_000, 200_000_000),
            dead_addresses_per_million: self.one_in(4) * self.below(800_000),
            ..Faults::default()
        };
        self.strike_nodes(config, &mut faults, ideal_ns);
        self.strike_disks(config, &mut faults, ideal_ns);
        if self.happens(5) {
            let at = self.below(ideal_ns * 2);
            let heals = at + self.scale(10_000_000, 20_000_000_000);
            let sides = self.0.next_u64();
            faults.partitions.push(Partition { at: Time(at), heals: Time(heals), sides });
        }
        if self.happens(5) {
            let from = self.of(&[0, ideal_ns / 2]);
            let to = from + self.scale(10_000_000, 10_000_000_000);
            faults.tracker_away.push((Time(from), Time(to)));
        }
        config.faults = faults;
        config.faults.quiet = self.quiet(config, ideal_ns);
    }

    fn strike_nodes(&mut self, config: &Config, faults: &mut Faults, ideal_ns: u64) {
        let nodes = config.nodes.len();
        let client = |draw: &mut Draw| 1 + draw.below(nodes as u64 - 1) as usize;
        let stops = if self.happens(2) { self.below(4) } else { 0 };
        for _ in 0..stops {
            let span = self.scale(10_000_000, 20_000_000_000);
            let how = self.of(&[
                How::Crash,
                How::Restart(span),
                How::Restart(span),
                How::PowerCut(span),
                How::Blank(span),
                How::Freeze(span),
                How::DiskFails,
            ]);
            let stop = Stop { node: client(self), at: Time(self.below(ideal_ns * 2)), how };
            faults.stops.push(stop);
        }
        if self.happens(4) {
            let span = self.scale(10_000_000, 20_000_000_000);
            let how = self.of(&[How::Restart(span), How::Freeze(span), How::Crash]);
            // It may be gone for good before everything was sent: the others share what there is.
            faults.stops.push(Stop { node: 0, at: Time(self.below(ideal_ns * 2)), how });
        }
        let list = |draw: &mut Draw| if draw.happens(8) { vec![client(draw)] } else { Vec::new() };
        faults.liars = list(self);
        faults.babblers = list(self);
        faults.promisers = list(self);
        if self.happens(5) {
            faults.leavers = (1..nodes).filter(|_| self.happens(2)).collect();
        }
        if self.happens(8) {
            let torrent = self.below(config.torrents.len() as u64) as usize;
            let (at, span) = (self.below(ideal_ns), self.scale(10_000_000, 5_000_000_000));
            faults.pauses.push((self.below(nodes as u64) as usize, torrent, Time(at), span));
        }
    }

    fn strike_disks(&mut self, config: &Config, faults: &mut Faults, ideal_ns: u64) {
        let count = if self.happens(4) { 1 + self.below(4) } else { 0 };
        for _ in 0..count {
            let torrent = self.below(config.torrents.len() as u64) as usize;
            let image = config.torrents[torrent];
            let pieces = image.len.div_ceil(u64::from(image.piece_len));
            let any = self.below(config.nodes.len() as u64) as usize;
            faults.decays.push(Decay {
                node: self.of(&[0, any]),
                torrent,
                piece: self.below(pieces) as u32,
                at: Time(self.below(ideal_ns * 2)),
                unreadable: self.happens(2),
            });
        }
    }

    /// When the last single fault is over, and those that come again have had some time.
    fn quiet(&mut self, config: &Config, ideal_ns: u64) -> Time {
        let faults = &config.faults;
        let stops = faults.stops.iter().map(|stop| match stop.how {
            How::Restart(span) | How::PowerCut(span) | How::Blank(span) | How::Freeze(span) => {
                stop.at.0 + span
            }
            How::Crash | How::DiskFails => stop.at.0,
        });
        let joins = config.nodes.iter().map(|node| node.join.0);
        let pauses = faults.pauses.iter().map(|&(_, _, at, span)| at.0 + span);
        let others = faults.partitions.iter().map(|partition| partition.heals.0);
        let others = others.chain(faults.tracker_away.iter().map(|&(_, to)| to.0));
        let decays = faults.decays.iter().map(|decay| decay.at.0);
        let last = stops.chain(joins).chain(pauses).chain(others).chain(decays).max();
        Time(last.unwrap_or(0).max(self.below(ideal_ns * 3)) + 1)
    }
}
