//! Our own nodes and strangers in one swarm.

use crate::clients::{self, require_clients, text};
use crate::image::{Image, Pieces};
use serde_json::{Value, json};

/// One server, two of ours, libtorrent and aria2, all at once: everybody gets every byte.
fn everybody_gets_everything(pieces: Pieces) {
    require_clients!();
    let image = Image::new(pieces, 4);
    let server = clients::serve(&image, &image.torrent());
    let dirs = [image.empty_dir("libtorrent"), image.empty_dir("aria2")];
    let trackers = json!({ "trackers": [server.tracker()] });
    let mut libtorrent = clients::libtorrent("downloader", &image.torrent(), &dirs[0], &trackers);
    let mut aria2 = clients::aria2(&image, &dirs[1], &server.tracker(), &[]);
    let targets = ["a.img", "b.img"].map(|name| image.target(name));
    let mut ours = targets.each_ref().map(|to| clients::deploy(&server.url, to, &[]));
    ours.iter_mut().for_each(clients::wait_left);
    libtorrent.event("whole");
    clients::wait_aria2(&mut aria2);
    targets.iter().for_each(|target| image.check_target(target));
    dirs.iter().for_each(|dir| image.check_files(dir));
}

#[test]
fn everybody_gets_small_pieces() {
    everybody_gets_everything(Pieces::Small);
}

#[test]
fn everybody_gets_large_pieces() {
    everybody_gets_everything(Pieces::Large);
}

/// libtorrent and aria2 ask different trackers; only we ask both. aria2 comes when we are halfway.
#[test]
fn we_are_the_only_link_between_two_strangers() {
    require_clients!();
    let image = Image::new(Pieces::Small, 5);
    let trackers = [(); 2].map(|()| clients::opentracker(&image, Some(&image.metainfo)));
    let [theirs, others] = trackers.each_ref().map(|tracker| tracker.url.as_str());
    let seed = json!({ "trackers": [theirs], "upload_limit": 1_000_000 });
    let mut seeder = clients::libtorrent("seeder", &image.torrent(), &image.files(), &seed);
    let target = image.target("target.img");
    let torrent = image.torrent_with(&[theirs, others]);
    let mut deploy = clients::deploy(text(&torrent), &target, &["--seed-for", "100"]);
    let half = image.metainfo.layout().image_len() / 2;
    seeder.wait("half of the image", |status| (status["uploaded"].as_u64()? >= half).then_some(()));
    let dir = image.empty_dir("aria2");
    let mut aria2 = clients::aria2(&image, &dir, others, &[]);
    clients::wait_aria2(&mut aria2);
    clients::wait_left(&mut deploy);
    image.check_target(&target);
    image.check_files(&dir);
}

/// We are finished, the seeder is gone, and libtorrent takes its time: we stay until it has
/// everything, and not for long afterwards.
#[test]
fn a_slow_stranger_is_served_after_we_are_finished() {
    require_clients!();
    let image = Image::new(Pieces::Small, 6);
    let server = clients::serve(&image, &image.torrent());
    let dir = image.empty_dir("slow");
    let config = json!({ "trackers": [server.tracker()], "download_limit": 400_000 });
    let mut slow = clients::libtorrent("slow", &image.torrent(), &dir, &config);
    let begun = |status: &Value| (status["downloaded"].as_u64()? > 0).then_some(());
    slow.wait("its first bytes", begun);
    let target = image.target("target.img");
    let mut deploy = clients::deploy(&server.url, &target, &[]);
    clients::wait_deployed(&mut deploy);
    drop(server);
    let alone = |status: &Value| {
        let downloaded = status["downloaded"].as_u64()?;
        (status["peers"].as_array()?.len() == 1).then_some(downloaded)
    };
    let downloaded = slow.wait("the server to be gone", alone);
    assert!(downloaded < image.metainfo.layout().image_len() / 2, "{downloaded} bytes already");
    slow.event("whole");
    assert!(deploy.end().success());
    image.check_target(&target);
    image.check_files(&dir);
}
