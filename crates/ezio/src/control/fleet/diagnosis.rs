//! Which machines need somebody to walk to them, and why: from what they report, and from what the
//! others manage in the same minute.

use super::machine::{Machine, Phase};
use std::time::{Duration, Instant};
use swarm::units::Rate;

/// How a machine fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum Health {
    Fine,
    /// Gets along, but keeps the others waiting in the end.
    Slow,
    /// Reports, and does not get along.
    Stuck,
    /// Does not report any more, and was not done.
    Gone,
    /// Says itself that it failed.
    Failed,
}

impl Health {
    pub(in crate::control) const ALL: [Health; 5] =
        [Health::Fine, Health::Slow, Health::Stuck, Health::Gone, Health::Failed];

    pub(in crate::control) fn name(self) -> &'static str {
        match self {
            Health::Fine => "fine",
            Health::Slow => "slow",
            Health::Stuck => "stuck",
            Health::Gone => "gone",
            Health::Failed => "failed",
        }
    }
}

/// What the machines that download have in common.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usual {
    /// Half of them receive faster.
    rate: f64,
    /// Half of those that know have a faster link, in Mbit/s.
    link: u64,
    /// How many there are.
    count: usize,
}

/// Ten reports missing are no accident.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// As `ezio deploy` says it on the machine itself.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// A disk may take its time to flush what lies in its cache and in the page cache.
const FLUSH_TIME_MAX: Duration = Duration::from_mins(5);

/// Below this part of what is usual a machine is slow.
const SLOW: f64 = 0.6;

/// Whether a machine is slow is known only once it and others are at it, in seconds.
const SETTLED_AFTER: f64 = 8.0;

impl Usual {
    pub(super) fn of<'a>(machines: impl Iterator<Item = &'a Machine> + Clone) -> Usual {
        let at_it = machines.filter(|m| m.facts.phase == Phase::Downloading && !m.facts.paused);
        let mut rates: Vec<f64> = at_it.clone().map(|m| m.rate_in).collect();
        rates.sort_unstable_by(f64::total_cmp);
        let mut links: Vec<u64> = at_it.filter_map(|m| m.facts.link_mbit).collect();
        links.sort_unstable();
        Usual {
            rate: rates.get(rates.len() / 2).copied().unwrap_or(0.0),
            link: links.get(links.len() / 2).copied().unwrap_or(0),
            count: rates.len(),
        }
    }
}

/// How the machine fares, and the likely reason in words if it does not fare well.
pub(super) fn diagnose(machine: &Machine, usual: Usual, now: Instant) -> (Health, String) {
    let facts = &machine.facts;
    if facts.phase == Phase::Failed {
        return (Health::Failed, facts.error.clone());
    }
    let silent = now.duration_since(machine.seen);
    if facts.phase == Phase::Done {
        return (Health::Fine, String::new());
    }
    if silent >= GONE_AFTER {
        // In steps: each is told to everybody who looks.
        let seconds = silent.as_secs() / 10 * 10;
        let why = format!("no report for {seconds} s: is it switched off, or its cable pulled?");
        return (Health::Gone, why);
    }
    if facts.paused {
        return (Health::Fine, String::new());
    }
    let still = now.duration_since(machine.moved);
    match facts.phase {
        Phase::Flushing if still >= FLUSH_TIME_MAX => {
            let why = "its disk has been flushing for minutes: it is slow, or breaking".to_owned();
            (Health::Stuck, why)
        }
        Phase::Downloading if still >= STUCK_AFTER => (Health::Stuck, why_stuck(machine)),
        Phase::Downloading if facts.seconds >= SETTLED_AFTER => slow(machine, usual),
        _ => (Health::Fine, String::new()),
    }
}

fn why_stuck(machine: &Machine) -> String {
    let facts = &machine.facts;
    if disk_is_behind(machine) {
        "its disk does not take what is to be written: is it broken?".to_owned()
    } else if facts.peers == 0 {
        "no peers: do ports 6881 to 6889 of the server answer from there?".to_owned()
    } else if facts.nowhere > 0 {
        format!("none of its {} peers has the last {} pieces", facts.peers, facts.nowhere)
    } else {
        format!("its {} peers send nothing", facts.peers)
    }
}

fn slow(machine: &Machine, usual: Usual) -> (Health, String) {
    let facts = &machine.facts;
    let link = facts.link_mbit.unwrap_or(u64::MAX);
    if link < usual.link {
        let link = Rate(link.saturating_mul(125_000));
        return (
            Health::Slow,
            format!("its link runs at {} only: cable, or switch port?", mbit(link)),
        );
    }
    // Alone, or with one other, nobody is slow.
    if usual.count < 3 || machine.rate_in >= SLOW * usual.rate || facts.limit.is_some() {
        return (Health::Fine, String::new());
    }
    let why = if disk_is_behind(machine) {
        format!("its disk is slow: it writes {}", Rate(machine.rate_stored as u64))
    } else if facts.half_duplex {
        "its link is half duplex: cable, or switch port?".to_owned()
    } else if facts.peers <= 1 {
        "it has no more than one peer: does a firewall keep the others away?".to_owned()
    } else if facts.nowhere > 0 {
        "it waits for pieces that nobody near it has yet".to_owned()
    } else {
        format!(
            "it receives {} where {} are usual, and neither its disk nor its link say why: cable?",
            Rate(machine.rate_in as u64),
            Rate(usual.rate as u64)
        )
    };
    (Health::Slow, why)
}

fn mbit(rate: Rate) -> String {
    format!("{} Mbit/s", rate.0 / 125_000)
}

/// A third of the memory for pieces is full of what waits to be written.
fn disk_is_behind(machine: &Machine) -> bool {
    let Some(part) = machine.facts.memory_bytes.checked_div(3).filter(|&part| part > 0) else {
        return false;
    };
    machine.facts.waiting_bytes >= part
}

#[cfg(test)]
mod tests {
    use super::super::machine::Facts;
    use super::*;

    /// A machine that receives at `rate`, among five that receive 100 MB/s at 1 Gbit/s.
    fn check(rate: f64, still: u64, silent: u64, facts: Facts, wanted: Health, words: &str) {
        let start = Instant::now();
        let now = start + Duration::from_secs(still.max(silent));
        let base = Facts { link_mbit: Some(1000), seconds: 60.0, peers: 5, ..Facts::default() };
        let others: Vec<Machine> = (0..5)
            .map(|id| {
                let mut other = Machine::new(id, String::new(), base.clone(), now);
                other.rate_in = 1e8;
                other
            })
            .collect();
        let mut machine = Machine::new(9, String::new(), facts, start);
        (machine.rate_in, machine.rate_stored) = (rate, rate);
        machine.seen = now - Duration::from_secs(silent);
        machine.moved = now - Duration::from_secs(still);
        let (health, why) = diagnose(&machine, Usual::of(others.iter()), now);
        assert_eq!(health, wanted, "{why}");
        assert!(why.contains(words) && why.is_empty() == words.is_empty(), "{why}");
    }

    #[test]
    fn the_likely_reason_follows_from_the_facts() {
        let base = || Facts { link_mbit: Some(1000), seconds: 60.0, peers: 5, ..Facts::default() };
        let behind = || Facts { memory_bytes: 120 << 20, waiting_bytes: 60 << 20, ..base() };
        use Health::{Failed, Fine, Gone, Slow, Stuck};
        check(1e8, 0, 0, base(), Fine, "");
        check(7e7, 0, 0, base(), Fine, "");
        check(3e7, 0, 0, base(), Slow, "cable?");
        check(3e7, 0, 0, Facts { link_mbit: Some(100), ..base() }, Slow, "100 Mbit/s only");
        check(9e7, 0, 0, Facts { link_mbit: Some(100), ..base() }, Slow, "100 Mbit/s only");
        check(3e7, 0, 0, behind(), Slow, "its disk is slow: it writes 30 MB/s");
        check(3e7, 0, 0, Facts { half_duplex: true, ..base() }, Slow, "half duplex");
        check(3e7, 0, 0, Facts { peers: 1, ..base() }, Slow, "no more than one peer");
        check(3e7, 0, 0, Facts { limit: Some(30_000_000), ..base() }, Fine, "");
        check(3e7, 0, 0, Facts { seconds: 3.0, ..base() }, Fine, "");
        check(0.0, 11, 0, base(), Stuck, "send nothing");
        check(0.0, 11, 0, Facts { peers: 0, ..base() }, Stuck, "no peers");
        check(0.0, 11, 0, Facts { nowhere: 7, ..base() }, Stuck, "the last 7 pieces");
        check(0.0, 11, 0, behind(), Stuck, "its disk does not take");
        check(0.0, 11, 0, Facts { paused: true, ..base() }, Fine, "");
        check(0.0, 11, 0, Facts { phase: Phase::Flushing, ..base() }, Fine, "");
        check(0.0, 301, 0, Facts { phase: Phase::Flushing, ..base() }, Stuck, "flushing");
        check(1e8, 0, 35, base(), Gone, "no report for 30 s");
        check(0.0, 99, 99, Facts { phase: Phase::Done, ..base() }, Fine, "");
        let failed = Facts { phase: Phase::Failed, error: "no space".into(), ..base() };
        check(0.0, 99, 99, failed, Failed, "no space");
    }
}
