//! `sim`: one simulated run, or the makespan table.
//!
//! `sim [--nodes N] [--pieces M] [--seed S] [--case NAME] [--check EVERY] [--trace]` prints a run;
//! N counts the clients, EVERY the events between checks of all invariants. `--slots`, `--cap`,
//! `--window`, `--latency` (in us) try other settings. `sim --table` prints `tests/makespan.txt`,
//! `sim --lab` the rows of `cargo xtask lab`.
//! `sim --faults COUNT|FROM..TO` runs seeds with drawn faults and prints what happened; `--first`
//! ends with the first that fails, `--trace` prints every step of the first seed.
//! `sim --size SIZE [--nodes N] [--link RATE] [--disk RATE] [--piece-size SIZE] [--seed S]` predicts,
//! as `ezio sim` does.
#![forbid(unsafe_code)]

use sim::predict::{self, Scenario};
use sim::{Case, Config, Report};
use std::io::Write as _;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;
use swarm::swarm::Totals;
use swarm::units::{UnitError, parse_rate, parse_size};

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)) {
        Ok(options) if options.table => {
            print!("{}", sim::table(&[1, 2, 4, 8, 16, 32], &[256, 1000], &[1, 2, 3]));
            ExitCode::SUCCESS
        }
        Ok(options) if options.lab => {
            print!("{}", sim::rows::table(&[1, 2, 3]));
            ExitCode::SUCCESS
        }
        Ok(options) => match options.scenario() {
            Some(scenario) => foretell(&scenario, options.nodes),
            None => match &options.faults {
                Some(seeds) => strike(seeds.clone(), options.first, options.trace),
                None => run(&options),
            },
        },
        Err(why) => {
            eprintln!("sim: {why}");
            ExitCode::from(2)
        }
    }
}

struct Options {
    nodes: usize,
    pieces: u32,
    seed: u64,
    case: Case,
    check: u64,
    trace: bool,
    table: bool,
    lab: bool,
    faults: Option<Range<u64>>,
    first: bool,
    slots: Option<u32>,
    cap: Option<u32>,
    window: Option<u32>,
    latency: Option<u64>,
    size: Option<u64>,
    link: u64,
    disk: Option<u64>,
    piece_size: Option<u32>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            nodes: 8,
            pieces: 256,
            seed: 1,
            case: Case::Equal,
            check: 0,
            trace: false,
            table: false,
            lab: false,
            faults: None,
            first: false,
            slots: None,
            cap: None,
            window: None,
            latency: None,
            size: None,
            link: 125_000_000,
            disk: None,
            piece_size: None,
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--nodes" => options.nodes = number(&value()?)?,
                "--pieces" => options.pieces = number(&value()?)?,
                "--seed" => options.seed = number(&value()?)?,
                "--check" => options.check = number(&value()?)?,
                "--window" => options.window = Some(number(&value()?)?),
                "--latency" => options.latency = Some(number(&value()?)?),
                "--slots" => options.slots = Some(number(&value()?)?),
                "--cap" => options.cap = Some(number(&value()?)?),
                "--size" => options.size = Some(unit(parse_size, &value()?)?),
                "--link" => options.link = unit(parse_rate, &value()?)?,
                "--disk" => options.disk = Some(unit(parse_rate, &value()?)?),
                "--piece-size" => {
                    let bytes = unit(parse_size, &value()?)?;
                    options.piece_size =
                        Some(u32::try_from(bytes).map_err(|_| "such pieces are too large")?);
                }
                "--case" => options.case = case(&value()?)?,
                "--trace" => options.trace = true,
                "--faults" => options.faults = Some(seeds(&value()?)?),
                "--first" => options.first = true,
                "--table" => options.table = true,
                "--lab" => options.lab = true,
                other => return Err(format!("unknown option `{other}`")),
            }
        }
        if options.nodes == 0 || options.pieces == 0 {
            return Err("at least one client and one piece are needed".into());
        }
        Ok(options)
    }

    /// What to predict, if that is wanted.
    fn scenario(&self) -> Option<Scenario> {
        let (piece_len, link, disk, seed) = (self.piece_size, self.link, self.disk, self.seed);
        self.size.map(|len| Scenario { len, piece_len, link, disk, seed })
    }
}

fn unit(parse: impl Fn(&str) -> Result<u64, UnitError>, text: &str) -> Result<u64, String> {
    parse(text).map_err(|why| format!("`{text}`: {why}"))
}

fn foretell(scenario: &Scenario, clients: usize) -> ExitCode {
    match predict::predict(scenario, &[clients]) {
        Ok(predictions) => {
            let text = predict::describe(scenario, &predictions) + "\n";
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("sim: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Runs seeds with drawn faults.
fn strike(seeds: Range<u64>, first: bool, trace: bool) -> ExitCode {
    if trace {
        let report = sim::run(Config { trace, ..Config::drawn(seeds.start) });
        println!("{report:?}");
        return ExitCode::SUCCESS;
    }
    let begin = Instant::now();
    let campaign = sim::campaign(seeds, first);
    let text = format!("{}{} s on one core\n", campaign.text(), begin.elapsed().as_secs());
    let _ = std::io::stdout().write_all(text.as_bytes());
    if campaign.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `COUNT`: that many from the first; `FROM..TO`: without the last.
fn seeds(text: &str) -> Result<Range<u64>, String> {
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => Ok(0..number(text)?),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number that fits here"))
}

fn case(name: &str) -> Result<Case, String> {
    let named = Case::ALL.into_iter().find(|case| case.name() == name);
    let names = Case::ALL.map(Case::name).join("`, `");
    named.ok_or(format!("unknown case `{name}`; there are `{names}`"))
}

fn run(options: &Options) -> ExitCode {
    let mut config = options.case.config(options.nodes, options.pieces, options.seed);
    (config.check_every, config.trace) = (options.check, options.trace);
    if let Some(slots) = options.slots {
        config.swarm.slots = slots;
    }
    if let Some(cap) = options.cap {
        config.swarm.in_flight.0 = cap;
    }
    if let Some(window) = options.window {
        config.window = window;
    }
    if let Some(latency) = options.latency {
        config.latency_ns = latency * 1000;
    }
    let piece_ns = config.piece_ns();
    let report = sim::run(config);
    print(&report, options.case, piece_ns);
    if report.stuck.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A reader that has gone away, as `head` does, is no failure of the run.
fn print(report: &Report, case: Case, piece_ns: u64) {
    let _ = std::io::stdout().write_all(text(report, case, piece_ns).as_bytes());
}

fn text(report: &Report, case: Case, piece_ns: u64) -> String {
    let decimal = |thousandths: u64| format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    let outcome = match case.figure(report) {
        Some(figure) => format!("makespan / ideal {}", decimal(figure)),
        None => format!("stuck {:?}", report.stuck),
    };
    let sum = |what: fn(&Totals) -> u64| report.totals.iter().map(what).sum::<u64>();
    let times = report.finished.iter().skip(1);
    let times = times.map(|at| at.map_or("-".into(), |at| (at.0 / piece_ns).to_string()));
    format!(
        "{outcome}, source sent {} copies, {} events\n\
         granted {}, declined {}, revoked {}, stalled {}, wasted {} bytes, unasked {} bytes, {} messages\n\
         finished after piece times: {}\nclosed: {:?}\n",
        decimal(report.source_copies()),
        report.events,
        sum(|t| t.granted),
        sum(|t| t.declined),
        sum(|t| t.revoked),
        sum(|t| t.stalled),
        sum(|t| t.wasted),
        report.unasked,
        sum(|t| t.messages),
        times.collect::<Vec<String>>().join(" "),
        report.closed,
    )
}
