//! One machine of the fleet: what it reported last, the rates that follow, and what it shall do.
//!
//! A report is a stranger's JSON. What has another type than it should is taken as absent, texts
//! are cut, numbers are bounded: nothing here can be made large.

use super::diagnosis::Health;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// Characters of a text in a report, and of an error, which may name several devices.
const TEXT_LEN_MAX: usize = 128;
const ERROR_LEN_MAX: usize = 1000;

/// Sections of an image in a report's `map`: what a screen can show.
pub(in crate::control) const MAP_LEN: usize = 128;

/// Images of one machine.
const IMAGES_MAX: usize = 32;

/// Rates are means over about so long: as fast as people look, as calm as they like it.
const RATE_TIME: Duration = Duration::from_secs(3);

/// Less is a mean that runs out.
const RATE_MIN: f64 = 100_000.0;

/// What a machine does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::control) enum Phase {
    /// Looks which pieces are there already.
    Checking,
    #[default]
    Downloading,
    /// All is written; the device brings it to the medium.
    Flushing,
    /// Reads everything again.
    Verifying,
    Done,
    Failed,
}

impl Phase {
    pub(in crate::control) const ALL: [Phase; 6] = [
        Phase::Checking,
        Phase::Downloading,
        Phase::Flushing,
        Phase::Verifying,
        Phase::Done,
        Phase::Failed,
    ];

    pub(in crate::control) fn name(self) -> &'static str {
        match self {
            Phase::Checking => "checking",
            Phase::Downloading => "downloading",
            Phase::Flushing => "flushing",
            Phase::Verifying => "verifying",
            Phase::Done => "done",
            Phase::Failed => "failed",
        }
    }

    /// Whether nothing more is to come of it.
    pub(in crate::control) fn is_over(self) -> bool {
        matches!(self, Phase::Done | Phase::Failed)
    }
}

/// What a report says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::control) struct Facts {
    pub(super) host: String,
    /// Names the process: another one begins anew.
    pub(super) run: String,
    pub(super) image: String,
    pub(super) device: String,
    pub(super) model: String,
    /// Of the machine, and of its disk.
    pub(super) serial: String,
    pub(super) disk_serial: String,
    pub(super) mac: String,
    pub(super) interface: String,
    /// Speed of the link in Mbit/s, as the kernel says; `None` if it does not.
    pub(super) link_mbit: Option<u64>,
    pub(super) half_duplex: bool,
    pub(super) phase: Phase,
    /// Of the phase, 0 to 1.
    pub(super) progress: f64,
    pub(super) paused: bool,
    pub(super) error: String,
    /// Since the start until now, or until the image was on the medium.
    pub(super) seconds: f64,
    pub(super) image_bytes: u64,
    pub(super) stored_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    /// Verified and not yet written.
    pub(super) waiting_bytes: u64,
    /// What may wait at the most, about.
    pub(super) memory_bytes: u64,
    pub(super) peers: u64,
    /// Missing pieces that no peer has.
    pub(super) nowhere: u64,
    pub(super) read_again: bool,
    /// Waits after a failure for the order to try again.
    pub(super) can_retry: bool,
    pub(super) limit: Option<u64>,
    /// For each image, by its info-hash: how much of each section is there, in fifteenths.
    pub(super) maps: Vec<(String, Vec<u8>)>,
}

impl Facts {
    pub(in crate::control) fn parse(report: &Value) -> Facts {
        let text = |key: &str| clipped(&report[key], TEXT_LEN_MAX);
        let number = |key: &str| report[key].as_u64().unwrap_or(0).min(NUMBER_MAX);
        let torrents = report["torrents"].as_array().map_or(&[][..], Vec::as_slice);
        let torrents = torrents.iter().take(IMAGES_MAX);
        let names: Vec<_> = torrents.clone().map(|t| clipped(&t["name"], TEXT_LEN_MAX)).collect();
        let sum = |key: &str| {
            let values = torrents.clone().map(|t| t[key].as_u64().unwrap_or(0).min(NUMBER_MAX));
            values.fold(0, u64::saturating_add)
        };
        let mut host = text("host");
        if host.is_empty() {
            host = text("node");
        }
        let phase = Phase::ALL.into_iter().find(|phase| report["phase"] == phase.name());
        Facts {
            host,
            run: text("run"),
            image: clipped(&names.join(", ").into(), TEXT_LEN_MAX),
            device: text("device"),
            model: text("model"),
            serial: text("serial"),
            disk_serial: text("disk_serial"),
            mac: text("mac"),
            interface: text("interface"),
            link_mbit: Some(number("link_mbit")).filter(|&mbit| mbit > 0),
            half_duplex: report["half_duplex"] == true,
            phase: phase.unwrap_or_default(),
            progress: report["progress"].as_f64().unwrap_or(0.0).clamp(0.0, 1.0),
            paused: report["paused"] == true,
            error: clipped(&report["error"], ERROR_LEN_MAX),
            seconds: report["seconds"].as_f64().unwrap_or(0.0).clamp(0.0, SECONDS_MAX),
            image_bytes: sum("image_bytes"),
            stored_bytes: sum("stored_bytes"),
            received_bytes: sum("received_bytes"),
            sent_bytes: sum("sent_bytes"),
            waiting_bytes: sum("waiting_bytes"),
            memory_bytes: number("memory_bytes"),
            peers: sum("peers"),
            nowhere: sum("nowhere"),
            read_again: report["read_again"] == true,
            can_retry: report["can_retry"] == true,
            limit: Some(number("limit")).filter(|&rate| rate > 0),
            maps: torrents.filter_map(map).collect(),
        }
    }
}

/// Larger is no number of bytes, and sums of these are exact in JavaScript's numbers.
const NUMBER_MAX: u64 = 1 << 50;

/// Ten years.
const SECONDS_MAX: f64 = 3.2e8;

fn clipped(value: &Value, len_max: usize) -> String {
    value.as_str().unwrap_or_default().chars().take(len_max).collect()
}

fn map(torrent: &Value) -> Option<(String, Vec<u8>)> {
    let hash = clipped(&torrent["info_hash"], 40);
    let digits = torrent["map"].as_str()?.chars().take(MAP_LEN);
    let parts: Option<Vec<u8>> = digits.map(|c| Some(c.to_digit(16)? as u8)).collect();
    Some((hash, parts?)).filter(|(_, parts)| parts.len() == MAP_LEN)
}

/// What a machine was told to do. All of it is repeated with every answer: one may be lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::control) struct Orders {
    pub(in crate::control) paused: bool,
    pub(in crate::control) limit: Option<u64>,
    /// To end when the image is on the medium, without serving others.
    pub(in crate::control) finish: bool,
    /// How often it was told to try again.
    pub(in crate::control) retries: u64,
}

impl Orders {
    /// As the answer to a report.
    pub(super) fn answer(&self) -> Value {
        let mut answer = Map::new();
        if *self != Orders::default() {
            answer.insert("paused".into(), self.paused.into());
            answer.insert("limit".into(), self.limit.into());
            answer.insert("finish".into(), self.finish.into());
            answer.insert("retries".into(), self.retries.into());
        }
        answer.into()
    }
}

/// A machine, as the server knows it.
#[derive(Debug)]
pub(in crate::control) struct Machine {
    pub(super) id: u64,
    pub(super) addr: String,
    pub(super) facts: Facts,
    pub(super) orders: Orders,
    pub(super) seen: Instant,
    /// When the image last grew, or the phase changed.
    pub(super) moved: Instant,
    pub(super) rate_in: f64,
    pub(super) rate_out: f64,
    /// Of writing to the disk.
    pub(super) rate_stored: f64,
    pub(super) health: Health,
    /// Since when it is so, and what was told of it last to who runs the server.
    pub(super) health_since: Instant,
    pub(super) health_told: Health,
    pub(super) reason: String,
    /// What was last told to those who look.
    pub(super) shown: Map<String, Value>,
    /// Whether its end was told, if it has come to one.
    pub(super) end_told: bool,
}

impl Machine {
    pub(in crate::control) fn new(id: u64, addr: String, facts: Facts, now: Instant) -> Machine {
        Machine {
            id,
            addr,
            facts,
            orders: Orders::default(),
            seen: now,
            moved: now,
            rate_in: 0.0,
            rate_out: 0.0,
            rate_stored: 0.0,
            health: Health::Fine,
            health_since: now,
            health_told: Health::Fine,
            reason: String::new(),
            shown: Map::new(),
            end_told: false,
        }
    }

    /// What its report is answered: an object, `{}` if there is nothing to do.
    pub(in crate::control) fn answer(&self) -> Value {
        self.orders.answer()
    }

    /// Takes a new report of it.
    pub(in crate::control) fn take(&mut self, facts: Facts, now: Instant) {
        if facts.run != self.facts.run {
            self.orders = Orders::default();
            self.end_told = false;
        }
        let time = now.duration_since(self.seen).as_secs_f64().max(0.05);
        let weight = 1.0 - (-time / RATE_TIME.as_secs_f64()).exp();
        let rests = facts.paused || facts.phase.is_over();
        let mean = |rate: &mut f64, before: u64, after: u64| {
            // A process that began anew counts from zero. A float's 53 bits are enough for people.
            let latest = after.saturating_sub(before) as f64 / time;
            *rate += weight * (latest - *rate);
            if latest == 0.0 && (rests || *rate < RATE_MIN) {
                *rate = 0.0;
            }
        };
        let old = &self.facts;
        mean(&mut self.rate_in, old.received_bytes, facts.received_bytes);
        mean(&mut self.rate_out, old.sent_bytes, facts.sent_bytes);
        mean(&mut self.rate_stored, old.stored_bytes, facts.stored_bytes);
        let moved = facts.received_bytes != old.received_bytes
            || facts.stored_bytes != old.stored_bytes
            || facts.phase != old.phase
            || facts.paused
            || facts.progress > old.progress;
        if moved {
            self.moved = now;
        }
        self.facts = facts;
        self.seen = now;
    }

    /// Of all its work: what is on the medium.
    pub(super) fn progress(&self) -> f64 {
        match self.facts.phase {
            Phase::Done => 1.0,
            Phase::Checking | Phase::Verifying => self.facts.progress,
            _ => self.facts.stored_bytes as f64 / self.facts.image_bytes.max(1) as f64,
        }
        .clamp(0.0, 1.0)
    }

    /// Seconds until its image is there, at the present rate.
    pub(super) fn eta(&self) -> Option<u64> {
        let left = self.facts.image_bytes.saturating_sub(self.facts.stored_bytes) as f64;
        let rate = self.rate_in.min(self.rate_stored.max(self.rate_in / 2.0));
        let moving = self.facts.phase == Phase::Downloading && rate > 1000.0;
        (moving && self.health != Health::Gone).then_some((left / rate) as u64)
    }

    /// Bytes a second on average over all of its time.
    pub(super) fn average(&self) -> u64 {
        (self.facts.image_bytes.min(self.facts.stored_bytes) as f64 / self.facts.seconds.max(0.1))
            as u64
    }

    /// All that is known, for those who look. The keys are those of `openapi.json`.
    pub(super) fn describe(&self) -> Map<String, Value> {
        let facts = &self.facts;
        let gone = self.health == Health::Gone;
        let rate = |rate: f64| if gone { 0 } else { three_digits(rate) };
        let Value::Object(map) = json!({
            "id": self.id,
            "host": facts.host,
            "addr": self.addr,
            "image": facts.image,
            "device": facts.device,
            "model": facts.model,
            "serial": facts.serial,
            "disk_serial": facts.disk_serial,
            "mac": facts.mac,
            "interface": facts.interface,
            "link_mbit": facts.link_mbit,
            "phase": facts.phase.name(),
            "progress": (self.progress() * 1000.0).floor() / 1000.0,
            "paused": facts.paused,
            "health": self.health.name(),
            "reason": self.reason,
            "error": facts.error,
            "seconds": facts.seconds.floor(),
            "image_bytes": facts.image_bytes,
            "stored_bytes": facts.stored_bytes,
            "received_bytes": facts.received_bytes,
            "sent_bytes": facts.sent_bytes,
            "rate_in": rate(self.rate_in),
            "rate_out": rate(self.rate_out),
            "average": self.average(),
            "eta_seconds": self.eta(),
            "peers": facts.peers,
            "waiting_bytes": facts.waiting_bytes,
            "verified": facts.phase == Phase::Done,
            "read_again": facts.read_again && facts.phase == Phase::Done,
            "can_retry": facts.can_retry,
            "limit": facts.limit,
            "orders": {
                "paused": self.orders.paused,
                "limit": self.orders.limit,
                "finish": self.orders.finish,
                "retries": self.orders.retries,
            },
        }) else {
            return Map::new();
        };
        map
    }
}

/// Nobody reads more of a rate, and what does not change is not sent.
fn three_digits(rate: f64) -> u64 {
    let rate = rate.max(0.0) as u64;
    let unit = 10_u64.pow(rate.max(1).ilog10().saturating_sub(2));
    rate / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_report_holds_stays_small() {
        let long = "x".repeat(60_000);
        let wrong = json!({
            "node": 7, "host": long, "device": ["a"], "phase": "eating", "progress": "all",
            "link_mbit": -1, "seconds": 1e300, "error": long, "torrents": {"a": 1},
        });
        let facts = Facts::parse(&wrong);
        assert_eq!((facts.host.len(), facts.error.len()), (TEXT_LEN_MAX, ERROR_LEN_MAX));
        assert_eq!((facts.phase, facts.link_mbit), (Phase::Downloading, None));
        assert_eq!(facts.seconds, SECONDS_MAX);
        let many = json!({"torrents": vec![json!({"image_bytes": u64::MAX, "map": long}); 900]});
        let facts = Facts::parse(&many);
        assert_eq!(facts.image_bytes, NUMBER_MAX * IMAGES_MAX as u64);
        assert!(facts.maps.is_empty());
        assert_eq!(Facts::parse(&json!([])), Facts::default());
    }

    #[test]
    fn rates_settle_at_what_is_reported_and_fall_when_it_begins_anew() {
        let start = Instant::now();
        let facts = |bytes: u64| Facts {
            image_bytes: 1000 << 20,
            received_bytes: bytes,
            stored_bytes: bytes,
            ..Facts::default()
        };
        let mut machine = Machine::new(1, "10.0.0.1".into(), facts(0), start);
        for second in 1..=40 {
            machine.take(facts(second << 20), start + Duration::from_secs(second));
        }
        let rate = machine.describe()["rate_in"].as_u64().unwrap();
        assert!((1_040_000..=1_048_576).contains(&rate), "{rate}");
        assert_eq!(machine.eta(), Some(960));
        machine.take(facts(0), start + Duration::from_secs(41));
        assert!(machine.rate_in < 1_000_000.0 && machine.rate_in > 0.0);
    }

    #[test]
    fn rates_have_three_digits() {
        let shown = [0.0, 0.4, 9.0, 123.0, 1234.0, 98_765_432.0, -5.0].map(three_digits);
        assert_eq!(shown, [0, 0, 9, 123, 1230, 98_700_000, 0]);
    }
}
