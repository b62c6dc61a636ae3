//! What the tests stand on: loop devices, real file systems, and skips that say why.
//!
//! Everything here runs the real programs (`losetup`, `mkfs.*`, `fsck.*`, `mount`) and cleans up
//! after itself when it is dropped; a loop device even when its process is killed. It decides
//! nothing about EZIO: what is right is said by the tests, and by tools that are not ours.
#![forbid(unsafe_code)]

pub mod disk;
pub mod file_system;
mod listing;
pub mod loop_device;
pub mod mount;
pub mod need;
pub mod net;
mod port;
mod running;
pub mod tool;
pub mod tree;

pub use disk::TestDisk;
pub use file_system::FileSystem;
pub use listing::Listing;
pub use loop_device::{LoopDevice, LoopOptions};
pub use mount::Mount;
pub use need::{Need, require, skipped};
pub use net::{Lan, Links, Rates};
pub use port::free_port;
pub use running::Running;
pub use tree::{Random, Tree};

/// Ends the test that calls it, after printing `skipped: <test>: <why>`.
///
/// Takes what `format!` takes. For functions that return nothing.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        $crate::skipped(&format!($($why)*));
        return;
    }};
}

/// Ends the test that calls it, with a line that says why, unless this machine has every
/// [`Need`] of the slice.
#[macro_export]
macro_rules! require {
    ($needs:expr) => {
        if let Err(why) = $crate::require(&$needs) {
            $crate::skip!("{why}");
        }
    };
}
