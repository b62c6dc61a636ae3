//! partclone's `torrent.info`: invariants, reading again what was written, and that no line and no
//! end of it can get lost without being missed.

#![no_main]

use ezio::capture::torrent_info::{PIECE_LEN, TorrentInfo};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The last bytes choose where a copy is damaged.
    let (text, choice) = match data.split_last_chunk::<2>() {
        Some((text, choice)) => (text, usize::from(u16::from_le_bytes(*choice))),
        None => (data, 0),
    };
    match TorrentInfo::parse(text) {
        Ok(info) => {
            check(&info);
            check_written(&info, choice);
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.contains('\n') && message.len() < 600, "{message:?}");
        }
    }
});

fn check(info: &TorrentInfo) {
    let mut end = 0;
    for (index, extent) in info.extents.iter().enumerate() {
        assert!(
            extent.len > 0 && extent.offset >= end,
            "extent {index}: {extent:?} after {end:#x}"
        );
        end = extent.offset.checked_add(extent.len).expect("an end below 2^63");
        assert!(end <= i64::MAX as u64, "extent {index}: {extent:?}");
        let block_size = info.block_size.map_or(1, u64::from);
        assert!(extent.offset % block_size == 0, "extent {index} begins inside a block");
        let is_last = index + 1 == info.extents.len();
        assert!(is_last || extent.len % block_size == 0, "extent {index} ends inside a block");
    }
    let sum: u128 = info.extents.iter().map(|e| u128::from(e.len)).sum();
    assert_eq!(u128::from(info.image_len()), sum);
    assert_eq!(info.image_len().div_ceil(PIECE_LEN), info.pieces.len() as u64);
    assert!(info.image_len() > 0, "an image without bytes");
    let bytes =
        info.block_size.zip(info.blocks_total).map(|(size, n)| u128::from(size) * u128::from(n));
    assert_eq!(info.filesystem_bytes().map(u128::from), bytes.filter(|b| *b < 1 << 64));
}

fn check_written(info: &TorrentInfo, choice: usize) {
    let mut text = Vec::new();
    info.write_to(&mut text).expect("memory can be written");
    assert_eq!(TorrentInfo::parse(&text).as_ref(), Ok(info), "written and read again");

    // Only the last newline may be missing: a digest is whole without it.
    let cut = choice % text.len();
    let whole = cut + 1 == text.len();
    let found = TorrentInfo::parse(&text[..cut]);
    assert_eq!(found.is_ok(), whole, "cut at {cut} of {}: {found:?}", text.len());

    check_digests_first(&text, choice);

    let lines: Vec<&[u8]> = text.split_inclusive(|&b| b == b'\n').collect();
    let gone = choice % lines.len();
    let rest = [&lines[..gone], &lines[gone + 1..]].concat().concat();
    let is_header = lines[gone].starts_with(b"block");
    let found = TorrentInfo::parse(&rest);
    assert!(is_header || found.is_err(), "line {gone} can be lost: {found:?}");

    let twice = [&lines[..=gone], &lines[gone..]].concat().concat();
    let found = TorrentInfo::parse(&twice);
    assert!(found.is_err(), "line {gone} can be there twice: {found:?}");
}

/// With all digests before the extents, their number tells nothing about the end of the text. A
/// number that lost digits has to be noticed all the same.
fn check_digests_first(text: &[u8], choice: usize) {
    let is_digest = |line: &&[u8]| line.starts_with(b"sha1");
    let lines = || text.split_inclusive(|&b| b == b'\n');
    let digests = lines().filter(is_digest).collect::<Vec<_>>().concat();
    let extents = lines().filter(|line| !is_digest(line)).collect::<Vec<_>>().concat();
    let all = [&digests[..], &extents].concat();
    assert_eq!(TorrentInfo::parse(&all), TorrentInfo::parse(text), "in another order");
    let cut = all.len() - choice % extents.len();
    if cut < all.len() && all[cut - 1] != b'\n' {
        let found = TorrentInfo::parse(&all[..cut]);
        assert!(found.is_err(), "cut at {cut} of {}: {found:?}", all.len());
    }
}
