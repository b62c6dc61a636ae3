//! Two or three machines on a switch, images, and processes whose every wait is bounded.

use crate::disk::Disk;
use crate::ezio;
use ezio::legacy::Client;
use ezio::legacy::messages::{AddRequest, Torrent};
use lab::{Lan, Links};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use swarm::layout::{Extent, Layout};
use swarm::metainfo::{Draft, Metainfo};
use tempfile::TempDir;

/// What no step of a test takes, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Where daemons answer gRPC, each on its own machine.
pub(crate) const GRPC: &str = "127.0.0.1:50051";

/// Machines, and a directory for everything.
pub(crate) struct World {
    pub(crate) lan: Lan,
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) fn new(machines: usize) -> World {
        World::with_links(machines, &Links::default())
    }

    pub(crate) fn with_links(machines: usize, links: &Links) -> World {
        let lan = Lan::new(machines, links).unwrap();
        World { lan, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a program on a machine; its output goes to files.
    pub(crate) fn start(&self, machine: usize, program: &Path, args: &[&str]) -> Process {
        Process::start(self.lan.command(machine, program).args(args), self.dir.path())
    }

    /// Starts a daemon and waits until it answers.
    pub(crate) fn daemon(&self, machine: usize, args: &[&str]) -> Process {
        self.daemon_by(machine, ezio(), args)
    }

    /// The same by a program that becomes a daemon.
    pub(crate) fn daemon_by(&self, machine: usize, program: &Path, args: &[&str]) -> Process {
        let mut daemon = self.start(machine, program, args);
        wait("the daemon answers", || {
            assert!(daemon.code().is_none(), "it has ended: {}", daemon.all());
            self.lan.within(machine, || Client::connect(GRPC).is_ok()).unwrap()
        });
        daemon
    }

    /// Runs a helper program by its name to its end: exit code and all of its output.
    pub(crate) fn helper(&self, machine: usize, name: &str, args: &[&str]) -> (i32, String) {
        let link = self.path(name);
        if !link.exists() {
            symlink(ezio(), &link).unwrap();
        }
        let mut process = self.start(machine, &link, args);
        let code = process.end().code().expect("no signal ends it");
        (code, process.all())
    }

    /// Asks the daemon of a machine.
    pub(crate) fn ask<T: Send>(
        &self,
        machine: usize,
        ask: impl FnOnce(&mut Client) -> T + Send,
    ) -> T {
        self.lan.within(machine, || ask(&mut Client::connect(GRPC).unwrap())).unwrap()
    }

    pub(crate) fn add(&self, machine: usize, image: &Image, path: &Path, seed: bool) {
        let request = AddRequest {
            torrent: image.metainfo.as_bytes().to_vec(),
            save_path: path.to_str().unwrap().to_owned(),
            seeding_mode: seed,
            ..AddRequest::default()
        };
        assert!(self.ask(machine, |daemon| daemon.add(request)).unwrap().result);
    }

    pub(crate) fn torrents(&self, machine: usize) -> Vec<Torrent> {
        self.ask(machine, |daemon| daemon.status(&[])).unwrap()
    }

    pub(crate) fn wait_finished(&self, machine: usize) {
        wait("all torrents are finished", || {
            self.torrents(machine).iter().all(|torrent| torrent.is_finished)
        });
    }
}

/// Looks some times a second until it `is` so.
pub(crate) fn wait(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A program that runs beside the test. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    pub(crate) fn start(command: &mut Command, dir: &Path) -> Process {
        // Kept files in a directory that the test removes.
        let log = || tempfile::NamedTempFile::new_in(dir).unwrap().keep().unwrap();
        let ((out, out_path), (err, err_path)) = (log(), log());
        // Never written to; a program that ends with its input ends with this process.
        let child = command.stdin(Stdio::piped()).stdout(out).stderr(err).spawn().unwrap();
        Process { child, out: out_path, err: err_path }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.id();
        lab::tool::run(&mut lab::tool::words(&format!("kill -{name} {pid}"))).unwrap();
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// `None` while it runs.
    pub(crate) fn code(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn end(&mut self) -> ExitStatus {
        wait("a program ends", || self.code().is_some());
        self.code().expect("it has ended")
    }

    pub(crate) fn output(&self) -> String {
        read(&self.out)
    }

    pub(crate) fn errors(&self) -> String {
        read(&self.err)
    }

    pub(crate) fn all(&self) -> String {
        self.output() + &self.errors()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("---- {}", self.all());
        }
    }
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A torrent with extents of awkward lengths, and the bytes of its disk.
pub(crate) struct Image {
    pub(crate) metainfo: Metainfo,
    pub(crate) torrent: PathBuf,
    bytes: Vec<u8>,
}

/// Bytes of every disk.
const DISK_LEN: u64 = 32 << 20;

/// What targets hold before.
const BACKGROUND: u8 = 0xEE;

impl Image {
    /// Of random bytes, of which `seed` chooses which.
    pub(crate) fn new(dir: &Path, name: &str, seed: u64) -> Image {
        let extents =
            [(0, 1_000_003), (0x20_0000, 9_000_001), (0xC0_0000, 7), (0xF0_0001, 5_500_123)];
        let extents = extents.map(|(offset, len)| Extent { offset, len }).to_vec();
        let layout = Layout::new(extents).unwrap();
        let mut bytes = vec![0; usize::try_from(DISK_LEN).unwrap()];
        lab::Random::new(seed).fill(&mut bytes);
        let part = |e: &Extent| bytes[e.offset as usize..e.end() as usize].to_vec();
        let image: Vec<u8> = layout.extents().iter().flat_map(part).collect();
        let hashes: Vec<_> = image.chunks(256 << 10).map(ezio::sha1::digest).collect();
        let draft = Draft {
            name: &[name],
            layout: &layout,
            piece_len: 256 << 10,
            hashes: &hashes,
            trackers: &[],
            created_by: None,
            creation_date: None,
            origin: None,
        };
        let metainfo = Metainfo::parse(draft.encode()).unwrap();
        let torrent = dir.join(format!("{name}.torrent"));
        std::fs::write(&torrent, metainfo.as_bytes()).unwrap();
        Image { metainfo, torrent, bytes }
    }

    pub(crate) fn hash(&self) -> String {
        self.metainfo.info_hash().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn torrent(&self) -> &str {
        self.torrent.to_str().unwrap()
    }

    /// The disk that is copied, as a loop device.
    pub(crate) fn source(&self, path: PathBuf) -> Disk {
        let disk = Disk::new(path, DISK_LEN, 512);
        write(disk.path(), &self.bytes);
        disk
    }

    /// A disk to copy to.
    pub(crate) fn target(&self, path: PathBuf) -> Disk {
        let disk = Disk::new(path, DISK_LEN, 512);
        write(disk.path(), &vec![BACKGROUND; self.bytes.len()]);
        disk
    }

    /// Panics unless the disk holds the image and, outside of it, what it held before.
    pub(crate) fn check(&self, disk: &Path) {
        let mut wanted = vec![BACKGROUND; self.bytes.len()];
        for e in self.metainfo.layout().extents() {
            let range = e.offset as usize..e.end() as usize;
            wanted[range.clone()].copy_from_slice(&self.bytes[range]);
        }
        let mut found = vec![0; wanted.len()];
        File::open(disk).unwrap().read_exact_at(&mut found, 0).unwrap();
        let differs = (0..found.len()).find(|&at| found[at] != wanted[at]);
        assert_eq!(differs, None, "{} differs there", disk.display());
    }

    /// Writes the block files below `dir`, in a directory with the torrent's name.
    pub(crate) fn write_files(&self, dir: &Path) {
        for (path, bytes) in self.files() {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    pub(crate) fn check_files(&self, dir: &Path) {
        assert_eq!(self.wrong_file(dir), None, "it differs, or is not there");
    }

    /// A block file below `dir` that does not hold what it should, if there is one.
    pub(crate) fn wrong_file(&self, dir: &Path) -> Option<PathBuf> {
        let wrong = |(path, bytes): &(PathBuf, &[u8])| {
            !std::fs::read(dir.join(path)).is_ok_and(|found| found == *bytes)
        };
        self.files().find(wrong).map(|(path, _)| path)
    }

    fn files(&self) -> impl Iterator<Item = (PathBuf, &[u8])> {
        let name = String::from_utf8_lossy(self.metainfo.name()).into_owned();
        self.metainfo.layout().extents().iter().map(move |e| {
            let path = Path::new(&name).join(format!("{:032x}", e.offset));
            (path, &self.bytes[e.offset as usize..e.end() as usize])
        })
    }
}

fn write(path: &Path, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync_all().unwrap();
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the test")
}
