//! Loop devices: a file that the kernel shows as a block device.

use crate::tool;
use anyhow::{Context as _, Result, bail};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A loop device that goes away when it is dropped, or when its process ends in any way.
///
/// After it was attached it is opened here, then detached. The kernel postpones that until the last
/// user closes the device ("autoclear", `LO_FLAGS_AUTOCLEAR` of `linux/loop.h`), and our open file
/// is closed by the kernel even after SIGKILL. Only a process that is killed in the few
/// milliseconds between the two leaves its device behind.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    backing: PathBuf,
    /// Keeps the device attached.
    _open: File,
}

/// How a file is attached.
#[derive(Clone, Copy, Debug)]
pub struct LoopOptions {
    /// Whether writes to the device fail.
    pub read_only: bool,
    /// Bytes of a logical sector: 512, 1024, 2048 or 4096.
    pub sector_size: u32,
    /// Whether the partitions of its table become devices.
    pub partscan: bool,
}

impl Default for LoopOptions {
    fn default() -> LoopOptions {
        LoopOptions { read_only: false, sector_size: 512, partscan: false }
    }
}

impl LoopDevice {
    /// Attaches the file `backing` to a free loop device.
    ///
    /// # Errors
    /// What `losetup` or `partx` said: no right, no free device, no such file.
    pub fn attach(backing: &Path, options: LoopOptions) -> Result<LoopDevice> {
        let mut losetup = tool::words("losetup --find --show");
        losetup.arg("--sector-size").arg(options.sector_size.to_string());
        if options.read_only {
            losetup.arg("--read-only");
        }
        if options.partscan {
            losetup.arg("--partscan");
        }
        let path = PathBuf::from(tool::run(losetup.arg(backing))?.trim());
        let open = File::open(&path).with_context(|| format!("open {}", path.display()));
        tool::run(tool::words("losetup --detach").arg(&path))?;
        if options.partscan {
            // A kernel without a parser for the table finds no partition; partx brings its own,
            // and tells the kernel (BLKPG) whatever that does not know yet.
            tool::run(tool::words("partx --update").arg(&path))?;
        }
        Ok(LoopDevice { path, backing: backing.to_owned(), _open: open? })
    }

    /// The device, `/dev/loop7`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The device of partition `number`, counted from 1: `/dev/loop7p1`.
    ///
    /// # Errors
    /// If it does not appear within five seconds.
    pub fn partition(&self, number: u32) -> Result<PathBuf> {
        let node = PathBuf::from(format!("{}p{number}", self.path.display()));
        let begin = Instant::now();
        while !node.exists() {
            if begin.elapsed() > NODE_WAIT {
                bail!(
                    "partition {number} of {}: {} is missing",
                    self.path.display(),
                    node.display()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(node)
    }

    /// Cuts the backing file to `len` bytes. The device keeps its size, and reading it behind the
    /// cut fails with EIO: the kernel's own broken disk.
    ///
    /// What was read before may still be answered from the page cache, so it is dropped first.
    ///
    /// # Errors
    /// If the file cannot be cut, or the cache cannot be dropped.
    pub fn truncate_backing(&self, len: u64) -> Result<()> {
        let file = OpenOptions::new().write(true).open(&self.backing);
        file.and_then(|file| file.set_len(len))
            .with_context(|| format!("cut {} to {len} bytes", self.backing.display()))?;
        self.forget_cache()
    }

    /// Writes what the page cache holds of the device and forgets all of it (`BLKFLSBUF`): what is
    /// read next comes from the backing file. What cannot be written is forgotten too.
    ///
    /// # Errors
    /// If the device cannot be opened.
    pub fn forget_cache(&self) -> Result<()> {
        tool::run(tool::words("blockdev --flushbufs").arg(&self.path)).map(drop)
    }
}

/// `devtmpfs` makes the node before `partx` returns; where udev does it, that is a matter of
/// milliseconds on an idle machine.
const NODE_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Need;
    use std::io::{BufRead as _, BufReader, ErrorKind};
    use std::os::unix::fs::FileExt as _;
    use std::process::{Command, Stdio};

    const NEEDS: [Need; 3] = [Need::Root, Need::Loop, Need::Program("losetup")];

    fn image(dir: &Path, len: u64) -> PathBuf {
        let path = dir.join("image");
        File::create(&path).unwrap().set_len(len).unwrap();
        path
    }

    /// Whether a loop device has the backing file `image`.
    fn is_attached(image: &Path) -> bool {
        !tool::run(tool::words("losetup --associated").arg(image)).unwrap().trim().is_empty()
    }

    /// The kernel detaches after the last close, in its own time.
    fn wait_until_detached(image: &Path) {
        let begin = Instant::now();
        while is_attached(image) {
            assert!(begin.elapsed() < Duration::from_secs(10), "{} is attached", image.display());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn dropping_detaches() {
        crate::require!(NEEDS);
        let dir = tempfile::tempdir().unwrap();
        let image = image(dir.path(), 1 << 20);
        let device = LoopDevice::attach(&image, LoopOptions::default()).unwrap();
        assert!(is_attached(&image));
        drop(device);
        wait_until_detached(&image);
    }

    #[test]
    fn a_killed_process_leaves_no_device() {
        crate::require!(NEEDS);
        let dir = tempfile::tempdir().unwrap();
        let image = image(dir.path(), 1 << 20);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "loop_device::tests::holds_a_device_until_killed"])
            .env(HOLD, &image)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(
            lines.any(|line| line.unwrap().ends_with("attached")),
            "the child attached nothing"
        );
        assert!(is_attached(&image));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        wait_until_detached(&image);
    }

    /// The child of the test above; on its own it has nothing to do.
    #[test]
    fn holds_a_device_until_killed() {
        let Some(image) = std::env::var_os(HOLD) else { return };
        let _device = LoopDevice::attach(Path::new(&image), LoopOptions::default()).unwrap();
        println!("attached");
        std::thread::sleep(Duration::from_secs(60));
    }

    const HOLD: &str = "LAB_TEST_HOLD_LOOP_DEVICE";

    #[test]
    fn sector_size_and_read_only_reach_the_kernel() {
        crate::require!(NEEDS);
        let dir = tempfile::tempdir().unwrap();
        let image = image(dir.path(), 1 << 20);
        let options = LoopOptions { read_only: true, sector_size: 4096, ..Default::default() };
        let device = LoopDevice::attach(&image, options).unwrap();
        let facts = tool::run(tool::words("blockdev --getss --getro").arg(device.path())).unwrap();
        assert_eq!(facts.split_whitespace().collect::<Vec<_>>(), ["4096", "1"]);
    }

    #[test]
    fn partitions_become_devices() {
        crate::require!(NEEDS);
        let dir = tempfile::tempdir().unwrap();
        let image = image(dir.path(), 8 << 20);
        let table = dir.path().join("table");
        std::fs::write(&table, "label: dos\nstart=2048, size=2048\nstart=4096, size=4096\n")
            .unwrap();
        let mut sfdisk = tool::words("sfdisk --quiet");
        tool::run(sfdisk.arg(&image).stdin(File::open(&table).unwrap())).unwrap();
        let options = LoopOptions { partscan: true, ..Default::default() };
        let device = LoopDevice::attach(&image, options).unwrap();
        for (number, len) in [(1, "1048576"), (2, "2097152")] {
            let node = device.partition(number).unwrap();
            let size = tool::run(tool::words("blockdev --getsize64").arg(node)).unwrap();
            assert_eq!(size.trim(), len);
        }
        drop(device);
        wait_until_detached(&image);
    }

    #[test]
    fn reading_behind_the_cut_fails() {
        crate::require!(NEEDS);
        let dir = tempfile::tempdir().unwrap();
        let image = image(dir.path(), 4 << 20);
        let device = LoopDevice::attach(&image, LoopOptions::default()).unwrap();
        let file = File::open(device.path()).unwrap();
        let mut buf = [1; 4096];
        file.read_exact_at(&mut buf, 3 << 20).unwrap();
        device.truncate_backing(1 << 20).unwrap();
        file.read_exact_at(&mut buf, 0).unwrap();
        let error = file.read_exact_at(&mut buf, 3 << 20).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
        assert_ne!(error.kind(), ErrorKind::UnexpectedEof);
    }
}
