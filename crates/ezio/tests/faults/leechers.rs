//! Peers that ask our server for what they must not have, or do not take what they asked for. A
//! client that behaves is served all the same, and the server ends when it is told to.

use crate::peer::{Conn, Skill, id};
use crate::process::{END_TIME_MAX, eventually};
use crate::world::{Count, LEN, World};
use std::io;
use std::thread;
use std::time::Duration;
use swarm::wire::{Block, Message};

/// A block that the server has.
const BLOCK: Block = Block { piece: 0, begin: 0, len: 16 << 10 };

/// Connects to the server as a client of another kind, and waits until it may ask.
fn leech(world: &World, name: u8) -> io::Result<Conn> {
    let mut conn = Conn::meet(world.port, &world.image, name, Skill::Fast)?;
    conn.say(&Message::HaveNone)?;
    conn.say(&Message::Interested)?;
    conn.wait(|message| (*message == Message::Unchoke).then_some(()))?;
    Ok(conn)
}

/// A client gets everything from the server, which then ends at once.
#[track_caller]
fn check_good(world: World) {
    world.show();
    let mut client = world.deploy(0);
    world.check_done(&mut client, 0);
    world.check_server();
}

/// Who asks for `block` is sent away.
#[track_caller]
fn check_refused(block: impl Fn(&World) -> Block) {
    let world = World::new(LEN);
    let mut conn = leech(&world, 1).unwrap();
    conn.say(&Message::Request(block(&world))).unwrap();
    conn.wait_for_end().unwrap();
    check_good(world);
}

#[test]
fn what_was_asked_for_comes() {
    let world = World::new(LEN);
    let mut conn = leech(&world, 1).unwrap();
    for block in [BLOCK, Block { begin: 1, len: 1, ..BLOCK }, Block { begin: 7, ..BLOCK }] {
        conn.say(&Message::Request(block)).unwrap();
        let bytes = loop {
            if let (Message::Piece(found), bytes) = conn.hear().unwrap() {
                assert_eq!(found, block);
                break bytes;
            }
        };
        assert!(bytes == world.image.block(block));
    }
    check_good(world);
}

#[test]
fn bytes_behind_the_end_of_a_piece() {
    check_refused(|_| Block { begin: crate::image::PIECE - 5, len: 6, ..BLOCK });
}

#[test]
fn bytes_behind_the_end_of_the_image() {
    check_refused(|world| Block { piece: world.image.pieces() - 1, begin: 0, len: 5001 });
}

#[test]
fn a_piece_behind_the_end() {
    check_refused(|_| Block { piece: u32::MAX, ..BLOCK });
}

#[test]
fn an_offset_that_overflows() {
    check_refused(|_| Block { begin: u32::MAX, ..BLOCK });
}

#[test]
fn a_block_of_no_bytes() {
    check_refused(|_| Block { len: 0, ..BLOCK });
}

#[test]
fn a_block_of_two_mebibytes() {
    check_refused(|_| Block { len: 2 << 20, ..BLOCK });
}

#[test]
fn a_piece_that_is_not_there() {
    let world = World::new(LEN);
    let mut client = world.deploy(0);
    let port = world.tracker.client();
    let mut conn = Conn::meet(port, &world.image, 1, Skill::Fast).unwrap();
    conn.say(&Message::Request(BLOCK)).unwrap();
    conn.wait(|message| (*message == Message::Reject(BLOCK)).then_some(())).unwrap();
    world.show();
    world.check_done(&mut client, 0);
    world.check_server();
}

/// Asks for much more than sockets hold, and reads nothing of it.
fn hoard(conn: &mut Conn, world: &World) -> io::Result<()> {
    for round in 0..64 {
        for piece in 0..world.image.pieces() - 1 {
            let begin = (round % 4) * BLOCK.len;
            conn.say(&Message::Request(Block { piece, begin, ..BLOCK }))?;
        }
    }
    Ok(())
}

#[test]
fn who_never_reads_is_no_burden_to_others() {
    let world = World::new(4 * LEN);
    let deaf: Vec<Conn> = (1..9)
        .map(|name| {
            let mut conn = Conn::meet(world.port, &world.image, name, Skill::Fast).unwrap();
            conn.say(&Message::HaveNone).unwrap();
            conn.say(&Message::Interested).unwrap();
            conn
        })
        .collect();
    let deaf: Vec<Conn> = deaf
        .into_iter()
        .map(|mut conn| {
            // Who is not let in yet is refused, and does not read that either.
            hoard(&mut conn, &world).unwrap();
            conn
        })
        .collect();
    // The server is asked to end while they still do not read.
    check_good(world);
    drop(deaf);
}

#[test]
fn who_lets_answers_pile_up_is_sent_away() {
    let mut world = World::new(LEN);
    let before = world.server.cost();
    let mut conn = Conn::meet(world.port, &world.image, 1, Skill::Fast).unwrap();
    let mut flood = Vec::new();
    // Refused, each with a message of the same length.
    for _ in 0..10_000 {
        Message::Request(BLOCK).encode(&mut flood);
    }
    let ended = eventually(Duration::from_secs(60), || conn.raw(&flood).err());
    assert!(ended.is_some(), "it may ask for ever");
    world.server.wait_for_threads(before.threads);
    let peak = world.server.cost().peak;
    assert!(peak < before.peak + (64 << 20), "{peak} bytes of memory, {before:?} before");
    assert!(world.server.is_running());
    check_good(world);
}

#[test]
fn a_slow_reader() {
    let world = World::new(LEN);
    let taken = Count::default();
    let mut conn = leech(&world, 1).unwrap();
    hoard(&mut conn, &world).unwrap();
    let counted = taken.clone();
    let slow = thread::spawn(move || {
        // Until the server has ended.
        while conn.hear().is_ok() {
            counted.add();
            thread::sleep(Duration::from_millis(50));
        }
    });
    taken.wait(3);
    check_good(world);
    drop(slow);
}

#[test]
fn connections_cut_in_the_middle() {
    let world = World::new(LEN);
    for name in 1..20 {
        let mut conn = leech(&world, name).unwrap();
        hoard(&mut conn, &world).unwrap();
        conn.wait(|message| matches!(message, Message::Piece(_)).then_some(())).unwrap();
        conn.reset();
    }
    check_good(world);
}

#[test]
fn the_server_ends_with_its_sockets_full() {
    let mut world = World::new(4 * LEN);
    let mut conn = leech(&world, 1).unwrap();
    hoard(&mut conn, &world).unwrap();
    thread::sleep(Duration::from_millis(300));
    world.server.signal("INT");
    assert_eq!(world.server.code(END_TIME_MAX), Some(0));
}

/// The name of a peer is no secret: whoever it tells it to could have its connections ended.
#[test]
fn a_name_that_somebody_else_took_ends_no_connection() {
    let world = World::new(LEN);
    let mut good = leech(&world, 255).unwrap();
    let fetch = |conn: &mut Conn| {
        conn.say(&Message::Request(BLOCK))?;
        conn.wait(|message| matches!(message, Message::Piece(_)).then_some(()))
    };
    fetch(&mut good).unwrap();
    let mut bad = Conn::dial_from([127, 0, 0, 9], world.port).unwrap();
    bad.greet(world.image.info_hash(), id(255), Skill::Fast).unwrap();
    bad.handshake().unwrap();
    bad.say(&Message::Interested).unwrap();
    thread::sleep(Duration::from_millis(500));
    fetch(&mut good).unwrap();
    drop((good, bad));
    check_good(world);
}
