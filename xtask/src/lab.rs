//! `cargo xtask lab`: how long an image takes from one machine to N, on links that are limited.
//!
//! The real binary, a network namespace a machine, full-duplex links. All programs run in turn in
//! one session, several rounds; every target is compared with the image byte for byte. What it
//! cannot show is a real switch, a real disk, and more machines than this one has cores for: the
//! busy fraction says when a figure is of the processor and not of the swarm.

mod goodput;
mod image;
mod options;
mod process;
mod program;
mod report;
mod run;

use crate::run as run_command;
use anyhow::Context as _;
use image::Image;
use lab::{Lan, Need, net};
pub(crate) use options::USAGE;
use options::{Options, Shape};
use program::Program;
use report::Sample;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// `lab ARGS`: see [`USAGE`].
pub(crate) fn main(args: &[&str]) -> anyhow::Result<()> {
    match args {
        ["--smoke"] => smoke(),
        ["clean"] => clean(),
        _ => matrix(&Options::parse(args)?),
    }
}

/// Two clients, some MiB, the development build: that everything works, not how fast.
pub(crate) fn smoke() -> anyhow::Result<()> {
    if let Err(why) = net::supported() {
        lab::skipped(&format!("the lab: {why}"));
        return Ok(());
    }
    let ezio = build(&[])?;
    let begin = Instant::now();
    let samples = session(&Options::smoke(), &ezio)?;
    for sample in &samples {
        // With one copy too few the bytes came from elsewhere, with N of them nobody shared.
        anyhow::ensure!(
            (0.95..1.9).contains(&sample.seeder_copies),
            "the server sent {:.2} copies of the image to 2 clients",
            sample.seeder_copies
        );
    }
    eprintln!("lab: {} runs in {:.1} s", samples.len(), begin.elapsed().as_secs_f64());
    Ok(())
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
    let links = options.links(&options.shape(1));
    let lan = Lan::new(2, &links).context("make two nodes to measure the links")?;
    let measured = goodput::measure(&lan)?;
    println!("{}\n", measured.describe(options.rate, &lan.congestion()?));
    drop(lan);
    let samples = session(options, &ezio)?;
    println!("{}", report::table(&samples));
    Ok(())
}

/// All runs, in turn.
fn session(options: &Options, ezio: &Path) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    clean()?;
    for round in 0..options.rounds {
        for &nodes in &options.nodes {
            let shape = options.shape(nodes);
            let dir = work_dir()?;
            let image = Image::make(dir.path(), &shape, ezio)?;
            for &program in &options.programs {
                let sample = one(options, &shape, program, &image, ezio, round)
                    .with_context(|| format!("{program} to {nodes}"))?;
                eprintln!("{}", sample.line());
                if let Some(json) = &options.json {
                    report::append(json, &sample)?;
                }
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

fn one(
    options: &Options,
    shape: &Shape,
    program: Program,
    image: &Image,
    ezio: &Path,
    round: usize,
) -> anyhow::Result<Sample> {
    let dir = work_dir()?;
    let logs = match &options.logs {
        Some(logs) => logs.join(format!("{program}-{}-{round}", shape.nodes)),
        None => dir.path().join("logs"),
    };
    std::fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
    let lan = Lan::new(shape.nodes + 1, &options.links(shape))?;
    let site = run::Site { lan, image, ezio, dir: dir.path(), logs: &logs, target: options.target };
    let measured = run::run(&site, program, shape)?;
    Ok(Sample::new(options, shape, program, round, &measured))
}

/// A directory in memory, readable by all: trackers give up being root.
fn work_dir() -> anyhow::Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt as _;
    let prefix = format!("{}{}-", net::PREFIX, std::process::id());
    let dir = tempfile::Builder::new()
        .prefix(&prefix)
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir_in(MEMORY)
        .with_context(|| format!("make a directory in {MEMORY} (tmpfs)"))?;
    Ok(dir)
}

/// Images and targets are in memory, so that the links are what limits.
const MEMORY: &str = "/dev/shm";

/// Removes what killed runs left behind.
fn clean() -> anyhow::Result<()> {
    net::clean()?;
    for entry in std::fs::read_dir(MEMORY).with_context(|| format!("list {MEMORY}"))? {
        let entry = entry?;
        if net::is_stale(&entry.file_name().to_string_lossy()) {
            let path = entry.path();
            std::fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Builds the program and says where it is.
fn build(profile: &[&str]) -> anyhow::Result<PathBuf> {
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
