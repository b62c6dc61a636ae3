//! The power goes: while the image is written, and right after it was said to be there.

use super::{LEN, PIECE_LEN, Served, Target, on_both};
use lab::Random;
use lab::disk::{Failure, Fault, Loss};

#[test]
fn what_was_finished_survives() {
    on_both(|make| {
        let served = Served::new();
        for seed in 0..4 {
            let target = make(served.dir.path());
            let mut client = served.deploy(target.path());
            client.finished();
            // Seed 0 would not lose much.
            let loss = if seed == 0 { Loss::All } else { Loss::BySeed(seed) };
            target.disk.cut_power(loss);
            drop(client);
            target.power_on();
            assert!(target.bytes() == served.image, "seed {seed}: bytes are lost");
        }
    });
}

#[test]
fn what_was_not_finished_never_looks_as_if_it_were() {
    on_both(|make| {
        let served = Served::new();
        let mut random = Random::new(5);
        for seed in 0..6 {
            let target = make(served.dir.path());
            let count = random.below(if target.device.is_some() { DEVICE_WRITES } else { WRITES });
            cut(&served, &target, Failure::write(..).after(count), seed);
        }
        // Before the flush of the cleared head, of the data, of the new head.
        for (seed, count) in [(7, 0), (8, 1), (9, 2), (10, 2), (11, 2)] {
            cut(&served, &make(served.dir.path()), Failure::flush().after(count), seed);
        }
    });
}

/// The head, each piece, and the head again.
const WRITES: u64 = LEN as u64 / PIECE_LEN + 2;

/// At least: the page cache puts pieces together, but no write is larger than 1 MiB.
const DEVICE_WRITES: u64 = (LEN as u64 >> 20) + 2;

/// Cuts the power at what `failure` says, looks at what is left, and deploys again.
fn cut(served: &Served, target: &Target, failure: Failure, seed: u64) {
    let what = format!("seed {seed}, {failure:?}");
    let before = target.bytes();
    target.disk.fail(failure.with(Fault::PowerCut(Loss::BySeed(seed))));
    let client = served.deploy(target.path());
    let error = client.fails();
    assert!(!target.disk.has_power(), "{what}: {error}");
    target.power_on();
    let after = target.bytes();
    // Any sector of the head, of the new image or of what was there before, stands for all of it.
    let stands = |head: &[u8], sector: usize| after[sector..sector + 512] == head[sector..][..512];
    for sector in (0..4096).step_by(512) {
        if stands(&served.image, sector) {
            assert!(after[4096..] == served.image[4096..], "{what}: looks like the new image");
        }
        if stands(&before, sector) {
            assert!(after[4096..] == before[4096..LEN], "{what}: looks like the old image");
        }
    }
    // What an interrupted run has noted is more than what is there: none of it is trusted.
    served.deploy(target.path()).ends_well();
    target.disk.cut_power(Loss::All);
    target.power_on();
    assert!(target.bytes() == served.image, "{what}: deployed again");
}
