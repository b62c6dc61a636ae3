//! A mounted file system, for as long as the value lives.

use crate::tool;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A device mounted on a directory of its own. Dropping it unmounts.
#[derive(Debug)]
pub struct Mount {
    /// No `TempDir`: that would delete what is in the file system if unmounting fails.
    dir: PathBuf,
    is_mounted: bool,
}

impl Mount {
    /// Mounts the block device `device` with the kernel's type `kind` (or that of a program
    /// `mount.<kind>`) and the comma-separated `options`, which may be empty.
    ///
    /// The device must be a block device, also for FUSE: only then does unmounting wait until the
    /// FUSE process has written everything (the kernel sends FUSE_DESTROY to "fuseblk" only).
    ///
    /// # Errors
    /// What `mount` said.
    pub fn new(device: &Path, kind: &str, options: &str) -> Result<Mount> {
        let mut mount = Mount { dir: tempfile::tempdir()?.keep(), is_mounted: false };
        let mut command = tool::words("mount -t");
        command.arg(kind);
        if !options.is_empty() {
            command.args(["-o", options]);
        }
        tool::run(command.arg(device).arg(&mount.dir))?;
        mount.is_mounted = true;
        Ok(mount)
    }

    /// The directory it is mounted on.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Unmounts now: everything is on the device when this returns.
    ///
    /// # Errors
    /// What `umount` said, for example that the file system is busy.
    pub fn unmount(mut self) -> Result<()> {
        self.umount()
    }

    /// Tries again for [`BUSY_WAIT`]: a child that another thread is just starting holds our open
    /// files until it executes its program, and FUSE releases files after `close` has returned.
    fn umount(&mut self) -> Result<()> {
        let begin = Instant::now();
        while self.is_mounted {
            match tool::run(tool::words("umount").arg(&self.dir)) {
                Ok(_) => self.is_mounted = false,
                Err(error) if begin.elapsed() > BUSY_WAIT => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        Ok(std::fs::remove_dir(&self.dir)?)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.dir.exists()
            && let Err(error) = self.umount()
        {
            eprintln!("{}: {error:#}", self.dir.display());
        }
    }
}

/// Long for a busy machine; whoever uses a file system longer than this will not stop by itself.
const BUSY_WAIT: Duration = Duration::from_secs(5);
