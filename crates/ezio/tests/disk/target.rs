//! Targets that fail while they are written.

use super::{DEVICE_NEEDS, LEN, PIECE_LEN, Served, Target, on_both, text};
use lab::TestDisk;
use lab::disk::{Failure, Fault};
use std::path::Path;

/// Deploys to a target that fails and to one that does not, at once. Returns what the first said.
fn check(make: fn(&Path) -> Target, failure: Failure, words: &[&str]) {
    let served = Served::new();
    let target = make(served.dir.path());
    target.disk.fail(failure);
    let bad = served.deploy(target.path());
    let (good, path) = served.deploy_well("good.img");
    let error = bad.fails();
    for word in [&[text(target.path()), "is not usable"], words].concat() {
        assert!(error.contains(word), "{word} is missing: {error}");
    }
    assert_ne!(target.head(), served.image[..4096], "it looks as if it were there");
    good.ends_well();
    served.check(&path);
}

/// Somewhere in the middle of the image.
const MIDDLE: u64 = LEN as u64 / 2;

#[test]
fn a_write_that_fails_says_where() {
    lab::require!(TestDisk::NEEDS);
    let failure = Failure::write(MIDDLE + 5000..MIDDLE + 5512);
    // The piece that is written, for all of its write fails.
    let place = format!("write 256 KiB at {MIDDLE:#x} of");
    assert_eq!(MIDDLE % PIECE_LEN, 0);
    check(Target::file, failure, &[&place, "Input/output error"]);
}

/// The kernel writes later, and says only that something was not written.
#[test]
fn a_block_device_that_fails_a_write_says_it_at_the_flush() {
    lab::require!(DEVICE_NEEDS);
    let failure = Failure::write(MIDDLE + 5000..MIDDLE + 5512);
    check(Target::device, failure, &["flush", "Input/output error"]);
}

#[test]
fn a_target_that_is_full() {
    lab::require!(TestDisk::NEEDS);
    let failure = Failure::write(MIDDLE..).with(Fault::NoSpace);
    check(Target::file, failure, &["write 256 KiB at 0x", "No space left on device"]);
}

/// As of a thin volume without space. Of what it could not write later the kernel knows only EIO.
#[test]
fn a_block_device_that_is_full() {
    lab::require!(DEVICE_NEEDS);
    let failure = Failure::write(MIDDLE..).with(Fault::NoSpace);
    check(Target::device, failure, &["flush", "Input/output error"]);
}

#[test]
fn a_target_that_becomes_read_only() {
    lab::require!(TestDisk::NEEDS);
    let failure = Failure::write(..).with(Fault::ReadOnly).after(9);
    check(Target::file, failure, &["write", "Read-only file system"]);
}

#[test]
fn a_disk_that_is_pulled_out() {
    lab::require!(TestDisk::NEEDS);
    let failure = Failure::everything().with(Fault::NoDevice).after(12);
    check(Target::file, failure, &["No such device"]);
}

#[test]
fn a_block_device_that_is_pulled_out() {
    lab::require!(DEVICE_NEEDS);
    let failure = Failure::write(..).with(Fault::NoDevice).after(3);
    check(Target::device, failure, &["Input/output error"]);
}

#[test]
fn short_writes_are_written_to_their_end() {
    lab::require!(TestDisk::NEEDS);
    let served = Served::new();
    let target = Target::file(served.dir.path());
    target.disk.fail(Failure::write(..).with(Fault::Short));
    served.deploy(target.path()).ends_well();
    assert!(target.bytes() == served.image);
}

/// The flush after the old head was cleared, the one of the data, and the one of the new head.
#[test]
fn a_flush_that_fails_is_never_a_success() {
    on_both(|make| {
        for count in 0..3 {
            let served = Served::new();
            let target = make(served.dir.path());
            target.disk.fail(Failure::flush().after(count).once());
            let error = served.deploy(target.path()).fails();
            let words = ["flush", "Input/output error", "is not usable"];
            assert!(words.iter().all(|word| error.contains(word)), "flush {count}: {error}");
        }
    });
}
