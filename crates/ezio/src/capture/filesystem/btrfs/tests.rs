//! Image files of the real mkfs, against the lists of `btrfs inspect-internal dump-tree`; then
//! damaged in all sorts of ways.

mod mounted;

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};

use lab::{Need, Random, tool};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const MKFS: [Need; 2] = [Need::Program("mkfs.btrfs"), Need::Program("btrfs")];

/// A btrfs of 144 MiB with many small files. With nodes of 4 KiB its extent tree has inner nodes.
fn image() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (_, path) = made(&dir, 144 << 20, "-n 4096");
        std::fs::read(path).expect("the image can be read")
    })
}

/// A btrfs with 1500 files, made by mkfs itself. Also the directory the files came from.
fn made(dir: &TempDir, len: u64, options: &str) -> (PathBuf, PathBuf) {
    let (files, path) = (dir.path().join("files"), dir.path().join("image"));
    std::fs::create_dir(&files).expect("a new directory");
    let mut random = Random::new(7);
    for i in 0..1500 {
        let mut data = vec![0; random.below(12_000) as usize]; // below 12 000
        random.fill(&mut data);
        std::fs::write(files.join(format!("file {i}")), data).expect("a new file");
    }
    File::create(&path).and_then(|file| file.set_len(len)).expect("a new file");
    let mut mkfs = tool::words(&format!("mkfs.btrfs -q -f {options} --rootdir"));
    tool::run(mkfs.arg(&files).arg(&path)).expect("mkfs.btrfs makes one");
    (files, path)
}

/// What `btrfs` itself says: every item of the extent tree on every stripe of its chunk, and what is
/// used beside it.
pub(super) fn expected(path: &Path, len: u64) -> Vec<Extent> {
    let dump = |tree: &str| {
        let mut command = tool::words("btrfs inspect-internal dump-tree -t");
        tool::run(command.arg(tree).arg(path)).expect("a tree that can be read")
    };
    let node_len = number_behind(&dump_super(path), "nodesize");
    let mut chunks: Vec<(u64, u64, Vec<u64>)> = Vec::new();
    for line in dump("chunk").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["item", _, "key", "(FIRST_CHUNK_TREE", "CHUNK_ITEM", start, ..] => {
                chunks.push((number(start), 0, Vec::new()));
            }
            ["length", len, "owner", ..] => chunks.last_mut().expect("a chunk").1 = number(len),
            ["stripe", _, "devid", _, "offset", offset] => {
                chunks.last_mut().expect("a chunk").2.push(number(offset));
            }
            _ => {}
        }
    }
    let mut extents = vec![Extent { offset: 0, len: 1 << 20 }];
    for offset in [64 << 20, 256 << 30] {
        if offset + 4096 <= len {
            extents.push(Extent { offset, len: 4096 });
        }
    }
    for line in dump("extent").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["item", _, "key", id, kind, offset, ..] = words[..] else { continue };
        let len = match kind {
            "EXTENT_ITEM" => number(offset),
            "METADATA_ITEM" => node_len,
            _ => continue,
        };
        let id = number(id);
        let chunk = chunks.iter().find(|(start, len, _)| (*start..start + len).contains(&id));
        let (start, _, stripes) = chunk.expect("a chunk for every extent");
        extents.extend(stripes.iter().map(|at| Extent { offset: at + id - start, len }));
    }
    merged(extents)
}

fn dump_super(path: &Path) -> String {
    tool::run(tool::words("btrfs inspect-internal dump-super").arg(path)).expect("a superblock")
}

fn number_behind(text: &str, word: &str) -> u64 {
    let mut words = text.split_whitespace().skip_while(|found| *found != word);
    number(words.nth(1).expect("a number behind the word"))
}

fn number(word: &str) -> u64 {
    let digits = word.trim_matches(['(', ')']);
    digits.parse().unwrap_or_else(|e| panic!("{e}: {word}"))
}

/// In another way than the program does it.
pub(super) fn merged(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.sort_by_key(|extent| (extent.offset, extent.len));
    let mut merged: Vec<Extent> = Vec::new();
    for extent in extents {
        match merged.last_mut() {
            Some(last) if extent.offset <= last.end() => {
                last.len = last.len.max(extent.end() - last.offset);
            }
            _ => merged.push(extent),
        }
    }
    merged
}

/// The image, with other bytes in some places, and perhaps some that cannot be read.
#[derive(Clone, Default)]
struct Patched {
    patches: Vec<(u64, Vec<u8>)>,
    unreadable: Vec<u64>,
    reads: Cell<u64>,
}

impl ReadAt for Patched {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.reads.set(self.reads.get() + 1);
        let end = offset + buf.len() as u64;
        if self.unreadable.iter().any(|at| (offset..end).contains(at)) {
            return Err(io::Error::from_raw_os_error(5)); // EIO
        }
        let count = image().read_at(buf, offset)?;
        let near = |(at, bytes): &&(u64, Vec<u8>)| *at < end && offset < at + bytes.len() as u64;
        for (at, bytes) in self.patches.iter().filter(near) {
            for (place, byte) in (*at..).zip(bytes) {
                if (offset..offset + count as u64).contains(&place) {
                    buf[(place - offset) as usize] = *byte; // below the length of buf
                }
            }
        }
        Ok(count)
    }
}

impl Patched {
    fn with(mut self, at: u64, bytes: &[u8]) -> Patched {
        self.patches.push((at, bytes.to_vec()));
        self
    }

    /// Both superblocks with other bytes at `at`, and checksums that fit.
    fn superblocks(mut self, at: u64, bytes: &[u8]) -> Patched {
        for place in SUPERBLOCKS {
            let mut block = vec![0; 4096];
            self.read_at(&mut block, place).expect("memory can be read");
            block[at as usize..][..bytes.len()].copy_from_slice(bytes); // below 4096
            let sum = crc32c::crc32c(&block[32..]);
            block[..4].copy_from_slice(&sum.to_le_bytes());
            self.patches.push((place, block));
        }
        self
    }

    /// As if the checksums were of a kind that is not looked at.
    fn unchecked(self) -> Patched {
        self.superblocks(196, &[2])
    }

    fn used(&self) -> Result<Vec<Extent>, String> {
        used(self, image().len() as u64).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(&self, why: &str) {
        let said = self.used().expect_err("it is refused");
        assert!(said.contains(why), "{why} is not in `{said}`");
    }
}

const SUPERBLOCKS: [u64; 2] = [64 << 10, 64 << 20];

/// Where on the device the copies of the nodes are that are read, with their levels.
fn nodes() -> Vec<(Pointer, Vec<u64>)> {
    let source = image();
    let len = source.len() as u64;
    let superblock = Superblock::find(&source, len).expect("a good one");
    let mut found = Vec::new();
    let trees = open(&source, len, &superblock, &mut found).expect("good chunks");
    let extents = extent_tree(&trees, &superblock, &mut found).expect("an extent tree");
    let mut nodes = Vec::new();
    for root in [superblock.chunk_root, superblock.root, extents] {
        trees
            .walk(root, &mut |node| {
                let (chunk, skip) = trees.chunks.find(node.address, 4096)?;
                let copies = chunk.copies.iter().map(|copy| copy + skip).collect();
                nodes.push((Pointer { address: node.address, ..root }, copies));
                Ok(())
            })
            .expect("a good tree");
    }
    nodes
}

#[test]
fn images_are_as_btrfs_lists_them() {
    lab::require!(MKFS);
    for options in [
        "",
        "-n 4096",
        "-n 65536",
        "-M",
        "-M -m dup -d dup",
        "-d dup",
        "-m single",
        "-O ^skinny-metadata,^no-holes,^extref -R ^free-space-tree",
        "--csum xxhash",
        "--csum sha256",
        "--csum blake2",
        "-b 200M",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let len = 300 << 20;
        let (_, path) = made(&dir, len, options);
        // mkfs has cut the file off behind what it used.
        File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        let found = used(&File::open(&path).unwrap(), len).unwrap();
        assert_eq!(found, expected(&path, len), "mkfs.btrfs {options}");
        let sum: u64 = found.iter().map(|extent| extent.len).sum();
        assert!(sum < 60 << 20, "mkfs.btrfs {options}: {sum} bytes used");
    }
}

#[test]
fn a_bad_copy_is_replaced_by_the_other() {
    lab::require!(MKFS);
    let good = Patched::default().used().unwrap();
    let nodes = nodes();
    assert!(nodes.len() > 30, "{} nodes", nodes.len());
    for (pointer, copies) in nodes {
        let [first, second] = copies[..] else { panic!("{pointer:?} has {} copies", copies.len()) };
        let flipped = |at: u64| [image()[at as usize] ^ 0x40];
        let one = Patched::default().with(first + 200, &flipped(first + 200));
        assert_eq!(one.used().unwrap(), good, "{pointer:?}");
        let both = one.with(second + 90, &flipped(second + 90));
        both.refused(&format!("node at {:#x}: its checksum is wrong", pointer.address));
        let mut unreadable = Patched { unreadable: vec![first + 8], ..Patched::default() };
        assert_eq!(unreadable.used().unwrap(), good, "{pointer:?}");
        unreadable.unreadable.push(second);
        unreadable.refused(&format!("read 4 KiB at {first:#x}: Input/output error"));
    }
}

/// As a lost write leaves it: whole, with a good checksum, and old.
#[test]
fn a_stale_copy_is_not_believed() {
    lab::require!(MKFS);
    let good = Patched::default().used().unwrap();
    for (pointer, copies) in nodes() {
        let mut stale = image()[copies[0] as usize..][..4096].to_vec();
        stale[80] ^= 1;
        let sum = crc32c::crc32c(&stale[32..]);
        stale[..4].copy_from_slice(&sum.to_le_bytes());
        let one = Patched::default().with(copies[0], &stale);
        assert_eq!(one.used().unwrap(), good, "{pointer:?}");
        one.with(copies[1], &stale).refused("it is of another transaction than its parent says");
    }
}

#[test]
fn the_second_superblock_serves_where_the_first_is_bad() {
    lab::require!(MKFS);
    let good = Patched::default().used().unwrap();
    for at in [0, 48, 64, 72, 3000] {
        let one = Patched::default().with(SUPERBLOCKS[0] + at, &[0x55]);
        assert_eq!(one.used().unwrap(), good, "{at}");
        one.with(SUPERBLOCKS[1] + at, &[0x55]).refused("superblock at 0x10000 of the device");
    }
    let unreadable = Patched { unreadable: vec![SUPERBLOCKS[0]], ..Patched::default() };
    assert_eq!(unreadable.used().unwrap(), good);
}

#[test]
fn what_places_bytes_otherwise_is_named() {
    lab::require!(MKFS);
    let incompat = u64::from_le_bytes(image()[65536 + 188..][..8].try_into().unwrap());
    for (bit, why) in [
        (12, "the feature zoned"),
        (13, "the feature extent-tree-v2"),
        (14, "the feature raid-stripe-tree"),
        (15, "the feature of bit 15"),
        (17, "the feature remap-tree"),
        (18, "the feature of bit 18, newer"),
        (63, "the feature of bit 63, newer"),
    ] {
        let flags = (incompat | 1 << bit).to_le_bytes();
        Patched::default().superblocks(188, &flags).refused(why);
    }
    Patched::default().superblocks(187, &[1]).refused("the feature of bit 56, newer");
    Patched::default().superblocks(60, &[8]).refused("flags 0x800000000");
    let other_device = Patched::default().superblocks(201, &[2]);
    other_device.refused("it does not lie on this one device: its chunk at");
    // The first chunk of the superblock's array.
    for (flags, why) in [
        (2 | 8, " is RAID0"),
        (2 | 0x40, " is RAID10"),
        (2 | 0x80, " is RAID5"),
        (2 | 0x100, " is RAID6"),
        (2 | 0x1000, " is of profile 0x1000"),
        (2, "it is single and has 2 stripes"),
        (2 | 0x200, "it is RAID1C3 and has 2 stripes"),
        (0x20, "it is for nothing"),
    ] {
        let flags = u64::to_le_bytes(flags);
        Patched::default().superblocks(811 + 17 + 24, &flags).refused(why);
    }
}

/// These change what other trees look like, not the two that are read.
#[test]
fn a_block_group_tree_and_simple_quotas_change_nothing() {
    lab::require!(MKFS);
    let good = Patched::default().used().unwrap();
    assert_eq!(Patched::default().superblocks(180, &[0b1111]).used().unwrap(), good);
    assert_eq!(Patched::default().superblocks(190, &[1]).used().unwrap(), good);
}

#[test]
fn an_extent_tree_that_lists_too_little_is_refused() {
    lab::require!(MKFS);
    let text = u64::from_le_bytes(image()[65536 + 120..][..8].try_into().unwrap());
    Patched::default().superblocks(120, &(text + 1).to_le_bytes()).refused("its extent tree lists");
    assert!(Patched::default().superblocks(120, &text.to_le_bytes()).used().is_ok());
}

#[test]
fn devices_cut_off_anywhere_are_refused() {
    lab::require!(MKFS);
    let good = Patched::default().used().unwrap();
    for len in [0, 1, 65536, 65536 + 4095, 65536 + 4096, 1 << 20, 64 << 20, (64 << 20) + 4096] {
        let source = &image()[..len];
        assert!(used(&source, len as u64).is_err(), "{len}");
        // Its length is one thing, what can be read another: here some of the data is missing.
        if let Ok(found) = used(&source, image().len() as u64) {
            assert!(found == good && len >= 64 << 20, "{len}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Fields of real nodes and superblocks overwritten, with checksums that nobody looks at.
    #[test]
    fn damage_never_panics_and_always_ends(
        damage in prop::collection::vec(
            (any::<prop::sample::Index>(), 0u64..4096, any::<u64>(), 1usize..9, any::<bool>()),
            0..6,
        ),
    ) {
        if let Err(why) = lab::require(&MKFS) {
            static ONCE: Once = Once::new();
            ONCE.call_once(|| lab::skipped(&why));
            return Ok(());
        }
        static NODES: OnceLock<Vec<(Pointer, Vec<u64>)>> = OnceLock::new();
        let nodes = NODES.get_or_init(nodes);
        let mut source = Patched::default().unchecked();
        for (index, at, value, len, near) in damage {
            // Half of them close to what is there: counts, levels, addresses of other nodes.
            let value = if near { value % 300 } else { value };
            let bytes = &value.to_le_bytes()[..len];
            let index = index.index(nodes.len() + 1);
            match nodes.get(index) {
                Some((_, copies)) => {
                    for copy in copies {
                        source = source.with(copy + at.min(4088), bytes);
                    }
                }
                None => source = source.superblocks(at.min(4088), bytes),
            }
        }
        source.reads.set(0);
        let len = image().len() as u64;
        if let Ok(extents) = used(&source, len) {
            prop_assert!(extents.iter().all(|e| e.len > 0 && e.end() <= len));
            prop_assert!(extents.windows(2).all(|pair| pair[0].end() < pair[1].offset));
        }
        prop_assert!(source.reads.get() <= 2 * (len / 4096) + 3, "{} reads", source.reads.get());
    }

    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..80_000)) {
        prop_assert!(used(&bytes, bytes.len() as u64).is_err());
    }
}
