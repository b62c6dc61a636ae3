//! `ezio deploy` onto a device that was a member of an array.

use crate::disk::Disk;
use crate::{find, wipefs};
use lab::{FileSystem, Need, Running, Tree, tool};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const LEN: u64 = 128 << 20;
/// A multiple of 4 KiB, at least 8 KiB before the end.
const AT: u64 = LEN - 8192;

/// A superblock of MD 1.0 as `mdadm` writes it (drivers/md/md.c, include/uapi/linux/raid/md_p.h): a
/// mirror of two devices, this is the first.
fn superblock() -> Vec<u8> {
    let mut bytes = vec![0; 512];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, &0xa92b_4efc_u32.to_le_bytes());
    put(4, &[1]);
    put(16, b"an-arrays-uuid-1");
    put(32, b"server:0");
    put(72, &[1]); // RAID 1
    put(80, &(AT / 512 - 64).to_le_bytes());
    put(92, &[2]);
    put(136, &(AT / 512 - 64).to_le_bytes());
    put(144, &(AT / 512).to_le_bytes());
    put(168, b"a-devices-uuid-1");
    put(208, &u64::MAX.to_le_bytes());
    put(220, &[2]);
    put(256, &[0, 0, 1, 0]);
    let words =
        bytes[..260].chunks(4).map(|w| u64::from(u32::from_le_bytes(w.try_into().unwrap())));
    let sum: u64 = words.sum();
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    bytes[216..220].copy_from_slice(&u32::try_from(sum).unwrap().to_le_bytes());
    bytes
}

/// What was written beside the superblock, where the image has nothing.
const MARKS: [(u64, u8); 3] = [(AT - 512, 0xaa), (AT + 512, 0xbb), (LEN - 512, 0xcc)];

fn put_old_things(device: &Path) {
    let file = File::options().write(true).open(device).unwrap();
    file.write_all_at(&superblock(), AT).unwrap();
    for (at, byte) in MARKS {
        file.write_all_at(&[byte; 512], at).unwrap();
    }
    file.sync_all().unwrap();
}

/// Whether `mdadm` finds a member there; it reads the superblock itself and needs no kernel for it.
fn is_member(device: &Path) -> bool {
    let text = tool::text(&tool::output(tool::words("mdadm --examine").arg(device)).unwrap());
    text.contains("server:0") && text.contains("Version : 1.0")
}

/// Deploys an ext4 with its files to a target that was a member of an array; returns all that was
/// said.
fn check(options: &[&str], is_left: bool) -> Option<String> {
    let mut needs = FileSystem::Ext4.needs();
    needs.extend([Need::Root, Need::Loop, Need::Program("partclone.ext4")]);
    needs.extend([Need::Program("mdadm"), Need::Program("wipefs")]);
    if let Err(why) = lab::require(&needs) {
        lab::skipped(&why);
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    // Smaller than the target: whatever mkfs does, the target's end is not of the image.
    let source = Disk::new(dir.path().join("source.img"), LEN - (4 << 20), 512);
    let target = Disk::new(dir.path().join("target.img"), LEN, 512);
    FileSystem::Ext4.make(source.path()).unwrap();
    FileSystem::Ext4.fill(source.path(), Tree { seed: 5, bytes: 8 << 20 }).unwrap();
    source.sync();
    put_old_things(target.path());
    assert!(is_member(target.path()), "mdadm does not take the superblock of this test");

    let ezio = Path::new(env!("CARGO_BIN_EXE_ezio"));
    let path = |disk: &Disk| disk.path().to_str().unwrap().to_owned();
    let (_server, url) = Running::serve(ezio, &[&path(&source)]).unwrap();
    let to = path(&target);
    let mut client = Running::start(
        ezio,
        &[&["deploy", &url, "--to", &to, "--seed-for", "0"], options].concat(),
    )
    .unwrap();
    let mut said = String::new();
    while let Some(event) = client.event().unwrap() {
        assert_ne!(event["event"], "error", "{event}");
        said.push_str(event["message"].as_str().unwrap_or_default());
        said.push('\n');
    }
    assert_eq!(client.code().unwrap(), Some(0));

    let file = File::open(target.path()).unwrap();
    for (at, byte) in MARKS {
        let mut bytes = [0; 512];
        file.read_exact_at(&mut bytes, at).unwrap();
        assert_eq!(bytes, [byte; 512], "{at:#x} was touched");
    }
    let mut old = vec![0; 512];
    file.read_exact_at(&mut old, AT).unwrap();
    assert_eq!(old[4..], superblock()[4..], "only the magic is erased");
    assert_eq!(is_member(target.path()), is_left);
    let names: Vec<String> = wipefs(target.path()).into_iter().map(|(name, _)| name).collect();
    let raid = find(&target, 512).iter().any(|s| s.name == "linux_raid_member");
    assert_eq!((raid, names.contains(&"linux_raid_member".to_owned())), (is_left, is_left));
    assert!(names.contains(&"ext4".to_owned()), "{names:?}");
    FileSystem::Ext4.fsck(target.path()).unwrap();
    Some(said)
}

#[test]
fn an_old_member_of_an_array_is_named_and_left() {
    let Some(said) = check(&[], true) else { return };
    let expected = format!("linux_raid_member 1.0 (server:0) at {AT:#x}; it would survive");
    assert!(said.contains(&expected) && said.contains("--wipe removes it"), "{said}");
}

#[test]
fn wipe_removes_an_old_member_of_an_array_and_nothing_else() {
    let Some(said) = check(&["--wipe"], false) else { return };
    let expected = format!("linux_raid_member 1.0 (server:0) at {AT:#x}; it is removed first");
    assert!(said.contains(&expected), "{said}");
}
