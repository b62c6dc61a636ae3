//! Pieces that are passed on while they come in.

use super::*;
use crate::wire::extension::Coming;

/// What `peer` is told of pieces that come in, and of pieces it cannot have any more.
fn told(actions: &[Action], peer: PeerId) -> (Vec<Coming>, Vec<u32>) {
    let ours = |action: &Action| match action {
        Action::Send(to, Message::Extended { id: XG_ID, payload }) if *to == peer => {
            Xg::decode(payload).ok()
        }
        _ => None,
    };
    let xgs: Vec<Xg> = actions.iter().filter_map(ours).collect();
    (xgs.iter().filter_map(|xg| xg.coming).collect(), xgs.iter().filter_map(|xg| xg.lost).collect())
}

fn offers(node: &mut Node, peer: PeerId, piece: u32, hops: u8) {
    let coming = Some(Coming { piece, hops });
    node.on(xg(peer, Xg { coming, ..Xg::default() }));
}

/// A node that is asked `from` a peer for piece 0 of which one unit has come, and what it did.
fn begun(node: &mut Node, from: PeerId) -> Vec<Action> {
    assert_eq!(requested(&node.grant(from, PIECE, None), from), [0]);
    let mut actions = node.on(Event::Received { peer: from, piece: 0, begin: 0, len: UNIT });
    actions.extend(node.on(Event::Tick));
    actions
}

fn rest(node: &mut Node, from: PeerId) -> Vec<Action> {
    node.on(Event::Received { peer: from, piece: 0, begin: UNIT, len: PIECE - UNIT })
}

#[test]
fn a_piece_is_offered_to_our_own_when_its_first_bytes_have_come() {
    let mut node = Node::new(Start::Empty, 4);
    let (from, lacks, has) = (node.own(1, &[0]), node.own(2, &[]), node.own(3, &[0]));
    let stranger = node.stranger(4, &[]);
    let actions = begun(&mut node, from);
    assert_eq!(told(&actions, lacks).0, [Coming { piece: 0, hops: 1 }]);
    for other in [from, has, stranger] {
        assert_eq!(told(&actions, other).0, [], "{other:?}");
    }
    let again = node.on(Event::Received { peer: from, piece: 0, begin: UNIT, len: UNIT });
    assert_eq!(told(&again, lacks).0, [], "once is enough");
}

#[test]
fn an_offered_piece_is_asked_for_and_offered_on() {
    let mut node = Node::new(Start::Empty, 4);
    let (from, next) = (node.own(1, &[]), node.own(2, &[]));
    offers(&mut node, from, 0, 3);
    let actions = begun(&mut node, from);
    assert_eq!(told(&actions, next).0, [Coming { piece: 0, hops: 4 }]);
}

#[test]
fn an_offer_from_too_far_away_is_not_taken() {
    let mut node = Node::new(Start::Empty, 4);
    let from = node.own(1, &[]);
    offers(&mut node, from, 0, super::super::connect::HOPS_MAX + 1);
    assert_eq!(requested(&node.grant(from, PIECE, None), from), []);
}

/// Two that wait for each other would wait for ever.
#[test]
fn what_was_begun_goes_on_only_with_who_is_nearer_to_a_whole_piece() {
    let mut node = Node::new(Start::Empty, 4);
    let (from, further, nearer) = (node.own(1, &[]), node.own(2, &[]), node.own(3, &[]));
    offers(&mut node, from, 0, 2);
    begun(&mut node, from);
    offers(&mut node, further, 0, 3);
    offers(&mut node, nearer, 0, 1);
    node.on(Event::Disconnected(from));
    assert_eq!(requested(&node.grant(further, PIECE, None), further), []);
    assert_eq!(requested(&node.grant(nearer, PIECE, None), nearer), [0]);
}

#[test]
fn who_passed_a_wrong_piece_on_is_not_blamed_and_not_asked_for_it_again() {
    let mut node = Node::new(Start::Empty, 4);
    let (from, next, whole) = (node.own(1, &[]), node.own(2, &[]), node.own(3, &[]));
    offers(&mut node, from, 0, 1);
    begun(&mut node, from);
    rest(&mut node, from);
    let actions = node.on(Event::Verified(T, 0, false));
    assert_eq!(told(&actions, next).1, [0], "who has it from here hears of it");
    assert!(actions.contains(&Action::Discard(T, 0)), "{actions:?}");
    offers(&mut node, from, 0, 1);
    assert_eq!(requested(&node.grant(from, PIECE, None), from), [], "only a verified one now");
    node.on(Event::Message(whole, Message::Have(0)));
    assert_eq!(requested(&node.grant(whole, PIECE, None), whole), [0]);
    rest(&mut node, whole);
    node.on(Event::Received { peer: whole, piece: 0, begin: 0, len: UNIT });
    let actions = node.on(Event::Verified(T, 0, true));
    assert!(actions.contains(&Action::Store(T, 0)), "{actions:?}");
}

#[test]
fn an_offer_of_which_nothing_more_comes_is_forgotten() {
    let mut node = Node::new(Start::Empty, 4);
    let from = node.own(1, &[]);
    offers(&mut node, from, 0, 1);
    begun(&mut node, from);
    node.after(Duration::from_secs(11), Event::Tick);
    assert_eq!(node.swarm.totals().stalled, 1);
    assert_eq!(requested(&node.grant(from, PIECE, None), from), []);
    let actions = node.on(Event::Message(from, Message::Have(0)));
    assert!(!actions.iter().any(|action| matches!(action, Action::Close(..))));
    assert_eq!(requested(&node.grant(from, PIECE, None), from), [0]);
}

#[test]
fn a_lost_offer_is_answered_with_what_is_here() {
    let mut node = Node::new(Start::Unknown, 1);
    let peer = node.own(1, &[]);
    node.on(Event::Found(T, 0));
    offers(&mut node, peer, 0, 1);
    let actions = node.on(xg(peer, Xg { lost: Some(0), ..Xg::default() }));
    assert!(actions.contains(&Action::Send(peer, Message::Have(0))), "{actions:?}");
}

#[test]
fn a_source_takes_no_offer_for_an_arrival() {
    let mut node = Node::new(Start::Source, 2);
    let peer = node.own(1, &[]);
    offers(&mut node, peer, 0, 1);
    let actions = node.on(Event::Message(peer, Message::Interested));
    assert_eq!(named(&actions), [(peer, 0), (peer, 1)], "piece 0 is nobody's yet");
}
