//! The fleet as those see it who look: every machine, the swarm as a whole, throughput over time.
//!
//! Once a second all is looked at once, and what has changed is told to every viewer in the same
//! bytes. A viewer that does not keep up is cut off; it comes back and begins with the whole again.

mod diagnosis;
mod documents;
mod history;
mod machine;
mod metrics;

pub(super) use documents::{csv, html};
pub(super) use machine::{Facts, Machine};
pub(super) use metrics::metrics;

use super::reports::Reports;
use diagnosis::{Health, Usual, diagnose};
use history::{History, Point};
use hyper::body::Bytes;
use machine::{MAP_LEN, Phase};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Those who may look at the same time.
const VIEWERS_MAX: usize = 64;

/// Seconds that a viewer may be behind.
const BEHIND_MAX: usize = 8;

/// An image that this server serves.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) info_hash: String,
    pub(super) bytes: u64,
    pub(super) pieces: u64,
    /// What this server has sent of it.
    pub(super) sent_bytes: u64,
    /// Connections of this server.
    pub(super) peers: u64,
}

/// What the server knows of itself and of strangers, once a second.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    pub(super) images: Vec<Image>,
    /// The fastest link of this server, in Mbit/s.
    pub(super) link_mbit: Option<u64>,
    /// Addresses that announce, without this server's own.
    pub(super) announcers: Vec<String>,
}

/// What a server says of reports, without the server: for `fuzz/`.
#[derive(Debug, Default)]
pub struct Told {
    /// How many machines are remembered.
    pub machines: usize,
    /// How many an order was for; `None` if it is none.
    pub ordered: Option<u64>,
    /// The reports as they are listed, and what each page shows of them.
    pub list: String,
    /// As `/api/machines`.
    pub shown: Value,
    /// As `/report.csv`.
    pub csv: String,
    /// As `/report.html`.
    pub html: String,
    /// As `/metrics`.
    pub metrics: String,
}

impl Told {
    /// Of strangers' reports, each from a machine of its own, and an order. The pages stay empty without
    /// `pages`: they take most of the time.
    #[must_use]
    pub fn of(bodies: &[&[u8]], order: &[u8], pages: bool) -> Told {
        let (mut fleet, now) = (Fleet::new(), Instant::now());
        for (number, body) in (0_u32..).zip(bodies) {
            let _ = fleet.reports.keep(now, std::net::Ipv4Addr::from_bits(number).into(), body);
        }
        let ordered = serde_json::from_slice(order).ok();
        let ordered = ordered.and_then(|order| fleet.order(&order).ok());
        let mut list = String::new();
        fleet.reports.list(now, &mut list);
        let machines = fleet.reports.machines().count();
        if !pages {
            return Told { machines, ordered, list, ..Told::default() };
        }
        fleet.tick(now, Surroundings::default());
        Told {
            machines,
            ordered,
            list,
            shown: fleet.machines(),
            csv: csv(&fleet),
            html: html(&fleet),
            metrics: metrics(&fleet),
        }
    }
}

/// Something has come to its end, well or not.
#[derive(Clone, Debug)]
pub enum Ended {
    /// A machine is done or has failed; as in `/api/machines`.
    Machine(Value),
    /// All machines are or have; as in `/api/summary`.
    All(Value),
}

impl Ended {
    /// As it is posted.
    #[must_use]
    pub fn describe(&self) -> Value {
        match self {
            Ended::Machine(machine) => json!({ "event": "machine", "machine": machine }),
            Ended::All(summary) => json!({ "event": "all", "summary": summary }),
        }
    }
}

/// What has changed of how a machine fares: for who runs the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn(pub String);

/// All machines, and who looks at them.
pub(super) struct Fleet {
    pub(super) reports: Reports,
    around: Surroundings,
    history: History,
    server_rate: f64,
    server_sent: u64,
    started: Option<Instant>,
    /// Since all machines are done or have failed.
    ended: Option<Instant>,
    summary: Value,
    copies: Vec<Vec<f64>>,
    viewers: Vec<mpsc::Sender<Bytes>>,
    /// All there is as of this second, if somebody came to look: those who read slowly share it.
    snapshot: Option<Bytes>,
    turns: Vec<Turn>,
    ticks: u64,
}

impl Fleet {
    pub(super) fn new() -> Fleet {
        Fleet {
            reports: Reports::default(),
            around: Surroundings::default(),
            history: History::new(),
            server_rate: 0.0,
            server_sent: 0,
            started: None,
            ended: None,
            summary: json!({}),
            copies: Vec::new(),
            viewers: Vec::new(),
            snapshot: None,
            turns: Vec::new(),
            ticks: 0,
        }
    }

    /// A second has gone by: looks at everything, tells the viewers what has changed. Returns what
    /// has come to its end since the last time.
    pub(super) fn tick(&mut self, now: Instant, around: Surroundings) -> Vec<Ended> {
        let lens = |around: &Surroundings| -> Vec<u64> {
            around.images.iter().map(|image| image.bytes).collect()
        };
        // In the first moments their lengths are not known.
        let others = lens(&self.around) != lens(&around);
        self.around = around;
        self.ticks += 1;
        self.snapshot = None;
        self.measure_server();
        let usual = Usual::of(self.reports.machines());
        let (mut changed, mut ended) = (Vec::new(), Vec::new());
        for machine in self.reports.machines_mut() {
            let before = machine.health;
            (machine.health, machine.reason) = diagnose(machine, usual, now);
            if machine.health != before {
                machine.health_since = now;
            }
            self.turns.extend(turn(machine, now));
            changed.extend(difference(machine));
            let over = machine.facts.phase.is_over();
            if over && !machine.end_told {
                log_end(machine);
                ended.push(Ended::Machine(Value::Object(machine.describe())));
            }
            machine.end_told = over;
        }
        let went_on = self.ended.is_none();
        self.note_time(now);
        let point = self.point();
        let steps = self.history.steps();
        if self.started.is_some() && self.ended.is_none() {
            self.history.push(point);
        }
        self.summary = self.summarise(now);
        if went_on && self.ended.is_some() && self.started.is_some() {
            ended.push(Ended::All(self.summary.clone()));
        }
        let mut told = json!({ "summary": self.summary, "machines": changed });
        if self.history.steps() != steps {
            told["history"] = self.history.last();
        }
        let ids: Vec<u64> = self.reports.machines().map(|machine| machine.id).collect();
        told["count"] = ids.len().into();
        // Forgotten ones are rare: then the viewers begin anew.
        let copies = self.copies();
        if others || copies != self.copies {
            self.copies = copies;
            told["images"] = self.images();
        }
        self.tell(&event("delta", &told));
        ended
    }

    /// How machines have changed since this was asked last.
    pub(super) fn turns(&mut self) -> Vec<Turn> {
        std::mem::take(&mut self.turns)
    }

    /// Somebody looks from now on: first all there is, then every second what has changed. `None`
    /// if too many look already.
    pub(super) fn view(&mut self) -> Option<mpsc::Receiver<Bytes>> {
        self.viewers.retain(|viewer| !viewer.is_closed());
        if self.viewers.len() >= VIEWERS_MAX {
            return None;
        }
        let (viewer, events) = mpsc::channel(BEHIND_MAX);
        let snapshot = self.snapshot.take().unwrap_or_else(|| self.snapshot());
        // An empty channel has room for it.
        let _ = viewer.try_send(snapshot.clone());
        self.snapshot = Some(snapshot);
        self.viewers.push(viewer);
        Some(events)
    }

    fn snapshot(&self) -> Bytes {
        let machines: Vec<&Map<String, Value>> =
            self.reports.machines().map(|m| &m.shown).filter(|shown| !shown.is_empty()).collect();
        let all = json!({
            "summary": self.summary,
            "images": self.images(),
            "machines": machines,
            "history": self.history.describe(),
            "version": env!("CARGO_PKG_VERSION"),
        });
        event("snapshot", &all)
    }

    /// Every machine with all that is known of it, by its number.
    pub(super) fn machines(&self) -> Value {
        let mut machines: Vec<&Machine> = self.reports.machines().collect();
        machines.sort_by_key(|machine| machine.id);
        machines.into_iter().map(|machine| Value::Object(machine.describe())).collect()
    }

    /// The whole in a few numbers.
    pub(super) fn summary(&self) -> &Value {
        &self.summary
    }

    /// What is served, and how many copies of each of its sections the swarm has.
    pub(super) fn images(&self) -> Value {
        let images = self.around.images.iter().enumerate().map(|(index, image)| {
            let copies = self.copies.get(index);
            json!({
                "name": image.name,
                "info_hash": image.info_hash,
                "bytes": image.bytes,
                "pieces": image.pieces,
                "sent_bytes": image.sent_bytes,
                "copies": copies,
            })
        });
        images.collect()
    }

    /// Has machines do something from their next report on. Returns how many it concerns.
    ///
    /// # Errors
    /// What is wrong with the order, in words.
    pub(super) fn order(&mut self, order: &Value) -> Result<u64, &'static str> {
        let ids: Option<BTreeSet<u64>> = match &order["machines"] {
            Value::String(all) if all == "all" => None,
            Value::Array(ids) => {
                Some(ids.iter().map(Value::as_u64).collect::<Option<_>>().ok_or(WRONG_MACHINES)?)
            }
            _ => return Err(WRONG_MACHINES),
        };
        let limit = match &order["limit"] {
            Value::Null => None,
            limit => Some(limit.as_u64().filter(|&rate| rate > 0).ok_or(WRONG_LIMIT)?),
        };
        let action = order["action"].as_str().unwrap_or_default();
        if !["pause", "resume", "retry", "limit", "finish"].contains(&action) {
            return Err("`action` is pause, resume, retry, limit or finish");
        }
        let mut count = 0;
        let meant =
            |machine: &&mut Machine| ids.as_ref().is_none_or(|ids| ids.contains(&machine.id));
        for machine in self.reports.machines_mut().filter(meant) {
            let (facts, orders) = (&machine.facts, &mut machine.orders);
            match action {
                "retry" if facts.phase == Phase::Failed && facts.can_retry => orders.retries += 1,
                "retry" => continue,
                "pause" => orders.paused = true,
                "resume" => orders.paused = false,
                "limit" => orders.limit = limit,
                _ => orders.finish = true,
            }
            count += 1;
        }
        Ok(count)
    }

    fn measure_server(&mut self) {
        let sent = self.around.images.iter().map(|image| image.sent_bytes).sum::<u64>();
        let latest = sent.saturating_sub(self.server_sent) as f64;
        self.server_sent = sent;
        // As calm as the machines' rates.
        self.server_rate += (latest - self.server_rate) * 0.22;
    }

    fn note_time(&mut self, now: Instant) {
        if self.started.is_none() && self.reports.machines().next().is_some() {
            self.started = Some(now);
        }
        let over = self.reports.machines().all(|m| m.facts.phase.is_over());
        self.ended = if over { self.ended.or(Some(now)) } else { None };
    }

    fn point(&self) -> Point {
        let present = self.reports.machines().filter(|m| m.health != Health::Gone);
        let total: f64 = present.clone().map(|m| m.rate_in).sum();
        let at_it = present.filter(|m| m.facts.phase == Phase::Downloading).count();
        let machine = total / at_it.max(1) as f64;
        Point { machine, total, server: self.server_rate }
    }

    fn summarise(&self, now: Instant) -> Value {
        let machines = || self.reports.machines();
        let with = |health: Health| machines().filter(|m| m.health == health).count();
        let here = || machines().filter(|m| m.health != Health::Gone);
        let phase = |phase: Phase| machines().filter(|m| m.facts.phase == phase).count();
        let over = machines().filter(|m| m.facts.phase.is_over()).count();
        let wanted: u64 = machines().map(|m| m.facts.image_bytes).sum();
        let stored: u64 = machines().map(|m| m.facts.stored_bytes).sum();
        let elapsed = self.started.map(|start| self.ended.unwrap_or(now).duration_since(start));
        let mut links: Vec<u64> = machines().filter_map(|m| m.facts.link_mbit).collect();
        links.sort_unstable();
        let known: BTreeSet<&str> = machines().map(|m| m.addr.as_str()).collect();
        let strangers = self.around.announcers.iter().filter(|a| !known.contains(a.as_str()));
        json!({
            "machines": machines().count(),
            "working": machines().count() - over - with(Health::Gone),
            "checking": phase(Phase::Checking),
            "downloading": phase(Phase::Downloading),
            "flushing": phase(Phase::Flushing),
            "verifying": phase(Phase::Verifying),
            "done": phase(Phase::Done),
            "failed": phase(Phase::Failed),
            "slow": with(Health::Slow),
            "stuck": with(Health::Stuck),
            "gone": with(Health::Gone),
            "strangers": strangers.count(),
            "progress": (stored as f64 / wanted.max(1) as f64 * 1000.0).floor() / 1000.0,
            "rate_in": here().map(|m| m.rate_in).sum::<f64>().max(0.0) as u64,
            "server_rate": self.server_rate.max(0.0) as u64,
            "server_sent_bytes": self.server_sent,
            "server_peers": self.around.images.iter().map(|image| image.peers).sum::<u64>(),
            "server_link_mbit": self.around.link_mbit,
            "link_mbit": links.get(links.len() / 2),
            "eta_seconds": here().filter_map(Machine::eta).max(),
            "elapsed_seconds": elapsed.map(|elapsed| elapsed.as_secs()),
        })
    }

    /// How many copies of each section of each image are in the swarm; this server has one.
    fn copies(&self) -> Vec<Vec<f64>> {
        let here = || self.reports.machines().filter(|m| m.health != Health::Gone);
        let of = |image: &Image| {
            let mut fifteenths = vec![15_u64; MAP_LEN];
            for (hash, map) in here().flat_map(|machine| &machine.facts.maps) {
                if *hash == image.info_hash {
                    fifteenths.iter_mut().zip(map).for_each(|(sum, &part)| *sum += u64::from(part));
                }
            }
            fifteenths.into_iter().map(|sum| (sum as f64 / 1.5).round() / 10.0).collect()
        };
        self.around.images.iter().map(of).collect()
    }

    fn tell(&mut self, event: &Bytes) {
        self.viewers.retain(|viewer| viewer.try_send(event.clone()).is_ok());
    }
}

const WRONG_MACHINES: &str = "`machines` is \"all\" or a list of the machines' ids";
const WRONG_LIMIT: &str = "`limit` is a number of bytes a second, or null for none";

/// How long a machine fares better or worse before it is told: at the edge it changes every second.
const TURN_TIME: Duration = Duration::from_secs(5);

/// Whether the machine fares better or worse than was told; its end is told elsewhere.
fn turn(machine: &mut Machine, now: Instant) -> Option<Turn> {
    let health = machine.health;
    let settled = now.duration_since(machine.health_since) >= TURN_TIME;
    // To be gone or stuck takes ten seconds anyway.
    if health == machine.health_told || !settled && matches!(health, Health::Fine | Health::Slow) {
        return None;
    }
    let before = std::mem::replace(&mut machine.health_told, health);
    let (name, addr) = (&machine.facts.host, &machine.addr);
    let over = before == Health::Failed || machine.facts.phase.is_over();
    match health {
        Health::Failed => None,
        Health::Fine if over => None,
        Health::Fine => {
            tracing::info!(machine = %name, %addr, "a machine gets along again");
            Some(Turn(format!("{name} ({addr}) gets along again")))
        }
        Health::Slow | Health::Stuck | Health::Gone => {
            let (health, reason) = (health.name(), &machine.reason);
            tracing::warn!(machine = %name, %addr, reason, "a machine is {health}");
            Some(Turn(format!("{name} ({addr}) is {health}: {reason}")))
        }
    }
}

fn log_end(machine: &Machine) {
    let (facts, addr) = (&machine.facts, &machine.addr);
    let (host, device) = (&facts.host, &facts.device);
    if facts.phase == Phase::Failed {
        let error = &facts.error;
        tracing::error!(machine = %host, %addr, %device, %error, "a machine has failed");
    } else {
        let (seconds, bytes) = (facts.seconds, facts.stored_bytes);
        tracing::info!(machine = %host, %addr, %device, seconds, bytes, "a machine is done");
    }
}

/// What has changed of a machine since it was last told, with its id; nothing if nothing has.
fn difference(machine: &mut Machine) -> Option<Value> {
    let new = machine.describe();
    let mut changed: Map<String, Value> =
        new.iter().filter(|(key, value)| machine.shown.get(*key) != Some(value)).map(own).collect();
    if changed.is_empty() {
        return None;
    }
    changed.insert("id".into(), machine.id.into());
    machine.shown = new;
    Some(changed.into())
}

fn own((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

/// An event as browsers know it: a JSON text has no line ends.
fn event(name: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests;
