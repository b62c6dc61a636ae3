//! A program on a pseudo-terminal, and what stands on its screen.

use super::{PATIENCE, ezio};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A running program. It is killed when this is dropped.
pub(crate) struct Terminal {
    child: Child,
    keyboard: File,
    slave: OwnedFd,
    before: Termios,
    output: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts the program on a terminal of so many columns and rows; `env` are more variables.
    pub(crate) fn start(args: &[&str], size: (u16, u16), env: &[(&str, &str)]) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let slave = rustix::fs::open(&*name, flags, Mode::empty()).unwrap();
        resize(&slave, size);
        let before = tcgetattr(&slave).unwrap();
        let end = || slave.try_clone().unwrap();
        let mut command = Command::new(ezio());
        command.env_remove("NO_COLOR").env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
        command.envs(env.iter().copied()).args(args);
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        drop(command);
        let output = Arc::<Mutex<Vec<u8>>>::default();
        let (mut screen, seen) = (File::from(master.try_clone().unwrap()), Arc::clone(&output));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It ends with the last who holds the other side.
            while let Ok(len @ 1..) = screen.read(&mut bytes) {
                seen.lock().unwrap().extend_from_slice(&bytes[..len]);
            }
        });
        Terminal { child, keyboard: File::from(master), slave, before, output }
    }

    /// Another size from now on.
    pub(crate) fn resize(&self, size: (u16, u16)) {
        resize(&self.slave, size);
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// All that was written to the terminal so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }

    /// The screen as it was drawn last as a whole, without colours.
    pub(crate) fn screen(&self) -> Vec<String> {
        let output = self.output();
        let Some(whole) = output.rfind("\x1b[J") else { return Vec::new() };
        let begin = output[..whole].rfind("\x1b[H").expect("a screen begins at its top");
        let text = plain(&output[begin + 3..whole]);
        text.split("\r\n").map(|line| line.trim_end().to_owned()).collect()
    }

    /// Waits until the screen is so.
    #[track_caller]
    pub(crate) fn wait(&mut self, what: &str, is: impl Fn(&[String]) -> bool) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if is(&screen) {
                return screen;
            }
            let code = self.child.try_wait().unwrap();
            assert!(code.is_none(), "{what}: it has ended ({code:?}): {}", self.output());
            assert!(Instant::now() < end, "not in {PATIENCE:?}: {what}: {screen:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until something was written.
    #[track_caller]
    pub(crate) fn wait_output(&mut self, words: &str) {
        let end = Instant::now() + PATIENCE;
        while !plain(&self.output()).contains(words) {
            assert!(Instant::now() < end, "no `{words}`: {:?}", self.output());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether a signal has stopped it (proc_pid_stat(5)).
    pub(crate) fn is_stopped(&self) -> bool {
        let stat = format!("/proc/{}/stat", self.child.id());
        std::fs::read_to_string(stat).unwrap().contains(") T ")
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id();
        lab::tool::run(&mut lab::tool::words(&format!("kill -{name} {pid}"))).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // What it wrote last is still to come.
                std::thread::sleep(Duration::from_millis(200));
                return status;
            }
            assert!(Instant::now() < end, "it does not end: {:#?}", self.screen());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Everything is as before: keys are lines again and seen, the cursor and the old screen are back.
    #[track_caller]
    pub(crate) fn check_restored(&self) {
        let now = tcgetattr(&self.slave).unwrap();
        assert_eq!(now.local_modes, self.before.local_modes);
        assert!(now.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        let output = self.output();
        let last = |text: &str| output.rfind(text).unwrap_or_else(|| panic!("no {text:?}"));
        for (on, off) in
            [("\x1b[?1049h", "\x1b[?1049l"), ("\x1b[?25l", "\x1b[?25h"), ("\x1b[?7l", "\x1b[?7h")]
        {
            assert!(last(off) > last(on), "{off:?} does not come last");
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(slave: &OwnedFd, (columns, rows): (u16, u16)) {
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(slave, size).unwrap();
}

/// Without escape sequences (ECMA-48's CSI).
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\x1b[") {
        plain += &rest[..at];
        let sequence = &rest[at + 2..];
        let end =
            sequence.find(|c: char| ('@'..='~').contains(&c)).map_or(sequence.len(), |e| e + 1);
        rest = &sequence[end..];
    }
    plain + rest
}
