//! Sources that cannot be read everywhere.

use super::{PIECE_LEN, Served, Target, image, text};
use lab::TestDisk;
use lab::disk::{Failure, Fault, Model};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Everything else is deployed, the piece is named on both sides, and nobody takes it for finished.
#[test]
fn a_piece_that_the_source_cannot_read_keeps_nobody_from_the_others() {
    lab::require!(TestDisk::NEEDS);
    const BAD: u64 = 37;
    let (dir, image) = image();
    let source = TestDisk::of(&dir.path().join("disk.img"), Model::Instant).unwrap();
    let mut served = Served::from(source.path(), image, dir);
    let at = BAD * PIECE_LEN + 70_000;
    source.fail(Failure::read(at..at + 512));
    let mut clients = [served.deploy_well("a.img"), served.deploy_well("b.img")];
    let note = served.server.note("cannot be served");
    assert!(note.contains("piece 37 ") && note.contains("Input/output error"), "{note}");
    for (client, path) in &mut clients {
        // After some seconds without anything new.
        let note = client.note("nothing has come");
        assert!(note.contains("has the last 1 pieces that are missing"), "{note}");
        let bytes = std::fs::read(path).unwrap();
        let (start, end) = ((BAD * PIECE_LEN) as usize, ((BAD + 1) * PIECE_LEN) as usize);
        assert!(bytes[4096..start] == served.image[4096..start], "what can be read is there");
        assert!(bytes[end..] == served.image[end..], "what can be read is there");
        assert_eq!(bytes[..4096], [0; 4096], "it looks as if it were finished");
    }
    for (client, _) in clients {
        client.running.signal("TERM").unwrap();
        let error = client.fails();
        assert!(error.contains("interrupted") && error.contains("is not usable"), "{error}");
    }
    // The server goes on.
    served.server.running.signal("TERM").unwrap();
    assert_eq!(served.server.running.code().unwrap(), Some(0));
}

/// Of the source, and of a target that is read again: what comes in parts is read to its end.
#[test]
fn short_reads_are_read_to_their_end() {
    lab::require!(TestDisk::NEEDS);
    let (dir, image) = image();
    let source = TestDisk::of(&dir.path().join("disk.img"), Model::Instant).unwrap();
    let served = Served::from(source.path(), image, dir);
    let target = Target::file(served.dir.path());
    for disk in [&source, &target.disk] {
        disk.fail(Failure::read(..).with(Fault::Short));
    }
    let args = ["deploy", &served.url, "--verify", "--to", text(target.path())];
    let client = super::Process::new(lab::Running::start(super::ezio(), &args).unwrap());
    client.ends_well();
    assert!(target.bytes() == served.image);
}

/// It is noticed by whoever gets the piece, said on both sides, and no reason not to take all others
/// from there. Who has it already gives it to those that come later.
#[test]
fn a_source_that_rots_while_it_is_served() {
    const BAD: u64 = 20;
    let mut served = Served::new();
    let (mut first, good) = served.deploy_well("good.img");
    first.finished();
    // It says that it is finished, and then serves others for a while: hold it there.
    first.running.signal("STOP").unwrap();
    let source = File::options().write(true).open(served.dir.path().join("disk.img")).unwrap();
    let at = BAD * PIECE_LEN + 4321;
    source.write_all_at(&[!served.image[at as usize]], at).unwrap();

    let (mut second, path) = served.deploy_well("second.img");
    let note = second.note("was wrong");
    assert!(note.contains("piece 20 from "), "{note}");
    let note = served.server.note("is not what it was");
    assert!(note.contains("piece 20 of "), "{note}");
    let note = second.note("nothing has come");
    assert!(note.contains("has the last 1 pieces that are missing"), "{note}");
    let bytes = std::fs::read(&path).unwrap();
    let (start, end) = ((BAD * PIECE_LEN) as usize, ((BAD + 1) * PIECE_LEN) as usize);
    assert!(bytes[4096..start] == served.image[4096..start] && bytes[end..] == served.image[end..]);
    assert_eq!(bytes[..4096], [0; 4096], "it looks as if it were finished");

    // Somebody who has it comes back.
    first.running.signal("KILL").unwrap();
    // Until it is gone it holds its target.
    assert_eq!(first.running.code().unwrap(), None);
    let args = ["deploy", &served.url, "--reuse", "--seed-for", "60", "--to", text(&good)];
    let first = super::Process::new(lab::Running::start(super::ezio(), &args).unwrap());
    second.ends_well();
    served.check(&path);
    first.ends_well();
}
