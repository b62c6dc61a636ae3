//! The whole terminal for a while: keys come one by one and unseen, what was there comes back.

use rustix::termios::{
    LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr,
};
use std::io::{self, Read as _, Write as _};

/// A terminal that shows what it is told. Dropping it brings back what it showed before.
pub(super) struct Screen {
    before: Termios,
}

impl Screen {
    /// Takes the terminal; `None` if the program does not talk to one.
    pub(super) fn take() -> Option<Screen> {
        if !isatty(io::stdin()) || !isatty(io::stdout()) {
            return None;
        }
        let before = tcgetattr(io::stdin()).ok()?;
        let mut modes = before.clone();
        // Ctrl-C comes as a key, so that the terminal is given back.
        modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        // Reading never waits.
        modes.special_codes[rustix::termios::SpecialCodeIndex::VMIN] = 0;
        modes.special_codes[rustix::termios::SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Now, &modes).ok()?;
        // The other screen (of xterm and its like), no cursor.
        show("\x1b[?1049h\x1b[?25l");
        Some(Screen { before })
    }

    /// Keys that were pressed since this was asked last.
    pub(super) fn keys(&self) -> Vec<u8> {
        let mut keys = [0; 64];
        let len = io::stdin().read(&mut keys).unwrap_or(0);
        keys[..len].to_vec()
    }

    /// Columns and rows; those of old where the terminal does not know.
    pub(super) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (usize::from(size.ws_col), usize::from(size.ws_row))
            }
            _ => (80, 24),
        }
    }

    /// Shows these lines and nothing else.
    pub(super) fn draw(&self, lines: &[String]) {
        // From the top; every line to its end, then all below.
        let text: Vec<String> = lines.iter().map(|line| format!("{line}\x1b[K")).collect();
        show(&format!("\x1b[H{}\x1b[J", text.join("\r\n")));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        show("\x1b[?25h\x1b[?1049l");
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// That nobody looks any more must end nothing.
fn show(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
