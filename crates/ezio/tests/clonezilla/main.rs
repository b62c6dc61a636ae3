//! Clonezilla as it is, with this program where the C++ EZIO was: the scripts of Debian's packages
//! `clonezilla` and `drbl`, and the command lines of later versions, on machines made of namespaces,
//! with loop devices as disks. Nothing of Clonezilla is in this project.

#[expect(dead_code, reason = "shared with the tests of capture")]
#[path = "../capture/disk.rs"]
mod disk;
#[expect(dead_code, reason = "shared with the tests of the old command lines")]
#[path = "../legacy/world.rs"]
mod world;

mod commands;
mod disks;
mod machine;
mod namespaces;
mod scripts;

use lab::Need;
use std::path::Path;

/// The program under test.
fn ezio() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ezio"))
}

/// What every machine needs.
const MACHINE: [Need; 9] = [
    Need::Root,
    Need::Loop,
    Need::Program("ip"),
    Need::Program("tc"),
    Need::Program("unshare"),
    Need::Program("nsenter"),
    Need::Program("setpriv"),
    Need::Program("pkill"),
    Need::Program("ps"),
];

/// What Clonezilla's scripts need beside. Without `nc` they wait forever for the tracker.
const CLONEZILLA: [Need; 14] = [
    Need::Program("ocs-sr"),
    Need::Program("ocs-btsrv"),
    Need::Program("ocs-gen-bt-metainfo"),
    Need::Program("ocs-gen-bt-slices"),
    Need::Program("bc"),
    Need::Program("gdisk"),
    Need::Program("nc"),
    Need::Program("opentracker"),
    Need::Program("parted"),
    Need::Program("partclone.ext4"),
    Need::Program("pigz"),
    Need::Program("strings"),
    Need::Program("transmission-edit"),
    Need::Program("vmstat"),
];
