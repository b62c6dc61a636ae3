//! What to run: the arguments of `cargo xtask lab`.

use super::program::Program;
use anyhow::{Context as _, bail, ensure};
use lab::Links;
use std::path::PathBuf;
use swarm::units::{parse_rate, parse_size};

/// How the arguments are written.
pub(crate) const USAGE: &str = "  lab [OPTIONS]                 one image to N machines on limited links, as root, in namespaces
      --nodes N[,N...]          clients [1,2,4,8]; above 8 rate, size and pieces shrink with 8/N
      --rate RATE               of each link, both ways [100Mbit/s]
      --size SIZE               of the image [256MiB]
      --piece-size SIZE         [1MiB]
      --rounds K                medians of so many [3]
      --peer libtorrent|none    run beside it, in turn; needs python3-libtorrent, opentracker [none]
      --only-peer               without ours
      --target file|loop        what ours writes to: files or loop devices, in tmpfs [file]
      --congestion NAME         of TCP [cubic, if this machine allows it]
      --binary FILE             an ezio built before, instead of building it
      --json FILE               append a line for each run
      --logs DIR                keep what the programs print
  lab --smoke                   two clients, some MiB; that it works
  lab clean                     remove what killed runs left behind
";

/// What to run.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) nodes: Vec<usize>,
    /// Bytes a second.
    pub(super) rate: u64,
    size: u64,
    piece_len: u64,
    pub(super) rounds: usize,
    pub(super) programs: Vec<Program>,
    pub(super) target: TargetKind,
    congestion: Option<String>,
    pub(super) binary: Option<PathBuf>,
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
            nodes: vec![1, 2, 4, 8],
            rate: 12_500_000,
            size: 256 << 20,
            piece_len: 1 << 20,
            rounds: 3,
            programs: vec![Program::Ours],
            target: TargetKind::File,
            congestion: None,
            binary: None,
            json: None,
            logs: None,
        }
    }

    /// Half a minute with the time a loaded machine takes for everything.
    pub(super) fn smoke() -> Options {
        let standard = Options::standard();
        let (size, piece_len) = (8 << 20, 128 << 10);
        Options { nodes: vec![2], size, piece_len, rounds: 1, ..standard }
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
            let value = *args.next().with_context(|| format!("{name} wants a value\n{USAGE}"))?;
            options
                .set(name, value)
                .with_context(|| format!("{name} {value} is not understood\n{USAGE}"))?;
        }
        if only_peer {
            options.programs.retain(|program| *program != Program::Ours);
        }
        ensure!(!options.programs.is_empty(), "--only-peer wants a --peer");
        for &nodes in &options.nodes {
            options.shape(nodes).check()?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> anyhow::Result<()> {
        match (name, value) {
            ("--nodes", _) => {
                self.nodes = value.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            ("--rate", _) => self.rate = parse_rate(value)?,
            ("--size", _) => self.size = parse_size(value)?,
            ("--piece-size", _) => self.piece_len = parse_size(value)?,
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

    /// The run to `nodes` clients: as many pieces and as long with any number of them.
    pub(super) fn shape(&self, nodes: usize) -> Shape {
        let shrink = (nodes as u64).max(NODES_FULL);
        let scaled = |full: u64| full * NODES_FULL / shrink;
        let piece_len = scaled(self.piece_len).max(1);
        // Pieces are powers of two: the next one below.
        let piece_len = 1 << piece_len.ilog2();
        Shape { nodes, rate: scaled(self.rate), size: scaled(self.size), piece_len }
    }

    pub(super) fn links(&self, shape: &Shape) -> Links {
        Links { congestion: self.congestion.clone(), ..Links::equal(shape.rate) }
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

    /// What it takes if the image comes once over one link and nothing else does.
    pub(super) fn ideal_seconds(&self) -> f64 {
        self.size as f64 / lab::net::goodput(self.rate)
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
        assert_eq!((options.rounds, options.nodes.clone()), (5, vec![2, 16]));
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
    }
}
