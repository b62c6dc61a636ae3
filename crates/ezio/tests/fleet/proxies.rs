//! The site proxy: a stock client gets the image from an old EZIO's seeder and keeps it as files;
//! that seeder goes, and the client alone feeds disks, one by a run of 1.x, one by a daemon of 2.x.
//! So each client is shown as downloader and as seeder.

use crate::clients::{self, NEEDS, Stock};
use crate::ezio;
use crate::world::{Image, World, text, wait};

/// Who has the image first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// `ezio -U -T ... -L disk`.
    Disk1,
    /// `ezio -F`, told to seed a directory.
    Files2,
}

fn check(stock: Stock, origin: Origin) {
    lab::require!(NEEDS);
    if let Some(why) = stock.missing() {
        lab::skip!("{why}");
    }
    let world = World::new(4);
    let image = Image::new(world.dir.path(), "sda1", 60 + stock as u64);
    let source = image.source(world.path("source"));
    let targets = [2, 3].map(|machine| image.target(world.path(&format!("target {machine}"))));
    let origin = match origin {
        Origin::Disk1 => {
            let args = ["-U", "-T", image.torrent(), "-L", text(source.path())];
            world.start(0, ezio(), &args)
        }
        Origin::Files2 => {
            image.write_files(&world.path("origin"));
            let daemon = world.daemon(0, &["-F"]);
            world.add(0, &image, &world.path("origin"), true);
            daemon
        }
    };
    let dir = clients::dir(&world, 1);
    let mut proxy = stock.start(&world, 1, &image.torrent, &dir);
    wait("the proxy has every byte", || {
        assert!(proxy.code().is_none(), "{stock:?} has ended: {}", proxy.all());
        image.wrong_file(&dir).is_none()
    });
    drop(origin);
    let mut one = world.start(2, ezio(), &["-t", "0", image.torrent(), text(targets[0].path())]);
    let _daemon = world.daemon(3, &[]);
    world.add(3, &image, targets[1].path(), false);
    world.wait_finished(3);
    assert_eq!(one.end().code(), Some(0), "{}", one.all());
    targets.iter().for_each(|target| image.check(target.path()));
    assert!(proxy.code().is_none(), "{stock:?} has ended: {}", proxy.all());
}

#[test]
fn transmission() {
    check(Stock::Transmission, Origin::Disk1);
}

#[test]
fn qbittorrent() {
    check(Stock::Qbittorrent, Origin::Files2);
}

#[test]
fn aria2() {
    check(Stock::Aria2, Origin::Files2);
}

#[test]
fn libtorrent() {
    check(Stock::Libtorrent, Origin::Disk1);
}

#[test]
fn an_old_node() {
    check(Stock::OldEzio, Origin::Disk1);
}
