//! Faults by seed: whatever happens, nothing wrong is stored, and everybody who can finish does.

use sim::{Config, Faults, How, Image, Report, Stop, run};
use swarm::time::Time;

const PIECES: u32 = 40;

fn config(clients: usize, seed: u64) -> Config {
    Config { check_every: 1, ..Config::equal(clients, PIECES, seed) }
}

/// A share of the ideal time, in thousandths.
fn at(config: &Config, thousandths: u64) -> Time {
    Time(config.ideal_ns() / 1000 * thousandths)
}

/// Runs `change` of a small swarm with several seeds: everybody finishes.
fn check(what: &str, change: impl Fn(&mut Config)) -> Vec<Report> {
    // Unoptimised, half of the seeds take long enough.
    let seeds = if cfg!(debug_assertions) { 1..=2 } else { 1..=4 };
    let reports = seeds.map(|seed| {
        let mut config = config(6, seed);
        change(&mut config);
        println!("{what}, seed {seed}");
        let report = run(config);
        assert_eq!(report.stuck, [] as [usize; 0], "{what}, seed {seed}: {:?}", report.closed);
        report
    });
    reports.collect()
}

#[test]
fn lost_connections() {
    check("resets", |config| config.faults.reset_every_ns = config.piece_ns() / 2);
}

#[test]
fn stalled_connections() {
    check("stalls", |config| {
        config.faults.stall_every_ns = config.piece_ns() * 2;
        config.faults.stall_ns = 5_000_000_000;
    });
}

#[test]
fn wrong_blocks() {
    let reports = check("wrong blocks", |config| config.faults.corrupt_per_million = 3_000);
    assert!(reports.iter().any(|report| report.totals.iter().any(|totals| totals.corrupt > 0)));
}

#[test]
fn a_client_that_sends_nothing_right_is_left_alone() {
    for report in check("a liar", |config| config.faults.liars = vec![1]) {
        assert!(report.closed.iter().any(|(_, why)| *why == swarm::swarm::Reason::Corrupt));
    }
}

#[test]
fn crashed_clients() {
    check("crashes", |config| {
        let stop = |node, share| Stop { node, at: at(config, share), how: How::Crash };
        config.faults.stops = vec![stop(1, 300), stop(2, 310), stop(3, 700)];
    });
}

#[test]
fn a_crash_of_everybody_who_has_a_piece() {
    // The source has given pieces to these two and goes on; what only they had comes again.
    check("early crashes", |config| {
        let stop = |node| Stop { node, at: at(config, 60), how: How::Crash };
        config.faults.stops = (1..=4).map(stop).collect();
    });
}

#[test]
fn clients_that_return() {
    check("restarts", |config| {
        let stop =
            |node, share| Stop { node, at: at(config, share), how: How::Restart(700_000_000) };
        config.faults.stops = vec![stop(1, 300), stop(2, 500), stop(3, 900)];
    });
}

#[test]
fn a_source_that_restarts() {
    check("a restarted source", |config| {
        let how = How::Restart(2_000_000_000);
        config.faults.stops = vec![Stop { node: 0, at: at(config, 400), how }];
    });
}

#[test]
fn a_source_that_leaves_when_all_is_sent() {
    check("a source that leaves", |config| {
        config.faults.stops = vec![Stop { node: 0, at: at(config, 1300), how: How::Crash }];
    });
}

#[test]
fn frozen_clients() {
    check("freezes", |config| {
        let stop =
            |node, share| Stop { node, at: at(config, share), how: How::Freeze(8_000_000_000) };
        config.faults.stops = vec![stop(1, 300), stop(2, 600)];
    });
}

#[test]
fn slow_disks_and_a_small_budget() {
    let budget = 6 << 20;
    check("slow disks", |config| {
        config.swarm.budget = budget;
        for node in &mut config.nodes[1..3] {
            node.disk = 3_000_000;
        }
    });
}

#[test]
fn slow_and_uneven_links() {
    check("uneven links", |config| {
        config.nodes[1].up /= 10;
        config.nodes[2].down /= 10;
        config.nodes[3].up *= 10;
        config.nodes[4].down *= 3;
    });
}

#[test]
fn plain_bittorrent() {
    check("strangers only", |config| {
        config.nodes[1..].iter_mut().for_each(|node| node.plain = true)
    });
    check("a plain source", |config| config.nodes[0].plain = true);
    check("half strangers", |config| {
        config.nodes[1..4].iter_mut().for_each(|node| node.plain = true);
    });
}

#[test]
fn plain_bittorrent_with_lost_connections() {
    check("strangers and resets", |config| {
        config.nodes[1..4].iter_mut().for_each(|node| node.plain = true);
        config.faults.reset_every_ns = config.piece_ns();
        config.faults.corrupt_per_million = 1_000;
    });
}

#[test]
fn several_torrents_of_different_pieces() {
    check("three torrents", |config| {
        let image = |mib: u64, piece_len| Image { len: mib << 20, piece_len };
        config.torrents = vec![
            image(20, 1 << 20),
            image(3, 64 << 10),
            Image { len: 1_234_567, piece_len: 16 << 10 },
        ];
        config.swarm.budget = 8 << 20;
    });
}

#[test]
fn late_joiners() {
    check("joiners", |config| {
        let joins: Vec<Time> = (0..7).map(|node| at(config, node * 250)).collect();
        for (node, join) in config.nodes.iter_mut().zip(joins) {
            node.join = join;
        }
    });
}

#[test]
fn few_neighbours() {
    check("degree 3", |config| {
        config.degree = 3;
        config.swarm.peers_enough = 3;
    });
}

#[test]
fn everything_at_once() {
    check("everything", |config| {
        let stop = |node, share, how| Stop { node, at: at(config, share), how };
        config.faults = Faults {
            corrupt_per_million: 500,
            reset_every_ns: config.piece_ns() * 3,
            stall_every_ns: config.piece_ns() * 5,
            stall_ns: 2_500_000_000,
            stops: vec![
                stop(1, 200, How::Crash),
                stop(2, 400, How::Restart(1_000_000_000)),
                stop(3, 500, How::Freeze(3_000_000_000)),
                stop(0, 600, How::Restart(500_000_000)),
            ],
            ..Faults::default()
        };
        config.nodes[4].up /= 10;
        config.nodes[5].plain = true;
        config.nodes[6].disk = 5_000_000;
    });
}

#[test]
fn the_same_seed_is_the_same_run() {
    let once = || {
        let mut config = config(5, 7);
        config.faults.reset_every_ns = config.piece_ns();
        let report = run(config);
        (report.finished.clone(), report.events, report.totals)
    };
    assert_eq!(once(), once());
}
