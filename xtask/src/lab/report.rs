//! What came of the runs: a line each, a JSON object each, a table of medians.

use super::options::{Options, Shape, TargetKind};
use super::program::Program;
use super::run::{Measured, Moment};
use super::seconds;
use anyhow::Context as _;
use serde::Serialize;
use std::io::Write as _;
use std::path::Path;

/// A run in figures. Times in seconds, from the moment the first client was told to begin.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    program: Program,
    clients: usize,
    round: usize,
    rate_bytes_per_s: u64,
    image_bytes: u64,
    piece_bytes: u64,
    target: TargetKind,
    congestion: String,
    ideal_s: f64,
    makespan_s: f64,
    /// Makespan / ideal.
    ratio: f64,
    finished_s: Vec<f64>,
    /// When each client had received its first 64 KiB.
    receiving_s: Vec<f64>,
    /// When all had.
    start_up_s: f64,
    /// Bytes that left the server, by the counter of its port, over those of the image.
    pub(super) seeder_copies: f64,
    /// The same by the server's own count of blocks.
    seeder_copies_told: Option<f64>,
    client_sent_copies: Vec<f64>,
    client_received_copies: Vec<f64>,
    /// Of the server, for each GiB it sent.
    seeder_cpu_s_per_gib: f64,
    /// Of the median client, for a GiB of image.
    client_cpu_s_per_gib: f64,
    /// Of the whole machine, kernel and other work included, for each GiB on a target.
    machine_cpu_s_per_gib: f64,
    seeder_memory_bytes: u64,
    client_memory_bytes: Vec<u64>,
    busy: f64,
    /// The machine had no time left: the figures are of it and not of the program.
    cpu_bound: bool,
    drops: u64,
    timeline: Vec<Row>,
}

/// A moment: seconds, then for each node (the server first) MB sent and received so far.
#[derive(Clone, Debug, Serialize)]
struct Row(f64, Vec<[f64; 2]>);

/// A machine that is busier than this has no time left for the swarm.
const BUSY_MAX: f64 = 0.9;

const GIB: f64 = (1_u64 << 30) as f64;

impl Sample {
    pub(super) fn new(
        options: &Options,
        shape: &Shape,
        program: Program,
        round: usize,
        measured: &Measured,
    ) -> Sample {
        let clients = &measured.clients;
        let image = shape.size as f64;
        let finished: Vec<f64> =
            clients.iter().filter_map(|client| client.finished).map(seconds).collect();
        let receiving: Vec<f64> =
            clients.iter().filter_map(|client| client.receiving).map(seconds).collect();
        let makespan = greatest(&finished);
        let cpu: Vec<f64> = clients.iter().map(|client| client.cost.cpu).collect();
        let sent = measured.server_traffic.sent as f64;
        Sample {
            program,
            clients: shape.nodes,
            round,
            rate_bytes_per_s: shape.rate,
            image_bytes: shape.size,
            piece_bytes: shape.piece_len,
            target: if program == Program::Ours { options.target } else { TargetKind::File },
            congestion: measured.congestion.clone(),
            ideal_s: shape.ideal_seconds(),
            makespan_s: makespan,
            ratio: makespan / shape.ideal_seconds(),
            start_up_s: greatest(&receiving),
            finished_s: finished,
            receiving_s: receiving,
            seeder_copies: sent / image,
            seeder_copies_told: measured.server_sent.map(|sent| sent as f64 / image),
            client_sent_copies: clients.iter().map(|c| c.traffic.sent as f64 / image).collect(),
            client_received_copies: clients
                .iter()
                .map(|c| c.traffic.received as f64 / image)
                .collect(),
            seeder_cpu_s_per_gib: measured.server.cpu * GIB / sent.max(1.0),
            client_cpu_s_per_gib: median(cpu) * GIB / image,
            machine_cpu_s_per_gib: measured.busy_seconds * GIB / image / shape.nodes as f64,
            seeder_memory_bytes: measured.server.memory,
            client_memory_bytes: clients.iter().map(|client| client.cost.memory).collect(),
            busy: measured.busy,
            cpu_bound: measured.busy > BUSY_MAX,
            drops: measured.drops,
            timeline: measured.timeline.iter().map(row).collect(),
        }
    }

    /// For the one who waits.
    pub(super) fn line(&self) -> String {
        format!(
            "{} to {}: {:.2} s, {:.3} x ideal; {:.2} copies; started {:.2} s; busy {:.0} %{}",
            self.program,
            self.clients,
            self.makespan_s,
            self.ratio,
            self.seeder_copies,
            self.start_up_s,
            self.busy * 100.0,
            if self.cpu_bound { ", CPU-bound, does not count" } else { "" }
        )
    }
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
    let mut keys: Vec<(usize, Program)> = Vec::new();
    for sample in samples {
        if !keys.contains(&(sample.clients, sample.program)) {
            keys.push((sample.clients, sample.program));
        }
    }
    for (clients, program) in keys {
        let all: Vec<&Sample> =
            samples.iter().filter(|s| s.clients == clients && s.program == program).collect();
        let counting: Vec<&Sample> = all.iter().copied().filter(|s| !s.cpu_bound).collect();
        lines.push(cells(clients, program, &counting, all.len()));
    }
    lines.join("\n")
}

fn cells(clients: usize, program: Program, samples: &[&Sample], runs: usize) -> String {
    if samples.is_empty() {
        return format!(
            "| {clients} | {program} | CPU-bound, does not count | | | | | | | 0/{runs} |"
        );
    }
    let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(|s| figure(s)).collect());
    let ratios: Vec<f64> = samples.iter().map(|s| s.ratio).collect();
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

fn greatest(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(0.0, f64::max)
}

/// The mean of the two in the middle if their number is even; not a number of none.
fn median(mut figures: Vec<f64>) -> f64 {
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
    use super::*;

    fn sample(program: Program, ratio: f64, busy: f64) -> Sample {
        let options = Options::parse(&["--nodes", "2"]).unwrap();
        let measured = Measured {
            clients: Vec::new(),
            server: Default::default(),
            server_traffic: Default::default(),
            server_sent: None,
            busy,
            busy_seconds: 1.0,
            drops: 0,
            congestion: "cubic".to_owned(),
            timeline: Vec::new(),
        };
        let sample = Sample::new(&options, &options.shape(2), program, 0, &measured);
        Sample { ratio, ..sample }
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
    fn the_median_of_an_even_number_is_in_the_middle() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
    }
}
