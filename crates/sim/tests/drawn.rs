//! Runs whose faults are drawn from their seeds. `cargo xtask nightly` makes ten thousand of them.

use sim::{Config, campaign, run};

fn check(seeds: std::ops::Range<u64>) {
    let campaign = campaign(seeds, false);
    assert!(campaign.failed.is_empty(), "{}", campaign.text());
}

#[test]
fn a_few_of_every_night() {
    // Unoptimised, each takes a second or so.
    check(0..if cfg!(debug_assertions) { 20 } else { 100 });
}

#[test]
fn a_drawn_run_is_the_same_twice() {
    let once = |seed| {
        let report = run(Config::drawn(seed));
        (report.finished, report.events, report.faults, report.totals)
    };
    for seed in 0..4 {
        assert_eq!(once(seed), once(seed), "seed {seed}");
    }
}
