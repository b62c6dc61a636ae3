//! What peers tell of others.

use super::*;
use crate::wire::pex::{PEX_ID, Pex};

/// A node with a torrent, and what it says first to a modern peer.
fn met(private: bool) -> (Node, Hello) {
    let mut node = Node { swarm: Swarm::new(Config::default()), now: Time(0) };
    let spec = TorrentSpec {
        len: 4 * u64::from(PIECE),
        piece_len: PIECE,
        start: Start::Empty,
        private,
        metadata_len: 0,
    };
    node.on(Event::Add(T, spec));
    let actions = node.on(Event::Connected {
        peer: PeerId(1),
        torrent: T,
        node: 1,
        fast: true,
        extended: true,
    });
    let hello = actions.iter().find_map(|action| match action {
        Action::Send(_, Message::Extended { id: 0, payload }) => Hello::decode(payload).ok(),
        _ => None,
    });
    (node, hello.expect("it introduces itself"))
}

fn says(id: u8, payload: Vec<u8>) -> Event {
    Event::Message(PeerId(1), Message::Extended { id, payload })
}

fn introduction() -> Event {
    says(0, Hello { pex_id: Some(5), port: Some(6881), ..Hello::default() }.encode())
}

fn message() -> Pex {
    Pex { added: ["10.0.0.1:6881".parse().unwrap()].to_vec(), ..Pex::default() }
}

#[test]
fn who_introduces_itself_and_what_it_tells_is_passed_on() {
    let (mut node, hello) = met(false);
    assert_eq!(hello.pex_id, Some(PEX_ID));
    let actions = node.on(introduction());
    let wanted = Action::Met { peer: PeerId(1), pex_id: Some(5), port: Some(6881) };
    assert!(actions.contains(&wanted), "{actions:?}");
    let actions = node.on(says(PEX_ID, message().encode()));
    assert!(actions.contains(&Action::Pex(PeerId(1), message())), "{actions:?}");
}

#[test]
fn peers_of_a_private_torrent_are_told_and_believed_nothing() {
    let (mut node, hello) = met(true);
    assert_eq!(hello.pex_id, None);
    let mut actions = node.on(introduction());
    actions.extend(node.on(says(PEX_ID, message().encode())));
    let leaks = |action: &Action| matches!(action, Action::Met { .. } | Action::Pex(..));
    assert!(!actions.iter().any(leaks), "{actions:?}");
}

#[test]
fn a_malformed_message_ends_the_connection() {
    let (mut node, _) = met(false);
    let actions = node.on(says(PEX_ID, b"d5:addedi1ee".to_vec()));
    assert!(
        matches!(actions[..], [Action::Close(PeerId(1), Reason::Nonsense(_)), ..]),
        "{actions:?}"
    );
}
