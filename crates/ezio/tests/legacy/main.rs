//! EZIO as 1.x and 2.x are called today: daemons and helper programs as processes on machines of
//! their own (network namespaces), loop devices as disks, every byte compared.

#[expect(dead_code, reason = "shared with the tests of capture")]
#[path = "../capture/disk.rs"]
mod disk;

mod daemon;
mod floods;
mod helpers;
mod one_shot;
mod originals;
mod python;
mod world;

use std::path::Path;

/// The program under test.
fn ezio() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ezio"))
}
