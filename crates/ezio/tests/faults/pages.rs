//! Machines that do not exist report to a server, and their pages are read slowly or not at all: what
//! that costs in memory is bounded.

use crate::image::Image;
use crate::peer::Conn;
use crate::process::{END_TIME_MAX, Process, text};
use crate::world::LEN;
use std::io::{self, Read as _};
use std::thread;
use std::time::Duration;

/// Memory that it may cost: 16 MiB of reports, 48 MiB of answers and one that is made, half-read bodies.
const PEAK_MAX: u64 = 128 << 20;

fn serve(image: &Image) -> (Process, u16) {
    let (torrent, from) = (text(&image.torrent), text(&image.path));
    let server =
        Process::start(&["serve", torrent, "--from", from, "--http", "127.0.0.1:0", "--port", "0"]);
    let port = server.result()["http_port"].as_u64().and_then(|port| u16::try_from(port).ok());
    (server, port.expect("a port"))
}

/// Reports of 50 KB that are read into thirty times as much: of as many machines as one address has.
fn report(machine: u8, port: u16) -> io::Result<()> {
    let numbers = "0,".repeat(25_000);
    for node in 0..60 {
        let body = format!(r#"{{"node":"{node}","x":[{numbers}0]}}"#);
        let len = body.len();
        let mut conn = Conn::dial_from([127, 0, 1, machine], port)?;
        conn.raw(
            format!(
                "POST /api/report HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
            )
            .as_bytes(),
        )?;
        // That there are too many is said to the last of them.
        conn.stream.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

#[test]
fn reports_that_stand_for_more_and_pages_that_nobody_reads() {
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new(dir.path(), LEN, &[]);
    let (mut server, port) = serve(&image);
    let before = server.cost();
    thread::scope(|scope| {
        for machine in 1..8 {
            scope.spawn(move || report(machine, port).unwrap());
        }
    });
    let mut readers: Vec<Conn> = Vec::new();
    for machine in 1..4 {
        for _ in 0..40 {
            let mut conn = Conn::dial_from([127, 0, 2, machine], port).unwrap();
            conn.raw(b"GET /api/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
            readers.push(conn);
        }
    }
    // Somebody who reads is answered when those who do not were sent away, if not before.
    let answer = (0..60).find_map(|_| {
        thread::sleep(Duration::from_millis(500));
        let mut conn = Conn::dial_from([127, 0, 3, 1], port).ok()?;
        conn.raw(b"GET /api/status HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").ok()?;
        let mut answer = String::new();
        conn.stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.0 200").then_some(answer)
    });
    let answer = answer.expect("an answer");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let status: serde_json::Value = serde_json::from_str(body).unwrap();
    let nodes = status["nodes"].as_array().map_or(0, Vec::len);
    assert!(nodes > 250, "{nodes} machines are remembered");
    assert!(status["tracker"].is_array() && status["nodes"][0]["report"]["x"][9] == 0);
    let cost = server.cost();
    println!("{nodes} machines, before {before:?}, at most {cost:?}");
    assert!(cost.peak < before.peak + PEAK_MAX, "{cost:?}, {before:?} before");
    drop(readers);
    server.signal("TERM");
    assert_eq!(server.code(END_TIME_MAX), Some(0), "{}", server.said());
}

/// A torrent of some megabytes, as of a disk in a million parts, is kept once, and not for everybody who
/// fetches it.
#[test]
fn a_large_torrent_that_everybody_fetches_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let image = Image::in_parts(dir.path(), 100_000);
    let (mut server, port) = serve(&image);
    let before = server.cost();
    let len = std::fs::metadata(&image.torrent).unwrap().len();
    assert!(len > 4 << 20, "{len}");
    let mut readers: Vec<Conn> = Vec::new();
    for _ in 0..60 {
        let mut conn = Conn::dial(port).unwrap();
        conn.raw(b"GET /torrents/image.torrent HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        readers.push(conn);
    }
    // All of them have begun to get it.
    for conn in &mut readers {
        conn.stream.read_exact(&mut [0; 1000]).unwrap();
    }
    let mut rest = Vec::new();
    readers[59].stream.read_to_end(&mut rest).unwrap();
    assert!(std::fs::read(&image.torrent).unwrap().ends_with(&rest) && rest.len() > 4 << 20);
    let cost = server.cost();
    println!("{len} bytes, before {before:?}, at most {cost:?}");
    assert!(cost.peak < before.peak + (32 << 20), "{cost:?}, {before:?} before");
    drop(readers);
    server.signal("TERM");
    assert_eq!(server.code(END_TIME_MAX), Some(0), "{}", server.said());
}
