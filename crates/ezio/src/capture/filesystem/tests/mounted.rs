//! What a crash leaves, made by the kernel: the image is looked at while it is mounted.

use lab::{LoopDevice, LoopOptions, Mount, Need};

use super::*;

/// Files that were committed, and after them files that only the journal has.
fn fill(mounted: &Mount) {
    let at = mounted.path();
    fs::write(at.join("committed"), vec![1; 300_000]).expect("the file system takes it");
    // syncfs(2) of this file system alone would do, but this is what is there without `unsafe`.
    rustix::fs::sync();
    for i in 0..30 {
        let file = File::create(at.join(format!("f{i}"))).expect("the file system takes it");
        file.write_all_at(&[2; 70_000], 0).expect("the file system takes it");
        file.sync_all().expect("the file system takes it");
    }
}

/// Dirty while mounted, with `why` in the reason; clean after each of `rounds` unmounts.
fn check(kind: &'static str, mib: u64, options: &str, why: &str, rounds: u32) {
    lab::require!([Need::Root, Need::Loop, Need::Kernel(kind)]);
    let Some(image) = Image::made_by(mib, &format!("mkfs.{kind} {options}")) else { return };
    for round in 0..rounds {
        let device = LoopDevice::attach(&image.path, LoopOptions::default());
        let device = device.expect("a free loop device");
        let mounted = Mount::new(device.path(), kind, "rw").expect("it can be mounted");
        fill(&mounted);
        let found = image.dirty().unwrap_or_default();
        assert!(found.contains(why), "{kind} {options}, {round}: {why} is not in `{found}`");
        mounted.unmount().expect("nobody is in it");
        assert_eq!(image.dirty(), None, "{kind} {options}, round {round}");
    }
}

#[test]
fn ext_left_mounted() {
    check("ext4", 32, "-q -F", "needs_recovery", 2);
    check("ext3", 32, "-q -F", "needs_recovery", 2);
    check("ext2", 32, "-q -F", "not unmounted", 2);
}

#[test]
fn btrfs_left_with_a_log_tree() {
    check("btrfs", 128, "-q -f", "log_root", 2);
}

#[test]
fn xfs_left_with_an_open_log() {
    check("xfs", 300, "-q -f", "log was not replayed", 6);
    check("xfs", 300, "-q -f -l su=65536 -b size=1024", "log was not replayed", 3);
}

/// The table's promise: these programs do not mind our claim on the device. The others get the
/// device for themselves.
#[test]
fn partclone_maps_beside_a_claim_where_the_table_says_so() {
    lab::require!([Need::Root, Need::Loop]);
    for (kind, mib, command) in MADE {
        let Ok(program) = kind.find_partclone() else {
            lab::skipped(&format!("no partclone for {kind}"));
            continue;
        };
        // Version 0.3.23 fails with Minix version 3, claim or not.
        if command == "mkfs.minix -3" {
            continue;
        }
        let Some(image) = Image::made_by(mib, command) else { continue };
        let device = LoopDevice::attach(&image.path, LoopOptions::default());
        let device = device.expect("a free loop device");
        let (file, found) = crate::device::open_source(device.path()).expect("root may open it");
        let claim = kind
            .works_beside_claim()
            .then(|| crate::device::claim(&found, crate::device::Purpose::Reading));
        let claim = claim.transpose().expect("nobody else uses it");
        let map = image.directory.path().join("map");
        let before = crate::device::Fingerprint::take(&file, &found).expect("it can be read");
        let mapped = Command::new(program)
            .args(["-D", "-q", "-L", "/dev/null", "-s"])
            .arg(device.path())
            .arg("-o")
            .arg(&map)
            .output()
            .expect("partclone starts");
        let after = crate::device::Fingerprint::take(&file, &found).expect("it can be read");
        assert_eq!(before.changed(&after), None, "{command}: partclone wrote");
        drop(claim);
        let said = String::from_utf8_lossy(&mapped.stderr);
        assert!(mapped.status.success(), "{command}: {said}");
        let map = fs::read_to_string(map).expect("the map is there");
        assert!(map.lines().any(|line| line.ends_with('+')), "{command}: {map}");
    }
}
