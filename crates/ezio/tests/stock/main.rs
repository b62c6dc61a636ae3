//! EZIO beside clients that everybody knows: libtorrent and aria2 as seeders and as downloaders,
//! opentracker as the tracker. Real processes on loopback; every byte is compared.

mod clients;
mod downloaders;
mod exchange;
mod image;
mod magnet;
mod mixed;
mod process;
mod protocol;
mod seeders;
mod trackers;

use std::path::Path;

/// The program under test.
fn ezio() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ezio"))
}
