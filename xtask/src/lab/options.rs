//! What to run: the arguments of `cargo xtask lab`.

use super::DISK;
use super::program::Program;
use super::scenario::{SCENARIOS, Scenario};
use anyhow::{Context as _, bail, ensure};
use std::path::PathBuf;
use swarm::units::{parse_rate, parse_size};

/// How the arguments are written.
const USAGE: &str = "  lab [OPTIONS]                 one image to N machines on limited links, as root, in namespaces
      --scenario NAME[,NAME...] not equal links, but one of those below; all: all of them
      --nodes N[,N...]          clients [1,2,4,8]; above 8 rate, size and pieces shrink with 8/N
      --rate RATE               of each link, both ways [100Mbit/s]
      --size SIZE               of the image [256MiB]
      --piece-size SIZE         [1MiB]
      --rounds K                medians of so many [3]
      --peer libtorrent|none    run beside it, in turn; needs python3-libtorrent, opentracker [none]
      --only-peer               without ours
      --target file|loop        what ours writes to: files or loop devices, in tmpfs [file]
      --congestion NAME         of TCP [cubic, if this machine allows it, else reno]
      --binary FILE             an ezio built before, instead of building it
      --disk DIR                on a disk, for the scenario memory [/var/tmp]
      --json FILE               append a line for each run
      --logs DIR                keep what the programs print
  lab --smoke                   two or three clients, some MiB; that it works
  lab clean                     remove what killed runs left behind
  scenarios of the lab, with 8 clients unless --nodes says another number:
";

/// The arguments, and the scenarios with a line each.
pub(crate) fn usage() -> String {
    let line = |scenario: &Scenario| format!("      {:25} {}\n", scenario.name, scenario.about);
    USAGE.to_owned() + &SCENARIOS.iter().map(line).collect::<String>()
}

/// What to run.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Without any: equal links, and a table of what they cost.
    pub(super) scenarios: Vec<&'static Scenario>,
    pub(super) nodes: Option<Vec<usize>>,
    /// Bytes a second.
    pub(super) rate: u64,
    size: Option<u64>,
    piece_len: Option<u64>,
    pub(super) rounds: usize,
    pub(super) programs: Vec<Program>,
    pub(super) target: TargetKind,
    pub(super) congestion: Option<String>,
    pub(super) binary: Option<PathBuf>,
    /// A directory that is not in memory.
    pub(super) disk: PathBuf,
    pub(super) json: Option<PathBuf>,
    pub(super) logs: Option<PathBuf>,
}

/// What our targets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TargetKind {
    File,
    Loop,
}

/// The size of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Clients.
    pub(super) nodes: usize,
    /// Of each link, bytes a second.
    pub(super) rate: u64,
    /// Bytes of the image.
    pub(super) size: u64,
    /// Bytes of a piece.
    pub(super) piece_len: u64,
}

/// With more clients than this, less for each: two cores carry some 100 MB/s of this in all.
const NODES_FULL: u64 = 8;

impl Options {
    fn standard() -> Options {
        Options {
            scenarios: Vec::new(),
            nodes: None,
            rate: 12_500_000,
            size: None,
            piece_len: None,
            rounds: 3,
            programs: vec![Program::Ours],
            target: TargetKind::File,
            congestion: None,
            binary: None,
            disk: DISK.into(),
            json: None,
            logs: None,
        }
    }

    /// Some seconds of transfer; the rest is what a loaded machine takes for everything.
    pub(super) fn smoke(nodes: usize, scenarios: Vec<&'static Scenario>) -> Options {
        let (size, piece_len) = (Some(8 << 20), Some(128 << 10));
        let nodes = Some(vec![nodes]);
        Options { scenarios, nodes, size, piece_len, rounds: 1, ..Options::standard() }
    }

    /// Twice 256 MiB, the memory of a group, within some seconds.
    pub(super) fn small_groups(nodes: usize) -> Options {
        let (size, rate) = (Some(512 << 20), 50_000_000);
        Options { size, rate, piece_len: None, ..Options::smoke(nodes, Vec::new()) }
    }

    pub(super) fn parse(args: &[&str]) -> anyhow::Result<Options> {
        let mut options = Options::standard();
        let mut only_peer = false;
        let mut args = args.iter();
        while let Some(&name) = args.next() {
            if name == "--only-peer" {
                only_peer = true;
                continue;
            }
            let value =
                *args.next().with_context(|| format!("{name} wants a value\n{}", usage()))?;
            options
                .set(name, value)
                .with_context(|| format!("{name} {value} is not understood\n{}", usage()))?;
        }
        if only_peer {
            options.programs.retain(|program| *program != Program::Ours);
        }
        ensure!(!options.programs.is_empty(), "--only-peer wants a --peer");
        ensure!(!only_peer || options.scenarios.is_empty(), "a scenario needs ours");
        options.nodes().iter().try_for_each(|&nodes| options.shape(nodes).check())?;
        for scenario in &options.scenarios {
            let cases = scenario.cases(&options);
            cases.iter().try_for_each(|case| case.plan.shape.check())?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> anyhow::Result<()> {
        match (name, value) {
            ("--nodes", _) => {
                self.nodes = Some(value.split(',').map(str::parse).collect::<Result<_, _>>()?);
            }
            ("--rate", _) => self.rate = parse_rate(value)?,
            ("--size", _) => self.size = Some(parse_size(value)?),
            ("--piece-size", _) => self.piece_len = Some(parse_size(value)?),
            ("--scenario", "all") => self.scenarios = SCENARIOS.iter().collect(),
            ("--scenario", _) => {
                let find =
                    |name| Scenario::find(name).with_context(|| format!("no scenario {name}"));
                self.scenarios = value.split(',').map(find).collect::<Result<_, _>>()?;
            }
            ("--disk", _) => self.disk = value.into(),
            ("--rounds", _) => self.rounds = value.parse()?,
            ("--peer", "none") => {}
            ("--peer", "libtorrent") => self.programs.push(Program::Libtorrent),
            ("--target", "file") => self.target = TargetKind::File,
            ("--target", "loop") => self.target = TargetKind::Loop,
            ("--congestion", _) => self.congestion = Some(value.to_owned()),
            ("--binary", _) => self.binary = Some(value.into()),
            ("--json", _) => self.json = Some(value.into()),
            ("--logs", _) => self.logs = Some(value.into()),
            _ => bail!("there is no such option or value"),
        }
        Ok(())
    }

    /// Numbers of clients of the runs with equal links.
    pub(super) fn nodes(&self) -> &[usize] {
        self.nodes.as_deref().unwrap_or(&[1, 2, 4, 8])
    }

    /// The run to `nodes` clients: as many pieces and as long with any number of them.
    pub(super) fn shape(&self, nodes: usize) -> Shape {
        self.scaled(nodes, 256 << 20, 1 << 20)
    }

    /// The same for a scenario, which may be of another size.
    pub(super) fn shape_of(&self, scenario: &Scenario, nodes: usize) -> Shape {
        self.scaled(nodes, scenario.size, scenario.piece_len)
    }

    fn scaled(&self, nodes: usize, size: u64, piece_len: u64) -> Shape {
        let shrink = (nodes as u64).max(NODES_FULL);
        let scaled = |full: u64| full * NODES_FULL / shrink;
        let piece_len = scaled(self.piece_len.unwrap_or(piece_len)).max(1);
        // Pieces are powers of two: the next one below.
        let piece_len = 1 << piece_len.ilog2();
        Shape { nodes, rate: scaled(self.rate), size: scaled(self.size.unwrap_or(size)), piece_len }
    }
}

impl Shape {
    fn check(&self) -> anyhow::Result<()> {
        ensure!((1..=64).contains(&self.nodes), "1 to 64 clients, not {}", self.nodes);
        ensure!(self.rate >= 10_000, "a link of {} bytes a second is too slow", self.rate);
        ensure!(self.size >= self.piece_len, "an image of less than a piece");
        ensure!(
            (16 << 10..=64 << 20).contains(&self.piece_len),
            "pieces of {} bytes with {} clients; 16KiB to 64MiB are possible",
            self.piece_len,
            self.nodes
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let args = ["--nodes", "2,16", "--rate", "1Gbit/s", "--size", "64MiB", "--peer"];
        let options = Options::parse(&[&args[..], &["libtorrent", "--rounds", "5"]].concat());
        let options = options.unwrap();
        assert_eq!((options.rounds, options.nodes()), (5, &[2, 16][..]));
        assert_eq!(options.programs, [Program::Ours, Program::Libtorrent]);
        let full = Shape { nodes: 2, rate: 125_000_000, size: 64 << 20, piece_len: 1 << 20 };
        assert_eq!(options.shape(2), full);
        let half = Shape { nodes: 16, rate: 62_500_000, size: 32 << 20, piece_len: 512 << 10 };
        assert_eq!(options.shape(16), half);
    }

    #[test]
    fn nonsense_is_refused() {
        let check = |args: &[&str]| assert!(Options::parse(args).is_err(), "{args:?}");
        check(&["--nodes"]);
        check(&["--nodes", "two"]);
        check(&["--nodes", "0"]);
        check(&["--peer", "nobody"]);
        check(&["--target", "cloud"]);
        check(&["--size", "1KiB"]);
        check(&["--what", "1"]);
        check(&["--only-peer"]);
        check(&["--scenario", "joins,nothing"]);
        check(&["--scenario", "joins", "--peer", "libtorrent", "--only-peer"]);
    }
}
