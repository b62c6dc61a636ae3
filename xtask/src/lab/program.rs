//! The programs that are measured, each as it is best run for this.
//!
//! Ours is started when the clock is: reading the torrent from the server and looking at the target
//! count. libtorrent's processes are there before, with their session open and the torrent read, and
//! are told to begin; that its data is flushed is not waited for. Where they differ, it is in the
//! other's favour.

use super::NEEDS;
use super::cgroup::MemoryGroup;
use super::process::Process;
use super::run::Site;
use super::target::Medium;
use anyhow::Context as _;
use lab::{Need, tool};
use serde_json::{Value, json};
use std::fmt;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Program {
    Ours,
    Libtorrent,
}

/// What serves the image, and its helpers.
pub(super) struct Seeder {
    pub(super) process: Process,
    /// A tracker of its own.
    _tracker: Option<Process>,
}

/// Port of every tracker here.
const TRACKER_PORT: u16 = 6969;

/// How long a program may take until it is ready.
const READY: Duration = Duration::from_secs(60);

/// libtorrent's side, run by Debian's own Python, for which its module is built.
const LIBTORRENT: &str = include_str!("libtorrent.py");
const PYTHON: &str = "/usr/bin/python3";

impl Program {
    /// What this machine must have.
    pub(super) fn needs(self) -> Vec<Need> {
        let mut needs = NEEDS.to_vec();
        if self == Program::Libtorrent {
            needs.extend([Need::Program("opentracker"), Need::Program("python3")]);
        }
        needs
    }

    /// Starts the server and waits until it serves.
    pub(super) fn seeder(self, site: &Site<'_>, sources: &[Medium]) -> anyhow::Result<Seeder> {
        let log = site.logs.join("server");
        match self {
            Program::Ours => {
                let mut command = site.lan.command(0, site.ezio);
                command.args(["serve", "--json", "-v"]);
                for (image, source) in site.images.iter().zip(sources) {
                    command.arg(&image.torrent).arg("--from").arg(&source.path);
                }
                let process = Process::start(command, log)?;
                process.wait_for("result", READY)?;
                Ok(Seeder { process, _tracker: None })
            }
            Program::Libtorrent => {
                let tracker = tracker(site)?;
                let dir = site.dir.join("source");
                let file = site.image().file_below(&dir)?;
                std::fs::create_dir_all(file.parent().context("it is in a directory")?)?;
                std::fs::hard_link(&site.image().path, &file)?;
                let mut process = libtorrent(site, 0, &dir, true, log)?;
                process.say("go")?;
                process.wait_for("announced", READY)?;
                Ok(Seeder { process, _tracker: Some(tracker) })
            }
        }
    }

    /// Does for a client what does not count. `None` if nothing does not.
    pub(super) fn prepare(self, site: &Site<'_>, node: usize) -> anyhow::Result<Option<Process>> {
        match self {
            Program::Ours => Ok(None),
            Program::Libtorrent => {
                let dir = site.dir.join(format!("client{node}"));
                std::fs::create_dir_all(&dir)?;
                let log = site.logs.join(format!("client{node}"));
                let process = libtorrent(site, node, &dir, false, log)?;
                Ok(Some(process))
            }
        }
    }

    /// Tells a client to begin. `result` is what it will print in the end.
    pub(super) fn begin(
        self,
        site: &Site<'_>,
        node: usize,
        prepared: Option<Process>,
        targets: &[Medium],
        group: Option<&MemoryGroup>,
    ) -> anyhow::Result<Process> {
        if let Some(mut process) = prepared {
            process.say("go")?;
            return Ok(process);
        }
        let mut command = site.lan.command(node, site.ezio);
        if let Some(group) = group {
            command = group.command(&command);
        }
        command.args(["deploy", "--json", "-v"]);
        for (image, target) in site.images.iter().zip(targets) {
            command.arg("--to");
            match site.images.len() {
                1 => command.arg(&target.path),
                _ => command.arg(format!("{}={}", image.name(), target.path.display())),
            };
        }
        match site.plan.server.program {
            Program::Ours => command.arg(format!("http://{}:{TRACKER_PORT}", site.lan.addr(0))),
            Program::Libtorrent => command.arg(&site.image().torrent),
        };
        Process::start(command, site.logs.join(format!("client{node}")))
    }

    /// How many `result` lines a client prints in the end.
    pub(super) fn results(self, site: &Site<'_>) -> usize {
        match self {
            Program::Ours => site.images.len(),
            Program::Libtorrent => 1,
        }
    }

    /// Bytes of blocks that the server says to have sent, if it says.
    pub(super) fn sent(self, site: &Site<'_>) -> anyhow::Result<Option<u64>> {
        if self != Program::Ours {
            return Ok(None);
        }
        let url = format!("http://{}:{TRACKER_PORT}/api/status", site.lan.addr(0));
        let status = site.lan.within(0, || ezio::control::fetch(&url, STATUS_LEN_MAX))??;
        let status: Value = serde_json::from_slice(&status)?;
        let torrents = status["engine"].as_array().into_iter().flatten();
        let sent: Option<u64> = torrents.map(|torrent| torrent["sent_bytes"].as_u64()).sum();
        Ok(Some(sent.with_context(|| format!("{url} does not say what was sent: {status}"))?))
    }
}

/// A flooder's machines that do not exist may say 16 MiB in all, which the status repeats.
const STATUS_LEN_MAX: usize = 32 << 20;

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Program::Ours => "ezio",
            Program::Libtorrent => "libtorrent",
        })
    }
}

/// The tracker of every run.
pub(super) fn announce() -> String {
    format!("http://{}:{TRACKER_PORT}/announce", lab::net::addr(0))
}

fn libtorrent(
    site: &Site<'_>,
    node: usize,
    dir: &Path,
    seed: bool,
    log: PathBuf,
) -> anyhow::Result<Process> {
    let mut command = site.lan.command(node, Path::new(PYTHON));
    let order = json!({
        "torrent": site.image().torrent,
        "dir": dir,
        "seed": seed,
        "tracker": announce(),
    });
    command.args(["-u", "-c", LIBTORRENT, &order.to_string()]);
    let process = Process::start(command, log)?;
    process.wait_for("ready", READY).context("libtorrent (Debian's python3-libtorrent)")?;
    Ok(process)
}

/// Debian's opentracker, which serves what its white list names.
fn tracker(site: &Site<'_>) -> anyhow::Result<Process> {
    let dir = site.dir.join("tracker");
    std::fs::create_dir_all(&dir)?;
    let hash: String =
        site.image().metainfo.info_hash().iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(dir.join("list"), hash + "\n")?;
    let program = tool::find("opentracker").context("opentracker is not installed")?;
    let addr = (site.lan.addr(0), TRACKER_PORT);
    let mut command = site.lan.command(0, &program);
    let port = TRACKER_PORT.to_string();
    command.args(["-i", &addr.0.to_string(), "-p", &port, "-P", &port, "-w", "list", "-d"]);
    let process = Process::start(
        {
            command.arg(&dir);
            command
        },
        site.logs.join("tracker"),
    )?;
    let end = Instant::now() + READY;
    while site.lan.within(0, || TcpStream::connect(addr))?.is_err() {
        anyhow::ensure!(Instant::now() < end, "opentracker does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(process)
}
