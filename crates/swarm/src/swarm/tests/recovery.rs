//! What the simulator with drawn faults has found: swarms that stood still for good.

use super::*;
use crate::wire::extension::Coming;

/// Whether `peer` is told `message`.
fn says(actions: &[Action], peer: PeerId, message: &Message) -> bool {
    actions
        .iter()
        .any(|action| matches!(action, Action::Send(to, m) if *to == peer && m == message))
}

/// Fetches `piece` of `peer` and finds it `right` or not.
fn fetch(node: &mut Node, peer: PeerId, piece: u32, right: bool) -> Vec<Action> {
    let actions = node.grant(peer, PIECE, Some(piece));
    assert_eq!(requested(&actions, peer), [piece]);
    node.receive(&actions);
    let actions = node.on(Event::Verified(T, piece, right));
    if right {
        node.on(Event::Stored(T, piece));
    }
    actions
}

#[test]
fn who_offers_a_piece_still_hears_that_others_have_it_whole() {
    let mut node = Node::new(Start::Empty, 4);
    let (from, offers) = (node.own(1, &[0]), node.own(2, &[]));
    node.on(xg(offers, Xg { coming: Some(Coming { piece: 0, hops: 1 }), ..Xg::default() }));
    let mut actions = fetch(&mut node, from, 0, true);
    actions.extend(node.on(Event::Tick));
    assert!(says(&actions, offers, &Message::Have(0)), "{actions:?}");
    assert!(!says(&actions, from, &Message::Have(0)), "it has it whole: {actions:?}");
}

/// Sources that show what they have bit by bit wait for that (BEP 16).
#[test]
fn a_stranger_hears_of_what_it_has_itself() {
    let mut node = Node::new(Start::Empty, 4);
    let peer = node.stranger(1, &[0]);
    let actions = node.on(Event::Message(peer, Message::Unchoke));
    node.receive(&actions);
    let mut actions = node.on(Event::Verified(T, 0, true));
    actions.extend(node.on(Event::Tick));
    assert!(says(&actions, peer, &Message::Have(0)), "{actions:?}");
}

#[test]
fn hands_full_of_begun_pieces_are_held_out_to_who_can_go_on_with_them() {
    let config = Config { budget: 2 * u64::from(PIECE), ..Config::default() };
    let mut node = Node::with(config, Start::Empty, 4);
    let first = node.own(1, &[0]);
    assert_eq!(requested(&node.grant(first, PIECE, None), first), [0]);
    node.on(Event::Received { peer: first, piece: 0, begin: 0, len: UNIT });
    node.on(Event::Disconnected(first));
    let peer = node.connect(2, true);
    let hello = Hello { xg_id: Some(XG_ID), block: 1 << 20, ..Hello::default() };
    node.on(Event::Message(peer, Message::Extended { id: 0, payload: hello.encode() }));
    let actions = node.on(Event::Message(peer, Message::Have(0)));
    assert!(says(&actions, peer, &Message::Interested), "{actions:?}");
}

#[test]
fn one_of_ours_that_is_late_to_say_so_is_taken_for_one_of_ours_after_all() {
    let mut node = Node::new(Start::Source, 4);
    let peer = node.connect(1, true);
    node.after(Duration::from_secs(1), Event::Tick);
    let actions = node.on(Event::Message(peer, Message::Interested));
    assert!(says(&actions, peer, &Message::Unchoke), "taken for a stranger: {actions:?}");
    let hello = Hello { xg_id: Some(XG_ID), block: 1 << 20, ..Hello::default() };
    node.on(Event::Message(peer, Message::Extended { id: 0, payload: hello.encode() }));
    let actions = node.on(xg(peer, Xg { load: Some(0), ..Xg::default() }));
    assert!(!actions.iter().any(|action| matches!(action, Action::Close(..))), "{actions:?}");
    assert_eq!(node.swarm.progress(T).map(|progress| progress.peers), Some(1));
}

#[test]
fn a_source_with_a_rotten_piece_is_asked_for_all_others() {
    let mut node = Node::new(Start::Empty, 8);
    let source = node.own(1, &[0, 1, 2, 3, 4, 5, 6, 7]);
    for _ in 0..8 {
        let actions = fetch(&mut node, source, 3, false);
        assert!(!actions.iter().any(|action| matches!(action, Action::Close(..))), "{actions:?}");
        let others = node.grant(source, PIECE, Some(3));
        assert_ne!(requested(&others, source), [3], "not at once");
        node.receive(&others);
        if let [piece] = requested(&others, source)[..] {
            node.on(Event::Verified(T, piece, true));
            node.on(Event::Stored(T, piece));
        }
        node.after(Duration::from_secs(300), Event::Tick);
    }
    assert_eq!(node.swarm.progress(T).map(|progress| progress.stored), Some(7));
}

#[test]
fn a_ban_of_a_piece_outlives_the_connection() {
    let mut node = Node::new(Start::Empty, 4);
    let source = node.own(1, &[0, 1]);
    fetch(&mut node, source, 0, false);
    node.on(Event::Disconnected(source));
    let (peer, again) = (PeerId(9), 1);
    node.on(Event::Connected { peer, torrent: T, node: again, fast: true, extended: true });
    let hello = Hello { xg_id: Some(XG_ID), block: 1 << 20, seed: true, ..Hello::default() };
    node.on(Event::Message(peer, Message::Extended { id: 0, payload: hello.encode() }));
    assert_eq!(requested(&node.grant(peer, PIECE, Some(0)), peer), [1]);
}

/// A second passed with every tick in which nothing came made the link look slower, and the patience
/// with it longer, than the second.
#[test]
fn a_silent_peer_is_given_up_also_when_nothing_else_comes() {
    let mut node = Node::with(Config::default(), Start::Empty, 4);
    let peer = node.own(1, &[0]);
    assert_eq!(requested(&node.grant(peer, PIECE, None), peer), [0]);
    node.on(Event::Received { peer, piece: 0, begin: 0, len: UNIT });
    for _ in 0..1300 {
        node.after(Duration::from_millis(100), Event::Tick);
    }
    assert_eq!(node.swarm.totals().stalled, 1);
}

#[test]
fn a_stranger_that_chokes_and_unchokes_and_gives_nothing_is_left_for_others() {
    let mut node = Node::new(Start::Empty, 1);
    let peer = node.stranger(1, &[0]);
    for turn in 0..3 {
        let actions = node.on(Event::Message(peer, Message::Unchoke));
        let wanted: &[u32] = if turn < 2 { &[0] } else { &[] };
        assert_eq!(requested(&actions, peer), wanted, "turn {turn}");
        node.after(Duration::from_secs(3), Event::Message(peer, Message::Choke));
    }
    let other = node.stranger(2, &[0]);
    let actions = node.on(Event::Message(other, Message::Unchoke));
    assert_eq!(requested(&actions, other), [0]);
}

#[test]
fn one_of_ours_that_takes_its_grants_back_and_gives_nothing_is_left_for_others() {
    let mut node = Node::new(Start::Empty, 1);
    let peer = node.own(1, &[0]);
    for turn in 0..3 {
        let actions = node.grant(peer, PIECE, None);
        let wanted: &[u32] = if turn < 2 { &[0] } else { &[] };
        assert_eq!(requested(&actions, peer), wanted, "turn {turn}");
        node.now = node.now + Duration::from_millis(1500);
        node.grant(peer, 0, None);
    }
    let other = node.own(2, &[0]);
    assert_eq!(requested(&node.grant(other, PIECE, None), other), [0]);
}

#[test]
fn what_a_source_gave_to_one_that_left_is_shown_to_strangers_again() {
    let mut node = Node::new(Start::Source, 8);
    let gone = node.own(1, &[4, 5, 6, 7]);
    let stranger = node.stranger(2, &[]);
    node.after(Duration::from_millis(30), Event::Tick);
    for piece in 0..4 {
        node.on(Event::Message(stranger, Message::Have(piece)));
    }
    let mut actions = node.on(Event::Disconnected(gone));
    assert!(!says(&actions, stranger, &Message::Have(4)), "not yet");
    for _ in 0..10 {
        actions.extend(node.after(Duration::from_millis(100), Event::Tick));
    }
    assert!(says(&actions, stranger, &Message::Have(4)), "{actions:?}");
}

#[test]
fn a_piece_that_is_wrong_on_the_source_does_not_keep_it_from_showing_the_others() {
    let mut node = Node::new(Start::Source, 8);
    let stranger = node.stranger(1, &[]);
    for piece in 1..8 {
        node.on(Event::Message(stranger, Message::Have(piece)));
    }
    node.on(Event::Message(stranger, Message::Interested));
    for _ in 0..60 {
        node.after(Duration::from_secs(1), Event::Tick);
    }
    let actions = node.after(
        Duration::from_millis(30),
        Event::Connected { peer: PeerId(3), torrent: T, node: 3, fast: false, extended: false },
    );
    let all = Message::Bitfield(crate::bitfield::Bitfield::full(8).to_bytes());
    assert!(says(&actions, PeerId(3), &all), "{actions:?}");
}

#[test]
fn strangers_that_come_while_a_source_gives_lost_pieces_again_are_shown_everything_later() {
    let mut node = Node::new(Start::Source, 8);
    let all = node.stranger(1, &[0, 1, 2, 3, 4, 5, 6, 7]);
    node.after(Duration::from_millis(30), Event::Tick);
    node.on(Event::Disconnected(all));
    node.after(Duration::from_millis(30), Event::Tick);
    let (one, _two) = (node.stranger(2, &[]), node.stranger(3, &[4, 5, 6, 7]));
    let mut actions = Vec::new();
    for piece in 0..4 {
        actions.extend(node.on(Event::Message(one, Message::Have(piece))));
    }
    actions.extend(node.after(Duration::from_millis(30), Event::Tick));
    assert!(says(&actions, one, &Message::Have(4)), "{actions:?}");
}
