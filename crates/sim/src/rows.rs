//! The rows of the lab, simulated: what `cargo xtask lab` measures with the real program and a real kernel
//! is foretold here with one set of parameters.
//!
//! Each parameter is measured on the machine where the lab runs, alone, and none is chosen so that rows
//! agree. What the model has no word for is not here: disks that seek, links that change, other programs.

use crate::config::{Config, How, Image, NodeConfig, Partition, Stop};
use crate::report::{Report, thousandths};
use crate::table::MIXED;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use swarm::time::Time;

/// Bytes a second of payload on a link of 100 Mbit/s: 1448 bytes of each packet, which the shaper counts
/// with 1514. A TCP connection alone gets just that.
const RATE: u64 = 12_500_000 * 1448 / 1514;

/// One way from one idle machine to another, half of what `ping` says.
const LATENCY_NS: u64 = 30_000;

/// The block that our nodes ask for at that rate, 8 ms of it. A packet is smaller, but the model knows no
/// part of a block, and with less than a block for each turn whoever asks for small ones would get less.
const QUANTUM: u32 = 64 << 10;

/// What `ss -ti` says is on its way on a connection that is busy, in blocks.
const WINDOW: u32 = 2;

/// Nanoseconds to hash a byte on one core (`cargo run --release -p ezio --example sha1_rate`).
const HASH_NS_PER_BYTE: f64 = 0.5;

/// From the start of a process to its first request, when it is alone.
const START_NS: u64 = 20_000_000;

/// The image, and what it is cut into; above eight clients all is smaller, so that one machine can carry
/// all of them.
const LEN: u64 = 256 << 20;
const PIECE_LEN: u32 = 1 << 20;
const CLIENTS_FULL: u64 = 8;

/// A room, and what is told of it.
pub struct Row {
    /// Scenario and case, as the lab calls them.
    pub name: String,
    config: Config,
    counts: RangeInclusive<usize>,
    time: Measure,
}

/// Which time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// From the start of all to the last end, over what nothing can be faster than.
    Makespan,
    /// From the start of each to its end, over the image at the link's rate; the longest.
    Own,
}

impl Row {
    fn new(name: &str, config: Config) -> Row {
        let clients = config.nodes.len() - 1;
        Row { name: name.to_owned(), config, counts: 1..=clients, time: Measure::Makespan }
    }

    /// The last client does not count.
    fn but_one(self) -> Row {
        Row { counts: 1..=self.counts.end() - 1, ..self }
    }

    fn own(self, counts: RangeInclusive<usize>) -> Row {
        Row { time: Measure::Own, counts, ..self }
    }

    /// Runs it. What the lab calls makespan / bound, or own time / ideal, or `None` if one of those who
    /// count did not finish; and the copies that the server sent; both in thousandths.
    #[must_use]
    pub fn run(&self) -> (Option<u64>, u64) {
        let report = crate::run(self.config.clone());
        (self.figure(&report), report.source_copies())
    }

    fn figure(&self, report: &Report) -> Option<u64> {
        match self.time {
            Measure::Makespan => {
                let bound_ns = self.config.bound_ns(self.counts.clone());
                Some(thousandths(report.makespan_ns(self.counts.clone())?, bound_ns))
            }
            Measure::Own => {
                let started = START_NS * 1000 / self.config.ideal_ns();
                Some(report.slowest(self.counts.clone())? + started)
            }
        }
    }
}

/// Equal links to so many clients.
fn room(clients: usize, piece_len: u32, seed: u64) -> Config {
    let part = |whole: u64| whole * CLIENTS_FULL / CLIENTS_FULL.max(clients as u64);
    let rate = part(RATE);
    let start = Time(START_NS);
    let node = NodeConfig { up: rate, down: rate, disk: 0, join: start, plain: false };
    // Parts of numbers that fitted.
    let piece_len = part(piece_len.into()) as u32;
    Config {
        torrents: vec![Image { len: part(LEN), piece_len }],
        nodes: vec![node; clients + 1],
        latency_ns: LATENCY_NS,
        quantum: part(QUANTUM.into()) as u32,
        window: WINDOW,
        in_band: true,
        verify_ns: (f64::from(piece_len) * HASH_NS_PER_BYTE) as u64,
        degree: clients,
        tells_rates: false,
        ..Config::equal(clients, 1, seed)
    }
}

/// Eight clients; the last is changed, and does not count.
fn one_of(name: &str, seed: u64, change: impl FnOnce(&mut Config, usize)) -> Row {
    let mut config = room(8, PIECE_LEN, seed);
    change(&mut config, 8);
    Row::new(name, config).but_one()
}

/// Eight clients, all of which count.
fn fluid(name: &str, seed: u64, change: impl FnOnce(&mut [NodeConfig])) -> Row {
    let mut config = room(8, PIECE_LEN, seed);
    change(&mut config.nodes);
    Row::new(name, config)
}

/// All rows; `seed` fixes what is left to chance.
#[must_use]
pub fn rows(seed: u64) -> Vec<Row> {
    let half = |config: &Config| Time(START_NS + config.ideal_ns() / 2);
    let stop = |how: How| {
        move |config: &mut Config, node: usize| {
            config.faults.stops.push(Stop { node, at: half(config), how });
        }
    };
    let slow_up = |count: usize| {
        move |nodes: &mut [NodeConfig]| {
            nodes.iter_mut().rev().take(count).for_each(|node| node.up /= 10);
        }
    };
    let mut rows: Vec<Row> = [1, 2, 3, 4, 8, 16, 32]
        .map(|n| Row::new(&format!("equal, N = {n}"), room(n, PIECE_LEN, seed)))
        .into();
    for n in [8, 16, 32] {
        let name = format!("equal, N = {n}, 1024 pieces");
        rows.push(Row::new(&name, room(n, PIECE_LEN / 4, seed)));
    }
    rows.extend(joins(seed));
    rows.extend([
        one_of("slow-link", seed, |config, last| {
            config.nodes[last].up /= 10;
            config.nodes[last].down /= 10;
        }),
        one_of("slow-disk", seed, |config, last| config.nodes[last].disk = RATE / 10),
        one_of("killed", seed, stop(How::Crash)),
        one_of("frozen", seed, stop(How::Freeze(60_000_000_000))),
        one_of("cable", seed, |config, last| {
            let at = Time(START_NS + config.ideal_ns() / 4);
            config.faults.partitions.push(Partition { at, heals: half(config), sides: 1 << last });
        }),
        fluid("slow-uplink, one", seed, slow_up(1)),
        fluid("slow-uplink, 3", seed, slow_up(3)),
        fluid("half-seeder", seed, |nodes| nodes[0].up /= 2),
        fluid("mixed", seed, |nodes| {
            for (node, (up, down)) in nodes[1..].iter_mut().zip(MIXED.iter().cycle()) {
                (node.up, node.down) = (node.up * up / 100, node.down * down / 100);
            }
        }),
        Row::new("five-torrents", five(seed)),
    ]);
    rows
}

fn joins(seed: u64) -> [Row; 3] {
    let mut spread = room(8, PIECE_LEN, seed);
    let ideal = spread.ideal_ns();
    for (index, node) in (0_u64..).zip(&mut spread.nodes[1..]) {
        node.join = Time(START_NS + ideal * 3 / 10 * index / 7);
    }
    let mut half = room(8, PIECE_LEN, seed);
    for node in &mut half.nodes[5..] {
        node.join = Time(START_NS + ideal / 2);
    }
    [
        Row::new("joins, spread over 0.3", spread).own(1..=8),
        Row::new("joins, half way: those who join", half.clone()).own(5..=8),
        Row::new("joins, half way: those before", half).own(1..=4),
    ]
}

/// Five images of a fifth, in whole pieces.
fn five(seed: u64) -> Config {
    let config = room(8, PIECE_LEN, seed);
    let pieces = LEN / 5 / u64::from(PIECE_LEN);
    let image = Image { len: pieces * u64::from(PIECE_LEN), piece_len: PIECE_LEN };
    Config { torrents: vec![image; 5], ..config }
}

/// Every row with its median over `seeds`.
#[must_use]
pub fn table(seeds: &[u64]) -> String {
    let mut text = String::from("row                                 figure  server copies\n");
    for (index, row) in rows(0).iter().enumerate() {
        let mut figures: Vec<(Option<u64>, u64)> =
            seeds.iter().map(|&seed| rows(seed).swap_remove(index).run()).collect();
        figures.sort_unstable();
        let (figure, copies) = figures[figures.len() / 2];
        let show = |figure: u64| format!("{}.{:03}", figure / 1000, figure % 1000);
        let figure = figure.map_or_else(|| "stuck".to_owned(), show);
        let _ = writeln!(text, "{:<34}{figure:>8}{:>15}", row.name, show(copies));
    }
    text
}
