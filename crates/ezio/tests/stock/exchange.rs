//! Peers tell each other of others (PEX, BEP 11): libtorrent and we, both ways. No tracker, no local
//! discovery: who meets has heard of the other from a third.

use crate::clients::{self, require_clients};
use crate::image::{Image, Pieces};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The peer ids of those of libtorrent's peers that are ours.
fn ours(status: &Value) -> BTreeSet<String> {
    let peers = status["peers"].as_array().map_or(&[][..], Vec::as_slice);
    let is_ours = |peer: &&Value| peer["client"].as_str().is_some_and(|c| c.contains("EZIO"));
    peers.iter().filter(is_ours).map(|peer| peer["id"].to_string()).collect()
}

/// We are told of one libtorrent, which knows another, which has everything.
#[test]
fn libtorrent_tells_us_of_others() {
    require_clients!();
    let image = Image::new(Pieces::Small, 24);
    // Seconds for the image, and then it leaves at once whoever has all: it looks at its peers some
    // times a second.
    let some = json!({ "upload_limit": 2_000_000 });
    let mut seeder = clients::libtorrent("seeder", &image.torrent(), &image.files(), &some);
    let port = |listening: &Value| listening["port"].as_u64().expect("a port");
    let seeders = port(&seeder.event("listening"));
    let dir = image.empty_dir("hub");
    // Slow, so that it is long busy and has little.
    let slow = json!({ "peers": [["127.0.0.1", seeders]], "download_limit": 50_000, "upload_limit": 50_000 });
    let mut hub = clients::libtorrent("hub", &image.torrent(), &dir, &slow);
    let hubs = port(&hub.event("listening"));
    let target = image.target("target.img");
    let mut deploy = clients::deploy(&image.link(&[], &[hubs]), &target, &["--seed-for", "1"]);
    seeder.wait("one of ours", |status| (!ours(status).is_empty()).then_some(()));
    clients::wait_left(&mut deploy);
    image.check_target(&target);
}

/// libtorrent is told of a slow one of ours, which knows our server.
#[test]
fn we_tell_libtorrent_of_others() {
    require_clients!();
    let image = Image::new(Pieces::Small, 25);
    let server = clients::serve(&image, &image.torrent());
    let port = lab::free_port();
    let target = image.target("target.img");
    let args = ["--limit", "400kB/s", "--port", &port.to_string()];
    let mut deploy = clients::deploy(&server.url, &target, &args);
    let dir = image.empty_dir("copy");
    // Slower than our server, faster than the one it knows.
    let hub = json!({ "peers": [["127.0.0.1", port]], "download_limit": 1_000_000 });
    let mut stranger = clients::libtorrent("stranger", &image.torrent(), &dir, &hub);
    let mut seen = BTreeSet::new();
    stranger.wait("the other of ours", |status| {
        seen.append(&mut ours(status));
        (seen.len() == 2).then_some(())
    });
    stranger.event("whole");
    image.check_files(&dir);
    clients::wait_left(&mut deploy);
    image.check_target(&target);
}
