//! How far the targets are, for people: a bar each on a terminal, lines elsewhere.

use crate::ui::Ui;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};
use swarm::units::{Bytes, Rate};

/// Shows what it is told. `--json` and `--quiet` leave nothing to show.
pub(super) struct Display {
    ui: Ui,
    image_len: u64,
    /// Bytes on each target.
    done: Vec<u64>,
    bars: Vec<ProgressBar>,
    line_at: Instant,
}

/// How often a line is printed where there is no terminal.
const LINE_PERIOD: Duration = Duration::from_secs(5);

impl Display {
    pub(super) fn new(ui: Ui, targets: usize, image_len: u64) -> Display {
        let silent = ui.json || ui.quiet || !std::io::stderr().is_terminal();
        let all = MultiProgress::new();
        let bars = (1..=targets).take_while(|_| !silent).map(|number| {
            let bar = all.add(ProgressBar::new(image_len));
            // The template is a constant; were it wrong, indicatif's own would do.
            let style = ProgressStyle::with_template("    {msg:8} {wide_bar} {percent:>3}%");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.with_message(format!("target{number}"))
        });
        let bars = bars.collect();
        Display { ui, image_len, done: vec![0; targets], bars, line_at: Instant::now() }
    }

    /// Takes how many bytes a target has. Returns whether there are more than before.
    pub(super) fn moved(&mut self, index: usize, bytes: u64) -> bool {
        let before = std::mem::replace(&mut self.done[index], bytes);
        if let Some(bar) = self.bars.get(index) {
            bar.set_position(bytes);
        }
        self.look();
        bytes > before
    }

    /// A target is complete.
    pub(super) fn done(&mut self, index: usize, seconds: f64) {
        self.done[index] = self.image_len;
        if let Some(bar) = self.bars.get(index) {
            bar.finish();
        } else if !self.ui.json {
            // The rate is for people: a float's 53 bits are enough.
            let rate = Rate((self.image_len as f64 / seconds.max(0.001)) as u64);
            let (number, len) = (index + 1, Bytes(self.image_len));
            self.ui.note(&format!("    target{number}: {len} in {seconds:.1} s, {rate}"));
        }
    }

    /// Prints a line now and then, if there are no bars.
    pub(super) fn look(&mut self) {
        if self.ui.json || !self.bars.is_empty() || self.line_at.elapsed() < LINE_PERIOD {
            return;
        }
        self.line_at = Instant::now();
        let percent = |bytes: &u64| u128::from(*bytes) * 100 / u128::from(self.image_len.max(1));
        let list: Vec<String> = self
            .done
            .iter()
            .enumerate()
            .map(|(index, bytes)| format!("target{} {}%", index + 1, percent(bytes)))
            .collect();
        self.ui.note(&format!("    {}", list.join(", ")));
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        // Whatever happened, the next line begins below the bars.
        self.bars.iter().for_each(ProgressBar::abandon);
    }
}
