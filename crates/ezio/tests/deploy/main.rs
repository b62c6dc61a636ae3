//! `ezio serve` and `ezio deploy` as an administrator runs them: real processes, real sockets on
//! loopback, real file systems on loop devices.

#[expect(dead_code, reason = "shared with the tests of capture")]
#[path = "../capture/disk.rs"]
mod disk;

mod meeting;
mod options;

use disk::Disk;
use lab::{FileSystem, Need, Running, Tree};
use serde_json::Value;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use swarm::layout::Layout;
use swarm::metainfo::Metainfo;

/// The program under test.
fn ezio() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ezio"))
}

fn start(args: &[&str]) -> Running {
    Running::start(ezio(), args).unwrap()
}

fn serve(args: &[&str]) -> (Running, String) {
    Running::serve(ezio(), args).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the test")
}

/// Bytes around every extent, which no deployment may touch.
fn outside(layout: &Layout, len: u64) -> Vec<Range<u64>> {
    let starts = layout.extents().iter().map(|e| e.offset).chain([len]);
    let ends = [0].into_iter().chain(layout.extents().iter().map(|e| e.end()));
    let gaps = ends.zip(starts).filter(|(end, start)| end < start);
    gaps.flat_map(|(end, start)| {
        [end..start.min(end + 4096), start.saturating_sub(4096).max(end)..start]
    })
    .collect()
}

fn mark(device: &Path, ranges: &[Range<u64>]) {
    let file = File::options().write(true).open(device).unwrap();
    for range in ranges {
        let bytes = vec![0xEE; (range.end - range.start) as usize];
        file.write_all_at(&bytes, range.start).unwrap();
    }
    file.sync_all().unwrap();
}

fn check_marks(device: &Path, ranges: &[Range<u64>]) {
    let file = File::open(device).unwrap();
    for range in ranges {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start).unwrap();
        assert!(bytes.iter().all(|&b| b == 0xEE), "{range:x?} of {} was touched", device.display());
    }
}

/// Makes a file system, serves it from its device, deploys it to three others at once.
fn check(kind: FileSystem) {
    let mut needs = kind.needs();
    needs.extend([Need::Root, Need::Loop, Need::Program(kind.partclone())]);
    lab::require!(needs);
    let dir = tempfile::tempdir().unwrap();
    let len = kind.device_len();
    let source = Disk::new(dir.path().join("source.img"), len, 512);
    kind.make(source.path()).unwrap();
    kind.fill(source.path(), Tree { seed: 3, bytes: (len / 2).min(48 << 20) }).unwrap();
    let files = kind.listing(source.path()).unwrap();
    source.sync();

    let (_server, url) = serve(&[text(source.path())]);
    let torrent = torrent_of(&url);
    let gaps = outside(torrent.layout(), len);
    let targets: Vec<Disk> =
        (0..3).map(|i| Disk::new(dir.path().join(format!("target{i}.img")), len, 512)).collect();
    targets.iter().for_each(|target| mark(target.path(), &gaps));
    let clients: Vec<Running> = targets
        .iter()
        .map(|target| start(&["deploy", &url, "--to", text(target.path())]))
        .collect();
    for mut client in clients {
        let result = client.result().unwrap();
        assert_eq!(result["image_bytes"], torrent.layout().image_len());
        assert_eq!(client.code().unwrap(), Some(0));
    }
    for target in &targets {
        check_marks(target.path(), &gaps);
        for &extent in torrent.layout().cut(4 << 20).extents() {
            assert!(target.read(extent) == source.read(extent), "{extent:x?} differs");
        }
        kind.fsck(target.path()).unwrap();
        if let (Some(files), Some(copies)) = (&files, kind.listing(target.path()).unwrap()) {
            assert_eq!(files.difference(&copies), None);
        }
    }
}

/// The torrent that a server hands out, fetched as `deploy` does.
fn torrent_of(url: &str) -> Metainfo {
    let list = ezio::control::fetch(&format!("{url}/torrents"), 1 << 20).unwrap();
    let list: Value = serde_json::from_slice(&list).unwrap();
    let path = list[0]["path"].as_str().expect("a path");
    let bytes = ezio::control::fetch(&format!("{url}{path}"), 16 << 20).unwrap();
    Metainfo::parse(bytes).unwrap()
}

#[test]
fn ext4() {
    check(FileSystem::Ext4);
}

#[test]
fn xfs() {
    check(FileSystem::Xfs);
}

#[test]
fn btrfs() {
    check(FileSystem::Btrfs);
}

#[test]
fn vfat() {
    check(FileSystem::Fat32);
}

#[test]
fn ntfs() {
    check(FileSystem::Ntfs);
}

/// No root, no partclone: an image file that holds nothing known, and files as targets.
#[test]
fn an_image_file_is_deployed_to_files() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("disk.img");
    let mut bytes = vec![0; 5_000_000];
    lab::Random::new(9).fill(&mut bytes);
    std::fs::write(&source, &bytes).unwrap();
    let (_server, url) = serve(&[text(&source)]);
    let targets: Vec<_> = (0..3).map(|i| dir.path().join(format!("copy{i}.img"))).collect();
    let clients: Vec<Running> =
        targets.iter().map(|target| start(&["deploy", &url, "--to", text(target)])).collect();
    for mut client in clients {
        client.result().unwrap();
        assert_eq!(client.code().unwrap(), Some(0));
    }
    assert!(targets.iter().all(|target| std::fs::read(target).unwrap() == bytes));
}

#[test]
fn a_torrent_of_another_info_hash_is_refused_before_a_byte_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("disk.img"), dir.path().join("copy.img"));
    std::fs::write(&source, vec![7; 100_000]).unwrap();
    let (_server, url) = serve(&[text(&source)]);
    let other = "00".repeat(20);
    let args = ["deploy", &url, "--to", text(&target), "--info-hash", &other];
    let mut child = start(&args);
    let line = child.error().unwrap();
    assert!(line.contains("not the 0000") && line.contains("nothing was written"), "{line}");
    assert_eq!(child.code().unwrap(), Some(1));
    assert!(!target.exists());
}
