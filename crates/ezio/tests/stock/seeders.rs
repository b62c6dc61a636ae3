//! Stock clients seed, we deploy.

use crate::clients::{self, require_clients, text};
use crate::image::{Image, Pieces};
use crate::process::Process;
use serde_json::json;
use std::fs::File;

/// Who has the image.
enum Seeder {
    Libtorrent,
    Aria2,
}

/// Starts `seeder`, which tells `tracker` that it has everything.
fn start(seeder: Seeder, image: &Image, tracker: &str) -> Process {
    match seeder {
        Seeder::Libtorrent => {
            let trackers = json!({ "trackers": [tracker] });
            clients::libtorrent("seeder", &image.torrent(), &image.files(), &trackers)
        }
        Seeder::Aria2 => clients::aria2_seeder(image, tracker),
    }
}

/// The seeder tells opentracker, we ask opentracker, the target gets every byte.
fn check(seeder: Seeder, pieces: Pieces) {
    require_clients!();
    let image = Image::new(pieces, 1);
    let tracker = clients::opentracker(&image, Some(&image.metainfo));
    let _seeder = start(seeder, &image, &tracker.url);
    let target = image.target("target.img");
    let torrent = image.torrent_with(&[&tracker.url]);
    let mut deploy = clients::deploy(text(&torrent), &target, &[]);
    clients::wait_left(&mut deploy);
    image.check_target(&target);
}

#[test]
fn libtorrent_seeds_small_pieces() {
    check(Seeder::Libtorrent, Pieces::Small);
}

#[test]
fn libtorrent_seeds_large_pieces() {
    check(Seeder::Libtorrent, Pieces::Large);
}

#[test]
fn aria2_seeds_small_pieces() {
    check(Seeder::Aria2, Pieces::Small);
}

#[test]
fn aria2_seeds_large_pieces() {
    check(Seeder::Aria2, Pieces::Large);
}

/// A server of ours is only the tracker: its disk is gone, so what arrives came from libtorrent.
#[test]
fn our_own_tracker_leads_to_a_stock_seeder() {
    require_clients!();
    let image = Image::new(Pieces::Small, 3);
    let server = clients::serve(&image, &image.torrent());
    File::options().write(true).open(image.disk()).unwrap().set_len(0).unwrap();
    let _seeder = start(Seeder::Libtorrent, &image, &server.tracker());
    let target = image.target("target.img");
    let mut deploy = clients::deploy(&server.url, &target, &[]);
    clients::wait_left(&mut deploy);
    image.check_files_in(&target);
}
