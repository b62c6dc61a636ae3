//! What partclone prints on its terminal, against a second reader of its decoration.

#![no_main]

use ezio::capture::partclone::messages::Said;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // As they come from the file that the program wrote into.
    let text = String::from_utf8_lossy(data);
    let said = Said::parse(&text);
    check_bounds(&said);

    let lines = plain_lines(&text);
    let mut rest = lines.iter();
    let mut kept = |remark: &String| rest.any(|line| line.contains(remark.as_str()));
    assert!(said.remarks.iter().all(&mut kept), "{said:?} is not in {lines:?}");
    let block_size = lines.iter().find_map(|line| block_size(line));
    if !lines.iter().any(|line| line.contains("Completed:") || line.contains("Partclone fail")) {
        assert_eq!(said.block_size, block_size, "{lines:?}");
    }
    check_lines(&text, &said);
});

fn check_bounds(said: &Said) {
    let Said { version, remarks, .. } = said;
    for shown in remarks.iter().chain(version) {
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        assert!(shown.chars().count() <= 200, "{shown:?}");
    }
    assert!(remarks.iter().all(|remark| !remark.is_empty()));
    let telling: Vec<_> =
        remarks.iter().filter(|r| !r.eq_ignore_ascii_case("error exit")).cloned().collect();
    let words = said.words();
    assert!(telling.join("; ").ends_with(&words));
    assert_eq!(words.is_empty(), telling.is_empty(), "{words:?} of {remarks:?}");
}

/// Lines before and behind change nothing but by what they say themselves.
fn check_lines(text: &str, said: &Said) {
    let around = format!(
        "first\r\x1b[1mBlock size: 512 Byte\nPartclone v7.8 of\n{text}\n\
         Elapsed: 00:00:01, Remaining: 00:01:39, Completed:   1.00%\rElapsed: 1, Completed: 2%last\n\
         Partclone fail, please check /x"
    );
    let found = Said::parse(&around);
    assert_eq!((found.block_size, found.version.as_deref()), (Some(512), Some("7.8")));
    let (first, rest) = found.remarks.split_first().expect("the first line is a remark");
    let (last, middle) = rest.split_last().expect("the last line is a remark");
    assert_eq!((first.as_str(), last.as_str()), ("first", "last"));
    assert_eq!(middle, said.remarks, "{text:?}");
}

/// What a terminal would show of each line. One character at a time: nothing before, an escape
/// character, one and its intermediates, or a control sequence.
fn plain_lines(text: &str) -> Vec<String> {
    let (mut lines, mut state) = (vec![String::new()], ' ');
    for c in text.chars() {
        let (next, belongs) = match (state, c) {
            ('e', '[') => ('[', true),
            ('e' | 'i', '\x20'..='\x2f') => ('i', true),
            ('e' | 'i', '\x30'..='\x7e') => (' ', true),
            ('[', '\x20'..='\x3f') => ('[', true),
            ('[', '\x40'..='\x7e') => (' ', true),
            _ => (' ', false),
        };
        state = next;
        match c {
            _ if belongs => {}
            '\x1b' => state = 'e',
            '\r' | '\n' => lines.push(String::new()),
            c => lines.last_mut().expect("one at least").push(if c.is_control() { ' ' } else { c }),
        }
    }
    lines
}

/// `Block size: 512 Byte`, with spaces where partclone has some.
fn block_size(line: &str) -> Option<u32> {
    let number = line.trim().strip_prefix("Block size:")?.trim().strip_suffix(" Byte")?.trim();
    number.parse().ok()
}
