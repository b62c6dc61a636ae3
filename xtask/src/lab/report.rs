//! What came of the runs: a line each, a JSON object each, a table of medians.

use super::figure::{Measure, Told, Who};
use super::flood::Deeds;
use super::plan::{Node, Plan, Start};
use super::program::Program;
use super::run::{Client, Measured, Moment};
use super::seconds;
use anyhow::Context as _;
use lab::disk::Stats;
use serde::Serialize;
use std::io::Write as _;
use std::path::Path;

/// A run in figures. Times in seconds, from the moment before the first client was told to begin;
/// a makespan and the start-up from the start of the first wave's last one.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    scenario: String,
    pub(super) case: String,
    pub(super) programs: String,
    pub(super) clients: usize,
    round: usize,
    rate_bytes_per_s: u64,
    pub(super) image_bytes: u64,
    pub(super) piece_bytes: u64,
    images: usize,
    /// The server's first.
    disks: Vec<String>,
    congestion: String,
    /// The image over one link.
    pub(super) ideal_s: Option<f64>,
    /// What nothing can be faster than.
    pub(super) bound_s: Option<f64>,
    /// Of those that count.
    pub(super) makespan_s: f64,
    /// Makespan / ideal.
    ratio: Option<f64>,
    each: Vec<Each>,
    /// When all of the first wave had received their first 64 KiB.
    pub(super) start_up_s: f64,
    /// Bytes that left the server, by the counter of its port, over those of the image.
    pub(super) seeder_copies: f64,
    /// The same by the server's own count of blocks.
    seeder_copies_told: Option<f64>,
    /// Of the server, for each GiB it sent.
    pub(super) seeder_cpu_s_per_gib: f64,
    /// Of the median client, for a GiB of image.
    pub(super) client_cpu_s_per_gib: f64,
    /// Of the whole machine, kernel and other work included, for each GiB on a target.
    machine_cpu_s_per_gib: f64,
    pub(super) seeder_memory_bytes: u64,
    pub(super) client_memory_bytes: Vec<u64>,
    /// Threads and open files of the server at the peak, and the most of a client.
    pub(super) seeder_most: (u64, u64),
    pub(super) client_most: (u64, u64),
    /// The most that the memory group of a client had.
    pub(super) group_memory_bytes: Option<u64>,
    /// Its process and name, and its share in the time of that.
    pub(super) busiest_thread: Option<(String, f64)>,
    /// The most of all processes.
    pub(super) scheduler_share: Option<f64>,
    pub(super) source: Option<Disk>,
    busy: f64,
    /// The machine had no time left: the figures are of it and not of the program.
    pub(super) cpu_bound: bool,
    drops: u64,
    /// What somebody did who wanted them to fail.
    flood: Option<Deeds>,
    pub(super) figures: Vec<Told>,
    timeline: Vec<Row>,
}

/// A client of a run.
#[derive(Clone, Debug, Serialize)]
struct Each {
    program: Program,
    counts: bool,
    /// Whether it began at once.
    first: bool,
    begun_s: Option<f64>,
    receiving_s: Option<f64>,
    finished_s: Option<f64>,
    sent_copies: f64,
    received_copies: f64,
    disk: Option<Disk>,
}

/// What a disk did.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Disk {
    pub(super) reads: u64,
    pub(super) read_bytes: u64,
    pub(super) written_bytes: u64,
    pub(super) seeks: u64,
    /// By its model.
    pub(super) busy_s: f64,
}

impl From<&Stats> for Disk {
    fn from(stats: &Stats) -> Disk {
        let &Stats { reads, read_bytes, written_bytes, seeks, busy, .. } = stats;
        Disk { reads, read_bytes, written_bytes, seeks, busy_s: busy.as_secs_f64() }
    }
}

/// Which run it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Which<'a> {
    pub(super) scenario: &'a str,
    pub(super) case: &'a str,
    pub(super) round: usize,
}

/// A moment: seconds, then for each node (the server first) MB sent and received so far.
#[derive(Clone, Debug, Serialize)]
struct Row(f64, Vec<[f64; 2]>);

/// A machine that is busier than this has no time left for the swarm.
const BUSY_MAX: f64 = 0.9;

const GIB: f64 = (1_u64 << 30) as f64;

impl Sample {
    /// What the disk of the median client tells.
    pub(super) fn target(&self, of: impl Fn(&Disk) -> f64) -> Option<f64> {
        let found: Vec<f64> =
            self.each.iter().filter_map(|each| each.disk.as_ref().map(&of)).collect();
        (!found.is_empty()).then(|| median(found))
    }

    pub(super) fn new(which: Which<'_>, plan: &Plan, measured: &Measured) -> Sample {
        let (shape, clients) = (plan.shape, &measured.clients);
        let image = shape.size as f64;
        let each: Vec<Each> = plan
            .clients
            .iter()
            .zip(clients)
            .map(|(node, client)| Each::new(node, client, image))
            .collect();
        let counting = || clients.iter().zip(&each).filter(|(_, each)| each.counts);
        let cpu: Vec<f64> = counting().map(|(client, _)| client.cost.cpu).collect();
        let receiving = each.iter().filter(|each| each.counts && each.first);
        let receiving: Vec<f64> = receiving.filter_map(|each| each.receiving_s).collect();
        let group_memory_bytes = clients.iter().filter_map(|client| client.group_memory).max();
        let sent = measured.server_traffic.sent as f64;
        let mut sample = Sample {
            scenario: which.scenario.to_owned(),
            case: which.case.to_owned(),
            programs: plan.programs(),
            clients: shape.nodes,
            round: which.round,
            rate_bytes_per_s: shape.rate,
            image_bytes: shape.size,
            piece_bytes: shape.piece_len,
            images: plan.images,
            disks: plan.nodes().map(|node| node.disk.to_string()).collect(),
            congestion: measured.congestion.clone(),
            ideal_s: plan.ideal_seconds(),
            bound_s: plan.bound_seconds(),
            makespan_s: f64::NAN,
            ratio: None,
            each,
            start_up_s: f64::NAN,
            seeder_copies: sent / image,
            seeder_copies_told: measured.server_sent.map(|sent| sent as f64 / image),
            seeder_cpu_s_per_gib: measured.server.cpu * GIB / sent.max(1.0),
            client_cpu_s_per_gib: median(cpu) * GIB / image,
            machine_cpu_s_per_gib: measured.busy_seconds * GIB / image / clients.len() as f64,
            seeder_memory_bytes: measured.server.memory,
            client_memory_bytes: clients.iter().map(|client| client.cost.memory).collect(),
            seeder_most: measured.server.most,
            client_most: (
                clients.iter().map(|client| client.cost.most.0).max().unwrap_or(0),
                clients.iter().map(|client| client.cost.most.1).max().unwrap_or(0),
            ),
            group_memory_bytes,
            busiest_thread: busiest(measured),
            scheduler_share: scheduler(measured),
            source: measured.source.as_ref().map(Disk::from),
            busy: measured.busy,
            // Without a limit there is nothing else that could bind.
            cpu_bound: measured.busy > BUSY_MAX && plan.ideal_seconds().is_some(),
            drops: measured.drops,
            flood: measured.flood,
            figures: Vec::new(),
            timeline: measured.timeline.iter().map(row).collect(),
        };
        sample.start_up_s = (greatest(&receiving) - sample.begun()).max(0.0);
        sample.makespan_s = sample.makespan(Who::All).unwrap_or(f64::NAN);
        sample.ratio = sample.ideal_s.map(|ideal| sample.makespan_s / ideal);
        sample
    }

    /// Seconds from the start of the first wave's last client to the end of the last of `who`.
    pub(super) fn makespan(&self, who: Who) -> Option<f64> {
        let finished: Vec<f64> = self.of(who).filter_map(|each| each.finished_s).collect();
        (!finished.is_empty()).then(|| greatest(&finished) - self.begun())
    }

    /// Seconds from start to end of that one of `who` that took the longest.
    pub(super) fn longest(&self, who: Who) -> Option<f64> {
        let times = self.of(who).filter_map(|each| Some(each.finished_s? - each.begun_s?));
        let times: Vec<f64> = times.collect();
        (!times.is_empty()).then(|| greatest(&times))
    }

    fn of(&self, who: Who) -> impl Iterator<Item = &Each> {
        self.each.iter().filter(move |each| {
            each.counts
                && match who {
                    Who::All => true,
                    Who::Ours => each.program == Program::Ours,
                    Who::Theirs => each.program != Program::Ours,
                    Who::First => each.first,
                    Who::Joined => !each.first,
                }
        })
    }

    /// When the first wave had begun.
    fn begun(&self) -> f64 {
        let begun = self.each.iter().filter(|each| each.first).filter_map(|each| each.begun_s);
        begun.fold(0.0, f64::max)
    }

    /// For the one who waits.
    pub(super) fn line(&self) -> String {
        let bound = self.bound_s.map_or_else(String::new, |bound| format!(", bound {bound:.2} s"));
        let cpu_bound = if self.cpu_bound { ", CPU-bound, does not count" } else { "" };
        let mut parts = vec![format!(
            "{} {}: {}: {:.2} s{bound}",
            self.scenario, self.case, self.programs, self.makespan_s
        )];
        parts.extend(self.figures.iter().map(Told::to_string));
        if self.figures.iter().all(|told| told.name != Measure::SeederCopies.to_string()) {
            parts.push(format!("{:.2} copies", self.seeder_copies));
        }
        parts.extend(self.flood.map(|deeds| deeds.to_string()));
        parts.push(format!("busy {:.0} %{cpu_bound}", self.busy * 100.0));
        parts.join("; ")
    }
}

impl Each {
    fn new(node: &Node, client: &Client, image: f64) -> Each {
        Each {
            program: node.program,
            counts: node.counts,
            first: node.start == Start::At(0.0),
            begun_s: client.begun.map(seconds),
            receiving_s: client.receiving.map(seconds),
            finished_s: client.finished.map(seconds),
            sent_copies: client.traffic.sent as f64 / image,
            received_copies: client.traffic.received as f64 / image,
            disk: client.disk.as_ref().map(Disk::from),
        }
    }
}

/// The thread that has the largest share of its process's time.
fn busiest(measured: &Measured) -> Option<(String, f64)> {
    let server =
        measured.server.threads.first().map(|(name, share)| (format!("server, {name}"), *share));
    let clients = measured.clients.iter().filter_map(|client| client.cost.threads.first());
    let clients = clients.map(|(name, share)| (format!("client, {name}"), *share));
    clients.chain(server).max_by(|(_, a), (_, b)| a.total_cmp(b))
}

/// The largest share of a thread `scheduler` in its process's time.
fn scheduler(measured: &Measured) -> Option<f64> {
    let costs = measured.clients.iter().map(|client| &client.cost).chain([&measured.server]);
    let threads = costs.flat_map(|cost| &cost.threads).filter(|(name, _)| name == "scheduler");
    threads.map(|(_, share)| *share).reduce(f64::max)
}

fn row(moment: &Moment) -> Row {
    // To the kilobyte.
    let mega = |bytes: u64| (bytes / 1000) as f64 / 1000.0;
    let nodes = moment.traffic.iter().map(|t| [mega(t.sent), mega(t.received)]).collect();
    Row((seconds(moment.at) * 1000.0).round() / 1000.0, nodes)
}

/// Appends a run to a file of JSON lines.
pub(super) fn append(path: &Path, sample: &Sample) -> anyhow::Result<()> {
    let file = std::fs::File::options().append(true).create(true).open(path);
    let line = serde_json::to_string(sample)? + "\n";
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .with_context(|| format!("append to {}", path.display()))
}

/// Medians of all rounds that count, a line for each program and number of clients.
pub(super) fn table(samples: &[Sample]) -> String {
    let mut lines = vec![
        "| N | program | makespan / ideal (least, most) | makespan s | seeder copies | start-up s | \
         CPU s/GiB seeder, client, machine | RSS MB seeder, client | busy | runs |"
            .to_owned(),
        "|---|---|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    let mut keys: Vec<(usize, &str)> = Vec::new();
    for sample in samples {
        if !keys.contains(&(sample.clients, &sample.programs)) {
            keys.push((sample.clients, &sample.programs));
        }
    }
    for (clients, program) in keys {
        let all: Vec<&Sample> =
            samples.iter().filter(|s| s.clients == clients && s.programs == program).collect();
        let counting: Vec<&Sample> = all.iter().copied().filter(|s| !s.cpu_bound).collect();
        lines.push(cells(clients, program, &counting, all.len()));
    }
    lines.join("\n")
}

fn cells(clients: usize, program: &str, samples: &[&Sample], runs: usize) -> String {
    if samples.is_empty() {
        return format!(
            "| {clients} | {program} | CPU-bound, does not count | | | | | | | 0/{runs} |"
        );
    }
    let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(|s| figure(s)).collect());
    let ratios: Vec<f64> = samples.iter().filter_map(|s| s.ratio).collect();
    let memory = |s: &Sample| s.client_memory_bytes.iter().copied().max().unwrap_or(0) as f64;
    format!(
        "| {clients} | {program} | {:.3} ({:.3}, {:.3}) | {:.2} | {:.2} | {:.2} | {:.2}, {:.2}, {:.2} \
         | {:.0}, {:.0} | {:.0} % | {}/{runs} |",
        median(ratios.clone()),
        ratios.iter().copied().fold(f64::INFINITY, f64::min),
        greatest(&ratios),
        of(|s| s.makespan_s),
        of(|s| s.seeder_copies),
        of(|s| s.start_up_s),
        of(|s| s.seeder_cpu_s_per_gib),
        of(|s| s.client_cpu_s_per_gib),
        of(|s| s.machine_cpu_s_per_gib),
        of(|s| s.seeder_memory_bytes as f64) / 1e6,
        of(memory) / 1e6,
        of(|s| s.busy) * 100.0,
        samples.len(),
    )
}

pub(super) fn greatest(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(0.0, f64::max)
}

/// The mean of the two in the middle if their number is even; not a number of none.
pub(super) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => figures[middle],
        _ => f64::midpoint(figures[middle - 1], figures[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::figure::Figure;
    use super::super::options::{Options, TargetKind};
    use super::*;
    use std::time::Duration;

    fn sample(program: Program, ratio: f64, busy: f64) -> Sample {
        let options = Options::parse(&["--nodes", "2"]).unwrap();
        let plan = Plan::equal(options.shape(2), program, TargetKind::File);
        let client = Client {
            begun: Some(Duration::from_secs(1)),
            finished: Some(Duration::from_secs(5)),
            ..Client::default()
        };
        let measured = Measured {
            clients: vec![client; 2],
            server: Default::default(),
            server_traffic: Default::default(),
            server_sent: None,
            source: None,
            busy,
            busy_seconds: 1.0,
            drops: 0,
            congestion: "cubic".to_owned(),
            timeline: Vec::new(),
            flood: None,
        };
        let which = Which { scenario: "equal", case: "N = 2", round: 0 };
        let sample = Sample::new(which, &plan, &measured);
        assert_eq!((sample.makespan_s, sample.longest(Who::Joined)), (4.0, None));
        Sample { ratio: Some(ratio), ..sample }
    }

    #[test]
    fn runs_without_time_left_do_not_count() {
        use Program::{Libtorrent, Ours};
        let samples = [
            sample(Ours, 1.5, 0.5),
            sample(Libtorrent, 9.0, 0.95),
            sample(Ours, 9.0, 0.95),
            sample(Ours, 1.1, 0.5),
            sample(Ours, 1.2, 0.5),
        ];
        let table = table(&samples);
        assert!(table.contains("| 2 | ezio | 1.200 (1.100, 1.500) |"), "{table}");
        assert!(table.contains("| 3/4 |"), "{table}");
        assert!(table.contains("| 2 | libtorrent | CPU-bound, does not count |"), "{table}");
    }

    #[test]
    fn a_figure_is_divided_by_that_of_a_run_that_counts() {
        let own = sample(Program::Ours, 1.0, 0.5);
        let figure = Figure::most(Measure::Own(Who::First), 1.05).over("N = 2");
        let told = |earlier: &[&Sample]| figure.of(&own, earlier);
        let found = told(&[&own]).unwrap();
        assert_eq!((found.value, found.met), (1.0, Some(true)));
        assert_eq!(found.to_string(), format!("{} 1.000 (bar <= 1.05: met)", figure.name()));
        assert!(told(&[]).is_none() && told(&[&sample(Program::Ours, 1.0, 0.95)]).is_none());
        let nobody = Figure::plain(Measure::Own(Who::Joined)).of(&own, &[]);
        assert!(nobody.is_none(), "{nobody:?}");
    }

    #[test]
    fn the_median_of_an_even_number_is_in_the_middle() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
    }
}
