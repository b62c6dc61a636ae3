//! Who is handed the torrent itself.

use super::*;
use crate::wire::metadata::{METADATA_ID, Metadata};

/// A torrent of 40 000 bytes: three pieces of metadata.
const LEN: u32 = 40_000;

/// A node whose torrent may be private, a peer that takes metadata with id 9 if it has one, and what
/// it was told first.
fn met(private: bool, id: Option<u8>) -> (Node, Hello) {
    let mut node = Node { swarm: Swarm::new(Config::default()), now: Time(0) };
    let len = 4 * u64::from(PIECE);
    let spec =
        TorrentSpec { len, piece_len: PIECE, start: Start::Source, private, metadata_len: LEN };
    node.on(Event::Add(T, spec));
    let peer = PeerId(1);
    let connected = Event::Connected { peer, torrent: T, node: 1, fast: true, extended: true };
    let actions = node.on(connected);
    let hello = actions.iter().find_map(|action| match action {
        Action::Send(_, Message::Extended { id: 0, payload }) => Hello::decode(payload).ok(),
        _ => None,
    });
    node.on(says(0, Hello { metadata_id: id, ..Hello::default() }.encode()));
    (node, hello.expect("it introduces itself"))
}

fn says(id: u8, payload: Vec<u8>) -> Event {
    Event::Message(PeerId(1), Message::Extended { id, payload })
}

fn asks(piece: u32) -> Event {
    says(METADATA_ID, Metadata::Request(piece).encode())
}

fn refused(piece: u32) -> Action {
    let payload = Metadata::Reject(piece).encode();
    Action::Send(PeerId(1), Message::Extended { id: 9, payload })
}

#[test]
fn who_asks_for_the_torrent_is_handed_it() {
    let (mut node, hello) = met(false, Some(9));
    assert_eq!((hello.metadata_id, hello.metadata_len), (Some(METADATA_ID), Some(LEN.into())));
    for piece in 0..3 {
        let wanted = Action::Metadata { peer: PeerId(1), id: 9, piece };
        assert!(node.on(asks(piece)).contains(&wanted));
    }
    assert!(node.on(asks(3)).contains(&refused(3)), "there is no such piece");
    assert!(node.on(asks(u32::MAX)).contains(&refused(u32::MAX)));
}

#[test]
fn who_asks_for_it_for_ever_is_refused() {
    let (mut node, _) = met(false, Some(9));
    let given = (0..100).filter(|_| !node.on(asks(1)).contains(&refused(1))).count();
    assert_eq!(given, 9, "three times three pieces");
    assert!(node.swarm.peers.contains_key(&PeerId(1)), "it may want blocks");
}

#[test]
fn a_private_torrent_is_handed_to_nobody() {
    let (mut node, hello) = met(true, Some(9));
    assert_eq!((hello.metadata_id, hello.metadata_len), (None, None));
    assert!(node.on(asks(0)).contains(&refused(0)));
}

#[test]
fn who_cannot_be_answered_is_not() {
    let (mut node, _) = met(false, None);
    let actions = node.on(asks(0));
    let answer = |action: &Action| matches!(action, Action::Metadata { .. } | Action::Send(..));
    assert!(!actions.iter().any(answer), "{actions:?}");
}

#[test]
fn a_malformed_request_ends_the_connection() {
    let (mut node, _) = met(false, Some(9));
    let actions = node.on(says(METADATA_ID, b"i1e".to_vec()));
    assert!(matches!(actions[..], [Action::Close(_, Reason::Nonsense(_)), ..]), "{actions:?}");
}
