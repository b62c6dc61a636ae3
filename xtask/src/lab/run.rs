//! One run: a server, its clients, a clock, counters; then every byte is compared.

use super::cgroup::MemoryGroup;
use super::flood::{Deeds, Flood};
use super::image::Image;
use super::plan::{Event, Plan, Start, What};
use super::process::{Machine, Process};
use super::seconds;
use super::target::Medium;
use anyhow::{Context as _, bail};
use lab::Lan;
use lab::disk::Stats;
use lab::net::Traffic;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Where a run takes place. Node 0 is the server.
pub(super) struct Site<'a> {
    pub(super) lan: Lan,
    pub(super) plan: &'a Plan,
    pub(super) images: &'a [Image],
    /// Our binary.
    pub(super) ezio: &'a Path,
    /// For targets and what else is written; in memory.
    pub(super) dir: &'a Path,
    /// For targets on a disk.
    pub(super) real: &'a Path,
    pub(super) logs: &'a Path,
}

impl Site<'_> {
    /// The first image.
    pub(super) fn image(&self) -> &Image {
        &self.images[0]
    }
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
    /// What the server's disk did, if it counts.
    pub(super) source: Option<Stats>,
    /// Part of the machine's processor time that was used, by whomever.
    pub(super) busy: f64,
    /// Seconds of processor time used by the whole machine.
    pub(super) busy_seconds: f64,
    /// Packets thrown away by the limiters.
    pub(super) drops: u64,
    pub(super) congestion: String,
    pub(super) timeline: Vec<Moment>,
    pub(super) flood: Option<Deeds>,
}

/// What was measured of a client.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    /// When it was told to begin.
    pub(super) begun: Option<Duration>,
    /// When it had received more than [`PAYLOAD`].
    pub(super) receiving: Option<Duration>,
    /// When it said that it has everything.
    pub(super) finished: Option<Duration>,
    pub(super) cost: Cost,
    /// Over its link until the run's end.
    pub(super) traffic: Traffic,
    /// What its disk did, if it counts.
    pub(super) disk: Option<Stats>,
    /// Bytes that its memory group had at the peak.
    pub(super) group_memory: Option<u64>,
}

/// What a process used.
#[derive(Clone, Debug, Default)]
pub(super) struct Cost {
    /// Seconds of processor time.
    pub(super) cpu: f64,
    /// Bytes of resident memory at the peak.
    pub(super) memory: u64,
    /// Threads and open files, sockets among them, at the peak.
    pub(super) most: (u64, u64),
    /// The share of each thread in the process's time, the busiest first.
    pub(super) threads: Vec<(String, f64)>,
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

/// How often that is kept, and memory and threads are looked at.
const KEEP: Duration = Duration::from_millis(200);

/// How long a program may take to end.
const END: Duration = Duration::from_secs(60);

/// Runs the plan of `site` once.
pub(super) fn run(site: &Site<'_>) -> anyhow::Result<Measured> {
    let sources = site.images.iter().map(|image| Medium::source(image, site.plan.server.disk));
    let sources = sources.collect::<anyhow::Result<Vec<_>>>().context("make the source")?;
    let server = site.plan.server.program;
    let mut seeder = server.seeder(site, &sources).context("start the server")?;
    let crew = site.plan.clients.iter().enumerate().map(|(index, _)| Member::make(site, index + 1));
    let crew = crew.collect::<anyhow::Result<Vec<_>>>().context("prepare the clients")?;

    let flood = start_flood(site)?;
    // What the server has read to begin does not count.
    sum(&sources);
    let server_cpu = seeder.process.cpu();
    let machine = Machine::now()?;
    let before = site.lan.traffic()?;
    let mut watch = Watch { site, begin: Instant::now(), before, crew, timeline: vec![] };
    watch.all(&mut seeder.process)?;

    let (busy, busy_seconds) = Machine::now()?.since(machine);
    let traffic = watch.since()?;
    let cost = cost_of(&mut seeder.process, server_cpu);
    let crew = watch.crew.iter_mut().zip(&traffic[1..]);
    let clients = crew.map(|(member, traffic)| member.sum_up(*traffic)).collect();
    let measured = Measured {
        clients,
        server: cost,
        server_traffic: traffic[0],
        server_sent: server.sent(site)?,
        source: sum(&sources),
        busy,
        busy_seconds,
        drops: site.lan.drops()?,
        congestion: site.lan.congestion()?,
        timeline: watch.timeline,
        flood: flood.map(Flood::end),
    };
    let mut crew = watch.crew;
    if site.plan.ends_well() {
        for (index, member) in crew.iter_mut().enumerate() {
            let process = member.process.take().context("it was started")?;
            process.wait(END).with_context(|| format!("client {} leaves", index + 1))?;
        }
        seeder.process.stop(END).context("end the server")?;
    } else {
        crew.iter_mut().for_each(|member| drop(member.process.take()));
        drop(seeder);
    }
    crew.iter().try_for_each(|member| member.compare(site))?;
    Ok(measured)
}

/// Begins an attack on the server, if there is one; the clients come into it.
fn start_flood(site: &Site<'_>) -> anyhow::Result<Option<Flood>> {
    let Some(flooder) = site.plan.flooder else { return Ok(None) };
    let metainfo = &site.image().metainfo;
    let torrent = (metainfo.info_hash(), metainfo.piece_count());
    let node = site.plan.machines() - 1;
    let flood = Flood::start(&site.lan, node, flooder.attack, torrent)?;
    thread::sleep(HEAD_START);
    Ok(Some(flood))
}

/// How long the server is attacked before the first client begins.
const HEAD_START: Duration = Duration::from_secs(3);

fn cost_of(process: &mut Process, cpu_before: f64) -> Cost {
    process.look_at_memory();
    process.look_at_threads();
    let cpu = process.cpu() - cpu_before;
    Cost { cpu, memory: process.memory_max, most: process.most, threads: process.shares() }
}

fn sum(media: &[Medium]) -> Option<Stats> {
    media.iter().filter_map(Medium::take_stats).reduce(|a, b| Stats {
        seeks: a.seeks + b.seeks,
        reads: a.reads + b.reads,
        read_bytes: a.read_bytes + b.read_bytes,
        busy: a.busy.max(b.busy),
        ..a
    })
}

/// A client's machine, and how far it is.
struct Member<'a> {
    /// Its number in the lan.
    node: usize,
    targets: Vec<Medium>,
    group: Option<MemoryGroup>,
    /// Before it is told to begin.
    prepared: Option<Process>,
    /// After.
    process: Option<Process>,
    cpu_before: f64,
    /// What is still to happen to it.
    events: &'a [Event],
    /// It was killed or stopped: nothing is expected of it.
    gone: bool,
    results: usize,
    client: Client,
}

impl<'a> Member<'a> {
    fn make(site: &Site<'a>, node: usize) -> anyhow::Result<Member<'a>> {
        let plan = &site.plan.clients[node - 1];
        let images = 0..site.images.len();
        let targets =
            images.map(|index| Medium::target(site, node, index)).collect::<Result<_, _>>()?;
        let name = format!("{}{}-{node}", lab::net::PREFIX, std::process::id());
        let group = site.plan.memory_max.map(|max| MemoryGroup::make(&name, max)).transpose()?;
        let prepared = plan.program.prepare(site, node)?;
        Ok(Member {
            node,
            targets,
            group,
            cpu_before: prepared.as_ref().map_or(0.0, Process::cpu),
            prepared,
            process: None,
            events: &plan.events,
            gone: false,
            results: 0,
            client: Client::default(),
        })
    }

    fn begin(&mut self, site: &Site<'_>, at: Duration) -> anyhow::Result<()> {
        let program = site.plan.clients[self.node - 1].program;
        let (prepared, group) = (self.prepared.take(), self.group.as_ref());
        self.process = Some(program.begin(site, self.node, prepared, &self.targets, group)?);
        self.client.begun = Some(at);
        Ok(())
    }

    /// Reads what it has said.
    fn listen(&mut self, site: &Site<'_>, begin: Instant) -> anyhow::Result<()> {
        let Some(process) = &mut self.process else { return Ok(()) };
        if self.gone || self.client.finished.is_some() {
            return Ok(());
        }
        // Asked before its lines are: what it has printed before its end is not missed.
        let ended = process.has_ended();
        let results = site.plan.clients[self.node - 1].program.results(site);
        while let Some((at, _)) = process.try_for("result")? {
            self.results += 1;
            if self.results == results {
                self.client.finished = Some(at.saturating_duration_since(begin));
                process.look_at_memory();
                return Ok(());
            }
        }
        if ended {
            process.wait_for("result", Duration::from_secs(5)).map(drop)?;
            bail!("it ended at once");
        }
        Ok(())
    }

    /// Lets happen what is due at this part of the image.
    fn suffer(&mut self, site: &Site<'_>, progress: f64) -> anyhow::Result<()> {
        while let [event, later @ ..] = self.events {
            let Some(process) = self.process.as_ref().filter(|_| event.at <= progress) else {
                break;
            };
            match event.what {
                What::Kill => process.signal("KILL")?,
                What::Freeze => process.signal("STOP")?,
                What::Unplug => site.lan.set_connected(self.node, false)?,
                What::Plug => site.lan.set_connected(self.node, true)?,
                What::Rates(rates) => site.lan.set_rates(self.node, rates)?,
            }
            self.gone |= matches!(event.what, What::Kill | What::Freeze);
            self.events = later;
        }
        Ok(())
    }

    fn sum_up(&mut self, traffic: Traffic) -> Client {
        let cost = self.process.as_mut().map(|process| cost_of(process, self.cpu_before));
        let client = std::mem::take(&mut self.client);
        Client {
            cost: cost.unwrap_or_default(),
            traffic,
            disk: sum(&self.targets),
            group_memory: self.group.as_ref().and_then(MemoryGroup::peak),
            finished: client.finished.filter(|_| !self.gone),
            ..client
        }
    }

    /// Compares what has become of its targets, if it was to finish.
    fn compare(&self, site: &Site<'_>) -> anyhow::Result<()> {
        let program = site.plan.clients[self.node - 1].program;
        if self.results < program.results(site) {
            return Ok(());
        }
        self.targets.iter().zip(site.images).try_for_each(|(target, image)| {
            target.hurry();
            image.compare(&target.path)
        })
    }
}

/// Looks at everything until all clients that count have finished.
struct Watch<'a> {
    site: &'a Site<'a>,
    begin: Instant,
    before: Vec<Traffic>,
    crew: Vec<Member<'a>>,
    timeline: Vec<Moment>,
}

impl Watch<'_> {
    fn all(&mut self, server: &mut Process) -> anyhow::Result<()> {
        let plan = self.site.plan;
        let limit = limit(plan);
        while self
            .crew
            .iter()
            .zip(&plan.clients)
            .any(|(member, node)| node.counts && member.client.finished.is_none())
        {
            let traffic = self.since()?;
            let progress = self.progress(&traffic);
            for index in 0..self.crew.len() {
                let (at, member) = (self.begin.elapsed(), &mut self.crew[index]);
                let due = match plan.clients[index].start {
                    Start::At(time) => seconds(at) >= time,
                    Start::HalfDone => progress >= 0.5,
                };
                let mut look = || {
                    if due && member.client.begun.is_none() {
                        member.begin(self.site, at)?;
                    }
                    member.suffer(self.site, progress)?;
                    member.listen(self.site, self.begin)
                };
                look().with_context(|| format!("client {}", index + 1))?;
            }
            self.keep(traffic, server);
            if self.begin.elapsed() > limit {
                bail!("not done within {:.0} s: {}", seconds(limit), self.unfinished());
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Who counts and has not finished, and how much each has received.
    fn unfinished(&self) -> String {
        let traffic = self.since().unwrap_or_default();
        let late = self
            .crew
            .iter()
            .zip(&self.site.plan.clients)
            .filter(|(member, node)| node.counts && member.client.finished.is_none());
        let size = self.site.plan.shape.size as f64;
        let line = |member: &Member<'_>| {
            let received = traffic.get(member.node).map_or(0, |traffic| traffic.received);
            format!("client {} received {:.2} images", member.node, received as f64 / size)
        };
        late.map(|(member, _)| line(member)).collect::<Vec<_>>().join(", ")
    }

    /// Notes what has come, and from time to time what it cost.
    fn keep(&mut self, traffic: Vec<Traffic>, server: &mut Process) {
        let at = self.begin.elapsed();
        for (member, traffic) in self.crew.iter_mut().zip(&traffic[1..]) {
            if traffic.received > PAYLOAD {
                member.client.receiving.get_or_insert(at);
            }
        }
        if self.timeline.last().is_none_or(|moment| at - moment.at >= KEEP) {
            let crew = self.crew.iter_mut().filter_map(|member| member.process.as_mut());
            // Threads are many, and with limited links nobody asks for them.
            let unlimited = self.site.plan.ideal_seconds().is_none();
            for process in crew.chain([server]) {
                process.look_at_memory();
                if unlimited {
                    process.look_at_threads();
                }
            }
            self.timeline.push(Moment { at, traffic });
        }
    }

    /// The part of the image that the first wave has on average, as far as it counts.
    fn progress(&self, traffic: &[Traffic]) -> f64 {
        let clients = self.site.plan.clients.iter().zip(&traffic[1..]);
        let parts: Vec<f64> = clients
            .filter(|(node, _)| node.counts && node.start == Start::At(0.0))
            .map(|(_, traffic)| traffic.received as f64 / self.site.plan.shape.size as f64)
            .collect();
        parts.iter().sum::<f64>() / parts.len().max(1) as f64
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

/// How long a run may take: far more than anything that works.
fn limit(plan: &Plan) -> Duration {
    let starts = plan.clients.iter().map(|client| match client.start {
        Start::At(time) => time,
        Start::HalfDone => 0.0,
    });
    let bound = plan.bound_seconds().map_or(300.0, |bound| bound * 8.0);
    Duration::from_secs_f64(bound + starts.fold(30.0, f64::max))
}
