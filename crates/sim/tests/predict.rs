//! What `ezio sim` predicts: small ones in full, as text under version control.

use sim::predict::{Limit, PredictError, Prediction, Scenario, describe, predict};

const SCENARIO: Scenario = Scenario {
    len: 100_000_000,
    piece_len: Some(1 << 20),
    link: 125_000_000,
    disk: Some(90_000_000),
    seed: 1,
};

fn one(scenario: Scenario, clients: usize) -> Prediction {
    predict(&scenario, &[clients]).unwrap()[0]
}

/// `EZIO_SNAPSHOT=write` writes the file anew, to be reviewed.
#[test]
fn a_small_prediction_is_as_it_was() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/predict.txt");
    let predictions = predict(&SCENARIO, &[1, 2, 4]).unwrap();
    let now = describe(&SCENARIO, &predictions) + "\n";
    if std::env::var_os("EZIO_SNAPSHOT").is_some_and(|what| what == "write") {
        std::fs::write(path, &now).unwrap_or_else(|why| panic!("write {path}: {why}"));
    }
    let before = std::fs::read_to_string(path).unwrap_or_else(|why| panic!("read {path}: {why}"));
    assert_eq!(before, now, "the prediction changed; EZIO_SNAPSHOT=write writes {path}");
}

#[test]
fn the_same_seed_predicts_the_same_and_another_something_else() {
    let with = |seed| one(Scenario { seed, disk: None, ..SCENARIO }, 4);
    assert_eq!(with(7), with(7));
    let makespans: Vec<u64> = (1..=4).map(|seed| with(seed).makespan_ns).collect();
    assert!(makespans.iter().any(|time| *time != makespans[0]), "{makespans:?}");
}

#[test]
fn nobody_is_faster_than_the_slowest_part() {
    let check = |link, disk, wanted: Limit, least_ns: u64| {
        let found = one(Scenario { len: 400_000_000, link, disk, ..SCENARIO }, 2);
        assert_eq!(found.limit, wanted, "{found:?}");
        assert!((least_ns..least_ns * 5 / 4).contains(&found.makespan_ns), "{found:?}");
    };
    check(100_000_000, None, Limit::Link, 4_000_000_000);
    check(100_000_000, Some(200_000_000), Limit::Link, 4_000_000_000);
    check(100_000_000, Some(40_000_000), Limit::Disk, 10_000_000_000);
}

#[test]
fn four_large_pieces_are_what_limits() {
    let few = Scenario { len: 64 << 20, piece_len: Some(16 << 20), disk: None, ..SCENARIO };
    assert_eq!(one(few, 4).limit, Limit::Pieces);
}

/// The rest of a long image goes on at the pace of what was simulated: twice as much takes twice
/// as long, but for the start and the end.
#[test]
fn a_long_image_is_simulated_in_part() {
    let of = |len| one(Scenario { len, disk: None, ..SCENARIO }, 1);
    let (part, long) = (of(4096 << 20), of(1 << 40));
    assert_eq!((part.simulated, long.simulated), (4096, 4096));
    let ideal = (1_u64 << 40) * 8;
    assert!((ideal..ideal + ideal / 100).contains(&long.makespan_ns), "{long:?}");
    assert!(long.ratio <= part.ratio, "{long:?} {part:?}");
    assert!((1000..1010).contains(&long.source_copies), "{long:?}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let check = |scenario: Scenario, clients: &[usize], wanted| {
        assert_eq!(predict(&scenario, clients), Err(wanted), "{scenario:?} {clients:?}");
    };
    check(Scenario { len: 0, ..SCENARIO }, &[1], PredictError::Len);
    check(Scenario { len: u64::MAX, ..SCENARIO }, &[1], PredictError::Len);
    check(Scenario { piece_len: Some(3 << 20), ..SCENARIO }, &[1], PredictError::PieceLen);
    check(Scenario { piece_len: Some(1 << 30), ..SCENARIO }, &[1], PredictError::PieceLen);
    check(Scenario { link: 0, ..SCENARIO }, &[1], PredictError::Rate);
    check(Scenario { disk: Some(1), ..SCENARIO }, &[1], PredictError::Rate);
    check(Scenario { link: u64::MAX, ..SCENARIO }, &[1], PredictError::Rate);
    check(SCENARIO, &[1, 0], PredictError::Clients);
    check(SCENARIO, &[65], PredictError::Clients);
    check(SCENARIO, &[], PredictError::Clients);
}

/// One byte, the smallest piece, the largest, the slowest and the fastest link.
#[test]
fn every_corner_has_an_answer() {
    for len in [1, 16 << 10, (64 << 20) + 1] {
        for piece_len in [16 << 10, 64 << 20] {
            for link in [1_000_000, 1_000_000_000_000] {
                let (piece_len, disk) = (Some(piece_len), Some(link));
                let found = one(Scenario { len, piece_len, link, disk, seed: 3 }, 2);
                assert!(found.makespan_ns > 0 && found.source_copies >= 1000, "{found:?}");
            }
        }
    }
}
