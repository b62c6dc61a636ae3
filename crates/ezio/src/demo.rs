//! `ezio demo`: the whole loop on one machine, for somebody who has just built the program.
//!
//! A file stands for the disk with the image, others for the targets; server and clients are this
//! very program as real processes over real sockets on loopback. Nothing needs root. At the end
//! every byte of every target is compared: what the torrent covers with the source, the rest with
//! the pattern that was there before.

mod compare;
mod crew;
mod display;
mod image;
mod outcome;
mod place;

use crate::capture::filesystem::find_program;
use crate::control;
use crate::ui::Ui;
use anyhow::{Context as _, bail, ensure};
use compare::Comparison;
use crew::Crew;
use display::Display;
use image::Source;
use outcome::{Outcome, Target};
use place::Place;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use swarm::bencode::Limits;
use swarm::metainfo::Metainfo;
use swarm::units::Bytes;

pub use crew::end_with_parent;

/// What to show.
#[derive(Clone, Debug)]
pub struct Demo {
    /// Targets, 1 to [`CLIENTS_MAX`].
    pub clients: u32,
    /// Bytes of the disk that is copied, as [`parse_size`] allows.
    pub size: u64,
    /// Work here and leave everything; without it a temporary directory is used and removed.
    pub keep: Option<PathBuf>,
}

/// Targets at most: each is a process with up to 128 MiB of pieces in memory.
pub const CLIENTS_MAX: i64 = 32;

/// The smallest disk that an ext4 with a journal and some files fits on.
const SIZE_MIN: u64 = 8 << 20;

/// Nothing has moved for so long: something is broken.
const STUCK_MAX: Duration = Duration::from_secs(120);

/// How often the stop flag is looked at.
const PERIOD: Duration = Duration::from_millis(100);

/// Shows it. Returns whether every target is what it has to be.
///
/// # Errors
/// If there is no room, a process fails, nothing moves for two minutes, or `stop` was set.
pub fn run(demo: &Demo, ui: Ui, stop: &AtomicBool) -> anyhow::Result<bool> {
    let disks = u64::from(demo.clients) + 1;
    let place = Place::make(demo.keep.as_deref(), demo.size.saturating_mul(disks))?;
    let source = image::make(place.path(), demo.size, ui, stop)?;
    ui.note(&format!("1/5 made {}: {}", source.path.display(), source.what));
    let targets: Vec<PathBuf> =
        (1..=demo.clients).map(|n| place.path().join(format!("target{n}.img"))).collect();
    for target in &targets {
        image::fill_with_pattern(target, demo.size, stop)?;
    }
    ui.note(&format!(
        "2/5 made {} of {}, full of a pattern: whatever is written there will show",
        match demo.clients {
            1 => "a target".to_owned(),
            n => format!("{n} targets"),
        },
        Bytes(demo.size)
    ));
    let mut processes = Processes { crew: Crew::new(place.path()), ui, stop };
    let (url, torrent) = processes.serve(&source)?;
    let mut outcome = processes.deploy(&url, &torrent, &targets, demo.size)?;
    drop(processes);
    ui.note("5/5 comparing every byte of every target");
    let extents = torrent.layout().extents();
    let e2fsck = source.is_file_system.then(|| find_program("e2fsck")).flatten();
    for (target, path) in outcome.targets.iter_mut().zip(&targets) {
        let comparison = Comparison { source: &source.path, target: path, len: demo.size, extents };
        target.wrong = comparison.run(stop)?.map(|difference| difference.to_string());
        if let (None, Some(program)) = (&target.wrong, &e2fsck) {
            target.wrong = image::fsck(program, path)?;
        }
    }
    outcome.checked = e2fsck.is_some();
    outcome.kept = demo.keep.clone();
    ui.result(&outcome.text(), outcome.json());
    Ok(outcome.targets.iter().all(|target| target.wrong.is_none()))
}

/// A size for [`Demo::size`]: in whole MiB, as large as an ext4 needs.
///
/// # Errors
/// If it is no size, or too small.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let size = swarm::units::parse_size(text).map_err(|e| e.to_string())?;
    if size < SIZE_MIN {
        return Err(format!("at least {}, or no file system fits", Bytes(SIZE_MIN)));
    }
    Ok(size - size % (1 << 20))
}

/// The processes while they run.
struct Processes<'a> {
    crew: Crew,
    ui: Ui,
    stop: &'a AtomicBool,
}

/// Loopback only, any free ports: neither the network nor another `ezio` notices.
const PRIVATE: [&str; 6] = ["--port", "0", "--interface", "127.0.0.1", "--peers", "127.0.0.0/8"];

impl Processes<'_> {
    /// Starts the server. Returns its URL and what it hands out.
    fn serve(&mut self, source: &Source) -> anyhow::Result<(String, Metainfo)> {
        let path = path_text(&source.path)?;
        let what = match &source.torrent {
            Some(torrent) => vec![path_text(torrent)?, "--from", path],
            None => vec![path],
        };
        let args = [&["serve", "--http", "127.0.0.1:0"], &what[..], &PRIVATE].concat();
        self.crew.start("server", &args)?;
        let mut patience = Patience::new();
        let port = loop {
            let Some((_, event)) = self.listen(&mut patience)? else { continue };
            if let Some(port) = event.get("http_port") {
                break port.clone();
            }
        };
        let url = format!("http://127.0.0.1:{port}");
        let name = image::NAME;
        let bytes =
            control::fetch(&format!("{url}/torrents/{name}.torrent"), Limits::TORRENT.bytes)?;
        let torrent = Metainfo::parse(bytes).context("the server hands out an unusable torrent")?;
        if let Some(extents) = &source.extents {
            ensure!(torrent.layout().extents() == extents, "the torrent has other extents");
        }
        self.ui.note(&format!(
            "3/5 ezio serve: {} used bytes in {} extents make {} pieces; the server seeds them from \
             the disk, is the tracker, and answers at {url}",
            Bytes(torrent.layout().image_len()),
            torrent.layout().extents().len(),
            torrent.piece_count(),
        ));
        Ok((url, torrent))
    }

    /// Starts a client for each target and waits for their end.
    fn deploy(
        &mut self,
        url: &str,
        torrent: &Metainfo,
        targets: &[PathBuf],
        disk_len: u64,
    ) -> anyhow::Result<Outcome> {
        self.ui.note(&format!(
            "4/5 ezio deploy {url} --to target1.img, and so on: each gets pieces from the server \
             and from the others, verifies and writes them"
        ));
        for (number, target) in (1..).zip(targets) {
            let state = target.with_extension("state");
            let (to, state) = (path_text(target)?, path_text(&state)?);
            let args = [&["deploy", url, "--to", to, "--state", state], &PRIVATE[..]].concat();
            self.crew.start(&format!("target{number}"), &args)?;
        }
        let image_len = torrent.layout().image_len();
        let mut display = Display::new(self.ui, targets.len(), image_len);
        let mut found: Vec<Option<f64>> = vec![None; targets.len()];
        let (mut patience, mut running) = (Patience::new(), targets.len());
        while running > 0 {
            let Some((member, event)) = self.listen(&mut patience)? else {
                display.look();
                continue;
            };
            // The server is member 0.
            let Some(index) = member.checked_sub(1) else { continue };
            if event.is_null() {
                running -= 1;
            } else if event["event"] == "result" {
                found[index] = event["seconds"].as_f64();
                display.done(index, found[index].unwrap_or_default());
                patience.reset();
            } else if let Some(bytes) = event["bytes"].as_u64()
                && display.moved(index, bytes)
            {
                patience.reset();
            }
        }
        drop(display);
        let status = control::fetch(&format!("{url}/api/status"), STATUS_LEN_MAX)?;
        let status: Value = serde_json::from_slice(&status).context("read the server's status")?;
        let passed_on = |target: &Path| {
            let nodes = status["nodes"].as_array()?;
            let is_it = |node: &&Value| node["report"]["device"].as_str() == target.to_str();
            nodes.iter().find(is_it)?["report"]["torrents"][0]["sent_bytes"].as_u64()
        };
        let targets = targets.iter().zip(found).map(|(path, seconds)| Target {
            path: path.clone(),
            seconds: seconds.unwrap_or_default(),
            passed_on: passed_on(path),
            wrong: None,
        });
        Ok(Outcome {
            disk_len,
            image_len,
            extents: torrent.layout().extents().len(),
            pieces: torrent.piece_count(),
            server_sent: status["engine"][0]["sent_bytes"].as_u64().unwrap_or_default(),
            targets: targets.collect(),
            checked: false,
            kept: None,
        })
    }

    /// Waits a moment for what a process says, and passes it on; a null is its successful end.
    fn listen(&mut self, patience: &mut Patience) -> anyhow::Result<Option<(usize, Value)>> {
        ensure!(!self.stop.load(Ordering::Relaxed), "interrupted; all processes were ended");
        ensure!(
            patience.since.elapsed() < STUCK_MAX,
            "nothing has moved for {} s; all processes were ended, try it again with -v",
            STUCK_MAX.as_secs()
        );
        let Some((member, event)) = self.crew.listen(PERIOD) else { return Ok(None) };
        let Some(event) = event else {
            if let Some(why) = self.crew.ended_badly(member)? {
                bail!("{} failed: {why}", self.crew.name(member));
            }
            ensure!(member > 0, "the server ended before its clients did");
            return Ok(Some((member, Value::Null)));
        };
        self.ui.of_process(self.crew.name(member), &event);
        Ok(Some((member, event)))
    }
}

/// A status of 32 reporters has some 20 KB.
const STATUS_LEN_MAX: usize = 16 << 20;

/// Since when nothing has moved.
struct Patience {
    since: Instant,
}

impl Patience {
    fn new() -> Patience {
        Patience { since: Instant::now() }
    }

    fn reset(&mut self) {
        *self = Patience::new();
    }
}

/// `path` as an argument of a process that prints it as JSON.
fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| {
        format!("{} is no UTF-8; set TMPDIR or --keep to a directory that is", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_mebibytes_that_a_file_system_fits_in() {
        assert_eq!(parse_size("256MiB"), Ok(256 << 20));
        assert_eq!(parse_size("25MB"), Ok(23 << 20));
        assert!(parse_size("7MiB").unwrap_err().contains("at least 8 MiB"));
        assert!(parse_size("big").is_err());
    }
}
