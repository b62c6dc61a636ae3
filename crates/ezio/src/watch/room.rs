//! A server's machines, as its events tell of them: what is known, and what of it is news.

use super::source::News;
use super::view::View;
use crate::screen::Key;
use crate::serve::describe_room;
use crate::ui::printable;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use swarm::units::{Bytes, Rate, Seconds};

/// All that is known of a server.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) url: String,
    pub(super) summary: Value,
    pub(super) images: Value,
    pub(super) machines: BTreeMap<u64, Machine>,
    /// Why it does not answer, and since when.
    pub(super) lost: Option<(String, Instant)>,
}

/// A machine, as far as it is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Machine {
    pub(super) host: String,
    pub(super) addr: String,
    pub(super) phase: String,
    pub(super) health: String,
    pub(super) progress: f64,
    pub(super) paused: bool,
    pub(super) rate_in: u64,
    pub(super) rate_out: u64,
    pub(super) eta: Option<u64>,
    pub(super) peers: u64,
    /// Why it needs a look: its error, or the likely reason.
    pub(super) why: String,
    pub(super) device: String,
    pub(super) seconds: u64,
}

impl Machine {
    /// From the fields of `/api/machines`, of which any may be missing.
    fn of(fields: &Map<String, Value>) -> Machine {
        let value = |key: &str| fields.get(key).unwrap_or(&Value::Null);
        // Whatever a machine says of itself stays on its line.
        let text = |key: &str| {
            let text = value(key).as_str().unwrap_or_default();
            clean(text)
        };
        let number = |key: &str| value(key).as_u64().unwrap_or(0);
        let (error, reason) = (text("error"), text("reason"));
        Machine {
            host: if text("host").is_empty() { text("addr") } else { text("host") },
            addr: text("addr"),
            phase: text("phase"),
            health: text("health"),
            progress: value("progress").as_f64().unwrap_or(0.0).clamp(0.0, 1.0),
            paused: value("paused") == true,
            rate_in: number("rate_in"),
            rate_out: number("rate_out"),
            eta: value("eta_seconds").as_u64(),
            peers: number("peers"),
            why: if error.is_empty() { reason } else { error },
            device: text("device"),
            // Whole seconds.
            seconds: value("seconds").as_f64().unwrap_or(0.0) as u64,
        }
    }

    /// In a word: what it does, or what is wrong with it.
    pub(super) fn state(&self) -> &str {
        match self.health.as_str() {
            "fine" | "" if self.paused => "paused",
            "fine" | "" => &self.phase,
            health => health,
        }
    }

    /// Whether somebody has to walk to it.
    pub(super) fn needs_look(&self) -> bool {
        !matches!(self.health.as_str(), "fine" | "")
    }

    /// Whether nothing more is to come of it.
    pub(super) fn is_done(&self) -> bool {
        self.phase == "done"
    }

    /// What somebody would say of it.
    fn tell(&self) -> String {
        let (host, addr) = (&self.host, &self.addr);
        let name = if host == addr { host.clone() } else { format!("{host} ({addr})") };
        match self.state() {
            "done" => format!("{name}: done in {}", Seconds(self.seconds)),
            state if !self.needs_look() || self.why.is_empty() => format!("{name}: {state}"),
            state => format!("{name}: {state}: {}", self.why),
        }
    }
}

/// Without what moves a cursor, begins a line, or turns the writing direction (Unicode's Bidi_Control).
fn clean(text: &str) -> String {
    let is_turn = |c: char| {
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}')
    };
    let plain: String = text.chars().filter(|&c| !is_turn(c)).collect();
    printable(&plain).replace(['\n', '\t'], " ")
}

impl Room {
    pub(super) fn new(url: &str) -> Room {
        Room {
            url: url.to_owned(),
            summary: Value::Null,
            images: Value::Null,
            machines: BTreeMap::new(),
            lost: None,
        }
    }

    /// What is served: `sda1 (10 GiB)`.
    pub(super) fn served(&self) -> String {
        let images = self.images.as_array().map_or(&[][..], Vec::as_slice);
        let name = |image: &Value| {
            let bytes = Bytes(image["bytes"].as_u64().unwrap_or(0));
            format!("{} ({bytes})", clean(image["name"].as_str().unwrap_or_default()))
        };
        images.iter().map(name).collect::<Vec<_>>().join(", ")
    }
}

/// A room on its way to somebody: a screen, lines, or objects.
pub(super) struct Shown {
    room: Room,
    view: View,
    /// Every machine as the server told of it: changes come alone.
    fields: BTreeMap<u64, Map<String, Value>>,
    /// Machines that have changed since objects were asked for.
    changed: Vec<u64>,
    news: Vec<Value>,
    /// What lines said last of each machine, and of the whole.
    told: BTreeMap<u64, String>,
    summary_told: (String, Option<Instant>),
    lost_told: bool,
}

/// How often a line tells of the whole.
const LINE_PERIOD: Duration = Duration::from_secs(5);

impl Shown {
    pub(super) fn new(url: &str) -> Shown {
        Shown {
            room: Room::new(url),
            view: View::default(),
            fields: BTreeMap::new(),
            changed: Vec::new(),
            news: Vec::new(),
            told: BTreeMap::new(),
            summary_told: (String::new(), None),
            lost_told: false,
        }
    }

    fn event(&mut self, name: &str, data: &Value) {
        if name == "snapshot" {
            self.fields.clear();
            self.room.machines.clear();
        }
        if self.room.lost.take().is_some() && std::mem::take(&mut self.lost_told) {
            self.news.push(json!({"event": "found", "url": self.room.url}));
        }
        if !data["summary"].is_null() && data["summary"] != self.room.summary {
            self.room.summary = data["summary"].clone();
            let mut event = self.room.summary.clone();
            event["event"] = "summary".into();
            self.news.push(event);
        }
        if !data["images"].is_null() {
            self.room.images = data["images"].clone();
        }
        let machines = data["machines"].as_array().map_or(&[][..], Vec::as_slice);
        for machine in machines.iter().filter_map(Value::as_object) {
            let Some(id) = machine.get("id").and_then(Value::as_u64) else { continue };
            let fields = self.fields.entry(id).or_default();
            fields.extend(machine.iter().map(|(key, value)| (key.clone(), value.clone())));
            self.room.machines.insert(id, Machine::of(fields));
            self.changed.push(id);
        }
    }
}

impl super::Shown for Shown {
    fn take(&mut self, news: News) {
        match news {
            News::Event(name, data) => self.event(&name, &data),
            News::Lost(why) => {
                let since = self.room.lost.as_ref().map_or_else(Instant::now, |lost| lost.1);
                self.room.lost = Some((clean(&why), since));
            }
            News::Status(_) | News::Refused(_) => {}
        }
    }

    fn press(&mut self, key: Key) -> bool {
        self.view.press(key)
    }

    fn draw(&self, size: (usize, usize)) -> Vec<String> {
        self.view.draw(&self.room, size)
    }

    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for event in self.events() {
            match event["event"].as_str() {
                Some("lost") => lines.push(format!(
                    "{} does not answer, trying again: {}",
                    self.room.url,
                    event["error"].as_str().unwrap_or_default()
                )),
                Some("found") => lines.push(format!("{} answers again", self.room.url)),
                _ => {}
            }
        }
        for (id, machine) in &self.room.machines {
            let text = machine.tell();
            // Numbers in a reason change all the time; the state is what counts.
            let state = format!("{} {}", machine.state(), machine.device);
            if self.told.get(id) != Some(&state) {
                self.told.insert(*id, state);
                lines.push(text);
            }
        }
        let (said, at) = &self.summary_told;
        if at.is_none_or(|at| at.elapsed() >= LINE_PERIOD) && self.room.lost.is_none() {
            let text = whole(&self.room.summary);
            if !text.is_empty() && text != *said {
                lines.push(text.clone());
                self.summary_told = (text, Some(Instant::now()));
            }
        }
        lines
    }

    fn events(&mut self) -> Vec<Value> {
        if let (Some((why, _)), false) = (&self.room.lost, self.lost_told) {
            self.lost_told = true;
            self.news.push(json!({"event": "lost", "url": self.room.url, "error": why}));
        }
        let mut events = std::mem::take(&mut self.news);
        self.changed.sort_unstable();
        self.changed.dedup();
        for id in self.changed.drain(..) {
            let mut machine = self.fields.get(&id).cloned().unwrap_or_default();
            machine.insert("event".into(), "machine".into());
            events.push(machine.into());
        }
        events
    }
}

/// The whole in a line; nothing while there is no machine.
fn whole(summary: &Value) -> String {
    let text = describe_room(summary);
    let rate = Rate(summary["rate_in"].as_u64().unwrap_or(0));
    if text.is_empty() { text } else { format!("{text}; {rate}") }
}

#[cfg(test)]
mod tests {
    use super::super::Shown as _;
    use super::*;

    fn snapshot() -> News {
        let machine = |id: u64, host: &str, health: &str, reason: &str| {
            json!({"id": id, "host": host, "addr": format!("10.0.0.{id}"), "phase": "downloading",
                "health": health, "reason": reason, "progress": 0.5, "device": "/dev/sda"})
        };
        let machines = [machine(1, "a\u{202e}b\nc", "fine", ""), machine(2, "b", "slow", "cable?")];
        let summary = json!({"machines": 2, "slow": 1, "rate_in": 5_000_000, "progress": 0.5});
        let data = json!({"summary": summary, "machines": machines, "images": [{"name": "sda1",
            "bytes": 1 << 30}]});
        News::Event("snapshot".into(), data)
    }

    #[test]
    fn lines_tell_what_is_new_and_nothing_twice() {
        let mut shown = Shown::new("http://s:6969");
        shown.take(snapshot());
        let whole = "0 of 2 machines done, 1 need a look, 50%, ? left; 5 MB/s";
        assert_eq!(
            shown.lines(),
            ["ab c (10.0.0.1): downloading", "b (10.0.0.2): slow: cable?", whole]
        );
        assert_eq!(shown.room.served(), "sda1 (1 GiB)");
        let delta = json!({"machines": [{"id": 2, "health": "fine"}, {"id": 1, "progress": 0.6}]});
        shown.take(News::Event("delta".into(), delta));
        assert_eq!(shown.lines(), ["b (10.0.0.2): downloading"]);
        shown.take(News::Lost("refused".into()));
        shown.take(News::Lost("refused".into()));
        assert_eq!(shown.lines(), ["http://s:6969 does not answer, trying again: refused"]);
        shown.take(snapshot());
        assert_eq!(shown.lines(), ["http://s:6969 answers again", "b (10.0.0.2): slow: cable?"]);
    }

    #[test]
    fn every_change_is_an_object_with_all_that_is_known() {
        let mut shown = Shown::new("http://s:6969");
        shown.take(snapshot());
        let kinds = |events: &[Value]| -> Vec<String> {
            events.iter().map(|e| e["event"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(kinds(&shown.events()), ["summary", "machine", "machine"]);
        let delta = json!({"machines": [{"id": 1, "progress": 0.6}]});
        shown.take(News::Event("delta".into(), delta));
        let events = shown.events();
        assert_eq!(kinds(&events), ["machine"]);
        assert_eq!(
            (&events[0]["progress"], &events[0]["device"]),
            (&json!(0.6), &json!("/dev/sda"))
        );
        assert!(shown.events().is_empty());
    }
}
