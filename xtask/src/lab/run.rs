//! One run: a server, N clients, a clock, counters; then every byte is compared.

use super::image::Image;
use super::options::{Shape, TargetKind};
use super::process::{Machine, Process};
use super::program::Program;
use super::seconds;
use anyhow::{Context as _, bail, ensure};
use lab::net::Traffic;
use lab::{Lan, LoopDevice, LoopOptions};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Where a run takes place. Node 0 is the server.
pub(super) struct Site<'a> {
    pub(super) lan: Lan,
    pub(super) image: &'a Image,
    /// Our binary.
    pub(super) ezio: &'a Path,
    /// For targets and what else is written.
    pub(super) dir: &'a Path,
    pub(super) logs: &'a Path,
    pub(super) target: TargetKind,
}

/// What was measured; times count from the moment before the first client was told to begin.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) clients: Vec<Client>,
    pub(super) server: Cost,
    /// Over the server's link, both ways.
    pub(super) server_traffic: Traffic,
    /// Bytes of blocks that the server itself says to have sent.
    pub(super) server_sent: Option<u64>,
    /// Part of the machine's processor time that was used, by whomever.
    pub(super) busy: f64,
    /// Seconds of processor time used by the whole machine.
    pub(super) busy_seconds: f64,
    /// Packets thrown away by the limiters.
    pub(super) drops: u64,
    pub(super) congestion: String,
    pub(super) timeline: Vec<Moment>,
}

/// What was measured of a client.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    /// When it had received more than [`PAYLOAD`].
    pub(super) receiving: Option<Duration>,
    /// When it said that it has everything.
    pub(super) finished: Option<Duration>,
    pub(super) cost: Cost,
    /// Over its link until the last client had finished.
    pub(super) traffic: Traffic,
}

/// What a process used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// Seconds of processor time.
    pub(super) cpu: f64,
    /// Bytes of resident memory at the peak.
    pub(super) memory: u64,
}

/// Bytes over every link, all counted from the start.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) at: Duration,
    /// Of each node, the server first.
    pub(super) traffic: Vec<Traffic>,
}

/// More than the torrent, the announces and the handshakes: the image is coming.
const PAYLOAD: u64 = 64 << 10;

/// How often counters are looked at: a fiftieth of the start-up time that is allowed.
const LOOK: Duration = Duration::from_millis(20);

/// How often that is kept, and memory looked at.
const KEEP: Duration = Duration::from_millis(200);

/// How long a program may take to end.
const END: Duration = Duration::from_secs(60);

/// Runs `program` once.
pub(super) fn run(site: &Site<'_>, program: Program, shape: &Shape) -> anyhow::Result<Measured> {
    let targets = (1..=shape.nodes)
        .map(|node| Target::make(site, program, node, shape.size))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut seeder = program.seeder(site).context("start the server")?;
    let mut prepared = (1..=shape.nodes)
        .map(|node| program.prepare(site, node))
        .collect::<anyhow::Result<Vec<_>>>()
        .context("prepare the clients")?;

    let before = site.lan.traffic()?;
    let cpu_before: Vec<f64> =
        prepared.iter().map(|process| process.as_ref().map_or(0.0, Process::cpu)).collect();
    let (machine, server_cpu) = (Machine::now()?, seeder.process.cpu());
    let begin = Instant::now();
    let mut processes = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        let process = program.begin(site, index + 1, prepared[index].take(), &target.path)?;
        processes.push(process);
    }
    let limit = Duration::from_secs_f64(shape.ideal_seconds() * 8.0 + 30.0);
    let mut watch = Watch { site, begin, before, clients: vec![], timeline: vec![] };
    watch.all(&mut processes, limit)?;
    let end = Machine::now()?;
    let traffic = watch.since()?;
    seeder.process.look_at_memory();
    let server = Cost { cpu: seeder.process.cpu() - server_cpu, memory: seeder.process.memory_max };
    let Watch { mut clients, timeline, .. } = watch;
    for (index, client) in clients.iter_mut().enumerate() {
        let process = &mut processes[index];
        process.look_at_memory();
        let cpu = process.cpu() - cpu_before[index];
        client.cost = Cost { cpu, memory: process.memory_max };
        client.traffic = traffic[index + 1];
    }
    let (busy, busy_seconds) = end.since(machine);
    let measured = Measured {
        clients,
        server,
        server_traffic: traffic[0],
        server_sent: program.sent(site)?,
        busy,
        busy_seconds,
        drops: site.lan.drops()?,
        congestion: site.lan.congestion()?,
        timeline,
    };
    if program.leaves() {
        for (index, process) in processes.into_iter().enumerate() {
            process.wait(END).with_context(|| format!("client {} leaves", index + 1))?;
        }
        seeder.process.stop(END).context("end the server")?;
    } else {
        drop((processes, seeder));
    }
    targets.iter().try_for_each(|target| site.image.compare(&target.path))?;
    Ok(measured)
}

/// Looks at everything until all clients have finished.
struct Watch<'a> {
    site: &'a Site<'a>,
    begin: Instant,
    before: Vec<Traffic>,
    clients: Vec<Client>,
    timeline: Vec<Moment>,
}

impl Watch<'_> {
    fn all(&mut self, processes: &mut [Process], limit: Duration) -> anyhow::Result<()> {
        self.clients = vec![Client::default(); processes.len()];
        while self.clients.iter().any(|client| client.finished.is_none()) {
            let at = self.begin.elapsed();
            let traffic = self.since()?;
            for (client, traffic) in self.clients.iter_mut().zip(&traffic[1..]) {
                if traffic.received > PAYLOAD {
                    client.receiving.get_or_insert(at);
                }
            }
            if self.timeline.last().is_none_or(|moment| at - moment.at >= KEEP) {
                processes.iter_mut().for_each(Process::look_at_memory);
                self.timeline.push(Moment { at, traffic });
            }
            for (index, process) in processes.iter_mut().enumerate() {
                self.look(index, process).with_context(|| format!("client {}", index + 1))?;
            }
            if at > limit {
                bail!("not done within {:.0} s: {:?}", seconds(limit), self.clients);
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn look(&mut self, index: usize, process: &mut Process) -> anyhow::Result<()> {
        let client = &mut self.clients[index];
        if client.finished.is_some() {
            return Ok(());
        }
        // Asked before its lines are: what it has printed before its end is not missed.
        let ended = process.has_ended();
        if let Some((at, _)) = process.try_for("result")? {
            client.finished = Some(at.saturating_duration_since(self.begin));
            process.look_at_memory();
        } else if ended {
            process.wait_for("result", Duration::from_secs(5)).map(drop)?;
            bail!("it ended at once");
        }
        Ok(())
    }

    /// Bytes over each link since the start.
    fn since(&self) -> anyhow::Result<Vec<Traffic>> {
        let now = self.site.lan.traffic()?;
        let since = |(now, before): (&Traffic, &Traffic)| Traffic {
            sent: now.sent - before.sent,
            received: now.received - before.received,
        };
        Ok(now.iter().zip(&self.before).map(since).collect())
    }
}

/// What a client writes.
struct Target {
    path: PathBuf,
    /// Attached while the value lives.
    _device: Option<LoopDevice>,
}

impl Target {
    fn make(site: &Site<'_>, program: Program, node: usize, len: u64) -> anyhow::Result<Target> {
        let path = program.target(site, node)?;
        if program != Program::Ours {
            return Ok(Target { path, _device: None });
        }
        // There before, as a device is: `ezio deploy` makes no files below /dev.
        let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
        file.set_len(len)?;
        if site.target == TargetKind::File {
            return Ok(Target { path, _device: None });
        }
        ensure!(len.is_multiple_of(512), "an image for a loop device is made of whole sectors");
        let device = LoopDevice::attach(&path, LoopOptions::default())?;
        Ok(Target { path: device.path().to_owned(), _device: Some(device) })
    }
}
