//! The whole terminal for a while: keys come one by one and unseen, what was there comes back, also
//! after a panic.

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetwinsize,
    tcsetattr,
};
use std::cell::RefCell;
use std::io::{self, Read as _, Write as _};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// A terminal that shows what it is told. Dropping it brings back what it showed before.
pub(crate) struct Screen {
    before: Termios,
    /// The beginning of a key whose rest was not there yet.
    begun: RefCell<Vec<u8>>,
}

/// What was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Char(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    /// Ctrl-C, or what else would end a program.
    Interrupt,
    /// Ctrl-Z.
    Suspend,
}

impl Screen {
    /// Takes the terminal; `None` if the program does not talk to one, or to one that cannot move its
    /// cursor.
    pub(crate) fn take() -> Option<Screen> {
        let able = std::env::var("TERM").is_ok_and(|term| !term.is_empty() && term != "dumb");
        if !able || !isatty(io::stdin()) || !isatty(io::stdout()) {
            return None;
        }
        let before = tcgetattr(io::stdin()).ok()?;
        let mut modes = before.clone();
        // Ctrl-C comes as a key, so that the terminal is given back.
        modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        // Reading never waits.
        modes.special_codes[SpecialCodeIndex::VMIN] = 0;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Now, &modes).ok()?;
        give_back_on_panic(before.clone());
        TAKEN.store(true, Ordering::Relaxed);
        show(ENTER);
        Some(Screen { before, begun: RefCell::default() })
    }

    /// Keys that were pressed since this was asked last.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let mut bytes = [0; 256];
        let len = io::stdin().read(&mut bytes).unwrap_or(0);
        let mut begun = self.begun.borrow_mut();
        // What did not go on is all there is: the Escape key.
        let last = len == 0;
        begun.extend_from_slice(&bytes[..len]);
        let (keys, used) = parse(&begun, last);
        begun.drain(..used);
        keys
    }

    /// Columns and rows; those of old where the terminal does not know.
    pub(crate) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (usize::from(size.ws_col), usize::from(size.ws_row))
            }
            _ => (80, 24),
        }
    }

    /// Shows these lines and nothing else.
    pub(crate) fn draw(&self, lines: &[String]) {
        // From the top; every line to its end, then all below.
        let text: Vec<String> = lines.iter().map(|line| format!("{line}\x1b[K")).collect();
        show(&format!("\x1b[H{}\x1b[J", text.join("\r\n")));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back(&self.before);
    }
}

/// The other screen (of xterm and its like), no cursor; a line that is too wide must not push the others
/// down.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

static TAKEN: AtomicBool = AtomicBool::new(false);

fn give_back(before: &Termios) {
    if TAKEN.swap(false, Ordering::Relaxed) {
        show(LEAVE);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
    }
}

/// What a panic says is to be read, not to vanish with the screen.
fn give_back_on_panic(before: Termios) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back(&before);
            usual(info);
        }));
    });
}

/// That nobody looks any more must end nothing.
fn show(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Keys, and how many bytes they are. `last`: what has begun does not go on.
fn parse(bytes: &[u8], last: bool) -> (Vec<Key>, usize) {
    let (mut keys, mut at) = (Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        let (key, len) = match byte {
            0x1b => match sequence(&bytes[at..]) {
                Some((key, len)) => (key, len),
                None if last => (Some(Key::Escape), 1),
                None => break,
            },
            3 | 28 => (Some(Key::Interrupt), 1),
            26 => (Some(Key::Suspend), 1),
            b'\r' | b'\n' => (Some(Key::Enter), 1),
            8 | 127 => (Some(Key::Backspace), 1),
            b' '..=b'~' => (Some(Key::Char(byte.into())), 1),
            _ => (None, 1),
        };
        keys.extend(key);
        at += len;
    }
    (keys, at)
}

/// A key that sends several bytes, as xterm and the Linux console do; `None` if it is not whole yet.
fn sequence(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    match *bytes.get(1)? {
        b'[' | b'O' => {}
        // Alt and a key, or Escape and a key.
        _ => return Some((Some(Key::Escape), 1)),
    }
    let end = bytes[2..].iter().position(|byte| (0x40..=0x7e).contains(byte))? + 2;
    let key = match (&bytes[2..end], bytes[end]) {
        (_, b'A') => Some(Key::Up),
        (_, b'B') => Some(Key::Down),
        (_, b'H') | (b"1" | b"7", b'~') => Some(Key::Home),
        (_, b'F') | (b"4" | b"8", b'~') => Some(Key::End),
        (b"5", b'~') => Some(Key::PageUp),
        (b"6", b'~') => Some(Key::PageDown),
        _ => None,
    };
    Some((key, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_also_in_pieces() {
        let check = |bytes: &[u8], last, keys: &[Key], used| {
            assert_eq!(parse(bytes, last), (keys.to_vec(), used), "{bytes:?}");
        };
        use Key::{Backspace, Char, Down, End, Enter, Escape, Home, Interrupt, PageUp, Up};
        check(b"qJ/\r\x7f", false, &[Char('q'), Char('J'), Char('/'), Enter, Backspace], 5);
        check(b"\x1b[A\x1bOB\x1b[5~", false, &[Up, Down, PageUp], 10);
        check(b"\x1b[1;5H\x1b[F", false, &[Home, End], 9);
        check(b"a\x1b[", false, &[Char('a')], 1);
        check(b"\x1b", false, &[], 0);
        check(b"\x1b", true, &[Escape], 1);
        check(b"\x1bq", false, &[Escape, Char('q')], 2);
        check(b"\x1b[200~\x01\xc3\xbc\x03", false, &[Interrupt], 10);
    }
}
