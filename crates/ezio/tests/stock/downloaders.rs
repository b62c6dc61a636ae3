//! We serve, stock clients download.

use crate::clients::{self, require_clients};
use crate::image::{Image, Pieces};
use serde_json::json;

/// Who wants the image.
enum Downloader {
    Libtorrent,
    Aria2,
}

/// Who tells where we are.
enum Tracker {
    /// The one in `ezio serve`.
    Ours,
    OpenTracker,
}

/// The downloader finds the server through the tracker and gets every byte.
fn check(downloader: Downloader, pieces: Pieces, tracker: Tracker) {
    require_clients!();
    let image = Image::new(pieces, 2);
    let (mut torrent, mut open) = (image.torrent(), None);
    if matches!(tracker, Tracker::OpenTracker) {
        let tracker = clients::opentracker(&image, Some(&image.metainfo));
        torrent = image.torrent_with(&[&tracker.url]);
        open = Some(tracker);
    }
    let server = clients::serve(&image, &torrent);
    let url = open.as_ref().map_or_else(|| server.tracker(), |tracker| tracker.url.clone());
    let dir = image.empty_dir("copy");
    match downloader {
        Downloader::Libtorrent => {
            let trackers = json!({ "trackers": [url] });
            clients::libtorrent("downloader", &image.torrent(), &dir, &trackers).event("whole");
        }
        Downloader::Aria2 => clients::wait_aria2(&mut clients::aria2(&image, &dir, &url, &[])),
    }
    image.check_files(&dir);
}

#[test]
fn libtorrent_gets_small_pieces() {
    check(Downloader::Libtorrent, Pieces::Small, Tracker::Ours);
}

#[test]
fn libtorrent_gets_large_pieces() {
    check(Downloader::Libtorrent, Pieces::Large, Tracker::Ours);
}

#[test]
fn aria2_gets_small_pieces() {
    check(Downloader::Aria2, Pieces::Small, Tracker::Ours);
}

#[test]
fn aria2_gets_large_pieces() {
    check(Downloader::Aria2, Pieces::Large, Tracker::Ours);
}

#[test]
fn libtorrent_finds_us_through_opentracker() {
    check(Downloader::Libtorrent, Pieces::Small, Tracker::OpenTracker);
}

#[test]
fn aria2_finds_us_through_opentracker() {
    check(Downloader::Aria2, Pieces::Small, Tracker::OpenTracker);
}
