//! The real program, watched: what it says, how it ends, what it costs. Every wait has an end.

use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A running `ezio`. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    events: Receiver<Value>,
    said: Arc<Mutex<String>>,
}

/// What anything may take on a loaded machine that takes a second on a quiet one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// What the end of a process may take once it was asked to end.
pub(crate) const END_TIME_MAX: Duration = Duration::from_secs(10);

/// What the kernel says of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Threads it has now.
    pub(crate) threads: u64,
    /// The most memory it ever had, in bytes.
    pub(crate) peak: u64,
}

impl Process {
    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Starts `ezio` with `args` and JSON, talking to loopback only.
    pub(crate) fn start(args: &[&str]) -> Process {
        Process::start_in(&[], args)
    }

    /// The same with more in its environment.
    pub(crate) fn start_in(env: &[(&str, &str)], args: &[&str]) -> Process {
        // It must not survive a test that is killed.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_ezio")])
            .args(args)
            .args(["--json", "--peers", "127.0.0.0/8"])
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, events) = channel();
        let said = Arc::new(Mutex::new(String::new()));
        listen(child.stdout.take().unwrap(), Some(sender), &said);
        listen(child.stderr.take().unwrap(), None, &said);
        Process { child, events, said }
    }

    /// The next event of a kind that `wanted` accepts.
    #[track_caller]
    pub(crate) fn event(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) if wanted(&event) => return event,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("no {what} in time:\n{}", self.said()),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended without {what}:\n{}", self.said())
                }
            }
        }
    }

    /// Its next result; an error instead of it fails the test.
    #[track_caller]
    pub(crate) fn result(&self) -> Value {
        let event = self.event("a result", |e| e["event"] == "result" || e["event"] == "error");
        assert_eq!(event["event"], "result", "{}", self.said());
        event
    }

    /// What it complains of before it ends; a result instead of it fails the test.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        let event = self.event("an error", |e| e["event"] == "result" || e["event"] == "error");
        assert_eq!(event["event"], "error", "{}", self.said());
        event["message"].as_str().unwrap_or_default().to_owned()
    }

    /// A note that contains `words`.
    #[track_caller]
    pub(crate) fn note(&self, words: &str) {
        self.event(words, |e| e["message"].as_str().is_some_and(|text| text.contains(words)));
    }

    /// Its exit code, once it has ended within `time`; `None` if a signal ended it.
    #[track_caller]
    pub(crate) fn code(&mut self, time: Duration) -> Option<i32> {
        let ended = eventually(time, || self.child.try_wait().unwrap());
        match ended {
            Some(status) => status.code(),
            None => panic!("it did not end within {time:?}:\n{}", self.said()),
        }
    }

    /// How many files and sockets it has open.
    pub(crate) fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).map_or(0, Iterator::count)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal by name, as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.id());
        lab::tool::run(&mut lab::tool::words(&command)).unwrap();
    }

    /// All it has said so far, on both streams.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fails the test if it has panicked, or said more than `lines` lines that are neither progress nor
    /// what became of machines.
    #[track_caller]
    pub(crate) fn check_calm(&self, lines: usize) {
        let said = self.said();
        assert!(!said.contains("panicked"), "{said}");
        let wanted = ["progress", "machine", "all"].map(|name| format!(r#""event":"{name}""#));
        let noise = said.lines().filter(|line| !wanted.iter().any(|event| line.contains(event)));
        assert!(noise.count() <= lines, "more than {lines} lines:\n{said}");
    }

    pub(crate) fn cost(&self) -> Cost {
        let path = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(path).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        Cost { threads: field("Threads:"), peak: field("VmHWM:") << 10 }
    }

    /// Waits until it has at most `threads` threads.
    #[track_caller]
    pub(crate) fn wait_for_threads(&self, threads: u64) {
        let calm = eventually(PATIENCE, || (self.cost().threads <= threads).then_some(()));
        assert!(calm.is_some(), "{} threads are left, not {threads}", self.cost().threads);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps what `stream` says, and passes on what is JSON.
fn listen(
    stream: impl Read + Send + 'static,
    events: Option<Sender<Value>>,
    said: &Arc<Mutex<String>>,
) {
    let said = Arc::clone(said);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = writeln!(said.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
            if let (Some(events), Ok(event)) = (&events, serde_json::from_str(&line)) {
                // The test may have lost interest.
                let _ = events.send(event);
            }
        }
    });
}

/// Asks again and again until there is an answer; `None` if there is none within `time`.
pub(crate) fn eventually<T>(time: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + time;
    loop {
        match ask() {
            None if Instant::now() < until => thread::sleep(Duration::from_millis(10)),
            answer => return answer,
        }
    }
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the test")
}
