//! A directory that an image is written to as block files: what a site proxy keeps.

use super::{DirStore, Names, Parts, Store, StoreError, Target, for_spans, io_reason, write_exact};
use rustix::fs::{Advice, OFlags, fadvise, syncfs};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use swarm::metainfo::Metainfo;

/// Block files below a directory in the making: `DIR/NAME/PATH` for every extent, with the
/// torrent's name and the extent's path, as BitTorrent clients and the C++ EZIO lay them out.
pub struct DirTarget {
    store: DirStore,
    /// The directory itself, to flush the file system it is on.
    handle: File,
}

impl DirTarget {
    /// Makes what is missing of the directories and files. Files that are there keep their bytes
    /// and get the length of their extent.
    ///
    /// # Errors
    /// What could not be made, and why.
    pub fn make(torrent: &Metainfo, dir: &Path) -> anyhow::Result<DirTarget> {
        let below = dir.join(OsStr::from_bytes(torrent.name()));
        let names = Names::of(torrent);
        let layout = Arc::new(torrent.layout().clone());
        for (index, extent) in layout.extents().iter().enumerate() {
            let path = below.join(names.get(index));
            make_file(&path, extent.len).map_err(|error| {
                anyhow::anyhow!("make {}: {}", path.display(), io_reason(&error))
            })?;
        }
        let handle = File::open(&below)
            .map_err(|e| anyhow::anyhow!("open {}: {}", below.display(), io_reason(&e)))?;
        Ok(DirTarget { store: DirStore::writable(&below, names, layout), handle })
    }

    /// Bytes that the files take on their disk.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        let count = self.store.layout().extents().len();
        let files = (0..count).filter_map(|index| self.store.path(index).metadata().ok());
        // stat(2) counts in 512 bytes whatever the block size is.
        files.map(|file| file.blocks() * 512).sum()
    }
}

fn make_file(path: &Path, len: u64) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed();
    let mut options = File::options();
    options.write(true).create(true).truncate(false).custom_flags(flags);
    options.open(path)?.set_len(len)
}

impl Store for DirTarget {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        self.store.read_at(offset, buf)
    }

    fn prefetch(&self, range: Range<u64>) {
        self.store.prefetch(range);
    }
}

impl Target for DirTarget {
    fn write(&self, offset: u64, parts: &[&[u8]]) -> Result<(), StoreError> {
        let mut rest = Parts::new(parts);
        let range = offset..offset + rest.len();
        for_spans(self.store.layout(), range, |span, _| {
            let (len, parts) = (span.device.len, rest.take(span.device.len));
            let file = self.store.file(span.index).map_err(|error| (span.skip, error));
            file.and_then(|file| write_exact(&file, span.skip, &parts)).map_err(|(at, error)| {
                StoreError {
                    what: "write",
                    path: self.store.path(span.index),
                    offset: at,
                    len: span.skip + len - at,
                    error,
                }
            })
        })
    }

    fn finish(&self) -> Result<(), StoreError> {
        // One call for a million files. It reports failed writes since Linux 5.8.
        syncfs(&self.handle).map_err(|error| StoreError {
            what: "flush",
            path: self.store.dir().to_owned(),
            offset: 0,
            len: 0,
            error: error.into(),
        })
    }

    fn drop_cache(&self) {
        for index in 0..self.store.layout().extents().len() {
            if let Ok(file) = self.store.file(index) {
                let _ = fadvise(&*file, 0, None, Advice::DontNeed);
            }
        }
    }

    fn expect_content(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm::layout::{Extent, Layout};
    use swarm::metainfo::Draft;

    #[test]
    fn extents_become_files_and_files_that_are_there_keep_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let extents = [(0, 5), (0x1000, 40_000)].map(|(offset, len)| Extent { offset, len });
        let layout = Layout::new(extents.to_vec()).unwrap();
        let draft = Draft {
            name: &["sda1"],
            layout: &layout,
            piece_len: 1 << 20,
            hashes: &[[0; 20]],
            trackers: &[],
            created_by: None,
            creation_date: None,
            origin: None,
        };
        let torrent = Metainfo::parse(draft.encode()).unwrap();
        let first = dir.path().join("sda1").join("0".repeat(32));
        std::fs::create_dir(dir.path().join("sda1")).unwrap();
        std::fs::write(&first, b"0123456789").unwrap();
        let target = DirTarget::make(&torrent, dir.path()).unwrap();
        assert_eq!(std::fs::read(&first).unwrap(), b"01234");
        target.write(3, &[&[1], &[2; 10]]).unwrap();
        target.finish().unwrap();
        assert_eq!(std::fs::read(&first).unwrap(), b"012\x01\x02");
        let second = std::fs::read(dir.path().join(format!("sda1/{:032x}", 0x1000))).unwrap();
        assert_eq!(second[..9], [2; 9]);
        assert_eq!(second[9..], [0; 39_991]);
        let mut read = [0; 4];
        target.read_at(3, &mut read).unwrap();
        assert_eq!(read, [1, 2, 2, 2]);
    }

    #[test]
    fn a_link_in_the_place_of_a_block_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (link, victim) = (dir.path().join("x/0"), dir.path().join("victim"));
        std::fs::create_dir(dir.path().join("x")).unwrap();
        std::fs::write(&victim, b"precious").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(make_file(&link, 3).is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }
}
