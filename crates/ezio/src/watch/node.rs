//! A daemon's torrents, as `ezio_ui.py` shows them.

use super::source::News;
use crate::legacy::messages::{Everything, Torrent};
use crate::legacy::view::{View, Wish};
use crate::screen::Key;
use crate::ui::{printable, show_eta};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use swarm::units::Rate;

/// What is known of a daemon.
pub(super) struct Shown {
    addr: String,
    view: View,
    torrents: Vec<Torrent>,
    /// Why torrents failed, by their hash.
    errors: BTreeMap<String, String>,
    /// Why it does not answer, and since when.
    lost: Option<(String, Instant)>,
    lost_told: bool,
    /// What was told last of each torrent, and when.
    told: BTreeMap<String, (Value, Instant)>,
    news: Vec<Value>,
}

/// How often a line tells that a torrent has come further.
const LINE_PERIOD: Duration = Duration::from_secs(5);

impl Shown {
    pub(super) fn new(addr: &str) -> Shown {
        Shown {
            addr: addr.to_owned(),
            view: View::default(),
            torrents: Vec::new(),
            errors: BTreeMap::new(),
            lost: None,
            lost_told: false,
            told: BTreeMap::new(),
            news: Vec::new(),
        }
    }

    fn take_all(&mut self, all: Everything) {
        if self.lost.take().is_some() && std::mem::take(&mut self.lost_told) {
            self.news.push(json!({"event": "found", "addr": self.addr}));
        }
        let mut status = all.status.unwrap_or_default();
        let hashes = std::mem::take(&mut status.hashes);
        self.torrents = hashes.iter().filter_map(|hash| status.torrents.remove(hash)).collect();
        let details = all.details.unwrap_or_default().torrents;
        let failed = details.into_iter().filter(|detail| !detail.error.is_empty());
        self.errors = failed.map(|detail| (detail.hash, detail.error)).collect();
    }
}

impl super::Shown for Shown {
    fn take(&mut self, news: News) {
        match news {
            News::Status(all) => self.take_all(*all),
            News::Lost(why) => {
                let since = self.lost.as_ref().map_or_else(Instant::now, |lost| lost.1);
                self.lost = Some((why, since));
            }
            News::Event(..) | News::Refused(_) => {}
        }
    }

    fn press(&mut self, key: Key) -> bool {
        self.view.press(key) == Wish::Quit
    }

    fn draw(&self, (columns, rows): (usize, usize)) -> Vec<String> {
        let first = match &self.lost {
            None => format!("daemon {}  (q quit, h help)", self.addr),
            Some((why, since)) => {
                let seconds = since.elapsed().as_secs();
                let addr = &self.addr;
                printable(&format!("{addr} does not answer for {seconds} s, trying again: {why}"))
            }
        };
        let mut lines = vec![first.chars().take(columns).collect()];
        if rows > 1 {
            lines.extend(self.view.draw(&self.torrents, &self.errors, (columns, rows - 1)));
        }
        lines
    }

    fn lines(&mut self) -> Vec<String> {
        let told = self.told.clone();
        let is_due = |event: &Value| {
            let before = told.get(event["hash"].as_str().unwrap_or_default());
            before.is_none_or(|(before, at)| {
                let turned = ["finished", "paused", "error"].iter().any(|k| before[k] != event[k]);
                turned || at.elapsed() >= LINE_PERIOD
            })
        };
        self.changes(is_due).iter().map(line).map(|line| printable(&line)).collect()
    }

    fn events(&mut self) -> Vec<Value> {
        self.changes(|_| true)
    }
}

impl Shown {
    /// What is new, as far as it `is_due`.
    fn changes(&mut self, is_due: impl Fn(&Value) -> bool) -> Vec<Value> {
        if let (Some((why, _)), false) = (&self.lost, self.lost_told) {
            self.lost_told = true;
            self.news.push(json!({"event": "lost", "addr": self.addr, "error": why}));
        }
        let mut news = std::mem::take(&mut self.news);
        for torrent in &self.torrents {
            let event = describe(torrent, self.errors.get(&torrent.hash));
            let same = self.told.get(&torrent.hash).is_some_and(|(before, _)| *before == event);
            if !same && is_due(&event) {
                self.told.insert(torrent.hash.clone(), (event.clone(), Instant::now()));
                news.push(event);
            }
        }
        news
    }
}

fn describe(torrent: &Torrent, error: Option<&String>) -> Value {
    let (left, rate) = (torrent.total - torrent.total_done, torrent.download_rate);
    json!({
        "event": "torrent",
        "hash": torrent.hash,
        "name": torrent.name,
        "path": torrent.save_path,
        "progress": torrent.progress,
        "rate_in": torrent.download_rate,
        "rate_out": torrent.upload_rate,
        "eta_seconds": if left > 0 { left.checked_div(rate) } else { None },
        "peers": torrent.num_peers,
        "finished": torrent.is_finished,
        "paused": torrent.is_paused,
        "error": error,
    })
}

fn line(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    match text("event") {
        "lost" => format!("{} does not answer, trying again: {}", text("addr"), text("error")),
        "found" => format!("{} answers again", text("addr")),
        _ if !event["error"].is_null() => format!("{}: failed: {}", text("path"), text("error")),
        _ => {
            let rate = |key: &str| Rate(event[key].as_u64().unwrap_or(0));
            let state = match (event["paused"] == true, event["finished"] == true) {
                (true, _) => "paused".to_owned(),
                (false, true) => "finished".to_owned(),
                (false, false) => format!("{} left", show_eta(event["eta_seconds"].as_u64())),
            };
            // From 0 to 100.
            let percent = (event["progress"].as_f64().unwrap_or(0.0) * 100.0) as u64;
            format!(
                "{}: {percent}%, {} in, {} out, {state}, {} peers",
                text("path"),
                rate("rate_in"),
                rate("rate_out"),
                event["peers"]
            )
        }
    }
}
