//! The FUSE side: a file system with one file, answered by one thread.
//!
//! One thread, because a disk with one head does one thing at a time, and so that "after the tenth
//! write" has a meaning. It is fast enough: see `examples/disk_rate.rs`.

use super::failure::Access;
use super::{Drive, Shared};
use anyhow::{Context as _, Result};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};
use nix::sched::CloneFlags;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant, SystemTime};

/// Starts the thread that answers for `drive` and returns the file, opened, and nothing else left:
/// the mount is gone from its directory, and lives as long as somebody has the file open.
pub(super) fn start(drive: Arc<Shared>) -> Result<File> {
    let dir = tempfile::tempdir()?;
    let (sender, mounted) = channel();
    let path = dir.path().to_owned();
    // Nobody waits for its end: it comes when the last user of the file has gone.
    std::thread::Builder::new()
        .name("test disk".to_owned())
        .spawn(move || serve(Server { drive }, path, &sender))?;
    mounted.recv().context("the thread of the test disk ended")??;
    let file = File::options().read(true).write(true).open(dir.path().join(NAME));
    detach(dir.path())?;
    file.with_context(|| format!("open the test disk in {}", dir.path().display()))
}

/// Takes the mount out of the tree. Processes that end in any way, SIGKILL included, leave no mount.
fn detach(dir: &Path) -> Result<()> {
    let result = rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH);
    if result == Err(rustix::io::Errno::PERM) {
        let mut fusermount = crate::tool::words("fusermount3 -u -z --");
        return crate::tool::run(fusermount.arg(dir)).map(drop);
    }
    result.with_context(|| format!("detach {}", dir.display()))
}

/// The thread's life. `mounted` hears whether it could mount.
fn serve(server: Server, dir: PathBuf, mounted: &Sender<Result<()>>) {
    let mut config = fuser::Config::default();
    let name = format!("ezio-test-disk-{}", std::process::id());
    config.mount_options = vec![MountOption::FSName(name)];
    let session = own_file_table().and_then(|()| {
        let session = Session::new(server, &dir, &config);
        session.with_context(|| format!("mount a FUSE on {}", dir.display()))
    });
    match session {
        Ok(session) => {
            // If nobody listens, nobody has opened the file.
            let _ = mounted.send(Ok(()));
            // Ends without an error when the file system has gone, and has nobody to tell another to:
            // users of the file get ENOTCONN.
            let _ = session.run();
        }
        Err(error) => drop(mounted.send(Err(error))),
    }
}

/// Gives this thread, and those that it starts, a table of open files of its own, with nothing but
/// the standard streams in it.
///
/// The kernel fails the operations of a FUSE whose server has closed `/dev/fuse`. With the process's
/// table, a server that was killed would not close it before its last thread is gone, and that thread
/// may wait for an operation, for which there is nobody any more: both would stay for ever. And no
/// copy of somebody's open file may live as long as this thread: of a pipe, of another disk.
fn own_file_table() -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_FILES).context("unshare the table of open files")?;
    let mut numbers: Vec<i32> = Vec::new();
    for entry in std::fs::read_dir("/proc/thread-self/fd")? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // The one of the directory itself is closed already.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

struct Server {
    drive: Arc<Shared>,
}

impl Server {
    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let drive = self.drive.lock();
        let is_dir = ino == INodeNo::ROOT;
        let len = drive.medium.len();
        FileAttr {
            ino,
            size: if is_dir { 0 } else { len },
            blocks: if is_dir { 0 } else { len.div_ceil(512) },
            atime: SystemTime::UNIX_EPOCH,
            mtime: drive.written_at,
            ctime: drive.written_at,
            crtime: SystemTime::UNIX_EPOCH,
            kind: if is_dir { FileType::Directory } else { FileType::RegularFile },
            perm: if is_dir { 0o700 } else { 0o600 },
            nlink: 1,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// Decides about an operation, waits as long as it takes, and does it.
    fn operate<T>(
        &self,
        kind: Access,
        offset: u64,
        len: u64,
        act: impl FnOnce(&mut Drive, usize, usize) -> T,
    ) -> Result<T, Errno> {
        let plan = self.drive.lock().begin(kind, offset, len)?;
        std::thread::sleep(plan.done_at.saturating_duration_since(Instant::now()));
        let mut drive = self.drive.lock();
        drive.finish(kind, &plan)?;
        let done = act(&mut drive, plan.range.start, plan.range.end);
        if let Some(at) = plan.flip {
            let wrong = drive.medium.read(at..at + 1)[0] ^ 0x10;
            drive.medium.write(at, &[wrong]);
        }
        Ok(done)
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // More than it takes is refused by naming what it takes; both are defaults then.
        let _ = config.set_max_write(REQUEST_MAX);
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == NAME {
            reply.entry(&Duration::ZERO, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &self.attributes(ino));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let attributes = self.attributes(ino);
        if size.is_some_and(|size| size != attributes.size) {
            // A disk keeps its length.
            reply.error(Errno::EPERM);
        } else {
            reply.attr(&Duration::ZERO, &attributes);
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // No page cache of this file: every read and write comes here, before it returns. Closing it
        // is no flush.
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        // Answered from the medium itself, in one copy, hence under the lock.
        let reply = std::cell::Cell::new(Some(reply));
        let answer = |drive: &mut Drive, start, end| {
            if let Some(reply) = reply.take() {
                reply.data(drive.medium.read(start..end));
            }
        };
        let done = self.operate(Access::Read, offset, size.into(), answer);
        if let (Err(error), Some(reply)) = (done, reply.take()) {
            reply.error(error);
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let done = self.operate(Access::Write, offset, data.len() as u64, |drive, start, end| {
            drive.medium.write(start, &data[..end - start]);
            drive.written_at = SystemTime::now();
            end - start
        });
        match done {
            // At most `REQUEST_MAX`.
            Ok(count) => reply.written(count as u32),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.operate(Access::Flush, 0, 0, |drive, _, _| drive.medium.flush()) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }
}

const NAME: &str = "disk";

const FILE: INodeNo = INodeNo(2);

/// Bytes of a request at most: what the kernel allows by default (`fs.fuse.max_pages_limit`, 256).
const REQUEST_MAX: u32 = 1 << 20;
