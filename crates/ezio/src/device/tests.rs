//! Real loop devices, partitions, mounts and swap; for what this kernel cannot do (LVM, dm-crypt,
//! MD, several disks of a btrfs) a small tree of files in the shape of sysfs.

use std::fs::Permissions;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use lab::{LoopDevice, LoopOptions, Mount, Need, tool};
use tempfile::TempDir;

use super::*;

const LOOP: [Need; 2] = [Need::Root, Need::Loop];

fn image(directory: &TempDir, mib: u64) -> PathBuf {
    let path = directory.path().join("image");
    File::create(&path).and_then(|f| f.set_len(mib << 20)).expect("an image file");
    path
}

fn temporary() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn attach(image: &Path) -> LoopDevice {
    LoopDevice::attach(image, LoopOptions::default()).expect("a free loop device")
}

fn refusal(path: &Path) -> String {
    open_source(path).map(|(_, device)| device).expect_err("must be refused").to_string()
}

#[test]
fn what_has_no_bytes_at_offsets_is_refused_with_its_name() {
    let directory = temporary();
    let at = |name: &str| directory.path().join(name);
    let _socket = UnixListener::bind(at("socket")).expect("a socket");
    File::create(at("empty")).expect("a file");
    // A FIFO without a writer: opening it would wait for ever.
    tool::run(tool::words("mkfifo").arg(at("fifo"))).expect("a FIFO");
    for (path, why) in [
        (directory.path().to_owned(), "it is a directory"),
        ("/dev/null".into(), "it is a character device"),
        (at("fifo"), "it is a FIFO"),
        (at("socket"), "it is a socket"),
        (at("missing"), "no such file or device"),
        (at("empty/below"), "Not a directory"),
        (at("empty"), "it has 0 bytes"),
    ] {
        let said = refusal(&path);
        assert!(said.contains(why) && said.starts_with("open "), "{said}");
        assert!(said.contains(&path.display().to_string()), "{said}");
    }
}

#[test]
fn a_file_without_the_right_to_read_it_says_run_as_root() {
    let directory = temporary();
    let path = image(&directory, 1);
    fs::set_permissions(&path, Permissions::from_mode(0o000)).expect("it is ours");
    if rustix::process::geteuid().is_root() {
        let said = error("open", &path, io::ErrorKind::PermissionDenied.into()).to_string();
        assert!(said.contains("even to root"), "{said}");
        lab::skip!("root may read every file, only the message was checked");
    }
    assert!(refusal(&path).contains("run as root"));
}

#[test]
fn a_regular_file_is_described() {
    let directory = temporary();
    let path = image(&directory, 3);
    let (mut file, device) = open_source(&path).expect("it can be opened");
    assert_eq!((device.size_bytes, device.logical_sector_bytes), (3 << 20, 512));
    assert!(matches!(device.kind, Kind::RegularFile { .. }));
    assert_eq!(file.stream_position().expect("it can seek"), 0);
    assert_eq!(usage(&device).expect("the kernel tells"), []);
    assert_eq!(partitions(&device).expect("there are none"), []);
    let first = claim(&device, Purpose::Reading).expect("nobody uses it");
    let second = claim(&device, Purpose::Reading).expect("readers do not mind each other");
    let said = claim(&device, Purpose::Writing).expect_err("it is read").to_string();
    assert!(said.contains("is it being served"), "{said}");
    drop((first, second));
    let writer = claim(&device, Purpose::Writing).expect("nobody reads it any more");
    claim(&device, Purpose::Reading).expect_err("it is written");
    drop(writer);
}

#[test]
fn a_block_device_is_described() {
    lab::require!(LOOP);
    let directory = temporary();
    let options = LoopOptions { sector_size: 4096, read_only: true, ..Default::default() };
    let disk = LoopDevice::attach(&image(&directory, 8), options).expect("a free loop device");
    let (_, device) = open_source(disk.path()).expect("root may open it");
    assert_eq!((device.size_bytes, device.logical_sector_bytes), (8 << 20, 4096));
    assert!(device.read_only && device.physical_sector_bytes >= 4096);
    let Kind::BlockDevice(block) = &device.kind else { panic!("{device:?}") };
    assert_eq!(format!("/dev/{}", block.name), disk.path().display().to_string());
    assert_eq!(block.disk, None);
    assert_eq!(usage(&device).expect("the kernel tells"), []);
}

#[test]
fn a_claim_keeps_mount_away_and_is_refused_with_the_mount_point() {
    lab::require!([Need::Root, Need::Loop, Need::Program("mkfs.ext4"), Need::Kernel("ext4")]);
    let directory = temporary();
    let path = image(&directory, 16);
    tool::run(tool::words("mkfs.ext4 -q -F").arg(&path)).expect("mkfs works");
    let disk = attach(&path);
    let (_, device) = open_source(disk.path()).expect("root may open it");
    let held = claim(&device, Purpose::Writing).expect("nobody uses it");
    assert!(
        claim(&device, Purpose::Writing)
            .expect_err("it is held")
            .to_string()
            .contains("does not tell")
    );
    Mount::new(disk.path(), "ext4", "rw").expect_err("the claim keeps it away");
    drop(held);

    let mounted = Mount::new(disk.path(), "ext4", "rw").expect("it is free again");
    let said = claim(&device, Purpose::Writing).expect_err("it is mounted").to_string();
    assert!(said.contains(&format!("mounted at {}", mounted.path().display())), "{said}");
    let (_, file) = open_source(&path).expect("it can be opened");
    let uses = usage(&file).expect("the kernel tells");
    assert!(matches!(&uses[..], [Use::Loop { uses, .. }] if uses.len() == 1), "{uses:?}");
    assert!(uses[0].may_write());
    mounted.unmount().expect("nobody is in it");
    claim(&device, Purpose::Writing).expect("nobody uses it any more");

    let mounted = Mount::new(disk.path(), "ext4", "ro").expect("it is free again");
    let uses = usage(&device).expect("the kernel tells");
    assert!(uses.iter().all(|u| !u.may_write()) && uses.len() == 1, "{uses:?}");
    mounted.unmount().expect("nobody is in it");
}

#[test]
fn a_mounted_btrfs_is_found_although_it_has_a_device_number_of_its_own() {
    lab::require!([Need::Root, Need::Loop, Need::Program("mkfs.btrfs"), Need::Kernel("btrfs")]);
    let directory = temporary();
    let path = image(&directory, 128);
    tool::run(tool::words("mkfs.btrfs -q -f").arg(&path)).expect("mkfs works");
    let disk = attach(&path);
    let mounted = Mount::new(disk.path(), "btrfs", "rw").expect("it can be mounted");
    let (_, device) = open_source(disk.path()).expect("root may open it");
    let uses = usage(&device).expect("the kernel tells");
    let [Use::Mounted { at, read_only: false }] = &uses[..] else { panic!("{uses:?}") };
    assert_eq!(at, mounted.path());
    mounted.unmount().expect("nobody is in it");
}

/// A disk with two partitions, the second of them swap space.
fn partitioned(directory: &TempDir) -> LoopDevice {
    let path = image(directory, 32);
    let table = directory.path().join("table");
    fs::write(&table, "label: dos\nstart=2048, size=20480\nstart=24576, size=20480\n")
        .expect("a file");
    let mut sfdisk = tool::words("sfdisk --quiet");
    sfdisk.arg(&path).stdin(File::open(&table).expect("it was just written"));
    tool::run(&mut sfdisk).expect("sfdisk works");
    let options = LoopOptions { partscan: true, ..Default::default() };
    LoopDevice::attach(&path, options).expect("a free loop device")
}

#[test]
fn partitions_are_listed_and_their_uses_are_the_disks() {
    lab::require!([Need::Root, Need::Loop, Need::Program("sfdisk"), Need::Program("mkfs.ext4")]);
    let directory = temporary();
    let disk = partitioned(&directory);
    let (_, whole) = open_source(disk.path()).expect("root may open it");
    let found = partitions(&whole).expect("sysfs can be read");
    let places: Vec<_> = found.iter().map(|p| (p.number, p.start_bytes, p.size_bytes)).collect();
    assert_eq!(places, [(1, 1 << 20, 10 << 20), (2, 12 << 20, 10 << 20)]);

    let first = disk.partition(1).expect("the first partition");
    tool::run(tool::words("mkfs.ext4 -q -F").arg(&first)).expect("mkfs works");
    let mounted = Mount::new(&first, "ext4", "rw").expect("it can be mounted");
    let said = claim(&whole, Purpose::Writing).expect_err("its partition is mounted").to_string();
    assert!(said.contains(&format!("its partition {}: mounted at", found[0].name)), "{said}");
    let (_, second) = open_source(disk.partition(2).expect("the second")).expect("root may");
    let Kind::BlockDevice(block) = &second.kind else { panic!("{second:?}") };
    assert_eq!(block.disk.as_deref(), disk.path().to_str().and_then(|p| p.strip_prefix("/dev/")));
    claim(&second, Purpose::Writing).expect("its neighbour is mounted, not it");
    mounted.unmount().expect("nobody is in it");
}

#[test]
fn swap_is_found() {
    lab::require!([Need::Root, Need::Loop, Need::Program("mkswap"), Need::Program("swapon")]);
    let directory = temporary();
    let disk = attach(&image(&directory, 4));
    tool::run(tool::words("mkswap").arg(disk.path())).expect("mkswap works");
    if let Err(why) = tool::run(tool::words("swapon").arg(disk.path())) {
        lab::skip!("swapon does not work here: {why}");
    }
    let (_, device) = open_source(disk.path()).expect("root may open it");
    let uses = usage(&device);
    tool::run(tool::words("swapoff").arg(disk.path())).expect("swapoff works");
    assert_eq!(uses.expect("the kernel tells"), [Use::Swap]);
}

#[test]
fn writing_changes_the_fingerprint_of_a_file() {
    let directory = temporary();
    let path = image(&directory, 1);
    let (file, device) = open_source(&path).expect("it can be opened");
    let take = || Fingerprint::take(&file, &device).expect("it can be taken");
    let before = take();
    assert_eq!(before.changed(&take()), None);
    let writer = fs::OpenOptions::new().write(true).open(&path).expect("it can be written");
    writer.set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH)).expect("ours");
    assert!(before.changed(&take()).is_some_and(|why| why.contains("written to")));
    writer.set_len(5).expect("it can be cut");
    assert!(before.changed(&take()).is_some_and(|why| why.contains("5 bytes")));
}

#[test]
fn writing_changes_the_fingerprint_of_a_block_device() {
    lab::require!(LOOP);
    let directory = temporary();
    let path = image(&directory, 4);
    let disk = attach(&path);
    let (file, device) = open_source(disk.path()).expect("root may open it");
    let take = || Fingerprint::take(&file, &device).expect("it can be taken");
    let writer = fs::OpenOptions::new().write(true).open(disk.path()).expect("root may");
    // Still in the page cache when the first fingerprint is taken: flushed by it, no change.
    writer.write_all_at(&[1; 4096], 0).expect("it can be written");
    let before = take();
    let mut bytes = [0; 4096];
    file.read_exact_at(&mut bytes, 1 << 20).expect("it can be read");
    assert_eq!(before.changed(&take()), None);
    writer.write_all_at(&[2; 8192], 8192).expect("it can be written");
    assert_eq!(before.changed(&take()).as_deref(), Some("8 KiB were written meanwhile"));

    let before = take();
    let behind = fs::OpenOptions::new().write(true).open(&path).expect("it is ours");
    behind.write_all_at(&[3; 512], 0).expect("it can be written");
    behind.set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH)).expect("ours");
    assert!(before.changed(&take()).is_some_and(|why| why.contains("image")));
}

/// A tree in the shape of sysfs: `files` with their text, `links` with what they point to.
fn kernel(directory: &TempDir, files: &[(&str, &str)], links: &[(&str, &str)]) -> Kernel {
    let root = directory.path();
    let make_room = |path: &Path| fs::create_dir_all(path.parent().expect("it lies in root"));
    for (name, text) in files {
        let path = root.join(name);
        make_room(&path).and_then(|()| fs::write(path, text)).expect("a file");
    }
    for (name, target) in links {
        let path = root.join(name);
        make_room(&path).and_then(|()| symlink(root.join(target), path)).expect("a link");
    }
    Kernel { sys: root.join("sys"), proc: root.join("proc") }
}

#[test]
fn holders_are_named() {
    let directory = temporary();
    let kernel = kernel(
        &directory,
        &[
            ("proc/self/mountinfo", "25 1 8:0 / /whole rw - ext4 /dev/nowhere ro\n"),
            ("sys/devices/sda/dev", "8:0\n"),
            ("sys/devices/sda/sda1/dev", "8:1\n"),
            ("sys/devices/sda/sda1/partition", "1\n"),
            ("sys/devices/sda/sda1/start", "2048\n"),
            ("sys/devices/sda/sda1/size", "4096\n"),
            ("sys/devices/sda/sda1/holders/dm-3/x", ""),
            ("sys/devices/sda/sda1/holders/dm-4/x", ""),
            ("sys/devices/sda/sda1/holders/md0/x", ""),
            ("sys/class/block/dm-3/dm/uuid", "LVM-abc\n"),
            ("sys/class/block/dm-3/dm/name", "vg-root\n"),
            ("sys/class/block/dm-4/dm/uuid", "CRYPT-LUKS2-abc\n"),
            ("sys/class/block/dm-4/dm/name", "secret\n"),
        ],
        &[("sys/dev/block/8:0", "sys/devices/sda"), ("sys/dev/block/8:1", "sys/devices/sda/sda1")],
    );
    let said = |minor| {
        let block = kernel.block_device(8, minor).expect("it is in the tree");
        let uses = kernel.usage(&Kind::BlockDevice(block)).expect("the tree can be read");
        uses.iter().map(Use::to_string).collect::<Vec<_>>()
    };
    let holders = [
        "part of dm-3 (LVM volume vg-root)",
        "part of dm-4 (encrypted volume secret)",
        "part of md0 (MD array)",
    ];
    let disk = "its disk sda: mounted read-only at /whole".to_owned();
    assert_eq!(said(1), [&holders.map(str::to_owned)[..], &[disk]].concat());
    let partition = format!("its partition sda1: {}", holders.join(", "));
    assert_eq!(said(0), ["mounted read-only at /whole".to_owned(), partition]);
}

#[test]
fn a_btrfs_member_that_mountinfo_does_not_name_is_found() {
    let directory = temporary();
    let kernel = kernel(
        &directory,
        &[
            ("proc/self/mountinfo", "25 1 0:30 / /data rw - btrfs /dev/nowhere rw\n"),
            ("sys/devices/sdb/dev", "8:16\n"),
            ("sys/fs/btrfs/features/x", ""),
            ("sys/fs/btrfs/1234-abcd/devices/sdb/x", ""),
        ],
        &[("sys/dev/block/8:16", "sys/devices/sdb")],
    );
    let block = kernel.block_device(8, 16).expect("it is in the tree");
    let uses = kernel.usage(&Kind::BlockDevice(block)).expect("the tree can be read");
    assert_eq!(uses, [Use::BtrfsMember { uuid: "1234-abcd".to_owned() }]);
}
