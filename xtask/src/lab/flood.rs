//! Somebody on the network who wants the swarm to stop, as fast as his link lets him.
//!
//! He needs no secret: the `.torrent` is handed out to everybody, and with it the info-hash that
//! opens the port for peers. Each [`Attack`] is some threads on his machine that do one thing again
//! and again, to the server and to all clients; whoever sends him away sees him again at once. What
//! he does is counted, so that a flood that came to nothing is not taken for one that was withstood.
//!
//! He has the sockets of an ordinary program, so half-open connections are connections that say
//! nothing or say it slowly, not bare SYN packets: those are the kernel's business (SYN cookies).

mod http;
mod peers;

use anyhow::Context as _;
use lab::{Lan, Random};
use serde::Serialize;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use swarm::metainfo::Digest;

/// What he does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attack {
    /// Nothing: his machine is there, for comparison.
    None,
    /// Connections to all ports that open and end, or say nothing.
    Connections,
    /// Handshakes and heads of requests, a byte a second, on as many connections as he gets.
    Slow,
    /// Peers that take what they can get, by protocol, and ask for far more; half of them say to
    /// be of ours.
    Requests,
    /// Announces of peers that do not exist, to the tracker and on the local network.
    Announces,
    /// Reports of machines that do not exist, and looks at every page.
    Reports,
    /// Random handshakes, lengths without end, heads and bodies of any size, paths that lead out.
    Rubbish,
    /// All of it at the same time.
    All,
}

impl Attack {
    /// All that are measured, the quiet one first.
    pub(super) const ALL: [Attack; 8] = [
        Attack::None,
        Attack::Connections,
        Attack::Slow,
        Attack::Requests,
        Attack::Announces,
        Attack::Reports,
        Attack::Rubbish,
        Attack::All,
    ];

    fn weapons(self) -> Vec<Weapon> {
        match self {
            Attack::None => Vec::new(),
            Attack::Connections => {
                vec![peers::open_and_end, peers::open_and_end, peers::open_and_wait]
            }
            Attack::Slow => vec![peers::slow_handshakes, http::slow_heads],
            Attack::Requests => vec![peers::leech; 4],
            Attack::Announces => vec![http::announce, http::announce, peers::search],
            Attack::Reports => vec![http::report, http::report, http::look],
            Attack::Rubbish => vec![peers::rubbish, peers::rubbish, http::rubbish, http::bodies],
            Attack::All => {
                let all = Attack::ALL.iter().filter(|attack| **attack != Attack::All);
                all.flat_map(|attack| attack.weapons()).collect()
            }
        }
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Attack::None => "quiet",
            Attack::Connections => "connections",
            Attack::Slow => "slow ones",
            Attack::Requests => "requests",
            Attack::Announces => "announces",
            Attack::Reports => "reports",
            Attack::Rubbish => "rubbish",
            Attack::All => "everything",
        })
    }
}

/// One thread of an attack: does it until it is told to end, `seed` being its own.
type Weapon = fn(&Arms, seed: u64);

/// What each thread has.
struct Arms {
    /// The server, then the clients.
    peers: Vec<SocketAddr>,
    http: SocketAddr,
    own: Ipv4Addr,
    info_hash: Digest,
    pieces: u32,
    over: AtomicBool,
    done: Done,
}

/// What he has done so far.
#[derive(Debug, Default)]
struct Done {
    connections: AtomicU64,
    ended: AtomicU64,
    messages: AtomicU64,
    requests: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Done {
    fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

/// What he has done in all.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Deeds {
    /// Connections that were made.
    connections: u64,
    /// Of them, those that the other side ended.
    ended: u64,
    /// Peer messages, and datagrams.
    messages: u64,
    /// HTTP requests, whole or not.
    requests: u64,
    /// Bytes that he handed to his network, as far as he counts them.
    sent: u64,
    /// Bytes that came.
    received: u64,
}

impl fmt::Display for Deeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "flood: {} connections ({} ended by the others), {} messages, {} requests, {:.1} MB \
             sent, {:.1} MB received",
            self.connections,
            self.ended,
            self.messages,
            self.requests,
            self.sent as f64 / 1e6,
            self.received as f64 / 1e6
        )
    }
}

/// An attack that is under way.
pub(super) struct Flood {
    arms: Arc<Arms>,
    threads: Vec<JoinHandle<()>>,
}

/// Where programs of ours listen for peers, and the server for HTTP.
const PEERS: u16 = 6881;
const HTTP: u16 = 6969;

impl Flood {
    /// Begins, from machine `node`, against all before it; the server is machine 0.
    pub(super) fn start(
        lan: &Lan,
        node: usize,
        attack: Attack,
        (info_hash, pieces): (Digest, u32),
    ) -> anyhow::Result<Flood> {
        let arms = Arc::new(Arms {
            peers: (0..node).map(|node| (lan.addr(node), PEERS).into()).collect(),
            http: (lan.addr(0), HTTP).into(),
            own: lan.addr(node),
            info_hash,
            pieces,
            over: AtomicBool::new(false),
            done: Done::default(),
        });
        // A thread has the network of the one that began it.
        let threads = lan.within(node, || -> io::Result<Vec<JoinHandle<()>>> {
            let begin = |(seed, weapon): (usize, Weapon)| {
                let arms = Arc::clone(&arms);
                let thread = thread::Builder::new().name("flood".to_owned());
                thread.spawn(move || weapon(&arms, seed as u64))
            };
            attack.weapons().into_iter().enumerate().map(begin).collect()
        })?;
        Ok(Flood { arms, threads: threads.context("start the flood")? })
    }

    /// Ends it. Returns what it has done.
    pub(super) fn end(mut self) -> Deeds {
        self.stop();
        let done = &self.arms.done;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Deeds {
            connections: of(&done.connections),
            ended: of(&done.ended),
            messages: of(&done.messages),
            requests: of(&done.requests),
            sent: of(&done.sent),
            received: of(&done.received),
        }
    }

    fn stop(&mut self) {
        self.arms.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How long he waits for anything.
const WAIT: Duration = Duration::from_millis(500);

impl Arms {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// A connection that waits for nothing long.
    fn dial(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&addr, WAIT)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_write_timeout(Some(WAIT))?;
        Done::add(&self.done.connections, 1);
        Ok(stream)
    }

    /// Notes what came of sending so many bytes; `false` if the other side wants no more.
    fn sent(&self, result: &io::Result<()>, len: usize) -> bool {
        match result {
            Ok(()) => Done::add(&self.done.sent, len as u64),
            Err(error) if waits(error) => {}
            Err(_) => Done::add(&self.done.ended, 1),
        }
        result.is_ok()
    }

    /// Does `turn` with each peer in turn until the end. Where nobody listens yet he comes again.
    fn with_each_peer(&self, seed: u64, mut turn: impl FnMut(SocketAddr, &mut Random)) {
        let mut random = Random::new(seed);
        // Not all threads at the same one.
        let first = random.below(self.peers.len() as u64) as usize;
        for addr in self.peers.iter().cycle().skip(first) {
            if self.is_over() {
                return;
            }
            turn(*addr, &mut random);
        }
    }

    /// Keeps so many of what `open` makes until the end, and gives each its `turn` again and again,
    /// which returns whether anything moved. Who fails has been sent away.
    fn with_many<T>(
        &self,
        seed: u64,
        count: usize,
        mut open: impl FnMut(&mut Random) -> io::Result<T>,
        mut turn: impl FnMut(&mut T, &mut Random) -> io::Result<bool>,
    ) {
        let (mut random, mut many) = (Random::new(seed), Vec::new());
        while !self.is_over() {
            if many.len() < count {
                match open(&mut random) {
                    Ok(one) => many.push(one),
                    Err(_) => rest(),
                }
            }
            let (mut moved, before) = (false, many.len());
            many.retain_mut(|one| {
                let result = turn(one, &mut random);
                moved |= matches!(result, Ok(true));
                result.is_ok()
            });
            Done::add(&self.done.ended, (before - many.len()) as u64);
            if !moved {
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// Nobody there, or nothing goes: not at once again.
fn rest() {
    thread::sleep(Duration::from_millis(20));
}

/// Connections that are kept, and fed now and then.
struct Herd {
    kept: Vec<TcpStream>,
    fed: Instant,
}

impl Herd {
    fn new() -> Herd {
        Herd { kept: Vec::new(), fed: Instant::now() }
    }

    /// Keeps one more, which shall not make anybody wait.
    fn keep(&mut self, stream: TcpStream) {
        if stream.set_nonblocking(true).is_ok() {
            self.kept.push(stream);
        }
    }

    /// Feeds each of them once in a second, and lets those go that have ended.
    fn feed(&mut self, arms: &Arms, mut feed: impl FnMut(&mut TcpStream) -> io::Result<()>) {
        if self.fed.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.fed = Instant::now();
        self.kept.retain_mut(|stream| match feed(stream) {
            Err(error) if !waits(&error) => {
                Done::add(&arms.done.ended, 1);
                false
            }
            _ => true,
        });
    }
}

/// Nothing goes now, but may later.
fn waits(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab::Links;
    use std::io::Read as _;
    use std::net::TcpListener;

    /// Every weapon but the one of nobody reaches somebody who takes connections and reads.
    #[test]
    fn every_attack_arrives() {
        if let Err(why) = lab::net::supported() {
            lab::skip!("{why}");
        }
        let lan = Lan::new(2, &Links::default()).unwrap();
        let received = Arc::new(AtomicU64::new(0));
        for port in [PEERS, HTTP] {
            let listener = lan.within(0, || TcpListener::bind((lan.addr(0), port)));
            let (listener, received) = (listener.unwrap().unwrap(), Arc::clone(&received));
            thread::spawn(move || {
                for mut stream in listener.incoming().map_while(Result::ok) {
                    let received = Arc::clone(&received);
                    thread::spawn(move || {
                        let mut bytes = [0; 4096];
                        while let Ok(len @ 1..) = stream.read(&mut bytes) {
                            received.fetch_add(len as u64, Ordering::Relaxed);
                        }
                    });
                }
            });
        }
        for attack in Attack::ALL {
            let before = received.load(Ordering::Relaxed);
            let flood = Flood::start(&lan, 1, attack, ([7; 20], 10)).unwrap();
            let begin = Instant::now();
            let came = || received.load(Ordering::Relaxed) > before;
            while attack != Attack::None && !came() && begin.elapsed() < Duration::from_secs(60) {
                thread::sleep(Duration::from_millis(20));
            }
            let done = flood.end();
            assert_eq!(came(), attack != Attack::None, "{attack}: {done}");
            // What is still on its way is the next one's before.
            thread::sleep(Duration::from_millis(100));
        }
    }
}
