//! The test disk: a file that fails, dawdles and forgets on command.
//!
//! It is a FUSE with one file, served by a thread of the test. Every read, write and fsync of the
//! file arrives there, none is answered by a cache. As root a [`LoopDevice`](crate::LoopDevice) over
//! [`TestDisk::path`] makes a block device of it: the kernel's loop driver passes flushes
//! (`REQ_OP_FLUSH`) as fsync and waits for each write.
//!
//! A loop device has a page cache of its own in front of the disk, as every block device has. So
//! - what is written to it is on the disk after fsync or with O_DIRECT, not before;
//! - a range that was read may be read again though the disk fails by now;
//! - a power cut takes this machine's memory too. The order is: [`TestDisk::cut_power`], then
//!   [`LoopDevice::forget_cache`](crate::LoopDevice::forget_cache), which drops what could not be
//!   written, then [`TestDisk::power_on`]. Or drop the loop device and attach a new one.
//!
//! EZIO asks the kernel to read ahead (`POSIX_FADV_WILLNEED`). On a block device that fills its
//! cache; on the file itself it is read into a cache that nobody looks at, and counted twice.
//!
//! Nothing is left when the process ends, in whatever way: the mount is detached as soon as the file
//! is open, and goes with the last open file. Dropping the disk while a loop device is still over it
//! does no harm, it is served until that has gone too.

mod failure;
mod medium;
mod model;
mod server;

pub use failure::{Failure, Fault, Loss};
pub use model::{HardDisk, Model};

use crate::Need;
use anyhow::{Context as _, Result};
use failure::Access;
use fuser::Errno;
use medium::{Medium, SECTOR};
use model::Head;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// A disk in memory, full of zeros at first.
#[derive(Debug)]
pub struct TestDisk {
    path: PathBuf,
    shared: Arc<Shared>,
    /// Keeps the file system, and with it its thread.
    _file: File,
}

/// What a disk has done since it was made, or since [`TestDisk::take_stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reads that succeeded. The kernel cuts them at 1 MiB.
    pub reads: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// Flushes that succeeded.
    pub flushes: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes that were written.
    pub written_bytes: u64,
    /// Reads and writes that did not begin where the last one ended, whatever the [`Model`].
    pub seeks: u64,
    /// How long the disk was busy according to its [`Model`].
    pub busy: Duration,
}

impl TestDisk {
    /// What this needs of the machine.
    pub const NEEDS: [Need; 1] = [Need::Fuse];

    /// Makes a disk of `len` bytes. It takes memory for what is written, twice.
    ///
    /// # Errors
    /// If there is no FUSE, or no right to mount one.
    pub fn new(len: u64, model: Model) -> Result<TestDisk> {
        let medium = Medium::new(usize::try_from(len)?);
        let shared = Arc::new(Shared(Mutex::new(Drive::new(medium, model))));
        let file = server::start(Arc::clone(&shared)).context("make a test disk")?;
        // Of this process and not of `self`, so that other processes find it.
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into();
        Ok(TestDisk { path, shared, _file: file })
    }

    /// Makes a disk that holds what the file or device `source` holds, flushed.
    ///
    /// # Errors
    /// As [`TestDisk::new`]; if `source` cannot be read.
    pub fn of(source: &Path, model: Model) -> Result<TestDisk> {
        let mut file = File::open(source).with_context(|| format!("open {}", source.display()))?;
        let len = std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0))?;
        let disk = TestDisk::new(len, model)?;
        let loaded = disk.shared.lock().medium.load(source);
        loaded.with_context(|| format!("read {}", source.display()))?;
        Ok(disk)
    }

    /// The file. Any process of this user can open it as long as the disk lives.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets operations fail from now on. Several orders are asked in the order in which they were
    /// given; the first that fires decides, and those behind it do not count the operation.
    pub fn fail(&self, failure: Failure) {
        self.shared.lock().failures.push(failure);
    }

    /// Ends all failures. The power stays as it is.
    pub fn heal(&self) {
        self.shared.lock().failures.clear();
    }

    /// Changes how long operations take that begin from now on.
    pub fn set_model(&self, model: Model) {
        self.shared.lock().model = model;
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.lock().stats
    }

    /// The same, and counts from zero again.
    pub fn take_stats(&self) -> Stats {
        std::mem::take(&mut self.shared.lock().stats)
    }

    /// Takes the power away: what was not flushed is lost, and every operation fails with EIO, those
    /// that are under way too, until [`TestDisk::power_on`].
    pub fn cut_power(&self, loss: Loss) {
        self.shared.lock().cut_power(loss);
    }

    /// Gives the power back.
    pub fn power_on(&self) {
        self.shared.lock().has_power = true;
    }

    /// Whether it has power: a [`Fault::PowerCut`] may have come.
    #[must_use]
    pub fn has_power(&self) -> bool {
        self.shared.lock().has_power
    }

    /// The bytes `range` as the medium has them, whatever fails. A loop device may have others in its
    /// cache.
    ///
    /// # Panics
    /// If they are not on the disk.
    #[must_use]
    pub fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let drive = self.shared.lock();
        assert!(range.end <= drive.medium.len(), "{range:?} is not on the disk");
        let clipped = drive.medium.clip(range.start, range.end - range.start);
        drive.medium.read(clipped).to_vec()
    }
}

#[derive(Debug)]
struct Shared(Mutex<Drive>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Drive> {
        // A test that panics with the lock must not stop whoever waits for an answer of the disk.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The disk without the file system in front of it.
struct Drive {
    medium: Medium,
    model: Model,
    head: Head,
    failures: Vec<Failure>,
    stats: Stats,
    has_power: bool,
    /// When it was last written, for `stat`.
    written_at: SystemTime,
}

/// How an operation is going to go.
struct Plan {
    done_at: Instant,
    /// What of it will happen.
    range: Range<usize>,
    is_seek: bool,
    time: Duration,
    /// Which byte of what is written becomes another.
    flip: Option<usize>,
}

impl Drive {
    fn new(medium: Medium, model: Model) -> Drive {
        Drive {
            medium,
            model,
            head: Head::new(),
            failures: Vec::new(),
            stats: Stats::default(),
            has_power: true,
            written_at: SystemTime::now(),
        }
    }

    /// Decides what becomes of an operation. One that fails takes no time.
    fn begin(&mut self, kind: Access, offset: u64, len: u64) -> Result<Plan, Errno> {
        let mut range = self.medium.clip(offset, len);
        let mut flip = None;
        match self.fault(kind, offset..offset.saturating_add(len)) {
            Ok(Some(Fault::Short)) => range.end = shortened(&range),
            Ok(_) if kind == Access::Write && range.is_empty() => {
                return self.failed(Errno::ENOSPC);
            }
            Ok(Some(Fault::Flip(at))) => flip = usize::try_from(at).ok(),
            Ok(_) => {}
            Err(error) => return self.failed(error),
        }
        if kind == Access::Flush {
            // Writes have taken their time already.
            let done_at = Instant::now();
            return Ok(Plan { done_at, range, is_seek: false, time: Duration::ZERO, flip: None });
        }
        let (to, len) = (range.start as u64, range.len() as u64);
        let service = self.head.serve(&self.model, to, len, self.medium.len());
        let model::Service { done_at, time, is_seek } = service;
        let flip = flip.filter(|at| kind == Access::Write && range.contains(at));
        Ok(Plan { done_at, range, is_seek, time, flip })
    }

    /// Counts the operation, whose time is over.
    fn finish(&mut self, kind: Access, plan: &Plan) -> Result<(), Errno> {
        if !self.has_power {
            return self.failed(Errno::EIO);
        }
        let len = plan.range.len() as u64;
        match kind {
            Access::Read => {
                self.stats.reads += 1;
                self.stats.read_bytes += len;
            }
            Access::Write => {
                self.stats.writes += 1;
                self.stats.written_bytes += len;
            }
            Access::Flush => self.stats.flushes += 1,
        }
        self.stats.seeks += u64::from(plan.is_seek);
        self.stats.busy += plan.time;
        Ok(())
    }

    /// The error that an operation is to fail with, or that it is to be short.
    fn fault(&mut self, kind: Access, touched: Range<u64>) -> Result<Option<Fault>, Errno> {
        if !self.has_power {
            return Err(Errno::EIO);
        }
        let met = self.failures.iter_mut().find_map(|failure| failure.meet(kind, &touched));
        match met {
            None | Some(Fault::Short | Fault::Flip(_)) => Ok(met),
            Some(Fault::Io) => Err(Errno::EIO),
            Some(Fault::NoSpace) => Err(Errno::ENOSPC),
            Some(Fault::ReadOnly) => Err(Errno::EROFS),
            Some(Fault::NoDevice) => Err(Errno::ENODEV),
            Some(Fault::PowerCut(loss)) => {
                self.cut_power(loss);
                Err(Errno::EIO)
            }
        }
    }

    fn cut_power(&mut self, loss: Loss) {
        self.medium.cut_power(loss);
        self.has_power = false;
    }

    fn failed<T>(&mut self, error: Errno) -> Result<T, Errno> {
        self.stats.failed += 1;
        Err(error)
    }
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drive").field("stats", &self.stats).finish_non_exhaustive()
    }
}

/// Where about half of it ends, in whole sectors.
fn shortened(range: &Range<usize>) -> usize {
    let sectors = range.len() as u64 / SECTOR / 2;
    if sectors == 0 { range.end } else { range.start + (sectors * SECTOR) as usize } // less than it
}
