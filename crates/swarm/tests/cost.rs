//! What peers can have the swarm do for a few bytes. Here, because the crate itself knows no clock.

use std::time::Instant;
use swarm::bitfield::Bitfield;
use swarm::swarm::{Config, Event, PeerId, Start, Swarm, TorrentId, TorrentSpec, UNIT};
use swarm::time::Time;
use swarm::wire::Message;

const PEER: PeerId = PeerId(1);

/// An empty node of a torrent of so many pieces, and a peer.
fn node(pieces: u32) -> Swarm {
    let mut swarm = Swarm::new(Config::default());
    let (len, torrent) = (u64::from(pieces) * u64::from(UNIT), TorrentId(0));
    let spec =
        TorrentSpec { len, piece_len: UNIT, start: Start::Empty, private: false, metadata_len: 0 };
    let connected = Event::Connected { peer: PEER, torrent, node: 1, fast: true, extended: true };
    for event in [Event::Add(torrent, spec), connected] {
        swarm.handle(Time(0), event, &mut Vec::new());
    }
    swarm
}

/// It took the scheduler as long as all the haves it stands for, however often it was said: with a
/// million pieces six milliseconds for five bytes.
#[test]
fn what_is_said_again_of_all_pieces_costs_next_to_nothing() {
    let pieces = 1 << 18;
    for message in [Message::Bitfield(Bitfield::full(pieces).to_bytes()), Message::HaveAll] {
        let mut swarm = node(pieces);
        let mut time = || {
            let begin = Instant::now();
            swarm.handle(Time(1), Event::Message(PEER, message.clone()), &mut Vec::new());
            begin.elapsed()
        };
        let (first, again) = (time(), time());
        println!("{first:?}, again {again:?}");
        assert!(again * 4 < first, "{again:?}, the first time {first:?}");
    }
}
