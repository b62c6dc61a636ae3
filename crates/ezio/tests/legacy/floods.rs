//! A daemon that downloads while somebody floods its gRPC service, frame by frame (RFC 9113): it goes on
//! downloading, answers who behaves, and keeps its memory, threads and descriptors within bounds.

use crate::world::{GRPC, Image, PATIENCE, Process, World, wait};
use ezio::legacy::Client;
use ezio::legacy::messages::Torrent;
use lab::{Links, Need};
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const NEEDS: [Need; 4] = [Need::Root, Need::Loop, Need::Program("ip"), Need::Program("tc")];

/// Bytes a second of the links: the download takes some seconds of flood.
const RATE: u64 = 4_000_000;

/// What an answer may take, however busy the machine is: long before a silent guest is sent away.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(8);

/// Memory that a flood may cost: a window of a MiB for each of 64 connections, and as much again.
const PEAK_MAX: u64 = 128 << 20;

/// Descriptors that it may cost: 64 connections, and who waits to become one.
const FILES_MAX: usize = 64 + 8;

/// Threads that it may cost: those that calls may wait on.
const THREADS_MAX: u64 = 8 + 2;

/// Runs `flood` again and again on three threads beside a daemon that downloads.
#[track_caller]
fn check_flood(flood: impl Fn(&AtomicBool) -> io::Result<()> + Send + Sync) {
    lab::require!(NEEDS);
    let world = World::with_links(2, &Links::equal(RATE));
    let image = Image::new(world.dir.path(), "sda1", 7);
    let (source, target) = (image.source(world.path("from")), image.target(world.path("to")));
    let (_seeder, mut daemon) = (world.daemon(0, &[]), world.daemon(1, &[]));
    world.add(0, &image, source.path(), true);
    let before = Cost::of(&daemon);
    world.add(1, &image, target.path(), false);
    let over = AtomicBool::new(false);
    let mut most = before;
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        let _end = OnEnd(&over);
        for _ in 0..3 {
            scope.spawn(|| {
                world.lan.within(1, || {
                    while !over.load(Ordering::Relaxed) {
                        // That it is sent away is as it should be.
                        let _ = flood(&over);
                    }
                })
            });
        }
        wait("the torrent is finished", || {
            let begin = Instant::now();
            let answer = world.lan.within(1, || answer(begin)).unwrap();
            slowest = slowest.max(begin.elapsed());
            most = most.max(Cost::of(&daemon));
            answer.iter().all(|torrent| torrent.is_finished)
        });
    });
    image.check(target.path());
    println!("before {before:?}, at most {most:?}, slowest answer {slowest:?}");
    assert!(slowest < ANSWER_TIME_MAX, "an answer took {slowest:?}");
    assert!(most.peak < before.peak + PEAK_MAX, "{most:?}, {before:?} before");
    assert!(most.files < before.files + FILES_MAX, "{most:?}, {before:?} before");
    // Those of the download, too: a reader, a writer, the disk.
    assert!(most.threads < before.threads + THREADS_MAX + 12, "{most:?}, {before:?} before");
    wait("the guests are gone", || Cost::of(&daemon).files < before.files + 12);
    world.ask(1, Client::shutdown).unwrap();
    assert_eq!(daemon.end().code(), Some(0));
    assert!(!daemon.all().contains("panicked"), "{}", daemon.all());
}

/// Asks until there is an answer: who is sent away for a newcomer comes again, as people do.
fn answer(begin: Instant) -> Vec<Torrent> {
    loop {
        match Client::connect(GRPC).and_then(|mut daemon| daemon.status(&[])) {
            Ok(torrents) => return torrents,
            Err(why) => assert!(begin.elapsed() < ANSWER_TIME_MAX, "no answer in time: {why:#}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// What the kernel says of a process.
#[derive(Clone, Copy, Debug)]
struct Cost {
    threads: u64,
    /// The most memory it ever had, in bytes.
    peak: u64,
    files: usize,
}

impl Cost {
    fn of(process: &Process) -> Cost {
        let proc = format!("/proc/{}", process.id());
        let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        let files = std::fs::read_dir(format!("{proc}/fd")).unwrap().count();
        Cost { threads: field("Threads:"), peak: field("VmHWM:") << 10, files }
    }

    fn max(self, other: Cost) -> Cost {
        Cost {
            threads: self.threads.max(other.threads),
            peak: self.peak.max(other.peak),
            files: self.files.max(other.files),
        }
    }
}

/// Sets the flag when it is dropped, also by a test that fails: its flood must end.
struct OnEnd<'a>(&'a AtomicBool);

impl Drop for OnEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// More connections than there are places: silent ones, half prefaces, and those that say who they are
/// and then nothing, or nothing but signs of life.
#[test]
fn connections_that_say_little_keep_nobody_out() {
    check_flood(|over| {
        let mut conns = Vec::new();
        while !over.load(Ordering::Relaxed) {
            for kind in 0..100 {
                let Ok(mut conn) = dial() else { break };
                let words = preface();
                let said = match kind % 4 {
                    0 => 0,
                    1 => 10,
                    _ => words.len(),
                };
                if conn.write_all(&words[..said]).is_ok() {
                    conns.push((conn, kind));
                }
            }
            for _ in 0..10 {
                let ping = frame(6, 0, 0, &[0; 8]);
                conns.retain_mut(|(conn, kind)| *kind % 4 != 3 || conn.write_all(&ping).is_ok());
                thread::sleep(Duration::from_millis(50));
            }
            let surplus = conns.len().saturating_sub(300);
            conns.drain(..surplus);
        }
        Ok(())
    });
}

/// A byte now and then: of the preface, and of a call's headers.
#[test]
fn slow_words_keep_nobody_out() {
    check_flood(|over| {
        let slow = [preface(), frame(1, 4, 1, &headers("/ezio.EZIO/GetVersion"))].concat();
        let mut conns: Vec<TcpStream> = (0..100).filter_map(|_| dial().ok()).collect();
        let half = conns.len() / 2;
        for conn in &mut conns[half..] {
            let _ = conn.write_all(&preface());
        }
        for at in 0..slow.len() {
            if conns.is_empty() || over.load(Ordering::Relaxed) {
                break;
            }
            for (number, conn) in conns.iter_mut().enumerate() {
                let skipped = if number < half { 0 } else { preface().len() };
                let _ = slow.get(at + skipped).map(|byte| conn.write_all(&[*byte]));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    });
}

/// Calls that are taken back as soon as they are made, calls that never end, and answers nobody reads.
#[test]
fn thousands_of_calls() {
    check_flood(|over| {
        let mut conn = dial()?;
        conn.write_all(&preface())?;
        for number in 0..20_000_u32 {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let stream = number * 2 + 1;
            let paths =
                ["/ezio.EZIO/GetTorrentStatus", "/ezio.Node/Watch", "/ezio.Node/GetDetails"];
            let mut call = frame(1, 4, stream, &headers(paths[number as usize % 3]));
            // An empty message, whole; of some only its head.
            let len = if number % 5 == 0 { 3 } else { 5 };
            call.extend(frame(0, u8::from(len == 5), stream, &[0; 5][..len]));
            if number % 2 == 0 {
                call.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
            }
            conn.write_all(&call)?;
        }
        Ok(())
    });
}

/// Messages that are longer than any may be, or say so, and torrents that do not come.
#[test]
fn messages_of_the_largest_size() {
    check_flood(|_| {
        let mut conn = dial()?;
        conn.write_all(&preface())?;
        let lens = [u32::MAX, 200 << 20, 2 << 20, 257 << 20];
        for (stream, len) in (1_u32..).step_by(2).zip(lens) {
            let path =
                if len == 2 << 20 { "/ezio.Node/GetDetails" } else { "/ezio.EZIO/AddTorrent" };
            conn.write_all(&frame(1, 4, stream, &headers(path)))?;
            conn.write_all(&frame(0, 0, stream, &[&[0_u8][..], &len.to_be_bytes()].concat()))?;
        }
        // The windows are 1 MiB; then it goes on regardless.
        for number in 0..80 {
            conn.write_all(&frame(0, 0, 3 + number % 2 * 4, &[0x55; 16 << 10]))?;
        }
        conn.write_all(&[0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 3])?;
        (0..100).try_for_each(|_| conn.write_all(&[0x55; 16 << 10]))
    });
}

/// Requests of the largest size, none of which ever ends, and some that do and stand for more than they
/// are: hashes without digits. Those who watch are remembered with theirs.
#[test]
fn requests_of_the_largest_size() {
    const CONNS: usize = 20;
    check_flood(|over| {
        let mut conns: Vec<TcpStream> = (0..CONNS).filter_map(|_| dial().ok()).collect();
        conns.retain_mut(|conn| conn.write_all(&preface()).is_ok());
        for number in 0..30_u32 {
            let ends = number % 3 == 1;
            let path = match number % 3 {
                0 => "/ezio.EZIO/GetTorrentStatus",
                1 => "/ezio.Node/Watch",
                _ => "/ezio.Node/GetDetails",
            };
            let call = long_call(2 * number + 1, path, if ends { 60 << 10 } else { 1 << 20 }, ends);
            // Slowly, for the window is of all calls of a connection.
            for part in call.chunks(128 << 10) {
                conns.retain_mut(|conn| conn.write_all(part).is_ok());
                thread::sleep(Duration::from_millis(10));
                if over.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
        }
        thread::sleep(Duration::from_secs(1));
        Ok(())
    });
}

/// A call whose message has `len` bytes, all of them empty texts; of one that does not end the last is
/// missing.
fn long_call(stream: u32, path: &str, len: u32, ends: bool) -> Vec<u8> {
    let message = [0x0A, 0].repeat(len as usize / 2);
    let (last, message) = message.split_last().unwrap();
    let mut call = frame(1, 4, stream, &headers(path));
    call.extend(frame(0, 0, stream, &[&[0][..], &len.to_be_bytes()].concat()));
    message.chunks(16 << 10).for_each(|part| call.extend(frame(0, 0, stream, part)));
    if ends {
        call.extend(frame(0, 1, stream, &[*last]));
    }
    call
}

/// Headers that never end, and few bytes that stand for many (RFC 7541, 7.3).
#[test]
fn headers_without_end() {
    check_flood(|over| {
        let mut conn = dial()?;
        conn.write_all(&preface())?;
        let mut block = headers("/ezio.EZIO/GetVersion");
        // One of 4000 bytes, kept; then references to it.
        block.extend([0x40, 1, b'x', 0x7F, 0xA1, 0x1E]);
        block.extend([b'y'; 4000]);
        block.extend([0xBE; 8000]);
        conn.write_all(&frame(1, 4, 1, &block))?;
        let mut conn = dial()?;
        conn.write_all(&preface())?;
        conn.write_all(&frame(1, 0, 1, &headers("/ezio.EZIO/GetVersion")))?;
        let mut more = vec![0, 1, b'x', 0x7F, 0xA1, 0x1E];
        more.extend([b'y'; 4000]);
        for number in 0..100_000 {
            if over.load(Ordering::Relaxed) {
                break;
            }
            // Some are empty: no bytes to count.
            let part = if number % 2 == 0 { &more[..] } else { &[] };
            conn.write_all(&frame(9, 0, 1, part))?;
        }
        Ok(())
    });
}

fn dial() -> io::Result<TcpStream> {
    let conn = TcpStream::connect_timeout(&GRPC.parse().unwrap(), PATIENCE / 10)?;
    conn.set_write_timeout(Some(Duration::from_millis(500)))?;
    conn.set_nodelay(true)?;
    Ok(conn)
}

/// What a client says first: the preface of HTTP/2 and its settings.
fn preface() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a call, none of them compressed.
fn headers(path: &str) -> Vec<u8> {
    // POST and http are in the static table, as are the names of the next three.
    let mut block = vec![0x83, 0x86];
    let mut field = |name: &[u8], value: &str| {
        block.extend(name);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.bytes());
    };
    field(&[0x04], path);
    field(&[0x01], "localhost");
    field(&[0x0F, 0x10], "application/grpc");
    field(&[0x00, 2, b't', b'e'], "trailers");
    block
}
