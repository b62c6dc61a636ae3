//! The makespan table: what the scheduler is worth, as a file under version control.

use crate::config::{Config, How, Stop};
use crate::report::Report;
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
}

impl Case {
    /// All of them, in the order of the table.
    pub const ALL: [Case; 5] =
        [Case::Equal, Case::InBand, Case::SlowTenth, Case::DeadEighth, Case::Joins];

    /// What it is called in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Case::Equal => "equal links",
            Case::InBand => "in band",
            Case::SlowTenth => "a tenth slow",
            Case::DeadEighth => "an eighth dies",
            Case::Joins => "joins over 0.3",
        }
    }

    /// The run of this case.
    #[must_use]
    pub fn config(self, clients: usize, pieces: u32, seed: u64) -> Config {
        let mut config = Config::equal(clients, pieces, seed);
        let ideal = config.ideal_ns();
        if self == Case::InBand {
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
                Case::Joins => {
                    // Not in steps: the multiples of the golden ratio spread evenly.
                    let share = (client as u64 * 618_034) % 1_000_000;
                    config.nodes[client].join = Time(ideal / 1_000_000 * share * 3 / 10);
                }
            }
        }
        config
    }

    /// The figure of this case in thousandths of the ideal; `None` if somebody did not finish.
    #[must_use]
    pub fn figure(self, report: &Report) -> Option<u64> {
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
            Case::SlowTenth => client <= clients.div_ceil(10) && clients > 1,
            Case::DeadEighth => client <= clients.div_ceil(8) && clients > 1,
        }
    }
}

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
Ideal: the image at the link's rate. Network: see Config::equal and Case.
";
