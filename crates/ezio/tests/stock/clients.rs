//! The programs of these tests, started so that they can reach loopback only.

use crate::image::Image;
use crate::process::{PATIENCE, Process};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use swarm::metainfo::Metainfo;

/// Debian's Python: others do not know Debian's libtorrent.
const PYTHON: &str = "/usr/bin/python3";

/// Ends the test with a line that says why if a stock client is not installed.
macro_rules! require_clients {
    () => {
        if let Some(why) = $crate::clients::missing() {
            lab::skip!("{why}");
        }
    };
}
pub(crate) use require_clients;

/// What is not installed of all that these tests need, in words.
pub(crate) fn missing() -> Option<String> {
    use lab::Need::Program;
    let programs = [Program("aria2c"), Program("opentracker"), Program("setpriv")];
    let mut missing = lab::require(&programs).err().into_iter().collect::<Vec<_>>();
    let import = Command::new(PYTHON).args(["-c", "import libtorrent"]).output();
    if !import.is_ok_and(|output| output.status.success()) {
        missing.push("no python3-libtorrent".to_owned());
    }
    (!missing.is_empty()).then(|| missing.join(", "))
}

/// Starts `ezio` with `args`, any free port unless they say which, and peers on loopback only.
pub(crate) fn ezio(name: &str, args: &[&str]) -> Process {
    let mut command = Command::new(crate::ezio());
    command.args(args).args(["--json", "--peers", "127.0.0.0/8", "--interface", "lo"]);
    if !args.contains(&"--port") {
        command.args(["--port", "0"]);
    }
    Process::start(name, &command)
}

/// A running `ezio serve`.
pub(crate) struct Server {
    _process: Process,
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    /// Where it speaks BitTorrent.
    pub(crate) port: u64,
}

impl Server {
    /// The announce URL of its tracker.
    pub(crate) fn tracker(&self) -> String {
        format!("{}/announce", self.url)
    }
}

/// Serves the image from its disk; `torrent` says with which trackers.
pub(crate) fn serve(image: &Image, torrent: &Path) -> Server {
    let disk = image.disk();
    let args = ["serve", text(torrent), "--from", text(&disk), "--http", "127.0.0.1:0"];
    let mut process = ezio("ezio serve", &args);
    let ready = process.event("result");
    let number = |key: &str| ready[key].as_u64().expect("a port");
    let url = format!("http://127.0.0.1:{}", number("http_port"));
    Server { _process: process, url, port: number("port") }
}

/// Deploys `from` to `target`.
pub(crate) fn deploy(from: &str, target: &Path, more: &[&str]) -> Process {
    let name = target.file_name().map_or("ezio deploy".into(), |n| n.to_string_lossy());
    let args = [&["deploy", from, "--to", text(target)], more].concat();
    ezio(&name, &args)
}

/// Waits until everything is on the target.
pub(crate) fn wait_deployed(deploy: &mut Process) {
    let done = deploy.wait("the result", |value| match value["event"].as_str() {
        Some("result") => Some(Ok(())),
        Some("error") => Some(Err(value.to_string())),
        _ => None,
    });
    done.unwrap_or_else(|error| panic!("{error}"));
}

/// Waits until everything is on the target and nobody needs this node any more.
pub(crate) fn wait_left(deploy: &mut Process) {
    wait_deployed(deploy);
    let status = deploy.end();
    assert!(status.success(), "{status}");
}

/// Starts libtorrent on `torrent`, a file or a magnet link, in `dir`; `more` is what `node.py` takes beside.
pub(crate) fn libtorrent(name: &str, torrent: &Path, dir: &Path, more: &Value) -> Process {
    let mut config = json!({ "torrent": text(torrent), "dir": text(dir) });
    for (key, value) in more.as_object().expect("an object") {
        config[key] = value.clone();
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stock/node.py");
    let mut command = Command::new(PYTHON);
    command.args([script, &config.to_string()]);
    Process::start(&format!("libtorrent {name}"), &command)
}

/// Starts aria2 on the image in `dir`. Without more it ends when it has everything.
pub(crate) fn aria2(image: &Image, dir: &Path, tracker: &str, more: &[&str]) -> Process {
    let tracker = format!("--bt-tracker={tracker}");
    let more = [&["--bt-exclude-tracker=*", &tracker][..], more].concat();
    aria2_at(text(&image.torrent()), dir, &more)
}

/// Starts aria2 on a magnet link. It ends when it has everything.
pub(crate) fn aria2_link(link: &str, dir: &Path) -> Process {
    aria2_at(link, dir, &[])
}

fn aria2_at(torrent: &str, dir: &Path, more: &[&str]) -> Process {
    let port = lab::free_port();
    let mut command = Command::new("aria2c");
    command.args(["--no-conf", "--enable-dht=false", "--enable-dht6=false", "--seed-time=0"]);
    command.args(["--enable-peer-exchange=false", "--bt-enable-lpd=false", "--disable-ipv6=true"]);
    command.args(["--interface=127.0.0.1", "--file-allocation=none"]);
    command.args(["--bt-tracker-interval=5", "--console-log-level=info", "--summary-interval=0"]);
    command.args([format!("--listen-port={port}-{}", port + 99)]);
    command.args([format!("--dir={}", text(dir))]).args(more).arg(torrent);
    Process::start("aria2", &command)
}

/// Starts aria2 as a seeder of the image's block files.
pub(crate) fn aria2_seeder(image: &Image, tracker: &str) -> Process {
    let forever = ["--seed-ratio=0.0", "--seed-time=100000", "--check-integrity=true"];
    aria2(image, &image.files(), tracker, &forever)
}

/// Waits until aria2 has everything and has ended.
pub(crate) fn wait_aria2(aria2: &mut Process) {
    let status = aria2.end();
    assert!(status.success(), "aria2: {status}");
}

/// A running opentracker.
pub(crate) struct OpenTracker {
    _process: Process,
    /// Its announce URL.
    pub(crate) url: String,
}

/// Starts opentracker, which in Debian's build deals only with torrents on its whitelist: with this
/// one, or with none.
pub(crate) fn opentracker(image: &Image, torrent: Option<&Metainfo>) -> OpenTracker {
    let list = torrent.map_or(String::new(), |t| hex(&t.info_hash()) + "\n");
    let path = image.path("whitelist");
    std::fs::write(&path, list).unwrap();
    let port = lab::free_port();
    let mut process = spawn_opentracker(port, &path);
    assert!(listens(port, &mut process), "opentracker does not start");
    OpenTracker { _process: process, url: format!("http://127.0.0.1:{port}/announce") }
}

fn spawn_opentracker(port: u16, whitelist: &Path) -> Process {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    // As root it would change its user, and the kernel forget to kill it with us.
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]);
    }
    let port = port.to_string();
    command.args(["opentracker", "-i", "127.0.0.1", "-p", &port, "-P", &port]);
    command.args(["-d", "/", "-w", text(whitelist)]);
    Process::spawn("opentracker", command)
}

fn listens(port: u16, process: &mut Process) -> bool {
    let deadline = std::time::Instant::now() + PATIENCE / 10;
    while process.runs() && std::time::Instant::now() < deadline {
        if std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return process.runs();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the test")
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
