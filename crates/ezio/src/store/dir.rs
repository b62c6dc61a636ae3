//! An image kept as block files: one file for each extent, named by its device offset.
//!
//! `partclone -T` writes such directories, and so does any BitTorrent client that downloads the
//! torrent as files.

use super::{Store, StoreError, for_spans};
use rustix::fs::{Advice, fadvise};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use swarm::layout::Layout;
use swarm::metainfo::Metainfo;

/// Block files below one directory, opened as they are needed.
pub struct DirStore {
    dir: PathBuf,
    names: Names,
    layout: Arc<Layout>,
    open: Mutex<OpenFiles>,
    /// Files are opened to be written too.
    writable: bool,
}

impl DirStore {
    /// The block files of `torrent` in `dir`, or in the directory below it that has the torrent's
    /// name, if there is one.
    ///
    /// # Errors
    /// If neither holds the first block file.
    pub fn open(torrent: &Metainfo, dir: &Path) -> anyhow::Result<DirStore> {
        let names = Names::of(torrent);
        let below = dir.join(OsStr::from_bytes(torrent.name()));
        let first = names.get(0);
        let dir =
            [dir, &below].into_iter().find(|dir| dir.join(first).exists()).ok_or_else(|| {
                anyhow::anyhow!(
                    "no block files in {}: neither {} nor {} exists",
                    dir.display(),
                    dir.join(first).display(),
                    below.join(first).display()
                )
            })?;
        Ok(DirStore::new(dir, names, Arc::new(torrent.layout().clone())))
    }

    /// The files `names` in `dir`, one for each extent of `layout`.
    ///
    /// # Panics
    /// If there are not as many names as extents.
    #[must_use]
    pub fn new(dir: &Path, names: Names, layout: Arc<Layout>) -> DirStore {
        assert_eq!(names.ends.len(), layout.extents().len(), "a name for every extent");
        let open = Mutex::new(OpenFiles { files: HashMap::new(), clock: 0 });
        DirStore { dir: dir.to_owned(), names, layout, open, writable: false }
    }

    /// As [`DirStore::new`], of files that will be written to.
    pub(super) fn writable(dir: &Path, names: Names, layout: Arc<Layout>) -> DirStore {
        DirStore { writable: true, ..DirStore::new(dir, names, layout) }
    }

    pub(super) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of the file that holds extent `index`.
    pub(super) fn path(&self, index: usize) -> PathBuf {
        self.dir.join(self.names.get(index))
    }

    pub(super) fn file(&self, index: usize) -> io::Result<Arc<File>> {
        if let Some(file) = self.lock().find(index) {
            return Ok(file);
        }
        // Outside of the lock: opening may wait for a disk. Two threads may open the same file;
        // then one of both is kept.
        let file =
            Arc::new(File::options().read(true).write(self.writable).open(self.path(index))?);
        self.lock().keep(index, Arc::clone(&file));
        Ok(file)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OpenFiles> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for DirStore {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let range = offset..offset + buf.len() as u64;
        for_spans(&self.layout, range, |span, part| {
            let buf = &mut buf[part];
            let len = buf.len() as u64;
            let read = self.file(span.index).and_then(|file| file.read_exact_at(buf, span.skip));
            read.map_err(|error| StoreError {
                what: "read",
                path: self.path(span.index),
                offset: span.skip,
                len,
                error,
            })
        })
    }

    fn prefetch(&self, range: Range<u64>) {
        for span in self.layout.spans(range) {
            if let Ok(file) = self.file(span.index) {
                let len = NonZeroU64::new(span.device.len);
                let _ = fadvise(&*file, span.skip, len, Advice::WillNeed);
            }
        }
    }
}

/// File names, end to end in one allocation: an image may have a million.
#[derive(Debug, Default)]
pub struct Names {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Names {
    /// The names of the block files of `torrent`, one for each extent.
    #[must_use]
    pub fn of(torrent: &Metainfo) -> Names {
        let mut names = Names::default();
        for index in 0..torrent.layout().extents().len() {
            names.push(&torrent.path(index).join(&b'/'));
        }
        names
    }

    /// Adds a name, relative to the directory.
    pub fn push(&mut self, name: &[u8]) {
        self.bytes.extend_from_slice(name);
        self.ends.push(self.bytes.len());
    }

    /// Name `index`.
    ///
    /// # Panics
    /// If there are not as many.
    #[must_use]
    pub fn get(&self, index: usize) -> &OsStr {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        OsStr::from_bytes(&self.bytes[start..self.ends[index]])
    }
}

/// The files used last.
struct OpenFiles {
    files: HashMap<usize, (u64, Arc<File>)>,
    clock: u64,
}

/// Sixteen lanes on each of many cores, well below the usual limit of 1024 descriptors.
const OPEN_FILES_MAX: usize = 256;

impl OpenFiles {
    fn find(&mut self, index: usize) -> Option<Arc<File>> {
        self.clock += 1;
        let (used, file) = self.files.get_mut(&index)?;
        *used = self.clock;
        Some(Arc::clone(file))
    }

    fn keep(&mut self, index: usize, file: Arc<File>) {
        if self.files.len() == OPEN_FILES_MAX {
            // Half of them go at once, so the search for the oldest costs little a file.
            let mut used: Vec<u64> = self.files.values().map(|(used, _)| *used).collect();
            let (_, &mut median, _) = used.select_nth_unstable(OPEN_FILES_MAX / 2);
            self.files.retain(|_, (used, _)| *used >= median);
        }
        self.files.insert(index, (self.clock, file));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm::layout::Extent;

    #[test]
    fn more_files_than_may_be_open_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (mut names, mut extents) = (Names::default(), Vec::new());
        for i in 0..2 * OPEN_FILES_MAX as u64 + 3 {
            let name = format!("{:032x}", i * 100);
            std::fs::write(dir.path().join(&name), i.to_be_bytes()).unwrap();
            names.push(name.as_bytes());
            extents.push(Extent { offset: i * 100, len: 8 });
        }
        let layout = Arc::new(Layout::new(extents).unwrap());
        let wanted: Vec<u8> =
            (0..layout.extents().len() as u64).flat_map(u64::to_be_bytes).collect();
        let store = DirStore::new(dir.path(), names, layout);
        let mut found = vec![0; wanted.len()];
        for _ in 0..2 {
            store.read_at(0, &mut found).unwrap();
            assert_eq!(found, wanted);
        }
        assert!(store.lock().files.len() <= OPEN_FILES_MAX);
        store.read_at(4, &mut found[..8]).unwrap();
        assert_eq!(found[..8], wanted[4..12]);
    }

    #[test]
    fn a_missing_file_is_an_error_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut names = Names::default();
        names.push(b"00");
        let layout = Layout::new(vec![Extent { offset: 0, len: 8 }]).unwrap();
        let store = DirStore::new(dir.path(), names, Arc::new(layout));
        let error = store.read_at(0, &mut [0; 8]).unwrap_err().to_string();
        let shown = dir.path().display();
        assert_eq!(error, format!("read 8 B at 0x0 of {shown}/00: No such file or directory"));
    }
}
