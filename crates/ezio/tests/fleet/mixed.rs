//! A fleet in the middle of its migration: old nodes, ours as 1.x and as 2.x, all at once. An old
//! node keeps three connections and serves two peers, and has no encryption.

use crate::clients::{self, NEEDS, Stock};
use crate::ezio;
use crate::world::{Image, World, text, wait};

/// Machine 0 has the image. Old nodes are 1 and 2, ours 3 and 4.
fn check(seeder_is_old: bool) {
    lab::require!(NEEDS);
    if let Some(why) = Stock::OldEzio.missing() {
        lab::skip!("{why}");
    }
    let world = World::new(5);
    let image = Image::new(world.dir.path(), "sda1", 80 + u64::from(seeder_is_old));
    let targets = [3, 4].map(|machine| image.target(world.path(&format!("target {machine}"))));
    let source = image.source(world.path("source"));
    let _seeder = if seeder_is_old {
        let dir = clients::dir(&world, 0);
        image.write_files(&dir);
        Stock::OldEzio.start(&world, 0, &image.torrent, &dir)
    } else {
        let daemon = world.daemon(0, &[]);
        world.add(0, &image, source.path(), true);
        daemon
    };
    let dirs = [1, 2].map(|machine| clients::dir(&world, machine));
    let _old = [1, 2].map(|n| Stock::OldEzio.start(&world, n, &image.torrent, &dirs[n - 1]));
    // They stay for a minute without upload, as Clonezilla has it, so nobody loses his only peer.
    let args = ["-t", "1", image.torrent(), text(targets[0].path())];
    let mut one = world.start(3, ezio(), &args);
    let _daemon = world.daemon(4, &[]);
    world.add(4, &image, targets[1].path(), false);
    world.wait_finished(4);
    for dir in &dirs {
        wait("an old node has every byte", || image.wrong_file(dir).is_none());
    }
    assert_eq!(one.end().code(), Some(0), "{}", one.all());
    targets.iter().for_each(|target| image.check(target.path()));
}

#[test]
fn an_old_seeder_feeds_old_and_new() {
    check(true);
}

#[test]
fn our_seeder_feeds_old_and_new() {
    check(false);
}
