use super::*;
use sha1::{Digest as _, Sha1};
use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicBool;
use swarm::layout::{Extent, Layout};
use swarm::metainfo::Draft;
use swarm::wire::extension::{HELLO_ID, Hello};
use swarm::wire::{HANDSHAKE_LEN, Handshake, Message, decode};

/// A torrent whose `info` has five pieces of 16 KiB, the last one short.
fn torrent() -> Metainfo {
    let extents = (0..1000).map(|i| Extent { offset: i << 20, len: 16 << 10 }).collect();
    let layout = Layout::new(extents).unwrap();
    let draft = Draft {
        name: &["sda1"],
        layout: &layout,
        piece_len: 16 << 10,
        hashes: &[[7; 20]; 1000],
        trackers: &[],
        created_by: None,
        creation_date: None,
        origin: None,
    };
    Metainfo::parse(draft.encode()).unwrap()
}

/// What a peer does when it is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Honest,
    /// Says that there is less than there is.
    Short,
    /// Says that it has as much as nobody may have.
    Huge,
    /// Flips a bit of the last piece.
    Liar,
    /// Sends another piece than it is asked for.
    Confused,
    /// Sends half of each piece.
    Half,
    /// Says nothing any more.
    Silent,
    Refuses,
    /// Knows nothing of BEP 9.
    Ignorant,
    /// Sends no bencoding.
    Noise,
    /// Is silent before its handshake.
    Mute,
    /// Promises a message of 1 GiB.
    Flood,
}

impl Peer {
    /// Listens and talks with whoever comes, until the test ends. `turn` becomes true when it was
    /// asked or given up; an honest peer waits for that before it introduces itself.
    fn start(self, info: &[u8], info_hash: [u8; 20], turn: &Arc<AtomicBool>) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let (info, turn) = (info.to_vec(), Arc::clone(turn));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Whoever hangs up has heard enough.
                let _ = self.talk(&stream, &info, info_hash, &turn);
                turn.store(true, Ordering::SeqCst);
            }
        });
        addr
    }

    fn talk(
        self,
        mut stream: &TcpStream,
        info: &[u8],
        info_hash: [u8; 20],
        turn: &AtomicBool,
    ) -> std::io::Result<()> {
        stream.read_exact(&mut [0; HANDSHAKE_LEN])?;
        if self == Peer::Mute {
            turn.store(true, Ordering::SeqCst);
            std::io::copy(&mut stream, &mut std::io::sink())?;
            return Ok(());
        }
        let peer_id = *b"-XX0000-000000000000";
        stream.write_all(&Handshake::new(info_hash, peer_id).encode())?;
        let mut writer = stream;
        let mut say = |message: Message| {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            writer.write_all(&bytes)
        };
        say(Message::Bitfield(vec![0xff; 125]))?;
        let len = match self {
            Peer::Short => info.len() as u64 - 1,
            Peer::Huge => 256 << 30,
            _ => info.len() as u64,
        };
        let id = (self != Peer::Ignorant).then_some(9);
        let hello = Hello { metadata_id: id, metadata_len: Some(len), ..Hello::default() };
        while self == Peer::Honest && !turn.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        say(Message::Extended { id: HELLO_ID, payload: hello.encode() })?;
        let mut buffer = Vec::new();
        loop {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes)?;
            if count == 0 {
                return Ok(());
            }
            buffer.extend(&bytes[..count]);
            while let Some((message, used)) = decode(&buffer).unwrap() {
                buffer.drain(..used);
                if let Message::Extended { id: 9, payload } = message
                    && let Ok(Metadata::Request(piece)) = Metadata::decode(&payload)
                {
                    turn.store(true, Ordering::SeqCst);
                    self.answer(info, piece, &mut say)?;
                }
            }
        }
    }

    fn answer(
        self,
        info: &[u8],
        asked: u32,
        say: &mut impl FnMut(Message) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let piece = if self == Peer::Confused { asked + 100 } else { asked };
        let start = asked as usize * (16 << 10);
        let mut bytes = info[start..info.len().min(start + (16 << 10))].to_vec();
        match self {
            Peer::Silent => return Ok(()),
            Peer::Short if asked == 4 => drop(bytes.pop()),
            Peer::Liar if asked == 4 => bytes[0] ^= 1,
            Peer::Half => bytes.truncate(bytes.len() / 2),
            _ => {}
        }
        let payload = match self {
            Peer::Refuses => Metadata::Reject(piece).encode(),
            Peer::Noise => b"nonsense".to_vec(),
            _ => Metadata::Data { piece, total: None, bytes: &bytes }.encode(),
        };
        if self == Peer::Flood {
            // Its length says 1 GiB.
            return say(Message::Extended { id: 0x40, payload: vec![0; 16] })
                .and_then(|()| say(Message::Bitfield(vec![0; 4 << 20])));
        }
        say(Message::Extended { id: swarm::wire::metadata::METADATA_ID, payload })
    }
}

fn link(peers: &[SocketAddr], torrent: &Metainfo) -> Magnet {
    let peers = peers.iter().map(|addr| (addr.ip().to_string(), addr.port())).collect();
    Magnet { info_hash: torrent.info_hash(), name: None, trackers: Vec::new(), peers }
}

fn options() -> NodeOptions {
    NodeOptions {
        port: Some(0),
        networks: Networks::new(vec!["127.0.0.0/8".parse().unwrap()]),
        interface: Some(control::interfaces::choose("lo").unwrap()),
        ..NodeOptions::default()
    }
}

/// Asks the bad peer first, then one that is honest: the torrent comes, and what people are told.
fn check(bad: Peer, wanted: Option<&str>) {
    let torrent = torrent();
    let turn = Arc::new(AtomicBool::new(bad == Peer::Honest));
    let peers = [bad, Peer::Honest]
        .map(|peer| peer.start(torrent.info_bytes(), torrent.info_hash(), &turn));
    let notes = RefCell::new(Vec::new());
    let note = |text: &str| notes.borrow_mut().push(text.to_owned());
    let deadline = Instant::now() + Duration::from_secs(60);
    let stopped = || Instant::now() > deadline;
    let found = fetch(&link(&peers, &torrent), &options(), &stopped, &note).unwrap();
    assert_eq!(found.metainfo.info_bytes(), torrent.info_bytes());
    assert!(found.peers.contains(&peers[1]), "{:?}", found.peers);
    let notes = notes.into_inner();
    if let Some(wanted) = wanted {
        assert!(!found.peers.contains(&peers[0]), "it is asked again");
        let text = format!("{}: {wanted}; it is not asked again", peers[0]);
        assert!(notes.contains(&text), "{text:?} is not in {notes:?}");
    }
}

#[test]
fn the_torrent_comes_from_an_honest_peer() {
    check(Peer::Honest, None);
}

#[test]
fn wrong_lengths_are_found_out() {
    check(Peer::Short, Some("the metadata it sent has another SHA-1 than the info-hash"));
    let huge = Fault::Length {
        said: 256 << 30,
        // More than that a machine that compiles has.
        max: METADATA_LEN_MAX.min(metadata_len_max(memory_available())),
    };
    check(Peer::Huge, Some(&huge.to_string()));
}

#[test]
fn wrong_pieces_are_found_out() {
    check(Peer::Liar, Some("the metadata it sent has another SHA-1 than the info-hash"));
    check(Peer::Half, Some("it sent 8192 bytes as piece 0 of the metadata, which has 16384"));
    let confused = "it sent piece 100 of the metadata, which it was not asked for";
    check(Peer::Confused, Some(confused));
}

#[test]
fn who_does_not_answer_delays_and_no_more() {
    for bad in [Peer::Silent, Peer::Refuses, Peer::Ignorant, Peer::Noise, Peer::Mute, Peer::Flood] {
        check(bad, None);
    }
}

#[test]
fn where_nobody_has_it_the_wait_ends_when_it_is_told_to() {
    let torrent = torrent();
    let peers = [Peer::Refuses.start(torrent.info_bytes(), torrent.info_hash(), &Arc::default())];
    let begin = Instant::now();
    let stopped = || begin.elapsed() > Duration::from_secs(1);
    let error = fetch(&link(&peers, &torrent), &options(), &stopped, &|_| ()).unwrap_err();
    let text = "interrupted before any peer had sent the torrent; nothing was written";
    assert_eq!(error.to_string(), text);
}

#[test]
fn peers_outside_of_the_networks_are_not_asked() {
    let torrent = torrent();
    let peers = [Peer::Honest.start(
        torrent.info_bytes(),
        torrent.info_hash(),
        &Arc::new(AtomicBool::new(true)),
    )];
    let networks = Networks::new(vec!["10.0.0.0/8".parse().unwrap()]);
    let begin = Instant::now();
    let stopped = || begin.elapsed() > Duration::from_secs(1);
    let options = NodeOptions { networks, ..options() };
    assert!(fetch(&link(&peers, &torrent), &options, &stopped, &|_| ()).is_err());
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let plain = b"d6:lengthi5e4:name1:x12:piece lengthi16384e6:pieces20:01234567890123456789e";
    let info_hash = Sha1::digest(plain).into();
    let peer = Peer::Honest.start(plain, info_hash, &Arc::new(AtomicBool::new(true)));
    let magnet = Magnet {
        info_hash,
        name: None,
        trackers: Vec::new(),
        peers: vec![(peer.ip().to_string(), peer.port())],
    };
    let begin = Instant::now();
    let stopped = || begin.elapsed() > Duration::from_secs(60);
    let error = fetch(&magnet, &options(), &stopped, &|_| ()).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("is none of an image: it holds one plain file"), "{text}");
}
