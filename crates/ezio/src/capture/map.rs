//! ddrescue maps, as `partclone.<fs> -D` writes them: which bytes of a file system are in use.
//!
//! The format is a text (GNU ddrescue's manual, "Mapfile structure"): comments, a line with the
//! current position, then one line `pos size status` for each run of bytes, without holes.
//! partclone sets the current position to the end of the file system and knows two states: `+`
//! used, `?` free. A map that ddrescue itself wrote says what could be rescued, not what is in
//! use, and is refused.

use swarm::layout::{DEVICE_END_MAX, Extent};

/// The used bytes of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Runs of used bytes: ascending, none empty, none touching another. There may be none.
    pub used: Vec<Extent>,
    /// Bytes of the file system, counted from its start. Often less than its partition has: a FAT
    /// of 629 121 024 bytes in 629 145 600, an NTFS without its last sector.
    pub end: u64,
}

/// Why a text is no map. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// More than [`TEXT_MAX`].
    #[error("the map has {len} bytes, more than the {TEXT_MAX} that are read")]
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
    /// Nothing but comments.
    #[error("the map is cut off: there is no line with the current position")]
    NoEnd,
    /// The lines end before the file system does: the writer died, or its disk was full.
    #[error("the map is cut off: its lines reach {reached:#x}, the file system {end:#x}")]
    CutOff {
        /// The end of the last line's range, from the start of the file system.
        reached: u64,
        /// The end of the file system, from its start.
        end: u64,
    },
}

/// What is wrong with one line. Positions are as the line has them, with the domain's offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Not two or three fields for the current position, not three for a range.
    #[error("expected {wanted}")]
    Fields {
        /// What a line there looks like.
        wanted: &'static str,
    },
    /// Neither decimal nor `0x` and hexadecimal digits, or not below 2^64.
    #[error("{text:?} is not a number of bytes below 2^64")]
    Number {
        /// The field, cut to a readable length.
        text: String,
    },
    /// A state that partclone does not know.
    #[error(
        "state {text:?} is neither '+' (used) nor '?' (free); is this ddrescue's own map of a rescue?"
    )]
    State {
        /// The field, cut to a readable length.
        text: String,
    },
    /// A range without bytes.
    #[error("the range at {pos:#x} is empty")]
    Empty {
        /// Where it begins.
        pos: u64,
    },
    /// A range does not begin where the one before it ended: bytes of unknown state.
    #[error("the range begins at {pos:#x}, but the one before it ends at {expected:#x}: a hole")]
    Hole {
        /// Where it begins.
        pos: u64,
        /// Where it should.
        expected: u64,
    },
    /// A range begins before the end of the one before it.
    #[error(
        "the range begins at {pos:#x}, but the one before it ends at {expected:#x}: \
         they overlap or are out of order"
    )]
    Overlap {
        /// Where it begins.
        pos: u64,
        /// Where it should.
        expected: u64,
    },
    /// A range reaches behind the current position, which partclone sets to the end.
    #[error("the range ends behind the file system, which ends at {end:#x}")]
    BehindEnd {
        /// The current position.
        end: u64,
    },
    /// The file system ends before its start, or behind the largest device (2^63 bytes).
    #[error("the file system cannot end at {end:#x}")]
    End {
        /// The current position.
        end: u64,
    },
}

/// 1 GiB: partclone's lines have 29 bytes and more, so this holds 18 million extents. A torrent
/// of that many would be four times larger than what is read of one.
pub const TEXT_MAX: usize = 1 << 30;

impl Map {
    /// Reads a map whose positions all begin at `domain_offset`, what partclone was given as
    /// `--offset_domain` (0 without it). The map's own positions begin at 0.
    ///
    /// Numbers may be decimal or hexadecimal, lines may end in CR LF, adjacent used ranges become
    /// one extent. Memory: 16 bytes for each used range, beside the text.
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn parse(text: &[u8], domain_offset: u64) -> Result<Map, MapError> {
        if text.len() > TEXT_MAX {
            return Err(MapError::TooLong { len: text.len() });
        }
        let mut lines = data_lines(text);
        let (line, fields) = lines.next().ok_or(MapError::NoEnd)?;
        let end = read_end(&fields, domain_offset).map_err(|why| MapError::Line { line, why })?;
        let mut used: Vec<Extent> = Vec::new();
        let mut expected = domain_offset;
        for (line, fields) in lines {
            let range =
                read_range(&fields, expected, end).map_err(|why| MapError::Line { line, why })?;
            if range.used {
                push_merged(&mut used, expected - domain_offset, range.len);
            }
            expected += range.len;
        }
        if expected != end {
            let (reached, end) = (expected - domain_offset, end - domain_offset);
            return Err(MapError::CutOff { reached, end });
        }
        Ok(Map { used, end: end - domain_offset })
    }

    /// Bytes in use: the sum of all used ranges.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used.iter().map(|e| e.len).sum()
    }
}

/// The fields of a line; a fourth one is enough to know that there are too many.
type Fields<'a> = [Option<&'a [u8]>; 4];

/// The lines that are neither empty nor a comment, each with its number.
fn data_lines(text: &[u8]) -> impl Iterator<Item = (usize, Fields<'_>)> {
    text.split(|&b| b == b'\n').enumerate().filter_map(|(index, line)| {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let first = words.next().filter(|word| word[0] != b'#')?;
        Some((index + 1, [Some(first), words.next(), words.next(), words.next()]))
    })
}

/// The current position. ddrescue adds the number of its pass; neither that nor the state matters.
fn read_end(fields: &Fields<'_>, domain_offset: u64) -> Result<u64, LineError> {
    let (Some(pos), Some(_), _, None) = (fields[0], fields[1], fields[2], fields[3]) else {
        return Err(LineError::Fields { wanted: "a current position and its state" });
    };
    let end = number(pos)?;
    if end < domain_offset || end > DEVICE_END_MAX {
        return Err(LineError::End { end });
    }
    Ok(end)
}

struct Range {
    len: u64,
    used: bool,
}

fn read_range(fields: &Fields<'_>, expected: u64, end: u64) -> Result<Range, LineError> {
    let (Some(pos), Some(len), Some(state), None) = (fields[0], fields[1], fields[2], fields[3])
    else {
        return Err(LineError::Fields { wanted: "a position, a size and a state" });
    };
    let (pos, len) = (number(pos)?, number(len)?);
    let used = match state {
        b"+" => true,
        b"?" => false,
        _ => return Err(LineError::State { text: readable(state) }),
    };
    if len == 0 {
        return Err(LineError::Empty { pos });
    }
    match pos.cmp(&expected) {
        std::cmp::Ordering::Less => return Err(LineError::Overlap { pos, expected }),
        std::cmp::Ordering::Greater => return Err(LineError::Hole { pos, expected }),
        std::cmp::Ordering::Equal => {}
    }
    // `pos` is at or below `end`: every range before this one ended there or before.
    if len > end - pos {
        return Err(LineError::BehindEnd { end });
    }
    Ok(Range { len, used })
}

fn push_merged(used: &mut Vec<Extent>, offset: u64, len: u64) {
    match used.last_mut() {
        Some(last) if last.end() == offset => last.len += len,
        _ => used.push(Extent { offset, len }),
    }
}

/// ddrescue would read a number with a leading 0 as octal; no one writes such, so none is read.
fn number(field: &[u8]) -> Result<u64, LineError> {
    let refused = || LineError::Number { text: readable(field) };
    let (digits, radix) = match field {
        [b'0', b'x' | b'X', digits @ ..] => (digits, 16),
        [b'0', _, ..] => return Err(refused()),
        digits => (digits, 10),
    };
    // A sign would be read by `from_str_radix`.
    let text = std::str::from_utf8(digits).ok().filter(|t| !t.starts_with('+'));
    text.and_then(|t| u64::from_str_radix(t, radix).ok()).ok_or_else(refused)
}

/// The start of `field` for a message: rubbish may be one line of a gigabyte.
fn readable(field: &[u8]) -> String {
    String::from_utf8_lossy(&field[..field.len().min(40)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::torrent_info::TorrentInfo;
    use proptest::prelude::*;

    fn check(text: &str, used: &[(u64, u64)], end: u64) {
        let used = used.iter().map(|&(offset, len)| Extent { offset, len }).collect();
        assert_eq!(Map::parse(text.as_bytes(), 0), Ok(Map { used, end }), "{text}");
    }

    fn refused(text: &str, why: &str) {
        assert_eq!(Map::parse(text.as_bytes(), 0).unwrap_err().to_string(), why, "{text}");
    }

    #[test]
    fn maps_are_read() {
        check("# c\n0x3000 ?\n0x0 0x1000 +\n0x1000 0x2000 ?\n", &[(0, 0x1000)], 0x3000);
        check("96 ?\r\n0 32 +\r\n32 32 +\r\n64 32 ?\r\n", &[(0, 64)], 96);
        check("\n 0x20\t+  1\n# c\n  0 16 ?\n16 0X10 +", &[(16, 16)], 32);
        check("16 ?\n0 16 ?\n", &[], 16);
        check("0 ?\n", &[], 0);
    }

    #[test]
    fn what_is_no_map_is_refused_with_its_line() {
        let cut_off = "the map is cut off: there is no line with the current position";
        refused("", cut_off);
        refused("# Domain logfile\n", cut_off);
        refused("32 ?\n0 16 +\n", "the map is cut off: its lines reach 0x10, the file system 0x20");
        refused("32 ?\n", "the map is cut off: its lines reach 0x0, the file system 0x20");
        refused("32\n", "line 1: expected a current position and its state");
        refused("0x20 ? 1 2\n", "line 1: expected a current position and its state");
        refused("32 ?\n0 16\n", "line 2: expected a position, a size and a state");
        refused("32 ?\n0 16 + +\n", "line 2: expected a position, a size and a state");
        refused("32 ?\n0 0 +\n", "line 2: the range at 0x0 is empty");
        refused(
            "32 ?\n0 16 +\n24 8 ?\n",
            "line 3: the range begins at 0x18, but the one before it ends at 0x10: a hole",
        );
        let overlap = "line 3: the range begins at 0x8, but the one before it ends at 0x10: \
                       they overlap or are out of order";
        refused("32 ?\n0 16 +\n8 24 ?\n", overlap);
        refused(
            "32 ?\n0 33 +\n",
            "line 2: the range ends behind the file system, which ends at 0x20",
        );
        refused(
            "32 ?\n0 0xffffffffffffffff +\n",
            "line 2: the range ends behind the file system, which ends at 0x20",
        );
        refused(
            "0x8000000000000000 ?\n",
            "line 1: the file system cannot end at 0x8000000000000000",
        );
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let texts = ["-1", "+1", "0x", "0x-1", "0x+1", "1g", "0xg", "017", "0x10000000000000000"];
        for text in texts {
            let wanted = format!("line 1: {text:?} is not a number of bytes below 2^64");
            refused(&format!("{text} ?\n"), &wanted);
        }
    }

    #[test]
    fn the_states_of_a_rescue_are_refused() {
        for state in ["-", "*", "/", "++", "x"] {
            let wanted = format!(
                "line 2: state {state:?} is neither '+' (used) nor '?' (free); \
                 is this ddrescue's own map of a rescue?"
            );
            refused(&format!("16 ?\n0 16 {state}\n"), &wanted);
        }
    }

    #[test]
    fn positions_are_relative_to_the_domain() {
        let text = b"0x3000 ?\n0x1000 0x1000 +\n0x2000 0x1000 ?\n";
        let map = Map::parse(text, 0x1000).unwrap();
        assert_eq!(map, Map { used: vec![Extent { offset: 0, len: 0x1000 }], end: 0x2000 });
        let refused = |offset| Map::parse(text, offset).unwrap_err().to_string();
        assert!(refused(0).ends_with(": a hole"), "{}", refused(0));
        assert_eq!(refused(0x4000), "line 1: the file system cannot end at 0x3000");
    }

    #[test]
    fn used_ranges_are_the_merged_extents_of_the_torrent_info() {
        let check = |map: &[u8], infos: &[&[u8]], end| {
            let map = Map::parse(map, 0).unwrap();
            assert_eq!(map.end, end);
            for info in infos {
                let info = TorrentInfo::parse(info).unwrap();
                let mut merged = Vec::new();
                info.extents.iter().for_each(|e| push_merged(&mut merged, e.offset, e.len));
                assert_eq!(map.used, merged);
                assert_eq!(Some(map.end), info.filesystem_bytes());
                assert_eq!(map.used_bytes(), info.image_len());
            }
        };
        macro_rules! fixture {
            ($($part:literal),+) => {
                include_bytes!(concat!("../../tests/fixtures/partclone/", $($part),+)).as_slice()
            };
        }
        macro_rules! both {
            ($name:literal) => {
                [fixture!($name, ".torrent.info"), fixture!($name, ".z16M.torrent.info")]
            };
        }
        check(fixture!("btrfs.ddrescue-map"), &both!("btrfs"), 629_145_600);
        check(fixture!("exfat.ddrescue-map"), &both!("exfat"), 629_145_600);
        check(fixture!("ext4.ddrescue-map"), &both!("ext4"), 629_145_600);
        check(fixture!("f2fs.ddrescue-map"), &both!("f2fs"), 629_145_600);
        check(fixture!("ntfs.ddrescue-map"), &both!("ntfs"), 629_141_504);
        check(fixture!("vfat.ddrescue-map"), &both!("vfat"), 629_121_024);
        check(fixture!("xfs.ddrescue-map"), &both!("xfs"), 629_145_600);
        let restored = fixture!("ext4.restored-from-img.z16M.torrent.info");
        check(fixture!("ext4.ddrescue-map"), &[restored], 629_145_600);
    }

    #[test]
    fn a_map_cut_anywhere_is_refused_or_whole() {
        let text = include_bytes!("../../tests/fixtures/partclone/ext4.ddrescue-map");
        let whole = Map::parse(text, 0).unwrap();
        for len in 0..text.len() {
            match Map::parse(&text[..len], 0) {
                // Only the last newline is missing.
                Ok(map) => assert!(len == text.len() - 1 && map == whole, "cut at {len}"),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Map::parse(&text, 0);
        }

        #[test]
        fn any_words_are_read_or_refused(
            words in prop::collection::vec("[+?#0-9a-fx\n -]{1,9}", 0..40), offset in any::<u64>(),
        ) {
            if let Ok(map) = Map::parse(words.join(" ").as_bytes(), offset) {
                prop_assert!(map.used.windows(2).all(|w| w[0].end() < w[1].offset));
                prop_assert!(map.used.last().is_none_or(|e| e.end() <= map.end));
            }
        }
    }
}
