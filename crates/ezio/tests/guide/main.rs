//! Every command block of the README and the guide, typed on machines made of namespaces: a server at
//! 192.168.1.1, a target, a second site; with the disks, ports and paths that the text has. What a
//! deployment has written is compared with the server's disk, whatever the program says itself.
//!
//! A block runs unless the text says `<!-- not run: WHY -->` above it, and [`NOT_RUN`] says so too.

mod beside;
mod blocks;
#[expect(dead_code, reason = "shared with the tests of capture")]
#[path = "../capture/disk.rs"]
mod disk;
#[path = "../clonezilla/namespaces.rs"]
mod namespaces;
mod room;
mod symptoms;
#[expect(dead_code, reason = "shared with the tests of the old command lines")]
#[path = "../legacy/world.rs"]
mod world;

use beside::{BESIDE, Beside, INSTEAD};
use blocks::{Block, Command, Place};
use lab::Need;
use room::Room;
use std::path::Path;
use std::time::Instant;

/// The program under test.
fn ezio() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ezio"))
}

/// The texts whose blocks are run.
const FILES: [&str; 6] = [
    "README.md",
    "docs/guide.md",
    "docs/first-ten-minutes.md",
    "docs/terminal.md",
    "docs/dashboard.md",
    "docs/migration.md",
];

/// The first lines of the blocks that are not run. Reviewed: few, each with a reason in the text.
const NOT_RUN: [(&str, &str); 3] = [
    ("README.md", "cargo install --path crates/ezio --locked"),
    ("README.md", "cargo test --workspace"),
    ("docs/migration.md", "ps -C ezio -o pid,args"),
];

/// What the machines and the commands on them need.
const NEEDS: [Need; 15] = [
    Need::Root,
    Need::Loop,
    Need::Kernel("overlay"),
    Need::Program("apt-cache"),
    Need::Program("curl"),
    Need::Program("dpkg-divert"),
    Need::Program("e2fsck"),
    Need::Program("mkfs.ext4"),
    Need::Program("nsenter"),
    Need::Program("partclone.ext4"),
    Need::Program("pkill"),
    Need::Program("setpriv"),
    Need::Program("sfdisk"),
    Need::Program("unshare"),
    Need::Program("wget"),
];

#[test]
fn readme() {
    play("README.md");
}

#[test]
fn guide() {
    play("docs/guide.md");
}

#[test]
fn first_ten_minutes() {
    play("docs/first-ten-minutes.md");
}

#[test]
fn terminal() {
    play("docs/terminal.md");
}

#[test]
fn dashboard() {
    play("docs/dashboard.md");
}

#[test]
fn migration() {
    play("docs/migration.md");
}

/// What is not run was reviewed, what was reviewed is still there, and no text was forgotten.
#[test]
fn what_is_not_run_is_known() {
    let mut found = Vec::new();
    for file in FILES {
        for block in blocks::blocks(&text(file)) {
            let first = block.commands.first().map_or("", |command| &command.text);
            let first = first.split("  ").next().unwrap_or_default().trim_end();
            if let Some(why) = &block.not_run {
                assert!(why.len() > 15, "{file}:{}: that is no reason: {why}", block.line);
                found.push((file, first.to_owned()));
            }
        }
        for beside in BESIDE.iter().filter(|beside| beside.file == file) {
            let blocks = blocks::blocks(&text(file));
            let meant = blocks.iter().filter(|block| block.has(beside.line)).count();
            assert_eq!(meant, 1, "{file}: blocks with `{}`", beside.line);
        }
    }
    let found: Vec<_> = found.iter().map(|(file, first)| (*file, &first[..])).collect();
    assert_eq!(found, NOT_RUN);
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let name = format!("docs/{}", entry.unwrap().file_name().to_string_lossy());
        assert!(!name.ends_with(".md") || FILES.contains(&&name[..]), "nobody runs {name}");
    }
}

/// Types all blocks of a file, in their order.
fn play(file: &str) {
    lab::require!(NEEDS);
    if let Err(why) = lab::net::supported() {
        lab::skip!("{why}");
    }
    let mut room = Room::new();
    let mut heading = String::new();
    for block in blocks::blocks(&text(file)) {
        if block.heading != heading {
            Place::ALL.into_iter().for_each(|place| room.end(place));
            block.heading.clone_into(&mut heading);
        }
        if block.not_run.is_none() {
            eprintln!("{file}:{}", block.line);
            play_block(&mut room, file, &block);
        }
    }
    Place::ALL.into_iter().for_each(|place| room.end(place));
}

fn play_block(room: &mut Room, file: &str, block: &Block) {
    let mut meant: Vec<&Beside> = BESIDE.iter().filter(|b| b.file == file).collect();
    meant.retain(|beside| block.has(beside.line));
    Place::ALL.into_iter().for_each(|place| drop(room.run(place, "cd /home")));
    let own = |(place, text): &(Place, &str)| Command { place: *place, text: (*text).to_owned() };
    for command in meant.iter().flat_map(|beside| beside.before.iter().map(own)) {
        play_command(room, &command);
    }
    let after = meant.iter().flat_map(|beside| beside.after.iter().map(own));
    let mut written = Vec::new();
    for command in block.commands.iter().cloned().chain(after) {
        let started = Instant::now();
        written.extend(play_command(room, &command));
        eprintln!("    {:5.1} s  {}", started.elapsed().as_secs_f32(), command.text);
    }
    written.into_iter().for_each(|(place, disk)| room.check_disk(place, &disk));
}

/// Runs a command. Returns the disks that it writes.
fn play_command(room: &mut Room, command: &Command) -> Vec<(Place, String)> {
    let place = command.place;
    let mut text = command.text.clone();
    for (said, done) in INSTEAD {
        text = text.replace(said, done);
    }
    let bare = text.split(" # ").next().unwrap_or_default();
    let writes = ["deploy ", " -L ", "ezio_add_torrent.py "].iter().any(|word| bare.contains(word));
    let written: Vec<String> = if writes && place != Place::Server {
        let devices = bare.split([' ', '=']).filter_map(|word| word.strip_prefix("/dev/"));
        devices.map(str::to_owned).collect()
    } else {
        Vec::new()
    };
    if !bare.contains("--reuse") {
        written.iter().for_each(|disk| room.spoil(place, disk));
    }
    // A newcomer ends the last server, too, before the next one can have its disk and its ports.
    if ["ezio serve ", "ezio capture ", "-- serve "].iter().any(|word| bare.contains(word)) {
        room.end(place);
    }
    match background(bare) {
        Some(words) => room.begin(place, &text, words),
        None => drop(room.run(place, &text)),
    }
    written.into_iter().map(|disk| (place, disk)).collect()
}

/// What a command says when it runs well that does not end by itself.
fn background(command: &str) -> Option<&'static str> {
    let first = command.trim_start();
    if command.contains(" serve ") {
        Some("dashboard")
    } else if first.starts_with("ezio watch") || first.starts_with("ezio -U ") {
        Some("")
    } else {
        None
    }
}

fn text(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("read {file}: {e}"))
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
