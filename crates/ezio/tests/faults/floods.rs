//! Peers that come, talk, or keep silent in masses. They cost a bounded amount of memory and
//! threads, which is given back, and nobody else's place.

use crate::image::Image;
use crate::peer::{Conn, Listener, Skill, id};
use crate::process::{Cost, Process};
use crate::world::{LEN, World, check};
use lab::Random;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use swarm::wire::extension::Hello;
use swarm::wire::{Block, Message};

/// Memory that a flood may cost at its highest: buffers of a few connections, not of all.
const PEAK_MAX: u64 = 64 << 20;

#[track_caller]
fn check_cost(process: &Process, before: Cost) {
    process.wait_for_threads(before.threads);
    let peak = process.cost().peak;
    assert!(peak < before.peak + PEAK_MAX, "{peak} bytes of memory, {before:?} before");
}

/// Sets the flag when it is dropped, also by a test that fails: its flood must end.
struct OnEnd<'a>(&'a AtomicBool);

impl Drop for OnEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A server that is flooded serves a client meanwhile, and has its threads and memory back.
#[track_caller]
fn check_flood(flood: impl Fn(u16, &Image) -> io::Result<()> + Send + Sync) {
    let world = World::new(LEN);
    let before = world.server.cost();
    let over = AtomicBool::new(false);
    world.show();
    thread::scope(|scope| {
        let _end = OnEnd(&over);
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // That it is sent away is as it should be.
                    let _ = flood(world.port, &world.image);
                }
            });
        }
        thread::sleep(Duration::from_secs(2));
        let mut client = world.deploy(0);
        client.result();
        over.store(true, Ordering::Relaxed);
        assert_eq!(client.code(crate::process::PATIENCE), Some(0));
    });
    world.check_target(0);
    check_cost(&world.server, before);
    world.check_server();
}

/// Sends `bytes` again and again, for a while.
fn shout(conn: &mut Conn, bytes: &[u8]) -> io::Result<()> {
    conn.stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        conn.raw(bytes)?;
    }
    Ok(())
}

/// Says `message` again and again, for a while.
#[track_caller]
fn check_talk(message: Message) {
    let mut bytes = Vec::new();
    for _ in 0..1000 {
        message.encode(&mut bytes);
    }
    check_flood(move |port, image| {
        let mut conn = Conn::meet(port, image, 1, Skill::Extended)?;
        conn.say(&Message::HaveNone)?;
        shout(&mut conn, &bytes)
    });
}

#[test]
fn keep_alives() {
    check_talk(Message::KeepAlive);
}

#[test]
fn interest_that_comes_and_goes() {
    let mut bytes = Vec::new();
    for _ in 0..500 {
        Message::Interested.encode(&mut bytes);
        Message::NotInterested.encode(&mut bytes);
    }
    check_flood(move |port, image| {
        let mut conn = Conn::meet(port, image, 1, Skill::Fast)?;
        shout(&mut conn, &bytes)
    });
}

#[test]
fn requests() {
    check_talk(Message::Request(Block { piece: 0, begin: 0, len: 16384 }));
}

#[test]
fn extension_handshakes() {
    check_talk(Message::Extended { id: 0, payload: Hello::default().encode() });
}

#[test]
fn extension_messages_of_the_largest_size() {
    check_talk(Message::Extended { id: 77, payload: vec![0; 64 << 10] });
}

/// The scheduler has something to do with each of them, and as many wait for it as may.
#[test]
fn messages_of_ours_of_the_largest_size_on_many_connections() {
    let mut payload = b"d1:xl".to_vec();
    payload.extend(b"i1e".repeat(21_000));
    payload.extend(b"ee");
    let mut bytes = Vec::new();
    for _ in 0..16 {
        Message::Extended { id: swarm::wire::extension::XG_ID, payload: payload.clone() }
            .encode(&mut bytes);
    }
    check_flood(move |port, image| {
        thread::scope(|scope| {
            for name in 1..25 {
                let bytes = &bytes;
                scope.spawn(move || -> io::Result<()> {
                    let mut conn = Conn::meet(port, image, name, Skill::Extended)?;
                    conn.say(&Message::HaveNone)?;
                    conn.hello(&Hello { xg_id: Some(1), ..Hello::default() })?;
                    shout(&mut conn, bytes)
                });
            }
        });
        Ok(())
    });
}

#[test]
fn ten_thousand_connections_that_open_and_close() {
    let world = World::new(LEN);
    let before = world.server.cost();
    for number in 0..10_000_u32 {
        let Ok(mut conn) = Conn::dial(world.port) else { continue };
        // Some say nothing, some a part of a handshake, some all of it.
        let _ = match number % 3 {
            0 => Ok(()),
            1 => conn.raw(b"\x13BitTorrent proto"),
            _ => conn.greet(world.image.info_hash(), id(1), Skill::Fast),
        };
        if number % 2 == 0 {
            conn.reset();
        }
    }
    world.show();
    let mut client = world.deploy(0);
    world.check_done(&mut client, 0);
    check_cost(&world.server, before);
    world.check_server();
}

/// Half handshakes, each as slow as it may be, on more connections than there are places.
#[test]
fn handshakes_that_are_never_finished_keep_nobody_out() {
    check_flood(|port, image| {
        let handshake = swarm::wire::Handshake::new(image.info_hash(), id(1)).encode();
        let mut half: Vec<Conn> = (0..300).filter_map(|_| Conn::dial(port).ok()).collect();
        for byte in &handshake[..20] {
            half.retain_mut(|conn| conn.raw(&[*byte]).is_ok());
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    });
}

/// As many as there are places, all of them well-mannered, and none wants anything.
#[test]
fn idle_connections_keep_nobody_out() {
    let world = World::new(LEN);
    let mut idle: Vec<Conn> = (0..64)
        .map(|name| {
            let mut conn = Conn::meet(world.port, &world.image, name, Skill::Fast).unwrap();
            conn.say(&Message::HaveNone).unwrap();
            conn
        })
        .collect();
    world.show();
    let mut client = world.deploy(0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = OnEnd(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // The one that had to give way is gone.
                idle.retain_mut(|conn| conn.say(&Message::KeepAlive).is_ok());
                thread::sleep(Duration::from_millis(500));
            }
        });
        world.check_done(&mut client, 0);
    });
    assert!(idle.len() > 50, "{} are left", idle.len());
    world.check_server();
}

/// A machine that takes more connections than there are places, under as many names, and wants
/// something with each of them.
#[test]
fn a_machine_that_wants_all_places_keeps_nobody_out() {
    let world = World::new(LEN);
    let over = AtomicBool::new(false);
    let leech = |name: u8| -> io::Result<Conn> {
        let mut conn = Conn::dial_from([127, 0, 0, 2], world.port)?;
        conn.greet(world.image.info_hash(), id(name), Skill::Fast)?;
        conn.handshake()?;
        conn.say(&Message::HaveNone)?;
        conn.say(&Message::Interested)?;
        Ok(conn)
    };
    let mut leeches: Vec<Conn> = (0..64).map(|name| leech(name).unwrap()).collect();
    world.show();
    thread::scope(|scope| {
        let _end = OnEnd(&over);
        scope.spawn(|| {
            let request = Message::Request(Block { piece: 0, begin: 0, len: 16 << 10 });
            while !over.load(Ordering::Relaxed) {
                // It reads nothing, and comes again at once where it is sent away.
                leeches.retain_mut(|conn| {
                    let _ = conn.stream.set_write_timeout(Some(Duration::from_millis(1)));
                    let sent = conn.say(&request);
                    sent.is_ok_and(|()| !conn.has_ended())
                });
                let missing = leeches.len()..64;
                leeches.extend(missing.filter_map(|name| leech(100 + name as u8).ok()));
                thread::sleep(Duration::from_millis(50));
            }
        });
        let mut client = world.deploy(0);
        let begin = Instant::now();
        client.result();
        // Long before an idle connection would have had to give way.
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        over.store(true, Ordering::Relaxed);
        assert_eq!(client.code(crate::process::PATIENCE), Some(0));
    });
    world.check_target(0);
    world.check_server();
}

/// What clients that prefer encryption try first: it is dropped at once, and they come back plain.
#[test]
fn encrypted_probes() {
    let world = World::new(LEN);
    let mut random = Random::new(5);
    for _ in 0..50 {
        let mut probe = vec![0; 96 + random.below(512) as usize];
        random.fill(&mut probe);
        // The first byte of a plain handshake would be waited for.
        probe[0] |= 0x80;
        let mut conn = Conn::dial(world.port).unwrap();
        conn.raw(&probe).unwrap();
        let began = Instant::now();
        conn.wait_for_end().unwrap();
        assert!(began.elapsed() < Duration::from_secs(4), "it waited for the time of a handshake");
        Conn::meet(world.port, &world.image, 1, Skill::Fast).unwrap();
    }
    world.show();
    let mut client = world.deploy(0);
    world.check_done(&mut client, 0);
    // Also: it has said next to nothing about them.
    world.check_server();
}

/// Each unchoke makes a client ask for a MiB; each choke takes that back.
#[test]
fn chokes_and_unchokes_without_end() {
    check(|mut conn, image, deeds| {
        conn.handshake()?;
        conn.greet(image.info_hash(), id(7), Skill::Plain)?;
        let all = swarm::bitfield::Bitfield::full(image.pieces()).to_bytes();
        conn.say(&Message::Bitfield(all))?;
        loop {
            conn.say(&Message::Unchoke)?;
            conn.say(&Message::Choke)?;
            deeds.add();
        }
    });
}

/// A client that is flooded by those it dials, and not let go by them.
#[test]
fn more_peers_than_places() {
    let world = World::new(LEN);
    let image = world.image.clone();
    let names = crate::world::Count::default();
    let many: Vec<Listener> = (0..100)
        .map(|_| {
            let (image, names) = (image.clone(), names.clone());
            Listener::start(move |mut conn| {
                conn.handshake()?;
                // At most 100 of them.
                conn.greet(image.info_hash(), id(names.add() as u8), Skill::Fast)?;
                conn.say(&Message::HaveNone)?;
                thread::sleep(Duration::from_secs(5));
                Ok(())
            })
        })
        .collect();
    world.peers(&many.iter().collect::<Vec<_>>());
    let mut client = world.deploy(0);
    names.wait(64);
    let most = client.cost().threads;
    assert!(most < 160, "{most} threads for 64 connections");
    world.show();
    world.check_done(&mut client, 0);
    world.check_server();
}
