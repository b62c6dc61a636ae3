//! Magnet links (BEP 9): everybody who has a torrent hands it to who has only its hash.

use crate::clients::{self, require_clients};
use crate::image::{Image, Pieces};
use crate::process::Process;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// Who has nothing but the link.
enum Asker {
    Ours,
    Libtorrent,
    Aria2,
}

/// Asks for the image with `link`; every byte is right in the end.
fn check(image: &Image, asker: Asker, link: &str) {
    match asker {
        Asker::Ours => {
            let target = image.target("target.img");
            clients::wait_left(&mut clients::deploy(link, &target, &[]));
            image.check_target(&target);
        }
        Asker::Libtorrent => {
            let dir = image.empty_dir("copy");
            clients::libtorrent("downloader", Path::new(link), &dir, &json!({})).event("whole");
            image.check_files(&dir);
        }
        Asker::Aria2 => {
            let dir = image.empty_dir("copy");
            clients::wait_aria2(&mut clients::aria2_link(link, &dir));
            image.check_files(&dir);
        }
    }
}

/// We serve; who asks knows our tracker.
fn check_served(asker: Asker) {
    require_clients!();
    let image = Image::new(Pieces::Small, 20);
    let server = clients::serve(&image, &image.torrent());
    check(&image, asker, &image.link(&[&server.tracker()], &[]));
}

#[test]
fn we_hand_the_torrent_to_our_own() {
    check_served(Asker::Ours);
}

#[test]
fn we_hand_the_torrent_to_libtorrent() {
    check_served(Asker::Libtorrent);
}

#[test]
fn we_hand_the_torrent_to_aria2() {
    check_served(Asker::Aria2);
}

/// No tracker: the link names the peer.
#[test]
fn a_link_may_name_peers() {
    let image = Image::new(Pieces::Small, 21);
    let server = clients::serve(&image, &image.torrent());
    check(&image, Asker::Ours, &image.link(&[], &[server.port]));
}

/// A stranger seeds, and is the only one that has the torrent.
fn check_asked(seeder: impl FnOnce(&Image, &str) -> Process) {
    require_clients!();
    let image = Image::new(Pieces::Small, 22);
    let tracker = clients::opentracker(&image, Some(&image.metainfo));
    let _seeder = seeder(&image, &tracker.url);
    check(&image, Asker::Ours, &image.link(&[&tracker.url], &[]));
}

#[test]
fn libtorrent_hands_the_torrent_to_us() {
    check_asked(|image, tracker| {
        let trackers = json!({ "trackers": [tracker] });
        clients::libtorrent("seeder", &image.torrent(), &image.files(), &trackers)
    });
}

#[test]
fn aria2_hands_the_torrent_to_us() {
    check_asked(clients::aria2_seeder);
}

/// BEP 27 leaves it to the private tracker who gets in: with the hash alone nobody does.
#[test]
fn a_private_torrent_is_handed_to_nobody() {
    require_clients!();
    let image = Image::private(Pieces::Small, 23);
    let server = clients::serve(&image, &image.torrent());
    let link = image.link(&[&server.tracker()], &[server.port]);
    let dir = image.empty_dir("copy");
    let mut stranger = clients::libtorrent("asker", Path::new(&link), &dir, &json!({}));
    let target = image.target("target.img");
    let mut ours = clients::deploy(&link, &target, &[]);
    ours.wait("the reason", |note| {
        note.to_string().contains("it does not hand out the torrent's metadata").then_some(())
    });
    stranger.wait("an introduction", |status| {
        status["counts"]["in EXTENDED_HANDSHAKE"].as_u64().filter(|&count| count > 0)
    });
    let whole = |line: &str| line.contains("\"whole\"").then_some(());
    assert_eq!(stranger.wait_line_for(Duration::from_secs(2), whole), None);
}
