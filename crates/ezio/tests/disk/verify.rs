//! `deploy --verify` on disks that take what is written and give back something else.

use super::{DEVICE_NEEDS, LEN, PIECE_LEN, Process, Served, Target, ezio, on_both, text};
use lab::Running;
use lab::disk::{Failure, Fault};
use serde_json::Value;

/// A byte of the last piece but one.
const AT: u64 = 62 * PIECE_LEN + 70_000;

/// One byte tips over whenever it is written.
fn flip(at: u64) -> Failure {
    Failure::write(at..at + 1).with(Fault::Flip(at))
}

fn deploy(served: &Served, target: &Target) -> Process {
    let args = ["deploy", &served.url, "--verify", "--to", text(target.path())];
    Process::new(Running::start(ezio(), &args).unwrap())
}

/// The first event of this kind.
fn event(client: &mut Process, kind: &str) -> Value {
    loop {
        let event = client.running.event().unwrap().expect("it does not end before");
        if event["event"] == kind {
            return event;
        }
    }
}

#[test]
fn what_is_read_again_comes_from_the_medium() {
    lab::require!(DEVICE_NEEDS);
    let served = Served::new();
    let target = Target::device(served.dir.path());
    let mut client = deploy(&served, &target);
    let result = event(&mut client, "result");
    assert_eq!(result["pieces"], 64);
    assert_eq!(result["pieces_fetched_again"], serde_json::json!([]));
    assert_eq!(result["disk_bytes"], LEN);
    assert!(result["received_bytes"].as_u64() >= Some(LEN as u64), "{result}");
    let read = target.disk.stats().read_bytes;
    assert!(read >= LEN as u64, "{read} bytes of {LEN} were read from the medium");
    client.ends_well_after_result();
}

/// The first piece has the head, which is written last, and is written last again.
/// What a result, good or bad, says of machine, disk and image; what this machine does not know of itself
/// is there, and null.
#[track_caller]
fn check_facts(outcome: &Value) {
    for name in ["serial", "mac", "host", "model", "disk_serial", "target", "received_bytes"] {
        assert!(outcome.get(name).is_some(), "no {name}: {outcome}");
    }
    assert_eq!(outcome["pieces"], (LEN as u64).div_ceil(PIECE_LEN), "{outcome}");
    let hash = outcome["info_hash"].as_str().unwrap_or_default();
    assert!(hash.len() == 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{outcome}");
    assert!(outcome["disk_bytes"].as_u64() >= Some(LEN as u64), "{outcome}");
    let seconds = |name: &str| outcome[name].as_f64().unwrap_or(f64::NAN);
    let (all, written) = (seconds("seconds"), seconds("seconds_until_written"));
    assert!(
        0.0 < written && written <= all && seconds("seconds_reading_again") >= 0.0,
        "{outcome}"
    );
}

#[test]
fn a_piece_that_is_bad_once_is_written_once_more() {
    on_both(|make| {
        for at in [5, AT] {
            let served = Served::new();
            let target = make(served.dir.path());
            // The head is zeroed first: that write is not the one that goes wrong.
            let after = u64::from(at < 4096);
            target.disk.fail(flip(at).after(after).once());
            let mut client = deploy(&served, &target);
            let note = client.note("once more");
            let (piece, start) = (at / PIECE_LEN, at / PIECE_LEN * PIECE_LEN);
            let range = format!("{start:#x}..{:#x}", start + PIECE_LEN);
            assert!(note.contains(&range), "{range}: {note}");
            let result = event(&mut client, "result");
            assert_eq!(result["pieces_fetched_again"], serde_json::json!([piece]));
            check_facts(&result);
            client.ends_well_after_result();
            target.power_on();
            assert!(target.bytes() == served.image, "byte {at}");
        }
    });
}

#[test]
fn a_piece_that_stays_bad_is_a_broken_disk() {
    on_both(|make| {
        let served = Served::new();
        let target = make(served.dir.path());
        target.disk.fail(flip(AT));
        let mut client = deploy(&served, &target);
        let failed = event(&mut client, "failed");
        assert_eq!(failed["pieces_fetched_again"], serde_json::json!([62]));
        check_facts(&failed);
        let error = client.fails();
        let range = format!("{:#x}..{:#x}", 62 * PIECE_LEN, 63 * PIECE_LEN);
        for words in ["the disk is broken", "piece 62 differs", &range, text(target.path())] {
            assert!(error.contains(words), "{words}: {error}");
        }
        assert!(failed["error"].as_str().is_some_and(|said| said.contains(&range)), "{failed}");
    });
}
