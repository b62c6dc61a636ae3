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

/// A piece that was wrong has to come whole from one peer, and a slow link may not get that far in the
/// turn of a stranger that chokes.
#[test]
fn a_suspect_piece_comes_whole_over_a_slow_link_in_the_turns_of_strangers() {
    check(8842..8843);
}

/// No strangers; one node receives 62 KB/s.
#[test]
fn a_node_at_62_kilobytes_a_second_gets_what_the_others_have() {
    check(5231..5232);
}

#[test]
fn one_of_ours_that_takes_its_grants_back_is_left_for_others() {
    check(9182..9183);
}

/// What it gave up after a second still filled its link: nothing of what it asked for instead came in time.
#[test]
fn a_slow_link_that_is_asked_for_too_much_waits_longer() {
    check(8402..8403);
}

/// A peer that promises what it does not have is silent alone: it is replaced, and not waited for.
#[test]
fn who_keeps_no_promise_does_not_make_a_node_patient() {
    check(3215..3216);
}
