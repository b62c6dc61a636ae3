//! `ezio serve`: one machine's image for many.

mod hooks;
mod room;

pub use hooks::Hooks;
pub(crate) use room::describe as describe_room;

use crate::capture::{self, Capture};
use crate::control::{Ended, HttpConfig, interfaces};
use crate::device::{self, Claim, Purpose, Use};
use crate::engine::{Content, Job, Notice, TorrentStatus};
use crate::inspect::{self, hex};
use crate::node::{Message, Node, NodeOptions, NodeReader, name_of};
use crate::store;
use crate::ui::{Live, Ui};
use anyhow::{Context as _, bail, ensure};
use room::Room;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use swarm::metainfo::Metainfo;
use swarm::networks::Network;
use swarm::units::{Bytes, Rate};
use tempfile::NamedTempFile;

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct Serve {
    /// Devices and image files to capture first; or torrents, if `from` is given.
    pub sources: Vec<PathBuf>,
    /// Where the images of the torrents are, in their order.
    pub from: Vec<PathBuf>,
    /// Where the HTTP server listens.
    pub http: Vec<SocketAddr>,
    /// Names under which people reach it, beside those that are its own anyway.
    pub names: Vec<String>,
    /// From where orders are taken beside this machine itself.
    pub control: Vec<Network>,
    /// Only who has the token may look.
    pub private: bool,
    /// A file that keeps the token, and is made if it is not there; without it there is a new token each
    /// time, which is printed.
    pub token_file: Option<PathBuf>,
    /// What to do when machines are done.
    pub hooks: Hooks,
    /// How to meet others.
    pub node: NodeOptions,
    /// How to capture; its source and output are replaced for each.
    pub capture: Capture,
}

/// How long the main thread sleeps between looks at the stop flag and the status.
const PERIOD: Duration = Duration::from_millis(250);

/// Serves until `stop` is set.
///
/// # Errors
/// If a source cannot be captured or opened, or a port not be listened on.
pub fn run(serve: &Serve, ui: Ui, stop: &AtomicBool) -> anyhow::Result<()> {
    let carried = if serve.from.is_empty() {
        captured(serve, ui, stop)?
    } else {
        ensure!(
            serve.from.len() == serve.sources.len(),
            "{} torrents but {} times --from; each torrent needs the place of its image",
            serve.sources.len(),
            serve.from.len()
        );
        let pairs = serve.sources.iter().zip(&serve.from);
        let open = |(torrent, path): (&PathBuf, &PathBuf)| opened(torrent, path, serve, ui);
        pairs.map(open).collect::<anyhow::Result<_>>()?
    };
    let torrents: Vec<_> = carried.iter().map(|held| Arc::clone(&held.job.metainfo)).collect();
    check_names(&torrents)?;
    let token = match &serve.token_file {
        Some(path) => kept_token(path)?,
        None => new_token()?,
    };
    // The pages ask the engine, which is started after their server is configured.
    let status: Arc<OnceLock<NodeReader>> = Arc::default();
    let asked = Arc::clone(&status);
    let room = Arc::new(Room::default());
    let (ending, looking) = (Arc::clone(&room), Arc::clone(&room));
    let hooks = serve.hooks.clone().start(ui)?;
    let http = HttpConfig {
        token: token.clone(),
        control: serve.control.clone(),
        private: serve.private,
        names: serve.names.clone(),
        ended: Arc::new(move |ended: Ended| {
            ending.ended(&ended);
            hooks(ended);
        }),
        looked: Arc::new(move |summary, turns| looking.looked(summary, turns)),
        status: Arc::new(move || {
            asked.get().map_or_else(|| json!({}), |node| describe(&node.status()))
        }),
        ..HttpConfig::new(serve.http.clone())
    };
    let mut node = Node::start(&serve.node, Some(http), None)?;
    let _ = status.set(node.reader());
    let mut claims = Vec::new();
    for Held { job, claim } in carried {
        claims.push(claim);
        let trackers = job.metainfo.trackers().to_vec();
        node.add(job, trackers, true)?;
    }
    // Whoever reads the first line and is quick must find all of them.
    torrents.iter().for_each(|metainfo| announce_to_people(&node, serve, metainfo, &token, ui));
    if torrents.len() > 1 {
        tell_of_all(&node, serve, &torrents, ui);
    }
    tell_of_dashboard(&node, serve, &token, ui);
    watch(&node, &room, ui, stop);
    node.stop();
    Ok(())
}

/// A torrent to seed, and the hold on where its image is.
struct Held {
    job: Job,
    claim: Option<Claim>,
}

/// Captures every source into a torrent of its own.
fn captured(serve: &Serve, ui: Ui, stop: &AtomicBool) -> anyhow::Result<Vec<Held>> {
    let dir = tempfile::tempdir().context("make a temporary directory")?;
    let capture = |(number, source): (usize, &PathBuf)| {
        let output = dir.path().join(format!("{number}.torrent"));
        let job =
            Capture { source: source.clone(), output: output.clone(), ..serve.capture.clone() };
        capture::run_as(&job, source, Ui { quiet: true, ..ui }, stop)?;
        opened(&output, source, serve, ui)
    };
    serve.sources.iter().enumerate().map(capture).collect()
}

fn opened(torrent: &Path, path: &Path, serve: &Serve, ui: Ui) -> anyhow::Result<Held> {
    let metainfo = Arc::new(inspect::load(torrent)?);
    let store = store::open(&metainfo, path)?;
    let claim = if path.is_dir() { None } else { hold(path, serve.capture.force, ui)? };
    Ok(Held { job: Job { metainfo, content: Content::Source(store) }, claim })
}

/// Keeps others from changing the source while it is seeded: what has changed no longer fits its
/// hashes, and nobody could finish.
fn hold(path: &Path, force: bool, ui: Ui) -> anyhow::Result<Option<Claim>> {
    let (_, device) = device::open_source(path)?;
    let shown = path.display();
    let uses = device::usage(&device).with_context(|| format!("find out who uses {shown}"))?;
    if uses.is_empty() {
        return Ok(Some(device::claim(&device, Purpose::Reading)?));
    }
    let list = uses.iter().map(Use::to_string).collect::<Vec<_>>().join(", ");
    let may_change = uses.iter().any(Use::may_write);
    ensure!(
        !may_change || force,
        "{shown} is in use: {list}; what changes while it is served reaches nobody, unmount it, or \
         serve it all the same with --force"
    );
    ui.note(&format!("{shown} is {list}; nothing keeps others from changing it"));
    Ok(None)
}

/// Prints what is served, and the line to run on the targets.
fn announce_to_people(node: &Node, serve: &Serve, metainfo: &Metainfo, token: &str, ui: Ui) {
    let name = name_of(metainfo);
    let alone = serve.sources.len() == 1;
    let path = if alone { String::new() } else { format!("/torrents/{name}.torrent") };
    let lines = deploy_lines(node, serve, &path, "--to DEVICE");
    let mut text = format!(
        "serving {name}: {} in {} pieces",
        Bytes(metainfo.layout().image_len()),
        metainfo.piece_count(),
    );
    if alone {
        text += &format!("; run on every target:\n  {}", lines.join("\n  "));
    }
    let port = http_port(node);
    tracing::info!(
        image = %name,
        info_hash = %hex(&metainfo.info_hash()),
        bytes = metainfo.layout().image_len(),
        pieces = metainfo.piece_count(),
        port = node.port(),
        http_port = port,
        "serving"
    );
    let json = json!({
        "name": name,
        "info_hash": hex(&metainfo.info_hash()),
        "image_bytes": metainfo.layout().image_len(),
        "deploy": lines,
        "port": node.port(),
        "http_port": port,
        "dashboard": dashboards(node, serve),
        "token": shown_token(serve, token),
    });
    ui.result(&text, json);
}

/// The line that takes all images at once.
fn tell_of_all(node: &Node, serve: &Serve, torrents: &[Arc<Metainfo>], ui: Ui) {
    if !ui.json {
        let to = |metainfo: &Arc<Metainfo>| format!("--to {}=DEVICE", name_of(metainfo));
        let to: Vec<String> = torrents.iter().map(to).collect();
        let lines = deploy_lines(node, serve, "", &to.join(" ")).join("\n  ");
        ui.result(&format!("run on every target:\n  {lines}"), json!({}));
    }
}

/// The command that deploys what is at `path`, by each address of ours.
fn deploy_lines(node: &Node, serve: &Serve, path: &str, to: &str) -> Vec<String> {
    let port = http_port(node);
    let line =
        |ip: &IpAddr| format!("ezio deploy http://{}{path} {to}", SocketAddr::new(*ip, port));
    addresses(serve).iter().map(line).collect()
}

fn http_port(node: &Node) -> u16 {
    node.http().first().map_or(0, SocketAddr::port)
}

/// Prints where to look, and what it takes to do more than look.
fn tell_of_dashboard(node: &Node, serve: &Serve, token: &str, ui: Ui) {
    // Every result has told it already where programs read.
    if !ui.json {
        let pages = dashboards(node, serve).join("\n  ");
        let token = match (&serve.token_file, shown_token(serve, token)) {
            (Some(path), _) => format!("in {}", path.display()),
            (None, token) => token.unwrap_or_default().to_owned(),
        };
        let from: String =
            serve.control.iter().map(|network| format!(" and from {network}")).collect();
        let text = format!(
            "dashboard, and the token for its buttons, which work on this machine{from}:\n  {pages}\n  {token}"
        );
        ui.result(&text, json!({}));
    }
}

/// What is kept in a file is for its readers, not for all who see what is printed, as a journal's.
fn shown_token<'a>(serve: &Serve, token: &'a str) -> Option<&'a str> {
    serve.token_file.is_none().then_some(token)
}

fn dashboards(node: &Node, serve: &Serve) -> Vec<String> {
    let page = |ip: &IpAddr| format!("http://{}/", SocketAddr::new(*ip, http_port(node)));
    addresses(serve).iter().map(page).collect()
}

/// 128 bits that nobody can guess.
fn new_token() -> anyhow::Result<String> {
    let mut random = [0; 16];
    let mut file = std::fs::File::open("/dev/urandom").context("open /dev/urandom")?;
    file.read_exact(&mut random).context("read /dev/urandom")?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The token in a file, which is made for its owner only if it is not there.
fn kept_token(path: &Path) -> anyhow::Result<String> {
    if path.exists() {
        return read_token(path);
    }
    let make = || -> std::io::Result<NamedTempFile> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))
    };
    let shown = path.display();
    let token = new_token()?;
    let write = |mut file: NamedTempFile| {
        writeln!(file, "{token}")?;
        file.as_file().sync_all()?;
        // Whoever was quicker has made one that is as good, and others know it already.
        file.persist_noclobber(path).map(drop).or_else(|failed| match failed.error.kind() {
            std::io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(failed.error),
        })
    };
    make().and_then(write).map_err(|e| {
        anyhow::anyhow!("make a token in {shown}, which is not there: {}", store::io_reason(&e))
    })?;
    read_token(path)
}

/// The token in a file.
///
/// # Errors
/// If it cannot be read, or is none.
pub(crate) fn read_token(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|e| anyhow::anyhow!("read the token in {shown}: {}", store::io_reason(&e)))?;
    let token = text.trim();
    let good = (16..=256).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
    ensure!(good, "the token in {shown} is not 16 to 256 printable characters without spaces");
    Ok(token.to_owned())
}

/// The addresses at which targets reach this machine: not loopback, unless there is nothing else.
fn addresses(serve: &Serve) -> Vec<IpAddr> {
    let named: Vec<_> =
        serve.http.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).collect();
    if !named.is_empty() {
        return named;
    }
    let all = interfaces::interfaces().unwrap_or_default();
    let v4 = all
        .iter()
        .filter_map(|interface| interface.address_for(Ipv4Addr::new(203, 0, 113, 1).into()));
    let found: Vec<_> = v4.filter(|ip| !ip.is_loopback()).collect();
    if found.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { found }
}

/// Tells what happens until it is time to stop.
fn watch(node: &Node, room: &Room, ui: Ui, stop: &AtomicBool) {
    let (mut live, mut measured, mut sent) = (ui.live("serve"), Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        tell(node.wait(PERIOD), ui);
        room.tell(ui);
        // People want to know that nothing happens, too, but not again and again.
        if live.is_due() {
            let status = node.status();
            let total = status.iter().map(|torrent| torrent.sent).sum::<u64>();
            let elapsed = measured.elapsed().as_millis().max(1);
            let rate = u128::from(total.saturating_sub(sent)) * 1000 / elapsed;
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            (measured, sent) = (Instant::now(), total);
            let peers = status.iter().map(|torrent| torrent.peers).sum();
            show(&mut live, room, total, rate, peers);
        }
    }
}

fn tell(message: Option<Message>, ui: Ui) {
    match message {
        Some(Message::Note(text)) => ui.note(&text),
        Some(Message::Warning(text)) => ui.warn(&text),
        Some(Message::Engine(Notice::Unreadable(_, piece, error))) => {
            ui.warn(&format!("piece {piece} cannot be served: {error}"));
        }
        Some(Message::Engine(Notice::Rotten(info_hash, piece))) => {
            let hash = hex(&info_hash);
            ui.warn(&format!(
                "piece {piece} of {hash} is not what it was: its source rots, or somebody writes to \
                 it; nobody gets that piece from here any more"
            ));
        }
        _ => {}
    }
}

fn show(live: &mut Live, room: &Room, sent: u64, rate: u64, peers: u32) {
    let summary = room.summary();
    let text = format!("{} sent, {}, {peers} peers", Bytes(sent), Rate(rate));
    let machines = room::describe(&summary);
    let mut json = json!({ "sent_bytes": sent, "bytes_per_second": rate, "peers": peers });
    for key in room::COUNTS {
        json[key] = summary[key].clone();
    }
    // A server that nobody has met yet has nothing to tell a pipe.
    if !live.draws() && machines.is_empty() && sent == 0 && peers == 0 {
        return;
    }
    let text = if machines.is_empty() { text } else { format!("{machines}; {text}") };
    live.set(&text, json);
}

/// The status as JSON, for `/api/status`.
fn describe(torrents: &[TorrentStatus]) -> Value {
    let list: Vec<Value> = torrents
        .iter()
        .map(|t| {
            json!({
                "info_hash": hex(&t.info_hash), "image_bytes": t.image_len, "pieces": t.pieces,
                "verified": t.verified, "stored": t.stored, "received_bytes": t.received,
                "sent_bytes": t.sent, "peers": t.peers,
            })
        })
        .collect();
    json!({ "engine": list })
}

/// Addresses of `--http`: a port alone means all interfaces.
///
/// # Errors
/// If it is neither a port nor an address with a port.
pub fn parse_http(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::from(([0, 0, 0, 0], port)));
    }
    text.parse().map_err(|_| "an address looks like 0.0.0.0:6969 or [::]:6969".to_owned())
}

/// Refuses a set of sources that would need the same name twice.
fn check_names(torrents: &[Arc<Metainfo>]) -> anyhow::Result<()> {
    let mut names: Vec<String> = torrents.iter().map(|torrent| name_of(torrent)).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("two images are called `{}`; capture one of them with another --name", pair[0]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_token_file_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let token = kept_token(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(kept_token(&path).unwrap(), token);
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
        std::fs::write(&path, "short").unwrap();
        assert!(kept_token(&path).is_err(), "what somebody has written is not replaced");
        let error = kept_token(&dir.path().join("no/token")).unwrap_err().to_string();
        assert!(error.contains("no/token"), "{error}");
    }
}
