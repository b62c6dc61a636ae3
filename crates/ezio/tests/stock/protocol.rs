//! What we say to strangers, as libtorrent's own log has it, and strangers who want encryption.

use crate::clients::{self, require_clients, text};
use crate::image::{Image, Pieces};
use crate::process::Process;
use serde_json::{Value, json};
use std::time::Instant;

/// `enc_policy` of libtorrent: only encrypted connections.
const FORCED: u32 = 0;

/// How many messages of a kind libtorrent has logged, as `in REQUEST`.
fn count(status: &Value, name: &str) -> u64 {
    status["counts"][name].as_u64().unwrap_or(0)
}

#[test]
fn we_ask_strangers_for_blocks_of_16_kib_and_not_for_too_many() {
    require_clients!();
    let image = Image::new(Pieces::Large, 7);
    let tracker = clients::opentracker(&image, Some(&image.metainfo));
    let trackers = json!({ "trackers": [tracker.url] });
    let mut seeder = clients::libtorrent("seeder", &image.torrent(), &image.files(), &trackers);
    let target = image.target("target.img");
    let torrent = image.torrent_with(&[&tracker.url]);
    clients::wait_left(&mut clients::deploy(text(&torrent), &target, &[]));
    image.check_target(&target);
    let status = seeder.wait("the last of it", |status| {
        let all = status["uploaded"].as_u64()? >= image.metainfo.layout().image_len();
        all.then(|| status.clone())
    });
    assert_eq!(status["block_max"], 16 << 10);
    // BEP 3's clients let 250 wait; fewer than 16 would not fill a link.
    let waiting = status["waiting_max"].as_u64().unwrap();
    assert!((16..=250).contains(&waiting), "{waiting} requests at once");
    assert_eq!(count(&status, "in INTERESTED"), 1, "interest does not flicker: {status}");
    let blocks = image.metainfo.layout().image_len().div_ceil(16 << 10);
    let requests = count(&status, "in REQUEST");
    assert!(requests <= blocks + blocks / 10, "{requests} requests for {blocks} blocks");
}

/// libtorrent serves one of us at a time and changes its mind every second.
#[test]
fn a_seeder_that_chokes_and_unchokes_is_followed() {
    require_clients!();
    let image = Image::new(Pieces::Small, 8);
    let tracker = clients::opentracker(&image, Some(&image.metainfo));
    let fickle = json!({
        "trackers": [tracker.url],
        "upload_limit": 1_000_000,
        "filtered": true,
        "settings": {
            "unchoke_slots_limit": 1, "unchoke_interval": 1, "optimistic_unchoke_interval": 1,
            "num_optimistic_unchoke_slots": 1,
        },
    });
    let mut seeder = clients::libtorrent("seeder", &image.torrent(), &image.files(), &fickle);
    let torrent = image.torrent_with(&[&tracker.url]);
    let targets = ["a.img", "b.img", "c.img"].map(|name| image.target(name));
    let mut ours = targets.each_ref().map(|to| clients::deploy(text(&torrent), to, &[]));
    seeder.wait("a choke", |status| (count(status, "out CHOKE") > 0).then_some(()));
    ours.iter_mut().for_each(clients::wait_left);
    targets.iter().for_each(|target| image.check_target(target));
}

/// Makes libtorrent dial the server, and gives its status when `ready` says so.
fn dial(process: &mut Process, ready: impl Fn(&Value) -> bool) -> Value {
    process.wait("what it waits for", |status| ready(status).then(|| status.clone()))
}

/// libtorrent's default: it dials encrypted, is refused, and dials again in plain.
#[test]
fn who_prefers_encryption_gets_everything_in_plain() {
    require_clients!();
    let image = Image::new(Pieces::Small, 9);
    let server = clients::serve(&image, &image.torrent());
    let dir = image.empty_dir("libtorrent");
    // Slow enough to be looked at.
    let slow = json!({ "peers": [["127.0.0.1", server.port]], "download_limit": 2_000_000 });
    let mut downloader = clients::libtorrent("downloader", &image.torrent(), &dir, &slow);
    dial(&mut downloader, |v| {
        v["text"].as_str().is_some_and(|t| t.contains("initiating encrypted handshake"))
    });
    let status = dial(&mut downloader, |v| {
        !v["peers"][0].is_null() && v["downloaded"].as_u64().is_some_and(|bytes| bytes > 0)
    });
    assert_eq!(status["peers"][0]["dialled"], true, "{status}");
    assert_eq!(status["peers"][0]["encrypted"], false, "{status}");
    downloader.event("whole");
    image.check_files(&dir);
}

/// libtorrent and aria2 that speak nothing but encryption dial us and are dialled by us: they get
/// nothing, and nobody else is the worse for it.
#[test]
fn who_insists_on_encryption_is_left_alone() {
    require_clients!();
    let image = Image::new(Pieces::Small, 10);
    let server = clients::serve(&image, &image.torrent());
    let dirs = [image.empty_dir("libtorrent"), image.empty_dir("aria2")];
    let forced = json!({
        "trackers": [server.tracker()],
        "settings": { "out_enc_policy": FORCED, "in_enc_policy": FORCED },
    });
    let mut libtorrent = clients::libtorrent("forced", &image.torrent(), &dirs[0], &forced);
    let crypto = ["--bt-force-encryption=true", "--bt-require-crypto=true"];
    let mut aria2 = clients::aria2(&image, &dirs[1], &server.tracker(), &crypto);
    let refused = |text: &str| text.contains("CONNECTION_CLOSED") || text.contains("DISCONNECT");
    dial(&mut libtorrent, |v| v["text"].as_str().is_some_and(refused));
    let targets = ["a.img", "b.img"].map(|name| image.target(name));
    let mut ours = targets.each_ref().map(|to| clients::deploy(&server.url, to, &[]));
    ours.iter_mut().for_each(clients::wait_left);
    targets.iter().for_each(|target| image.check_target(target));
    let status = libtorrent.event("status");
    assert_eq!(status["downloaded"], 0, "{status}");
    assert!(aria2.runs(), "aria2 has got everything without encryption, or gave up");
    // The server is none the worse: a plain stranger is served.
    let dir = image.empty_dir("plain");
    let trackers = json!({ "trackers": [server.tracker()] });
    clients::libtorrent("plain", &image.torrent(), &dir, &trackers).event("whole");
    image.check_files(&dir);
}

/// Two seeds have nothing to say to each other; they used to shake hands every second.
#[test]
fn two_that_have_everything_meet_less_and_less_often() {
    require_clients!();
    let image = Image::new(Pieces::Small, 16);
    let server = clients::serve(&image, &image.torrent());
    let trackers = json!({ "trackers": [server.tracker()] });
    let mut seeder = clients::libtorrent("seeder", &image.torrent(), &image.files(), &trackers);
    let met = |status: &Value| (count(status, "out HANDSHAKE") > 0).then_some(());
    seeder.wait("the first meeting", met);
    // Long enough for eight meetings, one a second; there are four when the pauses double.
    let begin = Instant::now();
    let later = |status: &Value| (begin.elapsed().as_secs() >= 8).then(|| status.clone());
    let status = seeder.wait("eight seconds", later);
    let meetings = count(&status, "out HANDSHAKE");
    assert!(meetings <= 5, "{meetings} meetings in 8 s");
}
