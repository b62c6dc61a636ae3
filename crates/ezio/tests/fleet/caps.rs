//! `-m` and `-c` of 1.x as those see it who are served: strangers, each of which says whether it is
//! connected and choked.

use crate::clients::{self, NEEDS, Stock};
use crate::ezio;
use crate::world::{Image, Process, World, text, wait};
use serde_json::Value;
use std::thread;
use std::time::Duration;

/// Strangers that want the image.
const STRANGERS: usize = 3;

/// Whether a stranger is connected with us, and whether we serve it, as its last word has it.
fn seen(stranger: &Process) -> (bool, bool) {
    let output = stranger.output();
    let status = output.lines().rev().find(|line| line.contains("\"status\""));
    let status: Value = status.and_then(|s| serde_json::from_str(s).ok()).unwrap_or_default();
    let peers = status["peers"].as_array().map_or(&[][..], Vec::as_slice);
    let ours = |peer: &&Value| peer["client"].as_str().is_some_and(|c| c.contains("EZIO"));
    let ours = peers.iter().find(ours);
    (ours.is_some(), ours.is_some_and(|peer| peer["chokes"] == false))
}

/// The seeder runs with `args`; of how many strangers it is the peer at the most, and how many it
/// serves half of the time.
fn check(number: u64, args: &[&str]) -> (usize, usize) {
    let world = World::new(1 + STRANGERS);
    let image = Image::new(world.dir.path(), "sda1", number);
    let source = image.source(world.path("source"));
    let args = [args, &["-U", "-T", image.torrent(), "-L", text(source.path())]].concat();
    let _seeder = world.start(0, ezio(), &args);
    let strangers = [1, 2, 3].map(|machine| {
        let dir = clients::dir(&world, machine);
        clients::slow_stranger(&world, machine, &image, &dir, world.lan.addr(0))
    });
    wait("one is served", || strangers.iter().any(|stranger| seen(stranger).1));
    // Slow enough that none is ready before.
    thread::sleep(Duration::from_secs(2));
    let (mut connected, mut served) = (0, Vec::new());
    for _ in 0..20 {
        let seen = strangers.each_ref().map(seen);
        connected = connected.max(seen.iter().filter(|(connected, _)| *connected).count());
        served.push(seen.iter().filter(|(_, served)| *served).count());
        thread::sleep(Duration::from_millis(150));
    }
    // What is told is some tenths of a second old: while one takes another's place both may say so.
    served.sort_unstable();
    (connected, served[served.len() / 2])
}

#[test]
fn a_persons_caps_hold_on_the_network() {
    lab::require!(NEEDS);
    if let Some(why) = Stock::Libtorrent.missing() {
        lab::skip!("{why}");
    }
    let (all, all_served) = check(91, &[]);
    assert_eq!((all, all_served), (STRANGERS, STRANGERS), "without caps");
    let (connected, _) = check(92, &["-c", "2"]);
    assert_eq!(connected, 2, "-c 2");
    let (connected, served) = check(93, &["-m", "1"]);
    assert_eq!((connected, served), (STRANGERS, 1), "-m 1");
}
