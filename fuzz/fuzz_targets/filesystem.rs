//! Superblocks, journals and checkpoints: what lies on a device that blkid has given a name, and
//! whether it was left clean. See `fuzz::sparse` for the input.

#![no_main]

use ezio::capture::filesystem::{Content, Dirty, FileSystem, Kind, classify, dirty};
use fuzz::sparse::{FAILURE, Sparse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, source)) = Sparse::parse(data) else { return };
    let name = &NAMES[usize::from(choice) % NAMES.len()];
    let (content, state) = look(name, &source).expect("a device that can be read");
    // XFS looks back through 288 KiB of log, block by block; nothing else reads a tenth of that.
    let (reads, bytes) = (source.reads.get(), source.bytes.get());
    assert!(reads <= 700 && bytes <= 1 << 20, "{name:?}: {reads} reads of {bytes} bytes");

    // A device that cannot be read is neither clean nor dirty.
    if reads > 0 {
        let failing = source.failing_after(data.len() % reads);
        let error = look(name, &failing).expect_err("an I/O error was overlooked");
        assert_eq!(error.kind(), FAILURE, "{name:?}");
    }
    match content {
        Content::FileSystem(found) => check_state(&found, state, &source),
        Content::Swap { header_bytes } => {
            assert!(header_bytes.is_power_of_two() && header_bytes <= source.len());
        }
        _ => {}
    }
});

type Name = (&'static str, Option<&'static str>, Option<&'static str>);

/// blkid's TYPE, VERSION, USAGE. The input's first byte is an index here: append, don't insert.
const NAMES: [Name; 30] = [
    ("ext2", None, None),
    ("ext3", None, None),
    ("ext4", Some("1.0"), None),
    ("reiserfs", None, None),
    ("reiser4", None, None),
    ("xfs", None, None),
    ("jfs", None, None),
    ("btrfs", None, None),
    ("f2fs", None, None),
    ("nilfs2", None, None),
    ("vfat", Some("FAT12"), None),
    ("vfat", Some("FAT16"), None),
    ("vfat", Some("FAT32"), None),
    ("exfat", None, None),
    ("ntfs", None, None),
    ("hfsplus", None, None),
    ("ufs", None, None),
    ("minix", None, None),
    ("VMFS", None, None),
    ("apfs", None, None),
    ("swap", None, None),
    ("swsuspend", None, None),
    ("crypto_LUKS", Some("2"), Some("crypto")),
    ("BitLocker", None, None),
    ("LVM2_member", None, Some("raid")),
    ("linux_raid_member", Some("1.2"), Some("raid")),
    ("jbd", None, None),
    ("zfs_member", None, None),
    ("squashfs", None, None),
    ("", None, None),
];

fn look(name: &Name, source: &Sparse<'_>) -> std::io::Result<(Content, Option<Dirty>)> {
    let &(blkid_type, version, usage) = name;
    let content = classify(blkid_type, version, usage, source)?;
    let state = match &content {
        Content::FileSystem(found) => dirty(source, found)?,
        _ => None,
    };
    Ok((content, state))
}

fn check_state(found: &FileSystem, state: Option<Dirty>, source: &Sparse<'_>) {
    match state {
        Some(Dirty { why, what_to_do }) => {
            assert!(!why.is_empty() && !what_to_do.is_empty() && !why.contains('\n'), "{why:?}");
        }
        None => {
            for &(kind, at, and, or) in &MARKS {
                if kind == found.kind {
                    let byte = [source.byte(at) & and | or];
                    let marked = source.with(at, &byte);
                    let state = dirty(&marked, found).expect("a device that can be read");
                    assert!(state.is_some(), "{kind}: {byte:02x?} at {at:#x} was overlooked");
                }
            }
        }
    }
}

/// One byte of a clean file system, which, masked with the third and or-ed with the fourth, makes
/// it an unclean one.
const MARKS: [(Kind, u64, u8, u8); 19] = [
    (Kind::Ext2, 1024 + 0x3A, !1, 0),
    (Kind::Ext2, 1024 + 0x3A, !0, 2),
    (Kind::Ext2, 1024 + 0x60, !0, 4),
    (Kind::Ext3, 1024 + 0x3A, !1, 0),
    (Kind::Ext3, 1024 + 0x3A, !0, 2),
    (Kind::Ext3, 1024 + 0x60, !0, 4),
    (Kind::Ext4, 1024 + 0x3A, !1, 0),
    (Kind::Ext4, 1024 + 0x3A, !0, 2),
    (Kind::Ext4, 1024 + 0x60, !0, 4),
    (Kind::Xfs, 126, !0, 1),
    (Kind::Jfs, 32768 + 40, !0, 1),
    (Kind::Btrfs, 65536 + 96, !0, 1),
    (Kind::Btrfs, 65536 + 103, !0, 0x80),
    (Kind::Nilfs2, 1024 + 116, !1, 0),
    (Kind::Nilfs2, 1024 + 116, !0, 2),
    (Kind::ExFat, 0x6A, !0, 2),
    (Kind::ExFat, 0x6A, !0, 4),
    // Clusters of no sectors, records of one byte.
    (Kind::Ntfs, 0x0D, 0, 0),
    (Kind::Ntfs, 0x40, 0, 0),
];
