//! Disks with a table and two file systems, and used ones of the same size.

use crate::disk::Disk;
use crate::namespaces::mounts;
use crate::world::text;
use lab::{FileSystem, LoopOptions, Tree};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use swarm::layout::Extent;
use swarm::metainfo::Metainfo;

/// What a disk has in its table, and which file systems.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// `gpt` or `dos`, as `sfdisk` calls it.
    pub(crate) label: &'static str,
    /// The type of the first partition there.
    pub(crate) kind: &'static str,
    pub(crate) file_systems: [FileSystem; 2],
}

/// Where the first partition begins, and what is left free between and behind them.
const GAP: u64 = 1 << 20;

/// About what the files of a file system hold.
const TREE_LEN: u64 = 40 << 20;

impl Plan {
    fn disk_len(&self) -> u64 {
        self.file_systems.iter().map(|kind| kind.device_len() + GAP).sum::<u64>() + 2 * GAP
    }

    /// A disk with everything, of random files of which `seed` chooses which.
    pub(crate) fn full(&self, path: PathBuf, seed: u64) -> Disk {
        File::create(&path).unwrap().set_len(self.disk_len()).unwrap();
        partition(&path, &self.table());
        let disk = attach(path);
        let _mounts = mounts();
        for (number, kind) in (1..).zip(self.file_systems) {
            let partition = disk.device().partition(number).unwrap();
            kind.make(&partition).unwrap();
            let tree = Tree { seed: seed + u64::from(number), bytes: TREE_LEN };
            kind.fill(&partition, tree).unwrap();
            kind.fsck(&partition).unwrap();
        }
        disk.sync();
        disk
    }

    /// A disk of the same size that somebody has used: another table, and bytes that are no file
    /// system.
    pub(crate) fn used(&self, path: PathBuf) -> Disk {
        self.fill_with_rubbish(&path);
        partition(&path, "label: dos\nstart=8192, size=65536\n");
        attach(path)
    }

    /// The same with the table of this plan.
    pub(crate) fn partitioned(&self, path: PathBuf) -> Disk {
        self.fill_with_rubbish(&path);
        partition(&path, &self.table());
        attach(path)
    }

    fn fill_with_rubbish(&self, path: &Path) {
        let (file, block) = (File::create(path).unwrap(), vec![0xEE; 1 << 20]);
        (0..self.disk_len()).step_by(1 << 20).for_each(|at| file.write_all_at(&block, at).unwrap());
        file.set_len(self.disk_len()).unwrap();
    }

    /// Panics unless both disks have the same partitions, the same files, and clean file systems.
    pub(crate) fn check(&self, source: &Disk, target: &Disk) {
        let table = |disk: &Disk| {
            let mut command = lab::tool::words("sfdisk --dump");
            let dump = lab::tool::run(command.arg(disk.path())).unwrap();
            dump.replace(text(disk.path()), "disk")
        };
        assert_eq!(table(target), table(source));
        let _mounts = mounts();
        for (number, kind) in (1..).zip(self.file_systems) {
            let [from, to] = [source, target].map(|d| d.device().partition(number).unwrap());
            kind.fsck(&to).unwrap();
            let [from, to] = [from, to].map(|path| kind.listing(&path).unwrap().expect("files"));
            assert!(from.count() > 10, "{} files in partition {number}", from.count());
            assert_eq!(to.difference(&from), None, "partition {number}");
        }
    }

    fn table(&self) -> String {
        let sectors = self.file_systems.map(|kind| kind.device_len() / 512);
        let gap = GAP / 512;
        let second = 2 * gap + sectors[0];
        format!(
            "label: {}\nstart={gap}, size={}, type={}\nstart={second}, size={}, type=linux\n",
            self.label, sectors[0], self.kind, sectors[1]
        )
    }
}

/// Writes a table, as `sfdisk` reads it, to a disk's file.
fn partition(path: &Path, table: &str) {
    let script = path.with_extension("table");
    std::fs::write(&script, table).unwrap();
    let mut sfdisk = lab::tool::words("sfdisk --quiet --wipe always");
    lab::tool::run(sfdisk.arg(path).stdin(File::open(&script).unwrap())).unwrap();
}

fn attach(path: PathBuf) -> Disk {
    Disk::of(path, LoopOptions { partscan: true, ..LoopOptions::default() })
}

/// `loop7p2`, as Clonezilla wants it.
pub(crate) fn partition_name(disk: &Disk, number: u32) -> String {
    let path = disk.device().partition(number).unwrap();
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// `loop7`.
pub(crate) fn name(disk: &Disk) -> &str {
    disk.path().file_name().unwrap().to_str().unwrap()
}

/// Panics unless both devices have the same bytes in all extents of the torrent.
pub(crate) fn check_extents(torrent: &Path, source: &Path, target: &Path) {
    let metainfo = Metainfo::parse(std::fs::read(torrent).unwrap()).unwrap();
    let (source, target) = (File::open(source).unwrap(), File::open(target).unwrap());
    for &Extent { offset, len } in metainfo.layout().extents() {
        let len = usize::try_from(len).unwrap();
        let (mut wanted, mut found) = (vec![0; len], vec![0; len]);
        source.read_exact_at(&mut wanted, offset).unwrap();
        target.read_exact_at(&mut found, offset).unwrap();
        assert!(found == wanted, "the extent at {offset:#x} differs");
    }
}
