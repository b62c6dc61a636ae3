//! What this machine tells the server it got its torrent from, once a second, and what the server's
//! answers have it do.

use super::Task;
use super::machine::{self, Disk};
use crate::control::{ReportConfig, interfaces, post};
use crate::engine::TorrentStatus;
use crate::inspect::hex;
use crate::node::{NodeReader, name_of};
use serde_json::{Value, json};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use swarm::metainfo::Digest;

/// What a machine reports. Clones are the same reporter.
#[derive(Clone)]
pub(super) struct Reporter {
    url: String,
    identity: Arc<Identity>,
    now: Arc<Mutex<Now>>,
}

/// Who this is, as long as the process runs.
struct Identity {
    node: String,
    host: String,
    /// Tells processes on one machine apart that follow each other.
    run: String,
    /// How many reports there were.
    reports: AtomicU64,
    serial: String,
    interface: String,
    mac: String,
    memory: u64,
    limit: Option<u64>,
    read_again: bool,
    can_retry: bool,
}

/// What does.
struct Now {
    targets: Targets,
    reader: Option<NodeReader>,
    started: Instant,
    /// How long it took, once it is over.
    seconds: Option<f64>,
    step: Step,
    error: String,
    wish: Wish,
}

/// Where the images go.
#[derive(Default)]
struct Targets {
    device: String,
    model: String,
    serial: String,
    /// Of each torrent: its info-hash, its name, and how many of its pieces are looked at first.
    images: Vec<(Digest, String, u32)>,
}

/// Where the work is, as far as the engine does not tell.
pub(super) enum Step {
    Downloading,
    /// Bytes read again, and of how many.
    Verifying(Arc<AtomicU64>, u64),
    Done,
    Failed,
}

/// What the server wants of this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) paused: bool,
    pub(super) limit: Option<u64>,
    pub(super) finish: bool,
    /// How often it was told to try again.
    pub(super) retries: u64,
}

impl Wish {
    fn from(answer: &Value) -> Wish {
        Wish {
            paused: answer["paused"] == true,
            limit: answer["limit"].as_u64().filter(|&rate| rate > 0),
            finish: answer["finish"] == true,
            retries: answer["retries"].as_u64().unwrap_or(0),
        }
    }
}

/// Sections in the map of what is here: what the server's page shows.
const MAP_LEN: u64 = 128;

/// How often a machine that waits for an order asks.
const PERIOD: Duration = Duration::from_secs(1);

/// What a report at the end may take.
const POST_TIME_MAX: Duration = Duration::from_secs(2);

impl Reporter {
    /// Reports to `server`, which is `http://HOST:PORT`.
    pub(super) fn new(server: &str, deploy: &super::Deploy) -> Reporter {
        let host = machine::host().unwrap_or_default();
        let interface = interface_to(server).unwrap_or_default();
        let process = std::process::id();
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        let identity = Identity {
            node: format!("{host} {}", deploy.to.join(" ")).chars().take(128).collect(),
            host,
            run: format!("{process}-{since}"),
            reports: AtomicU64::new(0),
            serial: machine::serial().unwrap_or_default(),
            mac: interfaces::mac(&interface).unwrap_or_default(),
            interface,
            memory: deploy.node.budget,
            limit: deploy.node.limit,
            read_again: deploy.verify,
            can_retry: !deploy.stay.is_zero(),
        };
        let targets = Targets { device: deploy.to.join(" "), ..Targets::default() };
        let now = Now {
            targets,
            reader: None,
            started: Instant::now(),
            seconds: None,
            step: Step::Downloading,
            error: String::new(),
            wish: Wish::default(),
        };
        Reporter {
            url: format!("{server}/api/report"),
            identity: Arc::new(identity),
            now: Arc::new(Mutex::new(now)),
        }
    }

    /// Begins, or begins anew.
    pub(super) fn begin(&self, tasks: &[Task]) {
        let paths: Vec<String> = tasks.iter().map(|t| t.to.display().to_string()).collect();
        let disk = tasks.first().map(|task| Disk::of(&task.to)).unwrap_or_default();
        let (model, serial) = (disk.model.unwrap_or_default(), disk.serial.unwrap_or_default());
        let of = |task: &Task| {
            let checked = u32::try_from(task.check.len()).unwrap_or(u32::MAX);
            (task.metainfo.info_hash(), name_of(&task.metainfo), checked)
        };
        let images = tasks.iter().map(of).collect();
        let mut now = self.now();
        now.targets = Targets { device: paths.join(" "), model, serial, images };
        (now.started, now.seconds, now.reader) = (Instant::now(), None, None);
        (now.step, now.error) = (Step::Downloading, String::new());
    }

    /// The node that runs from now on; `None` when it has ended.
    pub(super) fn observe(&self, reader: Option<NodeReader>) {
        self.now().reader = reader;
    }

    /// How to report while the node runs.
    pub(super) fn config(&self) -> ReportConfig {
        let (reporting, told) = (self.clone(), self.clone());
        ReportConfig {
            url: self.url.clone(),
            report: Arc::new(move || reporting.report()),
            orders: Arc::new(move |answer| told.now().wish = Wish::from(&answer)),
        }
    }

    /// The work is at `step`.
    pub(super) fn set(&self, step: Step) {
        let mut now = self.now();
        if matches!(step, Step::Done | Step::Failed) {
            now.seconds = Some(now.started.elapsed().as_secs_f64());
        }
        now.step = step;
    }

    /// It has failed, and why.
    pub(super) fn fail(&self, error: &anyhow::Error) {
        self.now().error = format!("{error:#}");
        self.set(Step::Failed);
        self.post();
    }

    /// Reports at once, and takes the answer. A server that has gone learns nothing any more.
    pub(super) fn post(&self) {
        if let Ok(answer) = post(&self.url, &self.report(), POST_TIME_MAX) {
            self.now().wish = Wish::from(&answer);
        }
    }

    /// What the server wants.
    pub(super) fn wish(&self) -> Wish {
        self.now().wish
    }

    /// Reports the failure for `time` at the most, or until it is told to try again. Returns
    /// whether it was.
    pub(super) fn wait_for_retry(&self, time: Duration, stop: &AtomicBool) -> bool {
        let (since, before) = (Instant::now(), self.wish().retries);
        while since.elapsed() < time && !stop.load(Ordering::Relaxed) && !self.wish().finish {
            self.post();
            if self.wish().retries != before {
                return true;
            }
            thread::sleep(PERIOD);
        }
        false
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self) -> Value {
        let (now, identity) = (self.now(), &self.identity);
        let status = now.reader.as_ref().map(NodeReader::status).unwrap_or_default();
        let (phase, progress) = now.phase(&status);
        let (link_mbit, half_duplex) = interfaces::link(&identity.interface);
        let torrents = now.targets.images.iter().map(|(info_hash, name, _)| {
            let status = status.iter().find(|t| t.info_hash == *info_hash);
            let have = now.reader.as_ref().and_then(|reader| reader.have(info_hash));
            describe(status, have.as_deref(), info_hash, name)
        });
        json!({
            "node": identity.node,
            "host": identity.host,
            "run": identity.run,
            "number": identity.reports.fetch_add(1, Ordering::Relaxed),
            "device": now.targets.device,
            "model": now.targets.model,
            "disk_serial": now.targets.serial,
            "serial": identity.serial,
            "mac": identity.mac,
            "interface": identity.interface,
            "link_mbit": link_mbit,
            "half_duplex": half_duplex,
            "phase": phase,
            "progress": progress,
            "paused": now.wish.paused,
            "limit": now.wish.limit.or(identity.limit),
            "error": now.error,
            "seconds": now.seconds.unwrap_or_else(|| now.started.elapsed().as_secs_f64()),
            "memory_bytes": identity.memory,
            "read_again": identity.read_again,
            "can_retry": identity.can_retry,
            "torrents": torrents.collect::<Vec<_>>(),
        })
    }
}

impl Now {
    /// What is done now, and how much of it.
    fn phase(&self, status: &[TorrentStatus]) -> (&'static str, f64) {
        match &self.step {
            Step::Done => ("done", 1.0),
            Step::Failed => ("failed", 0.0),
            Step::Verifying(done, len) => {
                // A part of a whole, for people.
                ("verifying", done.load(Ordering::Relaxed) as f64 / (*len).max(1) as f64)
            }
            Step::Downloading => {
                let checking: u32 = status.iter().map(|t| t.checking).sum();
                let checked: u32 = self.targets.images.iter().map(|(.., count)| count).sum();
                let (stored, pieces) = status.iter().fold((0_u64, 0_u64), |(stored, pieces), t| {
                    (stored + u64::from(t.stored), pieces + u64::from(t.pieces))
                });
                if checking > 0 {
                    ("checking", 1.0 - f64::from(checking) / f64::from(checked.max(checking)))
                } else if pieces > 0 && stored == pieces {
                    ("flushing", 1.0)
                } else {
                    ("downloading", stored as f64 / pieces.max(1) as f64)
                }
            }
        }
    }
}

fn describe(
    status: Option<&TorrentStatus>,
    have: Option<&[u8]>,
    info_hash: &Digest,
    name: &str,
) -> Value {
    let default = TorrentStatus::default();
    let t = status.unwrap_or(&default);
    let waiting = u128::from(t.image_len) * u128::from(t.verified.saturating_sub(t.stored));
    json!({
        "info_hash": hex(info_hash),
        "name": name,
        "image_bytes": t.image_len,
        "pieces": t.pieces,
        "stored": t.stored,
        "stored_bytes": t.stored_bytes(),
        // At most the length of the image.
        "waiting_bytes": waiting.checked_div(t.pieces.into()).unwrap_or(0) as u64,
        "received_bytes": t.received,
        "sent_bytes": t.sent,
        "peers": t.peers,
        "nowhere": t.nowhere,
        "map": have.map(|have| map(have, t.pieces)),
    })
}

/// How much of each of the image's sections is here, in fifteenths, as hexadecimal digits. `have` is
/// a bitfield as in BEP 3. With few pieces several sections show the same one.
fn map(have: &[u8], pieces: u32) -> String {
    let pieces = u64::from(pieces);
    let digit = |section: u64| {
        let start = section * pieces / MAP_LEN;
        let end = ((section + 1) * pieces / MAP_LEN).clamp(start + 1, pieces.max(start + 1));
        let here = |&piece: &u64| {
            // There are less than 2^32 pieces.
            have.get(piece as usize / 8).is_some_and(|byte| byte & 0x80 >> (piece % 8) != 0)
        };
        let count = (start..end).filter(here).count() as u64;
        // From 0 to 15.
        char::from_digit((count * 15 / (end - start)) as u32, 16).unwrap_or('0')
    };
    (0..MAP_LEN).map(digit).collect()
}

/// The interface from which packets go to the server.
fn interface_to(server: &str) -> Option<String> {
    let addr = server.strip_prefix("http://")?;
    let addr = if addr.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        addr.to_owned()
    } else {
        format!("{addr}:80")
    };
    // Of a datagram socket it sends nothing; it chooses the address.
    let socket = ["0.0.0.0:0", "[::]:0"].iter().find_map(|any| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(addr.as_str()).ok().map(|()| socket)
    })?;
    let ip = socket.local_addr().ok()?.ip();
    let all = interfaces::interfaces().ok()?;
    all.into_iter().find(|i| i.addrs.contains(&ip.to_canonical())).map(|i| i.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_shows_sections_in_fifteenths() {
        let check = |have: &[u8], pieces, start: &str, end: &str| {
            let map = map(have, pieces);
            assert_eq!(map.len(), 128);
            assert!(map.starts_with(start) && map.ends_with(end), "{map}");
        };
        check(&[0xff; 32], 256, "ffff", "ffff");
        check(&[0x80; 32], 256, "7000", "7000");
        check(&[0b1000_0000], 2, "ffff", "0000");
        check(&[], 0, "0000", "0000");
        check(&[0x80], 1, "ffff", "ffff");
    }

    #[test]
    fn what_a_server_answers_is_a_wish_or_nothing() {
        assert_eq!(Wish::from(&json!({})), Wish::default());
        assert_eq!(Wish::from(&json!([1])), Wish::default());
        let wish = json!({"paused": true, "limit": 7, "finish": true, "retries": 3});
        let wanted = Wish { paused: true, limit: Some(7), finish: true, retries: 3 };
        assert_eq!(Wish::from(&wish), wanted);
        assert_eq!(Wish::from(&json!({"limit": 0})).limit, None, "it would stand still");
    }
}
