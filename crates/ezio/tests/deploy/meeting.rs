//! How nodes find each other: by the tracker, by local discovery, over IPv4 and IPv6.

use crate::{ezio, text, torrent_of};
use lab::Running;
use serde_json::Value;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// Starts `ezio` with `args`, `--json` and any free port, and nothing else.
fn start(args: &[&str]) -> Running {
    let mut command = Command::new(ezio());
    command.args(args).args(["--json", "--port", "0"]);
    Running::spawn(command).unwrap()
}

fn image(path: &Path, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    lab::Random::new(11).fill(&mut bytes);
    std::fs::write(path, &bytes).unwrap();
    bytes
}

/// A server with its HTTP at `http`, once it is ready.
fn serve(source: &Path, http: &str, options: &[&str]) -> (Running, Value) {
    let mut server = start(&[&["serve", text(source), "--http", http], options].concat());
    let ready = server.ready().unwrap();
    (server, ready)
}

#[test]
fn over_ipv6_alone() {
    if TcpListener::bind("[::1]:0").is_err() {
        lab::skip!("this machine has no IPv6");
    }
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("disk.img"), dir.path().join("copy.img"));
    let bytes = image(&source, 3_000_000);
    let inside = ["--peers", "::1/128", "--interface", "lo"];
    let (_server, ready) = serve(&source, "[::1]:0", &inside);
    let url = format!("http://[::1]:{}", ready["http_port"]);
    assert_eq!(ready["deploy"][0], format!("ezio deploy {url} --to DEVICE"));
    let mut client = start(&[&["deploy", &url, "--to", text(&target)][..], &inside].concat());
    client.result().unwrap();
    assert_eq!(client.code().unwrap(), Some(0));
    assert!(std::fs::read(&target).unwrap() == bytes);
}

/// The torrent names no tracker, and nobody is told an address.
#[test]
fn by_local_discovery_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let bytes = image(&path("disk.img"), 3_000_000);
    let inside = ["--peers", "127.0.0.0/8", "--interface", "lo"];
    let (_server, ready) = serve(&path("disk.img"), "127.0.0.1:0", &inside);
    let torrent = torrent_of(&format!("http://127.0.0.1:{}", ready["http_port"]));
    assert_eq!(torrent.trackers(), [] as [Vec<String>; 0]);
    let (file, target) = (path("x.torrent"), path("copy.img"));
    std::fs::write(&file, torrent.as_bytes()).unwrap();
    let args = ["deploy", text(&file), "--to", text(&target)];
    let mut client = start(&[&args[..], &inside].concat());
    client.result().unwrap();
    assert_eq!(client.code().unwrap(), Some(0));
    assert!(std::fs::read(&target).unwrap() == bytes);
}

/// Peers outside of `--peers` are neither dialled nor let in: then there is nobody, and that is
/// said.
#[test]
fn nobody_outside_of_the_allowed_networks() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    image(&path("disk.img"), 100_000);
    let (_server, ready) =
        serve(&path("disk.img"), "127.0.0.1:0", &["--peers", "10.0.0.0/8", "--interface", "lo"]);
    let url = format!("http://127.0.0.1:{}", ready["http_port"]);
    let mut client = start(&[
        "deploy",
        &url,
        "--to",
        text(&path("copy.img")),
        "--interface",
        "lo",
        "--state",
        text(&path("state")),
    ]);
    loop {
        let event = client.event().unwrap().expect("it waits");
        assert_ne!(event["event"], "result");
        if event["message"].as_str().is_some_and(|text| text.contains("no peer was found")) {
            break;
        }
    }
    client.signal("TERM").unwrap();
    assert_eq!(client.code().unwrap(), Some(1));
}
