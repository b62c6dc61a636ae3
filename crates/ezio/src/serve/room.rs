//! What the machines do, for the terminal of who serves. The control thread puts it here and never
//! waits; the main thread tells it.

use crate::control::{Ended, Turn};
use crate::ui::{Ui, show_eta};
use serde_json::Value;
use std::sync::{Mutex, MutexGuard, PoisonError};
use swarm::units::{Bytes, Rate, Seconds};

/// How the machines are, and what of it was not told yet.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    summary: Value,
    /// For people, and for scripts as they are posted to webhooks.
    news: Vec<(Option<String>, Option<Value>)>,
}

/// News that wait; a terminal that is stopped must not make this process grow.
const NEWS_MAX: usize = 1024;

/// Of `/api/summary`: what programs get.
pub(super) const COUNTS: [&str; 9] =
    ["machines", "working", "done", "failed", "slow", "stuck", "gone", "progress", "eta_seconds"];

impl Room {
    /// A machine, or all of them, have come to an end.
    pub(super) fn ended(&self, ended: &Ended) {
        self.push(Some(end(ended)), Some(ended.describe()));
    }

    /// The fleet is so, and this has changed.
    pub(super) fn looked(&self, summary: &Value, turns: Vec<Turn>) {
        turns.into_iter().for_each(|turn| self.push(Some(turn.0), None));
        self.lock().summary = summary.clone();
    }

    /// The fleet in a few numbers, as in `/api/summary`.
    pub(super) fn summary(&self) -> Value {
        self.lock().summary.clone()
    }

    /// Tells what was not told yet.
    pub(super) fn tell(&self, ui: Ui) {
        let news = std::mem::take(&mut self.lock().news);
        for (text, event) in news {
            match (text, event) {
                (_, Some(event)) if ui.json => ui.event(&event),
                (Some(text), _) => ui.tell(&text),
                _ => {}
            }
        }
    }

    fn push(&self, text: Option<String>, event: Option<Value>) {
        let mut inner = self.lock();
        if inner.news.len() < NEWS_MAX {
            inner.news.push((text, event));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end(ended: &Ended) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    match ended {
        Ended::Machine(machine) => {
            let (host, addr) = (text(&machine["host"]), text(&machine["addr"]));
            let device = text(&machine["device"]);
            if machine["phase"] == "failed" {
                return format!("{host} ({addr}) has failed: {}", text(&machine["error"]));
            }
            // Whole seconds.
            let seconds = Seconds(machine["seconds"].as_f64().unwrap_or(0.0) as u64);
            let (bytes, rate) = (number(&machine["stored_bytes"]), number(&machine["average"]));
            let (bytes, rate) = (Bytes(bytes), Rate(rate));
            format!("{host} ({addr}) is done: {bytes} on {device} in {seconds}, {rate}")
        }
        Ended::All(summary) => {
            let (done, all) = (number(&summary["done"]), number(&summary["machines"]));
            let (failed, seconds) =
                (number(&summary["failed"]), number(&summary["elapsed_seconds"]));
            let time = Seconds(seconds);
            format!("all machines have ended: {done} of {all} done, {failed} failed, in {time}")
        }
    }
}

/// `3 of 32 machines done, 1 failed, 2 need a look, 62%, 6m left`; nothing while there is none.
pub(crate) fn describe(summary: &Value) -> String {
    let count = |key: &str| summary[key].as_u64().unwrap_or(0);
    let (machines, done, failed) = (count("machines"), count("done"), count("failed"));
    if machines == 0 {
        return String::new();
    }
    let mut text = format!("{done} of {machines} machines done");
    let need = count("slow") + count("stuck") + count("gone");
    if failed > 0 {
        text += &format!(", {failed} failed");
    }
    if need > 0 {
        text += &format!(", {need} need a look");
    }
    if done + failed < machines {
        // A part of a whole, for people.
        let percent = (summary["progress"].as_f64().unwrap_or(0.0) * 100.0) as u64;
        text += &format!(", {percent}%, {} left", show_eta(summary["eta_seconds"].as_u64()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_room_is_described_in_a_line() {
        let check = |summary: Value, wanted: &str| assert_eq!(describe(&summary), wanted);
        check(json!({}), "");
        let some = json!({"machines": 4, "done": 1, "failed": 1, "slow": 1, "gone": 1,
            "progress": 0.625, "eta_seconds": 75});
        check(some, "1 of 4 machines done, 1 failed, 2 need a look, 62%, 1m15s left");
        check(json!({"machines": 2, "done": 2}), "2 of 2 machines done");
    }

    #[test]
    fn ends_are_told_in_words() {
        let done = json!({"host": "a", "addr": "10.0.0.1", "device": "/dev/sda", "phase": "done",
            "seconds": 34.0, "stored_bytes": 1 << 30, "average": 90_000_000});
        let told = end(&Ended::Machine(done));
        assert_eq!(told, "a (10.0.0.1) is done: 1 GiB on /dev/sda in 34s, 90 MB/s");
        let failed = json!({"host": "a", "addr": "x", "phase": "failed", "error": "no space"});
        assert_eq!(end(&Ended::Machine(failed)), "a (x) has failed: no space");
    }
}
