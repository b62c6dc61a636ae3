//! `ezio serve` and `ezio deploy` on disks that fail, vanish and forget: real processes, test disks
//! as files and below loop devices. What must hold: an image that is said to be there is there, and
//! one that is not never looks as if it were.

mod killed;
mod power;
mod source;
mod target;
mod verify;

use lab::disk::Model;
use lab::{LoopDevice, LoopOptions, Need, Random, Running, TestDisk, tool};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;
use tempfile::TempDir;

/// Bytes of the image: 64 pieces.
const LEN: usize = 16 << 20;

/// Bytes of a piece of it, which `capture` chooses.
const PIECE_LEN: u64 = 256 << 10;

/// Bytes that are written last.
const HEAD: Range<u64> = 0..4096;

/// Far more than anything here takes, also on a machine with other work. A process that is not done
/// then hangs; it is killed, and the test fails.
const WAIT: Duration = Duration::from_secs(120);

/// An image, and the `ezio serve` that has it.
struct Served {
    dir: TempDir,
    image: Vec<u8>,
    server: Process,
    url: String,
}

impl Served {
    fn new() -> Served {
        let (dir, image) = image();
        Served::from(&dir.path().join("disk.img"), image, dir)
    }

    /// Serves `source`, which holds `image`.
    fn from(source: &Path, image: Vec<u8>, dir: TempDir) -> Served {
        let (server, url) = Running::serve(ezio(), &[text(source)]).unwrap();
        Served { dir, image, server: Process::new(server), url }
    }

    /// Deploys to `target`, and keeps what an interrupted run needs beside the image.
    fn deploy(&self, target: &Path) -> Process {
        let name = text(target).replace('/', "-");
        let state = self.dir.path().join(format!("state{name}"));
        let args = ["deploy", &self.url, "--to", text(target), "--state", text(&state)];
        Process::new(Running::start(ezio(), &args).unwrap())
    }

    /// Deploys to a file that nothing is wrong with.
    fn deploy_well(&self, name: &str) -> (Process, PathBuf) {
        let path = self.dir.path().join(name);
        (self.deploy(&path), path)
    }

    fn check(&self, path: &Path) {
        assert!(std::fs::read(path).unwrap() == self.image, "{} differs", path.display());
    }
}

/// A directory with the file `disk.img` in it, and its bytes.
fn image() -> (TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let mut image = vec![0; LEN];
    Random::new(11).fill(&mut image);
    std::fs::write(dir.path().join("disk.img"), &image).unwrap();
    (dir, image)
}

/// A running `ezio` that is killed when it takes too long.
struct Process {
    running: Running,
    _watch: Sender<()>,
}

impl Process {
    fn new(running: Running) -> Process {
        let (sender, over) = channel();
        let pid = running.pid();
        std::thread::spawn(move || {
            if over.recv_timeout(WAIT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("process {pid} hangs");
                let _ = tool::run(&mut tool::words(&format!("kill -KILL {pid}")));
            }
        });
        Process { running, _watch: sender }
    }

    /// Waits until it says that the image is on its target.
    #[track_caller]
    fn finished(&mut self) {
        self.running.result().unwrap();
    }

    #[track_caller]
    fn ends_well(mut self) {
        self.finished();
        self.ends_well_after_result();
    }

    #[track_caller]
    fn ends_well_after_result(self) {
        assert_eq!(self.running.code().unwrap(), Some(0));
    }

    /// Waits for its end, which must be a failure without a result before; says why it failed.
    #[track_caller]
    fn fails(mut self) -> String {
        let error = self.running.error().unwrap();
        assert_eq!(self.running.code().unwrap(), Some(1), "{error}");
        error
    }

    /// The next note that contains `words`.
    #[track_caller]
    fn note(&mut self, words: &str) -> String {
        loop {
            let event = self.running.event().unwrap();
            let event = event.unwrap_or_else(|| panic!("it ended and did not say: {words}"));
            assert_ne!(event["event"], "error", "{event}");
            let message = event["message"].as_str().unwrap_or_default();
            if message.contains(words) {
                return message.to_owned();
            }
        }
    }
}

/// A test disk to write the image to, as a file or as a block device.
struct Target {
    /// Before the disk, for it must be detached first.
    device: Option<LoopDevice>,
    disk: TestDisk,
}

/// What was on the target before.
const OLD: u8 = 0xEE;

impl Target {
    fn file(dir: &Path) -> Target {
        let old = dir.join("old");
        std::fs::write(&old, vec![OLD; LEN]).unwrap();
        Target { device: None, disk: TestDisk::of(&old, Model::Instant).unwrap() }
    }

    fn device(dir: &Path) -> Target {
        let mut target = Target::file(dir);
        let device = LoopDevice::attach(target.disk.path(), LoopOptions::default()).unwrap();
        target.device = Some(device);
        target
    }

    fn path(&self) -> &Path {
        self.device.as_ref().map_or(self.disk.path(), LoopDevice::path)
    }

    /// Forgets what the page cache has, as a machine does that is switched off; gives the power back.
    fn power_on(&self) {
        if let Some(device) = &self.device {
            device.forget_cache().unwrap();
        }
        self.disk.heal();
        self.disk.power_on();
    }

    fn bytes(&self) -> Vec<u8> {
        self.disk.bytes(0..LEN as u64)
    }

    fn head(&self) -> Vec<u8> {
        self.disk.bytes(HEAD)
    }
}

/// Runs `test` on a file, and on a block device where that can be made.
fn on_both(test: impl Fn(fn(&Path) -> Target)) {
    lab::require!(TestDisk::NEEDS);
    test(Target::file);
    lab::require!(DEVICE_NEEDS);
    test(Target::device);
}

const DEVICE_NEEDS: [Need; 3] = [Need::Fuse, Need::Root, Need::Loop];

fn ezio() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ezio"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the test")
}
