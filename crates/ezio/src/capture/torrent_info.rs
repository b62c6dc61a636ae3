//! `torrent.info`: what partclone writes beside, or instead of, the block files of an image.
//!
//! A text, one item a line (partclone, `src/torrent_helper.c`): the file system's block size and
//! count (since 0.3.18, September 2021), for each extent its `offset:` and `length:` in
//! hexadecimal, for each piece of 16 MiB of the extents laid end to end its `sha1:`. The `sha1:`
//! lines stand between the others, wherever partclone had finished a piece; a reader takes each
//! kind in its own order.
//!
//! Whether the extents fit on a device, and what their torrent is, is not decided here.

use std::io::{self, Write};
use swarm::layout::{DEVICE_END_MAX, Extent};

/// The used extents of a file system and the SHA-1 of its pieces, as partclone tells them.
///
/// Memory: 16 bytes for each extent, 20 for each piece; while a text is read nothing else but the
/// text itself, which has 82 bytes for each extent. A million extents are read in 0.12 s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TorrentInfo {
    /// Bytes of a block of the file system: 512 to 65 536, in btrfs its node size. partclone
    /// before 0.3.18 does not tell.
    pub block_size: Option<u32>,
    /// Blocks of the file system, used or not. Too large if partclone.dd was promised more than
    /// came (`-S`). partclone before 0.3.18 does not tell.
    pub blocks_total: Option<u64>,
    /// Ascending, none empty, none overlapping. Neighbours may touch: partclone cuts long runs at
    /// its buffer size.
    pub extents: Vec<Extent>,
    /// SHA-1 of each [`PIECE_LEN`] bytes of the extents laid end to end; the last piece may be
    /// shorter, and is hashed as it is.
    pub pieces: Vec<[u8; 20]>,
}

/// Why a text is no `torrent.info`. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TorrentInfoError {
    /// More than [`TEXT_MAX`].
    #[error("the torrent.info has {len} bytes, more than the {TEXT_MAX} that are read")]
    TooLong {
        /// Bytes of the text.
        len: usize,
    },
    /// A line is not what it should be.
    #[error("line {line}: {why}")]
    Line {
        /// Which line.
        line: usize,
        /// What is wrong with it.
        why: LineError,
    },
    /// `blocks_total: 0` and no extents.
    #[error(
        "the torrent.info is that of 0 blocks: partclone.dd writes it when it reads a pipe, whose \
         size it does not know; give it the size (-S, partclone 0.3.41 and later), or capture the \
         device itself"
    )]
    FromPipe,
    /// Nothing in it.
    #[error("the torrent.info has no extents; did partclone fail before it read the first block?")]
    NoExtents,
    /// As many bytes as there are do not have as many pieces.
    #[error(
        "the torrent.info has {found} sha1 lines, but its extents have {bytes} bytes, which are \
         {wanted} pieces of 16 MiB; is it cut off?"
    )]
    Pieces {
        /// `sha1:` lines.
        found: usize,
        /// Pieces of the extents.
        wanted: u64,
        /// The sum of all lengths.
        bytes: u64,
    },
}

/// What is wrong with one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Not a line of any partclone.
    #[error(
        "{text:?} is not one of block_size, blocks_total, offset, length, sha1; \
         is this a torrent.info?"
    )]
    Unknown {
        /// The line, cut to a readable length.
        text: String,
    },
    /// A header line for the second time.
    #[error("a second {key}")]
    Twice {
        /// Which one.
        key: &'static str,
    },
    /// A value that is not what its key promises.
    #[error("{key} is {text:?}, not {wanted}")]
    Value {
        /// The line's key.
        key: &'static str,
        /// The value, cut to a readable length.
        text: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The last line has no end and may have lost digits.
    #[error("the last line has no end: the file is cut off")]
    CutOff,
    /// A length before the offset it belongs to.
    #[error("a length without an offset before it")]
    NoOffset,
    /// An offset that no length follows.
    #[error("the extent at {offset:#x} has no length")]
    NoLength {
        /// The offset.
        offset: u64,
    },
    /// An extent that ends behind the last offset a device can have.
    #[error("the extent at {offset:#x} of {len} bytes ends behind the largest device (2^63 bytes)")]
    TooFar {
        /// Where it begins.
        offset: u64,
        /// Its bytes.
        len: u64,
    },
    /// An extent that begins before the end of the one before it.
    #[error(
        "the extent at {offset:#x} begins before the end of the one before it, {end:#x}: \
         they overlap or are out of order"
    )]
    Overlap {
        /// Where it begins.
        offset: u64,
        /// Where the one before it ends.
        end: u64,
    },
    /// An extent that is not made of whole blocks. Only the last one may end inside a block.
    #[error("the extent at {offset:#x} of {len} bytes is not made of blocks of {block_size} bytes")]
    Blocks {
        /// Where it begins.
        offset: u64,
        /// Its bytes.
        len: u64,
        /// What it should be a multiple of.
        block_size: u32,
    },
}

/// Bytes of a piece: a constant of partclone (`DEFAULT_PIECE_SIZE`), whatever its buffer size.
pub const PIECE_LEN: u64 = 16 << 20;

/// 1 GiB: 12 million extents, three times what a torrent of 256 MiB can hold.
pub const TEXT_MAX: usize = 1 << 30;

impl TorrentInfo {
    /// Reads the text of any partclone since 0.3.12, with lines that end in LF or CR LF, and
    /// numbers of any width.
    ///
    /// # Errors
    /// See [`TorrentInfoError`].
    pub fn parse(text: &[u8]) -> Result<TorrentInfo, TorrentInfoError> {
        if text.len() > TEXT_MAX {
            return Err(TorrentInfoError::TooLong { len: text.len() });
        }
        let mut reader = Reader::default();
        for (index, line) in text.split(|&b| b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if !line.is_empty() {
                let read = reader.take(line);
                read.map_err(|why| TorrentInfoError::Line { line: index + 1, why })?;
            }
        }
        check_last_line(text)?;
        reader.finish(text)
    }

    /// Writes the text as partclone would, byte for byte.
    ///
    /// # Errors
    /// Those of `w`.
    pub fn write_to(&self, w: &mut impl Write) -> io::Result<()> {
        if let Some(block_size) = self.block_size {
            writeln!(w, "block_size: {block_size}")?;
        }
        if let Some(blocks_total) = self.blocks_total {
            writeln!(w, "blocks_total: {blocks_total}")?;
        }
        let mut pieces = self.pieces.iter();
        let (mut image_end, mut finished) = (0, 0);
        for extent in &self.extents {
            writeln!(w, "offset: {:032x}", extent.offset)?;
            writeln!(w, "length: {:032x}", extent.len)?;
            image_end += extent.len;
            // partclone finishes a piece when the byte behind it comes, not when the piece is full.
            while finished < (image_end - 1) / PIECE_LEN {
                finished += 1;
                pieces.next().map_or(Ok(()), |piece| write_piece(w, piece))?;
            }
        }
        pieces.try_for_each(|piece| write_piece(w, piece))
    }

    /// Bytes of the image: the sum of all extents.
    #[must_use]
    pub fn image_len(&self) -> u64 {
        self.extents.iter().map(|e| e.len).sum()
    }

    /// Bytes of the file system, if the text tells and the number is one.
    #[must_use]
    pub fn filesystem_bytes(&self) -> Option<u64> {
        self.blocks_total?.checked_mul(u64::from(self.block_size?))
    }
}

fn write_piece(w: &mut impl Write, piece: &[u8; 20]) -> io::Result<()> {
    w.write_all(b"sha1: ")?;
    piece.iter().try_for_each(|byte| write!(w, "{byte:02x}"))?;
    w.write_all(b"\n")
}

/// What the lines have told so far.
#[derive(Default)]
struct Reader {
    block_size: Option<u32>,
    blocks_total: Option<u64>,
    /// The first `lengths` of them are whole; the others have no length yet.
    extents: Vec<Extent>,
    lengths: usize,
    pieces: Vec<[u8; 20]>,
}

impl Reader {
    fn take(&mut self, line: &[u8]) -> Result<(), LineError> {
        let unknown = || LineError::Unknown { text: readable(line) };
        let colon = line.iter().position(|&b| b == b':').ok_or_else(unknown)?;
        let value = line[colon + 1..].trim_ascii_start();
        match &line[..colon] {
            b"offset" => self.extents.push(Extent { offset: hex("offset", value)?, len: 0 }),
            b"length" => return self.take_length(value),
            b"sha1" => self.pieces.push(digest(value)?),
            b"block_size" => {
                let wanted = "a decimal number between 1 and 2^32";
                let size = decimal("block_size", value, wanted)?;
                let size = u32::try_from(size).ok().filter(|&size| size > 0);
                let size = size.ok_or_else(|| value_error("block_size", value, wanted))?;
                once("block_size", &mut self.block_size, size)?;
            }
            b"blocks_total" => {
                let total = decimal("blocks_total", value, "a decimal number below 2^64")?;
                once("blocks_total", &mut self.blocks_total, total)?;
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }

    fn take_length(&mut self, value: &[u8]) -> Result<(), LineError> {
        let len = hex("length", value)?;
        if len == 0 {
            return Err(value_error("length", value, "a number of bytes above 0"));
        }
        let extent = self.extents.get_mut(self.lengths).ok_or(LineError::NoOffset)?;
        extent.len = len;
        self.lengths += 1;
        Ok(())
    }

    /// Checks what only the whole tells. `text` is looked at again to find the line of an error.
    fn finish(self, text: &[u8]) -> Result<TorrentInfo, TorrentInfoError> {
        let Reader { block_size, blocks_total, extents, lengths, pieces } = self;
        if extents.is_empty() && pieces.is_empty() {
            let from_pipe = blocks_total == Some(0);
            let no_extents = TorrentInfoError::NoExtents;
            return Err(if from_pipe { TorrentInfoError::FromPipe } else { no_extents });
        }
        check_extents(&extents, lengths, block_size).map_err(|(index, why)| {
            TorrentInfoError::Line { line: offset_line(text, index), why }
        })?;
        let bytes: u64 = extents.iter().map(|e| e.len).sum();
        let (found, wanted) = (pieces.len(), bytes.div_ceil(PIECE_LEN));
        if found as u64 != wanted {
            return Err(TorrentInfoError::Pieces { found, wanted, bytes });
        }
        Ok(TorrentInfo { block_size, blocks_total, extents, pieces })
    }
}

/// The error with the index of its extent.
fn check_extents(
    extents: &[Extent],
    lengths: usize,
    block_size: Option<u32>,
) -> Result<(), (usize, LineError)> {
    let mut end = 0;
    for (index, &Extent { offset, len }) in extents.iter().enumerate() {
        if index >= lengths {
            return Err((index, LineError::NoLength { offset }));
        }
        if offset.checked_add(len).is_none_or(|end| end > DEVICE_END_MAX) {
            return Err((index, LineError::TooFar { offset, len }));
        }
        if offset < end {
            return Err((index, LineError::Overlap { offset, end }));
        }
        let is_last = index + 1 == extents.len();
        if let Some(block_size) = block_size
            && !is_blocks(offset, len, u64::from(block_size), is_last)
        {
            return Err((index, LineError::Blocks { offset, len, block_size }));
        }
        end = offset + len;
    }
    Ok(())
}

/// partclone.dd that was promised more than came ends inside a block.
fn is_blocks(offset: u64, len: u64, block_size: u64, is_last: bool) -> bool {
    offset.is_multiple_of(block_size) && (is_last || len.is_multiple_of(block_size))
}

/// Refuses a number that may have lost its last digits. A SHA-1 has 40 of them and can lose none.
fn check_last_line(text: &[u8]) -> Result<(), TorrentInfoError> {
    let start = text.iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
    let last = text[start..].trim_ascii();
    if last.is_empty() || last.starts_with(b"sha1:") {
        return Ok(());
    }
    let line = text.iter().filter(|&&b| b == b'\n').count() + 1;
    Err(TorrentInfoError::Line { line, why: LineError::CutOff })
}

/// The number of the line with offset `index`.
fn offset_line(text: &[u8], index: usize) -> usize {
    let lines = text.split(|&b| b == b'\n').enumerate();
    let mut offsets = lines.filter(|(_, line)| line.trim_ascii_start().starts_with(b"offset:"));
    offsets.nth(index).map_or(0, |(line, _)| line + 1)
}

fn once<T>(key: &'static str, slot: &mut Option<T>, value: T) -> Result<(), LineError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(LineError::Twice { key }),
    }
}

fn decimal(key: &'static str, value: &[u8], wanted: &'static str) -> Result<u64, LineError> {
    let digits = value.iter().all(u8::is_ascii_digit).then_some(value);
    let text = digits.and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).ok_or_else(|| value_error(key, value, wanted))
}

fn hex(key: &'static str, value: &[u8]) -> Result<u64, LineError> {
    let refused = || value_error(key, value, "hexadecimal digits of a number below 2^64");
    if value.is_empty() {
        return Err(refused());
    }
    value.iter().try_fold(0_u64, |number, &digit| {
        let digit = hex_digit(digit).filter(|_| number >> 60 == 0).ok_or_else(refused)?;
        Ok(number << 4 | u64::from(digit))
    })
}

fn digest(value: &[u8]) -> Result<[u8; 20], LineError> {
    let refused = || value_error("sha1", value, "40 hexadecimal digits");
    let mut digest = [0; 20];
    if value.len() != 2 * digest.len() {
        return Err(refused());
    }
    for (byte, pair) in digest.iter_mut().zip(value.chunks_exact(2)) {
        let high = hex_digit(pair[0]).ok_or_else(refused)?;
        *byte = high << 4 | hex_digit(pair[1]).ok_or_else(refused)?;
    }
    Ok(digest)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn value_error(key: &'static str, value: &[u8], wanted: &'static str) -> LineError {
    LineError::Value { key, text: readable(value), wanted }
}

/// The start of `field` for a message: rubbish may be one line of a gigabyte.
fn readable(field: &[u8]) -> String {
    String::from_utf8_lossy(&field[..field.len().min(60)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Instant;

    macro_rules! fixture {
        ($name:literal) => {
            (
                $name,
                include_bytes!(concat!("../../tests/fixtures/partclone/", $name, ".torrent.info"))
                    .as_slice(),
            )
        };
    }

    const FIXTURES: [(&str, &[u8]); 16] = [
        fixture!("btrfs"),
        fixture!("btrfs.z16M"),
        fixture!("dd.z16M"),
        fixture!("exfat"),
        fixture!("exfat.z16M"),
        fixture!("ext4"),
        fixture!("ext4.restored-from-img.z16M"),
        fixture!("ext4.z16M"),
        fixture!("f2fs"),
        fixture!("f2fs.z16M"),
        fixture!("ntfs"),
        fixture!("ntfs.z16M"),
        fixture!("vfat"),
        fixture!("vfat.z16M"),
        fixture!("xfs"),
        fixture!("xfs.z16M"),
    ];

    fn written(info: &TorrentInfo) -> Vec<u8> {
        let mut text = Vec::new();
        info.write_to(&mut text).unwrap();
        text
    }

    fn without_header(text: &[u8]) -> &[u8] {
        let start = text.windows(7).position(|w| w == b"offset:").unwrap();
        &text[start..]
    }

    #[test]
    fn what_partclone_wrote_is_written_again_byte_for_byte() {
        for (name, text) in FIXTURES {
            let info = TorrentInfo::parse(text).unwrap();
            assert_eq!(written(&info), text, "{name}");
            // As partclone before 0.3.18 wrote it.
            let text = without_header(text);
            let old = TorrentInfo::parse(text).unwrap();
            assert_eq!((old.block_size, old.blocks_total), (None, None));
            assert_eq!((&old.extents, &old.pieces), (&info.extents, &info.pieces), "{name}");
            assert_eq!(written(&old), text, "{name}");
        }
    }

    #[test]
    fn a_piece_that_ends_with_its_extent_is_written_after_the_next_extent() {
        let extent = |offset, len| Extent { offset, len };
        let check = |extents: &[Extent], wanted: &str| {
            let bytes: u64 = extents.iter().map(|e| e.len).sum();
            let pieces = vec![[7; 20]; bytes.div_ceil(PIECE_LEN) as usize];
            let (block_size, blocks_total) = (None, None);
            let info = TorrentInfo { block_size, blocks_total, extents: extents.to_vec(), pieces };
            let text = String::from_utf8(written(&info)).unwrap();
            let kinds: String = text.lines().map(|line| &line[..1]).collect();
            assert_eq!(kinds, wanted, "{extents:?}");
        };
        check(&[extent(0, PIECE_LEN)], "ols");
        check(&[extent(0, PIECE_LEN), extent(PIECE_LEN, 1)], "ololss");
        check(&[extent(0, PIECE_LEN + 1), extent(2 * PIECE_LEN, 1)], "olsols");
        check(&[extent(0, 3 * PIECE_LEN)], "olsss");
        check(&[extent(0, 3 * PIECE_LEN), extent(4 * PIECE_LEN, PIECE_LEN)], "olssolss");
    }

    #[test]
    fn other_spellings_are_read() {
        let sha1 = "0123456789ABCDEF0123456789abcdef01234567";
        let check = |text: &str| {
            let info = TorrentInfo::parse(text.as_bytes()).unwrap();
            let extents = [(0, 4096), (0x3000, 4096)].map(|(offset, len)| Extent { offset, len });
            assert_eq!(info.extents, extents, "{text}");
            assert_eq!(info.pieces[0][..8], [1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        };
        check(&format!(
            "offset: 0\r\nlength: 1000\r\noffset: 3000\r\nlength: 01000\r\nsha1: {sha1}\r\n"
        ));
        check(&format!("sha1: {sha1}\noffset: 0\noffset: 3000\nlength: 1000\nlength: 1000\n"));
        check(&format!("offset:0\nlength:1000\noffset:3000\nlength:1000\n\nsha1:{sha1}"));
        let wide = format!("{:064x}", 0x1000);
        check(&format!("offset: 0\nlength: {wide}\noffset: 3000\nlength: {wide}\nsha1: {sha1}\n"));
    }

    fn refused(text: &str, why: &str) {
        assert_eq!(TorrentInfo::parse(text.as_bytes()).unwrap_err().to_string(), why, "{text}");
    }

    #[test]
    fn what_is_no_torrent_info_is_refused_with_its_line() {
        refused(
            "offset: 0\nlength: 10\n# c\n",
            "line 3: \"# c\" is not one of block_size, \
                 blocks_total, offset, length, sha1; is this a torrent.info?",
        );
        refused(
            "offset: -1\n",
            "line 1: offset is \"-1\", not hexadecimal digits of a number below 2^64",
        );
        refused(
            "offset: \n",
            "line 1: offset is \"\", not hexadecimal digits of a number below 2^64",
        );
        refused(
            "offset: 0\nlength: 0x10\n",
            "line 2: length is \"0x10\", not hexadecimal digits of a number below 2^64",
        );
        refused(
            "offset: 00010000000000000000\n",
            "line 1: offset is \"00010000000000000000\", \
                 not hexadecimal digits of a number below 2^64",
        );
        refused("offset: 0\nlength: 0\n", "line 2: length is \"0\", not a number of bytes above 0");
        refused("length: 10\noffset: 0\n", "line 1: a length without an offset before it");
        refused("sha1: 12\n", "line 1: sha1 is \"12\", not 40 hexadecimal digits");
        refused(
            "block_size: 0\n",
            "line 1: block_size is \"0\", not a decimal number between 1 and 2^32",
        );
        refused("block_size: 512\nblock_size: 512\n", "line 2: a second block_size");
        refused(
            "blocks_total: +1\n",
            "line 1: blocks_total is \"+1\", not a decimal number below 2^64",
        );
        refused("offset: 0\nlength: 10\noffset: 20\n", "line 3: the extent at 0x20 has no length");
        refused(
            "offset: 0\nlength: 10\noffset: 2",
            "line 3: the last line has no end: the file is cut off",
        );
    }

    #[test]
    fn extents_that_cannot_be_are_refused_with_their_line() {
        refused(
            "offset: 0\nlength: 11\noffset: 10\nlength: 10\n",
            "line 3: the extent at 0x10 begins before the end of the one before it, 0x11: \
                 they overlap or are out of order",
        );
        refused(
            "offset: 20\nlength: 8\n\noffset: 10\nlength: 8\n",
            "line 4: the extent at 0x10 begins before the end of the one before it, 0x28: \
                 they overlap or are out of order",
        );
        refused(
            "offset: 7ffffffffffffff0\nlength: 10\n",
            "line 1: the extent at 0x7ffffffffffffff0 of 16 bytes ends behind the largest \
                 device (2^63 bytes)",
        );
        refused(
            "block_size: 16\noffset: 0\nlength: 8\noffset: 10\nlength: 8\n",
            "line 2: the extent at 0x0 of 8 bytes is not made of blocks of 16 bytes",
        );
        refused(
            "block_size: 16\noffset: 8\nlength: 8\n",
            "line 2: the extent at 0x8 of 8 bytes is not made of blocks of 16 bytes",
        );
    }

    #[test]
    fn the_last_extent_may_end_inside_a_block() {
        let text = format!("block_size: 512\noffset: 0\nlength: 1\nsha1: {:040x}\n", 0);
        assert_eq!(TorrentInfo::parse(text.as_bytes()).unwrap().image_len(), 1);
    }

    #[test]
    fn a_count_of_pieces_that_does_not_fit_the_bytes_is_refused() {
        refused(
            "offset: 0\nlength: 1000001\n",
            "the torrent.info has 0 sha1 lines, but its extents have 16777217 bytes, which \
                 are 2 pieces of 16 MiB; is it cut off?",
        );
        refused(
            &format!("sha1: {:040x}\n", 0),
            "the torrent.info has 1 sha1 lines, but its extents have 0 bytes, which are 0 \
                 pieces of 16 MiB; is it cut off?",
        );
    }

    #[test]
    fn a_torrent_info_without_extents_is_refused() {
        refused(
            "",
            "the torrent.info has no extents; did partclone fail before it read the first block?",
        );
        let wanted = TorrentInfo::parse(b"block_size: 512\nblocks_total: 0\n");
        assert_eq!(wanted, Err(TorrentInfoError::FromPipe));
    }

    #[test]
    fn a_text_cut_anywhere_is_refused_or_whole() {
        for (name, text) in [FIXTURES[7], FIXTURES[2]] {
            let whole = TorrentInfo::parse(text).unwrap();
            for len in 0..text.len() {
                if let Ok(info) = TorrentInfo::parse(&text[..len]) {
                    // Only the last newline is missing.
                    assert!(len == text.len() - 1 && info == whole, "{name} cut at {len}");
                }
            }
        }
    }

    #[test]
    fn a_million_extents_are_read_in_seconds() {
        let extents: Vec<Extent> =
            (0..1_000_000).map(|i| Extent { offset: i * 8192, len: 4096 }).collect();
        let pieces = vec![[0xa5; 20]; (extents.len() as u64 * 4096).div_ceil(PIECE_LEN) as usize];
        let (block_size, blocks_total) = (Some(4096), Some(2_000_000));
        let info = TorrentInfo { block_size, blocks_total, extents, pieces };
        let text = written(&info);
        let start = Instant::now();
        assert_eq!(TorrentInfo::parse(&text).unwrap(), info);
        let seconds = start.elapsed().as_secs_f64();
        println!("{} bytes read in {seconds:.3} s", text.len());
        // Twenty times what an unoptimised build needs: only a quadratic reader is slower.
        assert!(seconds < 30.0, "{seconds} s");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = TorrentInfo::parse(&text);
        }

        #[test]
        fn what_is_read_is_written_and_read_again(
            lines in prop::collection::vec("(offset|length): [0-9a-f]{1,5}|sha1: [0-9a-f]{40}", 0..9),
        ) {
            if let Ok(info) = TorrentInfo::parse(format!("{}\n", lines.join("\n")).as_bytes()) {
                prop_assert_eq!(TorrentInfo::parse(&written(&info)).unwrap(), info);
            }
        }

        #[test]
        fn what_is_written_is_read(
            gaps in prop::collection::vec((0_u64..3, 1_u64..40_000_000), 1..20),
            seed in any::<u8>(),
        ) {
            let mut at = 0;
            let extents: Vec<Extent> = gaps.iter().map(|&(gap, len)| {
                let extent = Extent { offset: at + gap, len };
                at = extent.end();
                extent
            }).collect();
            let bytes: u64 = extents.iter().map(|e| e.len).sum();
            let pieces = (0..bytes.div_ceil(PIECE_LEN)).map(|i| [seed.wrapping_add(i as u8); 20]);
            let pieces = pieces.collect();
            let info = TorrentInfo { block_size: None, blocks_total: Some(0), extents, pieces };
            prop_assert_eq!(TorrentInfo::parse(&written(&info)).unwrap(), info);
        }
    }
}
