//! `ezio deploy`: the image of a torrent onto this machine's device or into a file.

use crate::control::{self, ReportConfig};
use crate::engine::{Content, Job, Notice, TorrentStatus};
use crate::inspect::hex;
use crate::node::{Message, Node, NodeOptions, name_of};
use crate::preflight;
use crate::store::io_reason;
use crate::ui::Ui;
use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use swarm::bencode::Limits;
use swarm::metainfo::{Digest, Metainfo};
use swarm::units::{Bytes, Rate};

/// What to deploy, and to what.
#[derive(Clone, Debug)]
pub struct Deploy {
    /// A `.torrent` file, its URL, or `http://SERVER:6969`.
    pub from: String,
    /// The device or file to write.
    pub to: PathBuf,
    /// The torrent must have this info-hash.
    pub info_hash: Option<Digest>,
    /// Run through the shell when the data is on the medium.
    pub on_done: Option<String>,
    /// How long to serve others afterwards at most.
    pub seed_for: Duration,
    /// How to meet others.
    pub node: NodeOptions,
}

/// Nothing sent for so long after the end: nobody needs us.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Nobody wants anything of us for so long, after the end: they have it all, or get it elsewhere.
/// Our own nodes say that they want nothing while enough is on its way to them, but not for seconds.
const UNWANTED_MAX: Duration = Duration::from_secs(2);

/// How often the display and the leaving rule are looked at.
const PERIOD: Duration = Duration::from_millis(100);

/// Deploys; returns when the data is on the medium and others have been served for a while.
///
/// # Errors
/// Whatever keeps the image from being whole on the target.
pub fn run(deploy: &Deploy, ui: Ui, stop: &AtomicBool) -> anyhow::Result<()> {
    let Found { metainfo, trackers, server } = find(&deploy.from)?;
    if let Some(wanted) = deploy.info_hash {
        let found = metainfo.info_hash();
        ensure!(
            found == wanted,
            "{} has the info-hash {}, not the {} asked for; nothing was written",
            deploy.from,
            hex(&found),
            hex(&wanted)
        );
    }
    let target = preflight::open(&deploy.to, &metainfo)?;
    target.notes.iter().for_each(|note| ui.note(note));
    let started = Instant::now();
    let status: Arc<OnceLock<StatusReader>> = Arc::default();
    let report = server.map(|server| report(&server, deploy, Arc::clone(&status)));
    let mut node = Node::start(&deploy.node, None, report)?;
    let _ = status.set(Box::new(node.status_reader()));
    let store = Arc::new(target.store);
    let job = Job { metainfo: Arc::clone(&metainfo), content: Content::Target(store) };
    node.add(job, trackers, false)?;

    let outcome = download(&node, &metainfo, &deploy.to, ui, stop);
    if outcome.is_ok() {
        let seconds = started.elapsed().as_secs_f64();
        tell(deploy, &metainfo, seconds, ui);
        let hook = deploy
            .on_done
            .as_ref()
            .map_or(Ok(()), |command| on_done(command, deploy, &metainfo, seconds));
        seed(&node, deploy, ui, stop);
        node.stop();
        drop(target.claim);
        return hook;
    }
    node.stop();
    outcome
}

type StatusReader = Box<dyn Fn() -> Vec<TorrentStatus> + Send + Sync>;

/// What `--from` leads to.
struct Found {
    metainfo: Arc<Metainfo>,
    trackers: Vec<Vec<String>>,
    /// `http://SERVER:6969`, if it came from one of ours.
    server: Option<String>,
}

/// Reads the torrent from a file, a URL, or the only one that a server has.
fn find(from: &str) -> anyhow::Result<Found> {
    if !from.starts_with("http://") {
        ensure!(
            !from.starts_with("https://"),
            "{from}: only http is spoken; fetch the torrent yourself"
        );
        let metainfo = Arc::new(crate::inspect::load(Path::new(from))?);
        let trackers = metainfo.trackers().to_vec();
        return Ok(Found { metainfo, trackers, server: None });
    }
    let (server, path) = split_url(from);
    let path = if path.is_empty() { only_torrent(&server)? } else { path };
    let url = format!("{server}{path}");
    let bytes = control::fetch(&url, Limits::TORRENT.bytes)?;
    let metainfo =
        Metainfo::parse(bytes).with_context(|| format!("{url} is no torrent that EZIO can use"))?;
    let mut trackers = metainfo.trackers().to_vec();
    let served = path.starts_with("/torrents/");
    if served {
        // Whoever hands out the torrent is its tracker.
        trackers.insert(0, vec![format!("{server}/announce")]);
    }
    Ok(Found { metainfo: Arc::new(metainfo), trackers, server: served.then_some(server) })
}

/// `http://SERVER:6969` and the path behind it, which is empty for `/` too.
fn split_url(url: &str) -> (String, String) {
    let host = url.find("://").map_or(0, |at| at + 3);
    match url[host..].find('/') {
        Some(at) if url[host + at..] != *"/" => {
            (url[..host + at].to_owned(), url[host + at..].to_owned())
        }
        _ => (url.trim_end_matches('/').to_owned(), String::new()),
    }
}

/// The path of the torrent of a server that has one.
fn only_torrent(server: &str) -> anyhow::Result<String> {
    let url = format!("{server}/torrents");
    let bytes = control::fetch(&url, 1 << 20)?;
    let list: Value = serde_json::from_slice(&bytes)
        .with_context(|| format!("{url} gave no list of torrents; is that an ezio serve?"))?;
    let torrents = list.as_array().map_or(&[][..], Vec::as_slice);
    let paths: Vec<&str> = torrents.iter().filter_map(|t| t.get("path")?.as_str()).collect();
    match paths[..] {
        [path] => Ok(path.to_owned()),
        [] => bail!("{server} serves no torrent"),
        _ => bail!(
            "{server} serves several torrents; give one of:\n  {server}{}",
            paths.join(&format!("\n  {server}"))
        ),
    }
}

/// Waits until the image is on the medium.
fn download(
    node: &Node,
    metainfo: &Metainfo,
    to: &Path,
    ui: Ui,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let len = metainfo.layout().image_len();
    let progress = ui.progress("deploy", len);
    loop {
        match node.wait(PERIOD) {
            Some(Message::Engine(Notice::Finished(_))) => return Ok(()),
            Some(Message::Engine(Notice::Failed(_, error))) => {
                bail!("{error}; {} is not usable", to.display());
            }
            Some(Message::Engine(Notice::Unreadable(_, piece, error))) => {
                bail!("piece {piece}, which was written, cannot be read again: {error}");
            }
            Some(Message::Note(text)) => ui.note(&text),
            Some(Message::Engine(Notice::MorePeers(_))) | None => {}
        }
        ensure!(!stop.load(Ordering::Relaxed), "interrupted; {} is not usable", to.display());
        for torrent in node.status() {
            let stored = u64::from(torrent.stored) * u64::from(metainfo.piece_len());
            progress.done.store(stored.min(len), Ordering::Relaxed);
        }
    }
}

fn tell(deploy: &Deploy, metainfo: &Metainfo, seconds: f64, ui: Ui) {
    let len = metainfo.layout().image_len();
    // The rate is for people: a float's 53 bits are enough.
    let rate = Rate((len as f64 / seconds.max(0.001)) as u64);
    let text = format!(
        "{}: {} of {} are on the medium, every piece verified ({seconds:.1} s, {rate})",
        deploy.to.display(),
        Bytes(len),
        name_of(metainfo)
    );
    let json = json!({
        "target": deploy.to.to_string_lossy(),
        "name": name_of(metainfo),
        "info_hash": hex(&metainfo.info_hash()),
        "image_bytes": len,
        "seconds": seconds,
    });
    ui.result(&text, json);
}

fn on_done(
    command: &str,
    deploy: &Deploy,
    metainfo: &Metainfo,
    seconds: f64,
) -> anyhow::Result<()> {
    let status = Command::new("/bin/sh")
        .args(["-c", command])
        .env("EZIO_TARGET", &deploy.to)
        .env("EZIO_INFO_HASH", hex(&metainfo.info_hash()))
        .env("EZIO_STATUS", "done")
        .env("EZIO_SECONDS", format!("{seconds:.1}"))
        .env("EZIO_BYTES", metainfo.layout().image_len().to_string())
        .stdin(Stdio::null())
        .status()
        .map_err(|e| anyhow::anyhow!("run --on-done `{command}`: {}", io_reason(&e)))?;
    ensure!(status.success(), "the data is on the medium, but --on-done `{command}`: {status}");
    Ok(())
}

/// Serves the others until none of them wants anything, nothing was sent for a while, or long
/// enough.
fn seed(node: &Node, deploy: &Deploy, ui: Ui, stop: &AtomicBool) {
    let (started, mut sent_at, mut wanted_at) = (Instant::now(), Instant::now(), Instant::now());
    let mut sent = 0;
    while started.elapsed() < deploy.seed_for && !stop.load(Ordering::Relaxed) {
        if let Some(Message::Note(text)) = node.wait(PERIOD) {
            ui.note(&text);
        }
        let status = node.status();
        let total: u64 = status.iter().map(|torrent| torrent.sent).sum();
        if total != sent {
            (sent_at, sent) = (Instant::now(), total);
        }
        if status.iter().any(|torrent| torrent.peers_interested > 0) {
            wanted_at = Instant::now();
        }
        if sent_at.elapsed().min(wanted_at.elapsed()) >= UNWANTED_MAX
            || sent_at.elapsed() >= IDLE_MAX
        {
            break;
        }
    }
}

/// Tells the server once a second how far this machine is.
fn report(server: &str, deploy: &Deploy, status: Arc<OnceLock<StatusReader>>) -> ReportConfig {
    let node = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let (node, target) = (node.trim().to_owned(), deploy.to.to_string_lossy().into_owned());
    ReportConfig {
        url: format!("{server}/api/report"),
        report: Arc::new(move || {
            let torrents = status.get().map(|read| read()).unwrap_or_default();
            let list: Vec<Value> = torrents
                .iter()
                .map(|t| {
                    json!({
                        "info_hash": hex(&t.info_hash), "pieces": t.pieces, "stored": t.stored,
                        "received_bytes": t.received, "sent_bytes": t.sent, "peers": t.peers,
                    })
                })
                .collect();
            json!({ "node": format!("{node} {target}"), "device": target, "torrents": list })
        }),
        // Orders come with the dashboard.
        orders: Arc::new(|_| ()),
    }
}

/// Forty hexadecimal digits.
///
/// # Errors
/// If it is not that.
pub fn parse_info_hash(text: &str) -> Result<Digest, String> {
    let mut hash = [0; 20];
    let good = text.len() == 40 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).map_err(|_| NO_HASH.to_owned())?;
    }
    if good { Ok(hash) } else { Err(NO_HASH.to_owned()) }
}

const NO_HASH: &str = "an info-hash has 40 hexadecimal digits";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_into_server_and_path() {
        let check = |url, server: &str, path: &str| {
            assert_eq!(split_url(url), (server.to_owned(), path.to_owned()));
        };
        check("http://10.0.0.1:6969", "http://10.0.0.1:6969", "");
        check("http://10.0.0.1:6969/", "http://10.0.0.1:6969", "");
        check("http://a/torrents/x.torrent", "http://a", "/torrents/x.torrent");
        check("http://[::1]:6969/x", "http://[::1]:6969", "/x");
    }

    #[test]
    fn info_hashes_are_forty_digits() {
        assert_eq!(parse_info_hash(&"0a".repeat(20)), Ok([10; 20]));
        for bad in ["", "0a", &"0g".repeat(20), &"0".repeat(41), &"+1".repeat(20)] {
            let _ = parse_info_hash(bad).unwrap_err();
        }
    }
}
