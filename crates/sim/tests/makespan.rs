//! The makespan table: a change of the scheduler shows as a change of a file under version control.
//!
//! The small table runs with every test. The whole one is `cargo run -p sim --release -- --table`,
//! compared by `cargo test -p sim --release -- --ignored`.

use sim::{Case, run, table};

/// Compares what is with what was. `EZIO_SNAPSHOT=write` writes it instead, to be reviewed.
fn check(path: &str, now: &str) {
    let path = format!("{}/tests/{path}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("EZIO_SNAPSHOT").is_some_and(|what| what == "write") {
        std::fs::write(&path, now).unwrap_or_else(|why| panic!("write {path}: {why}"));
    }
    let before = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("read {path}: {why}"));
    assert_eq!(before, now, "the table changed; EZIO_SNAPSHOT=write writes {path}");
}

#[test]
fn the_small_table_is_as_it_was() {
    check("makespan-small.txt", &table(&[1, 2, 4, 8], &[64], &[1]));
}

#[test]
#[ignore = "minutes; the small one sees most changes"]
fn the_table_is_as_it_was() {
    check("makespan.txt", &table(&[1, 2, 4, 8, 16, 32], &[256, 1000], &[1, 2, 3]));
}

#[test]
fn eight_clients_take_little_longer_than_one() {
    let report = run(Case::Equal.config(8, 256, 1));
    let (ratio, copies) = (report.ratio(1..=8), report.source_copies());
    assert!(ratio.is_some_and(|ratio| ratio <= 1050), "makespan / ideal {ratio:?} thousandths");
    assert!(copies <= 1100, "the source sent {copies} thousandths of the image");
}
