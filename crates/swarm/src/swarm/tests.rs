mod caps;
mod metadata;
mod pex;
mod recovery;
mod relay;

use super::*;
use crate::wire::extension::{Hello, XG_ID, Xg};
use crate::wire::{Block, Message};
use alloc::collections::BTreeSet;
use alloc::vec;

const T: TorrentId = TorrentId(0);
const PIECE: u32 = 4 * UNIT;

/// A node, told what happens one event after another.
struct Node {
    swarm: Swarm,
    now: Time,
}

impl Node {
    fn new(start: Start, pieces: u32) -> Node {
        let config = Config { uplink: 10_000_000, downlink: 10_000_000, ..Config::default() };
        Node::with(config, start, pieces)
    }

    fn with(config: Config, start: Start, pieces: u32) -> Node {
        let mut node = Node { swarm: Swarm::new(config), now: Time(0) };
        let len = u64::from(pieces) * u64::from(PIECE);
        node.on(Event::Add(
            T,
            TorrentSpec { len, piece_len: PIECE, start, private: false, metadata_len: 0 },
        ));
        node
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.after(Duration::from_millis(2), event)
    }

    fn after(&mut self, span: Duration, event: Event) -> Vec<Action> {
        self.now = self.now + span;
        let mut actions = Vec::new();
        self.swarm.handle(self.now, event, &mut actions);
        self.swarm.check_invariants();
        actions
    }

    /// Connects one of our own nodes that has `pieces`.
    fn own(&mut self, id: u32, pieces: &[u32]) -> PeerId {
        let peer = self.connect(id, true);
        let hello = Hello { xg_id: Some(XG_ID), block: 1 << 20, ..Hello::default() };
        self.on(Event::Message(peer, Message::Extended { id: 0, payload: hello.encode() }));
        pieces.iter().for_each(|&piece| drop(self.on(Event::Message(peer, Message::Have(piece)))));
        peer
    }

    /// Connects an ordinary client that has `pieces`.
    fn stranger(&mut self, id: u32, pieces: &[u32]) -> PeerId {
        let peer = self.connect(id, false);
        pieces.iter().for_each(|&piece| drop(self.on(Event::Message(peer, Message::Have(piece)))));
        peer
    }

    fn connect(&mut self, id: u32, modern: bool) -> PeerId {
        let (peer, node) = (PeerId(id), u64::from(id));
        self.on(Event::Connected { peer, torrent: T, node, fast: modern, extended: modern });
        peer
    }

    fn grant(&mut self, peer: PeerId, bytes: u32, piece: Option<u32>) -> Vec<Action> {
        let grant = Some(extension_grant(bytes, piece));
        self.on(xg(peer, Xg { grant, ..Xg::default() }))
    }

    /// Everything that was requested in `actions` comes.
    fn receive(&mut self, actions: &[Action]) -> Vec<Action> {
        let mut out = Vec::new();
        for action in actions {
            if let Action::Request(peer, Run { piece, begin, len, .. }) = *action {
                out.extend(self.on(Event::Received { peer, piece, begin, len }));
            }
        }
        out
    }
}

fn extension_grant(bytes: u32, piece: Option<u32>) -> crate::wire::extension::Grant {
    crate::wire::extension::Grant { bytes: bytes.into(), piece }
}

fn xg(peer: PeerId, xg: Xg) -> Event {
    Event::Message(peer, Message::Extended { id: XG_ID, payload: xg.encode() })
}

/// The pieces requested of `peer`.
fn requested(actions: &[Action], peer: PeerId) -> Vec<u32> {
    let piece = |action: &Action| match action {
        Action::Request(to, run) if *to == peer => Some(run.piece),
        _ => None,
    };
    actions.iter().filter_map(piece).collect()
}

/// The pieces granted by name.
fn named(actions: &[Action]) -> Vec<(PeerId, u32)> {
    let grant = |action: &Action| match action {
        Action::Send(peer, Message::Extended { id: XG_ID, payload }) => {
            Some((*peer, Xg::decode(payload).ok()?.grant?.piece?))
        }
        _ => None,
    };
    actions.iter().filter_map(grant).collect()
}

#[test]
fn a_grant_is_used_whole_and_at_once() {
    let mut node = Node::new(Start::Empty, 4);
    let peer = node.own(1, &[2, 3]);
    let actions = node.grant(peer, PIECE, None);
    let run = Run { piece: 2, begin: 0, len: PIECE, block: UNIT * 4 };
    assert!(actions.contains(&Action::Request(peer, run)), "{actions:?}");
    let actions = node.receive(&actions);
    assert!(actions.contains(&Action::Verify(T, 2)));
    let actions = node.on(Event::Verified(T, 2, true));
    assert!(actions.contains(&Action::Store(T, 2)));
    assert_eq!(node.swarm.progress(T).map(|p| (p.verified, p.stored)), Some((1, 0)));
    node.on(Event::Stored(T, 2));
    assert_eq!(node.swarm.progress(T).map(|p| (p.verified, p.stored)), Some((1, 1)));
}

#[test]
fn what_cannot_be_used_of_a_grant_is_given_back() {
    let mut node = Node::new(Start::Empty, 4);
    let peer = node.own(1, &[2]);
    node.grant(peer, PIECE, None);
    let actions = node.grant(peer, PIECE, None);
    let back = Xg { unused: Some(PIECE.into()), ..Xg::default() };
    let message = Message::Extended { id: XG_ID, payload: back.encode() };
    assert!(actions.contains(&Action::Send(peer, message)), "{actions:?}");
}

#[test]
fn a_source_grants_each_piece_once_and_in_order() {
    let mut node = Node::new(Start::Source, 4);
    let (a, b) = (node.own(1, &[]), node.own(2, &[]));
    let mut grants = named(&node.on(Event::Message(a, Message::Interested)));
    grants.extend(named(&node.on(Event::Message(b, Message::Interested))));
    for _ in 0..6 {
        let Some(&(peer, piece)) = grants.last() else { break };
        node.on(Event::Requested(peer, 0, PIECE.into()));
        grants.extend(named(&node.on(Event::Served(peer, PIECE.into()))));
        grants.extend(named(&node.on(Event::Message(peer, Message::Have(piece)))));
    }
    let pieces: Vec<u32> = grants.iter().map(|&(_, piece)| piece).collect();
    assert_eq!(pieces, [0, 1, 2, 3]);
}

#[test]
fn a_source_gives_again_what_was_lost_with_its_receiver() {
    let mut node = Node::new(Start::Source, 4);
    let a = node.own(1, &[]);
    assert_eq!(named(&node.on(Event::Message(a, Message::Interested))), [(a, 0), (a, 1)]);
    node.on(Event::Disconnected(a));
    let b = node.own(2, &[]);
    assert_eq!(named(&node.on(Event::Message(b, Message::Interested))), [(b, 0), (b, 1)]);
}

#[test]
fn a_source_skips_what_a_peer_has_already() {
    let mut node = Node::new(Start::Source, 4);
    let (a, _) = (node.own(1, &[]), node.own(2, &[0, 2]));
    assert_eq!(named(&node.on(Event::Message(a, Message::Interested))), [(a, 1), (a, 3)]);
}

#[test]
fn a_grant_that_nobody_uses_is_taken_back() {
    let mut node = Node::new(Start::Source, 4);
    let a = node.own(1, &[]);
    node.on(Event::Message(a, Message::Interested));
    let actions = node.after(Duration::from_millis(400), Event::Tick);
    assert!(actions.contains(&Action::Deny(a)), "{actions:?}");
    assert!(node.swarm.totals().revoked > 0);
}

#[test]
fn a_silent_sender_loses_its_leases_and_then_its_connection() {
    let mut node = Node::new(Start::Empty, 4);
    let peer = node.own(1, &[0, 1, 2, 3]);
    let mut closed = false;
    for _ in 0..12 {
        let mut actions = node.grant(peer, PIECE, None);
        actions.extend(node.after(Duration::from_secs(11), Event::Tick));
        closed |= actions.contains(&Action::Close(peer, Reason::Silent));
    }
    assert!(closed);
    assert_eq!(node.swarm.progress(T).map(|p| p.in_flight), Some(0));
}

#[test]
fn a_wrong_piece_of_two_sources_comes_again_whole_from_one() {
    let mut node = Node::new(Start::Empty, 1);
    let (a, b) = (node.own(1, &[0]), node.own(2, &[0]));
    let half = PIECE / 2;
    let first = node.grant(a, half * 2, None);
    assert_eq!(requested(&first, a), [0]);
    node.on(Event::Received { peer: a, piece: 0, begin: 0, len: half });
    node.on(Event::Message(a, Message::Reject(Block { piece: 0, begin: half, len: half })));
    let rest = node.grant(b, PIECE, None);
    node.receive(&rest);
    let actions = node.on(Event::Verified(T, 0, false));
    assert!(actions.contains(&Action::Discard(T, 0)));
    assert!(!actions.iter().any(|action| matches!(action, Action::Close(..))), "{actions:?}");
    // Now the whole piece is asked of one, so that blame is clear.
    let again = node.grant(b, PIECE, None);
    let whole = Run { piece: 0, begin: 0, len: PIECE, block: PIECE };
    assert!(again.contains(&Action::Request(b, whole)), "{again:?}");
    assert_eq!(requested(&node.grant(a, PIECE, None), a), [] as [u32; 0]);
    node.receive(&again);
    node.on(Event::Verified(T, 0, false));
    assert_eq!(requested(&node.grant(b, PIECE, None), b), [] as [u32; 0], "blamed for it");
    assert_eq!(requested(&node.grant(a, PIECE, None), a), [0]);
}

#[test]
fn the_only_source_of_a_wrong_piece_is_asked_again_later() {
    let mut node = Node::new(Start::Empty, 2);
    let peer = node.own(1, &[0]);
    let actions = node.grant(peer, PIECE, None);
    node.receive(&actions);
    node.on(Event::Verified(T, 0, false));
    assert_eq!(requested(&node.grant(peer, PIECE, None), peer), [] as [u32; 0]);
    node.after(Duration::from_secs(2), Event::Tick);
    assert_eq!(requested(&node.grant(peer, PIECE, None), peer), [0]);
}

#[test]
fn an_unreadable_piece_is_told_to_our_own() {
    let mut source = Node::new(Start::Source, 4);
    let peer = source.own(1, &[]);
    let actions = source.on(Event::Unreadable(T, 2));
    let lost = Xg { lost: Some(2), ..Xg::default() };
    let message = Message::Extended { id: XG_ID, payload: lost.encode() };
    assert!(actions.contains(&Action::Send(peer, message)));
    assert_eq!(source.swarm.progress(T).map(|p| p.unreadable), Some(1));

    let mut client = Node::new(Start::Empty, 4);
    let source = client.own(1, &[2]);
    client.grant(source, PIECE, None);
    client.on(xg(source, lost));
    assert_eq!(requested(&client.grant(source, PIECE, None), source), [] as [u32; 0]);
}

/// The ban goes to the piece at that node: everything else comes from it as before.
#[test]
fn who_sent_a_wrong_piece_is_told_and_looks_at_its_disk() {
    let mut client = Node::new(Start::Empty, 4);
    let seeder = client.own(1, &[0, 1]);
    let actions = client.grant(seeder, PIECE, Some(0));
    client.receive(&actions);
    let actions = client.on(Event::Verified(T, 0, false));
    let wrong = Xg { wrong: Some(0), ..Xg::default() };
    let message = Message::Extended { id: XG_ID, payload: wrong.encode() };
    assert!(actions.contains(&Action::Send(seeder, message)), "{actions:?}");
    assert!(actions.contains(&Action::Wrong(T, seeder, 0)), "{actions:?}");
    assert_eq!(requested(&client.grant(seeder, PIECE, None), seeder), [1]);

    let mut source = Node::new(Start::Source, 4);
    let peer = source.own(1, &[]);
    let looks = |actions: &[Action], piece| actions.contains(&Action::Recheck(T, piece));
    assert!(looks(&source.on(xg(peer, wrong)), 0));
    for _ in 0..50 {
        // Somebody who says so all the time does not keep the disk busy.
        let flood = Xg { wrong: Some(1), ..Xg::default() };
        assert!(!looks(&source.on(xg(peer, flood)), 1));
    }
    let beyond = Xg { wrong: Some(4), ..Xg::default() };
    source.after(RECHECK_PAUSE, Event::Tick);
    assert!(!looks(&source.on(xg(peer, beyond)), 4), "there is no such piece");
    assert!(looks(&source.on(xg(peer, wrong)), 0));
    source.on(Event::Unreadable(T, 0));
    source.after(RECHECK_PAUSE, Event::Tick);
    assert!(!looks(&source.on(xg(peer, wrong)), 0), "it is known");
}

/// More than there has to be between two looks.
const RECHECK_PAUSE: Duration = Duration::from_secs(1);

#[test]
fn a_spoilt_piece_is_taken_back_fetched_and_stored_once_more() {
    let mut node = Node::new(Start::Empty, 2);
    let (source, peer) = (node.own(1, &[0, 1]), node.own(2, &[]));
    let fetch = |node: &mut Node, piece| {
        let actions = node.grant(source, PIECE, Some(piece));
        assert_eq!(requested(&actions, source), [piece]);
        node.receive(&actions);
        node.on(Event::Verified(T, piece, true));
        node.on(Event::Stored(T, piece))
    };
    fetch(&mut node, 0);
    assert!(fetch(&mut node, 1).contains(&Action::Finished(T)));
    let actions = node.on(Event::Spoilt(T, 1));
    let lost = Xg { lost: Some(1), ..Xg::default() };
    let message = Message::Extended { id: XG_ID, payload: lost.encode() };
    assert!(actions.contains(&Action::Send(peer, message)), "{actions:?}");
    assert!(actions.contains(&Action::Release(T, 1)), "its copy in memory is not what is there");
    assert!(node.on(Event::Spoilt(T, 1)).is_empty(), "it is known already");
    assert!(fetch(&mut node, 1).contains(&Action::Finished(T)), "again");

    let mut source = Node::new(Start::Source, 2);
    source.on(Event::Spoilt(T, 1));
    assert_eq!(source.swarm.progress(T).map(|p| p.stored), Some(2), "it has no other copy");
}

#[test]
fn found_pieces_are_served_and_not_asked_for() {
    let mut node = Node::new(Start::Unknown, 2);
    let peer = node.own(1, &[0, 1]);
    assert_eq!(requested(&node.grant(peer, PIECE, None), peer), [] as [u32; 0]);
    node.on(Event::Found(T, 0));
    node.on(Event::NotFound(T, 1));
    let actions = node.grant(peer, PIECE, None);
    assert_eq!(requested(&actions, peer), [1]);
    node.receive(&actions);
    node.on(Event::Verified(T, 1, true));
    assert!(node.on(Event::Stored(T, 1)).contains(&Action::Finished(T)));
}

#[test]
fn strangers_are_asked_in_blocks_of_16_kib_within_their_limit() {
    let mut node = Node::new(Start::Empty, 40);
    let all: Vec<u32> = (0..40).collect();
    let peer = node.stranger(1, &all);
    let actions = node.on(Event::Message(peer, Message::Unchoke));
    let runs: Vec<Run> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Request(_, run) => Some(*run),
            _ => None,
        })
        .collect();
    assert!(runs.iter().all(|run| run.block == UNIT));
    // Eight pieces of 64 KiB may be in flight, one above while grants could cross.
    let asked: u32 = runs.iter().map(|run| run.len).sum();
    assert!((PIECE..=1 << 20).contains(&asked), "{asked}");
    // Without BEP 6 a choke drops all requests.
    node.on(Event::Message(peer, Message::Choke));
    assert_eq!(node.swarm.progress(T).map(|p| p.in_flight), Some(0));
}

#[test]
fn a_short_block_is_a_request_like_any_other() {
    let mut node = Node::new(Start::Empty, 1);
    node.on(Event::Remove(T));
    let (len, start) = (9 * u64::from(UNIT) + 1, Start::Empty);
    let spec = TorrentSpec { len, piece_len: UNIT, start, private: false, metadata_len: 0 };
    node.on(Event::Add(T, spec));
    let peer = node.connect(1, true);
    let hello = Hello { reqq: Some(7), ..Hello::default() };
    node.on(Event::Message(peer, Message::Extended { id: 0, payload: hello.encode() }));
    node.on(Event::Message(peer, Message::Unchoke));
    // The byte at the end first.
    let actions = [9, 0, 1, 2, 3, 4, 5, 6, 7]
        .map(|piece| node.on(Event::Message(peer, Message::Have(piece))));
    assert_eq!(requested(&actions.concat(), peer), [9, 0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_stranger_is_asked_again_when_room_has_come() {
    let mut node = Node::new(Start::Empty, 40);
    node.swarm.config.budget = 2 * u64::from(PIECE);
    let (busy, idle) = (node.stranger(1, &[0, 1, 2]), node.stranger(2, &[3]));
    let first = node.on(Event::Message(busy, Message::Unchoke));
    assert_eq!(requested(&first, busy), [0]);
    let none = node.on(Event::Message(idle, Message::Unchoke));
    assert_eq!(requested(&none, idle), [] as [u32; 0], "the budget is used up");
    let later = node.on(Event::Disconnected(busy));
    assert_eq!(requested(&later, idle), [3]);
}

#[test]
fn a_stranger_that_rejects_is_not_asked_for_that_piece_at_once() {
    let mut node = Node::new(Start::Empty, 2);
    let peer = node.stranger(1, &[0, 1]);
    assert_eq!(requested(&node.on(Event::Message(peer, Message::Unchoke)), peer), [0, 1]);
    for piece in [0, 1] {
        let block = Block { piece, begin: 0, len: UNIT };
        let actions = node.on(Event::Message(peer, Message::Reject(block)));
        assert_eq!(requested(&actions, peer), [] as [u32; 0]);
    }
    let actions = node.after(Duration::from_secs(3), Event::Tick);
    assert_eq!(requested(&actions, peer), [0, 1]);
}

#[test]
fn a_source_shows_strangers_a_few_pieces_ahead() {
    let mut node = Node::new(Start::Source, 40);
    let haves = |actions: Vec<Action>| {
        let have = |action: &Action| matches!(action, Action::Send(_, Message::Have(_)));
        actions.iter().filter(|action| have(action)).count()
    };
    let connected =
        Event::Connected { peer: PeerId(1), torrent: T, node: 1, fast: false, extended: false };
    assert_eq!(haves(node.on(connected)), 4);
    assert_eq!(haves(node.on(Event::Message(PeerId(1), Message::Have(0)))), 1);
}

/// A node that has fetched quickly expects others to take quickly, too; strangers need not.
#[test]
fn a_stranger_that_takes_a_block_in_seconds_keeps_its_turn() {
    let mut node = Node::new(Start::Empty, 64);
    let all: Vec<u32> = (0..64).collect();
    let own = node.own(1, &all);
    for piece in 0..8 {
        let actions = node.grant(own, PIECE, None);
        node.receive(&actions);
        node.on(Event::Verified(T, piece, true));
        node.on(Event::Stored(T, piece));
    }
    node.after(Duration::from_millis(100), Event::Tick);
    assert_eq!(node.swarm.stall_after(PIECE), Duration::from_secs(1), "it would be too long");
    let stranger = node.stranger(2, &[]);
    let actions = node.on(Event::Message(stranger, Message::Interested));
    assert!(actions.contains(&Action::Send(stranger, Message::Unchoke)), "{actions:?}");
    node.on(Event::Requested(stranger, 0, 8 * u64::from(UNIT)));
    for _ in 0..9 {
        let actions = node.after(Duration::from_secs(1), Event::Tick);
        assert!(!actions.contains(&Action::Send(stranger, Message::Choke)), "{actions:?}");
    }
    let actions = node.after(Duration::from_secs(2), Event::Tick);
    assert!(actions.contains(&Action::Send(stranger, Message::Choke)), "{actions:?}");
}

/// Six connections of one machine under six names, and three machines with one each.
#[test]
fn many_connections_of_one_machine_take_the_turns_of_one() {
    let config = Config { slots: 4, uplink: 10_000_000, ..Config::default() };
    let mut node = Node::with(config, Start::Source, 64);
    let mut grants = Vec::new();
    for id in 1..=9 {
        let peer = node.own(id, &[]);
        node.on(Event::From(peer, u64::from(id.saturating_sub(6))));
        grants.extend(named(&node.on(Event::Message(peer, Message::Interested))));
    }
    let mut got = [0; 4];
    for _ in 0..40 {
        let (peer, piece) = grants.remove(0);
        got[peer.0.saturating_sub(6) as usize] += 1;
        node.on(Event::Requested(peer, 0, PIECE.into()));
        grants.extend(named(&node.on(Event::Served(peer, PIECE.into()))));
        grants.extend(named(&node.on(Event::Message(peer, Message::Have(piece)))));
    }
    // The first few, when nobody else was there; by its connections it were 27.
    assert!(got[0] <= 10 && got[1..].iter().all(|&got| got >= 9), "{got:?}");
}

/// A source keeps what it shows a stranger for that stranger: hundreds of connections of one machine
/// had half of an image kept, and never fetched it.
#[test]
fn many_strangers_of_one_machine_are_shown_what_one_is() {
    let mut node = Node::new(Start::Source, 64);
    for id in 1..=12 {
        let peer = node.stranger(id, &[]);
        node.on(Event::From(peer, 7));
    }
    let own = node.own(20, &[]);
    node.on(Event::From(own, 8));
    let mut got = Vec::new();
    let mut grants = named(&node.on(Event::Message(own, Message::Interested)));
    while let Some((_, piece)) = grants.pop() {
        got.push(piece);
        node.on(Event::Requested(own, 0, PIECE.into()));
        grants.extend(named(&node.on(Event::Served(own, PIECE.into()))));
        grants.extend(named(&node.on(Event::Message(own, Message::Have(piece)))));
    }
    assert!(got.len() >= 64 - 4, "{} pieces are kept from it: {got:?}", 64 - got.len());
}

/// The same of our own nodes, which a source gives pieces by name, as long as nobody else is there.
#[test]
fn what_a_source_keeps_for_many_names_is_given_to_who_comes() {
    let config = Config { slots: 8, uplink: 10_000_000, ..Config::default() };
    let mut node = Node::with(config, Start::Source, 64);
    for id in 1..=12 {
        let peer = node.own(id, &[]);
        node.on(Event::From(peer, 7));
        node.on(Event::Message(peer, Message::Interested));
        node.on(Event::Requested(peer, 0, u64::from(PIECE)));
    }
    let own = node.own(20, &[]);
    node.on(Event::From(own, 8));
    let mut got = BTreeSet::new();
    let mut grants = named(&node.on(Event::Message(own, Message::Interested)));
    while let Some((peer, piece)) = grants.pop() {
        if peer != own {
            continue;
        }
        got.insert(piece);
        node.on(Event::Requested(own, 0, PIECE.into()));
        grants.extend(named(&node.on(Event::Served(own, PIECE.into()))));
        grants.extend(named(&node.on(Event::Message(own, Message::Have(piece)))));
    }
    assert_eq!(got.len(), 64, "{got:?}");
}

/// A machine that takes its turns and does not use them leaves the slots to others.
#[test]
fn many_connections_of_one_machine_keep_no_slot() {
    let config = Config { slots: 4, uplink: 10_000_000, ..Config::default() };
    let mut node = Node::with(config, Start::Empty, 64);
    let all: Vec<u32> = (0..64).collect();
    let source = node.own(100, &all);
    for piece in 0..32 {
        let actions = node.grant(source, PIECE, None);
        node.receive(&actions);
        node.on(Event::Verified(T, piece, true));
        node.on(Event::Stored(T, piece));
    }
    let granted = |actions: &[Action], peer: PeerId| {
        let allow = |action: &&Action| matches!(action, Action::Allow(to, _) if *to == peer);
        actions.iter().filter(allow).count()
    };
    for id in 1..=6 {
        let peer = node.own(id, &[]);
        node.on(Event::From(peer, 7));
        node.on(Event::Message(peer, Message::Interested));
        node.on(Event::Requested(peer, 0, UNIT.into()));
    }
    let others = [node.own(10, &[]), node.own(11, &[])];
    for (machine, peer) in others.into_iter().enumerate() {
        node.on(Event::From(peer, 10 + machine as u64));
        let actions = node.on(Event::Message(peer, Message::Interested));
        assert!(granted(&actions, peer) > 0, "{peer:?} waits for a machine that takes nothing");
    }
}

#[test]
fn slow_strangers_do_not_take_every_turn() {
    let mut node = Node::new(Start::Source, 64);
    for id in 1..=10 {
        let stranger = node.stranger(id, &[]);
        node.on(Event::Message(stranger, Message::Interested));
        // All of its turn is asked for, and nothing of it gets through.
        node.on(Event::Requested(stranger, 0, 1 << 30));
    }
    let own = node.own(11, &[]);
    let actions = node.on(Event::Message(own, Message::Interested));
    assert_eq!(named(&actions).first().map(|&(to, _)| to), Some(own), "{actions:?}");
}

#[test]
fn a_paused_torrent_asks_and_serves_nothing() {
    let mut node = Node::new(Start::Empty, 4);
    let peer = node.own(1, &[0, 1]);
    node.grant(peer, PIECE, None);
    let actions = node.on(Event::Pause(T));
    assert!(actions.contains(&Action::Send(peer, Message::NotInterested)), "{actions:?}");
    assert_eq!(node.swarm.progress(T).map(|p| p.in_flight), Some(0));
    assert_eq!(requested(&node.grant(peer, PIECE, None), peer), [] as [u32; 0]);
    let actions = node.on(Event::Resume(T));
    assert!(actions.contains(&Action::Send(peer, Message::Interested)), "{actions:?}");
    assert_eq!(node.on(Event::Remove(T)), vec![Action::Close(peer, Reason::Removed)]);
}

#[test]
fn nonsense_ends_the_connection() {
    let long = Message::Bitfield(vec![0; 2]);
    let behind = Message::Have(4);
    let garbage = Message::Extended { id: 0, payload: b"x".to_vec() };
    for message in [long, behind, garbage] {
        let mut node = Node::new(Start::Empty, 4);
        let peer = node.connect(1, true);
        let actions = node.on(Event::Message(peer, message));
        let closed = |action: &Action| matches!(action, Action::Close(_, Reason::Nonsense(_)));
        assert!(actions.iter().any(closed), "{actions:?}");
    }
}

/// aria2 does that, and loses its connection again and again where it is not allowed.
#[test]
fn a_late_bitfield_counts_as_the_haves_it_stands_for() {
    let mut node = Node::new(Start::Empty, 4);
    let peer = node.stranger(1, &[0]);
    let actions = node.on(Event::Message(peer, Message::Bitfield(vec![0b1010_0000])));
    assert!(!actions.iter().any(|action| matches!(action, Action::Close(..))), "{actions:?}");
    let asked = node.on(Event::Message(peer, Message::Unchoke));
    assert_eq!(requested(&asked, peer).into_iter().collect::<BTreeSet<_>>(), [0, 2].into());
}

#[test]
fn memory_is_released_when_the_budget_wants_it() {
    let mut node = Node::new(Start::Empty, 40);
    node.swarm.config.budget = 4 * u64::from(PIECE);
    let all: Vec<u32> = (0..40).collect();
    let peer = node.own(1, &all);
    let mut released = 0;
    for piece in 0..8 {
        let actions = node.grant(peer, PIECE, None);
        assert_eq!(requested(&actions, peer), [piece]);
        let mut out = actions.clone();
        out.extend(node.receive(&actions));
        out.extend(node.on(Event::Verified(T, piece, true)));
        out.extend(node.on(Event::Stored(T, piece)));
        released += out.iter().filter(|a| matches!(a, Action::Release(..))).count();
    }
    assert_eq!(released, 4);
}

#[test]
fn a_largest_block_of_half_a_unit_more_is_rounded_down() {
    for (said, block) in [(0, UNIT), (UNIT + 1, UNIT), (3 * UNIT + 7, 3 * UNIT), (u32::MAX, PIECE)]
    {
        let mut node = Node::new(Start::Empty, 4);
        let peer = node.connect(1, true);
        let hello = Hello { xg_id: Some(XG_ID), block: said, seed: true, ..Hello::default() };
        node.on(Event::Message(peer, Message::Extended { id: 0, payload: hello.encode() }));
        let actions = node.grant(peer, PIECE, None);
        let run = Run { piece: 0, begin: 0, len: PIECE, block };
        assert!(actions.contains(&Action::Request(peer, run)), "{said}: {actions:?}");
    }
}

#[test]
fn bytes_of_who_was_sent_away_are_not_kept() {
    let mut node = Node::new(Start::Empty, 4);
    let peer = node.stranger(1, &[0]);
    node.on(Event::Message(peer, Message::Unchoke));
    node.on(Event::Message(peer, Message::Have(4)));
    let wasted = node.swarm.totals().wasted;
    node.on(Event::Received { peer, piece: 0, begin: 0, len: UNIT });
    assert_eq!(node.swarm.totals().wasted, wasted + u64::from(UNIT));
}

/// What several sent wrong comes whole from one, who is waited for before the next begins it again. A turn
/// too small for a block does that, too.
#[test]
fn what_is_begun_again_is_thrown_away_first() {
    let mut node = Node::new(Start::Empty, 1);
    let (first, second) = (node.own(1, &[0]), node.own(2, &[0]));
    let unit = |peer| Event::Received { peer, piece: 0, begin: 0, len: UNIT };
    node.grant(first, PIECE, None);
    node.on(unit(first));
    node.grant(first, 0, None);
    let rest = node.grant(second, PIECE, None);
    let actions = node.receive(&rest);
    assert!(actions.contains(&Action::Verify(T, 0)), "{actions:?}");
    node.on(Event::Verified(T, 0, false));
    node.grant(first, PIECE, None);
    node.on(unit(first));
    node.grant(first, 0, None);
    let actions = node.grant(second, 100, Some(0));
    assert!(!actions.contains(&Action::Discard(T, 0)), "{actions:?}");
    node.after(Duration::from_secs(10), Event::Tick);
    let actions = node.grant(second, 100, Some(0));
    assert!(actions.contains(&Action::Discard(T, 0)), "{actions:?}");
}

#[test]
fn who_does_not_read_keeps_nobody_out() {
    let mut node = Node::new(Start::Source, 400);
    // More than there are slots. They are let in, ask, and take nothing.
    for id in 1..9 {
        let deaf = node.stranger(id, &[]);
        node.on(Event::Message(deaf, Message::Interested));
        node.on(Event::Requested(deaf, 0, u64::from(PIECE)));
    }
    let good = node.own(9, &[]);
    let mut actions = node.on(Event::Message(good, Message::Interested));
    let mut served = 0;
    // Five seconds, the first of which may be lost.
    for _ in 0..50 {
        for (_, piece) in named(&core::mem::take(&mut actions)) {
            actions.extend(node.on(Event::Requested(good, 0, u64::from(PIECE))));
            actions.extend(node.on(Event::Served(good, u64::from(PIECE))));
            actions.extend(node.on(Event::Message(good, Message::Have(piece))));
            served += 1;
        }
        actions.extend(node.after(Duration::from_millis(100), Event::Tick));
    }
    assert!(served >= 25, "{served} pieces");
}

#[test]
fn how_a_peers_uplink_compares_with_ours_is_told_when_it_changes() {
    let mut node = Node::new(Start::Empty, 8);
    let own = node.own(1, &[]);
    let mut told = |rate: u64| {
        let actions = node.on(xg(own, Xg { rate: Some(rate), ..Xg::default() }));
        let told = actions.into_iter().find_map(|action| match action {
            Action::Uplink(peer, uplink) => Some((peer, uplink)),
            _ => None,
        });
        told.map(|(peer, uplink)| {
            assert_eq!(peer, own);
            uplink
        })
    };
    // Ours has 10 MB/s.
    assert_eq!(told(6_000_000), None);
    assert_eq!(told(4_999_999), Some(Uplink::Slower));
    assert_eq!(told(1_000_000), None);
    assert_eq!(told(20_000_001), Some(Uplink::Faster));
    assert_eq!(told(10_000_000), Some(Uplink::Alike));
    assert_eq!(told(0), None, "it does not know");
}

/// Who is asked for nothing does not know what its uplink can do, and must not be taken for slow.
#[test]
fn an_uplink_that_was_not_used_is_not_told() {
    let mut node = Node::with(Config::default(), Start::Source, 8);
    let peer = node.own(1, &[]);
    node.on(Event::Served(peer, UNIT.into()));
    let idle: Vec<u64> = (0..40).flat_map(|_| rates(&node.after(TICK, Event::Tick))).collect();
    assert!(idle.iter().all(|&rate| rate == 0), "{idle:?}");
    node.on(Event::Message(peer, Message::Interested));
    node.on(Event::Requested(peer, 0, PIECE.into()));
    let mut busy = Vec::new();
    for _ in 0..40 {
        node.on(Event::Served(peer, 1024));
        busy.extend(rates(&node.after(TICK, Event::Tick)));
    }
    assert!(busy.iter().any(|&rate| rate > 0), "{busy:?}");
}

/// Who has no use for a turn is not given the next in the same breath, and is not forgotten.
#[test]
fn who_declines_a_turn_waits_a_moment_for_the_next() {
    let mut node = Node::new(Start::Source, 8);
    let peer = node.own(1, &[]);
    let given = named(&node.on(Event::Message(peer, Message::Interested))).len() as u64;
    let unused = Xg { unused: Some(given * u64::from(PIECE)), ..Xg::default() };
    let decline = Message::Extended { id: XG_ID, payload: unused.encode() };
    assert_eq!(named(&node.on(Event::Message(peer, decline))), []);
    let later: Vec<_> = (0..4).flat_map(|_| named(&node.after(TICK, Event::Tick))).collect();
    assert!(!later.is_empty());
}

/// What is told of our uplink.
fn rates(actions: &[Action]) -> Vec<u64> {
    let rate = |action: &Action| match action {
        Action::Send(_, Message::Extended { id: XG_ID, payload }) => Xg::decode(payload).ok()?.rate,
        _ => None,
    };
    actions.iter().filter_map(rate).collect()
}
