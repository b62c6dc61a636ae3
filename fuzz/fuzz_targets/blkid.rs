//! What `blkid -o export` prints, and what the TYPE in it is taken for.

#![no_main]

use ezio::capture::filesystem::{Content, Kind, classify, parse_export};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let tags = parse_export(data);
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    assert!(tags.keys().all(|name| !name.is_empty() && is_name(name)), "{tags:?}");

    let mut text = String::new();
    for (name, value) in &tags {
        assert!(!value.contains('\n'), "a value of two lines: {value:?}");
        let escaped: String = value.chars().flat_map(escaped).collect();
        text += &format!("{name}={escaped}\n");
    }
    assert_eq!(parse_export(text.as_bytes()), tags, "written and read again: {text:?}");

    // What a label adds behind the real tags must not replace them.
    let mut longer = [data, b"\n"].concat();
    tags.keys().for_each(|name| longer.extend(format!("{name}=forged\n").as_bytes()));
    assert_eq!(parse_export(&longer), tags, "the first of two lines does not count");

    check_type(tags.get("TYPE").map_or("", String::as_str), tags.get("VERSION"));
});

/// The backslash, and as blkid does what a shell would take apart.
fn escaped(c: char) -> impl Iterator<Item = char> {
    let special = matches!(c, '\\' | ' ' | '"' | '\'' | '$' | '`' | '<' | '>' | '&');
    special.then_some('\\').into_iter().chain([c])
}

/// On a source without bytes nothing but the name can decide.
fn check_type(blkid_type: &str, version: Option<&String>) {
    let version = version.map(String::as_str);
    let nothing: &[u8] = &[];
    let found = classify(blkid_type, version, None, &nothing).expect("reading memory cannot fail");
    let kind = Kind::from_blkid(blkid_type, version);
    match found {
        Content::FileSystem(found) => assert_eq!(Some(found.kind), kind),
        Content::Unsupported { blkid_type: kept } => assert_eq!(kept, blkid_type),
        other => assert!(kind.is_none(), "{blkid_type} is {other:?}"),
    }
}
