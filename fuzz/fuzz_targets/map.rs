//! ddrescue maps, against a second reader. The first byte chooses where the map's domain begins.

#![no_main]

use ezio::capture::map::Map;
use libfuzzer_sys::fuzz_target;
use swarm::layout::Extent;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, text)) = data.split_first() else { return };
    let domain = [0, 0, 1, 0x1000, i64::MAX as u64, u64::MAX][usize::from(choice) % 6];
    let found = Map::parse(text, domain);
    if let Err(error) = &found {
        let message = error.to_string();
        assert!(!message.contains('\n') && message.len() < 600, "{message:?}");
    }
    let map = found.ok();
    assert_eq!(map, reference(text, domain), "the other reader");
    if let Some(map) = map {
        check(&map);
    }
});

fn check(map: &Map) {
    let apart = |pair: &[Extent]| pair[0].end() < pair[1].offset;
    assert!(map.used.windows(2).all(apart), "extents touch, overlap or are out of order");
    assert!(map.used.iter().all(|e| e.len > 0), "an empty extent");
    assert!(map.used.last().is_none_or(|e| e.end() <= map.end), "an extent behind the end");
    assert!(map.used_bytes() <= map.end);
    for domain in [0, 4096] {
        // Both ends of the domain are positions, so the sum has to be one.
        if map.end <= i64::MAX as u64 - domain {
            let text = written(map, domain);
            assert_eq!(Map::parse(text.as_bytes(), domain).as_ref(), Ok(map), "{text}");
        }
    }
}

/// The map as partclone writes it: `src/ddrescue` lines `pos size state`, no holes.
fn written(map: &Map, domain: u64) -> String {
    let mut text = format!("# a comment\n{:#X} ?\n", domain + map.end).replace("0X", "0x");
    let mut at = 0;
    let mut run = |at: u64, len: u64, state| {
        if len > 0 {
            text += &format!("{:#x}  {len:#x}  {state}\n", domain + at);
        }
    };
    for extent in &map.used {
        run(at, extent.offset - at, '?');
        run(extent.offset, extent.len, '+');
        at = extent.end();
    }
    run(at, map.end - at, '?');
    text
}

/// Reads a map byte run by byte run, with numbers too wide to overflow.
fn reference(text: &[u8], domain: u64) -> Option<Map> {
    let domain = i128::from(domain);
    let lines = text.split(|&b| b == b'\n').map(fields);
    let mut lines = lines.filter(|l| l.first().is_some_and(|word| !word.starts_with(b"#")));
    let first = lines.next().filter(|l| matches!(l.len(), 2 | 3))?;
    let end = number(first[0])?;
    if end < domain || end > i128::from(i64::MAX) {
        return None;
    }
    let (mut at, mut used) = (domain, Vec::<(i128, i128)>::new());
    for line in lines {
        let [pos, len, state] = line[..] else { return None };
        let (pos, len) = (number(pos)?, number(len)?);
        if pos != at || len == 0 || !matches!(state, b"+" | b"?") {
            return None;
        }
        at += len;
        match used.last_mut() {
            _ if state == b"?" => {}
            Some((_, last)) if *last == pos - domain => *last = at - domain,
            _ => used.push((pos - domain, at - domain)),
        }
    }
    let extent = |(begin, end): (i128, i128)| {
        let offset = u64::try_from(begin).ok()?;
        Some(Extent { offset, len: u64::try_from(end - begin).ok()? })
    };
    let used = used.into_iter().map(extent).collect::<Option<_>>()?;
    (at == end).then_some(Map { used, end: u64::try_from(end - domain).ok()? })
}

fn fields(line: &[u8]) -> Vec<&[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect()
}

/// Decimal without a leading zero, or `0x` and hexadecimal digits; below 2^64.
fn number(word: &[u8]) -> Option<i128> {
    let (digits, radix) = match word.strip_prefix(b"0x").or(word.strip_prefix(b"0X")) {
        Some(digits) => (digits, 16),
        None if word.len() > 1 && word[0] == b'0' => return None,
        None => (word, 10),
    };
    let digit = |&b: &u8| char::from(b).to_digit(radix).map(i128::from);
    let value = digits.iter().try_fold(0, |value: i128, b| {
        Some(value * i128::from(radix) + digit(b)?).filter(|value| *value < 1 << 64)
    });
    value.filter(|_| !digits.is_empty())
}
