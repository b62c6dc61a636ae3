//! Every file system that Debian can make and partclone can map: the torrent is what partclone says,
//! and its extents alone make a file system that is clean and has all its files.

use crate::disk::{Disk, free_byte};
use crate::ezio;
use crate::partclone::{self, Reference};
use lab::{FileSystem, Need, Random, Tree};
use sha1::{Digest as _, Sha1};
use std::path::Path;
use swarm::layout::Extent;
use swarm::metainfo::Metainfo;

macro_rules! tests {
    ($($name:ident $name_4k:ident $kind:ident;)*) => {$(
        #[test]
        fn $name() {
            check(FileSystem::$kind, 512);
        }

        #[test]
        fn $name_4k() {
            check(FileSystem::$kind, 4096);
        }
    )*};
}

tests! {
    ext2 ext2_on_sectors_of_4096 Ext2;
    ext3 ext3_on_sectors_of_4096 Ext3;
    ext4 ext4_on_sectors_of_4096 Ext4;
    xfs xfs_on_sectors_of_4096 Xfs;
    btrfs btrfs_on_sectors_of_4096 Btrfs;
    fat12 fat12_on_sectors_of_4096 Fat12;
    fat16 fat16_on_sectors_of_4096 Fat16;
    fat32 fat32_on_sectors_of_4096 Fat32;
    exfat exfat_on_sectors_of_4096 Exfat;
    ntfs ntfs_on_sectors_of_4096 Ntfs;
    reiser4 reiser4_on_sectors_of_4096 Reiser4;
}

#[test]
fn ext4_with_blocks_of_1_kib() {
    check(FileSystem::Ext4Block1K, 512);
}

/// On sectors of 4096 bytes Debian's partclone.f2fs does not find the file system.
#[test]
fn f2fs() {
    check(FileSystem::F2fs, 512);
}

#[test]
fn minix() {
    check(FileSystem::Minix, 512);
}

/// Captures a filled file system from a loop device (and, with sectors of 512 bytes, from its image
/// file), and compares, copies, verifies, damages and checks.
fn check(kind: FileSystem, sector_size: u32) {
    let mut needs = kind.needs();
    needs.extend([Need::Root, Need::Loop, Need::Program(kind.partclone())]);
    lab::require!(needs);
    let dir = tempfile::tempdir().unwrap();
    let len = kind.device_len();
    let source = Disk::new(dir.path().join("source.img"), len, sector_size);
    kind.make(source.path()).unwrap();
    let seed = u64::from(sector_size) + kind as u64;
    kind.fill(source.path(), Tree { seed, bytes: (len / 2).min(64 << 20) }).unwrap();
    kind.fsck(source.path()).unwrap();
    let files = kind.listing(source.path()).unwrap();
    source.sync();

    let reference = partclone::run(kind.partclone(), "-t", source.path(), &dir.path().join("ref"));
    let path = dir.path().join("source.torrent");
    let torrent = ezio::capture(source.path(), &path, "--piece-size 16MiB --name sda1");
    match partclone_is_right(kind) {
        true => compare(kind, &torrent, &reference),
        false => hashes_of_bytes(&torrent, &source),
    }
    if kind == FileSystem::Btrfs {
        has_all_of(&torrent, &reference);
    }
    origin(kind, &torrent, &reference, len, sector_size);
    inspect(&path, &torrent);
    if sector_size == 512 {
        same_from_image_file(&source, &torrent, dir.path());
    }
    if kind == FileSystem::Ntfs {
        no_ntfs_tail(&source, &reference, dir.path());
    }

    let target = Disk::new(dir.path().join("target.img"), len, sector_size);
    target.write_extents(&source, torrent.layout());
    damage(&target, &torrent, &path, len, seed);
    kind.fsck(target.path()).unwrap();
    if let (Some(files), Some(copies)) = (files, kind.listing(target.path()).unwrap()) {
        assert!(files.count() > 0, "no file was made");
        assert_eq!(files.difference(&copies), None);
    }
}

/// Where Debian's partclone 0.3.23 loses used blocks, its list is no measure. What must hold all the
/// same is shown by a copy that is clean and has all files.
///
/// FAT12: it reads entries of 12 bits as if they had 16 (mended in 2025, partclone#268). btrfs: of
/// metadata that are kept twice it lists only the first copy of some blocks (partclone#239), and now
/// and then neither copy of the root node of a snapshot; what the extent tree lists is added.
fn partclone_is_right(kind: FileSystem) -> bool {
    !matches!(kind, FileSystem::Fat12 | FileSystem::Btrfs)
}

/// The torrent against partclone.
fn compare(kind: FileSystem, torrent: &Metainfo, reference: &Reference) {
    let mut extents = reference.merged();
    let mut hashes = &reference.hashes[..];
    let mut ours = hashes_of(torrent);
    if kind == FileSystem::Ntfs {
        // The backup of the boot sector, which partclone leaves out; so the last piece is another.
        let origin = torrent.origin().expect("a torrent of a device says where it is from");
        let sector = u64::from(origin.sector_len);
        extents.push(Extent { offset: origin.device_len - sector, len: sector });
        hashes = &hashes[..hashes.len() - 1];
        ours.truncate(hashes.len());
    }
    assert_eq!(torrent.layout().extents(), extents);
    assert!(!ours.is_empty(), "nothing to compare");
    assert_eq!(ours, hashes);
}

/// No byte that partclone lists is missing.
fn has_all_of(torrent: &Metainfo, reference: &Reference) {
    let ours = torrent.layout().extents();
    for theirs in reference.merged() {
        let has = |ours: &Extent| ours.offset <= theirs.offset && theirs.end() <= ours.end();
        assert!(ours.iter().any(has), "{theirs:?} is missing");
    }
}

/// The hashes against the bytes that the extents name.
fn hashes_of_bytes(torrent: &Metainfo, source: &Disk) {
    for piece in 0..torrent.piece_count() {
        let mut hasher = Sha1::new();
        for span in torrent.layout().spans(torrent.piece_range(piece)) {
            hasher.update(source.read(span.device));
        }
        assert_eq!(torrent.piece_hash(piece), <[u8; 20]>::from(hasher.finalize()), "{piece}");
    }
}

/// What the torrent says of the device.
fn origin(kind: FileSystem, torrent: &Metainfo, reference: &Reference, len: u64, sector: u32) {
    let origin = torrent.origin().expect("a torrent of a device says where it is from");
    assert_eq!(origin.device_len, len);
    assert_eq!(origin.file_system.as_deref(), Some(kind.blkid_type()));
    assert_eq!(origin.file_system_len, Some(reference.file_system_len));
    assert_eq!(origin.sector_len, sector);
}

fn hashes_of(torrent: &Metainfo) -> Vec<[u8; 20]> {
    (0..torrent.piece_count()).map(|piece| torrent.piece_hash(piece)).collect()
}

fn inspect(path: &Path, torrent: &Metainfo) {
    let ran = ezio::run(["inspect".as_ref(), path.as_os_str(), "--json".as_ref()]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let result = ran.result();
    assert_eq!(result["image_bytes"], torrent.layout().image_len());
    assert_eq!(result["extents"], torrent.layout().extents().len());
    assert_eq!(result["pieces"], torrent.piece_count());
    assert_eq!(result["name"], "sda1");
}

/// A plain file with the device's bytes makes the very same `info`.
fn same_from_image_file(source: &Disk, torrent: &Metainfo, dir: &Path) {
    let out = dir.join("file.torrent");
    let of_file = ezio::capture(&source.image, &out, "--piece-size 16MiB --name sda1");
    assert_eq!(of_file.layout(), torrent.layout());
    assert_eq!(of_file.origin(), torrent.origin());
    assert_eq!(of_file.info_hash(), torrent.info_hash());
}

/// On request exactly partclone's list.
fn no_ntfs_tail(source: &Disk, reference: &Reference, dir: &Path) {
    let out = dir.join("no-tail.torrent");
    let torrent = ezio::capture(source.path(), &out, "--piece-size 16MiB --no-ntfs-tail");
    assert_eq!(torrent.layout().extents(), reference.merged());
    assert_eq!(hashes_of(&torrent), reference.hashes);
}

/// A good copy verifies. One bit of one extent makes its piece bad and no other; one bit of free
/// space makes none bad. Leaves the copy good.
fn damage(target: &Disk, torrent: &Metainfo, path: &Path, len: u64, seed: u64) {
    let verify = || ezio::verify(path, target.path());
    let good = verify().unwrap_or_else(|bad| panic!("the copy is not right: {bad}"));
    assert_eq!(good["bad"].as_array().map(Vec::len), Some(0), "{good}");
    assert_eq!(good["pieces"], torrent.piece_count(), "{good}");

    let layout = torrent.layout();
    let at = Random::new(seed).below(layout.image_len());
    let offset = layout.spans(at..at + 1).next().expect("a byte of the image").device.offset;
    target.flip(offset);
    let report = verify().expect_err("a flipped bit was not noticed");
    let bad = report["bad"].as_array().expect("a list");
    assert_eq!(bad.len(), 1, "{report}");
    assert_eq!(bad[0]["piece"], at / u64::from(torrent.piece_len()), "{report}");
    assert!(ezio::holds(&bad[0]["ranges"], offset), "{offset} in {report}");
    target.flip(offset);

    if let Some(free) = free_byte(layout, len) {
        target.flip(free);
        verify().unwrap_or_else(|bad| panic!("free space counts: {bad}"));
        target.flip(free);
    }
}
