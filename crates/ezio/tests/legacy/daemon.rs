//! The daemon of 2.x over gRPC.

use crate::ezio;
use crate::world::{GRPC, Image, World, text, wait};
use ezio::legacy::Client;
use ezio::legacy::messages::AddRequest;
use lab::Need;
use std::path::Path;
use std::time::{Duration, Instant};

const NEEDS: [Need; 4] = [Need::Root, Need::Loop, Need::Program("ip"), Need::Program("tc")];

/// Found by local discovery alone: the torrents name no tracker.
#[test]
fn two_torrents_go_from_daemon_to_daemon() {
    lab::require!(NEEDS);
    let world = World::new(2);
    let images = [("sda1", 1), ("sda2", 2)].map(|(n, s)| Image::new(world.dir.path(), n, s));
    let sources = images.each_ref().map(|image| image.source(world.path(&image.hash())));
    let targets = images.each_ref().map(|i| i.target(world.path(&format!("to {}", i.hash()))));
    let mut seeder = world.daemon(0, &["--cache-size", "64", "--aio-threads", "4", "--slow-start"]);
    let mut leecher = world.daemon(1, &[]);
    for ((image, source), target) in images.iter().zip(&sources).zip(&targets) {
        world.add(0, image, source.path(), true);
        world.add(1, image, target.path(), false);
    }
    world.wait_finished(1);
    for (image, target) in images.iter().zip(&targets) {
        image.check(target.path());
    }
    // What is told is some tenths of a second old.
    wait("the source has told of all that it sent", || {
        world.torrents(0).iter().all(|torrent| torrent.total_payload_upload >= torrent.total)
    });
    let (from, to) = (world.torrents(0), world.torrents(1));
    let len = i64::try_from(images[0].metainfo.layout().image_len()).unwrap();
    let pieces = i64::from(images[0].metainfo.piece_count());
    for (index, image) in images.iter().enumerate() {
        let (from, to) = (&from[index], &to[index]);
        assert_eq!((&from.hash, &to.hash), (&image.hash(), &image.hash()));
        assert_eq!((from.is_finished, from.state, from.progress), (true, 5, 1.0));
        assert_eq!((to.is_finished, to.state, to.progress), (true, 5, 1.0));
        assert_eq!((to.total, to.total_done, to.num_pieces), (len, len, pieces));
        assert!(to.total_payload_download >= len && from.total_payload_upload >= len);
        assert!(from.last_upload >= 0 && from.last_download == -1, "{from:?}");
        assert!(to.last_download >= 0 && to.active_time >= to.finished_time, "{to:?}");
        assert_eq!(Path::new(&to.save_path), targets[index].path());
        assert_eq!(to.name, if index == 0 { "sda1" } else { "sda2" });
    }
    // Only those that are asked for.
    let hashes = [images[1].hash().to_uppercase(), "00".repeat(20)];
    let some = world.ask(1, |daemon| daemon.status(&hashes)).unwrap();
    assert_eq!(some.iter().map(|t| &t.name[..]).collect::<Vec<_>>(), ["sda2"]);
    // Finished leechers and the seeder end alike.
    world.ask(1, Client::shutdown).unwrap();
    assert_eq!(leecher.end().code(), Some(0));
    seeder.signal("TERM");
    assert_eq!(seeder.end().code(), Some(0));
    assert!(seeder.output().starts_with("ezio "), "{}", seeder.output());
}

#[test]
fn a_paused_torrent_waits_until_it_is_resumed() {
    lab::require!(NEEDS);
    let world = World::new(2);
    let image = Image::new(world.dir.path(), "sda1", 3);
    let (source, target) = (image.source(world.path("from")), image.target(world.path("to")));
    let _daemons = [world.daemon(0, &[]), world.daemon(1, &[])];
    world.add(1, &image, target.path(), false);
    let hash = image.hash();
    world.ask(1, |daemon| daemon.pause(&hash)).unwrap();
    // Nobody minds a torrent that is not there.
    world.ask(1, |daemon| daemon.pause(&"11".repeat(20))).unwrap();
    world.add(0, &image, source.path(), true);
    wait("they meet", || world.torrents(1)[0].num_peers > 0);
    std::thread::sleep(Duration::from_secs(2));
    let paused = &world.torrents(1)[0];
    assert_eq!((paused.is_paused, paused.total_payload_download), (true, 0));
    world.ask(1, |daemon| daemon.resume(&hash)).unwrap();
    world.wait_finished(1);
    assert!(!world.torrents(1)[0].is_paused);
    image.check(target.path());
}

#[test]
fn what_cannot_be_added_is_said_and_ends_nothing() {
    lab::require!(NEEDS);
    let world = World::new(1);
    let image = Image::new(world.dir.path(), "sda1", 4);
    let target = image.target(world.path("to"));
    let small = crate::disk::Disk::new(world.path("small"), 1 << 20, 512);
    let mut daemon = world.daemon(0, &[]);
    let refused = |torrent: &[u8], path: &Path, seeding_mode, words: &str| {
        let save_path = path.to_str().unwrap().to_owned();
        let torrent = torrent.to_vec();
        let request = AddRequest { torrent, save_path, seeding_mode, ..AddRequest::default() };
        let why = format!("{:#}", world.ask(0, |d| d.add(request)).unwrap_err());
        assert!(why.contains(words), "{words}: {why}");
    };
    let good = image.metainfo.as_bytes();
    refused(b"no torrent", target.path(), false, "failed to decode node");
    refused(&good[..good.len() - 9], target.path(), false, "failed to decode node");
    refused(good, Path::new("/dev/nosuchdisk"), false, "/dev/nosuchdisk: No such file");
    refused(good, Path::new("/dev/nosuchdisk"), true, "/dev/nosuchdisk: No such file");
    refused(good, &world.path("nothing"), false, "No such file");
    refused(good, world.dir.path(), false, "is a directory");
    refused(good, Path::new(""), false, "no path was given");
    refused(good, small.path(), false, "but the image needs");
    refused(good, small.path(), true, "");
    assert!(!world.path("nothing").exists());
    world.add(0, &image, target.path(), false);
    refused(good, target.path(), false, "is carried already");
    // Another torrent may not write to the same device.
    let other = Image::new(world.dir.path(), "other", 5);
    refused(other.metainfo.as_bytes(), target.path(), false, "in use");
    assert_eq!(daemon.code(), None);
    assert_eq!(world.torrents(0).len(), 1);
}

#[test]
fn a_removed_torrent_leaves_its_device_to_another() {
    lab::require!(NEEDS);
    let world = World::new(1);
    let images = [("a", 11), ("b", 12)].map(|(n, s)| Image::new(world.dir.path(), n, s));
    let target = images[0].target(world.path("to"));
    let _daemon = world.daemon(0, &[]);
    world.add(0, &images[0], target.path(), false);
    let hash = images[0].hash();
    assert!(world.ask(0, |daemon| daemon.remove(&hash)).unwrap());
    assert!(!world.ask(0, |daemon| daemon.remove(&hash)).unwrap());
    world.add(0, &images[1], target.path(), false);
    let details = world.ask(0, Client::details).unwrap();
    let pieces = i64::from(images[1].metainfo.piece_count());
    let found: Vec<_> = details.iter().map(|d| (&d.hash[..], &d.error[..], d.pieces)).collect();
    assert_eq!(found, [(&images[1].hash()[..], "", pieces)]);
}

/// A file on a file system with too little room fails in the middle; the other one goes on.
#[test]
fn a_target_that_fails_is_named_and_the_others_go_on() {
    lab::require!(NEEDS);
    lab::require!([Need::Kernel("tmpfs")]);
    let world = World::new(2);
    let images = [("a", 13), ("b", 14)].map(|(n, s)| Image::new(world.dir.path(), n, s));
    let sources = images.each_ref().map(|image| image.source(world.path(&image.hash())));
    // Whatever is run in a network namespace has mounts of its own, which end with it.
    let room = world.path("small");
    std::fs::create_dir(&room).unwrap();
    let (room, full) = (text(&room), room.join("disk.img"));
    let script = format!(
        "mount -t tmpfs -o size=4m ezio-test {room} && truncate -s 32M {room}/disk.img && exec {}",
        text(ezio())
    );
    let target = images[1].target(world.path("to"));
    let _seeder = world.daemon(0, &[]);
    let mut leecher = world.daemon_by(1, Path::new("/bin/sh"), &["-c", &script]);
    for (image, source) in images.iter().zip(&sources) {
        world.add(0, image, source.path(), true);
    }
    world.add(1, &images[0], &full, false);
    world.add(1, &images[1], target.path(), false);
    let (code, said) = world.helper(1, "ezio_cli.py", &["-w", "1"]);
    assert_eq!(code, 1, "{said}");
    let why = format!("of {}: No space left on device; what was written there", full.display());
    assert!(said.contains(&why), "{said}");
    assert_eq!(leecher.end().code(), Some(0));
    assert!(leecher.output().contains("[critical]") && leecher.errors().contains(&why));
    images[1].check(target.path());
}

#[test]
fn with_f_images_are_directories() {
    lab::require!(NEEDS);
    let world = World::new(2);
    let image = Image::new(world.dir.path(), "sda1", 6);
    image.write_files(&world.path("from"));
    let _daemons = [world.daemon(0, &["-F"]), world.daemon(1, &["--file"])];
    world.add(0, &image, &world.path("from"), true);
    world.add(1, &image, &world.path("to"), false);
    world.wait_finished(1);
    image.check_files(&world.path("to"));
    let save_path = image.torrent().to_owned();
    let torrent = Image::new(world.dir.path(), "x", 7).metainfo.as_bytes().to_vec();
    let request = AddRequest { torrent, save_path, ..AddRequest::default() };
    let why = world.ask(1, |daemon| daemon.add(request)).unwrap_err().to_string();
    assert!(why.contains("is no directory"), "{why}");
}

#[test]
fn a_second_daemon_is_told_that_the_port_is_taken() {
    lab::require!(NEEDS);
    let world = World::new(1);
    let _first = world.daemon(0, &[]);
    let mut second = world.start(0, ezio(), &[]);
    assert_eq!(second.end().code(), Some(1));
    assert!(second.output().contains("[critical] listen on 127.0.0.1:50051"), "{}", second.all());
    // On other ports it may run, and with nothing to log it is silent.
    let mut third = world.start(0, ezio(), &["-l", "127.0.0.1:50052", "-p", "7000"]);
    wait("it answers", || {
        assert_eq!(third.code(), None, "{}", third.all());
        world.lan.within(0, || Client::connect("127.0.0.1:50052").is_ok()).unwrap()
    });
}

/// Clonezilla's scripts send SIGTERM and start the next daemon without waiting.
#[test]
fn a_daemon_that_starts_while_another_ends_gets_its_ports() {
    lab::require!(NEEDS);
    let world = World::new(2);
    let image = Image::new(world.dir.path(), "sda1", 8);
    let (source, target) = (image.source(world.path("from")), image.target(world.path("to")));
    let _seeder = world.daemon(0, &[]);
    world.add(0, &image, source.path(), true);
    let mut first = world.daemon(1, &[]);
    world.add(1, &image, target.path(), false);
    world.wait_finished(1);
    let begin = Instant::now();
    first.signal("TERM");
    let mut second = world.start(1, ezio(), &[]);
    assert_eq!(first.end().code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    wait("the second answers", || {
        assert_eq!(second.code(), None, "{}", second.all());
        world.lan.within(1, || Client::connect(GRPC).is_ok()).unwrap()
    });
    assert_eq!(world.torrents(1), []);
    // The device is free again.
    world.add(1, &image, target.path(), false);
    world.wait_finished(1);
    image.check(target.path());
}
