//! Peers that a client takes for seeders: they lie, fail and fall silent. The client gets the image
//! from the good server all the same.

use crate::image::{Image, PIECE};
use crate::peer::{Conn, Listener, Skill, id};
use crate::world::{Count, World, check, linger};
use std::io;
use swarm::wire::extension::{Coming, Grant, Hello, XG_ID, Xg};
use swarm::wire::{Block, Message};

/// Exchanges handshakes and says that it has everything, and may be asked.
fn seed(conn: &mut Conn, image: &Image, skill: Skill) -> io::Result<()> {
    conn.handshake()?;
    conn.greet(image.info_hash(), id(7), skill)?;
    match skill {
        Skill::Plain => conn.say(&Message::Bitfield(everything(image)))?,
        Skill::Fast | Skill::Extended => conn.say(&Message::HaveAll)?,
    }
    conn.say(&Message::Unchoke)
}

/// As [`seed`], as one of our own: it grants, and need not be asked.
fn seed_own(conn: &mut Conn, image: &Image, block: u32) -> io::Result<()> {
    conn.handshake()?;
    conn.greet(image.info_hash(), id(7), Skill::Extended)?;
    conn.say(&Message::HaveNone)?;
    conn.hello(&Hello { xg_id: Some(XG_ID), block, seed: true, ..Hello::default() })
}

/// The largest number that bencoding lets through here.
const MOST: u64 = i64::MAX as u64;

fn grant(bytes: u64, piece: Option<u32>) -> Xg {
    Xg { grant: Some(Grant { bytes, piece }), ..Xg::default() }
}

/// A bitfield with all pieces and no more.
fn everything(image: &Image) -> Vec<u8> {
    swarm::bitfield::Bitfield::full(image.pieces()).to_bytes()
}

/// Says `bytes` after the handshakes; it has to be sent away for that.
#[track_caller]
fn check_refused(bytes: impl Fn(&Image) -> Vec<u8> + Send + Sync + 'static) {
    check(move |mut conn, image, deeds| {
        conn.handshake()?;
        conn.greet(image.info_hash(), id(7), Skill::Fast)?;
        conn.raw(&bytes(image))?;
        conn.wait_for_end()?;
        deeds.add();
        Ok(())
    });
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

#[test]
fn garbage_instead_of_a_handshake() {
    check(|mut conn, _, deeds| {
        conn.raw(&[0xa5; 200])?;
        conn.wait_for_end()?;
        deeds.add();
        Ok(())
    });
}

#[test]
fn garbage_after_the_handshake() {
    check_refused(|_| vec![0xa5; 200]);
}

#[test]
fn another_info_hash() {
    check(|mut conn, _, deeds| {
        conn.handshake()?;
        conn.greet([1; 20], id(7), Skill::Fast)?;
        conn.wait_for_end()?;
        deeds.add();
        Ok(())
    });
}

#[test]
fn the_clients_own_peer_id() {
    check(|mut conn, image, deeds| {
        let own = conn.handshake()?.peer_id;
        conn.greet(image.info_hash(), own, Skill::Fast)?;
        conn.wait_for_end()?;
        deeds.add();
        Ok(())
    });
}

#[test]
fn a_message_of_four_gigabytes() {
    check_refused(|_| vec![0xff, 0xff, 0xff, 0xff, 7, 0, 0, 0, 0]);
}

#[test]
fn a_bitfield_of_another_length() {
    check_refused(|image| encoded(&Message::Bitfield([&everything(image)[..], &[0]].concat())));
}

#[test]
fn a_bitfield_with_spare_bits() {
    check_refused(|image| {
        assert!(!image.pieces().is_multiple_of(8));
        encoded(&Message::Bitfield(vec![0xff; image.pieces().div_ceil(8) as usize]))
    });
}

#[test]
fn a_bitfield_far_longer_than_the_torrent_is_not_waited_for() {
    check_refused(|_| {
        let len = 1_u32 << 20;
        [&(len + 1).to_be_bytes()[..], &[5], &[0xff; 1000]].concat()
    });
}

#[test]
fn a_piece_behind_the_end() {
    check_refused(|image| encoded(&Message::Have(image.pieces())));
}

#[test]
fn wrong_bytes_always() {
    check(|mut conn, image, deeds| {
        seed(&mut conn, image, Skill::Fast)?;
        loop {
            let block = conn.request()?;
            conn.wrong(image, block)?;
            deeds.add();
        }
    });
}

#[test]
fn wrong_bytes_now_and_then() {
    check(|mut conn, image, deeds| {
        seed(&mut conn, image, Skill::Fast)?;
        loop {
            let block = conn.request()?;
            if deeds.add().is_multiple_of(9) {
                conn.wrong(image, block)?;
            } else {
                conn.right(image, block)?;
            }
        }
    });
}

#[test]
fn the_only_source_errs_twice_and_then_no_more() {
    let world = World::new(crate::world::LEN);
    let (image, errors) = (world.image.clone(), Count::default());
    let counted = errors.clone();
    let peer = Listener::start(move |mut conn| {
        seed(&mut conn, &image, Skill::Fast)?;
        loop {
            let block = conn.request()?;
            // The first block of the fourth piece, the first two times.
            if block.piece == 3 && block.begin == 0 && counted.add() < 2 {
                conn.wrong(&image, block)?;
            } else {
                conn.right(&image, block)?;
            }
        }
    });
    world.peers(&[&peer]);
    let mut client = world.deploy(0);
    world.check_done(&mut client, 0);
    assert_eq!(errors.get(), 3);
    assert_eq!(peer.met(), 1, "who errs twice is not sent away");
}

#[test]
fn requests_that_are_never_answered() {
    check(|mut conn, image, deeds| {
        seed(&mut conn, image, Skill::Fast)?;
        conn.request()?;
        deeds.add();
        linger(conn)
    });
}

#[test]
fn the_last_piece_is_never_answered() {
    check(|mut conn, image, deeds| {
        seed(&mut conn, image, Skill::Fast)?;
        loop {
            let block = conn.request()?;
            if block.piece == image.pieces() - 1 {
                deeds.add();
            } else {
                conn.right(image, block)?;
            }
        }
    });
}

/// Resets the connection after the first `len` bytes of a message with a block.
#[track_caller]
fn check_cut(len: usize) {
    check(move |mut conn, image, deeds| {
        seed(&mut conn, image, Skill::Fast)?;
        let block = conn.request()?;
        let message = [&encoded(&Message::Piece(block)), image.block(block)].concat();
        conn.raw(&message[..len])?;
        deeds.add();
        conn.reset();
        Ok(())
    });
}

#[test]
fn a_reset_in_the_middle_of_a_header() {
    check_cut(7);
}

#[test]
fn a_reset_in_the_middle_of_a_block() {
    check_cut(13 + 8000);
}

#[test]
fn blocks_nobody_asked_for() {
    check(|mut conn, image, deeds| {
        seed(&mut conn, image, Skill::Fast)?;
        // With wrong bytes, so that one of them in the image would be noticed.
        for piece in (0..image.pieces()).cycle() {
            conn.wrong(image, Block { piece, begin: 0, len: 4096 })?;
            conn.raw(&encoded(&Message::Piece(Block { piece: u32::MAX, begin: 9, len: 1 })))?;
            conn.raw(&[9])?;
            deeds.add();
        }
        Ok(())
    });
}

#[test]
fn every_block_twice() {
    check(|mut conn, image, deeds| {
        seed(&mut conn, image, Skill::Fast)?;
        loop {
            let block = conn.request()?;
            conn.right(image, block)?;
            // The second copy is a lie.
            conn.wrong(image, block)?;
            deeds.add();
        }
    });
}

#[test]
fn blocks_in_other_portions_than_asked_for() {
    check(|mut conn, image, deeds| {
        seed(&mut conn, image, Skill::Fast)?;
        loop {
            let block = conn.request()?;
            deeds.add();
            // One byte of it, and then all the others but one.
            conn.right(image, Block { begin: block.begin + 1, len: 1, ..block })?;
            let rest = Block { begin: block.begin + 2, len: block.len - 2, ..block };
            conn.right(image, rest)?;
        }
    });
}

#[test]
fn everything_is_rejected() {
    check(|mut conn, image, deeds| {
        seed(&mut conn, image, Skill::Fast)?;
        loop {
            let block = conn.request()?;
            conn.say(&Message::Reject(block))?;
            deeds.add();
        }
    });
}

#[test]
fn rejects_of_what_nobody_asked_for() {
    check(|mut conn, image, deeds| {
        seed(&mut conn, image, Skill::Fast)?;
        for piece in (0..image.pieces()).chain([u32::MAX]).cycle() {
            conn.say(&Message::Reject(Block { piece, begin: u32::MAX, len: 16384 }))?;
            deeds.add();
        }
        Ok(())
    });
}

/// Chokes after some blocks, and lets the rest wait for ever.
#[track_caller]
fn check_choke(skill: Skill) {
    check(move |mut conn, image, deeds| {
        seed(&mut conn, image, skill)?;
        for _ in 0..10 {
            let block = conn.request()?;
            conn.right(image, block)?;
        }
        conn.say(&Message::Choke)?;
        deeds.add();
        linger(conn)
    });
}

#[test]
fn a_choke_in_the_middle() {
    check_choke(Skill::Plain);
}

#[test]
fn a_choke_in_the_middle_without_the_rejects_of_bep_6() {
    check_choke(Skill::Fast);
}

#[test]
fn malformed_messages_of_our_own_extension() {
    check(|mut conn, image, deeds| {
        seed_own(&mut conn, image, 1 << 20)?;
        conn.say(&Message::Extended { id: XG_ID, payload: b"d5:granti-1ee".to_vec() })?;
        conn.wait_for_end()?;
        deeds.add();
        Ok(())
    });
}

#[test]
fn messages_of_our_own_extension_without_a_handshake_for_it() {
    check_refused(|_| encoded(&Message::Extended { id: XG_ID, payload: grant(1, None).encode() }));
}

#[test]
fn a_grant_of_everything_that_gives_nothing() {
    check(|mut conn, image, deeds| {
        seed_own(&mut conn, image, 1 << 20)?;
        conn.xg(grant(MOST, Some(u32::MAX)))?;
        conn.request()?;
        deeds.add();
        linger(conn)
    });
}

#[test]
fn a_grant_whose_requests_are_rejected() {
    check(|mut conn, image, deeds| {
        seed_own(&mut conn, image, 1 << 20)?;
        loop {
            conn.xg(grant(PIECE.into(), None))?;
            let block = conn.request()?;
            conn.say(&Message::Reject(block))?;
            deeds.add();
        }
    });
}

#[test]
fn numbers_of_our_own_extension_that_nobody_can_mean() {
    check(|mut conn, image, deeds| {
        seed_own(&mut conn, image, u32::MAX)?;
        for number in [MOST, 1, 0] {
            conn.xg(Xg {
                grant: Some(Grant { bytes: number, piece: Some(u32::MAX) }),
                unused: Some(number),
                load: Some(255),
                rate: Some(number),
                lost: Some(u32::MAX),
                coming: Some(Coming { piece: u32::MAX, hops: u8::MAX }),
                wrong: Some(u32::MAX),
            })?;
        }
        deeds.add();
        linger(conn)
    });
}

/// Offers every piece as it comes in, and grants turns.
fn offer_all(conn: &mut Conn, image: &Image) -> io::Result<()> {
    conn.handshake()?;
    conn.greet(image.info_hash(), id(7), Skill::Extended)?;
    conn.say(&Message::HaveNone)?;
    conn.hello(&Hello { xg_id: Some(XG_ID), block: 1 << 20, ..Hello::default() })?;
    (0..image.pieces()).try_for_each(|piece| {
        conn.xg(Xg { coming: Some(Coming { piece, hops: 1 }), ..Xg::default() })?;
        conn.xg(grant(PIECE.into(), None))
    })
}

#[test]
fn pieces_that_are_passed_on_wrong() {
    check(|mut conn, image, deeds| {
        offer_all(&mut conn, image)?;
        loop {
            let block = conn.request()?;
            conn.wrong(image, block)?;
            deeds.add();
        }
    });
}

#[test]
fn pieces_that_are_offered_and_never_come() {
    check(|mut conn, image, deeds| {
        offer_all(&mut conn, image)?;
        loop {
            conn.request()?;
            deeds.add();
        }
    });
}

#[test]
fn an_offer_that_is_taken_back_in_the_middle() {
    check(|mut conn, image, deeds| {
        offer_all(&mut conn, image)?;
        let block = conn.request()?;
        conn.right(image, block)?;
        conn.xg(Xg { lost: Some(block.piece), ..Xg::default() })?;
        deeds.add();
        linger(conn)
    });
}

/// A granter that wants to be asked for blocks of `len` bytes gets requests it can serve.
#[track_caller]
fn check_block(len: u32) {
    check(move |mut conn, image, deeds| {
        seed_own(&mut conn, image, len)?;
        loop {
            conn.xg(grant(PIECE.into(), None))?;
            let mut left = PIECE;
            while left > 0 {
                let block = conn.request()?;
                conn.right(image, block)?;
                left = left.saturating_sub(block.len);
                deeds.add();
            }
        }
    });
}

#[test]
fn a_largest_block_that_is_no_power_of_two() {
    check_block(16385);
}

#[test]
fn a_largest_block_of_nothing() {
    check_block(0);
}

#[test]
fn a_largest_block_that_is_huge() {
    check_block(u32::MAX);
}
