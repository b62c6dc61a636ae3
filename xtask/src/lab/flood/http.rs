//! Attacks on the server's HTTP: the tracker, reports, pages.

use super::{Arms, Done, Herd, rest, waits};
use lab::Random;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};
use swarm::tracker::percent_encode;

/// Heads of requests, a byte a second.
pub(super) fn slow_heads(arms: &Arms, _seed: u64) {
    let mut herd = Herd::new();
    while !arms.is_over() {
        match arms.dial(arms.http) {
            Ok(mut stream) => {
                let result = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX: ");
                if arms.sent(&result, 30) {
                    Done::add(&arms.done.requests, 1);
                    herd.keep(stream);
                }
            }
            Err(_) => rest(),
        }
        herd.feed(arms, |stream| {
            Done::add(&arms.done.sent, 1);
            stream.write_all(b"x")
        });
        thread::sleep(Duration::from_millis(2));
    }
}

/// Announces of peers that are not there, one behind the other on each connection.
pub(super) fn announce(arms: &Arms, seed: u64) {
    ask(arms, seed, |random| {
        let mut id = [0; 20];
        random.fill(&mut id);
        let mut hash = arms.info_hash;
        if random.below(8) == 0 {
            random.fill(&mut hash);
        }
        let event = ["started", "completed", "stopped", ""][random.below(4) as usize];
        format!(
            "GET /announce?info_hash={}&peer_id={}&port={}&left={}&numwant=200&event={event} \
             HTTP/1.1\r\nHost: {}\r\n\r\n",
            percent_encode(&hash),
            percent_encode(&id),
            1 + random.below(65_535),
            random.below(2),
            arms.http
        )
        .into_bytes()
    });
}

/// Reports of machines that are not there: small ones, and as large as they may be.
pub(super) fn report(arms: &Arms, seed: u64) {
    ask(arms, seed, |random| {
        let filler = "x".repeat([10, 1000, 60_000][random.below(3) as usize]);
        let body = format!(
            r#"{{"node": "m{}", "phase": "downloading", "text": "{filler}", "images": [{{"name": "a"}}]}}"#,
            random.draw()
        );
        format!(
            "POST /api/report HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            arms.http,
            body.len()
        )
        .into_bytes()
    });
}

/// Every page again and again; of some only the beginning is read.
pub(super) fn look(arms: &Arms, seed: u64) {
    const PAGES: [&str; 9] = [
        "/",
        "/dashboard.js",
        "/api/status",
        "/api/machines",
        "/metrics",
        "/events",
        "/report.html",
        "/scrape",
        "/torrents",
    ];
    ask(arms, seed, |random| {
        let page = PAGES[random.below(PAGES.len() as u64) as usize];
        format!("GET {page} HTTP/1.1\r\nHost: {}\r\n\r\n", arms.http).into_bytes()
    });
}

/// Heads that are too long or no heads, paths that lead out, methods that nobody knows.
pub(super) fn rubbish(arms: &Arms, seed: u64) {
    let mut noise = vec![0; 32 << 10];
    Random::new(seed).fill(&mut noise);
    ask(arms, seed, |random| match random.below(6) {
        0 => format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000)).into_bytes(),
        1 => format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(5000)).into_bytes(),
        2 => b"GET /torrents/../../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        3 => b"GET /torrents/%2e%2e%2f%2e%2e%2fetc%2fpasswd.torrent HTTP/1.1\r\nHost: x\r\n\r\n"
            .to_vec(),
        4 => {
            format!("GET /announce?{} HTTP/1.1\r\nHost: x\r\n\r\n", "&".repeat(10_000)).into_bytes()
        }
        _ => noise[..random.below(noise.len() as u64) as usize].to_vec(),
    });
}

/// Bodies without end, by their length and in chunks.
pub(super) fn bodies(arms: &Arms, _seed: u64) {
    let chunk = [&b"4000\r\n"[..], &[b'x'; 0x4000], b"\r\n"].concat();
    while !arms.is_over() {
        for head in ["Content-Length: 1000000000000", "Transfer-Encoding: chunked"] {
            let Ok(mut stream) = arms.dial(arms.http) else { continue };
            let head = format!(
                "POST /api/report HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{head}\r\n\r\n",
                arms.http
            );
            Done::add(&arms.done.requests, 1);
            let mut result = stream.write_all(head.as_bytes());
            while arms.sent(&result, chunk.len()) && !arms.is_over() {
                result = stream.write_all(&chunk);
            }
        }
    }
}

/// Connections of a thread at a time, and requests on one before it is read.
const LINES: usize = 16;
const AHEAD: usize = 8;

/// Sends requests on several connections at a time, some ahead of their answers.
fn ask(arms: &Arms, seed: u64, request: impl Fn(&mut Random) -> Vec<u8>) {
    let open = |_: &mut Random| Line::open(arms);
    arms.with_many(seed, LINES, open, |line, random| {
        if line.out.is_empty() && line.quiet() {
            for _ in 0..AHEAD {
                line.out.extend(request(random));
            }
            Done::add(&arms.done.requests, AHEAD as u64);
        }
        line.turn(arms)
    });
}

/// A connection with requests on their way.
struct Line {
    stream: TcpStream,
    out: Vec<u8>,
    heard: Instant,
}

impl Line {
    fn open(arms: &Arms) -> io::Result<Line> {
        let stream = arms.dial(arms.http)?;
        stream.set_nonblocking(true)?;
        Ok(Line { stream, out: Vec::new(), heard: Instant::now() - Duration::from_secs(1) })
    }

    /// Whether the answers seem to be there.
    fn quiet(&self) -> bool {
        self.heard.elapsed() > Duration::from_millis(20)
    }

    fn turn(&mut self, arms: &Arms) -> io::Result<bool> {
        let mut moved = false;
        if !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(len) => {
                    self.out.drain(..len);
                    Done::add(&arms.done.sent, len as u64);
                    moved = len > 0;
                }
                Err(error) if waits(&error) => {}
                Err(error) => return Err(error),
            }
        }
        match self.stream.read(&mut [0; 16 << 10]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                self.heard = Instant::now();
                Done::add(&arms.done.received, len as u64);
                Ok(true)
            }
            Err(error) if waits(&error) => Ok(moved),
            Err(error) => Err(error),
        }
    }
}
