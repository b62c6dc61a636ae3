//! An image with extents of awkward lengths, as block files, as a disk, and as a torrent.

use crate::process::PATIENCE;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use swarm::layout::Extent;
use swarm::magnet::Magnet;
use swarm::metainfo::Metainfo;
use tempfile::TempDir;

/// Its name in the torrent, and of the directory with its block files.
const NAME: &str = "sda1";

/// What lies outside of the extents, on the disk and on every target before it is written.
const BACKGROUND: u8 = 0xEE;

/// How large pieces are, and so how much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pieces {
    /// 25 pieces of 256 KiB, the last one short.
    Small,
    /// Four pieces of 16 MiB, the last one short.
    Large,
}

/// A torrent and its bytes.
pub(crate) struct Image {
    dir: TempDir,
    pub(crate) metainfo: Metainfo,
    /// Bytes of the disk, gaps included.
    disk_len: u64,
}

impl Image {
    /// Makes block files of random bytes, of which `seed` chooses which, and captures them.
    pub(crate) fn new(pieces: Pieces, seed: u64) -> Image {
        Image::make(pieces, seed, false)
    }

    /// The same as a private torrent (BEP 27): its peers are to be had from trackers only.
    pub(crate) fn private(pieces: Pieces, seed: u64) -> Image {
        Image::make(pieces, seed, true)
    }

    fn make(pieces: Pieces, seed: u64, private: bool) -> Image {
        // Lengths and gaps that no block divides: pieces end inside of extents, and extents inside
        // of blocks of 16 KiB.
        let (extents, piece_size): (&[(u64, usize)], _) = match pieces {
            Pieces::Small => (
                &[(0, 1_000_003), (0x20_0000, 3_000_001), (0x60_0000, 7), (0x80_0001, 2_500_123)],
                "256KiB",
            ),
            Pieces::Large => {
                (&[(0x1000, 20_000_003), (0x200_0000, 512), (0x300_0000, 35_000_000)], "16MiB")
            }
        };
        // opentracker, as user nobody, reads its whitelist here.
        let dir = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let files = dir.path().join("files").join(NAME);
        std::fs::create_dir_all(&files).unwrap();
        let mut random = lab::Random::new(seed);
        let disk = File::create(dir.path().join("disk.img")).unwrap();
        let mut disk_len = 0;
        for &(offset, len) in extents {
            let mut bytes = vec![0; len];
            random.fill(&mut bytes);
            std::fs::write(dir.path().join("files").join(block_file(offset)), &bytes).unwrap();
            fill(&disk, disk_len, offset);
            disk.write_all_at(&bytes, offset).unwrap();
            disk_len = offset + len as u64;
        }
        fill(&disk, disk_len, disk_len + 99_999);
        disk_len += 99_999;
        let captured = capture(&files, &dir.path().join("captured.torrent"), piece_size);
        let (mut info, end) = (captured.info_bytes().to_vec(), b"7:privatei1ee");
        if private {
            // It is the last key of the dictionary.
            info.truncate(info.len() - 1);
            info.extend(end);
        }
        let metainfo = Metainfo::parse(torrent(&info, &[])).unwrap();
        assert_eq!(metainfo.is_private(), private);
        std::fs::write(dir.path().join("0.torrent"), metainfo.as_bytes()).unwrap();
        let image = Image { dir, metainfo, disk_len };
        assert!(
            !image.metainfo.layout().image_len().is_multiple_of(image.metainfo.piece_len().into()),
            "the last piece is short"
        );
        image
    }

    /// The torrent without any tracker.
    pub(crate) fn torrent(&self) -> PathBuf {
        self.path("0.torrent")
    }

    /// The same torrent with these trackers, each a tier.
    pub(crate) fn torrent_with(&self, trackers: &[&str]) -> PathBuf {
        let path = self.path(&format!("{}.torrent", trackers.len()));
        std::fs::write(&path, torrent(self.metainfo.info_bytes(), trackers)).unwrap();
        path
    }

    /// A magnet link with these trackers, and peers on these ports of loopback.
    pub(crate) fn link(&self, trackers: &[&str], ports: &[u64]) -> String {
        let magnet = Magnet {
            info_hash: self.metainfo.info_hash(),
            name: Some(NAME.to_owned()),
            trackers: trackers.iter().map(|&url| url.to_owned()).collect(),
            peers: ports.iter().map(|&port| ("127.0.0.1".to_owned(), port as u16)).collect(),
        };
        magnet.to_string()
    }

    /// The directory that holds the directory of block files: what stock clients seed from.
    pub(crate) fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    /// The disk, gaps included.
    pub(crate) fn disk(&self) -> PathBuf {
        self.dir.path().join("disk.img")
    }

    /// A place for anything, in the same directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new directory for a stock client to download into.
    pub(crate) fn empty_dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    /// A new target of the disk's size that is all background.
    pub(crate) fn target(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fill(&File::create(&path).unwrap(), 0, self.disk_len);
        path
    }

    /// Checks every byte of a target: the extents, and that nothing else was touched.
    pub(crate) fn check_target(&self, target: &Path) {
        same(&self.disk(), target);
    }

    /// Checks the extents of a target against the block files, where the disk is gone.
    pub(crate) fn check_files_in(&self, target: &Path) {
        let target = File::open(target).unwrap();
        for &Extent { offset, len } in self.metainfo.layout().extents() {
            let wanted = std::fs::read(self.files().join(block_file(offset))).unwrap();
            let mut found = vec![0; wanted.len()];
            assert_eq!(found.len() as u64, len);
            target.read_exact_at(&mut found, offset).unwrap();
            assert!(found == wanted, "the extent at {offset:#x} differs");
        }
    }

    /// Checks every byte that a stock client has in `dir`.
    pub(crate) fn check_files(&self, dir: &Path) {
        for &Extent { offset, .. } in self.metainfo.layout().extents() {
            let name = block_file(offset);
            same(&self.files().join(&name), &dir.join(&name));
        }
    }
}

fn capture(files: &Path, torrent: &Path, piece_size: &str) -> Metainfo {
    let mut command = Command::new(crate::ezio());
    command.arg("capture").arg(files).arg("-o").arg(torrent).args(["--quiet", "--piece-size"]);
    lab::tool::run(command.arg(piece_size)).unwrap();
    Metainfo::parse(std::fs::read(torrent).unwrap()).unwrap()
}

/// A torrent around an info dictionary. BEP 12: a list of tiers, each a list.
fn torrent(info: &[u8], trackers: &[&str]) -> Vec<u8> {
    let mut out = b"d".to_vec();
    if !trackers.is_empty() {
        out.extend(b"13:announce-listl");
        for url in trackers {
            out.extend(format!("l{}:{url}e", url.len()).bytes());
        }
        out.push(b'e');
    }
    out.extend(b"4:info");
    out.extend(info);
    out.push(b'e');
    out
}

/// Where the block file of the extent at `offset` is, as `partclone -T` names it.
fn block_file(offset: u64) -> String {
    format!("{NAME}/{offset:032x}")
}

/// A stock client writes through caches and threads of its own, so what it says it has may take a
/// moment to be there.
fn same(wanted: &Path, found: &Path) {
    let bytes = std::fs::read(wanted).unwrap();
    let deadline = Instant::now() + PATIENCE / 10;
    loop {
        let copy = std::fs::read(found).unwrap_or_default();
        if copy == bytes {
            return;
        }
        if Instant::now() >= deadline {
            let at = bytes.iter().zip(&copy).position(|(a, b)| a != b);
            panic!(
                "{} ({} bytes) is not {} ({} bytes), first at {at:x?}",
                found.display(),
                copy.len(),
                wanted.display(),
                bytes.len()
            );
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// Writes background from `start` to `end`.
fn fill(file: &File, start: u64, end: u64) {
    let block = vec![BACKGROUND; 1 << 20];
    let mut at = start;
    while at < end {
        // At most 1 MiB.
        let len = (end - at).min(1 << 20) as usize;
        file.write_all_at(&block[..len], at).unwrap();
        at += len as u64;
    }
}
