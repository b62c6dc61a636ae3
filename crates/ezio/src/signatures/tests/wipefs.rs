//! The table against the `wipefs` of this machine, for what no program here can make.

use super::*;
use lab::{Need, tool};
use std::collections::BTreeSet;

/// What `wipefs` finds in the file, and where.
fn wipefs(path: &Path) -> Vec<(String, u64)> {
    let text = tool::run(tool::words("wipefs --no-act --json").arg(path)).unwrap();
    if text.trim().is_empty() {
        return Vec::new();
    }
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    let list = list["signatures"].as_array().expect("a list");
    list.iter()
        .map(|found| {
            let offset = found["offset"].as_str().and_then(|text| text.strip_prefix("0x"));
            let offset = u64::from_str_radix(offset.expect("hexadecimal"), 16).unwrap();
            (found["type"].as_str().expect("a name").to_owned(), offset)
        })
        .collect()
}

/// Writes `runs` into a sparse file; all that `wipefs` finds in it must be found, with the same name
/// at the same offset. Returns how much that was. Then erases all of it, and `wipefs` must find
/// nothing more.
fn compare(len: u64, runs: &[(u64, &[u8])]) -> Vec<(String, u64)> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let open = File::options().read(true).write(true).open(file.path()).unwrap();
    open.set_len(len).unwrap();
    for (at, bytes) in runs {
        open.write_all_at(bytes, *at).unwrap();
    }
    let theirs = wipefs(file.path());
    let ours = find(&open, len, 512).unwrap();
    for (name, offset) in &theirs {
        let is_same =
            |s: &Signature| s.name == name && s.magics.iter().any(|magic| magic.start == *offset);
        assert!(ours.iter().any(is_same), "wipefs: {name} at {offset:#x}; we: {ours:#x?}");
    }
    if !theirs.is_empty() {
        wipe(&open, &ours, &layout(&[(len - 1, 1)])).unwrap();
        assert_eq!(wipefs(file.path()), [], "after {ours:#x?}");
    }
    theirs
}

#[test]
fn rows_that_are_only_a_magic_are_where_wipefs_finds_them() {
    lab::require!([Need::Program("wipefs")]);
    let (len, mut names) = (1 << 30, BTreeSet::new());
    for row in TABLE {
        // A mirror of btrfs is behind the end.
        let Some(base) = row.place.offset(len, 512) else { continue };
        let mut device = Sparse::default();
        device.put(base + row.at, row.magic);
        let source = Source { bytes: &device, len, sector: 512 };
        if !(row.check)(&source, base).unwrap() {
            // `wipefs` also shows what has a wrong checksum; nobody but it would take that.
            continue;
        }
        for name in compare(len, &[(base + row.at, row.magic)]) {
            names.insert(name.0);
        }
    }
    // util-linux 2.38 knows these by their magics alone; a later one may want more of some.
    for name in ["swap", "swsuspend", "ufs", "f2fs", "oracleasm", "VMFS", "lsi_mega_raid_member"] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
}

/// Sum of words of 32 bits, its carries folded in: drivers/md/md.c, `calc_sb_1_csum`.
fn md1_with_checksum(at: u64) -> Vec<u8> {
    let mut bytes = md1(at);
    bytes[16..32].fill(0x5a);
    let words = bytes.chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
    let sum: u64 = words.sum();
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    bytes[216..220].copy_from_slice(&u32::try_from(sum).unwrap().to_le_bytes());
    bytes
}

#[test]
fn structures_are_where_wipefs_finds_them() {
    lab::require!([Need::Program("wipefs")]);
    let len = 1 << 30;
    let found = |name: &str, runs: &[(u64, &[u8])]| {
        let found = compare(len, runs);
        assert!(found.iter().any(|(theirs, _)| theirs == name), "{name} is not among {found:?}");
    };
    for at in [0, 4096, len - 8192] {
        found("linux_raid_member", &[(at, &md1_with_checksum(at))]);
    }
    let old = structure(
        128,
        &[(0, b"\xfc\x4e\x2b\xa9"), (8, &[90]), (20, &[1; 4]), (32, &[0, 4]), (36, &[2])],
    );
    found("linux_raid_member", &[(len - 65536, &old)]);

    let last = len / 512 - 1;
    let protective = structure(512, &[(446 + 4, &[0xee]), (446 + 12, &[1]), (510, b"\x55\xaa")]);
    // One entry for partitions, with its own checksum, and room for them.
    let table = |lba: u64, other: u64, entries: u64| {
        let mut header = gpt(lba, other);
        header[40..48].copy_from_slice(&34_u64.to_le_bytes());
        header[48..56].copy_from_slice(&(last - 33).to_le_bytes());
        header[72..80].copy_from_slice(&entries.to_le_bytes());
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        header[88..92].copy_from_slice(&(!source::crc32(!0, &[0; 16384])).to_le_bytes());
        header[16..20].fill(0);
        let sum = !source::crc32(!0, &header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        header
    };
    let (first, backup) = (table(1, last, 2), table(last, 1, last - 32));
    let runs: [(u64, &[u8]); 3] = [(0, &protective), (512, &first), (last * 512, &backup)];
    found("gpt", &runs);
    // The backup alone, which no kernel looks at.
    found("gpt", &runs[2..]);

    let bitmap_byte_count = 4096_u32.to_be_bytes();
    let drbd = structure(96, &[(60, b"\x83\x74\x02\x6d"), (80, &bitmap_byte_count)]);
    found("drbd", &[(len - 4096, &drbd)]);
    found("silicon_medley_raid_member", &[(len - 512, &silicon())]);
    found("jmicron_raid_member", &[(len - 512, &jmicron())]);
    found("via_raid_member", &[(len - 512, &via())]);
    let intel = b"Intel Raid ISM Cfg Sig. 1.3.00";
    found("isw_raid_member", &[(len - 1024, intel)]);
    let adaptec = structure(512, &[(0, b"\x37\xfc\x4d\x1e"), (0x100, b"DPTM")]);
    found("adaptec_raid_member", &[(len - 512, &adaptec)]);
    let apfs = structure(4096, &[(24, &[1, 0, 0, 0x80]), (32, b"NXSB\0\x10")]);
    let _ = compare(len, &[(0, &apfs)]);
    let disc = structure(2048, &[(0, b"\x01CD001\x01"), (128, &[0, 8, 8, 0])]);
    found("iso9660", &[(32768, &disc)]);
}

#[test]
fn zfs_is_where_wipefs_finds_it() {
    lab::require!([Need::Program("wipefs")]);
    let len = 1 << 30;
    let block = structure(16, &[(0, &0x00ba_b10c_u64.to_le_bytes()), (8, &[0x88, 0x13])]);
    // Libraries before 2.40 count uberblocks, later ones read the pairs too: these are a version, a
    // state, a transaction and an id, as XDR.
    let pair = |name: &str, value: u64| {
        let mut bytes = Vec::new();
        let padded = name.len().div_ceil(4) * 4;
        let len = u32::try_from(12 + padded + 16).unwrap();
        for number in [len, 32, u32::try_from(name.len()).unwrap()] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(name.as_bytes());
        bytes.resize(12 + padded, 0);
        for number in [8_u32, 1] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(value.to_be_bytes());
        bytes
    };
    let mut pairs = b"\x01\x01\0\0\0\0\0\0\0\0\0\x01".to_vec();
    for (name, value) in [("version", 5000), ("state", 0), ("txg", 9), ("guid", 77)] {
        pairs.extend(pair(name, value));
    }
    let checksum = 0x0210_da7a_b10c_7a11_u64.to_le_bytes();
    let mut runs: Vec<(u64, &[u8])> = Vec::new();
    for at in [0, 256 << 10, len - (512 << 10), len - (256 << 10)] {
        runs.extend([(at + (16 << 10), &pairs[..]), (at + (128 << 10) - 40, &checksum)]);
        runs.extend((0..9).map(|i| (at + (128 << 10) + i * 4096, &block[..])));
    }
    let found = compare(len, &runs);
    assert!(found.iter().any(|(name, _)| name == "zfs_member"), "{found:?}");
}
