//! What people and scripts get to see of a command: progress, events, the result.
//!
//! Results go to standard output, everything else to standard error. With `--json` each is one
//! object a line on standard output. Bars only where there is a terminal; elsewhere a plain line
//! now and then. All of it but the results also goes to the log, if there is one ([`crate::logs`]).

mod live;
mod progress;

pub use live::Live;
pub use progress::{Part, Progress};

use crate::logs;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{IsTerminal as _, Write as _};
use std::sync::LazyLock;
use swarm::units::Seconds;

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
        tracing::info!("{text}");
        self.show(&json!({"event": "note", "message": text}), text);
    }

    /// Says what somebody should look at; the work goes on.
    pub fn warn(self, text: &str) {
        tracing::warn!("{text}");
        self.show(&json!({"event": "note", "level": "warning", "message": text}), text);
    }

    /// Shows people and scripts what the log has already, in a form of its own.
    pub fn tell(self, text: &str) {
        self.show(&json!({"event": "note", "message": text}), text);
    }

    /// Passes an event on to scripts; people learn of it otherwise.
    pub fn event(self, event: &Value) {
        if self.json {
            print_line(&event.to_string());
        }
    }

    /// Says what helps to understand a run, if it was asked for.
    pub fn detail(self, text: &str) {
        tracing::debug!("{text}");
        if self.verbose {
            self.show(&json!({"event": "note", "message": text}), text);
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

    /// Prints a part of the outcome, for people.
    pub fn print(self, text: &str) {
        print_line(text);
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
        tracing::error!("{text}");
        if self.json {
            print_line(&json!({"event": "error", "message": text}).to_string());
        }
        if !logs::has_stderr() {
            to_people(&format!("ezio: {text}"));
        }
    }

    /// Begins to show how far a work of `total` bytes is, until what is returned is dropped.
    #[must_use]
    pub fn progress(self, what: &'static str, total: u64) -> Progress {
        Progress::start(self, vec![Part::new(String::new(), what, total)])
    }

    /// The same for a work of several parts, which are shown one by one, and together.
    #[must_use]
    pub fn parts(self, parts: Vec<Part>) -> Progress {
        Progress::start(self, parts)
    }

    /// Begins to show how a work is that has no end of its own, until what is returned is dropped.
    #[must_use]
    pub fn live(self, what: &'static str) -> Live {
        Live::start(self, what)
    }

    fn show(self, json: &Value, text: &str) {
        if self.json {
            print_line(&json.to_string());
        } else if !self.quiet && !logs::has_stderr() {
            to_people(text);
        }
    }

    /// Whether bars can be drawn: somebody looks, and the terminal can move its cursor.
    fn draws(self) -> bool {
        let able = std::env::var("TERM").is_ok_and(|term| !term.is_empty() && term != "dumb");
        able && !self.json && !logs::has_stderr() && std::io::stderr().is_terminal()
    }
}

/// A line on standard output. A reader that went away is no reason to fail.
fn print_line(line: &str) {
    BARS.suspend(|| {
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    });
}

/// A line on standard error, above the bars if there are any.
fn to_people(text: &str) {
    BARS.suspend(|| {
        let _ = writeln!(std::io::stderr().lock(), "{}", printable(text));
    });
}

/// All bars of the process: it has one terminal.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A bar of this template, among the others.
fn bar(template: &str, total: u64) -> ProgressBar {
    let bar = BARS.add(ProgressBar::new(total));
    // The templates are constants; were one wrong, indicatif's own would do.
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(if is_utf8() { style } else { style.progress_chars("#>-").tick_chars("|/-\\ ") });
    bar
}

/// Whether the terminal's characters are UTF-8, as the C library decides it.
#[must_use]
pub fn is_utf8() -> bool {
    let names = ["LC_ALL", "LC_CTYPE", "LANG"];
    let set = names.iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    set.is_some_and(|value| {
        let value = value.to_ascii_lowercase();
        value.contains("utf-8") || value.contains("utf8")
    })
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

/// A time left for people; `?` while nobody knows.
#[must_use]
pub fn show_eta(eta: Option<u64>) -> String {
    eta.map_or_else(|| "?".to_owned(), |eta| Seconds(eta).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_characters() {
        assert_eq!(printable("a\x1b[2Jb\r\nü"), "a\\u{1b}[2Jb\\r\nü");
    }
}
