//! How a work is that has no end of its own: a line that changes, lines now and then, or events.

use super::progress::{JSON_PERIOD, LINE_PERIOD, LOG_PERIOD};
use super::{Ui, bar, print_line, printable, to_people};
use crate::logs;
use indicatif::ProgressBar;
use serde_json::Value;
use std::time::{Duration, Instant};

/// A state that is shown as it changes; the display ends when this is dropped.
pub struct Live {
    ui: Ui,
    what: &'static str,
    bar: Option<ProgressBar>,
    at: Instant,
    last: String,
}

impl Live {
    pub(super) fn start(ui: Ui, what: &'static str) -> Live {
        let bar = (ui.draws() && !ui.quiet).then(|| bar("{spinner} {wide_msg}", 0));
        Live { ui, what, bar, at: Instant::now(), last: String::new() }
    }

    /// Whether it is time for a new state. People who look get one some times a second, programs one a
    /// second, logs one now and then.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let period = match (&self.bar, self.ui.json) {
            (Some(_), _) => BAR_PERIOD,
            (None, true) => JSON_PERIOD,
            (None, false) if logs::has_stderr() => LOG_PERIOD,
            (None, false) => LINE_PERIOD,
        };
        self.at.elapsed() >= period
    }

    /// Whether somebody looks at a line that changes.
    #[must_use]
    pub fn draws(&self) -> bool {
        self.bar.is_some()
    }

    /// Shows `text`, or for programs `json` as the event `progress`; lines only if it is news.
    pub fn set(&mut self, text: &str, mut json: Value) {
        self.at = Instant::now();
        if let Some(bar) = &self.bar {
            bar.set_message(printable(text));
            return bar.tick();
        }
        let news = if self.ui.json { json.to_string() } else { text.to_owned() };
        if self.ui.quiet || news == self.last {
            return;
        }
        if self.ui.json {
            json["event"] = "progress".into();
            json["phase"] = self.what.into();
            print_line(&json.to_string());
        } else if logs::has_stderr() {
            tracing::info!("{text}");
        } else {
            to_people(text);
        }
        self.last = news;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

const BAR_PERIOD: Duration = Duration::from_millis(250);
