//! A program that runs beside the test: its output line by line, every wait bounded.

use serde_json::Value;
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What no step of a test takes, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Lines that are kept to be printed if the test fails.
const LOG_LINES_MAX: usize = 300;

/// A running program. It is killed when this is dropped, and by the kernel when the thread that
/// started it ends in any other way.
pub(crate) struct Process {
    name: String,
    child: Child,
    /// Held open: `node.py` ends when it is closed.
    _stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts `command`; `name` is what a failed test calls it.
    pub(crate) fn start(name: &str, command: &Command) -> Process {
        let mut leashed = Command::new("setpriv");
        leashed.args(["--pdeathsig", "KILL"]);
        leashed.arg(command.get_program()).args(command.get_args());
        Process::spawn(name, leashed)
    }

    /// Starts `command`, which looks after its own end.
    pub(crate) fn spawn(name: &str, mut command: Command) -> Process {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("start {command:?}: {e}"));
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (sender, lines) = channel();
        pass_on(child.stdout.take().expect("it is piped"), &log, Some(sender));
        pass_on(child.stderr.take().expect("it is piped"), &log, None);
        let stdin = child.stdin.take();
        Process { name: name.to_owned(), child, _stdin: stdin, lines, log }
    }

    /// Waits until `pick` finds what it looks for in a line of its standard output.
    pub(crate) fn wait_line<T>(&mut self, what: &str, pick: impl FnMut(&str) -> Option<T>) -> T {
        self.wait_line_for(PATIENCE, pick).unwrap_or_else(|| {
            panic!("{}: {what} did not come in {PATIENCE:?}, or it ended", self.name)
        })
    }

    /// The same, for at most `time`; `None` if it does not come, or the program ends.
    pub(crate) fn wait_line_for<T>(
        &mut self,
        time: Duration,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(found) = pick(&line) {
                        return Some(found);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Waits until `pick` finds what it looks for in an object that the program prints.
    pub(crate) fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&Value) -> Option<T>) -> T {
        self.wait_line(what, |line| pick(&serde_json::from_str(line).ok()?))
    }

    /// Waits for the next object whose `event` is `name`.
    pub(crate) fn event(&mut self, name: &str) -> Value {
        self.wait(name, |value| (value["event"] == name).then(|| value.clone()))
    }

    /// Whether it is still running.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it can be waited for").is_none()
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        // Its output ends with it, so this is no busy waiting.
        let _ = self.wait_line_for(PATIENCE, |_| None::<()>);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{} did not end in {PATIENCE:?}", self.name)
    }

    /// Ends it at once, as a crash would.
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            eprintln!("---- {}, its last {} lines:", self.name, log.len());
            log.iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Reads lines to the end of `from`, into the log and to who waits for them.
fn pass_on(
    from: impl Read + Send + 'static,
    log: &Arc<Mutex<VecDeque<String>>>,
    to: Option<Sender<String>>,
) {
    let log = Arc::clone(log);
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if let Some(to) = &to {
                // The test may have lost interest.
                let _ = to.send(line.clone());
            }
            let mut log = log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if log.len() == LOG_LINES_MAX {
                log.pop_front();
            }
            log.push_back(line);
        }
    });
}
