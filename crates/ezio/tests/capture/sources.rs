//! Sources without a file system that partclone could map, of which all or only the head is taken.

use crate::disk::Disk;
use crate::ezio;
use lab::{Need, Random, tool};
use sha1::{Digest as _, Sha1};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use swarm::layout::Extent;
use swarm::metainfo::Metainfo;

/// A file with data at its start, in its middle and in its last bytes, and holes between, which
/// are longer than a piece.
fn sparse_file(dir: &Path) -> PathBuf {
    let path = dir.join("sparse.img");
    let file = File::create(&path).unwrap();
    file.set_len(SPARSE_LEN).unwrap();
    let mut data = vec![0; 100_000];
    Random::new(1).fill(&mut data);
    file.write_all_at(&data, 0).unwrap();
    file.write_all_at(&data, 40 << 20).unwrap();
    file.write_all_at(&data[..1000], SPARSE_LEN - 1000).unwrap();
    path
}

/// No multiple of a piece, nor of a block.
const SPARSE_LEN: u64 = (70 << 20) + 1536;

/// One extent, and the hashes of all bytes as a plain read gives them.
#[track_caller]
fn check_whole(torrent: &Metainfo, source: &Path) {
    let bytes = std::fs::read(source).unwrap();
    let whole = Extent { offset: 0, len: bytes.len() as u64 };
    assert_eq!(torrent.layout().extents(), [whole]);
    let piece_len = usize::try_from(torrent.piece_len()).unwrap();
    assert_eq!(u64::from(torrent.piece_count()), bytes.len().div_ceil(piece_len) as u64);
    for (piece, bytes) in (0..).zip(bytes.chunks(piece_len)) {
        assert_eq!(
            torrent.piece_hash(piece),
            <[u8; 20]>::from(Sha1::digest(bytes)),
            "piece {piece}"
        );
    }
}

#[test]
fn holes_of_a_sparse_file_count_as_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (sparse_file(dir.path()), dir.path().join("out.torrent"));
    let torrent = ezio::capture(&source, &out, "--raw --piece-size 1MiB");
    check_whole(&torrent, &source);
    assert_eq!(torrent.name(), b"sparse.img", "the source's file name, unless --name is given");
    let origin = torrent.origin().unwrap();
    assert_eq!((origin.device_len, origin.target_len()), (SPARSE_LEN, SPARSE_LEN));
    assert_eq!((&origin.file_system, origin.file_system_len), (&None, None));
    ezio::verify(&out, &source).unwrap();
}

/// The old bytes of a target must become zeros where the source had holes.
#[test]
fn a_target_with_old_bytes_in_a_hole_is_bad() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (sparse_file(dir.path()), dir.path().join("out.torrent"));
    ezio::capture(&source, &out, "--raw --piece-size 1MiB");
    let file = File::options().write(true).open(&source).unwrap();
    file.write_all_at(b"old", 20 << 20).unwrap();
    let report = ezio::verify(&out, &source).unwrap_err();
    assert_eq!(report["bad"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["bad"][0]["piece"], 20, "{report}");
    assert_eq!(report["bad"][0]["ranges"][0]["offset"], 20 << 20, "{report}");
}

#[test]
fn a_raw_device_is_taken_whole() {
    lab::require!([Need::Root, Need::Loop]);
    let dir = tempfile::tempdir().unwrap();
    let device = Disk::of(sparse_file(dir.path()), lab::LoopOptions::default());
    let torrent = ezio::capture(device.path(), &dir.path().join("out.torrent"), "--raw");
    check_whole(&torrent, device.path());
    assert_eq!(torrent.origin().unwrap().device_len, SPARSE_LEN);
}

#[test]
fn what_nobody_knows_is_taken_whole_and_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (sparse_file(dir.path()), dir.path().join("out.torrent"));
    let (torrent, notes) = ezio::capture_noting(&source, &out, "");
    check_whole(&torrent, &source);
    for essential in [source.to_str().unwrap(), "all of its 70"] {
        assert!(notes.contains(essential), "`{essential}` in {notes}");
    }
}

#[test]
fn of_swap_only_the_header_is_taken() {
    lab::require!([Need::Program("mkswap")]);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("swap.img");
    File::create(&source).unwrap().set_len(16 << 20).unwrap();
    tool::run(tool::words("mkswap --pagesize 4096").arg(&source)).unwrap();
    let (torrent, notes) = ezio::capture_noting(&source, &dir.path().join("out.torrent"), "");
    assert_eq!(torrent.layout().extents(), [Extent { offset: 0, len: 4096 }]);
    let origin = torrent.origin().unwrap();
    assert_eq!((origin.file_system.as_deref(), origin.device_len), (Some("swap"), 16 << 20));
    assert!(notes.contains("swap space") && notes.contains("4 KiB"), "{notes}");
}
