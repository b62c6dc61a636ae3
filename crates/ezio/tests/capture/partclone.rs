//! The real partclone, which says what is right. Its `torrent.info` is read here with a few lines of
//! our own, so that a mistake in the program's parser cannot hide itself.

use lab::tool;
use std::path::Path;
use swarm::layout::Extent;

/// What partclone says of a device.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// In its own cut.
    pub(crate) extents: Vec<Extent>,
    /// Of pieces of 16 MiB.
    pub(crate) hashes: Vec<[u8; 20]>,
    /// Bytes its header says the file system has.
    pub(crate) file_system_len: u64,
}

/// Runs `partclone.<fs> -c`, with `-t` for hashes only or `-T` for block files too, as Clonezilla
/// does, with the new directory `out`.
#[track_caller]
pub(crate) fn run(program: &str, mode: &str, source: &Path, out: &Path) -> Reference {
    let log = out.with_extension("log");
    let mut command = tool::words(program);
    command.args(["-c", mode, "-z", "16777216", "-s"]).arg(source);
    command.arg("-o").arg(out).arg("-L").arg(log);
    tool::run(&mut command).unwrap();
    parse(&std::fs::read_to_string(out.join("torrent.info")).unwrap())
}

impl Reference {
    /// The extents with those that touch made one.
    pub(crate) fn merged(&self) -> Vec<Extent> {
        let mut merged: Vec<Extent> = Vec::new();
        for &extent in &self.extents {
            match merged.last_mut() {
                Some(last) if last.end() == extent.offset => last.len += extent.len,
                _ => merged.push(extent),
            }
        }
        merged
    }
}

#[track_caller]
fn parse(text: &str) -> Reference {
    let (mut block_size, mut blocks) = (0, 0);
    let mut reference = Reference { extents: vec![], hashes: vec![], file_system_len: 0 };
    let mut offset = None;
    for line in text.lines() {
        let (key, value) = line.split_once(": ").unwrap();
        let hex = || u64::from_str_radix(value, 16).unwrap();
        match key {
            "block_size" => block_size = value.parse().unwrap(),
            "blocks_total" => blocks = value.parse().unwrap(),
            "offset" => assert_eq!(offset.replace(hex()), None, "two offsets"),
            "length" => {
                let offset = offset.take().expect("an offset before every length");
                reference.extents.push(Extent { offset, len: hex() });
            }
            "sha1" => reference.hashes.push(digest(value)),
            _ => panic!("unknown line {line}"),
        }
    }
    reference.file_system_len = block_size * blocks;
    reference
}

fn digest(hex: &str) -> [u8; 20] {
    let bytes = |i: usize| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap();
    std::array::from_fn(bytes)
}
