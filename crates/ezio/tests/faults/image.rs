//! An image of chance bytes and its torrent.

use lab::Random;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use swarm::layout::{Extent, Layout};
use swarm::metainfo::{Digest, Draft, Metainfo};
use swarm::wire::Block;

/// Bytes of a piece: four blocks of BEP 3.
pub(crate) const PIECE: u32 = 64 << 10;

/// What is served, as bytes and as files.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) bytes: Arc<Vec<u8>>,
    pub(crate) metainfo: Arc<Metainfo>,
    pub(crate) path: PathBuf,
    pub(crate) torrent: PathBuf,
}

impl Image {
    /// `len` bytes in pieces of [`PIECE`], as files in `dir`; each of `trackers` is a tier. The
    /// torrent is private (BEP 27), so that nobody finds anybody on the local network.
    pub(crate) fn new(dir: &Path, len: usize, trackers: &[String]) -> Image {
        let mut bytes = vec![0; len];
        Random::new(u64::from(std::process::id())).fill(&mut bytes);
        let whole = vec![Extent { offset: 0, len: len as u64 }];
        Image::of(dir, bytes, whole, trackers)
    }

    /// An image of `count` sectors, each of them behind one that is not used.
    pub(crate) fn in_parts(dir: &Path, count: usize) -> Image {
        let sector = |i| Extent { offset: i as u64 * 1024, len: 512 };
        Image::of(dir, vec![7; count * 1024], (0..count).map(sector).collect(), &[])
    }

    /// The device of these bytes, of which `extents` are used.
    fn of(dir: &Path, device: Vec<u8>, extents: Vec<Extent>, trackers: &[String]) -> Image {
        let layout = Layout::new(extents).unwrap();
        let part = |e: &Extent| &device[e.offset as usize..e.end() as usize];
        let bytes = layout.extents().iter().map(part).collect::<Vec<_>>().concat();
        let hashes: Vec<Digest> = bytes.chunks(PIECE as usize).map(ezio::sha1::digest).collect();
        let draft = Draft {
            name: &["image"],
            layout: &layout,
            piece_len: PIECE,
            hashes: &hashes,
            trackers,
            created_by: None,
            creation_date: None,
            origin: None,
        };
        let mut torrent = draft.encode();
        // `private` is the last key of `info`, which is the last of the torrent.
        assert!(torrent.ends_with(b"ee"));
        torrent.truncate(torrent.len() - 2);
        torrent.extend_from_slice(b"7:privatei1eee");
        let metainfo = Arc::new(Metainfo::parse(torrent.clone()).unwrap());
        assert!(metainfo.is_private());
        let image = Image {
            bytes: Arc::new(bytes),
            metainfo,
            path: dir.join("image"),
            torrent: dir.join("image.torrent"),
        };
        std::fs::write(&image.path, device).unwrap();
        std::fs::write(&image.torrent, torrent).unwrap();
        image
    }

    pub(crate) fn info_hash(&self) -> Digest {
        self.metainfo.info_hash()
    }

    pub(crate) fn pieces(&self) -> u32 {
        self.metainfo.piece_count()
    }

    /// The bytes of `block`.
    pub(crate) fn block(&self, block: Block) -> &[u8] {
        let start = block.piece as usize * PIECE as usize + block.begin as usize;
        &self.bytes[start..start + block.len as usize]
    }
}
