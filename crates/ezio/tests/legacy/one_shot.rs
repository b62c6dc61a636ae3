//! The command line of 1.x.

use crate::ezio;
use crate::world::{GRPC, Image, World, text, wait};
use ezio::legacy::Client;
use lab::Need;
use std::process::Command;

const NEEDS: [Need; 4] = [Need::Root, Need::Loop, Need::Program("ip"), Need::Program("tc")];

/// Two disks at once, as Clonezilla 5.3 calls it, but with `-t 0`.
#[test]
fn disks_are_seeded_and_copied() {
    lab::require!(NEEDS);
    let world = World::new(2);
    let images = [("sda1", 31), ("sda2", 32)].map(|(n, s)| Image::new(world.dir.path(), n, s));
    let sources = images.each_ref().map(|image| image.source(world.path(&image.hash())));
    let targets = images.each_ref().map(|i| i.target(world.path(&format!("to {}", i.hash()))));
    let (a, b) = (images[0].torrent(), images[1].torrent());
    let (from, to) = (sources.each_ref().map(|d| d.path()), targets.each_ref().map(|d| d.path()));
    let seed =
        ["-U", "--cache", "10821753", "-T", a, "-L", text(from[0]), "-T", b, "-L", text(from[1])];
    let mut seeder = world.start(0, ezio(), &seed);
    // One of them without flags.
    let args = ["-t", "0", "-s", "--cache", "9", "-T", a, "-L", text(to[0]), b, text(to[1])];
    let mut leecher = world.start(1, ezio(), &args);
    assert_eq!(leecher.end().code(), Some(0), "{}", leecher.all());
    for (image, target) in images.iter().zip(&targets) {
        image.check(target.path());
    }
    check_output(&leecher.output());
    // Its status service tells, and takes no orders.
    let torrents = world.torrents(0);
    assert_eq!(torrents.len(), 2);
    assert!(torrents.iter().all(|torrent| torrent.progress == 1.0));
    assert!(world.ask(0, Client::shutdown).is_err());
    assert_eq!(seeder.code(), None, "a seeder ends only when it is told to");
    assert!(
        seeder.output().contains("Start downloading\n\r[P: 100%] [D: 0.00 GB/min] [DT: 0 secs]")
    );
    seeder.signal("TERM");
    assert_eq!(seeder.end().code(), Some(143));
}

/// What was printed, with the numbers taken out.
fn check_output(output: &str) {
    let note = "//NOTE// Sequential download is enabled!\n";
    let rest = output.strip_prefix(&format!("{note}{note}Start downloading\n")[..]);
    let rest = rest.unwrap_or_else(|| panic!("{output}"));
    let bare: String = rest.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect();
    let loading = "\r[P: %] [D:  GB/min] [DT:  secs] [U:  GB/min] [UT:  secs] ";
    let bare = bare.trim_start_matches(loading);
    let average = "\nAvg D:  GB/min,  MB/s\n";
    let bare = bare.strip_prefix('\n').unwrap_or_else(|| panic!("{output}"));
    let bare = bare.replace(average, "");
    let bare = bare.trim_start_matches("\r[U:  GB/min] [T:  secs] ");
    assert_eq!(bare, "\nDone, shutting down\n", "{output}");
    assert!(rest.contains("\r[P: 100%] "), "{output}");
}

#[test]
fn images_are_seeded_from_files_and_copied_to_files() {
    lab::require!(NEEDS);
    let world = World::new(3);
    let image = Image::new(world.dir.path(), "sda1", 33);
    let target = image.target(world.path("disk"));
    image.write_files(&world.path("from"));
    std::fs::create_dir(world.path("to")).unwrap();
    let torrent = image.torrent();
    let _seeder =
        world.start(0, ezio(), &["-U", "-f", "-T", torrent, "-L", text(&world.path("from"))]);
    let mut files = world.start(1, ezio(), &["-f", "-t", "0", torrent, text(&world.path("to"))]);
    let mut disk = world.start(2, ezio(), &["-e", "0", "-t", "0", torrent, text(target.path())]);
    assert_eq!(files.end().code(), Some(0), "{}", files.all());
    assert_eq!(disk.end().code(), Some(0), "{}", disk.all());
    image.check_files(&world.path("to"));
    image.check(target.path());
}

#[test]
fn a_run_whose_status_port_is_taken_goes_on_without() {
    lab::require!(NEEDS);
    let world = World::new(1);
    let image = Image::new(world.dir.path(), "sda1", 34);
    let source = image.source(world.path("from"));
    let _daemon = world.daemon(0, &[]);
    let mut seeder = world.start(0, ezio(), &["-U", image.torrent(), text(source.path())]);
    wait("it seeds", || seeder.output().contains("Start downloading"));
    assert!(seeder.errors().contains(&format!("nobody can ask for the status at {GRPC}")));
    seeder.signal("INT");
    assert_eq!(seeder.end().code(), Some(130));
}

/// 1.x crashed there, or went on without its target.
#[test]
fn what_is_wrong_is_said_and_ends_with_1() {
    lab::require!(NEEDS);
    let world = World::new(1);
    let image = Image::new(world.dir.path(), "sda1", 35);
    let rubbish = world.path("rubbish.torrent");
    std::fs::write(&rubbish, "d4:infoe").unwrap();
    let check = |args: &[&str], words: &str| {
        let mut run = world.start(0, ezio(), args);
        let code = run.end().code();
        assert_eq!(code, Some(1), "{args:?}: {}", run.all());
        assert!(run.errors().contains(words), "{args:?}: {}", run.all());
        run.output()
    };
    let torrent = image.torrent();
    check(
        &["-T", "/nowhere/x.torrent", "-L", "/dev/loop0"],
        "open /nowhere/x.torrent: No such file",
    );
    check(&["-T", text(&rubbish), "-L", "/dev/loop0"], "failed to decode node");
    check(&["-T", torrent, "-L", "/dev/nosuchdisk"], "/dev/nosuchdisk: No such file");
    check(&["x", "/dev/loop0"], "no file whose name ends in .torrent, no magnet link, and no URL");
    check(&["magnet:?dn=x", "/dev/loop0"], "names no torrent");
    for args in [&["-U"][..], &["-T", torrent], &["srve"], &["-t", "soon"], &["--nonsense"]] {
        let printed = check(args, "ezio: ");
        assert!(printed.starts_with("Allowed Options:\n  -h [ --help ]          some help\n"));
    }
}

#[test]
fn help_names_commands_and_old_flags() {
    for flag in ["-h", "--help"] {
        let output = Command::new(ezio()).arg(flag).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let place = |word: &str| text.find(word).unwrap_or_else(|| panic!("no {word} in {text}"));
        assert!(place("deploy") < place("--cache KIB"));
        place("--slow-start");
    }
    let output = Command::new(ezio()).arg("-v").output().unwrap();
    let version = format!("ezio {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), version);
}
