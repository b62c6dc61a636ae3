//! The rounds of SHA-1 with a message in each 32-bit lane of a vector, for vectors of any width.
//!
//! A macro, because a function generic over the vector cannot have the target features of its
//! vector. A kernel brings the operations that differ and gets `compress` in return.

/// Bytes ahead of the block at work, in each lane: 1.3 us of sixteen. On Zen 4, whose hardware
/// prefetches well, any distance up to 2 KiB is the same within the noise.
pub(super) const PREFETCH_AHEAD: usize = 512;

/// The constants of the four times twenty rounds (FIPS 180-4, 4.2.1), as the intrinsics want them.
pub(super) const K: [i32; 4] = [
    0x5a82_7999_u32.cast_signed(),
    0x6ed9_eba1_u32.cast_signed(),
    0x8f1b_bcdc_u32.cast_signed(),
    0xca62_c1d6_u32.cast_signed(),
];

/// `unroll!(0 1 2; f::<_>(x));` is `f::<0>(x); f::<1>(x); f::<2>(x);`.
///
/// The arrays of a kernel stay in registers only if every index is a constant.
macro_rules! unroll {
    ($($i:literal)*; $function:ident::<_> $arguments:tt) => { $( $function::<$i> $arguments; )* };
}

/// Defines `compress` and `is_supported` for `$lanes` messages in the 32-bit lanes of a `$vector`,
/// which lives in a `$register`.
///
/// The caller defines, with the same features: `load_words(&[&[Block]; LANES], usize) -> [Vector;
/// 16]` (the words of one block of each lane, in the CPU's byte order), `load` and `store` of one
/// word of each lane, `add`, `splat`, `rotate::<N>`, `choose`, `parity`, `majority` (FIPS 180-4,
/// 4.1.1) and `xor4`. It imports `asm`.
macro_rules! lane_kernel {
    (
        $lanes:literal lanes of $vector:ty = $register:ident,
        needs $features:tt = $($feature:tt)and+
    ) => {
        const LANES: usize = $lanes;
        type Vector = $vector;

        pub(super) fn is_supported() -> bool {
            $( is_x86_feature_detected!($feature) )&&+
        }

        /// Takes all of `data[i]` into `states[i]`. Lengths must not differ.
        pub(super) fn compress(states: &mut [State], data: &[&[Block]]) {
            assert!(is_supported());
            with_all_lanes(states, data, |states, data| {
                // SAFETY: the CPU has the features, as was just asserted.
                unsafe { compress_all(states, data) }
            });
        }

        #[target_feature(enable = $features)]
        fn compress_all(states: &mut [State; LANES], data: &[&[Block]; LANES]) {
            let mut words = [[0; LANES]; 5];
            for (lane, state) in states.iter().enumerate() {
                for i in 0..5 {
                    words[i][lane] = state[i];
                }
            }
            compress_words(&mut words, data);
            for (lane, state) in states.iter_mut().enumerate() {
                for i in 0..5 {
                    state[i] = words[i][lane];
                }
            }
        }

        /// `words[i][lane]` is word `i` of that lane's state.
        #[target_feature(enable = $features)]
        fn compress_words(words: &mut [[u32; LANES]; 5], data: &[&[Block]; LANES]) {
            let mut state = [splat(0); 5];
            for i in 0..5 {
                state[i] = load(&words[i]);
            }
            for at in 0..data[0].len() {
                let mut w = load_words(data, at);
                let before = state;
                unroll!(
                    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19
                    20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39
                    40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59
                    60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79;
                    round::<_>(&mut state, &mut w)
                );
                for i in 0..5 {
                    state[i] = add(state[i], before[i]);
                }
            }
            for i in 0..5 {
                store(&mut words[i], state[i]);
            }
        }

        /// Round `I` of 80, and the message word of round `I + 16` in the place of this one's.
        #[inline]
        #[target_feature(enable = $features)]
        fn round<const I: usize>(state: &mut [Vector; 5], w: &mut [Vector; 16]) {
            // FIPS 180-4 moves five words on by one place each round. Here the words stay, and the
            // places move: 80 rounds are 16 times around.
            let [a, b, c, d, e] = const { [80 - I, 81 - I, 82 - I, 83 - I, 84 - I] }.map(|i| i % 5);
            let [x, y, z] = [state[b], state[c], state[d]];
            let f = match I / 20 {
                0 => choose(x, y, z),
                2 => majority(x, y, z),
                _ => parity(x, y, z),
            };
            let wk = add(w[I % 16], splat(K[I / 20]));
            state[e] = pin(add(add(add(state[e], wk), f), rotate::<5>(state[a])));
            state[b] = rotate::<30>(state[b]);
            if I < 64 {
                let sum = xor4(w[(I + 13) % 16], w[(I + 8) % 16], w[(I + 2) % 16], w[I % 16]);
                w[I % 16] = rotate::<1>(sum);
            }
        }

        /// `x`, without an instruction, but the compiler keeps what is before it and behind it
        /// apart. Else it computes all 80 message words first, which do not fit into registers:
        /// 5.4 instead of 6.2 GB/s with sixteen lanes, 4.7 instead of 6.0 with eight (Zen 4).
        #[inline]
        #[target_feature(enable = $features)]
        fn pin(mut x: Vector) -> Vector {
            // SAFETY: the template is a comment; it names the operand because one must.
            unsafe {
                asm!("/* {} */", inout($register) x, options(nomem, nostack, preserves_flags));
            }
            x
        }
    };
}
