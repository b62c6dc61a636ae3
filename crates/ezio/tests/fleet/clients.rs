//! Stock clients on machines of their own. They and we find each other by local discovery (BEP 14),
//! as under Clonezilla, whose tracker refuses everybody.

use crate::world::{Image, Process, World, text, wait};
use lab::Need;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// What every test needs.
pub(crate) const NEEDS: [Need; 5] =
    [Need::Root, Need::Loop, Need::Program("ip"), Need::Program("tc"), Need::Program("setpriv")];

/// Debian's Python: others do not know Debian's libtorrent.
const PYTHON: &str = "/usr/bin/python3";

/// A client that is not ours.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stock {
    Transmission,
    Qbittorrent,
    Aria2,
    Libtorrent,
    /// libtorrent as the C++ EZIO sets it, with the limits of `ezio_add_torrent.py`.
    OldEzio,
}

impl Stock {
    /// Why it cannot be run here.
    pub(crate) fn missing(self) -> Option<String> {
        let program = match self {
            Stock::Transmission => "transmission-daemon",
            Stock::Qbittorrent => "qbittorrent-nox",
            Stock::Aria2 => "aria2c",
            Stock::Libtorrent | Stock::OldEzio => {
                let mut import = lab::tool::words(PYTHON);
                let import = lab::tool::run(import.args(["-c", "import libtorrent"]));
                return import.err().map(|why| format!("no python3-libtorrent: {why:#}"));
            }
        };
        lab::require(&[Need::Program(program)]).err()
    }

    /// Starts it on the torrent with the files below `dir`: what is right there it seeds, the rest
    /// it downloads.
    pub(crate) fn start(
        self,
        world: &World,
        machine: usize,
        torrent: &Path,
        dir: &Path,
    ) -> Process {
        std::fs::create_dir_all(dir).unwrap();
        let home = world.path(&format!("home of {machine}"));
        std::fs::create_dir_all(&home).unwrap();
        let (torrent, dir) = (text(torrent), text(dir));
        match self {
            Stock::Transmission => transmission(world, machine, torrent, dir, &home),
            Stock::Qbittorrent => qbittorrent(world, machine, torrent, dir, &home),
            Stock::Aria2 => aria2(world, machine, torrent, dir),
            Stock::Libtorrent => libtorrent(world, machine, torrent, dir, &json!({})),
            Stock::OldEzio => libtorrent(world, machine, torrent, dir, &old_ezio()),
        }
    }
}

/// Starts a program that dies with the test.
fn start(world: &World, machine: usize, program: &str, args: &[&str]) -> Process {
    let leash = ["--pdeathsig", "KILL", "--", program];
    world.start(machine, Path::new("setpriv"), &[&leash[..], args].concat())
}

fn transmission(world: &World, machine: usize, torrent: &str, dir: &str, home: &Path) -> Process {
    let settings = json!({
        "dht-enabled": false,
        "lpd-enabled": true,
        "utp-enabled": false,
        "port-forwarding-enabled": false,
        "rename-partial-files": false,
        "rpc-authentication-required": false,
        "rpc-whitelist-enabled": false,
        "ratio-limit-enabled": false,
        // Others, too, may run it.
        "bind-address-ipv4": world.lan.addr(machine).to_string(),
    });
    std::fs::write(home.join("settings.json"), settings.to_string()).unwrap();
    let args = ["-f", "-g", text(home), "-w", dir, "--log-info"];
    let mut daemon = start(world, machine, "transmission-daemon", &args);
    wait("transmission takes the torrent", || {
        assert!(daemon.code().is_none(), "transmission: {}", daemon.all());
        let args = ["127.0.0.1:9091", "--add", torrent];
        world.start(machine, Path::new("transmission-remote"), &args).end().success()
    });
    daemon
}

fn qbittorrent(world: &World, machine: usize, torrent: &str, dir: &str, home: &Path) -> Process {
    let config = home.join("qBittorrent/config");
    std::fs::create_dir_all(&config).unwrap();
    let settings = "[LegalNotice]\nAccepted=true\n\n[BitTorrent]\nSession\\DHTEnabled=false\n\
                    Session\\LSDEnabled=true\nSession\\PeXEnabled=false\n\
                    Session\\BTProtocol=TCP\nSession\\Preallocation=false\n\n[Network]\n\
                    PortForwardingEnabled=false\n";
    std::fs::write(config.join("qBittorrent.conf"), settings).unwrap();
    let options = [format!("--profile={}", text(home)), format!("--save-path={dir}")];
    let args = [&options[0], &options[1], "--add-paused=false", "--skip-dialog=true", torrent];
    start(world, machine, "qbittorrent-nox", &args)
}

fn aria2(world: &World, machine: usize, torrent: &str, dir: &str) -> Process {
    let options = "--no-conf --enable-dht=false --enable-dht6=false --disable-ipv6=true \
                   --enable-peer-exchange=false --bt-enable-lpd=true --file-allocation=none \
                   --check-integrity=true --seed-ratio=0.0 --seed-time=100000 \
                   --bt-exclude-tracker=* --console-log-level=notice --summary-interval=0";
    let dir = format!("--dir={dir}");
    let mut args: Vec<&str> = options.split_whitespace().collect();
    let lpd = format!("--bt-lpd-interface={}", world.lan.addr(machine));
    args.extend([&lpd[..], &dir, torrent]);
    start(world, machine, "aria2c", &args)
}

fn libtorrent(world: &World, machine: usize, torrent: &str, dir: &str, more: &Value) -> Process {
    let mut config = json!({
        "torrent": torrent,
        "dir": dir,
        "everywhere": true,
        "settings": { "listen_interfaces": "0.0.0.0:6881", "enable_lsd": true },
    });
    for (key, value) in more.as_object().expect("an object") {
        config[key] = value.clone();
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stock/node.py");
    start(world, machine, PYTHON, &[script, &config.to_string()])
}

/// Starts libtorrent on a machine where it knows nobody but the peer at `addr`, and takes its time.
pub(crate) fn slow_stranger(
    world: &World,
    machine: usize,
    image: &Image,
    dir: &Path,
    addr: Ipv4Addr,
) -> Process {
    std::fs::create_dir_all(dir).unwrap();
    let config = json!({
        "peers": [[addr.to_string(), 6881]],
        "download_limit": 300_000,
        "settings": { "listen_interfaces": "0.0.0.0:6881", "enable_lsd": false },
    });
    libtorrent(world, machine, image.torrent(), text(dir), &config)
}

/// The settings of a node of EZIO 2.x, and the limits of `ezio_add_torrent.py`.
fn old_ezio() -> Value {
    json!({
        "max_connections": 3,
        "max_uploads": 2,
        "settings": {
            "listen_interfaces": "0.0.0.0:6881",
            "enable_lsd": true,
            "allow_multiple_connections_per_ip": false,
            // Neither offered nor taken.
            "in_enc_policy": 2,
            "out_enc_policy": 2,
            "prefer_rc4": false,
            "unchoke_slots_limit": -1,
            "connections_limit": 1000,
            "send_buffer_watermark": 128 << 20,
            "send_buffer_low_watermark": 32 << 20,
            "mixed_mode_algorithm": 0,
            "suggest_mode": 1,
        },
        "filtered": true,
    })
}

/// Where a client has its files, on the machine of this number.
pub(crate) fn dir(world: &World, machine: usize) -> PathBuf {
    world.path(&format!("files of {machine}"))
}
