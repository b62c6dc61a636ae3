//! Where a soak takes place: machines on a switch, the processes that live through all of it, and
//! what they carry.

use crate::lab::gauge::Gauge;
use crate::lab::image::Image;
use crate::lab::options::Shape;
use crate::lab::process::Process;
use anyhow::{Context as _, ensure};
use ezio::legacy::Client;
use ezio::legacy::messages::{AddRequest, Torrent};
use lab::{Lan, Links};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// The machines, and what the server has for them.
pub(super) struct Room {
    pub(super) ezio: PathBuf,
    pub(super) dir: PathBuf,
    /// What the server carries.
    pub(super) images: Vec<Image>,
    pub(super) lan: Lan,
}

/// The processes that live through the soak: a server and two daemons.
pub(super) struct Residents(Vec<Resident>);

struct Resident {
    name: &'static str,
    process: Process,
    /// What it held when it carried nothing but what it was started with.
    base: Gauge,
}

/// The machines: a server, two daemons, and behind them the clients.
pub(super) const SERVER: usize = 0;
pub(super) const SOWER: usize = 1;
pub(super) const REAPER: usize = 2;
pub(super) const FIRST_CLIENT: usize = 3;

/// Where daemons answer gRPC, each on its own machine.
const GRPC: &str = "127.0.0.1:50051";

/// Of each link. Slow enough that an image takes a second or two, in which something can happen.
const RATE: u64 = 5_000_000;

/// Torrents that the server carries.
const SERVED: usize = 8;

/// What nothing takes longer than on a machine with other work.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

impl Room {
    /// Makes the machines, and the images in `dir`.
    pub(super) fn open(ezio: PathBuf, dir: &Path, clients: usize) -> anyhow::Result<Room> {
        let served = dir.join("served");
        for sub in ["served", "tmp", "state", "logs"] {
            std::fs::create_dir(dir.join(sub)).with_context(|| format!("make {sub}"))?;
        }
        let size = SERVED as u64 * (4 << 20);
        let images = Image::make_all(&served, &shape(size), SERVED, None, &ezio)?;
        let lan = Lan::new(FIRST_CLIENT + clients, &Links::equal(RATE))?;
        Ok(Room { ezio, dir: dir.to_owned(), images, lan })
    }

    /// The program on a machine; what it makes for a moment it makes in a directory of ours.
    pub(super) fn command(&self, machine: usize) -> Command {
        let mut command = self.lan.command(machine, &self.ezio);
        command.env("TMPDIR", self.dir.join("tmp"));
        command
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(name)
    }

    /// Asks the daemon of a machine.
    pub(super) fn ask<T: Send>(
        &self,
        machine: usize,
        ask: impl FnOnce(&mut Client) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        self.lan.within(machine, || ask(&mut Client::connect(GRPC)?))?
    }

    /// Has a daemon carry an image.
    pub(super) fn add(
        &self,
        machine: usize,
        image: &Image,
        path: &Path,
        seed: bool,
    ) -> anyhow::Result<()> {
        let request = AddRequest {
            torrent: image.metainfo.as_bytes().to_vec(),
            save_path: path.to_string_lossy().into_owned(),
            seeding_mode: seed,
            ..AddRequest::default()
        };
        self.ask(machine, |daemon| daemon.add(request)).map(drop)
    }

    /// What a daemon carries.
    pub(super) fn torrents(&self, machine: usize) -> anyhow::Result<Vec<Torrent>> {
        self.ask(machine, |daemon| daemon.status(&[]))
    }

    /// Files that are left where the program makes those that it needs for a moment.
    pub(super) fn leftovers(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for sub in ["tmp", "state"] {
            let dir = self.dir.join(sub);
            let entries = std::fs::read_dir(&dir).with_context(|| format!("list {sub}"))?;
            found.extend(entries.flatten().map(|entry| entry.path()));
        }
        Ok(found)
    }
}

impl Residents {
    /// Starts a server and two daemons that carry nothing.
    pub(super) fn start(room: &Room) -> anyhow::Result<Residents> {
        let mut residents = Residents(Vec::new());
        residents.start_server(room)?;
        residents.start_daemon(room, "daemon that seeds", SOWER)?;
        residents.start_daemon(room, "daemon that writes", REAPER)?;
        Ok(residents)
    }

    fn start_server(&mut self, room: &Room) -> anyhow::Result<()> {
        let mut command = room.command(SERVER);
        command.args(["serve", "--json"]);
        for image in &room.images {
            command.arg(&image.torrent).arg("--from").arg(&image.path);
        }
        let process = Process::start(command, room.log("server"))?;
        process.wait_for("result", PATIENCE)?;
        self.settle_in("server", process)
    }

    fn start_daemon(
        &mut self,
        room: &Room,
        name: &'static str,
        machine: usize,
    ) -> anyhow::Result<()> {
        let process = Process::start(room.command(machine), room.log(name))?;
        let end = Instant::now() + PATIENCE;
        while room.ask(machine, |_| Ok(())).is_err() {
            ensure!(!process.has_ended() && Instant::now() < end, "the {name} does not answer");
            thread::sleep(Duration::from_millis(50));
        }
        self.settle_in(name, process)
    }

    /// Waits until it does nothing but wait for work.
    fn settle_in(&mut self, name: &'static str, process: Process) -> anyhow::Result<()> {
        thread::sleep(Duration::from_secs(2));
        let base = Gauge::of(process.id())?;
        self.0.push(Resident { name, process, base });
        Ok(())
    }

    /// Their names and process ids.
    pub(super) fn names(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.0.iter().map(|resident| (resident.name, resident.process.id()))
    }

    /// What all of them hold, when that is no more than at the start; waits for it.
    ///
    /// # Errors
    /// Who holds more, and what.
    pub(super) fn at_rest(&self) -> anyhow::Result<Vec<Gauge>> {
        let end = Instant::now() + PATIENCE;
        loop {
            let gauges = self.gauges()?;
            let more = self.0.iter().zip(&gauges).find(|(r, gauge)| !gauge.is_within(&r.base));
            let Some((resident, gauge)) = more else { return Ok(gauges) };
            ensure!(
                Instant::now() < end,
                "the {} does not give back what it took: {gauge:?} at rest, {:?} at the start",
                resident.name,
                resident.base
            );
            thread::sleep(Duration::from_millis(250));
        }
    }

    /// What all of them hold now.
    pub(super) fn gauges(&self) -> anyhow::Result<Vec<Gauge>> {
        let gauge = |resident: &Resident| {
            Gauge::of(resident.process.id()).with_context(|| format!("the {}", resident.name))
        };
        self.0.iter().map(gauge).collect()
    }

    /// Seconds of processor time that they have used.
    pub(super) fn cpu(&self) -> f64 {
        self.0.iter().map(|resident| resident.process.cpu()).sum()
    }

    /// Ends all of them, as people do.
    pub(super) fn close(self, room: &Room) -> anyhow::Result<()> {
        for machine in [SOWER, REAPER] {
            room.ask(machine, Client::shutdown)?;
        }
        for Resident { name, process, .. } in self.0 {
            let ended = match name {
                "server" => process.stop(PATIENCE),
                _ => process.wait(PATIENCE),
            };
            ended.with_context(|| format!("the {name} ends"))?;
        }
        Ok(())
    }
}

/// Small pieces, so that small images have many.
pub(super) fn shape(size: u64) -> Shape {
    Shape { nodes: 1, rate: RATE, size, piece_len: 64 << 10 }
}
