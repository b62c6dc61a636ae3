//! How far a work is: bars, lines, or events. Whoever works counts bytes; a thread looks.

use super::{Ui, bar, print_line, show_eta, to_people};
use crate::logs;
use indicatif::ProgressBar;
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use swarm::units::{Bytes, Rate};

/// A work in progress; its display ends when this is dropped.
pub struct Progress {
    /// Bytes done of the first part, counted up by whoever works.
    pub done: Arc<AtomicU64>,
    parts: Vec<Part>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// One of the works that are shown together: a target. Clones are the same part.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it is called; empty if it is all there is.
    name: Arc<str>,
    done: Arc<AtomicU64>,
    state: Arc<Mutex<State>>,
}

/// What is done to a part, beside the bytes.
#[derive(Clone, Copy, Debug)]
struct State {
    phase: &'static str,
    total: u64,
    peers: Option<u32>,
}

impl Part {
    /// A part of `total` bytes to which `phase` is done.
    #[must_use]
    pub fn new(name: String, phase: &'static str, total: u64) -> Part {
        let state = State { phase, total, peers: None };
        Part { name: name.into(), done: Arc::default(), state: Arc::new(Mutex::new(state)) }
    }

    /// From now on `phase` is done to it, and `done` of `total` bytes are through.
    pub fn set(&self, phase: &'static str, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        let mut state = self.lock();
        (state.phase, state.total) = (phase, total);
    }

    /// With how many others it is connected.
    pub fn peers(&self, peers: u32) {
        self.lock().peers = Some(peers);
    }

    /// Bytes done, for who counts them up.
    #[must_use]
    pub fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.done)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    pub(super) fn start(ui: Ui, parts: Vec<Part>) -> Progress {
        let done = parts.first().map(Part::counter).unwrap_or_default();
        let meter = Meter::new(parts.clone(), Instant::now());
        let (stop, stopped) = mpsc::channel();
        let thread = (!ui.quiet).then(|| {
            let name = thread::Builder::new().name("progress".into());
            name.spawn(move || meter.show(ui, &stopped)).ok()
        });
        Progress { done, parts, stop: Some(stop), thread: thread.flatten() }
    }

    /// The part with this number, as it was given.
    #[must_use]
    pub fn part(&self, index: usize) -> &Part {
        &self.parts[index]
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How often a bar moves, and how often a line is printed where there is no terminal.
const BAR_PERIOD: Duration = Duration::from_millis(200);
pub(super) const LINE_PERIOD: Duration = Duration::from_secs(5);
pub(super) const JSON_PERIOD: Duration = Duration::from_secs(1);

/// A log is read afterwards.
pub(super) const LOG_PERIOD: Duration = Duration::from_secs(30);

/// Rates are means over about so long.
const RATE_TIME: f64 = 5.0;

/// Looks at parts and shows them.
struct Meter {
    gauges: Vec<Gauge>,
}

/// A part, and how fast it is.
struct Gauge {
    part: Part,
    phase: &'static str,
    at: Instant,
    since: Instant,
    bytes: u64,
    rate: f64,
}

/// What a look at a part has found.
#[derive(Clone, Copy, Debug)]
struct Seen {
    state: State,
    done: u64,
    /// Bytes a second, and seconds left at that rate.
    rate: u64,
    eta: Option<u64>,
}

impl Gauge {
    fn new(part: Part, now: Instant) -> Gauge {
        let (phase, bytes) = (part.lock().phase, part.done.load(Ordering::Relaxed));
        Gauge { part, phase, at: now, since: now, bytes, rate: 0.0 }
    }

    fn look(&mut self, now: Instant) -> Seen {
        let state = *self.part.lock();
        let done = self.part.done.load(Ordering::Relaxed).min(state.total);
        if state.phase != self.phase || done < self.bytes {
            // Another work, with a pace of its own.
            *self = Gauge::new(self.part.clone(), now);
        }
        let time = now.duration_since(self.at).as_secs_f64();
        if time >= 0.05 {
            // A float's 53 bits are enough for people. At first the mean of what there is.
            let latest = (done - self.bytes.min(done)) as f64 / time;
            let known = now.duration_since(self.since).as_secs_f64();
            let weight = (1.0 - (-time / RATE_TIME).exp()).max(time / known);
            self.rate += weight * (latest - self.rate);
            (self.at, self.bytes) = (now, done);
        }
        let rate = self.rate.max(0.0) as u64;
        let eta = (state.total - done).checked_div(rate);
        Seen { state, done, rate, eta }
    }
}

impl Meter {
    fn new(parts: Vec<Part>, now: Instant) -> Meter {
        Meter { gauges: parts.into_iter().map(|part| Gauge::new(part, now)).collect() }
    }

    fn look(&mut self, now: Instant) -> Vec<Seen> {
        self.gauges.iter_mut().map(|gauge| gauge.look(now)).collect()
    }

    fn show(mut self, ui: Ui, stopped: &mpsc::Receiver<()>) {
        if ui.draws() {
            return self.bars(stopped);
        }
        let period = match ui.json {
            true => JSON_PERIOD,
            false if logs::has_stderr() => LOG_PERIOD,
            false => LINE_PERIOD,
        };
        while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
            let seen = self.look(Instant::now());
            if ui.json {
                print_line(&self.event(&seen).to_string());
            } else {
                for (gauge, seen) in self.gauges.iter().zip(&seen) {
                    let line = seen.line(&gauge.part.name);
                    if logs::has_stderr() { tracing::info!("{line}") } else { to_people(&line) }
                }
            }
        }
    }

    fn bars(&mut self, stopped: &mpsc::Receiver<()>) {
        let make = |_: &Gauge| bar("{msg} {wide_bar} {percent:>3}%  {prefix}", 1);
        let bars: Vec<ProgressBar> = self.gauges.iter().map(make).collect();
        while stopped.recv_timeout(BAR_PERIOD) == Err(RecvTimeoutError::Timeout) {
            let seen = self.look(Instant::now());
            for ((bar, gauge), seen) in bars.iter().zip(&self.gauges).zip(&seen) {
                bar.set_length(seen.state.total.max(1));
                bar.set_message(named(seen.state.phase, &gauge.part.name));
                bar.set_prefix(seen.pace().join("  "));
                bar.set_position(seen.done);
            }
        }
        bars.iter().for_each(ProgressBar::finish_and_clear);
    }

    /// All of it, and where there are names each part. What is last decides when it is over.
    fn event(&self, seen: &[Seen]) -> Value {
        let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
        let open = |seen: &&Seen| seen.done < seen.state.total;
        let phase = seen.iter().find(open).or(seen.last()).map(|seen| seen.state.phase);
        let eta = seen.iter().filter(open).map(|seen| seen.eta).max();
        let unknown = seen.iter().filter(open).any(|seen| seen.eta.is_none());
        let mut event = json!({
            "event": "progress", "phase": phase, "bytes": sum(|s| s.done),
            "total": sum(|s| s.state.total), "bytes_per_second": sum(|s| s.rate),
            "eta_seconds": eta.flatten().filter(|_| !unknown),
        });
        if seen.iter().any(|seen| seen.state.peers.is_some()) {
            event["peers"] = sum(|s| s.state.peers.unwrap_or(0).into()).into();
        }
        let named = self.gauges.iter().zip(seen).filter(|(gauge, _)| !gauge.part.name.is_empty());
        let targets: Vec<Value> = named.map(|(g, seen)| seen.describe(&g.part.name)).collect();
        if !targets.is_empty() {
            event["targets"] = targets.into();
        }
        event
    }
}

impl Seen {
    fn describe(&self, name: &str) -> Value {
        let mut map = Map::new();
        map.insert("target".into(), name.into());
        map.insert("phase".into(), self.state.phase.into());
        map.insert("bytes".into(), self.done.into());
        map.insert("total".into(), self.state.total.into());
        map.insert("bytes_per_second".into(), self.rate.into());
        map.insert("eta_seconds".into(), self.eta.into());
        map.insert("peers".into(), self.state.peers.into());
        map.into()
    }

    fn line(&self, name: &str) -> String {
        let percent = u128::from(self.done) * 100 / u128::from(self.state.total.max(1));
        let (what, total) = (named(self.state.phase, name), Bytes(self.state.total));
        let pace = self.pace();
        let pace = if pace.is_empty() { String::new() } else { format!(", {}", pace.join(", ")) };
        format!("{what}: {percent}% of {total}{pace}")
    }

    /// Rate, time left, peers: as much as has a meaning now.
    fn pace(&self) -> Vec<String> {
        let mut pace = Vec::new();
        if self.done < self.state.total {
            pace.push(Rate(self.rate).to_string());
            pace.push(format!("{} left", show_eta(self.eta)));
        }
        pace.extend(self.state.peers.map(count_of_peers));
        pace
    }
}

/// `1 peer`, `2 peers`.
pub(super) fn count_of_peers(peers: u32) -> String {
    format!("{peers} {}", if peers == 1 { "peer" } else { "peers" })
}

fn named(phase: &str, name: &str) -> String {
    if name.is_empty() { phase.to_owned() } else { format!("{phase} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_and_time_left() {
        let start = Instant::now();
        let part = Part::new(String::new(), "read", 40_000_000);
        let mut meter = Meter::new(vec![part.clone()], start);
        assert_eq!(meter.look(start)[0].eta, None);
        part.set("read", 10_000_000, 40_000_000);
        let seen = meter.look(start + Duration::from_secs(10));
        assert_eq!((seen[0].rate, seen[0].eta), (1_000_000, Some(30)));
        assert_eq!(seen[0].line(""), "read: 25% of 38.1 MiB, 1 MB/s, 30s left");
        part.peers(1);
        let line = meter.look(start + Duration::from_secs(10))[0].line("sda1");
        assert_eq!(line, "read sda1: 25% of 38.1 MiB, 1 MB/s, 30s left, 1 peer");
    }

    #[test]
    fn a_rate_follows_what_happens_now_and_begins_anew_with_a_phase() {
        let start = Instant::now();
        let part = Part::new("a".into(), "downloading", 1_000_000_000);
        let mut meter = Meter::new(vec![part.clone()], start);
        let at = |second: u64| start + Duration::from_secs(second);
        for second in 1..=20 {
            part.set("downloading", second * 10_000_000, 1_000_000_000);
            meter.look(at(second));
        }
        for second in 21..=40 {
            meter.look(at(second));
        }
        let rate = meter.look(at(41))[0].rate;
        assert!(rate < 300_000, "it stands: {rate}");
        part.set("verifying", 0, 500);
        meter.look(at(41));
        part.set("verifying", 100, 500);
        let seen = meter.look(at(42));
        assert_eq!((seen[0].rate, seen[0].eta), (100, Some(4)));
    }

    #[test]
    fn an_event_tells_of_all_and_of_each() {
        let start = Instant::now();
        let parts = ["a", "b"].map(|name| Part::new(name.into(), "downloading", 100));
        let mut meter = Meter::new(parts.to_vec(), start);
        parts[0].set("flushing", 100, 100);
        meter.look(start);
        parts[1].set("downloading", 50, 100);
        parts[1].peers(3);
        let seen = meter.look(start + Duration::from_secs(1));
        let event = meter.event(&seen);
        let all = (&event["phase"], &event["bytes"], &event["eta_seconds"], &event["peers"]);
        assert_eq!(all, (&json!("downloading"), &json!(150), &json!(1), &json!(3)));
        assert_eq!(event["targets"][0]["phase"], "flushing");
        assert_eq!(
            (&event["targets"][1]["target"], &event["targets"][1]["bytes"]),
            (&json!("b"), &json!(50))
        );
    }
}
