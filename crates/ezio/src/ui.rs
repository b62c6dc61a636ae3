//! What people and scripts get to see of a command: progress, events, the result.
//!
//! Results go to standard output, everything else to standard error. With `--json` each is one
//! object a line on standard output. Bars only where there is a terminal; elsewhere a plain line
//! now and then.

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use swarm::units::{Bytes, Rate, Seconds};

/// How a command shows what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ui {
    /// One JSON object a line instead of text.
    pub json: bool,
    /// Nothing but results and errors.
    pub quiet: bool,
    /// More than what most want to know.
    pub verbose: bool,
}

impl Ui {
    /// Says something worth knowing that is no error.
    pub fn note(self, text: &str) {
        if self.json {
            print_line(&json!({"event": "note", "message": text}).to_string());
        } else if !self.quiet {
            eprintln!("{}", printable(text));
        }
    }

    /// Says what helps to understand a run, if it was asked for.
    pub fn detail(self, text: &str) {
        if self.verbose {
            self.note(text);
        }
    }

    /// Passes on what the process `name`, which this one has started, says as JSON: with
    /// `"process"` added, or its notes alone where people read.
    pub fn of_process(self, name: &str, event: &Value) {
        if self.json {
            let mut event = event.clone();
            if let Some(object) = event.as_object_mut() {
                object.insert("process".into(), name.into());
            }
            print_line(&event.to_string());
        } else if event["event"] == "note" {
            let text = event["message"].as_str().unwrap_or_default();
            self.detail(&format!("    {name}: {text}"));
        }
    }

    /// Prints the outcome: `json` gets `"event": "result"` added.
    pub fn result(self, text: &str, mut json: Value) {
        if self.json {
            json["event"] = "result".into();
            print_line(&json.to_string());
        } else {
            print_line(text);
        }
    }

    /// Says for scripts what failed and why, when that is not the end yet of the command: `json` gets
    /// `"event": "failed"` and the error added. People get the errors together, at the end.
    pub fn failure(self, mut json: Value, error: &str) {
        if self.json {
            json["event"] = "failed".into();
            json["error"] = error.into();
            print_line(&json.to_string());
        }
    }

    /// Says why the command failed.
    pub fn error(self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        if self.json {
            print_line(&json!({"event": "error", "message": text}).to_string());
        }
        eprintln!("ezio: {}", printable(&text));
    }

    /// Begins to show how far a work of `total` bytes is, until what is returned is dropped.
    #[must_use]
    pub fn progress(self, what: &'static str, total: u64) -> Progress {
        let done = Arc::new(AtomicU64::new(0));
        let meter = Meter { what, total, done: Arc::clone(&done), started: Instant::now() };
        let (stop, stopped) = mpsc::channel();
        let thread = (!self.quiet).then(|| {
            let name = thread::Builder::new().name("progress".into());
            name.spawn(move || meter.show(self, &stopped)).ok()
        });
        Progress { done, stop: Some(stop), thread: thread.flatten() }
    }
}

/// A line on standard output. A reader that went away is no reason to fail.
fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// `text` without control characters but line ends and tabs: torrents and tools are not to move a
/// terminal's cursor.
#[must_use]
pub fn printable(text: &str) -> String {
    let escape = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// A work in progress; its display ends when this is dropped.
pub struct Progress {
    /// Bytes done, counted up by whoever works.
    pub done: Arc<AtomicU64>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How often a bar moves, and how often a line is printed where there is no terminal.
const BAR_PERIOD: Duration = Duration::from_millis(200);
const LINE_PERIOD: Duration = Duration::from_secs(5);
const JSON_PERIOD: Duration = Duration::from_secs(1);

struct Meter {
    what: &'static str,
    total: u64,
    done: Arc<AtomicU64>,
    started: Instant,
}

impl Meter {
    fn show(&self, ui: Ui, stopped: &mpsc::Receiver<()>) {
        if !ui.json && std::io::stderr().is_terminal() {
            return self.bar(stopped);
        }
        let period = if ui.json { JSON_PERIOD } else { LINE_PERIOD };
        while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
            let done = self.done.load(Ordering::Relaxed).min(self.total);
            let (rate, eta) = self.rate_and_eta(done);
            if ui.json {
                let event = json!({
                    "event": "progress", "phase": self.what, "bytes": done, "total": self.total,
                    "bytes_per_second": rate, "eta_seconds": eta,
                });
                print_line(&event.to_string());
            } else {
                eprintln!("{}", self.line(done, rate, eta));
            }
        }
    }

    fn bar(&self, stopped: &mpsc::Receiver<()>) {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3}%  {prefix}");
        let bar = ProgressBar::new(self.total).with_message(self.what);
        // The template is a constant; were it wrong, indicatif's own would do.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        while stopped.recv_timeout(BAR_PERIOD) == Err(RecvTimeoutError::Timeout) {
            let done = self.done.load(Ordering::Relaxed).min(self.total);
            let (rate, eta) = self.rate_and_eta(done);
            bar.set_prefix(format!("{}  {} left", Rate(rate), show_eta(eta)));
            bar.set_position(done);
        }
        bar.finish_and_clear();
    }

    fn line(&self, done: u64, rate: u64, eta: Option<u64>) -> String {
        let percent = u128::from(done) * 100 / u128::from(self.total.max(1));
        let (what, total) = (self.what, Bytes(self.total));
        format!("{what}: {percent}% of {total}, {}, {} left", Rate(rate), show_eta(eta))
    }

    /// The mean rate so far in bytes a second, and the seconds left at that rate.
    fn rate_and_eta(&self, done: u64) -> (u64, Option<u64>) {
        let millis = self.started.elapsed().as_millis().max(1);
        let rate = u128::from(done) * 1000 / millis;
        let left = u128::from(self.total - done);
        let eta = left.checked_div(rate).and_then(|eta| u64::try_from(eta).ok());
        (u64::try_from(rate).unwrap_or(u64::MAX), eta)
    }
}

fn show_eta(eta: Option<u64>) -> String {
    eta.map_or_else(|| "?".to_owned(), |eta| Seconds(eta).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_characters() {
        assert_eq!(printable("a\x1b[2Jb\r\nü"), "a\\u{1b}[2Jb\\r\nü");
    }

    #[test]
    fn a_line_tells_rate_and_time_left() {
        let started = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        let meter = Meter { what: "read", total: 40_000_000, done: Arc::default(), started };
        let (rate, eta) = meter.rate_and_eta(10_000_000);
        // A slow machine makes the rate a little less.
        assert!((900_000..=1_000_000).contains(&rate), "{rate}");
        assert!((30..=33).contains(&eta.unwrap()), "{eta:?}");
        assert_eq!(meter.rate_and_eta(0), (0, None));
        assert_eq!(
            meter.line(10_000_000, 1_000_000, Some(30)),
            "read: 25% of 38.1 MiB, 1 MB/s, 30s left"
        );
    }
}
