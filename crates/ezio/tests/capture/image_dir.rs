//! BT image directories and `torrent.info`: ours are the original tools', byte for byte.

use crate::disk::Disk;
use crate::ezio;
use crate::partclone;
use lab::{FileSystem, Need, Tree};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

#[test]
fn ext4() {
    check(FileSystem::Ext4, "");
}

/// Its extents are not aligned to 4 KiB.
#[test]
fn ext4_with_blocks_of_1_kib() {
    check(FileSystem::Ext4Block1K, "");
}

#[test]
fn xfs() {
    check(FileSystem::Xfs, "");
}

#[test]
fn exfat() {
    check(FileSystem::Exfat, "");
}

#[test]
fn fat16() {
    check(FileSystem::Fat16, "");
}

#[test]
fn ntfs_without_its_tail() {
    check(FileSystem::Ntfs, "--no-ntfs-tail");
}

/// Lets partclone and us make a directory of one device, compares them, and goes on with ours.
fn check(kind: FileSystem, options: &str) {
    let mut needs = kind.needs();
    needs.extend([Need::Root, Need::Loop, Need::Program(kind.partclone())]);
    lab::require!(needs);
    let dir = tempfile::tempdir().unwrap();
    let source = Disk::new(dir.path().join("source.img"), kind.device_len(), 512);
    kind.make(source.path()).unwrap();
    kind.fill(source.path(), Tree { seed: 3, bytes: 50 << 20 }).unwrap();

    let theirs = dir.path().join("theirs");
    let reference = partclone::run(kind.partclone(), "-T", source.path(), &theirs);
    let ours = dir.path().join("sda1");
    let of_device = dir.path().join("device.torrent");
    let options = format!("{options} --image {}", ours.display());
    let device_torrent = ezio::capture(source.path(), &of_device, &options);
    same_directories(&theirs, &ours);
    assert_eq!(device_torrent.layout().extents(), reference.extents, "cut as partclone cuts");

    let of_dir = dir.path().join("dir.torrent");
    let torrent = ezio::capture(&ours, &of_dir, "--piece-size 16MiB");
    assert_eq!(torrent.name(), b"sda1");
    assert_eq!(torrent.layout().extents(), reference.extents);
    assert_eq!(torrent.info_bytes(), info(&reference, "sda1"));

    for torrent in [&of_device, &of_dir] {
        ezio::verify(torrent, &ours).unwrap_or_else(|bad| panic!("{bad}"));
        ezio::verify(torrent, source.path()).unwrap_or_else(|bad| panic!("{bad}"));
    }
    damaged_file_is_named(&of_dir, &ours, &reference);
    as_the_original_tool(&theirs.join("torrent.info"), &reference, dir.path());
}

/// Names, lengths, modes and bytes of two directories and their files. The mode of torrent.info is
/// 0600 of partclone up to 0.3.23 and follows the umask since.
#[track_caller]
fn same_directories(theirs: &Path, ours: &Path) {
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let list = |dir: &Path| -> BTreeMap<_, _> {
        let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.file_name(), entry.metadata().unwrap().len())).collect()
    };
    assert_eq!((mode(theirs), mode(ours)), (0o700, 0o700));
    let names = list(theirs);
    assert_eq!(names, list(ours));
    for name in names.keys() {
        let read = |dir: &Path| std::fs::read(dir.join(name)).unwrap();
        // Not assert_eq: the bytes themselves would tell nobody anything.
        assert!(read(theirs) == read(ours), "{} differs", name.to_string_lossy());
        if name != "torrent.info" {
            assert_eq!((mode(&theirs.join(name)), mode(&ours.join(name))), (0o400, 0o400));
        }
    }
}

#[track_caller]
fn damaged_file_is_named(torrent: &Path, dir: &Path, reference: &partclone::Reference) {
    let last = reference.extents.last().expect("an image has extents");
    // Root may write to a file of mode 0400.
    let file =
        OpenOptions::new().read(true).write(true).open(dir.join(format!("{:032x}", last.offset)));
    let (file, mut byte) = (file.unwrap(), [0]);
    file.read_exact_at(&mut byte, last.len - 1).unwrap();
    file.write_all_at(&[!byte[0]], last.len - 1).unwrap();
    let report = ezio::verify(torrent, dir).expect_err("a changed byte was not noticed");
    assert_eq!(report["bad"].as_array().map(Vec::len), Some(1), "{report}");
    assert_eq!(report["bad"][0]["piece"], reference.hashes.len() - 1, "{report}");
}

/// From `torrent.info` comes the `info` of `partclone_create_torrent.py`, so the same info-hash.
#[track_caller]
fn as_the_original_tool(torrent_info: &Path, reference: &partclone::Reference, dir: &Path) {
    let out = dir.join("original.torrent");
    let options = "--name sda1 --tracker http://192.168.1.1:6969/announce --creator Clonezilla";
    let torrent = ezio::capture(torrent_info, &out, options);
    assert_eq!(torrent.info_bytes(), info(reference, "sda1"));
    let announce = b"d8:announce32:http://192.168.1.1:6969/announce10:created by10:Clonezilla";
    assert!(torrent.as_bytes().starts_with(announce), "what Clonezilla's scripts look for");
}

/// The `info` dictionary, written down by hand: keys in order, one file for each extent.
fn info(reference: &partclone::Reference, name: &str) -> Vec<u8> {
    let mut info = b"d5:filesl".to_vec();
    for extent in &reference.extents {
        let file = format!("d6:lengthi{}e4:pathl32:{:032x}ee", extent.len, extent.offset);
        info.extend(file.bytes());
    }
    let pieces = reference.hashes.as_flattened();
    info.extend(format!("e4:name{}:{name}", name.len()).bytes());
    info.extend(format!("12:piece lengthi16777216e6:pieces{}:", pieces.len()).bytes());
    info.extend(pieces);
    info.push(b'e');
    info
}
