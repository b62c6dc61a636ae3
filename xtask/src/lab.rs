//! `cargo xtask lab`: how long an image takes from one machine to N, on links that are limited.
//!
//! The real binary, a network namespace a machine, full-duplex links. All programs run in turn in
//! one session, several rounds; every target is compared with the image byte for byte. What it
//! cannot show is a real switch, a real disk, and more machines than this one has cores for: the
//! busy fraction says when a figure is of the processor and not of the swarm.

mod cgroup;
mod figure;
mod flood;
mod gauge;
mod goodput;
mod image;
mod options;
mod plan;
mod process;
mod program;
mod report;
mod run;
mod scenario;
mod soak;
mod target;
mod verdict;

use crate::run as run_command;
use anyhow::{Context as _, bail};
use image::Image;
use lab::{Lan, Links, Need, net};
use options::Options;
pub(crate) use options::usage;
use plan::{Disk, Plan};
use program::Program;
use report::{Sample, Which};
use scenario::{Case, Scenario};
pub(crate) use soak::{main as soak, smoke as soak_smoke};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// `lab ARGS`: see [`usage`].
pub(crate) fn main(args: &[&str]) -> anyhow::Result<()> {
    match args {
        ["--smoke"] => smoke(),
        ["clean"] => clean(Path::new(DISK)),
        _ => matrix(&Options::parse(args)?),
    }
}

/// Two or three clients, some MiB, the development build: that everything works, not how fast.
pub(crate) fn smoke() -> anyhow::Result<()> {
    if let Err(why) = net::supported() {
        lab::skipped(&format!("the lab: {why}"));
        return Ok(());
    }
    let ezio = build(&[])?;
    let begin = Instant::now();
    let equal = Options::smoke(2, Vec::new());
    let mut samples = series(&equal, &ezio, "equal", &equal_cases(&equal))?;
    let scenarios = ["slow-disk", "killed", "five-torrents"];
    let unequal =
        Options::smoke(3, scenarios.iter().filter_map(|name| Scenario::find(name)).collect());
    for scenario in &unequal.scenarios {
        let mut cases = scenario.cases(&unequal);
        // Bars are for the real size, a release build and a machine with time.
        cases.iter_mut().for_each(|case| case.figures.clear());
        samples.extend(series(&unequal, &ezio, scenario.name, &cases)?);
    }
    flooded(&unequal, &ezio)?;
    in_small_groups(&ezio)?;
    for sample in &samples {
        // With one copy too few the bytes came from elsewhere, with N of them nobody shared.
        anyhow::ensure!(
            (0.95..sample.clients as f64 - 0.1).contains(&sample.seeder_copies),
            "the server sent {:.2} copies of the image: {}",
            sample.seeder_copies,
            sample.line()
        );
    }
    eprintln!("lab: {} runs in {:.1} s", samples.len(), begin.elapsed().as_secs_f64());
    Ok(())
}

/// Every attack at once: right bytes and an end, not how fast. A flooder takes what it can get, so
/// copies of the image are not counted.
fn flooded(options: &Options, ezio: &Path) -> anyhow::Result<()> {
    let cases = Scenario::find("flood").map(|scenario| scenario.cases(options));
    let cases = cases.into_iter().flatten().filter(|case| case.name.ends_with("everything"));
    let case = |case: Case| Case { figures: Vec::new(), ..case };
    series(options, ezio, "flood", &cases.map(case).collect::<Vec<_>>()).map(drop)
}

/// More than each client's memory group allows, in pieces of 16 MiB: that they get to the end.
fn in_small_groups(ezio: &Path) -> anyhow::Result<()> {
    let options = Options::small_groups(2);
    let cases = Scenario::find("memory").map(|scenario| scenario.cases(&options));
    let cases = cases.into_iter().flatten().filter(|case| case.plan.memory_max.is_some());
    let case = |case: Case| Case { figures: Vec::new(), ..case };
    series(&options, ezio, "memory", &cases.map(case).collect::<Vec<_>>()).map(drop)
}

fn matrix(options: &Options) -> anyhow::Result<()> {
    net::supported().map_err(anyhow::Error::msg)?;
    for program in &options.programs {
        lab::require(&program.needs()).map_err(anyhow::Error::msg)?;
    }
    let ezio = match &options.binary {
        Some(binary) => std::path::absolute(binary)?,
        None => build(&["--release"])?,
    };
    let links = Links { congestion: options.congestion.clone(), ..Links::equal(options.rate) };
    let lan = Lan::new(2, &links).context("make two nodes to measure the links")?;
    let measured = goodput::measure(&lan)?;
    println!("{}\n", measured.describe(options.rate, &lan.congestion()?));
    drop(lan);
    if options.scenarios.is_empty() {
        let samples = series(options, &ezio, "equal", &equal_cases(options))?;
        println!("{}", report::table(&samples));
        return Ok(());
    }
    let mut failed = Vec::new();
    let mut tables = Vec::new();
    for scenario in &options.scenarios {
        let cases = scenario.cases(options);
        let mut samples = Vec::new();
        // What failed does not keep the others from being measured.
        let outcome = series_into(options, &ezio, scenario.name, &cases, &mut samples, &mut failed);
        outcome.with_context(|| format!("the scenario {}", scenario.name))?;
        tables.push(verdict::table(scenario.name, &cases, &samples));
    }
    println!("{}", tables.join("\n\n"));
    if !failed.is_empty() {
        bail!("{} runs failed:\n{}", failed.len(), failed.join("\n"));
    }
    Ok(())
}

/// Equal links, each program to each number of clients; nothing is asked.
fn equal_cases(options: &Options) -> Vec<Case> {
    let case = |&nodes: &usize, &program: &Program| Case {
        name: format!("N = {nodes}, {program}"),
        plan: Plan::equal(options.shape(nodes), program, options.target),
        figures: Vec::new(),
    };
    let programs = &options.programs;
    options.nodes().iter().flat_map(|nodes| programs.iter().map(|p| case(nodes, p))).collect()
}

/// All runs, in turn; fails if one does.
fn series(
    options: &Options,
    ezio: &Path,
    scenario: &str,
    cases: &[Case],
) -> anyhow::Result<Vec<Sample>> {
    let (mut samples, mut failed) = (Vec::new(), Vec::new());
    series_into(options, ezio, scenario, cases, &mut samples, &mut failed)?;
    anyhow::ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(samples)
}

fn series_into(
    options: &Options,
    ezio: &Path,
    scenario: &str,
    cases: &[Case],
    samples: &mut Vec<Sample>,
    failed: &mut Vec<String>,
) -> anyhow::Result<()> {
    clean(&options.disk)?;
    for round in 0..options.rounds {
        let before = samples.len();
        for case in cases {
            if let Err(why) = possible(&case.plan) {
                lab::skipped(&format!("the lab: {scenario} {}: {why}", case.name));
                continue;
            }
            let which = Which { scenario, case: &case.name, round };
            match one(options, which, &case.plan, ezio) {
                Ok(mut sample) => {
                    let earlier: Vec<&Sample> = samples[before..].iter().collect();
                    let told = case.figures.iter().filter_map(|f| f.of(&sample, &earlier));
                    sample.figures = told.collect();
                    eprintln!("{}", sample.line());
                    if let Some(json) = &options.json {
                        report::append(json, &sample)?;
                    }
                    samples.push(sample);
                }
                Err(error) => {
                    let line = format!("{scenario} {}, round {round}: {error:#}", case.name);
                    eprintln!("FAILED: {line}");
                    failed.push(line);
                }
            }
        }
    }
    Ok(())
}

/// Whether this machine has what a run needs.
fn possible(plan: &Plan) -> Result<(), String> {
    lab::require(&plan.needs())?;
    plan.memory_max.map_or(Ok(()), |_| cgroup::supported())
}

fn one(options: &Options, which: Which<'_>, plan: &Plan, ezio: &Path) -> anyhow::Result<Sample> {
    let dir = work_dir(Path::new(MEMORY))?;
    // Ours as a server hands out a torrent with its own address.
    let tracker = (plan.server.program != Program::Ours).then(program::announce);
    let images = Image::make_all(dir.path(), &plan.shape, plan.images, tracker.as_deref(), ezio)?;
    let logs = match &options.logs {
        Some(logs) => {
            let case: String = which.case.chars().filter(|c| c.is_alphanumeric()).collect();
            logs.join(format!("{}-{case}-{}", which.scenario, which.round))
        }
        None => dir.path().join("logs"),
    };
    std::fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
    let real = if plan.clients.iter().any(|client| client.disk == Disk::Real) {
        Some(disk_dir(&options.disk)?)
    } else {
        None
    };
    let lan = Lan::new(plan.machines(), &plan.links(options.congestion.clone()))?;
    let site = run::Site {
        lan,
        plan,
        images: &images,
        ezio,
        dir: dir.path(),
        real: real.as_ref().map_or(dir.path(), tempfile::TempDir::path),
        logs: &logs,
    };
    let measured = run::run(&site)?;
    Ok(Sample::new(which, plan, &measured))
}

/// A directory on a disk, and on nothing that is memory.
fn disk_dir(disk: &Path) -> anyhow::Result<tempfile::TempDir> {
    let kind = lab::tool::run(lab::tool::words("stat --file-system --format=%T").arg(disk))?;
    anyhow::ensure!(
        !matches!(kind.trim(), "tmpfs" | "ramfs"),
        "{} is in memory; name a directory on a disk with --disk",
        disk.display()
    );
    work_dir(disk)
}

/// A directory of this run in `below`, readable by all: trackers give up being root.
fn work_dir(below: &Path) -> anyhow::Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt as _;
    let prefix = format!("{}{}-", net::PREFIX, std::process::id());
    tempfile::Builder::new()
        .prefix(&prefix)
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir_in(below)
        .with_context(|| format!("make a directory in {}", below.display()))
}

/// Images and targets are in memory (tmpfs), so that the links are what limits.
const MEMORY: &str = "/dev/shm";

/// Where targets on a disk are, if nobody says another place.
const DISK: &str = "/var/tmp";

/// Removes what killed runs left behind, in memory and on `disk`.
fn clean(disk: &Path) -> anyhow::Result<()> {
    net::clean()?;
    cgroup::clean();
    for dir in [Path::new(MEMORY), disk] {
        for entry in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry?;
            if net::is_stale(&entry.file_name().to_string_lossy()) {
                let path = entry.path();
                std::fs::remove_dir_all(&path)
                    .with_context(|| format!("remove {}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// Builds the program and says where it is.
pub(crate) fn build(profile: &[&str]) -> anyhow::Result<PathBuf> {
    run_command(Command::new("cargo").args(["build", "--package", "ezio"]).args(profile))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let dir = if profile.is_empty() { "debug" } else { "release" };
    Ok(std::path::absolute(Path::new(&target).join(dir).join("ezio"))?)
}

/// Seconds as a fraction, for figures.
fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// What every program needs of the machine.
const NEEDS: [Need; 3] = [Need::Root, Need::Program("ip"), Need::Program("tc")];
