//! The scripts of Debian's packages, unchanged: images and torrents made, seeded, and restored onto
//! other disks, where the tracker refuses every announce.

use crate::disks::{self, Plan, partition_name};
use crate::machine::{Machine, end};
use crate::world::{text, wait};
use crate::{CLONEZILLA, MACHINE};
use lab::{FileSystem, Lan, Links};
use std::path::Path;

/// As a computer with UEFI has it. Where the kernel has no vfat, Clonezilla looks for no boot loader
/// in it; the data is copied all the same.
const UEFI: Plan =
    Plan { label: "gpt", kind: "uefi", file_systems: [FileSystem::Fat16, FileSystem::Ext4] };

/// As an older one has it; extents of 1 KiB are not aligned to pages.
const BIOS: Plan =
    Plan { label: "dos", kind: "linux", file_systems: [FileSystem::Ext4Block1K, FileSystem::Ext4] };

/// Ends the test with a line that says why if something is not installed.
macro_rules! require {
    ($plan:expr) => {
        let mut needs = [&MACHINE[..], &CLONEZILLA[..]].concat();
        needs.extend($plan.file_systems.iter().flat_map(|kind| kind.needs()));
        lab::require!(needs);
    };
}

/// From raw devices: the pseudo image has no data, only torrents that are made of the devices.
#[test]
fn a_disk_is_restored_from_a_disk() {
    require!(UEFI);
    let dir = tempfile::tempdir().unwrap();
    let lan = Lan::new(2, &Links::default()).unwrap();
    let [server, client] = [0, 1].map(|n| Machine::start(&lan, n, dir.path().join(n.to_string())));
    let source = UEFI.full(dir.path().join("source.img"), 1);
    let target = UEFI.used(dir.path().join("target.img"));
    let (disk, parts) = (disks::name(&source), names(&source));
    server
        .run(&format!("ocs-sr -sfs -nogui -q2 --batch -j2 -scs -senc -p true savedisk img {disk}"));
    let torrents = "/home/partimag/btzone/img";
    server.run(&format!(
        "mkdir -p {torrents} && ocs-gen-bt-metainfo -d {torrents}/ -i /home/partimag/img {parts}"
    ));
    let started = server.run(&format!("ocs-btsrv -p {} -f start img {parts}", lan.addr(0)));
    // Its torrents, made with a dummy, have the real tracker now.
    assert!(started.contains("\tReplaced in \"announce\": \"http://192.168.1.1:6969/announce\""));
    wait_seeding(&server);
    restore(&lan, &server, &client, disks::name(&target));
    // The seeder keeps its source from being mounted.
    stop(&server);
    UEFI.check(&source, &target);
}

/// From the block files of a real image: onto a disk, and onto the partitions of one
/// that has its table already, at the same time.
#[test]
fn disks_are_restored_from_slices_of_an_image() {
    require!(BIOS);
    let dir = tempfile::tempdir().unwrap();
    let lan = Lan::new(3, &Links::default()).unwrap();
    let machines = [0, 1, 2].map(|n| Machine::start(&lan, n, dir.path().join(n.to_string())));
    let [server, client, other] = &machines;
    let source = BIOS.full(dir.path().join("source.img"), 2);
    let target = BIOS.used(dir.path().join("target.img"));
    let partitioned = BIOS.partitioned(dir.path().join("partitioned.img"));
    let (disk, parts) = (disks::name(&source), names(&source));
    server.run(&format!(
        "ocs-sr -q2 -nogui --batch -j2 -z1p -i 4096 -sfsck -scs -senc -p true savedisk img {disk}"
    ));
    server.run(&format!("ocs-gen-bt-slices img {parts}"));
    server.run(&format!("ocs-btsrv -p {} start img {parts}", lan.addr(0)));
    wait_seeding(server);
    let image = server.path("partimag/btzone/img");
    // This one gets the torrents as its partitions are named.
    std::fs::create_dir_all(other.path("partimag/btzone/img")).unwrap();
    for number in [1, 2] {
        let [from, to] = [&source, &partitioned].map(|disk| partition_name(disk, number));
        let torrent = image.join(format!("{from}.torrent"));
        std::fs::copy(torrent, other.path(&format!("partimag/btzone/img/{to}.torrent"))).unwrap();
    }
    let leech = "ocs-btsrv --for-leecher -r /home/partimag/btzone start img";
    let mut leecher = other.spawn(&format!("{leech} {}", names(&partitioned)));
    restore(&lan, server, client, disks::name(&target));
    BIOS.check(&source, &target);
    assert_eq!(end(&mut leecher).code(), Some(0));
    for number in [1, 2] {
        let [from, to] = [&source, &partitioned].map(|d| d.device().partition(number).unwrap());
        let torrent = image.join(format!("{}.torrent", partition_name(&source, number)));
        disks::check_extents(&torrent, &from, &to);
        BIOS.file_systems[number as usize - 1].fsck(&to).unwrap();
    }
    stop(server);
}

/// The names of both partitions, with a space between them.
fn names(disk: &crate::disk::Disk) -> String {
    [1, 2].map(|number| partition_name(disk, number)).join(" ")
}

/// Waits until the seeder is asked for pieces, and all its trackers have refused it.
fn wait_seeding(server: &Machine) {
    wait("the seeder was refused by both trackers", || {
        let log = std::fs::read_to_string(server.path("log/ezio-seeding.log")).unwrap_or_default();
        log.matches("Requested download is not authorized").count() >= 2
    });
    assert!(server.has("ezio"), "`ps -C ezio` is how Clonezilla knows that its seeder runs");
}

/// What `ocs-live-get-img` does with what it gets from the server: what is not a file system of the
/// image, and the torrents.
fn restore(lan: &Lan, server: &Machine, client: &Machine, disk: &str) {
    std::fs::create_dir_all(client.path("tmp/btzone/img")).unwrap();
    client.copy(&server.path("partimag/img"), "tmp/img");
    for entry in std::fs::read_dir(client.path("tmp/img")).unwrap() {
        let path = entry.unwrap().path();
        // Names stay, without data, so that Clonezilla knows which file systems there are.
        if text(&path).contains("-ptcl-img.") {
            std::fs::write(&path, "").unwrap();
        }
    }
    for entry in std::fs::read_dir(server.path("partimag/btzone/img")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "torrent") {
            client.copy(&path, "tmp/btzone/img/");
        }
    }
    let server = lan.addr(0);
    let said = client.run(&format!(
        "ocs-sr -os {server} --ocsroot /tmp/ -l en_US.UTF-8 --batch -g auto -e1 auto -e2 -r -j2 -scr \
         -p true bt_restoredisk img {disk}"
    ));
    let log = std::fs::read_to_string(client.path("log/ezio-leeching.log")).unwrap();
    assert!(log.contains("\nDone, shutting down\n"), "{said}\n{log}");
}

/// As `ocs-live-feed-img` does when all clients are done.
fn stop(server: &Machine) {
    assert!(Path::new(&server.path("log/ezio-seeding.log")).exists());
    server.run("ocs-btsrv -b stop");
    wait("seeder and trackers are gone", || !server.has("ezio") && !server.has("opentracker"));
}
