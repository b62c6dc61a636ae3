//! Turns a device or an image file into an input of the targets `filesystem` and `btrfs`: only what is
//! read of it is kept.
//!
//! `cargo run --example record NUMBER TYPE [VERSION] < image > corpus/filesystem/name`, where
//! NUMBER is the index of TYPE in the target's table.

use ezio::capture::filesystem::{Content, ReadAt, btrfs_used, classify, dirty};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [number, blkid_type, version @ ..] = &arguments[..] else {
        return Err(io::Error::other("usage: record NUMBER TYPE [VERSION] < image > input"));
    };
    let mut image = File::open("/dev/stdin")?;
    let len = image.seek(SeekFrom::End(0))?;
    let source = Recorder { image, blocks: RefCell::default() };
    let version = version.first().map(String::as_str);
    let content = classify(blkid_type, version, None, &source)?;
    let state = match &content {
        Content::FileSystem(found) => dirty(&source, found)?,
        _ => None,
    };
    eprintln!("{content:?}: {state:?}");
    if blkid_type == "btrfs" {
        eprintln!("{:?}", btrfs_used(&source, len));
    }

    let mut out = vec![number.parse().map_err(io::Error::other)?];
    out.extend(u32::try_from(len).map_err(io::Error::other)?.to_le_bytes());
    for (offset, block) in source.blocks.take() {
        let used = block.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
        if used > 0 {
            out.extend(u32::try_from(offset).map_err(io::Error::other)?.to_le_bytes());
            // A block has 512 bytes, so its length fits.
            out.extend((used as u16).to_le_bytes());
            out.extend(&block[..used]);
        }
    }
    io::stdout().write_all(&out)
}

/// Keeps each block that was read, by its offset.
struct Recorder {
    image: File,
    blocks: RefCell<BTreeMap<u64, Vec<u8>>>,
}

const BLOCK: usize = 512;

impl ReadAt for Recorder {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let len = self.image.read_at(buf, offset)?;
        for (index, block) in buf[..len].chunks(BLOCK).enumerate() {
            let at = offset + (index * BLOCK) as u64;
            self.blocks.borrow_mut().insert(at, block.to_vec());
        }
        Ok(len)
    }
}
