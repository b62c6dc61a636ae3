//! May this target be written? Everything that can be known before the first byte.
//!
//! A target that is refused here is as it was before.

use crate::device::{self, Claim, Device, DeviceError, Kind, Purpose, Use};
use crate::signatures::Leftovers;
use crate::store::{self, DeviceTarget, DirTarget, io_reason};
use anyhow::{Context as _, bail, ensure};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use swarm::layout::Layout;
use swarm::metainfo::Metainfo;
use swarm::units::Bytes;

/// How strict to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// Take a device whose sectors have another size than those the image was made on.
    pub force: bool,
    /// Old signatures are going to be removed, so it must be possible to look for them.
    pub wipe: bool,
}

/// A target that may be written.
pub struct Target {
    /// Takes verified pieces.
    pub store: Arc<dyn store::Target>,
    /// Keeps others from mounting the device meanwhile; a directory has none.
    pub claim: Option<Claim>,
    /// What could not be checked, or is worth knowing.
    pub notes: Vec<String>,
    /// What it held before and the image would leave in place; a directory has none.
    pub leftovers: Option<Leftovers>,
}

/// Opens `path` to write the image of `torrent` to: a block device, or a file, which is made, sparse
/// and as long as the image needs, if it is not there.
///
/// # Errors
/// What stands against it, and what to do: another kind of file, in use, too small, sectors of
/// another size, read-only.
pub fn open(path: &Path, torrent: &Metainfo, checks: Checks) -> anyhow::Result<Target> {
    let needed = torrent.target_len();
    let made = make_file(path, needed)?;
    let opened = open_existing(path, torrent, needed, checks);
    if opened.is_err() && made {
        // It was made a moment ago and holds nothing.
        let _ = std::fs::remove_file(path);
    }
    opened
}

/// Opens the directory `path`, which is made if it is not there, to keep the image of `torrent` in
/// as block files.
///
/// # Errors
/// If it is something else, its file system has too little room, or a file cannot be made.
pub fn open_dir(path: &Path, torrent: &Metainfo) -> anyhow::Result<Target> {
    let shown = path.display();
    std::fs::create_dir_all(path)
        .map_err(|e| anyhow::anyhow!("make the directory {shown}: {}", io_reason(&e)))?;
    let room = rustix::fs::statvfs(path)
        .map_err(|e| anyhow::anyhow!("find out the room in {shown}: {}", io_reason(&e.into())))?;
    let (free, needed) = (room.f_bavail * room.f_frsize, torrent.layout().image_len());
    let store = DirTarget::make(torrent, path)?;
    // What is there of an earlier run takes no more room.
    let missing = needed.saturating_sub(store.allocated());
    ensure!(
        free >= missing,
        "{shown} has room for {}, but the image needs {} more; free some, or take another directory",
        Bytes(free),
        Bytes(missing)
    );
    Ok(Target { store: Arc::new(store), claim: None, notes: Vec::new(), leftovers: None })
}

fn open_existing(
    path: &Path,
    torrent: &Metainfo,
    needed: u64,
    checks: Checks,
) -> anyhow::Result<Target> {
    let shown = path.display();
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) => return Err(not_writable(path, &error)),
    };
    let mut device = device::describe(&file, path)?;
    let uses = device::usage(&device).with_context(|| format!("find out who uses {shown}"))?;
    ensure!(
        uses.is_empty(),
        "{shown} is in use: {}; nothing was written, unmount or stop it first",
        uses.iter().map(Use::to_string).collect::<Vec<_>>().join(", ")
    );
    let claim = device::claim(&device, Purpose::Writing)?;
    ensure!(
        !device.read_only,
        "{shown} is read-only; see `blockdev --getro`, a switch on the medium, or how it was attached"
    );
    if matches!(device.kind, Kind::RegularFile { .. }) && device.size_bytes < needed {
        // A file can grow; that does not touch what is in it. Only now is it known to be nobody else's.
        file.set_len(needed).with_context(|| format!("make {shown} {} long", Bytes(needed)))?;
        device.size_bytes = needed;
    }
    ensure!(
        device.size_bytes >= needed,
        "{shown} has {} bytes ({}), but the image needs {needed} ({}); take a larger device",
        device.size_bytes,
        Bytes(device.size_bytes),
        Bytes(needed)
    );
    let mut notes = check_sectors(&device, torrent, checks)?;
    let layout = Arc::new(torrent.layout().clone());
    let leftovers = look_for_leftovers(&file, &device, &layout, checks, &mut notes)?;
    let store = DeviceTarget::new(file, path, layout);
    Ok(Target { store: Arc::new(store), claim: Some(claim), notes, leftovers })
}

/// A target that cannot be read where a signature might be may still be written.
fn look_for_leftovers(
    file: &File,
    device: &Device,
    layout: &Arc<Layout>,
    checks: Checks,
    notes: &mut Vec<String>,
) -> anyhow::Result<Option<Leftovers>> {
    let shown = device.path.display();
    let size = (device.size_bytes, device.logical_sector_bytes);
    let own = file.try_clone().with_context(|| format!("open {shown} a second time"))?;
    match Leftovers::find(own, &device.path, size, Arc::clone(layout)) {
        Ok(leftovers) => {
            notes.extend(leftovers.describe(checks.wipe));
            Ok(Some(leftovers))
        }
        Err(error) if checks.wipe => bail!("look for old signatures on {shown}: {error}"),
        Err(error) => {
            notes.push(format!("could not look for old signatures on {shown}: {error}"));
            Ok(None)
        }
    }
}

/// A file system that was made for sectors of one size does not work on another.
fn check_sectors(
    device: &Device,
    torrent: &Metainfo,
    checks: Checks,
) -> anyhow::Result<Vec<String>> {
    let Some(origin) = torrent.origin() else {
        return Ok(vec![format!(
            "the torrent does not tell how large the file system is, nor the sectors it was made \
             for: whether {} is large enough was checked only up to the last used block",
            device.path.display()
        )]);
    };
    let (found, wanted) = (device.logical_sector_bytes, origin.sector_len);
    if let Kind::BlockDevice(_) = device.kind
        && found != wanted
    {
        let differ = format!(
            "{} has sectors of {found} bytes, the image was made on sectors of {wanted}; most file \
             systems do not work when that changes",
            device.path.display()
        );
        ensure!(checks.force, "{differ}; take a device with the same, or try it with --force");
        return Ok(vec![differ]);
    }
    Ok(Vec::new())
}

/// Makes the file if nothing is there. Returns whether it did.
fn make_file(path: &Path, len: u64) -> anyhow::Result<bool> {
    let shown = path.display();
    if path.starts_with("/dev") || std::fs::symlink_metadata(path).is_ok() {
        // A missing device is no reason to put a file into /dev.
        return Ok(false);
    }
    let made = File::options().write(true).create_new(true).open(path);
    let sized = made.and_then(|file| {
        // Nothing of it is left if it cannot be as long, or its name may be lost.
        let kept = file.set_len(len).and_then(|()| flush_name(path));
        kept.inspect_err(|_| drop(std::fs::remove_file(path)))
    });
    match sized {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => {
            let (len, why) = (Bytes(len), io_reason(&error));
            let what = match error.kind() {
                io::ErrorKind::NotFound => "; make its directory first",
                _ => "",
            };
            bail!("make {shown}, {len} long: {why}{what}")
        }
    }
}

/// Brings the name of a new file to the medium. That its bytes are there says nothing of its name: after a
/// power cut a target that was finished might not be there (fsync(2)).
fn flush_name(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    match File::open(dir.unwrap_or(Path::new(".")))?.sync_all() {
        // Some network file systems cannot flush directories, and keep names without being asked.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) =>
        {
            Ok(())
        }
        flushed => flushed,
    }
}

fn not_writable(path: &Path, error: &io::Error) -> anyhow::Error {
    let owned = PathBuf::from(path);
    match error.kind() {
        io::ErrorKind::NotFound => DeviceError::Missing(owned).into(),
        io::ErrorKind::PermissionDenied => DeviceError::Denied(owned).into(),
        io::ErrorKind::IsADirectory => {
            anyhow::anyhow!("{} is a directory; give a block device or a file", path.display())
        }
        _ => anyhow::anyhow!("open {} for writing: {}", path.display(), io_reason(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab::{LoopDevice, LoopOptions, Need};
    use swarm::layout::Extent;
    use swarm::metainfo::{Draft, Origin};

    /// An image that ends at 1 MiB, of a file system of 2 MiB on sectors of 512 bytes.
    fn torrent(with_origin: bool) -> Metainfo {
        let layout = Layout::new(vec![Extent { offset: 0, len: 1 << 20 }]).unwrap();
        let origin = Origin {
            device_len: 3 << 20,
            file_system_len: Some(2 << 20),
            file_system: Some("ext4".to_owned()),
            sector_len: 512,
        };
        let draft = Draft {
            name: &["x"],
            layout: &layout,
            piece_len: 1 << 20,
            hashes: &[[0; 20]],
            trackers: &[],
            created_by: None,
            creation_date: None,
            origin: with_origin.then_some(&origin),
        };
        Metainfo::parse(draft.encode()).unwrap()
    }

    #[track_caller]
    fn refused(path: &Path, words: &[&str]) {
        let error = format!("{:#}", open(path, &torrent(true), Checks::default()).err().unwrap());
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }

    #[test]
    fn a_missing_file_is_made_as_long_as_the_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("target.img");
        assert_eq!(
            open(&path, &torrent(true), Checks::default()).unwrap().notes,
            Vec::<String>::new()
        );
        assert_eq!(path.metadata().unwrap().len(), 2 << 20);
    }

    #[test]
    fn a_longer_file_keeps_its_length_and_a_shorter_one_grows() {
        let dir = tempfile::tempdir().unwrap();
        for (len, wanted) in [(5 << 20, 5 << 20), (4096, 2 << 20)] {
            let path = dir.path().join(len.to_string());
            std::fs::write(&path, vec![7; len]).unwrap();
            open(&path, &torrent(true), Checks::default()).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(bytes.len(), wanted);
            assert!(bytes[..len.min(wanted)].iter().all(|&b| b == 7), "nothing is written yet");
        }
    }

    #[test]
    fn a_file_that_somebody_else_has_does_not_grow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("source.img");
        std::fs::write(&path, [7; 4096]).unwrap();
        let source = device::describe(&File::open(&path).unwrap(), &path).unwrap();
        let _served = device::claim(&source, Purpose::Reading).unwrap();
        refused(&path, &["in use"]);
        assert_eq!(path.metadata().unwrap().len(), 4096);
    }

    #[test]
    fn what_cannot_be_checked_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let target = open(&dir.path().join("t"), &torrent(false), Checks::default()).unwrap();
        assert!(target.notes[0].contains("does not tell how large"), "{:?}", target.notes);
    }

    #[test]
    fn what_is_no_target_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        refused(dir.path(), &["is a directory"]);
        refused(Path::new("/dev/null"), &["/dev/null", "character device"]);
        refused(Path::new("/dev/no-such-disk"), &["no such file or device"]);
        refused(&dir.path().join("no/such/dir"), &["No such file or directory"]);
    }

    #[test]
    fn devices_that_are_too_small_or_have_other_sectors_are_refused() {
        lab::require!([Need::Root, Need::Loop]);
        let dir = tempfile::tempdir().unwrap();
        let attach = |len: u64, sector_size| {
            let path = dir.path().join(len.to_string());
            File::create(&path).unwrap().set_len(len).unwrap();
            let options = LoopOptions { sector_size, ..LoopOptions::default() };
            LoopDevice::attach(&path, options).unwrap()
        };
        let small = attach(1 << 20, 512);
        refused(small.path(), &["has 1048576 bytes (1 MiB)", "needs 2097152 (2 MiB)"]);
        let other = attach(4 << 20, 4096);
        refused(other.path(), &["sectors of 4096 bytes", "sectors of 512"]);
        let forced =
            open(other.path(), &torrent(true), Checks { force: true, ..Default::default() })
                .unwrap();
        assert!(forced.notes[0].contains("sectors of 4096 bytes"), "{:?}", forced.notes);
        let good = attach(2 << 20, 512);
        let target = open(good.path(), &torrent(true), Checks::default()).unwrap();
        refused(good.path(), &["in use", "for this program alone"]);
        drop(target);
        open(good.path(), &torrent(true), Checks::default()).unwrap();
    }

    #[test]
    fn a_read_only_device_is_refused() {
        lab::require!([Need::Root, Need::Loop]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(4 << 20).unwrap();
        let options = LoopOptions { read_only: true, ..LoopOptions::default() };
        let device = LoopDevice::attach(&path, options).unwrap();
        refused(device.path(), &["/dev/loop", "is read-only"]);
    }
}
