//! The trees of a btrfs: what they name as used lies on the device, in order, once, and the search for
//! it ends. See `fuzz::sparse` for the input; the seeds have a checksum that is not looked at.

#![no_main]

use ezio::capture::filesystem::btrfs_used;
use fuzz::sparse::Sparse;
use libfuzzer_sys::fuzz_target;

/// Where the first superblock is.
const SUPERBLOCK: u64 = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let Some((_, source)) = Sparse::parse(data) else { return };
    let len = source.len();
    let found = btrfs_used(&source, len);
    // A node is read once or, from its second copy, twice; none is smaller than 4 KiB.
    let reads = source.reads.get() as u64;
    assert!(reads <= 100 + 4 * (len / 4096), "{reads} reads of a device of {len} bytes");
    let Ok(extents) = found else { return };
    assert!(extents.iter().all(|e| e.len > 0 && e.end() <= len), "{extents:?} of {len}");
    assert!(extents.windows(2).all(|pair| pair[0].end() < pair[1].offset), "{extents:?}");
    assert!(extents[0].offset == 0 && extents[0].end() > SUPERBLOCK, "{extents:?}");
});
