//! Trackers and the daemon of 2.x: private torrents (BEP 27) are not told to the local network, so
//! the tracker alone brings peers together.

use crate::clients::NEEDS;
use crate::world::{Image, Process, World, wait};
use lab::Need;
use std::path::Path;
use swarm::metainfo::Metainfo;

/// Where opentracker listens, on machine 0.
const PORT: u16 = 6969;

/// The image as a private torrent with a tracker on machine 0.
fn private(world: &World, mut image: Image) -> Image {
    let mut info = image.metainfo.info_bytes().to_vec();
    // `private` is the last key of the dictionary.
    assert_eq!(info.pop(), Some(b'e'));
    info.extend(b"7:privatei1ee");
    let url = format!("http://{}:{PORT}/announce", world.lan.addr(0));
    let mut torrent = format!("d8:announce{}:{url}4:info", url.len()).into_bytes();
    torrent.extend(info);
    torrent.push(b'e');
    image.metainfo = Metainfo::parse(torrent).unwrap();
    assert!(image.metainfo.is_private());
    std::fs::write(&image.torrent, image.metainfo.as_bytes()).unwrap();
    image
}

/// As user nobody, in the directory that holds its whitelist.
fn opentracker(world: &World, image: &Image) -> Process {
    let dir = world.path("tracker");
    std::fs::create_dir_all(&dir).unwrap();
    lab::tool::run(lab::tool::words("chmod 755").arg(world.dir.path()).arg(&dir)).unwrap();
    let list = dir.join("whitelist");
    std::fs::write(&list, image.hash() + "\n").unwrap();
    let user = ["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"];
    let leash = ["--pdeathsig", "KILL"];
    let (ip, port) = (world.lan.addr(0).to_string(), PORT.to_string());
    let args = ["opentracker", "-i", &ip, "-p", &port, "-P", &port, "-d", "/", "-w"];
    let list = [list.to_str().unwrap()];
    let args = [&leash[..], &user, &args, &list].concat();
    world.start(0, Path::new("setpriv"), &args)
}

/// The tracker comes after both daemons, goes, and comes again for a third.
#[test]
fn daemons_survive_a_tracker_that_comes_and_goes() {
    lab::require!(NEEDS);
    lab::require!([Need::Program("opentracker")]);
    let world = World::new(3);
    let image = private(&world, Image::new(world.dir.path(), "sda1", 91));
    let source = image.source(world.path("from"));
    let targets = [1, 2].map(|machine| image.target(world.path(&format!("target {machine}"))));
    let mut daemons = [0, 1, 2].map(|machine| world.daemon(machine, &[]));
    world.add(0, &image, source.path(), true);
    world.add(1, &image, targets[0].path(), false);
    wait("both miss the tracker", || {
        daemons[..2].iter().all(|daemon| daemon.all().contains(&format!(":{PORT}/announce")))
    });
    assert_eq!(world.torrents(1)[0].num_peers, 0, "the local network is told of a private torrent");
    let first = opentracker(&world, &image);
    world.wait_finished(1);
    image.check(targets[0].path());
    drop(first);
    world.add(2, &image, targets[1].path(), false);
    wait("the third misses the tracker", || {
        daemons[2].all().contains(&format!(":{PORT}/announce"))
    });
    let _second = opentracker(&world, &image);
    world.wait_finished(2);
    image.check(targets[1].path());
    assert!(daemons.iter_mut().all(|daemon| daemon.code().is_none()));
}

/// What Clonezilla does when the server has got another address: another program edits the
/// announce URL of our torrents, of one or of several trackers; the info-hash stays.
#[test]
fn transmission_edits_our_torrents() {
    lab::require!([Need::Program("transmission-edit")]);
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let mut bytes = vec![0; 3 << 20];
    lab::Random::new(92).fill(&mut bytes);
    std::fs::write(&disk, &bytes).unwrap();
    let (old, new) = ("http://192.168.1.1:6969/announce", "http://10.0.0.1:6971/announce");
    let other = "http://10.0.0.2/announce";
    for trackers in [&[old][..], &[old, other]] {
        let path = dir.path().join(format!("{}.torrent", trackers.len()));
        let mut capture = std::process::Command::new(crate::ezio());
        capture.arg("capture").arg(&disk).arg("-o").arg(&path).arg("--quiet");
        for url in trackers {
            capture.args(["--tracker", url]);
        }
        lab::tool::run(&mut capture).unwrap();
        let before = Metainfo::parse(std::fs::read(&path).unwrap()).unwrap();
        let mut edit = lab::tool::words(&format!("transmission-edit -r {old} {new}"));
        lab::tool::run(edit.arg(&path)).unwrap();
        let after = Metainfo::parse(std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(after.info_hash(), before.info_hash());
        let wanted = trackers.iter().map(|url| url.replace(old, new)).collect::<Vec<_>>();
        assert_eq!(after.trackers().concat(), wanted);
    }
}
