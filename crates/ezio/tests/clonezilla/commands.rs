//! The command lines of the scripts that Clonezilla has had since 5.4, `ocs-ezio-seeder` and
//! `ocs-ezio-leecher`, word by word, and with the times that they wait.

use crate::MACHINE;
use crate::machine::{Machine, end};
use crate::world::{Image, World, text, wait};
use std::thread;

/// What a version of Clonezilla runs.
struct Version {
    /// The daemon of the seeder, without `-F`.
    seeder: &'static str,
    /// What adds a torrent there.
    seed: &'static str,
    leecher: &'static str,
    add: &'static str,
    watch: &'static str,
}

/// 5.4.0 to 5.9.
const V5_4: Version = Version {
    seeder: "ezio",
    seed: "ezio_add_torrent_seed.py",
    leecher: "ezio",
    add: "ezio_add_torrent.py",
    watch: "ezio_ui.py",
};

/// 5.10.1.
const V5_10_1: Version =
    Version { seed: "ezio_add_torrent.py -S", watch: "ezio_ui.py -w 90", ..V5_4 };

/// 5.10.6.
const V5_10_6: Version = Version {
    seed: "ezio_add_torrent.py -S -c 6 -u 5",
    add: "ezio_add_torrent.py -c 6 -u 5",
    ..V5_10_1
};

/// 5.16.1 to 5.18.
const V5_18: Version = Version {
    seeder: "ezio --cache-size 6027 --aio-threads 4 --slow-start",
    leecher: "ezio --cache-size 6027 --aio-threads 4",
    ..V5_10_6
};

#[test]
fn every_version_seeds_devices() {
    check_all(&[V5_4, V5_10_1, V5_18], false);
}

#[test]
fn every_version_seeds_files() {
    check_all(&[V5_4, V5_10_6, V5_18], true);
}

/// All at once: most of the time is waiting, by the rules of Clonezilla.
fn check_all(versions: &[Version], files: bool) {
    lab::require!(MACHINE);
    thread::scope(|scope| {
        for version in versions {
            scope.spawn(move || check(version, files));
        }
    });
}

/// Two partitions go from one machine to another.
fn check(version: &Version, files: bool) {
    let world = World::new(2);
    let [server, client] =
        [0, 1].map(|n| Machine::start(&world.lan, n, world.path(&n.to_string())));
    let images = [("sda1", 51), ("sda2", 52)].map(|(n, s)| Image::new(world.dir.path(), n, s));
    let sources = images.each_ref().map(|image| image.source(world.path(&image.hash())));
    let targets = images.each_ref().map(|i| i.target(world.path(&format!("to {}", i.hash()))));
    for image in &images {
        server.copy(&image.torrent, "partimag/");
        client.copy(&image.torrent, "tmp/");
        image.write_files(&server.path("partimag"));
    }
    let from =
        sources.each_ref().map(|disk| if files { "/home/partimag" } else { text(disk.path()) });
    let lines = seeder(version, files, from);
    server.run(&lines);
    // Again, as one does who starts the next image: the one before is told to end, not waited for.
    server.run(&lines);
    let mut leecher = client.spawn(&leecher(version, targets.each_ref().map(|d| text(d.path()))));
    assert_eq!(end(&mut leecher).code(), Some(0), "{}", leecher.all());
    for (image, target) in images.iter().zip(&targets) {
        image.check(target.path());
    }
    assert!(leecher.output().contains("Finished. Exiting..."), "{}", leecher.all());
    assert!(!client.has("ezio"));
    assert!(server.has("ezio"));
    server.run("pkill -f -15 ezio");
    wait("the seeder is gone", || !server.has("ezio"));
}

/// What `ocs-ezio-seeder` does for two partitions. Its exit code is that of the last helper.
fn seeder(version: &Version, files: bool, from: [&str; 2]) -> String {
    let Version { seeder, seed, .. } = version;
    let option = if files { "-F" } else { "" };
    format!(
        r#"set -m
        pkill -f -15 "^ezio"
        {seeder} {option} >/var/log/ezio-seeder.log 2>/var/log/ezio-seeder.err &
        sleep 2
        sleep 10
        {seed} "/home/partimag/sda1.torrent" "{}" || exit 3
        {seed} "/home/partimag/sda2.torrent" "{}" || exit 3"#,
        from[0], from[1]
    )
}

/// What `ocs-ezio-leecher` does. It looks at no exit code; here all must be 0.
fn leecher(version: &Version, to: [&str; 2]) -> String {
    let Version { leecher, add, watch, .. } = version;
    format!(
        r#"pkill -f -15 "^ezio"
        pkill -f -15 "^ezio-static"
        {leecher} &
        sleep 10
        {add} "/tmp/sda1.torrent" {} || exit 3
        sleep 0.5
        {add} "/tmp/sda2.torrent" {} || exit 3
        sleep 0.5
        sleep 1
        {watch} || exit 4
        wait $!"#,
        to[0], to[1]
    )
}
