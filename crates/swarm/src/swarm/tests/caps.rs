//! Bounds of connections and of peers served.

use super::*;

const CAP: Caps = Caps { uploads: Some(2), connections: Some(3), strangers_only: false };
const HINT: Caps = Caps { strangers_only: true, ..CAP };

fn capped(caps: Caps) -> Node {
    let mut node = Node::new(Start::Source, 64);
    node.on(Event::Cap(T, caps));
    node
}

/// Connects so many of our own nodes and then so many strangers; which of them are still there.
fn connected(node: &mut Node, own: u32, strangers: u32) -> (usize, usize) {
    for id in 0..own {
        let peer = node.own(id, &[]);
        // A tenth of ours, so that there are slots for all.
        node.on(xg(peer, Xg { rate: Some(1_000_000), ..Xg::default() }));
    }
    for id in own..own + strangers {
        node.stranger(id, &[]);
    }
    let own = |peer: &&Peer| peer.is_own();
    let count = node.swarm.peers.values().filter(own).count();
    (count, node.swarm.peers.len() - count)
}

/// All of these want something; how many of ours and how many strangers are served at a time.
fn served(node: &mut Node) -> (usize, usize) {
    let peers: Vec<PeerId> = node.swarm.peers.keys().copied().collect();
    peers.iter().for_each(|&peer| drop(node.on(Event::Message(peer, Message::Interested))));
    node.on(Event::Tick);
    let served = node.swarm.peers.values().filter(|peer| !peer.grants.is_empty());
    let (own, strangers): (Vec<_>, Vec<_>) = served.partition(|peer| peer.is_own());
    (own.len(), strangers.len())
}

#[test]
fn a_cap_binds_the_connections_of_everybody() {
    assert_eq!(connected(&mut capped(CAP), 6, 0), (3, 0));
    assert_eq!(connected(&mut capped(CAP), 2, 6), (2, 1));
    assert_eq!(connected(&mut capped(CAP), 0, 6), (0, 3));
    assert_eq!(connected(&mut capped(Caps::default()), 6, 6), (6, 6));
}

#[test]
fn a_hint_binds_the_connections_of_strangers_only() {
    assert_eq!(connected(&mut capped(HINT), 6, 6), (6, 3));
}

#[test]
fn a_cap_binds_how_many_are_served() {
    let uploads = Caps { uploads: Some(1), ..Caps::default() };
    let mut node = capped(uploads);
    connected(&mut node, 3, 0);
    assert_eq!(served(&mut node), (1, 0));
    let mut node = capped(uploads);
    connected(&mut node, 0, 3);
    assert_eq!(served(&mut node), (0, 1));
}

#[test]
fn a_hint_binds_how_many_strangers_are_served() {
    let one = Caps { uploads: Some(1), connections: None, strangers_only: true };
    let mut node = capped(one);
    connected(&mut node, 2, 2);
    assert_eq!(served(&mut node), (2, 1));
}

#[test]
fn without_either_all_are_served() {
    let mut node = capped(Caps::default());
    connected(&mut node, 3, 2);
    assert_eq!(served(&mut node), (3, 2));
}

#[test]
fn a_cap_that_comes_late_keeps_the_first() {
    let mut node = Node::new(Start::Source, 4);
    connected(&mut node, 5, 0);
    let actions = node.on(Event::Cap(T, CAP));
    let full = |id| Action::Close(PeerId(id), Reason::Full);
    assert!(actions.contains(&full(4)) && actions.contains(&full(3)), "{actions:?}");
    assert_eq!(node.swarm.peers.len(), 3);
}

#[test]
fn an_idle_connection_makes_room_for_a_newcomer() {
    let mut node = capped(CAP);
    connected(&mut node, 3, 0);
    for id in [0, 2] {
        node.on(Event::Message(PeerId(id), Message::Interested));
    }
    node.after(Duration::from_secs(6), Event::Tick);
    let actions = node.on(Event::Connected {
        peer: PeerId(9),
        torrent: T,
        node: 9,
        fast: true,
        extended: true,
    });
    assert!(actions.contains(&Action::Close(PeerId(1), Reason::Full)), "{actions:?}");
    assert!(node.swarm.peers.contains_key(&PeerId(9)));
}

#[test]
fn a_second_connection_of_a_node_replaces_the_first() {
    let mut node = capped(CAP);
    connected(&mut node, 3, 0);
    let twin = PeerId(9);
    node.on(Event::Connected { peer: twin, torrent: T, node: 2, fast: true, extended: true });
    assert!(node.swarm.peers.contains_key(&twin));
}

#[test]
fn a_full_torrent_looks_for_no_more() {
    let mut node = capped(CAP);
    assert!(!node.swarm.is_full(T));
    connected(&mut node, 3, 0);
    assert!(node.swarm.is_full(T));
    let mut hinted = capped(HINT);
    connected(&mut hinted, 0, 3);
    assert!(!hinted.swarm.is_full(T), "whom it would dial may be one of our own");
}
