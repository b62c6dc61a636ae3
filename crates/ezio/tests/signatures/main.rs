//! What real programs leave on a device, found and erased as `wipefs` would, and what `ezio deploy`
//! does about it.

#[expect(dead_code, reason = "shared with the tests of capture")]
#[path = "../capture/disk.rs"]
mod disk;

mod deploy;

use disk::Disk;
use ezio::signatures::{self, Signature};
use lab::{FileSystem, Need, tool};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use swarm::layout::{Extent, Layout};

/// What `wipefs` finds on `device`: names and offsets.
fn wipefs(device: &Path) -> Vec<(String, u64)> {
    let text = tool::run(tool::words("wipefs --no-act --json").arg(device)).unwrap();
    if text.trim().is_empty() {
        return Vec::new();
    }
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    let read = |found: &serde_json::Value| {
        let offset = found["offset"].as_str()?.strip_prefix("0x")?;
        Some((found["type"].as_str()?.to_owned(), u64::from_str_radix(offset, 16).ok()?))
    };
    list["signatures"].as_array().unwrap().iter().map(|found| read(found).unwrap()).collect()
}

fn find(disk: &Disk, sector: u32) -> Vec<Signature> {
    let file = File::open(disk.path()).unwrap();
    let len = tool::run(tool::words("blockdev --getsize64").arg(disk.path())).unwrap();
    signatures::find(&file, len.trim().parse().unwrap(), sector).unwrap()
}

fn layout(extents: &[(u64, u64)]) -> Layout {
    Layout::new(extents.iter().map(|&(offset, len)| Extent { offset, len }).collect()).unwrap()
}

fn read_all(disk: &Disk) -> Vec<u8> {
    disk.sync();
    std::fs::read(&disk.image).unwrap()
}

/// Finds what `wipefs` finds, erases what an image of the first half of it would leave, then the
/// rest, and no other byte. `expected` are names that must be there.
#[track_caller]
fn check(disk: &Disk, sector: u32, expected: &[&str]) {
    let (ours, theirs) = (find(disk, sector), wipefs(disk.path()));
    for name in expected {
        assert!(theirs.iter().any(|(theirs, _)| theirs == name), "{name}: {theirs:x?}");
    }
    for (name, offset) in &theirs {
        // It shows what is left of a boot sector without the name as a partition table.
        let is_named = |s: &Signature| {
            s.name == name || (name == "dos" && ["exfat", "ntfs"].contains(&s.name))
        };
        let is_same =
            |s: &Signature| is_named(s) && s.magics.iter().any(|magic| magic.start == *offset);
        assert!(ours.iter().any(is_same), "wipefs: {name} at {offset:#x}; we: {ours:#x?}");
    }

    let before = read_all(disk);
    let len = before.len() as u64;
    let file = File::options().read(true).write(true).open(disk.path()).unwrap();
    // An image that covers the first 2 KiB and what is behind the first MiB, but for the last.
    let image = layout(&[(0, 2048), (1 << 20, len - (2 << 20))]);
    let is_covered = |at: u64| at < 2048 || (1 << 20..len - (1 << 20)).contains(&at);
    let old = signatures::survivors(ours.clone(), &image);
    assert!(old.iter().all(|s| s.magics.iter().any(|magic| !is_covered(magic.start))));
    signatures::wipe(&file, &old, &image).unwrap();
    for (name, offset) in wipefs(disk.path()) {
        assert!(is_covered(offset), "{name} at {offset:#x} outside of the image was left");
    }
    check_changes(before, &read_all(disk), &old, is_covered);

    let nothing = layout(&[(len - 1, 1)]);
    let old = signatures::survivors(find(disk, sector), &nothing);
    signatures::wipe(&file, &old, &nothing).unwrap();
    assert_eq!(wipefs(disk.path()), [], "after {old:#x?}");
    assert_eq!(find(disk, sector), []);
}

/// Only magics of `wiped` outside of the image have changed, to zeros.
#[track_caller]
fn check_changes(
    mut before: Vec<u8>,
    after: &[u8],
    wiped: &[Signature],
    is_covered: impl Fn(u64) -> bool,
) {
    for at in wiped.iter().flat_map(|s| &s.magics).flat_map(Clone::clone) {
        if !is_covered(at) {
            before[usize::try_from(at).unwrap()] = 0;
        }
    }
    for (start, (expected, found)) in
        (0..).step_by(4096).zip(before.chunks(4096).zip(after.chunks(4096)))
    {
        assert!(expected == found, "the block at {start:#x} is not as it must be");
    }
}

fn new_disk(dir: &tempfile::TempDir, len: u64, sector: u32) -> Disk {
    Disk::new(dir.path().join("disk.img"), len, sector)
}

fn check_file_system(kind: FileSystem) {
    let mut needs = kind.needs();
    needs.extend([Need::Root, Need::Loop, Need::Program("wipefs")]);
    lab::require!(needs);
    let dir = tempfile::tempdir().unwrap();
    let disk = new_disk(&dir, kind.device_len(), 512);
    kind.make(disk.path()).unwrap();
    check(&disk, 512, &[kind.blkid_type()]);
}

/// One test for each, so that a skip names the file system.
macro_rules! file_systems {
    ($($test:ident $kind:ident,)*) => {
        $(#[test] fn $test() { check_file_system(FileSystem::$kind); })*

        #[test]
        fn no_file_system_of_the_lab_is_left_out() {
            let tested = [$(FileSystem::$kind),*];
            assert!(FileSystem::ALL.iter().all(|kind| tested.contains(kind)));
        }
    };
}

file_systems!(
    ext2 Ext2,
    ext3 Ext3,
    ext4 Ext4,
    ext4_with_blocks_of_1_kib Ext4Block1K,
    xfs Xfs,
    btrfs Btrfs,
    f2fs F2fs,
    fat12 Fat12,
    fat16 Fat16,
    fat32 Fat32,
    exfat Exfat,
    ntfs Ntfs,
    minix Minix,
    reiser4 Reiser4,
    reiserfs Reiserfs,
    jfs Jfs,
    nilfs2 Nilfs2,
);

/// Runs `command` on a device of 64 MiB, then looks.
fn check_command(command: &str, program: &'static str, sector: u32, expected: &[&str]) {
    lab::require!([Need::Root, Need::Loop, Need::Program("wipefs"), Need::Program(program)]);
    let dir = tempfile::tempdir().unwrap();
    let disk = new_disk(&dir, 64 << 20, sector);
    run_on(command, &disk, dir.path());
    check(&disk, sector, expected);
}

/// `command` with the device behind it and a line for it to read, a table or a password.
fn run_on(command: &str, disk: &Disk, dir: &Path) {
    let input = dir.join("input");
    let line = if command.starts_with("sfdisk") { ",\n" } else { "password" };
    std::fs::write(&input, line).unwrap();
    let mut command = tool::words(command);
    tool::run(command.arg(disk.path()).stdin(File::open(input).unwrap())).unwrap();
}

#[test]
fn swap_of_all_page_sizes() {
    for pages in ["4096", "8192", "16384", "32768", "65536"] {
        check_command(&format!("mkswap --pagesize {pages}"), "mkswap", 512, &["swap"]);
    }
}

#[test]
fn lvm() {
    for sector in ["0", "1", "2", "3"] {
        let command = format!("pvcreate -ff -y --labelsector {sector}");
        check_command(&command, "pvcreate", 512, &["LVM2_member"]);
    }
}

#[test]
fn luks() {
    let quick = "--batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000";
    for kind in ["--type luks1", "--type luks2", "--type luks2 --luks2-metadata-size 128k"] {
        let command = format!("cryptsetup luksFormat {quick} {kind}");
        check_command(&command, "cryptsetup", 512, &["crypto_LUKS"]);
    }
}

#[test]
fn the_second_header_of_luks2_is_found_without_the_first() {
    lab::require!([Need::Root, Need::Loop, Need::Program("wipefs"), Need::Program("cryptsetup")]);
    let dir = tempfile::tempdir().unwrap();
    let disk = new_disk(&dir, 64 << 20, 512);
    let quick = "--batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --type luks2";
    run_on(&format!("cryptsetup luksFormat {quick}"), &disk, dir.path());
    let file = File::options().write(true).open(disk.path()).unwrap();
    file.write_all_at(&[0; 4096], 0).unwrap();
    check(&disk, 512, &["crypto_LUKS"]);
}

#[test]
fn partition_tables() {
    check_command("sfdisk --quiet --label gpt", "sfdisk", 512, &["gpt", "PMBR"]);
    check_command("sfdisk --quiet --label gpt", "sfdisk", 4096, &["gpt", "PMBR"]);
    check_command("sfdisk --quiet --label dos", "sfdisk", 512, &["dos"]);
}

#[test]
fn discs() {
    check_command("mkudffs --blocksize=512", "mkudffs", 512, &["udf"]);
    check_command("mkudffs --blocksize=2048", "mkudffs", 512, &["udf"]);
    check_command("mkudffs --blocksize=4096", "mkudffs", 4096, &["udf"]);
}

/// `mdadm --create` asks the kernel to make the array.
fn check_array(metadata: &str) {
    lab::require!([Need::Root, Need::Loop, Need::Program("wipefs"), Need::Program("mdadm")]);
    if !Path::new("/proc/mdstat").exists() {
        lab::skip!("the kernel has no md");
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = new_disk(&dir, 64 << 20, 512);
    let array = format!("/dev/md/ezio-test-{}", std::process::id());
    let command = format!(
        "mdadm --create {array} --run --quiet --level=1 --raid-devices=2 --metadata={metadata} missing"
    );
    let made = tool::run(tool::words(&command).arg(disk.path()));
    let stopped = tool::run(tool::words("mdadm --stop").arg(&array));
    made.unwrap();
    stopped.unwrap();
    check(&disk, 512, &["linux_raid_member"]);
}

#[test]
fn md_0_90() {
    check_array("0.90");
}

#[test]
fn md_1_0() {
    check_array("1.0");
}

#[test]
fn md_1_1() {
    check_array("1.1");
}

#[test]
fn md_1_2() {
    check_array("1.2");
}

#[test]
fn the_copies_of_a_superblock_are_found_where_repair_programs_look() {
    lab::require!([Need::Root, Need::Loop, Need::Program("mkfs.ext4"), Need::Program("dumpe2fs")]);
    let dir = tempfile::tempdir().unwrap();
    let disk = new_disk(&dir, 600 << 20, 512);
    FileSystem::Ext4.make(disk.path()).unwrap();
    let text = tool::run(tool::words("dumpe2fs").arg(disk.path())).unwrap();
    let block_of = |line: &str| {
        let (_, rest) = line.trim().split_once("Backup superblock at ")?;
        rest.split(',').next()?.parse::<u64>().ok()
    };
    let copies: Vec<u64> = text.lines().filter_map(block_of).map(|b| b * 4096 + 56).collect();
    assert!(copies.len() >= 2, "{text}");
    let found = find(&disk, 512);
    let ours = found.iter().find(|s| s.version == "superblock copies").unwrap();
    let starts: Vec<u64> = ours.magics.iter().map(|magic| magic.start).collect();
    assert_eq!(starts, copies);
}
