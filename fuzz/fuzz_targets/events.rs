//! Server-sent events as `ezio watch` reads them, in pieces that the input sets, against a second reader
//! that has all of it at once.

#![no_main]

use ezio::control::events::{Events, Followed};
use libfuzzer_sys::fuzz_target;
use std::ops::ControlFlow;

/// What was passed on, and whether it ended with an error.
type Seen = (Vec<(String, String)>, bool);

fuzz_target!(|data: &[u8]| {
    // How long the pieces are, how many events are wanted; then what a server sends.
    let [piece, wanted, text @ ..] = data else { return };
    let (piece, wanted) = (usize::from(*piece) + 1, usize::from(*wanted % 8) + 1);
    let seen = read(text.chunks(piece), wanted);
    assert_eq!(seen, reference(text, wanted), "{}", text.escape_ascii());
    assert_eq!(seen, read([text].into_iter(), wanted), "all at once");
});

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>, wanted: usize) -> Seen {
    let (mut events, mut seen) = (Events::default(), Vec::new());
    for bytes in pieces {
        let mut take = |event: Followed<'_>| {
            seen.push((event.name.to_owned(), event.data.to_owned()));
            Ok(if seen.len() < wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        };
        match events.pass_on(bytes, &mut take) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return (seen, false),
            Err(_) => return (seen, true),
        }
    }
    (seen, false)
}

/// Goes from line to line; an event ends with an empty one, but the first line of an event is never its end.
fn reference(text: &[u8], wanted: usize) -> Seen {
    let mut seen = Vec::new();
    let mut event: Vec<&[u8]> = Vec::new();
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    // It has no end.
    lines.pop();
    for line in lines {
        if !line.is_empty() || event.is_empty() {
            event.push(line);
            continue;
        }
        let whole: Result<Vec<&str>, _> = event.iter().map(|line| str::from_utf8(line)).collect();
        let Ok(whole) = whole else { return (seen, true) };
        let field = |name: &str| {
            let values = whole.iter().enumerate().filter(|(_, line)| line.starts_with(name));
            let mut values = values.map(|(at, line)| match at + 1 == whole.len() {
                // What stands before the empty line is not in front of a line feed any more.
                true => &line[name.len()..],
                false => line[name.len()..].strip_suffix('\r').unwrap_or(&line[name.len()..]),
            });
            values.next().map(str::trim_start).unwrap_or_default().to_owned()
        };
        seen.push((field("event:"), field("data:")));
        if seen.len() == wanted {
            break;
        }
        event.clear();
    }
    (seen, false)
}
