//! Trackers that are wrong, slow, gone or hostile. A client says so once, asks again, and finishes
//! as soon as it hears of somebody good.

use crate::image::Image;
use crate::process::{END_TIME_MAX, PATIENCE, Process, eventually, text};
use crate::tracker::{Tracker, ok, peers_answer};
use crate::world::{Count, LEN, World, deploy, deploy_from, serve};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What a tracker does with a request before it behaves.
type Answer = fn(&mut TcpStream) -> io::Result<()>;

/// A client of one tracker that answers `bad` the first time, and then tells of a good server.
/// The client notes something with `words`; nothing if there are none.
#[track_caller]
fn check(bad: impl Fn(&mut TcpStream) -> io::Result<()> + Send + Sync + 'static, words: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (good, asked) = (Arc::<AtomicU16>::default(), Count::default());
    let port = Arc::clone(&good);
    let tracker = Tracker::start(move |stream, announce| {
        if announce.left == Some(0) {
            return stream.write_all(&peers_answer(&[], 1800));
        }
        match asked.add() {
            0 => bad(stream),
            _ => stream.write_all(&peers_answer(&[local(port.load(Ordering::Relaxed))], 1800)),
        }
    });
    let image = Image::new(dir.path(), LEN, &[tracker.url()]);
    let (mut server, port) = serve(&image, "0");
    good.store(port, Ordering::Relaxed);
    let target = dir.path().join("target");
    let mut client = deploy(&image, &target);
    if !words.is_empty() {
        client.note(words);
        client.note("answers");
    }
    client.result();
    assert_eq!(client.code(PATIENCE), Some(0));
    assert!(std::fs::read(&target).unwrap() == *image.bytes);
    client.check_calm(5);
    server.signal("TERM");
    assert_eq!(server.code(END_TIME_MAX), Some(0));
    server.check_calm(4);
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[track_caller]
fn check_status(status: &'static str) {
    check(
        move |stream| write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\noops"),
        status,
    );
}

#[test]
fn bytes_that_are_no_http() {
    check(|stream| stream.write_all(&[0xa5; 3000]), "announce to");
}

#[test]
fn bytes_that_are_no_answer() {
    check(|stream| stream.write_all(&ok(b"<html>It works!</html>")), "announce to");
}

#[test]
fn an_answer_that_breaks_off() {
    check(|stream| stream.write_all(&ok(b"d8:intervali5e5:peers6:abcdefe")[..70]), "announce to");
}

#[test]
fn nothing_is_found() {
    check_status("404 Not Found");
}

#[test]
fn the_server_fails() {
    check_status("500 Internal Server Error");
}

#[test]
fn a_failure_reason() {
    let body = b"d14:failure reason23:go away \x1b[2J, stranger!e";
    check(|stream| stream.write_all(&ok(body)), "go away");
}

#[test]
fn a_redirection_to_itself() {
    check(
        |stream| {
            // All of them are asked by the same announce.
            let own = stream.local_addr()?;
            redirect(stream, &format!("http://{own}/loop"))
        },
        "announce to",
    );
}

fn redirect(stream: &mut TcpStream, to: &str) -> io::Result<()> {
    write!(stream, "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
}

#[test]
fn a_loop_of_redirections() {
    let asked = Count::default();
    let counted = asked.clone();
    let endless = Tracker::start(move |stream, _| {
        counted.add();
        redirect(stream, &format!("http://{}/announce?{QUERY}", stream.local_addr()?))
    });
    let url = endless.url();
    check(
        move |stream| redirect(stream, &format!("{url}?{QUERY}")),
        "redirected more than 3 times",
    );
    assert_eq!(asked.get(), 3);
}

/// What a tracker led by hand takes for an announce.
const QUERY: &str = "info_hash=%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00\
    &peer_id=%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00&port=1&left=1";

#[test]
fn a_good_redirection() {
    let moved = Tracker::of(Vec::new());
    let url = moved.url();
    // An answer of nobody; the tracker that redirected knows somebody when it is asked again.
    check(move |stream| redirect(stream, &format!("{url}?{QUERY}")), "");
    assert_eq!(moved.asked(), 1);
}

#[test]
fn silence() {
    check(wait_for_end, "no");
}

/// Keeps the connection open until the other side closes it.
fn wait_for_end(stream: &mut TcpStream) -> io::Result<()> {
    io::copy(stream, &mut io::sink()).map(drop)
}

#[test]
fn an_answer_byte_by_byte() {
    let drip: Answer = |stream| {
        for byte in peers_answer(&[], 1800) {
            stream.write_all(&[byte])?;
            thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    };
    check(drip, "announce to");
}

#[test]
fn an_answer_without_end() {
    check(
        |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            loop {
                stream.write_all(&[b'1'; 4096])?;
            }
        },
        "more than",
    );
}

#[test]
fn headers_without_end() {
    check(
        |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            loop {
                stream.write_all(b"X-More: and more\r\n")?;
            }
        },
        "announce to",
    );
}

#[test]
fn an_answer_of_a_hundred_megabytes() {
    let huge: Answer = |stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")?;
        for _ in 0..100 {
            stream.write_all(&[b'1'; 1_000_000])?;
        }
        Ok(())
    };
    check(huge, "more than");
}

#[test]
fn an_interval_of_nothing() {
    check(|stream| stream.write_all(&peers_answer(&[], 0)), "");
}

/// 68 years; who has nobody asks again all the same.
#[test]
fn an_interval_of_a_lifetime() {
    check(|stream| stream.write_all(&peers_answer(&[], 1 << 31)), "");
}

#[test]
fn a_negative_interval() {
    check(|stream| stream.write_all(&peers_answer(&[], -1)), "");
}

#[test]
fn peers_that_cannot_be() {
    let outside = [[8, 8, 8, 8], [255, 255, 255, 255], [0, 0, 0, 0], [224, 0, 0, 1]];
    let mut peers: Vec<SocketAddr> = outside.map(|ip| SocketAddr::from((ip, 6881))).to_vec();
    peers.push(local(0));
    check(move |stream| stream.write_all(&peers_answer(&peers, 1800)), "");
}

#[test]
fn ten_thousand_peers_that_are_not_there() {
    // Nobody listens on ports below 1024 of these addresses.
    let peer = |i: u16| SocketAddr::from(([127, 0, 9, (i % 250) as u8 + 1], i / 250 + 1));
    let peers: Vec<SocketAddr> = (0..10_000).map(peer).collect();
    check(move |stream| stream.write_all(&peers_answer(&peers, 1800)), "");
}

/// They take connections and never say a word: each is waited for, but not all of them at once.
#[test]
fn hundreds_of_peers_that_keep_silent() {
    let world = World::new(LEN);
    let silent: Vec<TcpListener> =
        (0..400).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    world.addrs(silent.iter().map(|peer| peer.local_addr().unwrap()).collect());
    let mut client = world.deploy(0);
    world.tracker.client();
    world.show();
    let mut most = 0;
    let done = eventually(PATIENCE, || {
        most = most.max(client.files());
        (!client.is_running()).then_some(())
    });
    assert!(done.is_some(), "{}", client.said());
    assert!(most < 120, "{most} files and sockets for 64 connections");
    world.check_done(&mut client, 0);
}

#[test]
fn the_clients_own_address() {
    let tracker = Tracker::start(move |stream, announce| {
        stream.write_all(&peers_answer(&[local(announce.port)], 1800))
    });
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new(dir.path(), LEN, &[tracker.url()]);
    let client = deploy(&image, &dir.path().join("target"));
    tracker.client();
    let before = client.cost();
    // It asks again because it has nobody: it does not take itself for somebody.
    let again = eventually(PATIENCE, || (tracker.asked() >= 3).then_some(()));
    assert!(again.is_some(), "{}", client.said());
    client.wait_for_threads(before.threads);
}

#[test]
fn a_tracker_in_silence_does_not_keep_a_client_from_ending() {
    let dir = tempfile::tempdir().unwrap();
    let tracker = Tracker::start(|stream, _| wait_for_end(stream));
    let image = Image::new(dir.path(), LEN, &[tracker.url()]);
    let mut client = deploy(&image, &dir.path().join("target"));
    tracker.client();
    client.signal("TERM");
    assert_eq!(client.code(END_TIME_MAX), Some(1));
    assert!(client.error().contains("interrupted"));
}

/// A server that never finishes the torrent it hands out.
#[test]
fn a_torrent_byte_by_byte_does_not_keep_a_client_from_ending() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.torrent", listener.local_addr().unwrap());
    let asked = Count::default();
    let counted = asked.clone();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        // The question comes in one packet.
        let _ = stream.read(&mut [0; 4096])?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
        counted.add();
        loop {
            stream.write_all(b"d")?;
            thread::sleep(Duration::from_millis(100));
        }
        #[expect(unreachable_code, reason = "it says what the closure returns")]
        io::Result::Ok(())
    });
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    let mut client = deploy_from(&url, &target, &[]);
    asked.wait(1);
    thread::sleep(Duration::from_millis(500));
    client.signal("TERM");
    let began = Instant::now();
    assert_eq!(client.code(END_TIME_MAX), Some(1), "after {:?}", began.elapsed());
    let said = client.error();
    assert!(said.contains("interrupted"), "{said}");
    assert!(!target.exists());
}

/// The server, which is the tracker too, comes later than its clients, who have given up nothing.
#[test]
fn gone_for_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let http = local(lab::free_port()).to_string();
    let image = Image::new(dir.path(), LEN, &[format!("http://{http}/announce")]);
    let targets: Vec<_> = (0..2).map(|i| dir.path().join(format!("target{i}"))).collect();
    let clients: Vec<Process> = targets.iter().map(|target| deploy(&image, target)).collect();
    for client in &clients {
        client.note("it will be tried again");
    }
    thread::sleep(Duration::from_secs(20));
    let (torrent, from) = (text(&image.torrent), text(&image.path));
    let args = ["serve", torrent, "--from", from, "--http", &http, "--port", "0"];
    let server = Process::start(&args);
    server.result();
    for (mut client, target) in clients.into_iter().zip(&targets) {
        client.note("answers");
        client.result();
        assert_eq!(client.code(PATIENCE), Some(0));
        assert!(std::fs::read(target).unwrap() == *image.bytes);
        client.check_calm(6);
    }
}
