//! The test disk does what it is told, as a file and under a loop device.

use lab::disk::{Failure, Fault, HardDisk, Loss, Model, Stats};
use lab::{LoopDevice, LoopOptions, Need, Random, TestDisk, tool};
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LEN: u64 = 16 << 20;
const LOOP_NEEDS: [Need; 4] = [Need::Fuse, Need::Root, Need::Loop, Need::Program("dd")];

const EIO: i32 = 5;
const ENODEV: i32 = 19;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

fn disk() -> TestDisk {
    TestDisk::new(LEN, Model::Instant).unwrap()
}

fn attach(disk: &TestDisk) -> LoopDevice {
    LoopDevice::attach(disk.path(), LoopOptions::default()).unwrap()
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().expect("an error of the system")
}

/// `len` bytes at `offset`, past every cache of a device.
fn read(device: &LoopDevice, offset: u64, len: usize) -> std::io::Result<Vec<u8>> {
    device.forget_cache().unwrap();
    let mut bytes = vec![0; len];
    File::open(device.path())?.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// One write of a block of 4 KiB past the page cache, and no flush.
fn write_direct(path: &Path, block: u64, byte: u8, dir: &Path) -> anyhow::Result<()> {
    let from = dir.join(format!("bytes-{byte}"));
    std::fs::write(&from, [byte; 4096])?;
    let mut dd = tool::words("dd bs=4096 count=1 oflag=direct conv=notrunc status=none");
    dd.arg(format!("if={}", from.display())).arg(format!("of={}", path.display()));
    tool::run(dd.arg(format!("seek={block}"))).map(drop)
}

#[test]
fn a_healthy_disk_keeps_what_is_written() {
    lab::require!(TestDisk::NEEDS);
    let disk = disk();
    let file = open(disk.path());
    assert_eq!(file.metadata().unwrap().len(), LEN);
    let mut bytes = vec![0; 3 << 20];
    Random::new(1).fill(&mut bytes);
    file.write_all_at(&bytes, 12_345).unwrap();
    file.sync_all().unwrap();
    let mut found = vec![0; bytes.len()];
    file.read_exact_at(&mut found, 12_345).unwrap();
    assert!(found == bytes && disk.bytes(12_345..12_345 + (3 << 20)) == bytes);
    let stats = disk.stats();
    assert_eq!((stats.flushes, stats.failed), (1, 0));
    assert_eq!((stats.read_bytes, stats.written_bytes), (3 << 20, 3 << 20));

    // It ends where it ends.
    assert_eq!(errno(file.write_at(&[1], LEN)), ENOSPC);
    assert_eq!(file.write_at(&[1; 1024], LEN - 512).unwrap(), 512);
    assert_eq!(file.read_at(&mut found, LEN).unwrap(), 0);
    let _ = file.set_len(LEN + 1).unwrap_err();
}

#[test]
fn it_begins_as_a_copy_of_a_file() {
    lab::require!(TestDisk::NEEDS);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let mut bytes = vec![0; (5 << 20) + 7];
    Random::new(2).fill(&mut bytes[2 << 20..]);
    std::fs::write(&source, &bytes).unwrap();
    let disk = TestDisk::of(&source, Model::Instant).unwrap();
    disk.cut_power(Loss::All);
    disk.power_on();
    assert!(std::fs::read(disk.path()).unwrap() == bytes);
}

#[test]
fn operations_fail_where_and_when_they_are_told_to() {
    lab::require!(TestDisk::NEEDS);
    let disk = disk();
    let file = open(disk.path());
    let mut buf = [0; 512];
    disk.fail(Failure::read(4096..8192));
    assert_eq!(errno(file.read_at(&mut buf, 8191)), EIO);
    file.read_exact_at(&mut buf, 8192).unwrap();
    file.write_all_at(&buf, 4096).unwrap();
    disk.heal();
    file.read_exact_at(&mut buf, 4096).unwrap();

    disk.fail(Failure::write(..).with(Fault::NoSpace).after(2).once());
    let codes: Vec<Option<i32>> = (0..4)
        .map(|_| file.write_at(&[1; 512], 0).err().and_then(|error| error.raw_os_error()))
        .collect();
    assert_eq!(codes, [None, None, Some(ENOSPC), None]);

    disk.fail(Failure::flush().once());
    assert_eq!(errno(file.sync_all()), EIO);
    file.sync_all().unwrap();

    disk.fail(Failure::write(..).with(Fault::ReadOnly));
    assert_eq!(errno(file.write_at(&[2; 512], 0)), EROFS);
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(buf, [1; 512], "what fails is not written");
    disk.heal();

    disk.fail(Failure::everything().with(Fault::NoDevice));
    assert_eq!(errno(file.read_at(&mut buf, 0)), ENODEV);
    assert_eq!(errno(file.write_at(&buf, 0)), ENODEV);
    assert_eq!(errno(file.sync_all()), ENODEV);
}

#[test]
fn operations_are_short_when_told_to_be() {
    lab::require!(TestDisk::NEEDS);
    let disk = disk();
    let file = open(disk.path());
    disk.fail(Failure::write(..).with(Fault::Short).once());
    disk.fail(Failure::read(..).with(Fault::Short).once());
    assert_eq!(file.write_at(&[5; 5000], 100).unwrap(), 2048);
    assert_eq!(disk.bytes(2147..2149), [5, 0]);
    assert_eq!(file.read_at(&mut [0; 4096], 0).unwrap(), 2048);
    assert_eq!(file.read_at(&mut [0; 4096], 0).unwrap(), 4096);
}

#[test]
fn a_loop_device_passes_errors_on() {
    lab::require!(LOOP_NEEDS);
    let dir = tempfile::tempdir().unwrap();
    let disk = disk();
    let device = attach(&disk);
    disk.fail(Failure::read(1 << 20..(1 << 20) + 1));
    assert_eq!(read(&device, 1 << 20, 512).unwrap_err().raw_os_error(), Some(EIO));
    assert_eq!(read(&device, 2 << 20, 512).unwrap(), [0; 512]);
    disk.heal();
    assert_eq!(read(&device, 1 << 20, 512).unwrap(), [0; 512]);

    // What is written through the cache fails when it is flushed.
    let file = open(device.path());
    disk.fail(Failure::write(..));
    let error = write_direct(device.path(), 0, 1, dir.path()).unwrap_err().to_string();
    assert!(error.contains("Input/output error"), "{error}");
    file.write_all_at(&[1; 4096], 0).unwrap();
    assert_eq!(errno(file.sync_all()), EIO);
    disk.heal();

    disk.fail(Failure::write(..).with(Fault::NoSpace));
    let error = write_direct(device.path(), 0, 1, dir.path()).unwrap_err().to_string();
    assert!(error.contains("No space left"), "{error}");
    disk.heal();

    disk.fail(Failure::flush());
    file.write_all_at(&[2; 4096], 0).unwrap();
    assert_eq!(errno(file.sync_all()), EIO);
    assert_eq!(disk.bytes(0..4096), [2; 4096], "written, but not flushed");
    disk.heal();

    disk.fail(Failure::everything().with(Fault::NoDevice));
    assert_eq!(read(&device, 0, 512).unwrap_err().raw_os_error(), Some(EIO));
}

#[test]
fn a_power_cut_takes_exactly_what_was_not_flushed() {
    lab::require!(TestDisk::NEEDS);
    let disk = disk();
    let file = open(disk.path());
    file.write_all_at(&[1; 8192], 0).unwrap();
    file.sync_all().unwrap();
    file.write_all_at(&[2; 8192], 4096).unwrap();
    disk.fail(Failure::flush().once());
    let _ = file.sync_all().unwrap_err();
    disk.cut_power(Loss::All);
    let mut bytes = [9; 12288];
    for _ in 0..2 {
        assert_eq!(errno(file.read_at(&mut bytes, 0)), EIO);
        assert_eq!(errno(file.write_at(&[3], 0)), EIO);
        assert_eq!(errno(file.sync_all()), EIO);
    }
    assert!(!disk.has_power());
    disk.power_on();
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes[..8192], &bytes[8192..]), (&[1; 8192][..], &[0; 4096][..]));
}

#[test]
fn a_seed_chooses_what_a_power_cut_leaves() {
    lab::require!(TestDisk::NEEDS);
    let survivors = |seed| {
        let disk = disk();
        let file = open(disk.path());
        file.write_all_at(&[1; 1 << 20], 0).unwrap();
        file.sync_all().unwrap();
        file.write_all_at(&[2; 2 << 20], 512 << 10).unwrap();
        // As ordered for the next write, which is lost wholly.
        disk.fail(Failure::write(..).with(Fault::PowerCut(Loss::BySeed(seed))));
        assert_eq!(errno(file.write_at(&[3; 512], 0)), EIO);
        disk.heal();
        disk.power_on();
        let bytes = std::fs::read(disk.path()).unwrap();
        assert!(bytes[..512 << 10].iter().all(|byte| *byte == 1), "flushed and not overwritten");
        let sectors = bytes[512 << 10..2560 << 10].chunks(512).enumerate();
        sectors
            .map(|(i, sector)| {
                let old = if i < 1024 { 1 } else { 0 };
                assert!(sector == [2; 512] || sector == [old; 512], "half a sector");
                sector == [2; 512]
            })
            .collect::<Vec<bool>>()
    };
    assert_eq!(survivors(7), survivors(7));
    let mixed = (0..8).map(survivors).filter(|kept| kept.contains(&true) && kept.contains(&false));
    assert!(mixed.count() > 4);
}

#[test]
fn a_power_cut_below_a_loop_device_takes_what_was_not_flushed() {
    lab::require!(LOOP_NEEDS);
    let dir = tempfile::tempdir().unwrap();
    let disk = disk();
    let device = attach(&disk);
    let file = open(device.path());
    file.write_all_at(&[1; 4096], 0).unwrap();
    file.sync_all().unwrap();
    write_direct(device.path(), 1, 2, dir.path()).unwrap();
    file.write_all_at(&[3; 4096], 8192).unwrap(); // in the page cache only
    assert_eq!(disk.bytes(4096..8192), [2; 4096], "O_DIRECT arrives before it returns");
    disk.cut_power(Loss::All);
    assert_eq!(errno(file.sync_all()), EIO);
    device.forget_cache().unwrap();
    disk.power_on();
    let bytes = read(&device, 0, 12288).unwrap();
    assert_eq!(bytes, [[1; 4096], [0; 4096], [0; 4096]].concat());

    write_direct(device.path(), 1, 2, dir.path()).unwrap();
    file.sync_all().unwrap();
    disk.cut_power(Loss::All);
    device.forget_cache().unwrap();
    disk.power_on();
    assert_eq!(read(&device, 4096, 4096).unwrap(), [2; 4096]);
}

#[test]
fn seeks_are_counted() {
    lab::require!(TestDisk::NEEDS);
    let disk = disk();
    let file = open(disk.path());
    let mut block = [0; 4096];
    (0..100).for_each(|i| file.read_exact_at(&mut block, i * 4096).unwrap());
    assert_eq!(disk.take_stats().seeks, 0);
    let mut random = Random::new(4);
    for _ in 0..100 {
        // Of odd blocks every second: none follows another.
        file.read_exact_at(&mut block, random.below(1000) * 8192 + 4096).unwrap();
    }
    let stats = disk.take_stats();
    assert_eq!((stats.seeks, stats.reads, stats.read_bytes), (100, 100, 100 * 4096));
    assert_eq!(disk.stats(), Stats::default());
}

#[test]
fn seeks_are_counted_below_a_loop_device() {
    lab::require!(LOOP_NEEDS);
    let disk = disk();
    let device = attach(&disk);
    device.forget_cache().unwrap();
    disk.take_stats();
    let mut dd = tool::words("dd bs=64K iflag=direct of=/dev/null status=none");
    tool::run(dd.arg(format!("if={}", device.path().display()))).unwrap();
    let stats = disk.take_stats();
    assert_eq!(stats.read_bytes, LEN);
    assert!(stats.seeks <= 1, "{stats:?}"); // the first may be one
    for i in (0..32).rev() {
        let mut dd = tool::words("dd bs=64K count=1 iflag=direct of=/dev/null status=none");
        dd.arg(format!("if={}", device.path().display())).arg(format!("skip={}", i * 8));
        tool::run(&mut dd).unwrap();
    }
    assert_eq!(disk.take_stats().seeks, 32);
}

#[test]
fn a_hard_disk_takes_its_time() {
    lab::require!(TestDisk::NEEDS);
    let hard = HardDisk { bytes_per_s: 50_000_000, ..HardDisk::default() };
    let disk = TestDisk::new(LEN, Model::HardDisk(hard)).unwrap();
    let file = open(disk.path());
    let mut bytes = vec![0; 4 << 20];
    let begin = Instant::now();
    file.read_exact_at(&mut bytes, 0).unwrap();
    let stream = begin.elapsed();
    assert!(stream >= Duration::from_millis(82), "4 MiB at 50 MB/s took {stream:?}");

    disk.take_stats();
    let begin = Instant::now();
    for i in 0..20 {
        file.read_exact_at(&mut bytes[..4096], (i % 2) * (LEN - 4096)).unwrap();
    }
    let (took, stats) = (begin.elapsed(), disk.take_stats());
    let way = hard.half_turn + hard.seek_max;
    assert!(stats.busy >= way * 19 && took + Duration::from_millis(5) >= stats.busy, "{took:?}");
    assert_eq!(stats.seeks, 20);

    disk.set_model(Model::Rate { bytes_per_s: 10_000_000 });
    let begin = Instant::now();
    for i in [3, 1, 5] {
        file.write_all_at(&bytes[..1 << 20], i << 20).unwrap();
    }
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(310), "3 MiB at 10 MB/s took {took:?}");
    assert!(disk.stats().seeks == 3 && disk.stats().busy < Duration::from_millis(320));
}

#[test]
fn the_model_rules_below_a_loop_device() {
    lab::require!(LOOP_NEEDS);
    let disk = disk();
    let device = attach(&disk);
    device.forget_cache().unwrap();
    disk.set_model(Model::Rate { bytes_per_s: 40_000_000 });
    let begin = Instant::now();
    let file = open(device.path());
    file.write_all_at(&vec![1; 8 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(205), "8 MiB at 40 MB/s took {took:?}");
}

#[test]
fn a_cut_ends_what_is_under_way() {
    lab::require!(TestDisk::NEEDS);
    let disk = disk();
    disk.set_model(Model::Rate { bytes_per_s: 10_000 });
    let file = open(disk.path());
    let writer = std::thread::spawn(move || errno(file.write_at(&[1; 4096], 0)));
    disk.cut_power(Loss::All);
    assert_eq!(writer.join().unwrap(), EIO);
    assert_eq!(disk.bytes(0..4096), [0; 4096]);
}

#[test]
fn the_disk_outlives_its_owner_below_a_loop_device() {
    lab::require!(LOOP_NEEDS);
    let disk = disk();
    let device = attach(&disk);
    drop(disk);
    let file = open(device.path());
    file.write_all_at(&[1; 4096], 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(read(&device, 0, 4096).unwrap(), [1; 4096]);
}

/// The worst time: the process waits in the kernel for its own disk, which is slow, and has bytes in
/// the page cache of the loop device that are not written yet.
#[test]
fn a_killed_process_leaves_neither_itself_nor_a_device() {
    lab::require!(LOOP_NEEDS);
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "holds_a_slow_disk_until_killed"])
            .env(HOLD, "")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut words = lines.filter_map(|line| {
            line.unwrap().split_once("attached ").map(|(_, device)| device.to_owned())
        });
        let device = words.next().expect("the child attached nothing");
        let len = |device: &str| std::fs::read_to_string(format!("/sys/block/{device}/size"));
        let attached = len(&device).unwrap();
        assert_eq!(attached.trim().parse(), Ok(child_len(child.id()) / 512));
        child.kill().unwrap(); // SIGKILL
        wait_until("the child has ended", || child.try_wait().unwrap().is_some());
        wait_until("the device is detached", || len(&device).ok().as_ref() != Some(&attached));
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let own = format!("ezio-test-disk-{}", child.id());
        assert!(!mounts.contains(&own), "{mounts}");
    }
}

/// The child of the test above; on its own it has nothing to do.
#[test]
fn holds_a_slow_disk_until_killed() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let len = child_len(std::process::id());
    let disk = TestDisk::new(len, Model::Instant).unwrap();
    let device = attach(&disk);
    let file = open(device.path());
    disk.set_model(Model::Rate { bytes_per_s: 100_000 });
    file.write_all_at(&vec![1; 8 << 20], 0).unwrap();
    let name = device.path().file_name().unwrap().to_string_lossy();
    println!("attached {name}");
    // Seconds.
    file.sync_all().unwrap();
}

/// Bytes of its disk: by that its loop device is known from others.
fn child_len(pid: u32) -> u64 {
    LEN + u64::from(pid % 1000 + 1) * 512
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

const HOLD: &str = "LAB_TEST_HOLD_DISK";

#[test]
fn no_copy_of_an_open_file_lives_with_a_disk() {
    lab::require!(TestDisk::NEEDS);
    let (reader, writer) = std::io::pipe().unwrap();
    let disk = disk();
    drop(writer);
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(std::io::copy(&mut &reader, &mut std::io::sink()));
    });
    let read = ended.recv_timeout(Duration::from_secs(30)).expect("the pipe has another end");
    assert_eq!(read.map_err(|error| error.kind()), Ok::<u64, ErrorKind>(0));
    drop(disk);
}
