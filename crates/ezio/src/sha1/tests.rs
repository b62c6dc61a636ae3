//! Every kernel, every number of lanes, every way to cut a message, against RustCrypto's `Sha1`.

use super::plan::Plan;
use super::*;
use proptest::prelude::*;
use sha1::Digest as _;
use std::sync::LazyLock;

/// FIPS 180-4's examples as the NIST validation suite lists them, and lengths around the padding.
#[test]
fn known_vectors() {
    let two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    check_known("", 1, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    check_known("abc", 1, "a9993e364706816aba3e25717850c26c9cd0d89d");
    check_known(two_blocks, 1, "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    check_known("a", 1_000_000, "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    check_known("01234567", 80, "dea356a2cddd90c7a7ecedc5ebb563934f460452");
}

fn check_known(text: &str, times: usize, hex: &str) {
    let message = text.repeat(times);
    let found: String = digest(message.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(found, hex, "{text:?} x {times}");
    for found in digest_many(&[message.as_bytes(); 3]) {
        assert_eq!(found, digest(message.as_bytes()), "{text:?} x {times} on lanes");
    }
}

#[test]
fn every_length_around_two_blocks_is_padded_right() {
    for len in 0..=2 * BLOCK_LEN + 1 {
        assert_eq!(digest(&POOL[..len]), oracle(&POOL[..len]), "{len} bytes");
    }
}

#[test]
fn nothing_is_allowed() {
    update_many(&mut [], &[]);
    assert!(digest_many(&[]).is_empty());
    assert_eq!(Hasher::default().finish(), digest(b""));
}

#[test]
#[should_panic(expected = "one chunk for each hasher")]
fn a_missing_chunk_is_a_bug_of_the_caller() {
    update_many(&mut [Hasher::new()], &[]);
}

#[test]
fn every_kernel_is_among_the_plans() {
    for kernel in Kernel::ALL {
        let alone = PLANS.iter().any(|p| p.rates().len() == 1 && p.rates()[0].kernel == kernel);
        assert_eq!(alone, kernel.is_supported(), "{kernel}");
        if !alone {
            lab::skipped(&format!("this CPU has no {kernel}"));
        }
    }
}

/// Equal lengths, the hot case: every kernel with each number of real and made-up lanes.
#[test]
fn every_plan_with_every_lane_count() {
    for plan in PLANS.iter() {
        for lanes in 1..=2 * LANES_MAX + 1 {
            let messages: Vec<Vec<&[u8]>> =
                (0..lanes).map(|lane| vec![&POOL[lane * 67..][..3 * BLOCK_LEN]]).collect();
            check(plan, &messages);
        }
    }
}

/// Lanes that end one after the other, so that each number of lanes follows from the one above.
#[test]
fn lanes_end_one_by_one_and_are_filled_again() {
    for plan in PLANS.iter() {
        let len = |lane: usize| (lane * 7 % 40) * BLOCK_LEN + lane;
        let messages: Vec<Vec<&[u8]>> =
            (0..40).map(|lane| vec![&POOL[lane..][..len(lane)]]).collect();
        check(plan, &messages);
    }
}

#[test]
fn long_messages_in_unequal_chunks() {
    for plan in PLANS.iter() {
        let messages: Vec<Vec<&[u8]>> = (0..17)
            .map(|lane| {
                let message = &POOL[lane * 1001..][..(1 << 20) + lane % 3];
                message.chunks(if lane == 5 { 100_000 } else { 256 << 10 }).collect()
            })
            .collect();
        check(plan, &messages);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn any_messages_in_any_chunks_by_any_plan(
        plan in 0..PLANS.len(),
        messages in prop::collection::vec(any_message(), 1..=33),
    ) {
        check(&PLANS[plan], &messages);
    }
}

/// Chunks of a message of up to some 4 KiB, from anywhere, so at any alignment.
fn any_message() -> impl Strategy<Value = Vec<&'static [u8]>> {
    let chunk = (0..64_usize, prop_oneof![0..130_usize, 0..2048_usize])
        .prop_map(|(from, len)| &POOL[from..from + len]);
    prop::collection::vec(chunk, 0..4)
}

/// Hashes `messages` side by side, one chunk of each at a time, and compares with RustCrypto.
fn check(plan: &Plan, messages: &[Vec<&[u8]>]) {
    let mut hashers = vec![Hasher::new(); messages.len()];
    for turn in 0..messages.iter().map(Vec::len).max().unwrap_or(0) {
        let chunks: Vec<&[u8]> =
            messages.iter().map(|m| m.get(turn).copied().unwrap_or_default()).collect();
        plan.update_many(&mut hashers, &chunks);
    }
    for (lane, (hasher, message)) in hashers.into_iter().zip(messages).enumerate() {
        let lens: Vec<usize> = message.iter().map(|chunk| chunk.len()).collect();
        assert_eq!(
            hasher.finish(),
            oracle(&message.concat()),
            "lane {lane} of {}, chunks of {lens:?} bytes, {plan}",
            messages.len()
        );
    }
}

fn oracle(message: &[u8]) -> Digest {
    sha1::Sha1::digest(message).into()
}

/// Bytes without a pattern that lanes or blocks could share: a linear congruential generator's
/// high ones (multiplier and increment of Knuth's MMIX).
static POOL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let next = |x: &u64| {
        Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    };
    std::iter::successors(Some(2), next).take(2 << 20).map(|x| (x >> 56) as u8).collect()
});

/// The plan this CPU would use, and each of its kernels alone.
static PLANS: LazyLock<Vec<Plan>> = LazyLock::new(|| {
    let alone = Kernel::ALL.into_iter().filter_map(Plan::only);
    std::iter::once(plan().clone()).chain(alone).collect()
});
