//! `ezio doctor`: looks for what goes wrong in practice before it does, and says what to do.
//!
//! Each check is a function of facts, so that a test can make them up; what gathers the facts is next to
//! it. Nothing is written anywhere, no disk is read, and nobody but the server named is asked.

mod job;
mod network;
mod system;

use crate::ui::{Ui, printable};
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// What to look at beside the machine itself.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DoctorArgs {
    /// http://SERVER:6969 of an `ezio serve`: whether it answers, and its images fit
    #[arg(value_name = "SERVER-URL")]
    pub server: Option<String>,

    /// A device that is to be written, as for `ezio deploy`; may be repeated
    #[arg(long, value_name = "[NAME=]DEVICE")]
    pub to: Vec<PathBuf>,
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    /// Which check: one word, and of what.
    check: String,
    verdict: Verdict,
    /// What is so.
    text: String,
    /// What to do about it; empty if nothing.
    advice: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// It works, but slower, or not in every way.
    Warning,
    /// It will not work.
    Wrong,
}

impl Finding {
    fn ok(check: impl Into<String>, text: impl Into<String>) -> Finding {
        let (check, text) = (check.into(), text.into());
        Finding { check, verdict: Verdict::Ok, text, advice: String::new() }
    }

    fn warning(
        check: impl Into<String>,
        text: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        let advice = advice.into();
        Finding { verdict: Verdict::Warning, advice, ..Finding::ok(check, text) }
    }

    fn wrong(
        check: impl Into<String>,
        text: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding { verdict: Verdict::Wrong, ..Finding::warning(check, text, advice) }
    }
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Wrong => "wrong",
        }
    }
}

/// Runs all checks and prints what each has found. Returns whether nothing is wrong.
///
/// # Errors
/// None so far: what cannot be looked at is a finding.
pub fn run(args: &DoctorArgs, ui: Ui, stop: &AtomicBool) -> anyhow::Result<bool> {
    let mut tally = Tally::default();
    system::check().into_iter().for_each(|finding| tally.print(&finding, ui));
    network::check().into_iter().for_each(|finding| tally.print(&finding, ui));
    job::check(args, stop).into_iter().for_each(|finding| tally.print(&finding, ui));
    let Tally { ok, warnings, wrong } = tally;
    let text = match (wrong, warnings) {
        (0, 0) => format!("all {ok} checks are fine"),
        (0, _) => format!("{ok} fine, {warnings} to think about, nothing wrong"),
        _ => format!("{ok} fine, {warnings} to think about, {wrong} wrong"),
    };
    ui.result(&text, json!({"ok": ok, "warnings": warnings, "wrong": wrong}));
    Ok(wrong == 0)
}

#[derive(Default)]
struct Tally {
    ok: usize,
    warnings: usize,
    wrong: usize,
}

impl Tally {
    fn print(&mut self, finding: &Finding, ui: Ui) {
        let Finding { check, verdict, text, advice } = finding;
        *match verdict {
            Verdict::Ok => &mut self.ok,
            Verdict::Warning => &mut self.warnings,
            Verdict::Wrong => &mut self.wrong,
        } += 1;
        if ui.json {
            return ui.event(&json!({
                "event": "finding", "check": check, "verdict": verdict.name(), "text": text,
                "advice": if advice.is_empty() { None } else { Some(advice) },
            }));
        }
        // With -q only what there is to do.
        if ui.quiet && *verdict == Verdict::Ok {
            return;
        }
        let mut lines = format!("{:8} {check}: {text}", verdict.name());
        if !advice.is_empty() {
            lines += &format!("\n         -> {advice}");
        }
        ui.print(&printable(&lines));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is not as it should be comes with advice, and nothing else does.
    #[track_caller]
    pub(super) fn check(finding: &Finding, verdict: Verdict, words: &str) {
        let all = format!("{}: {} -> {}", finding.check, finding.text, finding.advice);
        assert!(finding.verdict == verdict && all.contains(words), "{finding:?}");
        assert_eq!(finding.advice.is_empty(), verdict == Verdict::Ok, "{finding:?}");
    }
}
