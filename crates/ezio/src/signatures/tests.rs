#![expect(clippy::single_range_in_vec_init, reason = "a magic is one range, not its numbers")]

mod wipefs;

use super::table::Place;
use super::*;
use proptest::prelude::*;
use std::cell::Cell;
use swarm::layout::Extent;

/// A device of any size that is zeros but for some runs of bytes.
#[derive(Default)]
struct Sparse {
    runs: Vec<(u64, Vec<u8>)>,
    reads: Cell<usize>,
    good_reads: Option<usize>,
}

impl Sparse {
    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.runs.push((at, bytes.to_vec()));
    }
}

impl ReadAt for Sparse {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.reads.replace(self.reads.get() + 1);
        if self.good_reads.is_some_and(|good| read >= good) {
            return Err(io::ErrorKind::HostUnreachable.into());
        }
        buf.fill(0);
        for (start, run) in &self.runs {
            for (at, &byte) in (*start..).zip(run) {
                if let Some(place) = at.checked_sub(offset)
                    && let Some(place) = buf.get_mut(usize::try_from(place).unwrap())
                {
                    *place = byte;
                }
            }
        }
        Ok(buf.len())
    }
}

/// What is found, as it is shown, on a device that holds `runs`.
#[track_caller]
fn check(len: u64, sector: u32, runs: &[(u64, &[u8])], expected: &[&str]) {
    let mut device = Sparse::default();
    runs.iter().for_each(|(at, bytes)| device.put(*at, bytes));
    let found = find(&device, len, sector).unwrap();
    assert_eq!(found.iter().map(Signature::to_string).collect::<Vec<_>>(), expected);
}

const GIB: u64 = 1 << 30;

/// A structure of zeros with some numbers in it.
fn structure(len: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (at, part) in parts {
        bytes[*at..at + part.len()].copy_from_slice(part);
    }
    bytes
}

#[test]
fn every_row_that_is_only_a_magic_is_found_at_its_place() {
    for len in [300 * GIB, 300 * GIB + 12_345 * 512] {
        for row in TABLE {
            let mut device = Sparse::default();
            let base = row.place.offset(len, 512).unwrap();
            device.put(base + row.at, row.magic);
            let source = Source { bytes: &device, len, sector: 512 };
            if !(row.check)(&source, base).unwrap() {
                continue;
            }
            let found = find(&device, len, 512).unwrap();
            let is_it = |s: &Signature| s.name == row.name && s.offset() == base + row.at;
            assert!(found.iter().any(is_it), "{} {base:#x}: {found:?}", row.name);
        }
    }
}

#[test]
fn a_magic_of_two_bytes_is_not_enough() {
    // On random bytes it would be found once in 65536 disks, in each of some places.
    let len = 300 * GIB;
    for row in TABLE.iter().filter(|row| row.magic.len() < 4) {
        let mut device = Sparse::default();
        let base = row.place.offset(len, 512).unwrap();
        device.put(base + row.at, row.magic);
        let source = Source { bytes: &device, len, sector: 512 };
        assert!(!(row.check)(&source, base).unwrap(), "{} {:?}", row.name, row.magic);
    }
}

#[test]
fn places_are_counted_from_the_end_as_the_formats_do() {
    let check = |place: Place, len, sector, expected| {
        assert_eq!(place.offset(len, sector), expected, "{len}");
    };
    let (md0, md1) = (Place::End(65536, 65536), Place::End(8192, 4096));
    check(md0, 1 << 20, 512, Some(0xf_0000));
    check(md0, (1 << 20) - 512, 512, Some(0xe_0000));
    check(md0, 65535, 512, None);
    check(md1, 1 << 20, 512, Some(0xf_e000));
    check(md1, (1 << 20) + 3584, 512, Some(0xf_e000));
    check(md1, (1 << 20) - 512, 512, Some(0xf_d000));
    check(Place::LastSectors(2), 1 << 20, 4096, Some(0xf_e000));
    check(Place::LastSectors(2), 512, 512, None);
    check(Place::Start(4096), 4096, 512, None);
}

fn md1(at: u64) -> Vec<u8> {
    structure(
        256,
        &[(0, b"\xfc\x4e\x2b\xa9\x01"), (32, b"server:0"), (144, &(at / 512).to_le_bytes())],
    )
}

#[test]
fn md_superblocks_are_found_where_they_say_they_are() {
    let (len, end) = (GIB, GIB - 8192);
    check(len, 512, &[(end, &md1(end))], &["linux_raid_member 1.0 (server:0) at 0x3fffe000"]);
    check(len, 512, &[(0, &md1(0))], &["linux_raid_member 1.1 (server:0) at 0x0"]);
    check(len, 512, &[(4096, &md1(4096))], &["linux_raid_member 1.2 (server:0) at 0x1000"]);
    check(len, 512, &[(4096, &md1(0))], &[]);
    let old =
        |order: fn(u32) -> [u8; 4]| structure(64, &[(0, &order(0xa92b_4efc)), (8, &order(90))]);
    let at = GIB - 65536;
    for bytes in [old(u32::to_le_bytes), old(u32::to_be_bytes)] {
        check(len, 512, &[(at, &bytes)], &["linux_raid_member 0.90 at 0x3fff0000"]);
    }
}

fn silicon() -> Vec<u8> {
    let mut bytes = structure(512, &[(0x63, &[0x2f]), (0x20, b"disk")]);
    let sum = sum16(&bytes[..0x13e]);
    bytes[0x13e..0x140].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    bytes
}

fn jmicron() -> Vec<u8> {
    let mut bytes = structure(128, &[(0, b"JM"), (0x20, b"name")]);
    let sum = sum16(&bytes);
    bytes[4..6].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    bytes
}

fn via() -> Vec<u8> {
    let mut bytes = structure(51, &[(0, b"\x55\xaa\x01\x03")]);
    bytes[50] = bytes[..50].iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    bytes
}

fn sum16(bytes: &[u8]) -> u16 {
    bytes
        .chunks(2)
        .fold(0, |sum, word| sum.wrapping_add(u16::from(word[0]) | u16::from(word[1]) << 8))
}

#[test]
fn controllers_metadata_is_found_by_its_checksum() {
    let (len, last) = (GIB, GIB - 512);
    for (name, bytes, at) in [
        ("silicon_medley_raid_member", silicon(), 0x60),
        ("jmicron_raid_member", jmicron(), 0),
        ("via_raid_member", via(), 0),
    ] {
        check(len, 512, &[(last, &bytes)], &[&format!("{name} at {:#x}", last + at)]);
        let mut damaged = bytes;
        damaged[0x20] ^= 4;
        check(len, 512, &[(last, &damaged)], &[]);
    }

    let adaptec = structure(512, &[(0, b"\x37\xfc\x4d\x1e"), (0x100, b"DPTM")]);
    check(len, 512, &[(last, &adaptec)], &["adaptec_raid_member at 0x3ffffe00"]);
    check(len, 512, &[(last, &adaptec[..16])], &[]);
    let intel = b"Intel Raid ISM Cfg Sig. 1.3.00";
    check(len, 512, &[(GIB - 1024, intel)], &["isw_raid_member at 0x3ffffc00"]);
    check(len, 4096, &[(GIB - 8192, intel)], &["isw_raid_member at 0x3fffe000"]);
}

/// A header of 92 bytes that is right in itself.
fn gpt(lba: u64, other: u64) -> Vec<u8> {
    let lbas = [lba.to_le_bytes(), other.to_le_bytes()].concat();
    let mut header = structure(92, &[(0, b"EFI PART\0\0\x01\0\x5c"), (24, &lbas)]);
    let sum = !source::crc32(!0, &header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    header
}

#[test]
fn both_headers_of_a_gpt_are_found_and_copies_elsewhere_are_not() {
    let last = GIB / 512 - 1;
    let (first, backup) = (gpt(1, last), gpt(last, 1));
    let expected = ["gpt at 0x200", "gpt backup at 0x3ffffe00"];
    check(GIB, 512, &[(512, &first), (GIB - 512, &backup)], &expected);
    check(GIB, 512, &[(GIB - 512, &backup)], &expected[1..]);
    check(GIB, 512, &[(GIB - 512, &first), (512, &backup)], &[]);
    // A disk that was copied to a larger one.
    check(2 * GIB, 512, &[(512, &first), (GIB - 512, &backup)], &expected);
    check(2 * GIB, 512, &[(GIB - 512, &backup)], &[]);
    // The same on sectors of 4 KiB.
    let last = GIB / 4096 - 1;
    let (first, backup) = (gpt(1, last), gpt(last, 1));
    let expected = ["gpt at 0x1000", "gpt backup at 0x3ffff000"];
    check(GIB, 4096, &[(4096, &first), (GIB - 4096, &backup)], &expected);
    check(GIB, 512, &[(4096, &first), (GIB - 4096, &backup)], &[]);
    let mut damaged = backup.clone();
    damaged[60] ^= 1;
    check(GIB, 4096, &[(GIB - 4096, &damaged)], &[]);
}

#[test]
fn the_first_sector_is_told_apart() {
    let entry = |kind| structure(16, &[(0, &[0x80]), (4, &[kind]), (12, &[1])]);
    let sector = |entry: &[u8]| structure(512, &[(446, entry), (510, b"\x55\xaa")]);
    check(GIB, 512, &[(0, &sector(&entry(0x83)))], &["dos at 0x1fe"]);
    check(GIB, 512, &[(0, &sector(&entry(0xee)))], &["PMBR at 0x1fe"]);
    // Only boot code; and boot code where the table would be.
    check(GIB, 512, &[(0, &sector(&[]))], &[]);
    check(GIB, 512, &[(0, &sector(&[0x7f, 0, 0, 0, 0x83]))], &[]);
    let fat = |letters: &[u8]| {
        structure(
            512,
            &[
                (0, b"\xeb\x3c\x90mkfs.fat\x00\x02\x04\x01\x00\x02"),
                (21, &[0xf8]),
                (0x36, letters),
                (510, b"\x55\xaa"),
            ],
        )
    };
    check(GIB, 512, &[(0, &fat(b"FAT16   "))], &["vfat FAT16 at 0x36 and 2 places more"]);
    check(GIB, 512, &[(0, &fat(b""))], &["vfat at 0x1fe and one place more"]);
}

#[test]
fn nothing_behind_the_end_is_to_be_erased() {
    let boot = structure(24, &[(0, b"\xeb\x52\x90NTFS    \0\x02\x08")]);
    let mut device = Sparse::default();
    device.put(0, &boot);
    let found = find(&device, 100, 512).unwrap();
    assert_eq!(found.iter().map(Signature::to_string).collect::<Vec<_>>(), ["ntfs at 0x3"]);
}

#[test]
fn zfs_labels_are_found_at_both_ends() {
    let pairs = b"\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\0\0\x24";
    let checksum = 0x0210_da7a_b10c_7a11_u64.to_le_bytes();
    let block = 0x00ba_b10c_u64.to_be_bytes();
    let len = GIB + (100 << 10);
    for (label, at) in [(0, 0), (1, 256 << 10), (2, GIB - (512 << 10)), (3, GIB - (256 << 10))] {
        let runs = [
            (at + (16 << 10), &pairs[..]),
            (at + (128 << 10) - 40, &checksum),
            (at + (128 << 10) + 4096, &block),
            (at + (255 << 10), &block),
        ];
        let (places, first) = (format!("zfs_member label {label} at "), at + (16 << 10));
        check(len, 512, &runs, &[&format!("{places}{first:#x} and 3 places more")]);
        check(len, 512, &runs[2..3], &[&format!("{places}{:#x}", at + (132 << 10))]);
        check(len, 512, &runs[..1], &[]);
    }
}

#[test]
fn discs_are_iso_or_udf_or_both() {
    let at = |slot: u64| 32768 + slot * 2048 + 1;
    let (iso, begin, nsr, end) = (&b"CD001"[..], &b"BEA01"[..], &b"NSR02"[..], &b"TEA01"[..]);
    check(GIB, 2048, &[(at(0), iso), (at(1), iso)], &["iso9660 at 0x8001 and one place more"]);
    let udf = "udf at 0x8001 and 2 places more";
    check(GIB, 2048, &[(at(0), begin), (at(1), nsr), (at(2), end)], &[udf]);
    check(GIB, 4096, &[(at(0), begin), (at(2), nsr), (at(4), end)], &[udf]);
    check(
        GIB,
        512,
        &[(at(0), iso), (at(1), begin), (at(2), nsr)],
        &["iso9660 at 0x8001", "udf at 0x8801 and one place more"],
    );
    check(GIB, 512, &[(at(0), begin)], &[]);
}

#[test]
fn superblocks_of_others() {
    let bitmap_byte_count = 4096_u32.to_be_bytes();
    let drbd = structure(96, &[(60, b"\x83\x74\x02\x6d"), (80, &bitmap_byte_count)]);
    check(GIB + 512, 512, &[(GIB - 4096, &drbd)], &["drbd v09 at 0x3ffff03c"]);
    let mirror = structure(128, &[(0x30, &(64_u64 << 20).to_le_bytes()), (0x40, b"_BHRfS_M")]);
    check(GIB, 512, &[(64 << 20, &mirror)], &["btrfs mirror at 0x4000040"]);
    check(GIB, 512, &[(64 << 10, &mirror)], &[]);
    let luks = structure(512, &[(0, b"SKUL\xba\xbe\0\x02"), (256, &(0x8000_u64).to_be_bytes())]);
    check(GIB, 512, &[(0x8000, &luks)], &["crypto_LUKS 2, second header at 0x8000"]);
    check(GIB, 512, &[(0x4000, &luks)], &[]);
    let apfs = structure(64, &[(32, b"NXSB\0\x10")]);
    check(GIB, 512, &[(0, &apfs)], &["apfs at 0x20"]);
    let hfs = structure(64, &[(0, b"H+\0\x04"), (42, &[0x10])]);
    check(
        GIB,
        512,
        &[(1024, &hfs), (GIB - 1024, &hfs)],
        &["hfsplus at 0x400", "hfsplus copy at 0x3ffffc00"],
    );
}

#[test]
fn names_are_shown_only_if_a_terminal_can_take_them() {
    assert_eq!(show_text(b"server:0\0junk"), "server:0");
    assert_eq!(show_text(b"a\x1b[2J"), "");
    assert_eq!(show_uuid([0x5a; 16]), "5a5a5a5a-5a5a-5a5a-5a5a-5a5a5a5a5a5a");
    assert_eq!(show_uuid([0; 16]), "");
}

#[test]
fn a_device_that_cannot_be_read_is_an_error_with_its_place() {
    // With an XFS and an ext2, each with a copy of its superblock.
    let xfs = structure(
        512,
        &[(0, b"XFSB\0\0\x10\0"), (32, &[7; 16]), (85, &[1, 0, 0]), (91, &[2]), (102, &[2])],
    );
    let ext = structure(
        256,
        &[(4, &[9]), (33, &[0x20]), (56, b"\x53\xef"), (100, &[1]), (104, &[8; 16])],
    );
    let mut device = Sparse::default();
    for (at, bytes) in [(0, &xfs), (65536 * 4096, &xfs), (1024, &ext), (8192 * 1024, &ext)] {
        device.put(at, bytes);
    }
    let found = find(&device, GIB, 512).unwrap();
    let copies = found.iter().filter(|s| s.version == "superblock copies");
    assert_eq!(copies.map(|s| s.name).collect::<Vec<_>>(), ["ext2/3/4", "xfs"], "{found:x?}");
    let reads = device.reads.get();
    assert!(reads < 500, "{reads}");
    for good in 0..reads {
        device.reads.set(0);
        device.good_reads = Some(good);
        let error = find(&device, GIB, 512).expect_err("an I/O error was overlooked");
        assert_eq!(error.error.kind(), io::ErrorKind::HostUnreachable, "after {good} reads");
        assert!(error.to_string().starts_with("read "), "{error}");
    }
}

fn layout(extents: &[(u64, u64)]) -> Layout {
    Layout::new(extents.iter().map(|&(offset, len)| Extent { offset, len }).collect()).unwrap()
}

#[test]
fn what_the_image_covers_does_not_survive() {
    let survive = |extents| {
        let found = vec![signature("a", "", "x", vec![100..104, 200..204])];
        survivors(found, &layout(extents)).len()
    };
    assert_eq!(survive(&[(0, 1000)]), 0);
    assert_eq!(survive(&[(200, 4), (100, 4)]), 0, "in any order");
    assert_eq!(survive(&[(90, 12), (102, 48), (150, 54)]), 0, "in several extents");
    assert_eq!(survive(&[(100, 4), (200, 3)]), 1, "but for one byte");
    assert_eq!(survive(&[(0, 100), (104, 900)]), 1);
}

proptest! {
    #[test]
    fn the_rest_is_what_no_extent_holds(
        gaps in prop::collection::vec((0_u64..5, 1_u64..9), 1..12),
        start in 0_u64..100,
        len in 1_u64..40,
    ) {
        let mut at = 0;
        let mut extents: Vec<(u64, u64)> = gaps.iter().map(|&(gap, len)| {
            let offset = at + gap;
            at = offset + len;
            (offset, len)
        }).collect();
        extents.reverse();
        let rest = Covered::by(&layout(&extents)).rest(&(start..start + len));
        let found: Vec<u64> = rest.into_iter().flatten().collect();
        let is_free = |b: &u64| !extents.iter().any(|&(o, l)| (o..o + l).contains(b));
        let wanted: Vec<u64> = (start..start + len).filter(is_free).collect();
        prop_assert_eq!(found, wanted);
    }
}

#[test]
fn only_the_magic_outside_of_the_extents_is_erased() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![0xee; 10_000]).unwrap();
    let old = vec![
        signature("a", "", "x", vec![100..104, 200..208]),
        signature("b", "", "y", vec![9990..10_000]),
    ];
    let layout = layout(&[(0, 102), (204, 100)]);
    let open = File::options().read(true).write(true).open(file.path()).unwrap();
    wipe(&open, &old, &layout).unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    let erased: Vec<usize> = (0..10_000).filter(|&at| bytes[at] != 0xee).collect();
    let expected: Vec<usize> = (102..104).chain(200..204).chain(9990..10_000).collect();
    assert_eq!(erased, expected);
    assert!(expected.iter().all(|&at| bytes[at] == 0));
}

#[test]
fn what_cannot_be_erased_is_an_error_with_its_place() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![0xee; 1000]).unwrap();
    let read_only = File::open(file.path()).unwrap();
    let old = [signature("a", "", "x", vec![300..304])];
    let error = wipe(&read_only, &old, &layout(&[(0, 10)])).unwrap_err().to_string();
    assert_eq!(error, "write 4 bytes at 0x12c: Bad file descriptor");
}

#[test]
fn people_are_told_what_is_there_and_what_it_would_do() {
    let old = [
        signature("linux_raid_member", "1.0", table::RAID, vec![0x1000..0x1004]),
        signature("gpt", "backup", table::OLD_TABLE, vec![0x2000..0x2008]),
        signature("ddf_raid_member", "", table::RAID, vec![0x3000..0x3004]),
    ];
    assert_eq!(
        describe(Path::new("/dev/sdb1"), &old, false),
        [
            "/dev/sdb1 still holds, outside of what will be written: linux_raid_member 1.0 at \
             0x1000, ddf_raid_member at 0x3000; they would survive and make mdadm find an array that \
             is not there; --wipe removes them",
            "/dev/sdb1 still holds, outside of what will be written: gpt backup at 0x2000; it would \
             survive and make partitioning programs offer the old partitions again; --wipe removes \
             it",
        ]
    );
    assert_eq!(
        describe(Path::new("/dev/sdb1"), &old[1..2], true),
        ["/dev/sdb1 still holds, outside of what will be written: gpt backup at 0x2000; it is \
             removed first"]
    );
}
