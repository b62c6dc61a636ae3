//! Attacks on the port for peers, and on the local network's discovery.

use super::{Arms, Done, Herd, WAIT, rest, waits};
use lab::Random;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};
use swarm::wire::extension::{HELLO_ID, Hello, XG_ID};
use swarm::wire::{Block, Handshake, Message};

/// Connections that end at once, or after a part of a handshake.
pub(super) fn open_and_end(arms: &Arms, seed: u64) {
    let handshake = Handshake::new(arms.info_hash, [b'f'; 20]).encode();
    arms.with_each_peer(seed, |addr, random| {
        // Clients begin one after the other, and some may be done.
        let Ok(mut stream) = arms.dial(addr) else { return rest() };
        let part = &handshake[..random.below(handshake.len() as u64) as usize];
        let result = stream.write_all(part);
        arms.sent(&result, part.len());
    });
}

/// Connections that say nothing, as many as are kept open for him.
pub(super) fn open_and_wait(arms: &Arms, seed: u64) {
    let mut herd = Herd::new();
    let addrs: Vec<SocketAddr> = arms.peers.iter().copied().chain([arms.http]).collect();
    let mut random = Random::new(seed);
    while !arms.is_over() {
        if herd.kept.len() < HERD {
            match arms.dial(addrs[random.below(addrs.len() as u64) as usize]) {
                Ok(stream) => herd.keep(stream),
                Err(_) => rest(),
            }
        } else {
            thread::sleep(Duration::from_millis(20));
        }
        herd.feed(arms, |stream| match stream.read(&mut [0; 64]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        });
    }
}

/// Connections that a thread keeps open.
const HERD: usize = 1000;

/// Handshakes, a byte a second.
pub(super) fn slow_handshakes(arms: &Arms, seed: u64) {
    let handshake = Handshake::new(arms.info_hash, [b's'; 20]).encode();
    let mut herd = Herd::new();
    let mut random = Random::new(seed);
    while !arms.is_over() {
        if herd.kept.len() < HERD {
            match arms.dial(arms.peers[random.below(arms.peers.len() as u64) as usize]) {
                Ok(stream) => herd.keep(stream),
                Err(_) => rest(),
            }
        } else {
            thread::sleep(Duration::from_millis(20));
        }
        // All of them begin alike, and none lives to say more than that.
        herd.feed(arms, |stream| {
            Done::add(&arms.done.sent, 1);
            stream.write_all(&handshake[..1])
        });
    }
}

/// Peers that ask for everything again and again and read what comes.
pub(super) fn leech(arms: &Arms, seed: u64) {
    let open = |random: &mut Random| {
        let addr = arms.peers[random.below(arms.peers.len() as u64) as usize];
        Leech::meet(arms, addr, random)
    };
    arms.with_many(seed, LEECHES, open, |leech, random| leech.turn(arms, random));
}

/// Peers of a thread: with four threads more than all places of the server and eight clients.
const LEECHES: usize = 200;

/// A peer that takes.
struct Leech {
    stream: TcpStream,
    /// What is still to be said.
    out: Vec<u8>,
    asked: Instant,
}

impl Leech {
    fn meet(arms: &Arms, addr: SocketAddr, random: &mut Random) -> io::Result<Leech> {
        let mut stream = arms.dial(addr)?;
        let mut id = [0; 20];
        random.fill(&mut id);
        let ours = random.below(2) == 0;
        if ours {
            id[..8].copy_from_slice(b"-XG0100-");
        }
        stream.write_all(&Handshake::new(arms.info_hash, id).encode())?;
        stream.set_nonblocking(true)?;
        let mut out = Vec::new();
        if ours {
            let hello = Hello { xg_id: Some(XG_ID), ..Hello::default() };
            Message::Extended { id: HELLO_ID, payload: hello.encode() }.encode(&mut out);
        }
        Message::HaveNone.encode(&mut out);
        Message::Interested.encode(&mut out);
        Ok(Leech { stream, out, asked: Instant::now() })
    }

    /// Says what can be said and hears what there is. Whether anything moved.
    fn turn(&mut self, arms: &Arms, random: &mut Random) -> io::Result<bool> {
        let mut moved = false;
        if self.out.is_empty() && self.asked.elapsed() > Duration::from_millis(200) {
            self.asked = Instant::now();
            for _ in 0..100 {
                let piece = random.below(u64::from(arms.pieces)) as u32;
                Message::Request(Block { piece, begin: 0, len: 16 << 10 }).encode(&mut self.out);
            }
            Done::add(&arms.done.messages, 100);
        }
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => {
                    self.out.drain(..len);
                    Done::add(&arms.done.sent, len as u64);
                    moved = true;
                }
                Err(error) if waits(&error) => break,
                Err(error) => return Err(error),
            }
        }
        let mut bytes = [0; 16 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                Done::add(&arms.done.received, len as u64);
                Ok(true)
            }
            Err(error) if waits(&error) => Ok(moved),
            Err(error) => Err(error),
        }
    }
}

/// Handshakes that are none, and messages that cannot be after one that is.
pub(super) fn rubbish(arms: &Arms, seed: u64) {
    let mut noise = vec![0; 64 << 10];
    Random::new(seed).fill(&mut noise);
    arms.with_each_peer(seed, |addr, random| {
        let Ok(mut stream) = arms.dial(addr) else { return rest() };
        let mut bytes = Vec::new();
        let kind = random.below(6);
        if kind > 0 {
            let mut id = [0; 20];
            random.fill(&mut id);
            bytes.extend(Handshake::new(arms.info_hash, id).encode());
        }
        match kind {
            // Not even a handshake; some take it for an encrypted one.
            0 => bytes.extend(&noise[..random.below(600) as usize]),
            // A message of 4 GiB, one of a MiB that nobody knows, a bitfield of 100 MiB.
            1 => bytes.extend([0xff; 64]),
            2 => {
                bytes.extend([0, 16, 0, 0, 200]);
                bytes.extend(&noise);
            }
            3 => {
                bytes.extend([6, 64, 0, 1, 5]);
                bytes.extend(&noise);
            }
            // Blocks that nobody asked for, of a piece that is there, and of one that is not.
            4 => {
                for piece in [0, 1, arms.pieces, u32::MAX] {
                    Message::Piece(Block { piece, begin: 0, len: 16 << 10 }).encode(&mut bytes);
                    bytes.extend(&noise[..16 << 10]);
                }
            }
            // Whatever comes.
            _ => bytes.extend(&noise[..1000 + random.below(10_000) as usize]),
        }
        let result = stream.write_all(&bytes);
        arms.sent(&result, bytes.len());
        Done::add(&arms.done.messages, 1);
    });
}

/// Announces on the local network: peers at his own address that do not exist, of this torrent and
/// of others.
pub(super) fn search(arms: &Arms, seed: u64) {
    const GROUP: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 192, 152, 143), 6771);
    let mut random = Random::new(seed);
    let Ok(socket) = UdpSocket::bind((arms.own, 0)) else { return };
    let _ = socket.set_write_timeout(Some(WAIT));
    while !arms.is_over() {
        let mut message = "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\n".to_owned();
        message += &format!("Port: {}\r\n", 1 + random.below(65_535));
        for number in 0..1 + random.below(20) {
            let mut hash = arms.info_hash;
            if number > 0 {
                random.fill(&mut hash);
            }
            let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            message += &format!("Infohash: {hash}\r\n");
        }
        message += "\r\n\r\n";
        match socket.send_to(message.as_bytes(), GROUP) {
            Ok(len) => {
                Done::add(&arms.done.messages, 1);
                Done::add(&arms.done.sent, len as u64);
            }
            Err(_) => rest(),
        }
        // The queue of his link throws away what is more, and so much is enough to fill it.
        thread::sleep(Duration::from_micros(500));
    }
}
