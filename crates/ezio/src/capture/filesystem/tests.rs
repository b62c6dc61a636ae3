//! Every file system whose mkfs is installed, made on an image file; marks of uncleanness set by
//! hand or by a real mount; and garbage.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// An image file in a directory of its own.
struct Image {
    directory: TempDir,
    path: std::path::PathBuf,
}

impl Image {
    fn new(mib: u64) -> Image {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("image");
        File::create(&path).and_then(|f| f.set_len(mib << 20)).expect("an image file");
        Image { directory, path }
    }

    /// `None`, said aloud, if the program is not installed.
    fn made_by(mib: u64, command: &str) -> Option<Image> {
        let image = Image::new(mib);
        let mut words = command.split(' ');
        let name = words.next().expect("split gives at least one");
        let Some(program) = find_program(name) else {
            lab::skipped(&format!("no program {name}"));
            return None;
        };
        let made = Command::new(program)
            .args(words)
            .arg(&image.path)
            .stdin(Stdio::null())
            .output()
            .expect("mkfs starts");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{command}: {said}");
        Some(image)
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).expect("the image can be read")
    }

    fn file(&self) -> File {
        OpenOptions::new().read(true).write(true).open(&self.path).expect("the image opens")
    }

    fn content(&self) -> Content {
        recognise(&self.path, &self.file()).expect("blkid understands the image")
    }

    fn dirty(&self) -> Option<String> {
        let file = self.file();
        let Content::FileSystem(found) = self.content() else { panic!("{:?}", self.content()) };
        dirty(&file, &found).expect("the image can be read").map(|d| d.why)
    }

    /// Changes the byte at `at`.
    fn patch(&self, at: u64, change: impl Fn(u8) -> u8) {
        let file = self.file();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("the byte exists");
        file.write_all_at(&[change(byte[0])], at).expect("the image can be written");
    }
}

/// mkfs, MiB, and what must be found, clean.
const MADE: [(Kind, u64, &str); 21] = [
    (Kind::Ext2, 16, "mkfs.ext2 -q -F"),
    (Kind::Ext3, 16, "mkfs.ext3 -q -F"),
    (Kind::Ext4, 16, "mkfs.ext4 -q -F"),
    (Kind::Ext4, 16, "mkfs.ext4 -q -F -b 1024"),
    (Kind::Ext4, 16, "mkfs.ext4 -q -F -b 4096"),
    (Kind::Reiserfs, 40, "mkfs.reiserfs -ff -q"),
    (Kind::Reiser4, 40, "mkfs.reiser4 -ffy"),
    (Kind::Xfs, 300, "mkfs.xfs -q -f"),
    (Kind::Xfs, 300, "mkfs.xfs -q -f -m crc=0 -b size=1024"),
    (Kind::Xfs, 300, "mkfs.xfs -q -f -m crc=0 -l version=1"),
    (Kind::Jfs, 20, "mkfs.jfs -q"),
    (Kind::Btrfs, 128, "mkfs.btrfs -q -f"),
    // Less than 100 MB is too small for partclone.f2fs.
    (Kind::F2fs, 128, "mkfs.f2fs -q -f"),
    (Kind::Nilfs2, 136, "mkfs.nilfs2 -q -f"),
    (Kind::Fat12, 4, "mkfs.vfat -F 12"),
    (Kind::Fat16, 16, "mkfs.vfat -F 16"),
    (Kind::Fat32, 64, "mkfs.vfat -F 32"),
    (Kind::ExFat, 8, "mkfs.exfat"),
    (Kind::Ntfs, 8, "mkfs.ntfs -F -Q -q"),
    (Kind::Minix, 4, "mkfs.minix"),
    (Kind::Minix, 4, "mkfs.minix -3"),
];

#[test]
fn every_file_system_that_can_be_made_is_recognised_and_clean() {
    for (kind, mib, command) in MADE {
        let Some(image) = Image::made_by(mib, command) else { continue };
        match image.content() {
            Content::FileSystem(found) => assert_eq!(found.kind, kind, "{command}"),
            other => panic!("{command}: {other:?}"),
        }
        assert_eq!(image.dirty(), None, "{command}");
    }
}

#[test]
fn what_is_not_one_whole_file_system_is_named() {
    let multi = |what: &str| Content::MultiDevice { what: what.to_owned() };
    let unsupported = |t: &str| Content::Unsupported { blkid_type: t.to_owned() };
    for (mib, command, expected) in [
        (4, "mkswap", Content::Swap { header_bytes: 4096 }),
        (4, "mkswap -p 16384", Content::Swap { header_bytes: 16384 }),
        (4, "mkswap -p 65536", Content::Swap { header_bytes: 65536 }),
        (16, "mkfs.ext4 -q -F -O journal_dev", multi("the external journal of an ext3 or ext4")),
        (16, "mkudffs -b 512", unsupported("udf")),
    ] {
        let Some(image) = Image::made_by(mib, command) else { continue };
        assert_eq!(image.content(), expected, "{command}");
    }
    assert_eq!(Image::new(4).content(), Content::Empty);
    let image = Image::new(4);
    image.patch(70_000, |_| 1);
    assert_eq!(image.content(), Content::Unknown);
}

#[test]
fn blkids_other_types_have_their_names() {
    let raid = |kind: &str| Content::RaidMember { kind: kind.to_owned() };
    let unsupported = |t: &str| Content::Unsupported { blkid_type: t.to_owned() };
    for (blkid_type, usage, expected) in [
        ("crypto_LUKS", "crypto", Content::Luks),
        ("BitLocker", "crypto", Content::BitLocker),
        ("LVM2_member", "raid", Content::LvmMember),
        ("linux_raid_member", "raid", raid("linux_raid_member")),
        ("isw_raid_member", "raid", raid("isw_raid_member")),
        ("zfs_member", "filesystem", multi("a device of a ZFS pool")),
        ("bcache", "other", multi("a device of a bcache")),
        ("swsuspend", "other", Content::HibernatedSwap),
        ("ocfs2", "filesystem", unsupported("ocfs2")),
        ("hfs", "filesystem", unsupported("hfs")),
    ] {
        let found = classify(blkid_type, None, Some(usage), &Vec::new());
        assert_eq!(found.expect("memory can be read"), expected);
    }
}

#[test]
fn containers_are_named() {
    let Some(image) = Image::made_by(4, "truncate -s 32M") else { return };
    let Some(cryptsetup) = find_program("cryptsetup") else {
        lab::skip!("no program cryptsetup");
    };
    let key = image.directory.path().join("key");
    fs::write(&key, "secret").expect("a key file");
    let made = Command::new(cryptsetup)
        .args(["luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"])
        .args([&image.path, &key])
        .output()
        .expect("cryptsetup starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(image.content(), Content::Luks);
}

#[test]
fn xfs_on_two_devices_is_no_whole_file_system() {
    let second = Image::new(320);
    let second_path = second.path.display();
    for (options, what) in [
        (format!("-l logdev={second_path},size=64m"), "XFS with an external log"),
        (format!("-r rtdev={second_path}"), "XFS with a realtime device"),
    ] {
        let Some(image) = Image::made_by(320, &format!("mkfs.xfs -q -f {options}")) else { return };
        assert_eq!(image.content(), multi(what));
        if options.contains("logdev") {
            assert_eq!(second.content(), multi("the external log of an XFS"));
        }
    }
}

#[test]
fn a_hibernated_machines_memory_is_not_swap_to_throw_away() {
    let Some(image) = Image::made_by(4, "mkswap") else { return };
    for (signature, at) in [(b"S1SUSPEND\0", 4096 - 10), (b"LINHIB0001", 4096 - 10)] {
        image.file().write_all_at(signature, at).expect("the image can be written");
        assert_eq!(swap::classify(&image.bytes()).ok(), Some(Content::HibernatedSwap));
    }
    image.file().write_all_at(b"S1SUSPEND\0", 4096 - 10).expect("the image can be written");
    assert_eq!(image.content(), Content::HibernatedSwap);
}

#[test]
fn partition_tables_are_named_and_boot_sectors_are_none() {
    let Some(sfdisk) = find_program("sfdisk") else {
        lab::skip!("no program sfdisk");
    };
    for label in ["gpt", "dos"] {
        let image = Image::new(8);
        let script = image.directory.path().join("script");
        fs::write(&script, format!("label: {label}\nsize=2M\nsize=2M\n")).expect("a script");
        let done = Command::new(&sfdisk)
            .args(["-q"])
            .arg(&image.path)
            .stdin(File::open(&script).expect("the script is there"))
            .status();
        assert!(done.is_ok_and(|s| s.success()));
        assert_eq!(image.content(), Content::PartitionTable { kind: label.to_owned() });
    }
    // A boot loader in a partition's first sector: the two last bytes, but no entries.
    let Some(image) = Image::made_by(16, "mkfs.ext4 -q -F") else { return };
    image.file().write_all_at(&[0x55, 0xAA], 510).expect("the image can be written");
    assert!(matches!(image.content(), Content::FileSystem(_)));
}

#[test]
fn a_file_system_under_a_partition_table_is_ambivalent() {
    let Some(image) = Image::made_by(16, "mkfs.ext4 -q -F") else { return };
    let entry = [0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0];
    image.file().write_all_at(&entry, 446).expect("the image can be written");
    image.file().write_all_at(&[0x55, 0xAA], 510).expect("the image can be written");
    let error = recognise(&image.path, &image.file()).expect_err("two answers");
    assert!(error.to_string().contains("partition table (dos)"), "{error}");
}

/// What `set` does to a clean image must make it dirty with `why` in the reason.
fn check_mark(mib: u64, command: &str, why: &str, set: impl Fn(&Image)) {
    let Some(image) = Image::made_by(mib, command) else { return };
    assert_eq!(image.dirty(), None, "{command}");
    set(&image);
    let found = image.dirty().unwrap_or_default();
    assert!(found.contains(why), "{command}: {why} is not in `{found}`");
}

#[test]
fn marks_of_uncleanness_are_seen() {
    let ext4 = "mkfs.ext4 -q -F";
    check_mark(16, ext4, "needs_recovery", |i| i.patch(1024 + 0x60, |b| b | 4));
    check_mark(16, ext4, "found errors", |i| i.patch(1024 + 0x3A, |b| b | 2));
    check_mark(16, "mkfs.ext2 -q -F", "not unmounted", |i| i.patch(1024 + 0x3A, |_| 0));
    let reiserfs = "mkfs.reiserfs -ff -q";
    check_mark(40, reiserfs, "not unmounted", |i| i.patch(65536 + 50, |_| 2));
    check_mark(40, reiserfs, "errors", |i| i.patch(65536 + 62, |_| 1));
    check_mark(40, "mkfs.reiser4 -ffy", "not replayed", |i| i.patch(19 * 4096, |_| 7));
    check_mark(20, "mkfs.jfs -q", "not unmounted", |i| i.patch(32768 + 40, |_| 1));
    check_mark(136, "mkfs.nilfs2 -q -f", "not unmounted", |i| i.patch(1024 + 116, |_| 0));
    check_mark(136, "mkfs.nilfs2 -q -f", "errors", |i| i.patch(1024 + 116, |_| 3));
    check_mark(4, "mkfs.minix", "not unmounted", |i| i.patch(1024 + 18, |_| 0));
    check_mark(4, "mkfs.minix", "errors", |i| i.patch(1024 + 18, |_| 3));
    check_mark(8, "mkfs.exfat", "VolumeDirty", |i| i.patch(0x6A, |_| 2));
    check_mark(8, "mkfs.exfat", "MediaFailure", |i| i.patch(0x6A, |_| 4));
}

#[test]
fn fats_two_flags_and_linux_own_are_seen() {
    let start = |i: &Image| u64::from(u16::from_le_bytes([i.bytes()[14], i.bytes()[15]])) * 512;
    check_mark(4, "mkfs.vfat -F 12", "not unmounted", |i| i.patch(0x25, |b| b | 1));
    let fat16 = "mkfs.vfat -F 16";
    check_mark(16, fat16, "not unmounted", |i| i.patch(start(i) + 3, |b| b & 0x7F));
    check_mark(16, fat16, "I/O errors", |i| i.patch(start(i) + 3, |b| b & 0xBF));
    check_mark(16, fat16, "not unmounted", |i| i.patch(0x25, |b| b | 1));
    let fat32 = "mkfs.vfat -F 32";
    check_mark(64, fat32, "not unmounted", |i| i.patch(start(i) + 7, |b| b & 0xF7));
    check_mark(64, fat32, "I/O errors", |i| i.patch(start(i) + 7, |b| b & 0xFB));
    check_mark(64, fat32, "not unmounted", |i| i.patch(0x41, |b| b | 1));
}

#[test]
fn ntfs_dirty_flag_and_open_journal_are_seen() {
    let find = |image: &Image, what: &[u8]| {
        let bytes = image.bytes();
        bytes.windows(what.len()).position(|w| w == what).expect("it is in the image") as u64
    };
    // Version 3.1 and its flags are the end of $VOLUME_INFORMATION: 8 zeros, 3, 1, flags.
    let information = [0, 0, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0];
    check_mark(8, "mkfs.ntfs -F -Q -q", "dirty flag", |i| {
        i.patch(find(i, &information) + 10, |b| b | 1);
    });
    let restart = |major: u8, client: u16, flags: u8| {
        let mut page = vec![0; 4096];
        page[..4].copy_from_slice(b"RSTR");
        page[24] = 48;
        page[28] = major;
        page[48..56].copy_from_slice(&7u64.to_le_bytes());
        page[60..62].copy_from_slice(&client.to_le_bytes());
        page[62] = flags;
        page
    };
    // mkfs fills the journal with 0xFF; it is the first long run of them.
    let write = |i: &Image, page: &[u8]| {
        let at = find(i, &[0xFF; 8192]);
        i.file().write_all_at(page, at).expect("the image can be written");
    };
    check_mark(8, "mkfs.ntfs -F -Q -q", "not closed", |i| write(i, &restart(1, 0, 0)));
    check_mark(8, "mkfs.ntfs -F -Q -q", "fast startup", |i| write(i, &restart(2, 0, 0)));
    let Some(image) = Image::made_by(8, "mkfs.ntfs -F -Q -q") else { return };
    write(&image, &restart(1, 0, 2));
    assert_eq!(image.dirty(), None, "in use, but marked clean");
    write(&image, &restart(1, 0xFFFF, 0));
}

/// mkfs writes one record, the unmount record, at the start of the log.
#[test]
fn xfs_logs_of_both_versions_need_their_unmount_record() {
    check_mark(300, "mkfs.xfs -q -f", "needs repair", |i| i.patch(219, |b| b | 0x10));
    for options in ["", " -m crc=0 -l version=1"] {
        let record = |i: &Image| {
            let bytes = i.bytes();
            let magic = 0xFEED_BABE_u32.to_be_bytes();
            let block = bytes.chunks(512).position(|b| b.starts_with(&magic));
            block.expect("mkfs wrote a record") as u64 * 512
        };
        let command = format!("mkfs.xfs -q -f{options}");
        let why = "log was not replayed";
        check_mark(300, &command, why, |i| i.patch(record(i) + 512 + 9, |flags| flags & !0x20));
        check_mark(300, &command, why, |i| i.patch(record(i) + 43, |operations| operations + 1));
        check_mark(300, &command, why, |i| i.patch(record(i) + 14, |len| len + 2));
        check_mark(300, &command, "did not finish", |i| i.patch(126, |_| 1));
    }
}

#[test]
fn f2fs_is_clean_only_with_its_newer_checkpoint() {
    let Some(image) = Image::made_by(64, "mkfs.f2fs -q -f") else { return };
    let bytes = image.bytes();
    let start =
        u64::from(u32::from_le_bytes([bytes[1100], bytes[1101], bytes[1102], bytes[1103]])) * 4096;
    // The CRC no longer fits: this checkpoint does not count, the other one does.
    image.patch(start + 132, |b| b & !1);
    assert_eq!(image.dirty(), None);
    image.patch(start + 512 * 4096 + 132, |b| b & !1);
    assert!(image.dirty().is_some_and(|why| why.contains("no valid checkpoint")));
}

#[test]
fn btrfs_log_tree_and_several_devices_are_seen() {
    let btrfs = |at: usize, value: u8| {
        let mut bytes = vec![0; 70_000];
        bytes[65536 + 136] = 1;
        bytes[65536 + at] = value;
        bytes
    };
    let content = |bytes: &Vec<u8>| classify("btrfs", None, None, bytes).expect("memory is read");
    let check = |bytes: &Vec<u8>| dirty(bytes, &found(Kind::Btrfs)).expect("memory is read");
    assert_eq!(check(&btrfs(96, 0)), None);
    assert!(check(&btrfs(97, 1)).is_some_and(|d| d.why.contains("log_root")));
    let what = "btrfs on 3 devices".to_owned();
    assert_eq!(content(&btrfs(136, 3)), Content::MultiDevice { what });
}

#[test]
fn file_systems_without_mkfs_here_are_read_from_their_headers() {
    let mut hfs = vec![0; 4096];
    hfs[1024..1026].copy_from_slice(b"H+");
    let hfs_state = |bytes: &Vec<u8>| {
        dirty(bytes, &found(Kind::HfsPlus)).expect("memory is read").map(|d| d.why)
    };
    assert!(hfs_state(&hfs).is_some_and(|why| why.contains("not unmounted")));
    hfs[1024 + 6] = 1;
    assert_eq!(hfs_state(&hfs), None);
    hfs[1024 + 6] = 9;
    assert!(hfs_state(&hfs).is_some_and(|why| why.contains("inconsistent")));

    let mut ufs = vec![0; 70_000];
    let ufs_state =
        |bytes: &Vec<u8>| dirty(bytes, &found(Kind::Ufs)).expect("memory is read").map(|d| d.why);
    ufs[65536 + 1372..65536 + 1376].copy_from_slice(&0x1954_0119u32.to_le_bytes());
    assert!(ufs_state(&ufs).is_some_and(|why| why.contains("not unmounted")));
    ufs[65536 + 209] = 1;
    assert_eq!(ufs_state(&ufs), None);
}

#[test]
fn hfs_plus_journal_with_work_is_seen() {
    let mut bytes = vec![0; 16384];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(1024, b"H+");
    put(1024 + 4, &0x2100u32.to_be_bytes());
    put(1024 + 12, &1u32.to_be_bytes());
    put(1024 + 40, &4096u32.to_be_bytes());
    put(4096, &1u32.to_be_bytes());
    put(4096 + 36, &8192u64.to_be_bytes());
    put(8192, b"xLNJ");
    put(8192 + 8, &512u64.to_le_bytes());
    put(8192 + 16, &512u64.to_le_bytes());
    let state = |bytes: &Vec<u8>| dirty(bytes, &found(Kind::HfsPlus)).expect("memory is read");
    assert_eq!(state(&bytes), None);
    bytes[8192 + 16] = 1;
    assert!(state(&bytes).is_some_and(|d| d.why.contains("journal")));
}

fn found(kind: Kind) -> FileSystem {
    FileSystem { kind, blkid_type: kind.to_string(), version: None }
}

#[test]
fn ntfs_tail_is_the_last_whole_sector() {
    for (size_bytes, sector_bytes, offset, len) in [
        (1 << 20, 512, (1 << 20) - 512, 512),
        (1 << 20, 4096, (1 << 20) - 4096, 4096),
        ((1 << 20) + 100, 512, (1 << 20) - 512, 512),
        (100, 512, 0, 0),
        (100, 0, 99, 1),
    ] {
        assert_eq!(ntfs_tail(size_bytes, sector_bytes), Extent { offset, len });
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..9000),
        patches in prop::collection::vec((0usize..270_000, any::<u64>()), 0..40),
    ) {
        let mut source = bytes;
        if !patches.is_empty() {
            source.resize(270_008, 0);
        }
        for (at, value) in patches {
            source[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        for kind in Kind::all() {
            // Memory gives no errors: whatever is wrong with it is an answer.
            prop_assert!(dirty(&source, &found(kind)).is_ok());
            prop_assert!(devices::several(kind, &source).is_ok());
        }
        prop_assert!(swap::classify(&source).is_ok());
        parse_export(&source);
    }
}

/// Real file systems with one field destroyed, and cut off at all sorts of places.
#[test]
fn damaged_superblocks_never_panic() {
    for (kind, mib, command) in MADE {
        let Some(image) = Image::made_by(mib, command) else { continue };
        let file = image.file();
        for base in [0u64, 1024, 8192, 32768, 65536] {
            for at in (base..base + 512).step_by(4) {
                let mut before = [0; 4];
                file.read_exact_at(&mut before, at).expect("the image is longer");
                for value in [[0xFF; 4], [0; 4], [0x80, 0, 0, 0x80]] {
                    file.write_all_at(&value, at).expect("the image can be written");
                    dirty(&file, &found(kind)).expect("the image can be read");
                    devices::several(kind, &file).expect("the image can be read");
                }
                file.write_all_at(&before, at).expect("the image can be written");
            }
        }
        for len in [0, 1, 511, 1024, 1500, 4096, 65536, 70_000, 1 << 20] {
            file.set_len(len).expect("the image can be cut");
            dirty(&file, &found(kind)).expect("the image can be read");
        }
    }
}

mod mounted;

/// A source that cannot be read anywhere.
struct Broken;

impl ReadAt for Broken {
    fn read_at(&self, _buf: &mut [u8], _offset: u64) -> std::io::Result<usize> {
        Err(std::io::Error::from_raw_os_error(5))
    }
}

#[test]
fn an_io_error_is_never_taken_for_a_state_of_the_file_system() {
    for kind in Kind::all() {
        let found = FileSystem { kind, blkid_type: "x".to_owned(), version: None };
        match dirty(&Broken, &found) {
            Err(error) => assert_eq!(error.raw_os_error(), Some(5), "{kind}"),
            // These have no mark to look at.
            Ok(state) => {
                assert!(state.is_none() && matches!(kind, Kind::Vmfs | Kind::Apfs), "{kind}")
            }
        }
    }
}
