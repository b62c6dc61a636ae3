//! The old ways to run EZIO, 1.x and 2.x, among clients that everybody knows: transmission,
//! qBittorrent, aria2, libtorrent, and the C++ EZIO's own libtorrent with its settings. Processes on
//! machines of their own (network namespaces), loop devices as disks, every byte compared.

#[expect(dead_code, reason = "shared with the tests of capture")]
#[path = "../capture/disk.rs"]
mod disk;
#[expect(dead_code, reason = "shared with the tests of the old command lines")]
#[path = "../legacy/world.rs"]
mod world;

mod cable;
mod caps;
mod clients;
mod magnet;
mod mixed;
mod proxies;
mod trackers;

use std::path::Path;

/// The program under test.
fn ezio() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ezio"))
}
