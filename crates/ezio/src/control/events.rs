//! Server-sent events, as `ezio watch` reads them: `event: NAME`, `data: TEXT`, an empty line, as ours are.

use anyhow::{Context as _, ensure};
use std::ops::ControlFlow;

/// A server-sent event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed<'a> {
    /// What it is about.
    pub name: &'a str,
    /// What it says.
    pub data: &'a str,
}

/// Bytes of an event at most: of 1024 machines with every text as long as it may be.
pub const EVENT_LEN_MAX: usize = 16 << 20;

/// What has come of events, in pieces of any size.
#[derive(Debug, Default)]
pub struct Events {
    buffer: Vec<u8>,
    /// No event ends before: a long one that comes byte by byte is not searched from its start for each.
    searched: usize,
}

impl Events {
    /// Takes what has come and passes on each event that is whole, until `take` has enough. Nothing is
    /// expected of it after that, or after an error.
    ///
    /// # Errors
    /// If an event is no UTF-8 or too long, or `take` fails.
    pub fn pass_on(
        &mut self,
        bytes: &[u8],
        take: &mut dyn FnMut(Followed<'_>) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<ControlFlow<()>> {
        self.buffer.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(len) = self.buffer[self.searched..].windows(2).position(|two| two == b"\n\n")
        {
            let end = self.searched + len;
            if take(event(&self.buffer[start..end])?)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            start = end + 2;
            self.searched = start;
        }
        self.buffer.drain(..start);
        self.searched = self.buffer.len().saturating_sub(1);
        ensure!(self.buffer.len() <= EVENT_LEN_MAX, "an event has more than {EVENT_LEN_MAX} bytes");
        Ok(ControlFlow::Continue(()))
    }
}

fn event(bytes: &[u8]) -> anyhow::Result<Followed<'_>> {
    let text = std::str::from_utf8(bytes).context("an event is no UTF-8")?;
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim_start()
    };
    Ok(Followed { name: field("event:"), data: field("data:") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn events_come_in_pieces_of_any_size() {
        let text = b"event: a\ndata: {\"x\": 1}\n\nevent: b\ndata: 2\n\nevent: c\n";
        for piece in 1..text.len() {
            let (mut events, mut seen) = (Events::default(), Vec::new());
            for bytes in text.chunks(piece) {
                let mut take = |event: Followed<'_>| {
                    seen.push(format!("{}={}", event.name, event.data));
                    Ok(ControlFlow::Continue(()))
                };
                assert!(events.pass_on(bytes, &mut take).unwrap().is_continue());
            }
            assert_eq!(seen, ["a={\"x\": 1}", "b=2"]);
            assert_eq!(events.buffer, b"event: c\n");
        }
    }

    /// A megabyte that came by tens of bytes was searched a hundred thousand times.
    #[test]
    fn a_long_event_in_short_pieces_is_searched_once() {
        let mut events = Events::default();
        let begin = Instant::now();
        for _ in 0..100_000 {
            let mut none = |_: Followed<'_>| unreachable!("it does not end");
            assert!(events.pass_on(&[b'x'; 10], &mut none).unwrap().is_continue());
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut none = |_: Followed<'_>| unreachable!("it does not end");
        let error =
            Events::default().pass_on(&vec![b'x'; EVENT_LEN_MAX + 1], &mut none).unwrap_err();
        assert_eq!(error.to_string(), "an event has more than 16777216 bytes");
    }
}
