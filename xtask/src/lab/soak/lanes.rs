//! What happens in a soak, again and again: torrents that come to daemons and go, machines that are
//! imaged, killed, stopped and started again, and people who look.

use super::room::{FIRST_CLIENT, PATIENCE, REAPER, Room, SERVER, SOWER, shape};
use crate::lab::image::Image;
use crate::lab::process::Process;
use anyhow::{Context as _, ensure};
use lab::Random;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What has happened.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub(super) added: AtomicU64,
    pub(super) removed: AtomicU64,
    pub(super) early: AtomicU64,
    pub(super) paused: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) deployed: AtomicU64,
    pub(super) killed: AtomicU64,
    pub(super) stopped: AtomicU64,
    pub(super) ended: AtomicU64,
    pub(super) looks: AtomicU64,
    /// Bytes of targets that were compared.
    pub(super) compared: AtomicU64,
}

impl Count {
    fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

/// Torrents that come to the daemons at a time.
const BATCH: u64 = 6;

/// What happens to a torrent of the daemons.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is deployed.
    Whole,
    /// It is paused for a while, and deployed.
    Paused,
    /// It is removed where it is written.
    Removed,
    /// It is removed where it comes from, then where it is written.
    Orphaned,
}

/// Torrents that are new to both daemons: seeded by one, written by the other, and removed.
pub(super) fn daemons(
    room: &Room,
    turn: u64,
    random: &mut Random,
    count: &Count,
) -> anyhow::Result<()> {
    let dir = room.dir.join(format!("turn{turn}"));
    std::fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
    let size = BATCH * ((1 << 20) + 4096 * random.below(256));
    let images = Image::make_all(&dir, &shape(size), BATCH as usize, None, &room.ezio)?;
    let target = |index: usize| dir.join(format!("target{index}"));
    for (index, image) in images.iter().enumerate() {
        File::create(target(index))?.set_len(image.len)?;
        room.add(SOWER, image, &image.path, true)?;
        room.add(REAPER, image, &target(index), false)?;
        Count::add(&count.added, 2);
    }
    let refused = [
        room.add(REAPER, &images[0], &target(0), false),
        room.add(SOWER, &images[0], &dir.join("nothing"), true),
    ];
    ensure!(refused.iter().all(Result::is_err), "a torrent was taken twice, or without a file");
    Count::add(&count.refused, 2);
    let fates: Vec<Fate> = images.iter().map(|_| fate(random)).collect();
    for (image, fate) in images.iter().zip(&fates) {
        thread::sleep(Duration::from_millis(random.below(300)));
        befall(room, image, *fate, random, count)?;
    }
    wait_for_all(room)?;
    for (index, image) in images.iter().enumerate() {
        if matches!(fates[index], Fate::Whole | Fate::Paused) {
            image.compare(&target(index))?;
            Count::add(&count.compared, image.len);
        }
    }
    remove_all(room, count)?;
    std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))
}

fn fate(random: &mut Random) -> Fate {
    match random.below(8) {
        0 => Fate::Removed,
        1 => Fate::Orphaned,
        2 | 3 => Fate::Paused,
        _ => Fate::Whole,
    }
}

fn befall(
    room: &Room,
    image: &Image,
    fate: Fate,
    random: &mut Random,
    count: &Count,
) -> anyhow::Result<()> {
    let hash: String =
        image.metainfo.info_hash().iter().map(|byte| format!("{byte:02x}")).collect();
    let remove = |machine| {
        let removed = room.ask(machine, |daemon| daemon.remove(&hash))?;
        ensure!(removed, "a torrent that was added is not there");
        Count::add(&count.removed, 1);
        Count::add(&count.early, 1);
        Ok(())
    };
    match fate {
        Fate::Whole => Ok(()),
        Fate::Paused => {
            room.ask(REAPER, |daemon| daemon.pause(&hash))?;
            thread::sleep(Duration::from_millis(random.below(1500)));
            Count::add(&count.paused, 1);
            room.ask(REAPER, |daemon| daemon.resume(&hash))
        }
        Fate::Removed => remove(REAPER),
        Fate::Orphaned => {
            remove(SOWER)?;
            remove(REAPER)
        }
    }
}

/// Waits until the daemon that writes has all that it carries.
fn wait_for_all(room: &Room) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let torrents = room.torrents(REAPER)?;
        if torrents.iter().all(|torrent| torrent.is_finished) {
            return Ok(());
        }
        let late = torrents.iter().filter(|torrent| !torrent.is_finished);
        let late: Vec<String> =
            late.map(|t| format!("{} {:.2} {} peers", t.name, t.progress, t.num_peers)).collect();
        ensure!(Instant::now() < end, "not deployed in {PATIENCE:?}: {}", late.join(", "));
        thread::sleep(Duration::from_millis(200));
    }
}

fn remove_all(room: &Room, count: &Count) -> anyhow::Result<()> {
    for machine in [SOWER, REAPER] {
        for torrent in room.torrents(machine)? {
            ensure!(
                room.ask(machine, |daemon| daemon.remove(&torrent.hash))?,
                "{} cannot be removed",
                torrent.name
            );
            Count::add(&count.removed, 1);
        }
        ensure!(room.torrents(machine)?.is_empty(), "a removed torrent is still carried");
    }
    Ok(())
}

/// One machine, imaged from the server, with what happens to machines.
pub(super) fn client(
    room: &Room,
    index: usize,
    random: &mut Random,
    count: &Count,
) -> anyhow::Result<()> {
    let machine = FIRST_CLIENT + index;
    let image = &room.images[random.below(room.images.len() as u64) as usize];
    let target = room.dir.join(format!("disk{index}"));
    let state = room.dir.join("state").join(format!("{index}"));
    if !target.exists() || random.below(2) == 0 {
        // Otherwise it holds what was there before, of this image or another.
        File::create(&target)?.set_len(image.len)?;
    }
    let extra = match random.below(4) {
        0 => Some("--reuse"),
        1 => Some("--verify"),
        _ => None,
    };
    look(room, machine, random, count)?;
    let begin = || {
        let mut command = room.command(machine);
        command.args(["deploy", "--json", "--state"]).arg(&state);
        command.args(extra).arg("--to").arg(format!("{}={}", image.name(), target.display()));
        command.arg(format!("http://{}:6969", room.lan.addr(SERVER)));
        Process::start(command, room.log(&format!("client{index}")))
    };
    let mut process = begin()?;
    for _ in 0..random.below(4) {
        thread::sleep(Duration::from_millis(random.below(2500)));
        if process.has_ended() {
            break;
        }
        match random.below(3) {
            0 => {
                // It kills, and waits until nothing of it is left.
                drop(process);
                Count::add(&count.killed, 1);
                process = begin()?;
            }
            1 => {
                process.signal("STOP")?;
                Count::add(&count.stopped, 1);
                thread::sleep(Duration::from_millis(random.below(3000)));
                process.signal("CONT")?;
            }
            _ => {
                process.signal("TERM")?;
                Count::add(&count.ended, 1);
                process.wait_for_end(PATIENCE)?;
                drop(process);
                process = begin()?;
            }
        }
    }
    process.wait_for("result", PATIENCE).with_context(|| format!("client {index}"))?;
    process.wait(PATIENCE).with_context(|| format!("client {index}"))?;
    image.compare(&target)?;
    Count::add(&count.deployed, 1);
    Count::add(&count.compared, image.len);
    Ok(())
}

/// Somebody looks at the pages: at one, or at what changes, and goes away in the middle of it.
fn look(room: &Room, machine: usize, random: &mut Random, count: &Count) -> anyhow::Result<()> {
    const PAGES: [&str; 5] = ["/", "/api/status", "/metrics", "/torrents", "/events"];
    let page = PAGES[random.below(PAGES.len() as u64) as usize];
    let addr = room.lan.addr(SERVER);
    let request = format!("GET {page} HTTP/1.1\r\nHost: {addr}:6969\r\n\r\n");
    let answer = room.lan.within(machine, || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((addr, 6969))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = [0; 200];
        let len = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..len]).into_owned())
    })?;
    let answer = answer.with_context(|| format!("look at {page}"))?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{page}: {answer}");
    Count::add(&count.looks, 1);
    Ok(())
}
