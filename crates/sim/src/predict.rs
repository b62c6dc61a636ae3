//! How long a deployment will take: the simulator with the user's sizes and rates.
//!
//! An image of 50 GB is not simulated byte by byte. What matters is how many pieces there are and
//! how long each takes, so lengths and rates are divided by the same number until a block is a
//! [`UNIT`]; times stay what they are. An image of very many pieces is simulated up to some of them,
//! and the rest is taken to go on at the pace of the second half.
//!
//! Equal machines behind a switch that is fast enough. A disk bounds what a client writes and what
//! the server reads; what clients send each other comes from memory.

use crate::config::{Config, Faults, Image, NodeConfig};
use crate::report::{Report, thousandths};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use swarm::metainfo::{PIECE_LEN_MAX, PIECE_LEN_MIN, piece_len_for};
use swarm::random::Random;
use swarm::swarm::UNIT;
use swarm::time::Time;
use swarm::units::{Bytes, Rate, Seconds};

/// What is deployed, and on what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Used bytes, 1 to 2^50.
    pub len: u64,
    /// Bytes of a piece, a power of two; `None` for what `ezio capture` chooses.
    pub piece_len: Option<u32>,
    /// Bytes a second that every link carries, each way. At least [`RATE_MIN`].
    pub link: u64,
    /// Bytes a second that every disk reads or writes, at least [`RATE_MIN`]; `None` if disks are
    /// not to matter.
    pub disk: Option<u64>,
    /// Fixes what is left to chance.
    pub seed: u64,
}

/// What is to be expected for a number of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// Machines that get the image.
    pub clients: usize,
    /// Until the last of them has it on its disk, in nanoseconds.
    pub makespan_ns: u64,
    /// The makespan as a multiple of the image at the link's rate, in thousandths, rounded up.
    pub ratio: u64,
    /// How many copies of the image the server sends, in thousandths, rounded up.
    pub source_copies: u64,
    /// What the time is spent on.
    pub limit: Limit,
    /// Pieces that were simulated; fewer than there are if those are too many.
    pub simulated: u64,
}

/// What a faster one of would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The network.
    Link,
    /// Reading at the server, writing at the clients.
    Disk,
    /// Neither: there are so few pieces that passing them on takes a good part of the time.
    Pieces,
}

impl Limit {
    /// In a word, for tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Limit::Link => "link",
            Limit::Disk => "disk",
            Limit::Pieces => "pieces",
        }
    }
}

/// Why there is no prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PredictError {
    /// [`Scenario::len`] is out of bounds.
    #[error("an image has 1 byte to 1 PiB")]
    Len,
    /// [`Scenario::piece_len`] is.
    #[error("a piece has a power of two of bytes, from 16KiB to 64MiB")]
    PieceLen,
    /// A rate is.
    #[error("links and disks carry at least 1MB/s and at most 1000GB/s")]
    Rate,
    /// The number of clients is.
    #[error("there are 1 to {CLIENTS_MAX} clients")]
    Clients,
    /// A bug: without faults everybody finishes.
    #[error("a simulated client never finished; seed {seed} with {clients} clients shows the bug")]
    Stuck {
        /// The scenario's.
        seed: u64,
        /// How many there were.
        clients: usize,
    },
}

/// Clients at most: a quarter of a minute of simulation. More take little longer.
pub const CLIENTS_MAX: usize = 64;

/// Least rate, in bytes a second. Below, most of what is simulated is waiting.
pub const RATE_MIN: u64 = 1_000_000;
const RATE_MAX: u64 = 1_000_000_000_000;
const LEN_MAX: u64 = 1 << 50;

/// Blocks that are simulated, all clients together: some seconds.
const BLOCKS_MAX: u64 = 256 << 10;

/// Pieces that are simulated whatever the number of clients; half of them show the steady pace.
const PIECES_MIN: u64 = 256;

/// Pieces that are simulated at most: what `ezio capture` makes of an image, unless told otherwise.
const PIECES_MAX: u64 = 4096;

/// Blocks of a piece at the least, as in [`Config::equal`].
const BLOCKS: u32 = 16;

/// A second without a block is a stalled peer. So a piece that takes long has more blocks.
const BLOCK_NS_MAX: u64 = 400_000_000;

/// One way through a switch and two kernels.
const LATENCY_NS: u64 = 100_000;

/// No two machines begin in the same moment, even told to.
const JOIN_NS: u64 = 10_000_000;

/// SHA-1 of one core, rounded down: 1 GB/s.
const HASH_NS_PER_BYTE: u64 = 1;

impl Scenario {
    /// Bytes of a piece.
    #[must_use]
    pub fn piece_len(&self) -> u32 {
        self.piece_len.unwrap_or_else(|| piece_len_for(self.len))
    }

    /// How many pieces the image has.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        self.len.div_ceil(self.piece_len().into())
    }

    /// The image at the link's rate, in nanoseconds: what nobody can beat.
    #[must_use]
    pub fn link_ns(&self) -> u64 {
        nanoseconds(self.len, self.link)
    }

    /// The image at the rate of what is slowest.
    fn slowest_ns(&self) -> u64 {
        nanoseconds(self.len, self.slowest())
    }

    fn slowest(&self) -> u64 {
        self.disk.map_or(self.link, |disk| disk.min(self.link))
    }

    fn check(&self) -> Result<(), PredictError> {
        let lens = PIECE_LEN_MIN..=PIECE_LEN_MAX;
        let rates = [Some(self.link), self.disk].into_iter().flatten();
        if !(1..=LEN_MAX).contains(&self.len) {
            Err(PredictError::Len)
        } else if !lens.contains(&self.piece_len()) || !self.piece_len().is_power_of_two() {
            Err(PredictError::PieceLen)
        } else if !rates.into_iter().all(|rate| (RATE_MIN..=RATE_MAX).contains(&rate)) {
            Err(PredictError::Rate)
        } else {
            Ok(())
        }
    }
}

/// Predicts `scenario` for each number of clients, on all cores.
///
/// # Errors
/// See [`PredictError`].
pub fn predict(scenario: &Scenario, clients: &[usize]) -> Result<Vec<Prediction>, PredictError> {
    scenario.check()?;
    if clients.is_empty() || !clients.iter().all(|n| (1..=CLIENTS_MAX).contains(n)) {
        return Err(PredictError::Clients);
    }
    // The longest run first, so that the others fill the time of the other cores.
    let mut order: Vec<usize> = (0..clients.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(clients[index]));
    let results = Mutex::new(vec![None; clients.len()]);
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = predict_one(scenario, clients[index]);
            results.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(result);
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(clients.len());
    std::thread::scope(|scope| {
        (0..workers).for_each(|_| {
            scope.spawn(work);
        });
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().flatten().collect()
}

/// A table of `predictions` of `scenario`, for people.
#[must_use]
pub fn describe(scenario: &Scenario, predictions: &[Prediction]) -> String {
    let disks =
        scenario.disk.map_or("fast disks".into(), |disk| format!("disks of {}", Rate(disk)));
    let mut text = format!(
        "{} in {} pieces of {}; links of {}, {disks}; the image once over a link: {}\n\n{HEAD}",
        Bytes(scenario.len),
        scenario.pieces(),
        Bytes(scenario.piece_len().into()),
        Rate(scenario.link),
        duration(scenario.link_ns().into()),
    );
    let decimal = |thousandths: u64| format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    for p in predictions {
        let in_turn = u128::from(scenario.slowest_ns()) * p.clients as u128;
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n{:>7}  {:>9}  {:>12}  {:>10}  {:>13}  {:>17}",
            p.clients,
            duration(p.makespan_ns.into()),
            decimal(p.ratio),
            p.limit.name(),
            decimal(p.source_copies),
            duration(in_turn),
        );
    }
    let partly: Vec<String> = predictions
        .iter()
        .filter(|p| p.simulated < scenario.pieces())
        .map(|p| format!("{} for {}", p.simulated, p.clients))
        .collect();
    if !partly.is_empty() {
        let _ = write!(
            text,
            "\n\nOf the {} pieces only the first were simulated ({} clients); the rest is taken to go on \
             at the same pace.",
            scenario.pieces(),
            partly.join(", ")
        );
    }
    if predictions.iter().any(|p| p.limit == Limit::Pieces) {
        text.push_str(
            "\n\nLimited by pieces: they are few or large; smaller ones (--piece-size) are \
             passed on sooner.",
        );
    }
    text
}

/// `4.2 s`, `6m44s`: what a plan needs.
fn duration(ns: u128) -> String {
    let tenths = ns / 100_000_000;
    if tenths < 600 {
        return format!("{}.{} s", tenths / 10, tenths % 10);
    }
    Seconds(u64::try_from(tenths / 10).unwrap_or(u64::MAX)).to_string()
}

const HEAD: &str = "clients       time  time / image  limited by  server copies  one after another";

fn predict_one(scenario: &Scenario, clients: usize) -> Result<Prediction, PredictError> {
    let pieces = scenario.pieces();
    let blocks = u64::from(Scale::of(scenario).blocks()) * clients as u64;
    let simulated = (BLOCKS_MAX / blocks).clamp(PIECES_MIN, PIECES_MAX);
    let (makespan_ns, sent, simulated) = if pieces <= simulated {
        let (time, sent) = simulate(scenario, scenario.len, clients)?;
        (time, sent, pieces)
    } else {
        let piece_len = u64::from(scenario.piece_len());
        let (half, whole) = (simulated / 2 * piece_len, simulated * piece_len);
        let (half_time, half_sent) = simulate(scenario, half, clients)?;
        let (time, sent) = simulate(scenario, whole, clients)?;
        let go_on = |at_half: u64, at_whole: u64| {
            let step = u128::from(at_whole.saturating_sub(at_half));
            let more = step * u128::from(scenario.len - whole) / u128::from(whole - half);
            // At most 2^50 bytes, or their time at 1 MB/s: 2^60 ns.
            at_whole + u64::try_from(more).unwrap_or(u64::MAX / 2)
        };
        (go_on(half_time, time), go_on(half_sent, sent), simulated)
    };
    let slowest_ns = scenario.slowest_ns();
    let limit = if makespan_ns / 5 > slowest_ns / 4 {
        Limit::Pieces
    } else if scenario.slowest() < scenario.link {
        Limit::Disk
    } else {
        Limit::Link
    };
    Ok(Prediction {
        clients,
        makespan_ns,
        ratio: thousandths(makespan_ns, scenario.link_ns()),
        source_copies: thousandths(sent, scenario.len),
        limit,
        simulated,
    })
}

/// The makespan in nanoseconds, and the bytes that the server sent, of the first `len` bytes.
fn simulate(scenario: &Scenario, len: u64, clients: usize) -> Result<(u64, u64), PredictError> {
    let scale = Scale::of(scenario);
    let report: Report = crate::run(scale.config(scenario, len, clients));
    let makespan = report.makespan_ns(1..=clients);
    let stuck = PredictError::Stuck { seed: scenario.seed, clients };
    let sent = u128::from(report.source_sent) * u128::from(scale.real) / u128::from(scale.small);
    // About as many bytes as the image has, times the number of clients at the very most.
    Ok((makespan.ok_or(stuck)?, u64::try_from(sent).unwrap_or(u64::MAX)))
}

/// Simulated lengths and rates are the real ones times `small / real`.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// Bytes of a simulated piece.
    small: u32,
    /// Bytes of a real piece.
    real: u32,
}

impl Scale {
    fn of(scenario: &Scenario) -> Scale {
        let real = scenario.piece_len();
        let piece_ns = nanoseconds(real.into(), scenario.slowest());
        let units = (real / UNIT).max(1);
        // At most 4096, the units of 64 MiB.
        let blocks = (piece_ns / BLOCK_NS_MAX).max(BLOCKS.into()).min(units.into()) as u32;
        Scale { small: blocks * UNIT, real }
    }

    /// Of a piece.
    fn blocks(self) -> u32 {
        self.small / UNIT
    }

    /// Rounded up: no length becomes 0.
    fn shrink(self, bytes: u64) -> u64 {
        // `small` is at most `real`, so the quotient is at most `bytes`.
        (u128::from(bytes) * u128::from(self.small)).div_ceil(u128::from(self.real)) as u64
    }

    fn config(self, scenario: &Scenario, len: u64, clients: usize) -> Config {
        let (link, disk) = (scenario.link, scenario.disk.map_or(0, |disk| self.shrink(disk)));
        let client = NodeConfig {
            up: self.shrink(link),
            down: self.shrink(link),
            disk,
            join: Time(0),
            plain: false,
        };
        let source = NodeConfig { up: self.shrink(scenario.slowest()), ..client };
        let mut nodes = vec![client; clients + 1];
        nodes[0] = source;
        let mut random = Random::new(scenario.seed);
        for node in &mut nodes[1..] {
            node.join = Time(random.below(JOIN_NS));
        }
        let mut settings = swarm::swarm::Config { block_max: UNIT, ..Default::default() };
        settings.budget = self.shrink(settings.budget).max(2 * u64::from(self.small));
        let piece_ns = nanoseconds(self.real.into(), scenario.slowest());
        let pieces = len.div_ceil(self.real.into());
        Config {
            seed: scenario.seed,
            torrents: vec![Image { len: self.shrink(len), piece_len: self.small }],
            nodes,
            machines: 0,
            latency_ns: LATENCY_NS,
            quantum: UNIT,
            window: self.window(link),
            in_band: true,
            verify_ns: u64::from(self.real) * HASH_NS_PER_BYTE,
            degree: 24,
            tells_rates: true,
            faults: Faults::default(),
            check_every: 0,
            // At most some thousand pieces of some minutes each.
            end: Time(piece_ns * (pieces * 12 + 2000) + 60_000_000_000),
            trace: false,
            swarm: settings,
        }
    }

    /// TCP keeps twice what a round trip takes on its way, and no less than three quanta.
    fn window(self, link: u64) -> u32 {
        let quantum = u64::from(self.real / self.blocks());
        let on_the_way = link.saturating_mul(4 * LATENCY_NS) / 1_000_000_000;
        // 400 MB of 16 KiB at most.
        (on_the_way / quantum + 1).max(3) as u32
    }
}

/// How long `len` bytes take at `rate` bytes a second, in nanoseconds.
fn nanoseconds(len: u64, rate: u64) -> u64 {
    let time = u128::from(len) * 1_000_000_000 / u128::from(rate.max(1));
    u64::try_from(time).unwrap_or(u64::MAX)
}
