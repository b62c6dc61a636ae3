use super::*;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;

fn two_extents() -> Layout {
    let extents = [(0, 12288), (0x8000, 8192)];
    Layout::new(extents.map(|(offset, len)| Extent { offset, len }).to_vec()).unwrap()
}

const HASHES: [Digest; 1] = [*b"01234567890123456789"];

fn plain<'a>(layout: &'a Layout, trackers: &'a [String]) -> Draft<'a> {
    Draft {
        name: &["sda1"],
        layout,
        piece_len: 16 << 20,
        hashes: &HASHES,
        trackers,
        created_by: Some("CloneZilla"),
        creation_date: Some(1_795_361_489),
        origin: None,
    }
}

/// What the C++ EZIO's own tool writes for these two extents, byte for byte.
#[test]
fn a_draft_is_what_the_original_tool_writes() {
    let wanted = "d8:announce32:http://192.168.1.1:6969/announce10:created by10:CloneZilla\
        13:creation datei1795361489e4:infod5:filesl\
        d6:lengthi12288e4:pathl32:00000000000000000000000000000000ee\
        d6:lengthi8192e4:pathl32:00000000000000000000000000008000eee\
        4:name4:sda112:piece lengthi16777216e6:pieces20:01234567890123456789ee";
    let trackers = ["http://192.168.1.1:6969/announce".to_string()];
    let found = plain(&two_extents(), &trackers).encode();
    assert_eq!(found.escape_ascii().to_string(), wanted);
    assert_eq!(found.len(), 305);
}

#[test]
fn what_was_drafted_is_read_back() {
    let origin = Origin {
        device_len: 1 << 20,
        file_system_len: Some(1 << 19),
        file_system: Some("ext4".into()),
        sector_len: 512,
    };
    let trackers = ["http://a/announce".to_string(), "http://b/announce".to_string()];
    let layout = two_extents();
    let bytes = Draft { origin: Some(&origin), name: &["vg", "root"], ..plain(&layout, &trackers) }
        .encode();
    let torrent = Metainfo::parse(bytes.clone()).unwrap();
    assert_eq!(torrent.as_bytes(), bytes);
    assert_eq!(torrent.name(), b"vg");
    assert_eq!(torrent.path(1), [&b"root"[..], b"00000000000000000000000000008000"]);
    assert_eq!(torrent.layout().extents()[1], Extent { offset: 0x8000, len: 8192 });
    assert_eq!(torrent.piece_count(), 1);
    assert_eq!(torrent.piece_hash(0), *b"01234567890123456789");
    assert_eq!(torrent.piece_range(0), 0..20480);
    assert_eq!(torrent.origin(), Some(&origin));
    assert_eq!(torrent.trackers(), [["http://a/announce"], ["http://b/announce"]]);
    assert_eq!(torrent.created_by(), Some("CloneZilla"));
    assert_eq!(torrent.creation_date(), Some(1_795_361_489));
    let hash: Digest = Sha1::digest(torrent.info_bytes()).into();
    assert_eq!(torrent.info_hash(), hash);
    assert!(torrent.info_bytes().starts_with(b"d4:ezio"));
}

/// A torrent of one extent; the parts are bencoded and may be wrong.
struct Parts {
    files: String,
    name: &'static str,
    piece_len: &'static str,
    pieces: String,
    more: &'static str,
}

impl Default for Parts {
    fn default() -> Parts {
        let pieces = format!("20:{}", "x".repeat(20));
        Parts { files: one_file("4:1000"), name: "4:sda1", piece_len: "i262144e", pieces, more: "" }
    }
}

fn one_file(path: &str) -> String {
    format!("ld6:lengthi4096e4:pathl{path}eee")
}

impl Parts {
    fn parse(&self) -> Result<Metainfo, MetainfoError> {
        let Parts { files, name, piece_len, pieces, more } = self;
        let info = format!(
            "d4:infod5:files{files}4:name{name}12:piece length{piece_len}6:pieces{pieces}{more}ee"
        );
        Metainfo::parse(info.into_bytes())
    }
}

fn refused(parts: &Parts, why: &str) {
    assert_eq!(parts.parse().unwrap_err().to_string(), why);
}

#[test]
fn offsets_have_any_width_and_stand_last_in_the_path() {
    let check = |path: &str, offset| {
        let parts = Parts { files: one_file(path), ..Parts::default() };
        assert_eq!(parts.parse().unwrap().layout().extents()[0].offset, offset, "{path}");
    };
    check("1:0", 0);
    check("2:fF", 255);
    check("16:0000000000020000", 0x20000);
    check("32:00000000000000000000000000020000", 0x20000);
    check("40:0000000000000000000000000000000000020000", 0x20000);
    check("4:root2:10", 16);
}

#[test]
fn paths_that_are_no_offsets_are_refused() {
    let check = |path: &str, shown: &str, why: &str| {
        let parts = Parts { files: one_file(path), ..Parts::default() };
        refused(&parts, &format!("file 0 (`{shown}`): {why}"));
    };
    let no_offset = "its last component is no hexadecimal device offset below 2^63; \
                     is this a torrent of a disk image?";
    let no_component = "a component is empty, `.`, `..`, or holds `/` or a zero byte";
    check("8:film.mkv", "film.mkv", no_offset);
    check("4:0x10", "0x10", no_offset);
    check("2:-1", "-1", no_offset);
    check("2:+1", "+1", no_offset);
    check("16:8000000000000000", "8000000000000000", no_offset);
    check("33:100000000000000000000000000000000", "100000000000000000000000000000000", no_offset);
    check("2:..1:0", "../0", no_component);
    check("0:1:0", "/0", no_component);
    check("3:a/b1:0", "a/b/0", no_component);
    check("", "", "a path has 1 to 8 components");
    let nine = "1:0".repeat(9);
    check(&nine, "0/0/0/0/0/0/0/0", "a path has 1 to 8 components");
}

#[test]
fn contradictions_are_refused() {
    let files = |files: &str| Parts { files: files.into(), ..Parts::default() };
    refused(&files("le"), "there are no extents");
    refused(
        &files("ld6:lengthi4096e4:pathl1:0eed6:lengthi1e4:pathl3:fffeee"),
        "extent 1 at 0xfff overlaps extent 0, which ends at 0x1000",
    );
    refused(&files("ld6:lengthi0e4:pathl1:0eee"), "extent 0 at 0x0 is empty");
    refused(&files("ld6:lengthi-1e4:pathl1:0eee"), "info.files: integer out of range at byte 25");
    refused(&files("ld4:pathl1:0eee"), "the key `info.files.length` is missing");
    refused(&files("ld6:lengthi1eee"), "the key `info.files.path` is missing");
    refused(
        &files("ld4:attr1:p6:lengthi1e4:pathl4:.pad1:1eee"),
        "file 0 is padding (BEP 47), which no device has; make the torrent without padding",
    );
    refused(&Parts { name: "2:..", ..Parts::default() }, "the name `..` cannot name a directory");
    refused(
        &Parts { piece_len: "i0e", ..Parts::default() },
        "pieces of 0 bytes; 16 KiB to 64 MiB are supported",
    );
    refused(
        &Parts { pieces: "19:0123456789012345678".into(), ..Parts::default() },
        "19 bytes of piece hashes; 4096 bytes in pieces of 262144 need 20",
    );
    refused(
        &Parts { more: "6:pieces0:", ..Parts::default() },
        "info: dictionary key given twice at byte 113",
    );
    refused(&Parts { more: "4:name1:b", ..Parts::default() }, "the key `info.name` is given twice");
    refused(
        &Parts { more: "4:eziod11:device size4:abcde", ..Parts::default() },
        "info.ezio: not an integer at byte 134",
    );
    refused(
        &Parts { more: "4:eziod11:device sizei4096ee", ..Parts::default() },
        "the device it was made from has 4096 bytes, but its extents end at 8192",
    );
}

#[test]
fn what_is_no_torrent_is_refused() {
    let check = |bytes: &[u8], why: &str| {
        assert_eq!(Metainfo::parse(bytes.to_vec()).unwrap_err().to_string(), why);
    };
    check(b"", "torrent: the data is cut off at byte 0");
    check(b"<html>", "torrent: not a dictionary at byte 0");
    check(b"de", "the key `info` is missing");
    check(b"d4:infodee", "the key `info.name` is missing");
    check(
        b"d4:infod6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces0:ee",
        "it holds one plain file, not the extents of a device (no `files` in `info`)",
    );
    check(&b"l".repeat(100_000), "torrent: not a dictionary at byte 0");
    let nested = [b"d1:a".as_slice(), &b"l".repeat(100_000)].concat();
    check(&nested, "torrent: nested too deeply at byte 36");
}

#[test]
fn a_date_that_is_none_is_ignored_and_one_that_is_malformed_is_refused() {
    let whole = plain(&two_extents(), &[]).encode();
    let parse = |date: &str| {
        let text = whole.escape_ascii().to_string().replace("i1795361489e", date);
        Metainfo::parse(text.into_bytes())
    };
    assert_eq!(parse("i-5e").unwrap().creation_date(), None);
    assert_eq!(parse("5:today").unwrap().creation_date(), None);
    for malformed in ["i-0e", "i9223372036854775814", "i99999999999999999999e"] {
        let error = parse(malformed).unwrap_err().to_string();
        assert!(error.starts_with("creation date: "), "{malformed}: {error}");
    }
}

/// Every cut of a good torrent is an error, none a panic.
#[test]
fn a_torrent_cut_off_anywhere_is_refused() {
    let whole = plain(&two_extents(), &[]).encode();
    for len in 0..whole.len() {
        assert!(Metainfo::parse(whole[..len].to_vec()).is_err(), "{len} bytes");
    }
}

#[test]
fn the_piece_length_aims_at_a_few_thousand_pieces() {
    let check = |image_len, piece_len| assert_eq!(piece_len_for(image_len), piece_len);
    check(1, 256 << 10);
    check(1 << 30, 512 << 10);
    check(10_000_000_000, 4 << 20);
    check(50_000_000_000, 4 << 20);
    check(20 << 40, 8 << 20);
    check(u64::MAX, 64 << 20);
}

/// The largest images that users of the C++ EZIO met had 100 000 extents.
#[test]
fn a_million_extents_are_written_and_read() {
    let extents = (0..1_000_000_u64).map(|i| Extent { offset: i * 8192, len: 4096 }).collect();
    let layout = Layout::new(extents).unwrap();
    let hashes = vec![[7; 20]; 245];
    let draft = Draft { hashes: &hashes, ..plain(&layout, &[]) };
    let torrent = Metainfo::parse(draft.encode()).unwrap();
    assert_eq!(torrent.layout(), &layout);
    assert_eq!(torrent.path(999_999), [format!("{:032x}", 999_999_u64 * 8192).as_bytes()]);
}
