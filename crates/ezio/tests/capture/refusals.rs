//! Sources that must not, or cannot, be captured: each run fails with what, where, why and what to
//! do, and leaves nothing behind.

use crate::disk::Disk;
use crate::ezio::{self, Ran};
use lab::disk::{Failure, Model};
use lab::{FileSystem, LoopOptions, Mount, Need, Random, TestDisk, Tree, tool};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use swarm::layout::{Extent, Layout};
use tempfile::TempDir;

/// A place for sources and, in a directory of its own, for the torrent that must not appear.
struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("out")).unwrap();
        Bench { dir }
    }

    /// A sparse file of `len` bytes.
    fn file(&self, name: &str, len: u64) -> PathBuf {
        let path = self.dir.path().join(name);
        File::create(&path).unwrap().set_len(len).unwrap();
        path
    }

    fn disk(&self, name: &str, len: u64) -> Disk {
        Disk::new(self.dir.path().join(name), len, 512)
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out/x.torrent")
    }

    fn args<'a>(source: &'a Path, out: &'a Path, options: &'a str) -> Vec<&'a std::ffi::OsStr> {
        let mut args = vec!["capture".as_ref(), source.as_os_str(), "-o".as_ref(), out.as_os_str()];
        args.extend(options.split_whitespace().map(std::ffi::OsStr::new));
        args
    }

    /// The capture fails, and its message has all of `essentials` besides the source's path.
    #[track_caller]
    fn refused(&self, source: &Path, options: &str, essentials: &[&str]) {
        let ran = ezio::run(Bench::args(source, &self.out(), options));
        self.failed(&ran, &[essentials, &[source.to_str().unwrap()]].concat());
    }

    /// As [`Bench::refused`], where the message is about something else than the source.
    #[track_caller]
    fn refused_over(&self, source: &Path, options: &str, essentials: &[&str]) {
        self.failed(&ezio::run(Bench::args(source, &self.out(), options)), essentials);
    }

    #[track_caller]
    fn failed(&self, ran: &Ran, essentials: &[&str]) {
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        assert!(ran.stderr.lines().any(|line| line.starts_with("ezio: ")), "{ran:#?}");
        for essential in essentials {
            assert!(ran.stderr.contains(essential), "`{essential}` in {}", ran.stderr);
        }
        let left = std::fs::read_dir(self.dir.path().join("out")).unwrap().count();
        assert_eq!(left, 0, "something was left beside the torrent that was not written");
    }

    #[track_caller]
    fn accepted(&self, source: &Path, options: &str) {
        ezio::capture(source, &self.out(), options);
        std::fs::remove_file(self.out()).unwrap();
    }
}

#[test]
fn what_is_no_source_at_all() {
    let bench = Bench::new();
    let missing = bench.dir.path().join("missing");
    bench.refused(&missing, "", &["open", "No such file"]);
    let empty_dir = bench.dir.path().join("empty");
    std::fs::create_dir(&empty_dir).unwrap();
    bench.refused(&empty_dir, "", &["empty"]);
    let stray = bench.dir.path().join("home");
    std::fs::create_dir(&stray).unwrap();
    std::fs::write(stray.join("letter.txt"), "dear").unwrap();
    bench.refused(&stray, "", &["letter.txt"]);
    bench.refused(Path::new("/dev/null"), "", &["character device", "block device"]);
    bench.refused(Path::new("/dev/null"), "--raw", &["character device"]);
    bench.refused(&bench.file("nothing", 0), "", &["0 bytes"]);
    let fifo = bench.dir.path().join("fifo");
    tool::run(tool::words("mkfifo").arg(&fifo)).unwrap();
    bench.refused(&fifo, "", &["FIFO"]);
}

#[test]
fn wrong_usage_exits_with_2() {
    let torrent = "/nowhere/x.torrent";
    let cases: [&[&str]; 6] = [
        &["capture"],
        &["capture", "/dev/null"],
        &["capture", "/dev/null", "-o", torrent, "--piece-size", "15MiB"],
        &["capture", "/dev/null", "-o", torrent, "--tracker", "no url"],
        &["verify", torrent],
        &["inspect"],
    ];
    for args in cases {
        let ran = ezio::run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:#?}");
    }
}

#[test]
fn a_mounted_partition() {
    lab::require!(ext4_needs());
    let bench = Bench::new();
    let disk = bench.disk("ext4.img", 64 << 20);
    FileSystem::Ext4.make(disk.path()).unwrap();

    let mount = Mount::new(disk.path(), "ext4", "").unwrap();
    let place = mount.path().to_str().unwrap().to_owned();
    bench.refused(disk.path(), "", &["mounted", &place, "unmount"]);
    bench.refused(disk.path(), "--force", &["mounted", &place]);
    bench.refused(disk.path(), "--raw --force", &["mounted", &place]);
    // The image file below it changes just so.
    bench.refused(&disk.image, "", &["mounted", &place]);
    mount.unmount().unwrap();

    let mount = Mount::new(disk.path(), "ext4", "ro").unwrap();
    let place = mount.path().to_str().unwrap().to_owned();
    bench.refused(disk.path(), "", &["mounted", &place, "--force"]);
    bench.accepted(disk.path(), "--raw --force");
    mount.unmount().unwrap();
    bench.accepted(disk.path(), "");
}

fn ext4_needs() -> Vec<Need> {
    let mut needs = FileSystem::Ext4.needs();
    needs.extend([Need::Root, Need::Loop, Need::Program("partclone.ext4")]);
    needs
}

#[test]
fn btrfs_mounted_under_its_anonymous_device_number() {
    let mut needs = FileSystem::Btrfs.needs();
    needs.extend([Need::Root, Need::Loop]);
    lab::require!(needs);
    let bench = Bench::new();
    let disk = bench.disk("btrfs.img", FileSystem::Btrfs.device_len());
    FileSystem::Btrfs.make(disk.path()).unwrap();
    let mount = Mount::new(disk.path(), "btrfs", "").unwrap();
    bench.refused(disk.path(), "--force", &["mounted", mount.path().to_str().unwrap()]);
}

const DOS: &str = "label: dos\nstart=2048, size=20480, type=83\nstart=22528, size=20480, type=7\n";
const GPT: &str = "label: gpt\nstart=2048, size=20480\nstart=22528, size=20480\n";

fn partition(image: &Path, table: &str) {
    let script = image.with_extension("sfdisk");
    std::fs::write(&script, table).unwrap();
    let mut sfdisk = tool::words("sfdisk --quiet --no-reread --no-tell-kernel");
    sfdisk.stdin(File::open(&script).unwrap());
    tool::run(sfdisk.arg(image)).unwrap();
}

#[test]
fn a_disk_with_a_partition_table() {
    lab::require!([Need::Root, Need::Loop, Need::Program("sfdisk"), Need::Program("partx")]);
    let bench = Bench::new();
    for table in [DOS, GPT] {
        let image = bench.file("disk.img", 64 << 20);
        partition(&image, table);
        bench.refused(&image, "", &["partition table", "losetup", "--raw"]);
        let options = LoopOptions { partscan: true, ..Default::default() };
        let disk = Disk::of(image, options);
        let nodes = [1, 2].map(|number| disk.device().partition(number).unwrap());
        let names = nodes.each_ref().map(|node| node.file_name().unwrap().to_str().unwrap());
        bench.refused(disk.path(), "", &["partition table", names[0], names[1], "--raw"]);
        bench.accepted(disk.path(), "--raw");
        bench.accepted(&nodes[0], ""); // Zeros, taken whole.
    }
}

#[test]
fn a_disk_with_a_mounted_partition() {
    let mut needs = ext4_needs();
    needs.extend([Need::Program("sfdisk"), Need::Program("partx")]);
    lab::require!(needs);
    let bench = Bench::new();
    let image = bench.file("disk.img", 64 << 20);
    partition(&image, DOS);
    let disk = Disk::of(image, LoopOptions { partscan: true, ..Default::default() });
    let node = disk.device().partition(1).unwrap();
    FileSystem::Ext4.make(&node).unwrap();
    let mount = Mount::new(&node, "ext4", "").unwrap();
    let place = mount.path().to_str().unwrap().to_owned();
    bench.refused(disk.path(), "--raw", &["mounted", &place]);
    bench.refused(&node, "", &["mounted", &place]);
    mount.unmount().unwrap();
    bench.accepted(&node, "");
}

/// Refused by name, and taken whole when asked for.
#[track_caller]
fn raw_only(bench: &Bench, source: &Path, essentials: &[&str]) {
    bench.refused(source, "", essentials);
    bench.refused(source, "--force", &["--raw"]);
    bench.accepted(source, "--raw");
}

#[test]
fn an_encrypted_volume() {
    lab::require!([Need::Program("cryptsetup")]);
    let bench = Bench::new();
    let source = bench.file("luks.img", 32 << 20);
    let key = bench.dir.path().join("key");
    std::fs::write(&key, "secret").unwrap();
    for kind in ["luks1", "luks2"] {
        let mut format = tool::words("cryptsetup luksFormat --batch-mode --pbkdf pbkdf2");
        format.args(["--pbkdf-force-iterations", "1000", "--type", kind]).arg(&source).arg(&key);
        tool::run(&mut format).unwrap();
        raw_only(&bench, &source, &["LUKS", "open it", "--raw"]);
    }
}

#[test]
fn a_physical_volume_of_lvm() {
    lab::require!([Need::Root, Need::Loop, Need::Program("pvcreate")]);
    let bench = Bench::new();
    let disk = bench.disk("pv.img", 32 << 20);
    tool::run(tool::words("pvcreate -ff --yes").arg(disk.path())).unwrap();
    raw_only(&bench, disk.path(), &["LVM", "logical volumes", "--raw"]);
}

/// The kernel may lack RAID, so the superblock is written by hand (version 1.2, 4 KiB from the
/// start; `struct mdp_superblock_1` of `linux/raid/md_p.h`).
#[test]
fn a_member_of_a_raid_array() {
    let bench = Bench::new();
    let source = bench.file("md.img", 32 << 20);
    let mut superblock = [0; 256];
    let mut put = |at: usize, bytes: &[u8]| superblock[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &0xa92b_4efc_u32.to_le_bytes()); // magic
    put(4, &1_u32.to_le_bytes()); // major version
    put(16, b"sixteen byte id."); // set_uuid
    put(32, b"host:0"); // set_name
    put(72, &1_u32.to_le_bytes()); // level
    put(80, &65_536_u64.to_le_bytes()); // size in sectors
    put(92, &2_u32.to_le_bytes()); // raid_disks
    put(128, &2048_u64.to_le_bytes()); // data_offset
    put(136, &63_488_u64.to_le_bytes()); // data_size
    put(144, &8_u64.to_le_bytes()); // super_offset, which says that it is in its place
    put(168, b"another unique16"); // device_uuid
    // The sum of all 32-bit words, carries added in (calc_sb_1_csum of drivers/md/md.c).
    let words =
        superblock.chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
    let sum: u64 = words.sum();
    let sum = u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap();
    superblock[216..220].copy_from_slice(&sum.to_le_bytes());
    let file = File::options().write(true).open(&source).unwrap();
    file.write_all_at(&superblock, 4096).unwrap();
    raw_only(&bench, &source, &["RAID", "linux_raid_member", "array", "--raw"]);
}

/// Windows' encryption leaves a boot sector with this name in it; the rest is written by hand as
/// blkid wants it (`struct bde_header_win7` of libblkid: the volume's identifier and the offset of
/// its metadata).
#[test]
fn a_volume_encrypted_by_bitlocker() {
    let bench = Bench::new();
    let source = bench.file("bitlocker.img", 32 << 20);
    let file = File::options().write(true).open(&source).unwrap();
    let mut sector = [0; 512];
    sector[..11].copy_from_slice(b"\xeb\x58\x90-FVE-FS-");
    sector[11..13].copy_from_slice(&512_u16.to_le_bytes());
    let identifier = b"\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01";
    sector[160..176].copy_from_slice(identifier);
    sector[176..184].copy_from_slice(&(1_u64 << 20).to_le_bytes());
    sector[510..].copy_from_slice(b"\x55\xaa");
    file.write_all_at(&sector, 0).unwrap();
    let mut metadata = [0; 64];
    metadata[..8].copy_from_slice(b"-FVE-FS-");
    metadata[10..12].copy_from_slice(&2_u16.to_le_bytes());
    file.write_all_at(&metadata, 1 << 20).unwrap();
    raw_only(&bench, &source, &["BitLocker", "decrypt", "--raw"]);
}

#[test]
fn one_of_two_devices_of_a_btrfs() {
    lab::require!([Need::Root, Need::Loop, Need::Program("mkfs.btrfs")]);
    let bench = Bench::new();
    let disks = [bench.disk("a.img", 150 << 20), bench.disk("b.img", 150 << 20)];
    let mut mkfs = tool::words("mkfs.btrfs -q -f -d single -m raid1");
    tool::run(mkfs.args(disks.each_ref().map(Disk::path))).unwrap();
    for disk in &disks {
        disk.sync();
        bench.refused(disk.path(), "", &["btrfs", "2 devices", "--raw"]);
    }
    bench.accepted(disks[0].path(), "--raw");
}

/// Debian's partclone lacks these programs; a copy of all blocks instead would be a surprise.
#[test]
fn a_file_system_whose_partclone_is_not_installed() {
    for (kind, name) in [
        (FileSystem::Reiserfs, "reiserfs"),
        (FileSystem::Jfs, "jfs"),
        (FileSystem::Nilfs2, "nilfs2"),
    ] {
        let [mkfs, _] = kind.needs()[..] else { panic!("{kind:?} needs its mkfs and its fsck") };
        lab::require!([mkfs]);
        if tool::find(kind.partclone()).is_some() {
            lab::skip!("{} is installed", kind.partclone());
        }
        let bench = Bench::new();
        let source = bench.file("image", kind.device_len());
        kind.make(&source).unwrap();
        bench.refused(&source, "", &[name, kind.partclone(), "Clonezilla"]);
        bench.accepted(&source, "--raw");
    }
}

/// Debian's partclone.f2fs reads the wrong place there; a newer one may do better.
#[test]
fn a_file_system_that_partclone_cannot_map() {
    let mut needs = FileSystem::F2fs.needs();
    needs.extend([Need::Root, Need::Loop, Need::Program("partclone.f2fs")]);
    lab::require!(needs);
    let bench = Bench::new();
    let image = bench.dir.path().join("f2fs.img");
    let disk = Disk::new(image, FileSystem::F2fs.device_len(), 4096);
    FileSystem::F2fs.make(disk.path()).unwrap();
    let mut partclone = tool::words("partclone.f2fs -D -L /dev/null -o /dev/null -s");
    if tool::run(partclone.arg(disk.path())).is_ok() {
        lab::skip!("this partclone.f2fs can map sectors of 4096 bytes");
    }
    bench.refused(disk.path(), "", &["F2FS", "partclone.f2fs", "Can't find a valid F2FS"]);
    bench.accepted(disk.path(), "--raw");
}

#[test]
fn a_device_that_cannot_be_read_behind_its_middle() {
    lab::require!([Need::Root, Need::Loop]);
    let bench = Bench::new();
    let disk = bench.disk("disk.img", 96 << 20);
    fill_with_data(&disk.image, 96 << 20);
    disk.device().truncate_backing(50 << 20).unwrap();
    bench.refused(disk.path(), "--raw", &["read", "0x", "Input/output error"]);
}

/// blkid looks for RAID at the end of a device, and if that cannot be read it finds nothing at all,
/// not even the file system, without a word and with the exit code for "nothing known".
#[test]
fn a_file_system_whose_end_cannot_be_read_is_not_taken_for_unknown() {
    lab::require!(ext4_needs());
    let bench = Bench::new();
    let disk = bench.disk("ext4.img", 64 << 20);
    FileSystem::Ext4.make(disk.path()).unwrap();
    disk.sync();
    disk.device().truncate_backing(50 << 20).unwrap();
    let ran = ezio::run(Bench::args(disk.path(), &bench.out(), ""));
    bench.failed(&ran, &["read", "Input/output error"]);
    assert!(!ran.stderr.contains("nothing that blkid knows"), "{}", ran.stderr);
}

/// A bad block of a file's data: partclone, which reads metadata only, does not meet it.
#[test]
fn a_file_system_with_a_bad_block() {
    let mut needs = ext4_needs();
    needs.extend(TestDisk::NEEDS);
    lab::require!(needs);
    let bench = Bench::new();
    let disk = bench.disk("ext4.img", FileSystem::Ext4.device_len());
    FileSystem::Ext4.make(disk.path()).unwrap();
    FileSystem::Ext4.fill(disk.path(), Tree { seed: 5, bytes: 48 << 20 }).unwrap();
    disk.sync();
    let good = bench.dir.path().join("good.torrent");
    let torrent = ezio::capture(disk.path(), &good, "--piece-size 1MiB --name x");
    let bad = random_block(&disk, torrent.layout());

    let failing = TestDisk::of(&disk.image, Model::Instant).unwrap();
    failing.fail(Failure::read(bad..bad + 512));
    bench.refused(failing.path(), "", &["read", "Input/output error", "nothing was captured"]);
    let device = Disk::of(failing.path().to_owned(), LoopOptions::default());
    bench.refused(device.path(), "", &["read", "Input/output error"]);
    bench.refused(device.path(), "--raw", &["read", "Input/output error"]);
    let image = bench.dir.path().join("image");
    let options = format!("--image {}", image.display());
    bench.refused(device.path(), &options, &["read", "Input/output error"]);
    assert!(!image.exists(), "half an image was left");

    // Read again, the rest of the image is as it was.
    for path in [failing.path(), device.path()] {
        let report = ezio::verify(&good, path).unwrap_err();
        assert_eq!(report["bad"].as_array().unwrap().len(), 1, "{report}");
        assert!(ezio::holds(&report["bad"][0]["ranges"], bad), "{bad} in {report}");
        let error = report["bad"][0]["error"].as_str().unwrap();
        assert!(error.contains("Input/output error"), "{error}");
    }
}

/// A used block of 4 KiB with a file's random data in it, about in the middle of the image.
fn random_block(disk: &Disk, layout: &Layout) -> u64 {
    let middle = layout.device_end() / 2;
    let blocks =
        layout.extents().iter().filter(|extent| extent.offset > middle).flat_map(|extent| {
            let aligned = extent.offset.next_multiple_of(4096);
            (aligned..extent.end().saturating_sub(4095)).step_by(4096)
        });
    let is_random = |offset: &u64| {
        let block = disk.read(Extent { offset: *offset, len: 4096 });
        block.chunks(8).all(|word| word.iter().any(|byte| *byte != 0))
    };
    blocks.into_iter().find(is_random).expect("a file with random data behind the middle")
}

/// Random data: no holes, and nothing that blkid knows.
fn fill_with_data(path: &Path, len: u64) {
    let mut file = File::create(path).unwrap();
    let (mut random, mut buf) = (Random::new(len), vec![0; 1 << 20]);
    for _ in 0..len >> 20 {
        random.fill(&mut buf);
        file.write_all(&buf).unwrap();
    }
}

/// Starts a capture of a large file, stops it in the middle of its reading, does `mischief` to the
/// file or the process, and lets it go on. It must fail and say so with `essentials`.
#[track_caller]
fn disturbed(mischief: impl FnOnce(&File, Pid), essentials: &[&str]) {
    const LEN: u64 = 384 << 20;
    let bench = Bench::new();
    let source = bench.dir.path().join("large.img");
    fill_with_data(&source, LEN);
    let out = bench.out();
    let mut command = ezio::command(Bench::args(&source, &out, "--raw --piece-size 1MiB"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let io = format!("/proc/{}/io", child.id());
    let begin = Instant::now();
    let read = loop {
        assert!(begin.elapsed() < Duration::from_secs(60), "it does not read");
        let read = bytes_read(&std::fs::read_to_string(&io).unwrap());
        if read > 8 << 20 {
            break read;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    kill_process(pid, Signal::STOP).unwrap();
    assert!(read < LEN / 2, "this machine reads too fast for the test: {read} bytes at once");
    mischief(&File::options().write(true).open(&source).unwrap(), pid);
    kill_process(pid, Signal::CONT).unwrap();
    let ran = Ran::of(&child.wait_with_output().unwrap());
    bench.failed(&ran, essentials);
}

/// `rchar` of `/proc/PID/io` (proc(5)): bytes that read and pread have returned.
fn bytes_read(io: &str) -> u64 {
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.expect("a kernel with task I/O accounting").parse().expect("a number")
}

#[test]
fn a_file_that_shrinks_while_it_is_read() {
    disturbed(|file, _| file.set_len(12 << 20).unwrap(), &["read", "large.img", "shrunk"]);
}

#[test]
fn a_file_that_is_written_to_while_it_is_read() {
    let essentials = ["large.img changed while it was read", "capture it again"];
    disturbed(|file, _| file.write_all_at(b"new", 0).unwrap(), &essentials);
}

#[test]
fn a_capture_that_is_interrupted() {
    for signal in [Signal::TERM, Signal::INT] {
        disturbed(|_, pid| kill_process(pid, signal).unwrap(), &["interrupted"]);
    }
}

/// What was there before is still there after a capture that failed.
#[test]
fn a_torrent_that_exists_is_not_lost() {
    let bench = Bench::new();
    let old = bench.dir.path().join("old.torrent");
    std::fs::write(&old, "old").unwrap();
    let ran = ezio::run(Bench::args(&bench.file("nothing", 0), &old, ""));
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert_eq!(std::fs::read(&old).unwrap(), b"old");
    bench.accepted(&bench.file("source.img", 1 << 20), "--raw");
    ezio::capture(&bench.file("source.img", 1 << 20), &old, "--raw"); // It is replaced.
}

/// Only an empty directory, or none, becomes an image; the pieces of its torrent.info are 16 MiB.
#[test]
fn an_image_directory_with_something_in_it() {
    let bench = Bench::new();
    let source = bench.file("source.img", 1 << 20);
    let image = bench.dir.path().join("image");
    let options = format!("--raw --image {}", image.display());
    bench.refused_over(&source, &format!("{options} --piece-size 1MiB"), &["16 MiB"]);
    std::fs::create_dir(&image).unwrap();
    std::fs::write(image.join("precious"), "text").unwrap();
    bench.refused_over(&source, &options, &[image.to_str().unwrap(), "empty"]);
    assert_eq!(std::fs::read(image.join("precious")).unwrap(), b"text");
    std::fs::remove_file(image.join("precious")).unwrap();
    bench.accepted(&source, &options);
    let out = bench.out();
    ezio::capture(&image, &out, "");
    ezio::verify(&out, &source).unwrap();
}

#[test]
fn an_output_directory_that_cannot_be_written() {
    lab::require!(ext4_needs());
    let bench = Bench::new();
    let disk = bench.disk("ext4.img", 16 << 20);
    FileSystem::Ext4.make(disk.path()).unwrap();
    let mount = Mount::new(disk.path(), "ext4", "ro").unwrap();
    let source = bench.file("source.img", 1 << 20);
    for (dir, why) in
        [(mount.path(), "Read-only file system"), (Path::new("/nowhere"), "not there")]
    {
        let out = dir.join("x.torrent");
        let ran = ezio::run(Bench::args(&source, &out, "--raw"));
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        for essential in ["write", out.to_str().unwrap(), why] {
            assert!(ran.stderr.contains(essential), "`{essential}` in {}", ran.stderr);
        }
    }
}

/// A copy of the image of a mounted file system: what a snapshot or a power cut leaves. The journal
/// knows more than the bitmaps that partclone reads.
#[track_caller]
fn not_unmounted(kind: FileSystem, mounted_as: &str, advice: &str) {
    let mut needs = kind.needs();
    needs.extend([Need::Root, Need::Loop, Need::Program(kind.partclone())]);
    lab::require!(needs);
    let bench = Bench::new();
    let disk = bench.disk("mounted.img", kind.device_len());
    kind.make(disk.path()).unwrap();
    let mount = Mount::new(disk.path(), mounted_as, "").unwrap();
    Tree { seed: 9, bytes: 8 << 20 }.grow(mount.path()).unwrap();
    // fsync of one file writes the journal and leaves the rest where it is.
    let file = File::create(mount.path().join("synced")).unwrap();
    file.write_all_at(&[7; 100_000], 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let copy = bench.dir.path().join("copy.img");
    tool::run(tool::words("cp --sparse=always").arg(&disk.image).arg(&copy)).unwrap();
    mount.unmount().unwrap();
    bench.refused(&copy, "", &[kind.blkid_type(), "not clean", advice, "--force"]);
    bench.accepted(&copy, "--raw");
    disk.sync();
    bench.accepted(&disk.image, "");
}

#[test]
fn ext4_that_was_not_unmounted() {
    not_unmounted(FileSystem::Ext4, "ext4", "e2fsck");
}

#[test]
fn xfs_that_was_not_unmounted() {
    not_unmounted(FileSystem::Xfs, "xfs", "mount");
}

#[test]
fn a_torrent_that_is_none() {
    let bench = Bench::new();
    let path = bench.dir.path().join("x.torrent");
    let deep = vec![b'l'; 100_000];
    for (bytes, why) in [(&b"rubbish"[..], "no torrent"), (&deep, "no torrent"), (b"de", "missing")]
    {
        std::fs::write(&path, bytes).unwrap();
        for args in [vec!["inspect"], vec!["verify"]] {
            let mut args: Vec<&std::ffi::OsStr> = args.iter().map(std::ffi::OsStr::new).collect();
            args.push(path.as_os_str());
            if args[0] == "verify" {
                args.push("/dev/null".as_ref());
            }
            let ran = ezio::run(args);
            assert_eq!(ran.code, Some(1), "{ran:#?}");
            for essential in [path.to_str().unwrap(), why] {
                assert!(ran.stderr.contains(essential), "`{essential}` in {}", ran.stderr);
            }
        }
    }
}

#[test]
fn a_copy_that_is_too_small_or_cannot_be_read() {
    lab::require!([Need::Root, Need::Loop]);
    let bench = Bench::new();
    let disk = bench.disk("disk.img", 32 << 20);
    fill_with_data(&disk.image, 32 << 20);
    ezio::capture(disk.path(), &bench.out(), "--raw --piece-size 1MiB");

    let small = bench.file("small.img", 31 << 20);
    let ran = ezio::run(["verify".as_ref(), bench.out().as_os_str(), small.as_os_str()]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    for essential in [small.to_str().unwrap(), "small"] {
        assert!(ran.stderr.contains(essential), "`{essential}` in {}", ran.stderr);
    }

    disk.device().truncate_backing(30 << 20).unwrap();
    let report = ezio::verify(&bench.out(), disk.path()).unwrap_err();
    let bad: Vec<_> = report["bad"].as_array().unwrap().iter().map(|bad| &bad["piece"]).collect();
    assert_eq!(bad, [30, 31], "{report}");
    let error = report["bad"][0]["error"].as_str().unwrap();
    assert!(error.contains("Input/output error"), "{error}");
}
