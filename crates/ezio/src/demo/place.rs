//! Where the demonstration keeps its files.

use crate::store::io_reason;
use anyhow::ensure;
use std::path::{Path, PathBuf};
use swarm::units::Bytes;
use tempfile::TempDir;

/// A directory; a temporary one is removed with all that is in it when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

/// Room for logs, the torrent and the metadata of files.
const SPARE: u64 = 8 << 20;

impl Place {
    /// Makes `keep`, or a temporary directory, where `needed` bytes have to fit.
    ///
    /// # Errors
    /// If it cannot be made, has something in it already, or has no room.
    pub(super) fn make(keep: Option<&Path>, needed: u64) -> anyhow::Result<Place> {
        let place = match keep {
            Some(dir) => Place { path: kept(dir)?, _temporary: None },
            None => {
                let parent = std::env::temp_dir();
                let dir = tempfile::Builder::new()
                    .prefix("ezio-demo-")
                    .tempdir_in(&parent)
                    .map_err(|e| {
                        anyhow::anyhow!(
                            "make a directory in {}: {}",
                            parent.display(),
                            io_reason(&e)
                        )
                    })?;
                Place { path: dir.path().to_owned(), _temporary: Some(dir) }
            }
        };
        place.check_room(needed.saturating_add(SPARE))?;
        Ok(place)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn check_room(&self, needed: u64) -> anyhow::Result<()> {
        let shown = self.path.parent().unwrap_or(&self.path).display();
        let room = rustix::fs::statvfs(&self.path).map_err(|e| {
            anyhow::anyhow!("find out the room in {shown}: {}", io_reason(&e.into()))
        })?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        ensure!(
            free >= needed,
            "{shown} has room for {}, but the demo needs {}; take less with --size or --clients, or \
             another place with TMPDIR=DIR or --keep DIR",
            Bytes(free),
            Bytes(needed)
        );
        Ok(())
    }
}

fn kept(dir: &Path) -> anyhow::Result<PathBuf> {
    let fail = |e: std::io::Error| {
        anyhow::anyhow!("make the directory {}: {}", dir.display(), io_reason(&e))
    };
    std::fs::create_dir_all(dir).map_err(fail)?;
    let empty = std::fs::read_dir(dir).map_err(fail)?.next().is_none();
    ensure!(empty, "{} is not empty; give --keep a new directory", dir.display());
    // The processes get it as an argument, and may be told of elsewhere.
    std::path::absolute(dir).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_without_room_is_refused_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let why = Place::make(Some(&dir.path().join("new")), u64::MAX / 2).unwrap_err().to_string();
        assert!(why.contains("has room for") && why.contains("--size"), "{why}");
    }

    #[test]
    fn what_is_there_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mine"), "x").unwrap();
        let why = Place::make(Some(dir.path()), 0).unwrap_err().to_string();
        assert!(why.contains("is not empty"), "{why}");
        let empty = dir.path().join("new");
        assert_eq!(Place::make(Some(&empty), 0).unwrap().path(), empty);
        assert!(empty.exists());
    }

    #[test]
    fn a_temporary_place_is_removed() {
        let place = Place::make(None, 0).unwrap();
        let path = place.path().to_owned();
        assert!(path.is_dir());
        drop(place);
        assert!(!path.exists());
    }
}
