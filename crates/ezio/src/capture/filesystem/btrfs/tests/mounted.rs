//! File systems the kernel has worked on: a copy of their used bytes, and of nothing else, must be
//! as good as they are.

use std::fs;
use std::os::unix::fs::FileExt as _;

use lab::{FileSystem, Listing, LoopDevice, LoopOptions, Mount};

use super::*;

/// How a file system is made, used, and changed.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    mib: u64,
    mkfs: &'static str,
    mount: &'static str,
    files: u64,
    /// A command that gets the directory it is mounted on.
    mounted: &'static str,
    /// A command that gets its device.
    unmounted: &'static str,
}

const LIFE: Life =
    Life { mib: 600, mkfs: "", mount: "", files: 800, mounted: "true", unmounted: "true" };

const NEEDS: [Need; 5] =
    [Need::Root, Need::Loop, Need::Kernel("btrfs"), Need::Program("mkfs.btrfs"), MKFS[1]];

#[test]
fn many_files() {
    check(Life { files: 5000, ..LIFE });
}

#[test]
fn compressed_snapshots() {
    check(Life { mount: "compress-force=zstd", files: 5000, ..LIFE });
    check(Life { mount: "compress-force=zstd", mkfs: "-n 4096 -d dup", ..LIFE });
}

#[test]
fn profiles() {
    for mkfs in ["-d dup", "-m single", "-M", "-M -m dup -d dup", "-m raid0 -d raid0"] {
        check(Life { mkfs, ..LIFE });
    }
}

#[test]
fn sizes_of_nodes() {
    for mkfs in ["-n 4096", "-n 65536"] {
        check(Life { mkfs, files: 3000, ..LIFE });
    }
}

#[test]
fn features() {
    check(Life { mkfs: "-O ^skinny-metadata,^no-holes -R ^free-space-tree", ..LIFE });
    check(Life { mkfs: "-R quota", ..LIFE });
}

#[test]
fn a_large_and_an_empty_one() {
    check(Life { mib: 20 << 10, files: 3000, ..LIFE });
    check(Life { files: 0, ..LIFE });
}

#[test]
fn balanced_and_shrunk() {
    let mounted = "btrfs balance start --full-balance";
    check(Life { mounted, ..LIFE });
    let mounted = "btrfs balance start -f -mconvert=single -sconvert=single -dconvert=dup";
    check(Life { mounted, ..LIFE });
    check(Life { mounted: "btrfs filesystem resize 500M", ..LIFE });
    check(Life { mounted: "btrfs filesystem defragment -r -czstd", ..LIFE });
}

#[test]
fn with_another_id() {
    lab::require!([Need::Program("btrfstune")]);
    for unmounted in ["btrfstune -f -m", "btrfstune -f -u"] {
        check(Life { unmounted, ..LIFE });
    }
}

/// Its chunks lie around what the ext4 had where btrfs has its superblocks.
#[test]
fn converted_from_ext4() {
    lab::require!(NEEDS);
    lab::require!([Need::Program("btrfs-convert"), Need::Program("mkfs.ext4")]);
    let dir = tempfile::tempdir().unwrap();
    let source = device(&dir, "source", 400);
    tool::run(tool::words("mkfs.ext4 -q -F -b 4096").arg(source.path())).unwrap();
    let mount = Mount::new(source.path(), "ext4", "").unwrap();
    write(mount.path(), 800);
    mount.unmount().unwrap();
    tool::run(tool::words("btrfs-convert --no-progress").arg(source.path())).unwrap();
    copy_and_check(&dir, source, 400);
}

/// The one that is left has the id 2.
#[test]
fn moved_to_another_device() {
    lab::require!(NEEDS);
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (device(&dir, "first", 400), device(&dir, "second", 600));
    tool::run(tool::words("mkfs.btrfs -q -f").arg(first.path())).unwrap();
    let mount = Mount::new(first.path(), "btrfs", "").unwrap();
    write(mount.path(), 800);
    btrfs("device add -f", &[second.path(), mount.path()]);
    btrfs("balance start --full-balance -d -m", &[mount.path()]);
    rustix::fs::sync();
    let half = used(&File::open(first.path()).unwrap(), 400 << 20).unwrap_err();
    assert!(matches!(half, BtrfsError::Devices { .. }), "{half}");
    btrfs("device remove", &[first.path(), mount.path()]);
    mount.unmount().unwrap();
    drop(first);
    copy_and_check(&dir, second, 600);
}

/// As after a power cut: what was fsynced since the last commit is in log trees only.
#[test]
fn with_a_log_to_replay() {
    lab::require!(NEEDS);
    let dir = tempfile::tempdir().unwrap();
    let source = device(&dir, "source", 600);
    tool::run(tool::words("mkfs.btrfs -q -f").arg(source.path())).unwrap();
    let mount = Mount::new(source.path(), "btrfs", "").unwrap();
    write(mount.path(), 800);
    rustix::fs::sync();
    for i in 0..40 {
        let mut data = vec![0; 300_000];
        Random::new(i).fill(&mut data);
        let file = File::create(mount.path().join(format!("logged {i}"))).unwrap();
        file.write_all_at(&data, 0).unwrap();
        file.sync_all().unwrap();
    }
    let crashed = dir.path().join("crashed");
    let mut copy = tool::words("cp --sparse=always");
    tool::run(copy.arg(dir.path().join("source")).arg(&crashed)).unwrap();
    mount.unmount().unwrap();
    drop(source);

    let crashed = File::open(&crashed).unwrap();
    let superblock = Superblock::find(&crashed, 600 << 20).unwrap();
    assert!(superblock.log_root.is_some(), "nothing is in the log");
    let target = device(&dir, "target", 600);
    copy_used(&crashed, &target, 600);
    let listing = list(&target);
    assert_eq!(logged(&listing), 40);
    FileSystem::Btrfs.fsck(target.path()).unwrap();
}

fn logged(listing: &Listing) -> usize {
    let text = format!("{listing:?}");
    (0..40).filter(|i| text.contains(&format!("logged {i}\""))).count()
}

/// Mounting it replays the log, for which it must not be read-only.
fn list(device: &LoopDevice) -> Listing {
    tool::run(&mut tool::words("btrfs device scan --forget")).unwrap();
    let mount = Mount::new(device.path(), "btrfs", "").unwrap();
    let listing = Listing::of_dir(mount.path()).unwrap();
    mount.unmount().unwrap();
    listing
}

fn check(life: Life) {
    lab::require!(NEEDS);
    let dir = tempfile::tempdir().unwrap();
    let source = device(&dir, "source", life.mib);
    let mkfs = format!("mkfs.btrfs -q -f {}", life.mkfs);
    tool::run(tool::words(&mkfs).arg(source.path())).unwrap();
    if life.files > 0 {
        let mount = Mount::new(source.path(), "btrfs", life.mount).unwrap();
        write(mount.path(), life.files);
        age(mount.path());
        tool::run(tool::words(life.mounted).arg(mount.path())).unwrap();
        mount.unmount().unwrap();
    }
    tool::run(tool::words(life.unmounted).arg(source.path())).unwrap();
    println!("{life:?}");
    copy_and_check(&dir, source, life.mib);
}

/// The used bytes are what btrfs lists; with them alone, on a device of zeros, it is clean, can be
/// scrubbed (which reads every copy of everything), and has the same files.
fn copy_and_check(dir: &TempDir, source: LoopDevice, mib: u64) {
    FileSystem::Btrfs.fsck(source.path()).unwrap();
    let files = FileSystem::Btrfs.listing(source.path()).unwrap();
    let target = device(dir, "target", mib);
    let file = File::open(source.path()).unwrap();
    let found = copy_used(&file, &target, mib);
    assert_eq!(found, expected(source.path(), mib << 20));
    // Two devices with one id are a danger to programs that look for the parts of a file system.
    drop((file, source));
    FileSystem::Btrfs.fsck(target.path()).unwrap();
    let copies = FileSystem::Btrfs.listing(target.path()).unwrap();
    assert_eq!(files.zip(copies).and_then(|(files, copies)| files.difference(&copies)), None);
}

fn copy_used(source: &File, target: &LoopDevice, mib: u64) -> Vec<Extent> {
    let found = used(source, mib << 20).unwrap();
    let to = File::options().write(true).open(target.path()).unwrap();
    for extent in &found {
        let mut bytes = vec![0; usize::try_from(extent.len).unwrap()]; // at most what was written
        source.read_exact_at(&mut bytes, extent.offset).unwrap();
        to.write_all_at(&bytes, extent.offset).unwrap();
    }
    to.sync_all().unwrap();
    found
}

fn device(dir: &TempDir, name: &str, mib: u64) -> LoopDevice {
    let path = dir.path().join(name);
    File::create(&path).and_then(|file| file.set_len(mib << 20)).unwrap();
    LoopDevice::attach(&path, LoopOptions::default()).unwrap()
}

/// Small files (those up to 2 KiB lie in metadata), and two of 15 MB, of which one can be
/// compressed.
fn write(dir: &Path, files: u64) {
    fs::create_dir_all(dir.join("v/small")).unwrap();
    let mut random = Random::new(files);
    for i in 0..files {
        let mut data = vec![b'x'; random.below(12_000) as usize]; // below 12 000
        let half = data.len() / 2;
        random.fill(&mut data[half..]);
        fs::write(dir.join(format!("v/small/{i}")), data).unwrap();
    }
    let mut data = vec![0; 15_000_000];
    fs::write(dir.join("v/zeros"), &data).unwrap();
    random.fill(&mut data);
    fs::write(dir.join("v/random"), &data).unwrap();
    fs::write(dir.join("v/deleted"), &data).unwrap();
}

/// Snapshots of a subvolume that goes on changing, of which some are deleted; parts of extents that
/// are overwritten, shared, preallocated.
fn age(dir: &Path) {
    let (volume, random) = (dir.join("volume"), &mut Random::new(3));
    btrfs("subvolume create", &[&volume]);
    tool::run(tool::words("cp -a").arg(dir.join("v")).arg(&volume)).unwrap();
    for round in 0..5 {
        btrfs("subvolume snapshot", &[&volume, &dir.join(format!("snapshot {round}"))]);
        for entry in fs::read_dir(volume.join("v/small")).unwrap() {
            let path = entry.unwrap().path();
            match random.below(6) {
                0 => fs::remove_file(path).unwrap(),
                1 => fs::write(path, "another one of these ".repeat(300)).unwrap(),
                _ => {}
            }
        }
        let file = File::options().write(true).open(volume.join("v/random")).unwrap();
        for _ in 0..50 {
            file.write_all_at(&[7; 10_000], random.below(15_000_000)).unwrap();
        }
        rustix::fs::syncfs(&file).unwrap();
    }
    btrfs("subvolume delete -c", &[&dir.join("snapshot 1"), &dir.join("snapshot 3")]);
    btrfs("subvolume sync", &[dir]);
    fs::remove_file(dir.join("v/deleted")).unwrap();
    let mut fallocate = tool::words("fallocate -l 9MiB");
    tool::run(fallocate.arg(dir.join("preallocated"))).unwrap();
    let mut reflink = tool::words("cp --reflink=always");
    tool::run(reflink.arg(volume.join("v/random")).arg(dir.join("shared"))).unwrap();
    let shared = File::options().write(true).open(dir.join("shared")).unwrap();
    shared.write_all_at(&[1; 100_000], 5_000_000).unwrap();
}

fn btrfs(words: &str, paths: &[&Path]) {
    tool::run(tool::words(&format!("btrfs {words}")).args(paths)).unwrap();
}
