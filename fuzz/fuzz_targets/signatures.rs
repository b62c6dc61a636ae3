//! Old signatures on a device: what is found lies on it, is gone after it was erased, and what lies
//! inside an image's extents is not said to survive. See `fuzz::sparse` for the input.

#![no_main]

use ezio::signatures::{find, survivors};
use fuzz::sparse::{FAILURE, Sparse};
use libfuzzer_sys::fuzz_target;
use swarm::layout::{Extent, Layout};

fuzz_target!(|data: &[u8]| {
    let Some((choice, source)) = Sparse::parse(data) else { return };
    let (sector, len) = (if choice & 1 == 0 { 512 } else { 4096 }, source.len());
    let found = find(&source, len, sector).expect("a device that can be read");
    // Half a MiB for ZFS; some 200 places, and two for each copy of two superblocks.
    let (reads, bytes) = (source.reads.get(), source.bytes.get());
    assert!(reads <= 700 && bytes <= 600 << 10, "{reads} reads of {bytes} bytes");

    // A device that cannot be read does not pass for an empty one.
    if reads > 0 {
        let failing = source.failing_after(data.len() % reads);
        let error = find(&failing, len, sector).expect_err("an I/O error was overlooked");
        assert_eq!(error.error.kind(), FAILURE);
    }

    let magics = || found.iter().flat_map(|signature| &signature.magics);
    for magic in magics() {
        assert!(magic.start < magic.end && magic.end <= len, "{magic:x?} of {len:#x}: {found:x?}");
        assert!(magic.end - magic.start <= ZEROS.len() as u64, "{magic:x?} is long");
    }

    let mut wiped = source.with(0, &[]);
    for magic in magics() {
        wiped = wiped.with(magic.start, &ZEROS[..(magic.end - magic.start) as usize]);
    }
    let left = find(&wiped, len, sector).expect("a device that can be read");
    for old in &found {
        let is_same = |new: &&ezio::signatures::Signature| {
            (new.name, new.version, new.offset()) == (old.name, old.version, old.offset())
        };
        assert_eq!(left.iter().find(is_same), None, "it was erased");
    }

    // An image of all but one byte of a magic: who has that byte survives, and nobody else.
    let Some(byte) = magics().nth(data.len() % magics().count().max(1)).map(|m| m.end - 1) else {
        return;
    };
    let parts = [Extent { offset: 0, len: byte }, Extent { offset: byte + 1, len: len - byte - 1 }];
    let extents: Vec<Extent> = parts.into_iter().filter(|extent| extent.len > 0).collect();
    let Ok(layout) = Layout::new(extents) else { return };
    let holds = |s: &ezio::signatures::Signature| s.magics.iter().any(|m| m.contains(&byte));
    let expected: Vec<_> = found.iter().filter(|s| holds(s)).cloned().collect();
    assert_eq!(survivors(found, &layout), expected);
});

/// As long as the longest magic.
const ZEROS: [u8; 32] = [0; 32];
