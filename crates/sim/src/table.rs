//! The makespan table: what the scheduler is worth, as a file under version control.

use crate::config::{Config, How, Stop};
use crate::report::{Report, thousandths};
use std::fmt::Write as _;
use swarm::time::Time;

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// All links alike.
    Equal,
    /// The same, but control messages queue behind data, as TCP and switches have it.
    InBand,
    /// Every tenth client, at least one, has a tenth of the link both ways. The others count.
    SlowTenth,
    /// Every eighth client, at least one, crashes half way. The others count.
    DeadEighth,
    /// Clients come spread over 0.3 of the ideal time. Each counts from its arrival.
    Joins,
    /// One client sends at a tenth of the rate. In band, and rates have to be learnt, as below.
    SlowUplink,
    /// Three of eight clients do, at least one.
    SlowUplinks,
    /// Links of four kinds.
    Mixed,
}

impl Case {
    /// All of them, in the order of the table.
    pub const ALL: [Case; 8] = [
        Case::Equal,
        Case::InBand,
        Case::SlowTenth,
        Case::DeadEighth,
        Case::Joins,
        Case::SlowUplink,
        Case::SlowUplinks,
        Case::Mixed,
    ];

    /// What it is called in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Case::Equal => "equal links",
            Case::InBand => "in band",
            Case::SlowTenth => "a tenth slow",
            Case::DeadEighth => "an eighth dies",
            Case::Joins => "joins over 0.3",
            Case::SlowUplink => "slow uplink",
            Case::SlowUplinks => "slow uplinks",
            Case::Mixed => "mixed links",
        }
    }

    /// The run of this case.
    #[must_use]
    pub fn config(self, clients: usize, pieces: u32, seed: u64) -> Config {
        let mut config = Config::equal(clients, pieces, seed);
        let ideal = config.ideal_ns();
        if self == Case::InBand || self.has_uplinks() {
            config.tells_rates = !self.has_uplinks();
            (config.in_band, config.latency_ns) = (true, config.piece_ns() / 400);
        }
        for client in 1..=clients {
            match self {
                Case::Equal | Case::InBand => {}
                Case::SlowTenth if self.is_set_apart(client, clients) => {
                    config.nodes[client].up /= 10;
                    config.nodes[client].down /= 10;
                }
                Case::DeadEighth if self.is_set_apart(client, clients) => {
                    let at = Time(ideal / 2);
                    config.faults.stops.push(Stop { node: client, at, how: How::Crash });
                }
                Case::SlowTenth | Case::DeadEighth => {}
                Case::SlowUplink | Case::SlowUplinks => {
                    let slow = if self == Case::SlowUplink { 1 } else { (clients * 3 / 8).max(1) };
                    if client <= slow {
                        config.nodes[client].up /= 10;
                    }
                }
                Case::Mixed => {
                    let (up, down) = MIXED[(client - 1) % MIXED.len()];
                    let node = &mut config.nodes[client];
                    (node.up, node.down) = (node.up * up / 100, node.down * down / 100);
                }
                Case::Joins => {
                    // Not in steps: the multiples of the golden ratio spread evenly.
                    let share = (client as u64 * 618_034) % 1_000_000;
                    config.nodes[client].join = Time(ideal / 1_000_000 * share * 3 / 10);
                }
            }
        }
        config
    }

    /// Whether the sum of all uplinks may bind.
    fn has_uplinks(self) -> bool {
        matches!(self, Case::SlowUplink | Case::SlowUplinks | Case::Mixed)
    }

    /// The figure of this case in thousandths of the ideal; `None` if somebody did not finish.
    #[must_use]
    pub fn figure(self, report: &Report) -> Option<u64> {
        if self.has_uplinks() {
            let clients = report.finished.len() - 1;
            let config = self.config(clients, 1, 0);
            // Of one piece: only the links matter.
            let bound = thousandths(config.bound_ns(1..=clients), config.ideal_ns());
            return Some(report.ratio(1..=clients)? * 1000 / bound);
        }
        let clients = report.finished.len() - 1;
        let counted = (1..=clients).filter(|&client| !self.is_set_apart(client, clients));
        match self {
            Case::Joins => report.slowest(counted),
            _ => report.ratio(counted),
        }
    }

    fn is_set_apart(self, client: usize, clients: usize) -> bool {
        match self {
            Case::Equal | Case::InBand | Case::Joins => false,
            Case::SlowUplink | Case::SlowUplinks | Case::Mixed => false,
            Case::SlowTenth => client <= clients.div_ceil(10) && clients > 1,
            Case::DeadEighth => client <= clients.div_ceil(8) && clients > 1,
        }
    }
}

/// Up and down of mixed links in hundredths of the source's, in turn; as the lab has them.
pub(crate) const MIXED: [(u64, u64); 4] = [(100, 100), (50, 100), (50, 75), (20, 75)];

/// Runs every case for every number of clients and of pieces, the worst of all seeds counts, and
/// writes the table.
#[must_use]
pub fn table(clients: &[usize], pieces: &[u32], seeds: &[u64]) -> String {
    let mut text = String::from(HEAD);
    for &pieces in pieces {
        let _ = write!(text, "\n{pieces:>5} pieces  ");
        for n in clients {
            let _ = write!(text, "{n:>8}");
        }
        text.push('\n');
        for case in Case::ALL {
            let _ = write!(text, "{:<14}", case.name());
            for &clients in clients {
                let run =
                    |&seed: &u64| case.figure(&crate::run(case.config(clients, pieces, seed)));
                let figures: Option<Vec<u64>> = seeds.iter().map(run).collect();
                match figures.and_then(|figures| figures.into_iter().max()) {
                    Some(worst) => {
                        let _ = write!(text, "{:>4}.{:03}", worst / 1000, worst % 1000);
                    }
                    None => text.push_str("   stuck"),
                }
            }
            text.push('\n');
        }
    }
    text
}

const HEAD: &str = "\
Makespan / ideal by number of clients, simulated: worst of the seeds.
Ideal: the image at the link's rate; where links differ, out of all uplinks if that takes longer.
Network: see Config::equal and Case.
";
