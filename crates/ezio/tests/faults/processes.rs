//! Processes that are told to end, or killed, at any moment.

use crate::image::Image;
use crate::peer::Listener;
use crate::process::{END_TIME_MAX, PATIENCE, Process, eventually, text};
use crate::tracker::{Tracker, peers_answer};
use crate::world::{deploy, deploy_from, serve};
use lab::Random;
use lab::free_port;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Bytes of the image: some seconds of a slow cable.
const LEN: usize = 12 << 20;

/// A slow cable to a server that may go and come back.
struct Scene {
    image: Image,
    tracker: Tracker,
    port: String,
    dir: tempfile::TempDir,
    _cable: Listener,
}

impl Scene {
    /// `bytes_per_s` for each connection.
    fn new(bytes_per_s: u64) -> Scene {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let cable = Listener::start(move |conn| {
            let server = TcpStream::connect(("127.0.0.1", port))?;
            carry(conn.stream, server, bytes_per_s)
        });
        let peers = vec![cable.addr()];
        let tracker = Tracker::start(move |stream, announce| {
            let told = if announce.left == Some(0) { &[][..] } else { &peers };
            stream.write_all(&peers_answer(told, 1800))
        });
        let image = Image::new(dir.path(), LEN, &[tracker.url()]);
        Scene { image, tracker, port: port.to_string(), dir, _cable: cable }
    }

    fn serve(&self) -> Process {
        serve(&self.image, &self.port).0
    }

    fn target(&self, number: u32) -> PathBuf {
        self.dir.path().join(format!("target{number}"))
    }

    fn deploy(&self, number: u32) -> Process {
        deploy(&self.image, &self.target(number))
    }
}

/// Carries bytes both ways until one side ends.
fn carry(near: TcpStream, far: TcpStream, bytes_per_s: u64) -> io::Result<()> {
    near.set_read_timeout(None)?;
    let (up, down) = ((near.try_clone()?, far.try_clone()?), (far, near));
    thread::spawn(move || pour(up.0, up.1, u64::MAX));
    pour(down.0, down.1, bytes_per_s)
}

fn pour(mut from: TcpStream, mut to: TcpStream, bytes_per_s: u64) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let len = from.read(&mut bytes).unwrap_or(0);
        if len == 0 || to.write_all(&bytes[..len]).is_err() {
            let _ = to.shutdown(std::net::Shutdown::Both);
            return from.shutdown(std::net::Shutdown::Both);
        }
        thread::sleep(Duration::from_micros(len as u64 * 1_000_000 / bytes_per_s));
    }
}

/// Waits until a client has written something, which is not all.
#[track_caller]
fn wait_for_middle(client: &Process) {
    client.event("progress", |event| {
        let some = event["bytes"].as_u64().is_some_and(|bytes| bytes > 0);
        assert_ne!(event["event"], "result", "it was too fast for this test");
        event["event"] == "progress" && some
    });
}

#[track_caller]
fn check_target(image: &Image, target: &Path) {
    assert!(std::fs::read(target).unwrap() == *image.bytes, "{}", target.display());
}

#[test]
fn the_server_is_killed_and_started_again() {
    let scene = Scene::new(3 << 20);
    let server = scene.serve();
    let mut client = scene.deploy(0);
    wait_for_middle(&client);
    // Dropping it kills it.
    drop(server);
    thread::sleep(Duration::from_secs(3));
    let _server = scene.serve();
    client.result();
    assert_eq!(client.code(PATIENCE), Some(0));
    check_target(&scene.image, &scene.target(0));
    client.check_calm(4);
}

/// What the server is besides a seeder, its clients' tracker, comes back with it.
#[test]
fn the_server_and_tracker_are_killed_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let [port, http] = [free_port(), free_port()].map(|port| port.to_string());
    let image = Image::new(dir.path(), 5 * LEN, &[]);
    let http = format!("127.0.0.1:{http}");
    let (torrent, from) = (text(&image.torrent), text(&image.path));
    let args = ["serve", torrent, "--from", from, "--http", &http, "--port", &port];
    let server = Process::start(&args);
    server.result();
    let targets: Vec<_> = (0..3).map(|i| dir.path().join(format!("target{i}"))).collect();
    let url = format!("http://{http}");
    let clients: Vec<Process> =
        targets.iter().map(|target| deploy_from(&url, target, &[])).collect();
    // As soon as one has begun to write.
    let begun = |target: &PathBuf| {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(target).is_ok_and(|file| file.blocks() > 0)
    };
    let middle = eventually(PATIENCE, || targets.iter().any(begun).then_some(()));
    assert!(middle.is_some(), "{}", clients[0].said());
    drop(server);
    thread::sleep(Duration::from_secs(2));
    let _server = Process::start(&args);
    for (mut client, target) in clients.into_iter().zip(&targets) {
        client.result();
        assert_eq!(client.code(PATIENCE), Some(0));
        check_target(&image, target);
        client.check_calm(8);
    }
}

#[test]
fn a_client_is_killed_and_the_others_finish() {
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new(dir.path(), 2 * LEN, &[]);
    let (torrent, from) = (text(&image.torrent), text(&image.path));
    let args = ["serve", torrent, "--from", from, "--http", "127.0.0.1:0", "--port", "0"];
    let server = Process::start(&args);
    let url = format!("http://127.0.0.1:{}", server.result()["http_port"]);
    let targets: Vec<_> = (0..4).map(|i| dir.path().join(format!("target{i}"))).collect();
    let mut clients: Vec<Process> =
        targets.iter().map(|target| deploy_from(&url, target, &[])).collect();
    let begun = |target: &PathBuf| {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(target).is_ok_and(|file| file.blocks() > 0)
    };
    assert!(eventually(PATIENCE, || begun(&targets[0]).then_some(())).is_some());
    drop(clients.remove(0));
    for (mut client, target) in clients.into_iter().zip(&targets[1..]) {
        client.result();
        assert_eq!(client.code(PATIENCE), Some(0));
        check_target(&image, target);
    }
}

/// Tells a client to end `delay` after it was heard of.
fn check_signal(scene: &Scene, number: u32, signal: &str, delay: Duration) {
    let what = format!("{signal} after {delay:?}");
    let heard = scene.tracker.asked();
    let mut client = scene.deploy(number);
    let known = eventually(PATIENCE, || (scene.tracker.asked() > heard).then_some(()));
    assert!(known.is_some(), "{what}: {}", client.said());
    let port = scene.tracker.last_port();
    thread::sleep(delay);
    client.signal(signal);
    assert_eq!(client.code(END_TIME_MAX), Some(1), "{what}: {}", client.said());
    let said = client.error();
    let target = scene.target(number);
    assert!(said.contains("interrupted") && said.contains("is not usable"), "{what}: {said}");
    assert!(said.contains(text(&target)), "{what}: {said}");
    client.check_calm(4);
    let mut head = Vec::new();
    std::fs::File::open(&target).unwrap().take(4096).read_to_end(&mut head).unwrap();
    assert!(head.iter().all(|&byte| byte == 0), "{what}: the target looks usable");
    assert!(scene.tracker.has_left(port), "{what}: the tracker was not told");
}

#[test]
fn a_client_is_told_to_end_at_any_moment() {
    let scene = Scene::new(2 << 20);
    let server = scene.serve();
    let mut random = Random::new(11);
    for number in 0..8 {
        let signal = if number % 2 == 0 { "TERM" } else { "INT" };
        check_signal(&scene, number, signal, Duration::from_millis(random.below(2500)));
    }
    server.check_calm(12);
}

#[test]
fn a_server_is_told_to_end_at_any_moment() {
    let scene = Scene::new(4 << 20);
    let mut random = Random::new(12);
    let mut client = scene.deploy(0);
    for number in 0..6 {
        let signal = if number % 2 == 0 { "INT" } else { "TERM" };
        let delay = Duration::from_millis(random.below(900));
        let mut server = scene.serve();
        thread::sleep(delay);
        server.signal(signal);
        let code = server.code(END_TIME_MAX);
        assert_eq!(code, Some(0), "{signal} after {delay:?}: {}", server.said());
        server.check_calm(4);
        let port = scene.port.parse().unwrap();
        assert!(scene.tracker.has_left(port), "{signal} after {delay:?}: the tracker was not told");
    }
    let _server = scene.serve();
    client.result();
    assert_eq!(client.code(PATIENCE), Some(0));
    check_target(&scene.image, &scene.target(0));
}

/// Done, and serving others: it ends well when it is told to.
#[test]
fn a_client_that_is_done_is_told_to_end() {
    let scene = Scene::new(u64::MAX);
    let _server = scene.serve();
    let target = scene.target(0);
    let mut client = deploy_from(text(&scene.image.torrent), &target, &[]);
    client.result();
    client.signal("TERM");
    assert_eq!(client.code(END_TIME_MAX), Some(0));
    check_target(&scene.image, &target);
}
