//! `.torrent` files. An input that begins with `d` is one; any other is a recipe for one, so that
//! lengths and counts fit each other more often than by chance.

#![no_main]

use fuzz::reference;
use libfuzzer_sys::fuzz_target;
use sha1::{Digest as _, Sha1};
use swarm::layout::Extent;
use swarm::metainfo::{Digest, Draft, Metainfo, PIECE_LEN_MAX, PIECE_LEN_MIN, parse_offset};

fuzz_target!(|data: &[u8]| {
    if data.first() == Some(&b'd') {
        check(data);
        return;
    }
    let recipe = Recipe::of(data);
    let found = check(&recipe.torrent());
    assert_eq!(found.is_some(), recipe.is_good(), "{recipe:?}");
    if let Some(torrent) = found {
        assert_eq!(torrent.layout().extents(), recipe.extents, "{recipe:?}");
    }
});

fn check(bytes: &[u8]) -> Option<Metainfo> {
    let torrent = match Metainfo::parse(bytes.to_vec()) {
        Ok(torrent) => torrent,
        Err(error) => {
            let message = error.to_string();
            assert!(!message.contains('\n') && message.len() < 600, "{message:?}");
            return None;
        }
    };
    check_notation(bytes, &torrent);
    check_pieces(&torrent);
    check_paths(&torrent);
    check_draft(&torrent);
    Some(torrent)
}

/// What is taken for a torrent is bencoding from its first byte to its last.
fn check_notation(bytes: &[u8], torrent: &Metainfo) {
    let parsed = reference::parse(bytes).expect("bencoding");
    assert_eq!(parsed.len, bytes.len(), "bytes behind the torrent");
    assert_eq!(torrent.as_bytes(), bytes);
    let info = torrent.info_bytes();
    let reference::Value::Dict(entries) = parsed.value else { panic!("not a dictionary") };
    let found: Vec<_> = entries.into_iter().filter(|(key, _)| *key == b"info").collect();
    let [(_, value)] = &found[..] else { panic!("{} info dictionaries", found.len()) };
    let mut written = Vec::new();
    reference::write(value, &mut written);
    assert_eq!(written, info);
    assert_eq!(torrent.info_hash(), <Digest>::from(Sha1::digest(info)));
}

/// The pieces cover the image, and the extents the pieces, each byte once and in order.
fn check_pieces(torrent: &Metainfo) {
    let (layout, piece_len) = (torrent.layout(), torrent.piece_len());
    assert!((PIECE_LEN_MIN..=PIECE_LEN_MAX).contains(&piece_len));
    let count = layout.image_len().div_ceil(piece_len.into());
    assert_eq!(u64::from(torrent.piece_count()), count);
    assert_eq!(torrent.piece_hashes().len() as u64, count);
    let (mut end, mut next) = (0, None);
    for piece in 0..torrent.piece_count() {
        let range = torrent.piece_range(piece);
        assert_eq!(range.start, end, "piece {piece}");
        assert!(!range.is_empty() && range.end - range.start <= piece_len.into());
        end = range.end;
        let mut len = 0;
        for span in layout.spans(range) {
            let extent = layout.extents()[span.index];
            assert_eq!(span.device.offset, extent.offset + span.skip);
            assert!(span.device.len > 0 && span.device.end() <= extent.end());
            assert_eq!((span.index, span.skip), next.unwrap_or((0, 0)), "piece {piece}");
            len += span.device.len;
            let ended = span.device.end() == extent.end();
            let inside = (span.index, span.skip + span.device.len);
            next = Some(if ended { (span.index + 1, 0) } else { inside });
        }
        let range = torrent.piece_range(piece);
        assert_eq!(len, range.end - range.start, "piece {piece}");
    }
    assert_eq!(end, layout.image_len());
    assert_eq!(next, Some((layout.extents().len(), 0)), "where the last span ended");
    let mut sorted = layout.extents().to_vec();
    sorted.sort_by_key(|e| e.offset);
    assert!(sorted.windows(2).all(|pair| pair[0].end() <= pair[1].offset), "extents overlap");
}

/// Each path stays below its directory, and its last component is the extent's place.
fn check_paths(torrent: &Metainfo) {
    let is_safe =
        |c: &&[u8]| !matches!(*c, b"" | b"." | b"..") && !c.contains(&b'/') && !c.contains(&0);
    assert!(is_safe(&torrent.name()));
    for (index, extent) in torrent.layout().extents().iter().enumerate() {
        let path = torrent.path(index);
        let last = path.last().expect("a path has components");
        assert_eq!(parse_offset(last), Some(extent.offset), "path {index}");
        assert!(path.len() <= 8 && path.iter().all(is_safe), "path {index}: {path:?}");
    }
}

/// The same content drafted anew is a torrent with the same content.
fn check_draft(torrent: &Metainfo) {
    let path = torrent.path(0);
    let mut components = vec![torrent.name()];
    components.extend(&path[..path.len() - 1]);
    let texts: Result<Vec<&str>, _> = components.into_iter().map(str::from_utf8).collect();
    let Ok(name) = texts else { return };
    let trackers = torrent.trackers().concat();
    let draft = Draft {
        name: &name,
        layout: torrent.layout(),
        piece_len: torrent.piece_len(),
        hashes: torrent.piece_hashes(),
        trackers: &trackers,
        created_by: torrent.created_by(),
        creation_date: torrent.creation_date(),
        origin: torrent.origin(),
    };
    let bytes = draft.encode();
    assert!(reference::parse(&bytes).is_some_and(|p| p.keys_ascend && p.len == bytes.len()));
    let again = Metainfo::parse(bytes).expect("what we draft can be read");
    assert_eq!(again.layout(), torrent.layout());
    assert_eq!(again.piece_len(), torrent.piece_len());
    assert_eq!(again.piece_hashes(), torrent.piece_hashes());
    assert_eq!(again.name(), torrent.name());
    assert_eq!(again.path(0)[..name.len() - 1], path[..name.len() - 1]);
    assert_eq!(again.created_by(), torrent.created_by());
    assert_eq!(again.creation_date(), torrent.creation_date());
    assert_eq!(again.origin(), torrent.origin());
    if trackers.len() != 1 || !trackers[0].is_empty() {
        assert_eq!(again.trackers().concat(), trackers);
    }
}

/// A torrent whose content the input chooses, with at most one fault of a kind it also chooses.
#[derive(Debug)]
struct Recipe {
    extents: Vec<Extent>,
    /// Of each path: components before the last, and digits of the last.
    paths: Vec<(usize, usize)>,
    piece_len: u64,
    origin: Option<u64>,
    /// Bytes of hashes more than there should be, counted around 2^64.
    more_hashes: u64,
    shuffled: bool,
    extra: Vec<u8>,
}

impl Recipe {
    fn of(data: &[u8]) -> Recipe {
        let (head, rest) = data.split_at(data.len().min(8));
        let mut head = head.iter().copied();
        let mut next = move || head.next().map_or(0, u64::from);
        let flags = next();
        let (fine, piece_len) = (next(), [1, 2, 16, 1024, 4096][(next() % 5) as usize] << 14);
        let piece_len = if flags & 2 != 0 { piece_len - fine } else { piece_len };
        let more_hashes = if flags & 4 != 0 { [0, 1, 20, 19][(next() % 4) as usize] } else { 0 };
        let (count, origin) = (next() as usize % 16, next() << (next() % 56));
        let (files, extra) = rest.split_at((count * 6).min(rest.len()) / 6 * 6);
        let mut extents = Vec::new();
        let mut paths = Vec::new();
        let mut end = 0_u64;
        for file in files.as_chunks::<6>().0 {
            let gap = u64::from(u16::from_le_bytes([file[0], file[1]]));
            let len = u64::from(u16::from_le_bytes([file[2], file[3]]));
            let back = file[4] & 0x80 != 0;
            let scale = [0, 9, 12, 30][usize::from(file[4] >> 5 & 3)];
            let offset =
                if back { end.wrapping_sub(gap) } else { end.saturating_add(gap << scale) };
            paths.push((usize::from(file[4] & 15), usize::from(file[5] & 63)));
            extents.push(Extent { offset, len: len << (file[5] >> 6) });
            end = offset.saturating_add(len << (file[5] >> 6));
        }
        let origin = (flags & 8 != 0).then_some(origin);
        let extra = extra.to_vec();
        Recipe { extents, paths, piece_len, origin, more_hashes, shuffled: flags & 16 != 0, extra }
    }

    fn image_len(&self) -> u64 {
        self.extents.iter().map(|e| e.len).sum()
    }

    /// What a torrent of an image has to be, said once more in other words.
    fn is_good(&self) -> bool {
        let end = |e: &Extent| u128::from(e.offset) + u128::from(e.len);
        let overlap =
            |a: &Extent, b: &Extent| end(a) > u128::from(b.offset) && end(b) > u128::from(a.offset);
        let pairs = self.extents.iter().enumerate();
        let apart = pairs.flat_map(|(i, a)| self.extents[..i].iter().map(move |b| (a, b)));
        let last = self.extents.iter().map(end).max();
        !self.extents.is_empty()
            && self.extents.iter().all(|e| e.len > 0 && end(e) < 1 << 63)
            && apart.into_iter().all(|(a, b)| !overlap(a, b))
            && self.paths.iter().all(|(before, _)| *before < 8)
            && (1 << 14..=1 << 26).contains(&self.piece_len)
            && self.origin.is_none_or(|origin| last.is_some_and(|end| u128::from(origin) >= end))
            && self.more_hashes == 0
    }

    fn torrent(&self) -> Vec<u8> {
        let string = |text: &str| format!("{}:{text}", text.len());
        let mut files = String::new();
        for (extent, (before, digits)) in self.extents.iter().zip(&self.paths) {
            let offset = format!("{:0digits$x}", extent.offset);
            let path = string("v").repeat(*before) + &string(&offset);
            files += &format!("d6:lengthi{}e4:pathl{path}ee", extent.len);
        }
        let hashes = self.image_len().div_ceil(self.piece_len.max(1)) * 20 + self.more_hashes;
        let mut info = vec![
            ("files", format!("l{files}e")),
            ("name", string("sda1")),
            ("piece length", format!("i{}e", self.piece_len)),
            ("pieces", string(&"#".repeat(hashes as usize))),
        ];
        if let Some(origin) = self.origin {
            info.insert(0, ("ezio", format!("d11:device sizei{origin}ee")));
        }
        if self.shuffled {
            info.reverse();
        }
        let entries: String = info.iter().map(|(key, value)| string(key) + value).collect();
        // Whatever the program that made it adds, as long as it is bencoded.
        let extra: String = self.extra.escape_ascii().to_string();
        format!("d7:comment{}4:infod{entries}ee", string(&extra)).into_bytes()
    }
}
