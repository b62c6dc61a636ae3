//! Many runs with drawn faults, one after the other, and a table of what happened in them.

use crate::{Config, Report, run};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

/// What many runs came to.
#[derive(Clone, Debug, Default)]
pub struct Campaign {
    /// Runs made.
    pub seeds: u64,
    /// Runs in which a swarm broke an invariant, or somebody did not get what it could.
    pub failed: Vec<(u64, String)>,
    /// In how many runs each fault happened, and how often in all.
    pub faults: BTreeMap<&'static str, (u64, u64)>,
    /// Events handled; all invariants were checked after each.
    pub events: u64,
    /// Simulated nanoseconds.
    pub simulated_ns: u64,
    /// Clients that had everything at the end.
    pub finished: u64,
    /// Clients that had all that there was, because nobody had the rest any more.
    pub without: u64,
    /// Clients of which nothing is asked: gone for good, or lying.
    pub away: u64,
    /// Longest time from the last fault to the end, in nanoseconds, and its seed.
    pub slowest: (u64, u64),
}

/// Runs [`Config::drawn`] of every seed. A run that fails does not end the others, unless the
/// `first` is enough.
#[must_use]
pub fn campaign(seeds: Range<u64>, first: bool) -> Campaign {
    let mut campaign = Campaign::default();
    let hook = take_hook();
    // The default prints each panic at once, which is told with its seed here.
    set_hook(Box::new(|info| LAST.with(|last| *last.borrow_mut() = info.to_string())));
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| run(Config::drawn(seed)))) {
            Ok(report) => campaign.add(seed, &report),
            Err(_) => campaign.fail(seed, LAST.with(|last| last.borrow().replace('\n', " "))),
        }
        if first && !campaign.failed.is_empty() {
            break;
        }
    }
    set_hook(hook);
    campaign
}

thread_local! {
    /// What the last panic said, and where.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Campaign {
    fn add(&mut self, seed: u64, report: &Report) {
        self.seeds += 1;
        self.events += report.events;
        self.simulated_ns += report.ended.0;
        for (&fault, &times) in &report.faults {
            let (seeds, all) = self.faults.entry(fault).or_default();
            (*seeds, *all) = (*seeds + 1, *all + times);
        }
        let finished = report.finished.iter().skip(1).filter(|at| at.is_some()).count() as u64;
        let clients = report.finished.len() as u64 - 1;
        self.finished += finished;
        self.away += report.away;
        let stuck = report.stuck.len() as u64;
        self.without += clients.saturating_sub(finished + report.away + stuck);
        let after = report.ended.0.saturating_sub(Config::drawn(seed).faults.quiet.0);
        self.slowest = self.slowest.max((after, seed));
        if stuck > 0 {
            self.failed.push((seed, format!("nodes {:?} are stuck", report.stuck)));
        }
    }

    fn fail(&mut self, seed: u64, why: String) {
        self.seeds += 1;
        self.failed.push((seed, why));
    }

    /// The table, for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{:<56}{:>8}{:>12}\n", "fault", "seeds", "times");
        for (fault, (seeds, times)) in &self.faults {
            let _ = writeln!(text, "{fault:<56}{seeds:>8}{times:>12}");
        }
        let (after, seed) = self.slowest;
        let _ = writeln!(
            text,
            "\n{} seeds, {} failed; {} events, all invariants checked after each; {} h simulated",
            self.seeds,
            self.failed.len(),
            self.events,
            self.simulated_ns / 3_600_000_000_000,
        );
        let _ = writeln!(
            text,
            "clients: {} have everything, {} all that was left, {} are gone for good or lie; \
             at most {} s after the last fault (seed {seed})",
            self.finished,
            self.without,
            self.away,
            after.div_ceil(1_000_000_000),
        );
        for (seed, why) in &self.failed {
            let _ = writeln!(text, "seed {seed}: {why}");
        }
        text
    }
}
