//! BT image directories: one file for each extent of an image, named by its device offset in
//! hexadecimal, as `partclone -T` writes them.
//!
//! [`ImageDir`] finds out what such a directory holds; reading the image is
//! [`DirStore`](crate::store::DirStore)'s. [`ImageDirWriter`] makes one. Neither follows a
//! symbolic link inside of the directory.

use super::torrent_info::{self, TorrentInfo, TorrentInfoError};
use crate::store::{Names, io_reason};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use swarm::layout::{DEVICE_END_MAX, Extent};
use swarm::metainfo::parse_offset;
use swarm::units::Bytes;

/// What a BT image directory holds.
///
/// Memory: for each extent 16 bytes, its name and 8 bytes; twice that while the directory is read.
/// 50 000 files are listed in 0.08 s.
#[derive(Debug)]
pub struct ImageDir {
    path: PathBuf,
    dir: OwnedFd,
    names: Names,
    extents: Vec<Extent>,
}

/// Why a directory is no BT image directory, or cannot be made one.
#[derive(Debug, thiserror::Error)]
pub enum ImageDirError {
    /// The kernel refused.
    #[error("{what} {}: {}", path.display(), io_reason(error))]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Something else lies in it.
    #[error("{} {why}; a BT image directory holds a torrent.info and files named by the \
        hexadecimal offset of their bytes, nothing else", path.display())]
    Stray {
        /// The path of what does not belong there.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// No block file.
    #[error("{} holds no block files; give the directory that `partclone -T` wrote, or a device",
        path.display())]
    NoFiles {
        /// The directory.
        path: PathBuf,
    },
    /// Two files claim the same bytes of the device.
    #[error("{} of {len} bytes reaches into {}; one of both belongs to another image",
        first.display(), second.display())]
    Overlap {
        /// The file that begins before the other.
        first: PathBuf,
        /// Its bytes.
        len: u64,
        /// The file it reaches into.
        second: PathBuf,
    },
    /// Its `torrent.info` is none.
    #[error("{} cannot be used: {error}", path.display())]
    TorrentInfo {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: TorrentInfoError,
    },
    /// The directory to write is there and not empty.
    #[error("{} is not empty, it holds {first:?}; choose another directory, or empty it",
        path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// One of its entries.
        first: String,
    },
    /// The image does not fit.
    #[error("{} has room for {}, the image needs {}", path.display(), Bytes(*free), Bytes(*needed))]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// Bytes that may still be written there.
        free: u64,
        /// Bytes of all block files, each rounded up to whole blocks.
        needed: u64,
    },
    /// The file system has too few inodes.
    #[error("{} has room for {free} more files, the image needs {needed}", path.display())]
    NoInodes {
        /// The directory.
        path: PathBuf,
        /// Files that may still be made there.
        free: u64,
        /// Block files, and the torrent.info.
        needed: u64,
    },
    /// Bytes were handed over twice, or some never.
    #[error("{} got {written} of {len} bytes", path.display())]
    Incomplete {
        /// The block file, or the directory.
        path: PathBuf,
        /// Bytes it got.
        written: u64,
        /// Bytes it should have.
        len: u64,
    },
}

/// The file with the hashes, which is no part of the image.
const TORRENT_INFO: &str = "torrent.info";

/// Its name until it is whole.
const TORRENT_INFO_PARTIAL: &str = "torrent.info.partial";

impl ImageDir {
    /// Lists the block files of `path`, in device order whatever the order of their names.
    ///
    /// # Errors
    /// If anything but regular, not empty files with hexadecimal names and a `torrent.info` lies
    /// there, if there is no block file, if they overlap, if one is larger than a device can be.
    pub fn open(path: &Path) -> Result<ImageDir, ImageDirError> {
        let dir = open_dir(path)?;
        let mut found: Vec<(Extent, Box<[u8]>)> = Vec::new();
        for entry in Dir::read_from(&dir).map_err(|e| failed("read", path, e))? {
            let entry = entry.map_err(|e| failed("read", path, e))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") && name != TORRENT_INFO.as_bytes() {
                found.push((block_file(path, &dir, name)?, name.into()));
            }
        }
        found.sort_unstable_by_key(|(extent, _)| extent.offset);
        check_overlap(path, &found)?;
        if found.is_empty() {
            return Err(ImageDirError::NoFiles { path: path.to_owned() });
        }
        let (mut names, mut extents) = (Names::default(), Vec::with_capacity(found.len()));
        for (extent, name) in found {
            extents.push(extent);
            names.push(&name);
        }
        Ok(ImageDir { path: path.to_owned(), dir, names, extents })
    }

    /// Where the files' bytes live on the device: ascending, none empty, none overlapping.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The name of the file with the bytes of extent `index`.
    ///
    /// # Panics
    /// If there is no such extent.
    #[must_use]
    pub fn name(&self, index: usize) -> &OsStr {
        self.names.get(index)
    }

    /// The names of all files, for a [`DirStore`](crate::store::DirStore).
    #[must_use]
    pub fn into_names(self) -> Names {
        self.names
    }

    /// Reads the directory's `torrent.info`; `None` if it has none: Clonezilla moves it away.
    ///
    /// # Errors
    /// If it is no regular file, or not what partclone writes.
    pub fn torrent_info(&self) -> Result<Option<TorrentInfo>, ImageDirError> {
        let path = self.path.join(TORRENT_INFO);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.dir, TORRENT_INFO, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => {
                return Err(ImageDirError::Stray { path, why: "is a symbolic link" });
            }
            Err(error) => return Err(failed("open", &path, error)),
        };
        let read_error = |error| ImageDirError::Io { what: "read", path: path.clone(), error };
        if !file.metadata().map_err(read_error)?.is_file() {
            return Err(ImageDirError::Stray { path, why: "is no regular file" });
        }
        let mut text = Vec::new();
        // One byte more than is parsed, so that a longer file is refused, not cut.
        let limit = torrent_info::TEXT_MAX as u64 + 1;
        file.take(limit).read_to_end(&mut text).map_err(read_error)?;
        let info = TorrentInfo::parse(&text);
        info.map(Some).map_err(|error| ImageDirError::TorrentInfo { path, error })
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd, ImageDirError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed("open", path, e))
}

/// The extent that the file `name` holds.
fn block_file(path: &Path, dir: &OwnedFd, name: &[u8]) -> Result<Extent, ImageDirError> {
    let file = || path.join(OsStr::from_bytes(name));
    let stray = |why| ImageDirError::Stray { path: file(), why };
    let offset = parse_offset(name)
        .ok_or_else(|| stray("has a name that is no hexadecimal number below 2^63"))?;
    let stat =
        statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed("look at", &file(), e))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err(stray("is a symbolic link")),
        FileType::Directory => return Err(stray("is a directory")),
        _ => return Err(stray("is no regular file")),
    }
    let len = u64::try_from(stat.st_size).unwrap_or(0);
    if len == 0 {
        return Err(stray("is empty"));
    }
    if offset > DEVICE_END_MAX - len {
        return Err(stray("ends behind the largest device (2^63 bytes)"));
    }
    Ok(Extent { offset, len })
}

fn check_overlap(path: &Path, found: &[(Extent, Box<[u8]>)]) -> Result<(), ImageDirError> {
    let overlaps = |pair: &&[(Extent, Box<[u8]>)]| pair[0].0.end() > pair[1].0.offset;
    found.windows(2).find(overlaps).map_or(Ok(()), |pair| {
        let file = |index: usize| path.join(OsStr::from_bytes(&pair[index].1));
        Err(ImageDirError::Overlap { first: file(0), len: pair[0].0.len, second: file(1) })
    })
}

fn failed(what: &'static str, path: &Path, error: Errno) -> ImageDirError {
    ImageDirError::Io { what, path: path.to_owned(), error: error.into() }
}

/// Writes a BT image directory from many threads, as `partclone -T` would.
///
/// Every byte of every extent must be handed over exactly once. A file is open from its first byte
/// to its last, so there are as many open files as extents that are partly written: about two for
/// each piece in work, if each piece is written in order. Dropped before
/// [`finish`](ImageDirWriter::finish), it removes what it has made.
pub struct ImageDirWriter {
    path: PathBuf,
    dir: OwnedFd,
    extents: Vec<Extent>,
    /// The directory is ours to remove.
    made_dir: bool,
    state: Mutex<State>,
    finished: bool,
}

#[derive(Default)]
struct State {
    /// Extents that have some of their bytes.
    open: HashMap<usize, Arc<BlockFile>>,
    /// Extents whose files are there.
    made: Vec<usize>,
    /// Bytes of the extents that are whole.
    whole_bytes: u64,
}

/// A file that lacks some of its bytes. The first thread to come makes it, the others wait.
struct BlockFile {
    file: OnceLock<Result<File, Errno>>,
    written: AtomicU64,
}

impl ImageDirWriter {
    /// Begins to write block files for `extents` into `path`, which is made (mode 0700) if it is
    /// missing.
    ///
    /// # Errors
    /// If `path` holds anything, cannot be made, or has not the room.
    pub fn create(path: &Path, extents: &[Extent]) -> Result<ImageDirWriter, ImageDirError> {
        let made_dir = match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => {
                let path = path.to_owned();
                return Err(ImageDirError::Io { what: "make the directory", path, error });
            }
        };
        let writer = ImageDirWriter {
            path: path.to_owned(),
            dir: open_dir(path)?,
            extents: extents.to_vec(),
            made_dir,
            state: Mutex::default(),
            finished: false,
        };
        writer.refuse_entries()?;
        writer.refuse_lack_of_room()?;
        Ok(writer)
    }

    /// Writes `buf` into the file of extent `index`, `skip` bytes behind its start.
    ///
    /// # Errors
    /// What the kernel said of which file; bytes that were handed over before.
    ///
    /// # Panics
    /// If the bytes are not all inside the extent.
    pub fn write_all_at(&self, index: usize, skip: u64, buf: &[u8]) -> Result<(), ImageDirError> {
        let (len, buf_len) = (self.extents[index].len, buf.len() as u64);
        let end = skip.checked_add(buf_len);
        assert!(end.is_some_and(|end| end <= len), "{buf_len} bytes at {skip} of {len}");
        if buf.is_empty() {
            return Ok(());
        }
        let block_file = self.block_file(index);
        let file = block_file.file.get_or_init(|| self.make(index));
        let file = file.as_ref().map_err(|&error| failed("make", &self.file_path(index), error))?;
        file.write_all_at(buf, skip).map_err(|error| ImageDirError::Io {
            what: "write",
            path: self.file_path(index),
            error,
        })?;
        let written = block_file.written.fetch_add(buf_len, Ordering::Relaxed) + buf_len;
        if written > len {
            return Err(ImageDirError::Incomplete { path: self.file_path(index), written, len });
        }
        if written == len {
            let mut state = self.state();
            state.open.remove(&index);
            state.whole_bytes += len;
        }
        Ok(())
    }

    /// Writes the `torrent.info`, when everything else is on the medium.
    ///
    /// # Errors
    /// If bytes are missing, or what the kernel said. Then nothing of the directory remains.
    ///
    /// # Panics
    /// If `info` is of other extents.
    pub fn finish(mut self, info: &TorrentInfo) -> Result<(), ImageDirError> {
        assert!(info.extents == self.extents, "a torrent.info of other extents");
        let len = info.image_len();
        let written = self.state().whole_bytes;
        if written != len {
            return Err(ImageDirError::Incomplete { path: self.path.clone(), written, len });
        }
        // One call for up to a million files. Since Linux 5.8 it also tells of every write to this
        // file system that failed since the directory was opened.
        rustix::fs::syncfs(&self.dir).map_err(|e| failed("flush", &self.path, e))?;
        self.write_torrent_info(info)?;
        renameat(&self.dir, TORRENT_INFO_PARTIAL, &self.dir, TORRENT_INFO)
            .map_err(|e| failed("rename", &self.path.join(TORRENT_INFO_PARTIAL), e))?;
        self.finished = true;
        rustix::fs::fsync(&self.dir).map_err(|e| failed("flush", &self.path, e))
    }

    fn refuse_entries(&self) -> Result<(), ImageDirError> {
        for entry in Dir::read_from(&self.dir).map_err(|e| failed("read", &self.path, e))? {
            let entry = entry.map_err(|e| failed("read", &self.path, e))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                let first = String::from_utf8_lossy(name).into_owned();
                return Err(ImageDirError::NotEmpty { path: self.path.clone(), first });
            }
        }
        Ok(())
    }

    fn refuse_lack_of_room(&self) -> Result<(), ImageDirError> {
        let stat = rustix::fs::fstatvfs(&self.dir)
            .map_err(|e| failed("find out the free space of", &self.path, e))?;
        let block = stat.f_frsize.max(1);
        let needed = self.extents.iter().map(|e| e.len.div_ceil(block).saturating_mul(block));
        let needed = needed.fold(0_u64, u64::saturating_add);
        let free = stat.f_bavail.saturating_mul(block);
        if free < needed {
            return Err(ImageDirError::NoSpace { path: self.path.clone(), free, needed });
        }
        // btrfs and others make inodes as they need them, and tell 0.
        let (free, needed) = (stat.f_favail, self.extents.len() as u64 + 1);
        if stat.f_files > 0 && free < needed {
            return Err(ImageDirError::NoInodes { path: self.path.clone(), free, needed });
        }
        Ok(())
    }

    fn block_file(&self, index: usize) -> Arc<BlockFile> {
        let new = || Arc::new(BlockFile { file: OnceLock::new(), written: AtomicU64::new(0) });
        Arc::clone(self.state().open.entry(index).or_insert_with(new))
    }

    /// Makes the file of extent `index`. That it is there already means that it was whole before,
    /// or that somebody else writes into the directory.
    fn make(&self, index: usize) -> Result<File, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&self.dir, self.name(index), flags, Mode::RUSR)?;
        self.state().made.push(index);
        Ok(File::from(file))
    }

    fn write_torrent_info(&self, info: &TorrentInfo) -> Result<(), ImageDirError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let path = self.path.join(TORRENT_INFO_PARTIAL);
        // The umask takes away from this what the user wants.
        let file = openat(&self.dir, TORRENT_INFO_PARTIAL, flags, Mode::from_raw_mode(0o666))
            .map_err(|e| failed("make", &path, e))?;
        let mut writer = BufWriter::new(File::from(file));
        info.write_to(&mut writer)
            .and_then(|()| writer.flush())
            .and_then(|()| writer.get_ref().sync_all())
            .map_err(|error| ImageDirError::Io { what: "write", path, error })
    }

    fn name(&self, index: usize) -> String {
        format!("{:032x}", self.extents[index].offset)
    }

    fn file_path(&self, index: usize) -> PathBuf {
        self.path.join(self.name(index))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ImageDirWriter {
    /// Removes what was made, if it is not whole. What cannot be removed stays.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let made = std::mem::take(&mut self.state().made);
        for index in made {
            let _ = unlinkat(&self.dir, self.name(index), AtFlags::empty());
        }
        let _ = unlinkat(&self.dir, TORRENT_INFO_PARTIAL, AtFlags::empty());
        if self.made_dir {
            // Fails, as it should, if somebody else has put something there.
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{DirStore, Store as _};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use swarm::layout::Layout;
    use torrent_info::PIECE_LEN;

    fn dir_with(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    }

    fn extent(offset: u64, len: u64) -> Extent {
        Extent { offset, len }
    }

    /// The error of opening `dir`, with `DIR` for its path.
    fn open_error(dir: &tempfile::TempDir) -> String {
        let error = ImageDir::open(dir.path()).unwrap_err().to_string();
        error.replace(dir.path().to_str().unwrap(), "DIR")
    }

    #[track_caller]
    fn stray(files: &[(&str, &[u8])], wanted: &str) {
        check_stray(&dir_with(files), wanted);
    }

    #[track_caller]
    fn check_stray(dir: &tempfile::TempDir, wanted: &str) {
        let rule = "a BT image directory holds a torrent.info and files named by the hexadecimal \
                    offset of their bytes, nothing else";
        assert_eq!(open_error(dir), format!("DIR/{wanted}; {rule}"));
    }

    #[test]
    fn files_are_listed_in_device_order() {
        let info = b"offset: 0\nlength: 2\nsha1: 0123456789012345678901234567890123456789\n";
        let dir = dir_with(&[
            ("10", b"late"),
            ("f", b"1"),
            ("00000000000000000000000000000002", b"aa"),
            ("A", b"bb"),
            ("torrent.info", info),
        ]);
        let found = ImageDir::open(dir.path()).unwrap();
        assert_eq!(found.extents(), [extent(2, 2), extent(10, 2), extent(15, 1), extent(16, 4)]);
        assert_eq!(found.name(1), "A");
        assert_eq!(found.torrent_info().unwrap().unwrap().extents, [extent(0, 2)]);
        let layout = Arc::new(Layout::new(found.extents().to_vec()).unwrap());
        let store = DirStore::new(dir.path(), found.into_names(), layout);
        let mut image = [0; 9];
        store.read_at(0, &mut image).unwrap();
        assert_eq!(&image, b"aabb1late");
    }

    #[test]
    fn what_does_not_belong_there_is_named() {
        let number = "has a name that is no hexadecimal number below 2^63";
        stray(&[("0", b"x"), ("notes.txt", b"x")], &format!("notes.txt {number}"));
        stray(&[("0x10", b"x")], &format!("0x10 {number}"));
        stray(&[("-1", b"x")], &format!("-1 {number}"));
        stray(&[("+1", b"x")], &format!("+1 {number}"));
        stray(&[("torrent.info.partial", b"x")], &format!("torrent.info.partial {number}"));
        stray(&[("8000000000000000", b"x")], &format!("8000000000000000 {number}"));
        let wide = "1".repeat(200);
        stray(&[(&wide, b"x")], &format!("{wide} {number}"));
        let ends = "ends behind the largest device (2^63 bytes)";
        stray(&[("7fffffffffffffff", b"x")], &format!("7fffffffffffffff {ends}"));
        stray(&[("0", b"")], "0 is empty");
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let dir = dir_with(&[("10", b"x")]);
        symlink(dir.path().join("10"), dir.path().join("0")).unwrap();
        check_stray(&dir, "0 is a symbolic link");
        fs::remove_file(dir.path().join("0")).unwrap();
        fs::create_dir(dir.path().join("0")).unwrap();
        check_stray(&dir, "0 is a directory");
        fs::remove_dir(dir.path().join("0")).unwrap();
        let fifo = dir.path().join("0");
        lab::tool::run(lab::tool::words("mkfifo").arg(&fifo)).unwrap();
        check_stray(&dir, "0 is no regular file");
    }

    #[test]
    fn a_directory_without_block_files_is_refused() {
        let check = |files: &[(&str, &[u8])]| {
            let why = "DIR holds no block files; give the directory that `partclone -T` wrote, or a device";
            assert_eq!(open_error(&dir_with(files)), why);
        };
        check(&[]);
        check(&[("torrent.info", b"")]);
    }

    #[test]
    fn what_is_no_directory_is_refused() {
        let dir = dir_with(&[("0", b"x")]);
        let error = ImageDir::open(&dir.path().join("0")).unwrap_err().to_string();
        assert_eq!(error, format!("open {}/0: Not a directory", dir.path().display()));
    }

    #[test]
    fn files_that_overlap_are_named() {
        let check = |files: &[(&str, &[u8])], wanted: &str| {
            let dir = dir_with(files);
            assert_eq!(open_error(&dir), format!("{wanted}; one of both belongs to another image"));
        };
        check(&[("0", b"12345"), ("4", b"x")], "DIR/0 of 5 bytes reaches into DIR/4");
        let dir = dir_with(&[("0", b"x"), ("00", b"x")]);
        assert!(
            open_error(&dir).contains(" of 1 bytes reaches into DIR/0"),
            "{}",
            open_error(&dir)
        );
    }

    #[test]
    fn a_torrent_info_that_is_none_is_refused() {
        let check = |dir: &tempfile::TempDir, wanted: &str| {
            let error = ImageDir::open(dir.path()).unwrap().torrent_info().unwrap_err().to_string();
            let start = format!("{}/torrent.info {wanted}", dir.path().display());
            assert!(error.starts_with(&start), "{error}");
        };
        let dir = dir_with(&[("0", b"x"), ("torrent.info", b"rubbish\n")]);
        check(&dir, "cannot be used: line 1: \"rubbish\" is not one of ");
        let dir = dir_with(&[("0", b"x")]);
        assert_eq!(ImageDir::open(dir.path()).unwrap().torrent_info().unwrap(), None);
        symlink("/dev/zero", dir.path().join("torrent.info")).unwrap();
        check(&dir, "is a symbolic link");
        fs::remove_file(dir.path().join("torrent.info")).unwrap();
        fs::create_dir(dir.path().join("torrent.info")).unwrap();
        check(&dir, "is no regular file");
    }

    fn info(extents: &[Extent]) -> TorrentInfo {
        let bytes: u64 = extents.iter().map(|e| e.len).sum();
        TorrentInfo {
            block_size: None,
            blocks_total: None,
            extents: extents.to_vec(),
            pieces: vec![[7; 20]; bytes.div_ceil(PIECE_LEN) as usize],
        }
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn many_threads_write_what_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sda1");
        let extents: Vec<Extent> =
            (0..200).map(|i| extent(i * 100_000, 1 + (i * 7919) % 90_000)).collect();
        let bytes = |e: &Extent| (0..e.len).map(|i| (e.offset + i) as u8).collect::<Vec<u8>>();
        let writer = ImageDirWriter::create(&path, &extents).unwrap();
        // Each thread has every fourth part of every extent, so all meet in each file.
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (writer, extents) = (&writer, &extents);
                scope.spawn(move || {
                    for (index, e) in extents.iter().enumerate() {
                        let bytes = bytes(e);
                        let parts = bytes.chunks(1000).enumerate();
                        for (part, chunk) in parts.filter(|(part, _)| part % 4 == thread) {
                            writer.write_all_at(index, part as u64 * 1000, chunk).unwrap();
                        }
                    }
                });
            }
        });
        assert!(writer.state().open.is_empty(), "every file is closed after its last byte");
        writer.finish(&info(&extents)).unwrap();
        let found = ImageDir::open(&path).unwrap();
        assert_eq!(found.extents(), extents);
        assert_eq!(found.torrent_info().unwrap(), Some(info(&extents)));
        for (index, e) in extents.iter().enumerate() {
            let file = path.join(found.name(index));
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o400);
            assert_eq!(fs::read(&file).unwrap(), bytes(e));
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(names(&path)[1], "000000000000000000000000000186a0");
    }

    #[test]
    fn a_directory_that_is_not_empty_is_refused_and_left_alone() {
        let dir = dir_with(&[("precious", b"x")]);
        let error = ImageDirWriter::create(dir.path(), &[extent(0, 1)]).err().unwrap().to_string();
        let wanted = "is not empty, it holds \"precious\"; choose another directory, or empty it";
        assert_eq!(error, format!("{} {wanted}", dir.path().display()));
        assert_eq!(names(dir.path()), ["precious"]);
        let file = dir.path().join("precious");
        let error = ImageDirWriter::create(&file, &[extent(0, 1)]).err().unwrap().to_string();
        assert_eq!(error, format!("open {}: Not a directory", file.display()));
    }

    #[test]
    fn an_image_that_does_not_fit_is_refused_before_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let error = ImageDirWriter::create(&path, &[extent(0, 1 << 60)]).err().unwrap().to_string();
        assert!(error.contains(" has room for "), "{error}");
        assert!(error.ends_with(", the image needs 1048576 TiB"), "{error}");
        assert!(!path.exists(), "what was made is removed");
    }

    #[test]
    fn what_is_not_finished_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let extents = [extent(0, 4), extent(16, 4)];
        let start = |path: &Path| {
            let writer = ImageDirWriter::create(path, &extents).unwrap();
            writer.write_all_at(0, 0, b"1234").unwrap();
            writer.write_all_at(1, 0, b"12").unwrap();
            writer
        };
        drop(start(&path));
        assert!(!path.exists());
        // A directory that was there stays.
        drop(start(dir.path()));
        assert_eq!(names(dir.path()), [""; 0]);
        let error = start(&path).finish(&info(&extents)).unwrap_err().to_string();
        assert_eq!(error, format!("{} got 4 of 8 bytes", path.display()));
        assert!(!path.exists());
    }

    #[test]
    fn bytes_that_come_twice_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let writer = ImageDirWriter::create(&path, &[extent(0, 4)]).unwrap();
        let file = path.join("0".repeat(32)).display().to_string();
        let error = |skip, bytes: &[u8]| {
            writer.write_all_at(0, skip, bytes).unwrap_err().to_string().replace(&file, "FILE")
        };
        writer.write_all_at(0, 0, b"123").unwrap();
        assert_eq!(error(0, b"12"), "FILE got 5 of 4 bytes");
        drop(writer);
        let writer = ImageDirWriter::create(&path, &[extent(0, 4)]).unwrap();
        writer.write_all_at(0, 0, b"1234").unwrap();
        let error = writer.write_all_at(0, 0, b"1234").unwrap_err().to_string();
        assert_eq!(error, format!("make {file}: File exists"));
    }

    #[test]
    fn somebody_elses_file_is_neither_written_nor_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let writer = ImageDirWriter::create(&path, &[extent(0, 4)]).unwrap();
        let (target, link) = (dir.path().join("target"), path.join("0".repeat(32)));
        fs::write(&target, "precious").unwrap();
        symlink(&target, &link).unwrap();
        let error = writer.write_all_at(0, 0, b"1234").unwrap_err().to_string();
        assert_eq!(error, format!("make {}: File exists", link.display()));
        drop(writer);
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert_eq!(names(&path), ["0".repeat(32)]);
    }
}
