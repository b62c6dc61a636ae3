//! Callers who do what they like with HTTP/2 (RFC 9113), against a daemon that downloads meanwhile.

use crate::world::{GRPC, Image, World, wait};
use lab::Need;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a client says first: the preface, and a SETTINGS frame that sets nothing.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

// Kinds and flags of frames (RFC 9113, 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Memory that all of it may cost a daemon, in bytes, besides what a download of this size does.
const PEAK_MAX: u64 = 160 << 20;

/// What an honest caller may have to wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
}

/// Fields of a call (RFC 7541: from the static table, or literally and not indexed).
fn call() -> Vec<u8> {
    let literal = |name: u8, text: &str| [&[name, text.len() as u8], text.as_bytes()].concat();
    let mut fields = vec![0x83, 0x86];
    fields.extend(literal(4, "/ezio.EZIO/AddTorrent"));
    fields.extend(literal(1, "x"));
    fields.extend([0x0F, 0x10]);
    fields.extend([&[16][..], b"application/grpc"].concat());
    fields.extend([&[0, 2][..], b"te", &[8], b"trailers"].concat());
    fields
}

/// The numbers of a client's streams.
fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

type Attack = fn(&mut TcpStream) -> io::Result<()>;

/// Each goes on until it is sent away.
const ATTACKS: [(&str, Attack); 8] = [
    ("says nothing", |stream| stream.read(&mut [0]).map(drop)),
    ("speaks no HTTP", |stream| {
        loop {
            stream.write_all(&[b'x'; 4096])?;
        }
    }),
    ("begins calls and asks nothing", |stream| {
        stream.write_all(HELLO)?;
        streams().try_for_each(|id| stream.write_all(&frame(HEADERS, END_HEADERS, id, &call())))
    }),
    ("begins calls and resets them", |stream| {
        stream.write_all(HELLO)?;
        streams().try_for_each(|id| {
            let reset = frame(RESET, 0, id, &8_u32.to_be_bytes());
            stream.write_all(&[frame(HEADERS, END_HEADERS, id, &call()), reset].concat())
        })
    }),
    ("has headers without end", |stream| {
        stream.write_all(HELLO)?;
        stream.write_all(&frame(HEADERS, 0, 1, &call()))?;
        let field = [&[0, 1][..], b"x", &[127, 0], &[b'y'; 127]].concat();
        let fields = frame(CONTINUATION, 0, 1, &field.repeat(120));
        loop {
            stream.write_all(&fields)?;
        }
    }),
    ("has a message of 4 GiB", |stream| {
        stream.write_all(HELLO)?;
        stream.write_all(&frame(HEADERS, END_HEADERS, 1, &call()))?;
        stream.write_all(&frame(DATA, 0, 1, &[0, 0xFF, 0xFF, 0xFF, 0xFF]))?;
        loop {
            stream.write_all(&frame(DATA, 0, 1, &[b'z'; 16 << 10]))?;
        }
    }),
    ("keeps many messages that lack a byte", |stream| {
        stream.write_all(HELLO)?;
        for id in streams().take(32) {
            stream.write_all(&frame(HEADERS, END_HEADERS, id, &call()))?;
            stream.write_all(&frame(DATA, 0, id, &[0, 0, 0x0F, 0xFF, 0xFF]))?;
        }
        for _ in 0..63 {
            for id in streams().take(32) {
                stream.write_all(&frame(DATA, 0, id, &[b'z'; 16 << 10]))?;
            }
        }
        stream.read_to_end(&mut Vec::new()).map(drop)
    }),
    ("wants signs of life and reads none", |stream| {
        stream.write_all(HELLO)?;
        loop {
            stream.write_all(&frame(PING, 0, 0, &[0; 8]).repeat(100))?;
        }
    }),
];

/// Connections of each kind at a time.
const CROWD: usize = 8;

fn attack(attack: Attack, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let wait = Some(Duration::from_secs(2));
        let result = TcpStream::connect(GRPC).and_then(|mut stream| {
            stream.set_read_timeout(wait)?;
            stream.set_write_timeout(wait)?;
            attack(&mut stream)
        });
        // That it is sent away is as it should be.
        if result.is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The most memory that a process ever had, in bytes: `VmHWM` of proc_pid_status(5).
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn callers_who_do_what_they_like_keep_nobody_out() {
    lab::require!([Need::Root, Need::Loop, Need::Program("ip"), Need::Program("tc")]);
    let world = World::new(2);
    let image = Image::new(world.dir.path(), "sda1", 5);
    let (source, target) = (image.source(world.path("from")), image.target(world.path("to")));
    let mut daemons = [world.daemon(0, &[]), world.daemon(1, &[])];
    world.add(1, &image, target.path(), false);
    let over = AtomicBool::new(false);
    let (lan, over) = (&world.lan, &over);
    std::thread::scope(|scope| {
        let attackers = || {
            std::thread::scope(|scope| {
                for (_, one) in ATTACKS.iter().flat_map(|one| std::iter::repeat_n(one, CROWD)) {
                    scope.spawn(|| attack(*one, over));
                }
            });
        };
        let flood = scope.spawn(move || lan.within(1, attackers).unwrap());
        let end = OnEnd(over);
        std::thread::sleep(Duration::from_secs(2));
        world.add(0, &image, source.path(), true);
        wait("the download ends, and who asks is answered", || {
            let begin = Instant::now();
            let torrents = world.torrents(1);
            let took = begin.elapsed();
            assert!(took < ANSWER_MAX, "an answer took {took:?}");
            torrents[0].is_finished
        });
        drop(end);
        flood.join().unwrap();
    });
    image.check(target.path());
    let peaks = daemons.each_ref().map(|daemon| peak(daemon.id()));
    println!(
        "at most {} MB of memory, {} MB of the one that was left alone",
        peaks[1] / 1_000_000,
        peaks[0] / 1_000_000
    );
    assert!(peaks[1] < peaks[0] + PEAK_MAX, "{peaks:?} bytes of memory");
    daemons[1].signal("TERM");
    assert_eq!(daemons[1].end().code(), Some(0), "{}", daemons[1].all());
}

/// Sets the flag when it is dropped, also by a test that fails: its flood must end.
struct OnEnd<'a>(&'a AtomicBool);

impl Drop for OnEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
