//! Eight lanes in 256-bit registers.
#![allow(unsafe_code)] // Loads and stores by pointer, calls that need a CPU feature, `pin`.

use super::lanes::{K, PREFETCH_AHEAD};
use super::{Block, State, with_all_lanes};
use std::arch::{asm, x86_64::*};

lane_kernel!(8 lanes of __m256i = ymm_reg, needs "avx2" = "avx2");

/// Block `at` of each lane: vector `i` holds word `i` of all lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_words(data: &[&[Block]; LANES], at: usize) -> [__m256i; 16] {
    let mut halves = [[_mm256_setzero_si256(); 8]; 2];
    for lane in 0..LANES {
        let block = &data[lane][at];
        // SAFETY: a block has the two times 32 bytes that are read.
        halves[0][lane] = unsafe { _mm256_loadu_si256(block.as_ptr().cast()) };
        // SAFETY: as above.
        halves[1][lane] = unsafe { _mm256_loadu_si256(block[32..].as_ptr().cast()) };
        // A prefetch never faults, whatever the address.
        _mm_prefetch::<_MM_HINT_T0>(block.as_ptr().wrapping_add(PREFETCH_AHEAD).cast());
    }
    // FIPS 180-4 counts bytes of a word from the highest.
    let swap = _mm256_broadcastsi128_si256(_mm_set_epi8(
        12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3,
    ));
    let (low, high) = (transpose(halves[0]), transpose(halves[1]));
    let mut w = [_mm256_setzero_si256(); 16];
    for i in 0..8 {
        w[i] = _mm256_shuffle_epi8(low[i], swap);
        w[i + 8] = _mm256_shuffle_epi8(high[i], swap);
    }
    w
}

/// Rows to columns of 8 x 8 words: words, pairs, then 128-bit halves change places.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(mut r: [__m256i; 8]) -> [__m256i; 8] {
    let mut t = r;
    for i in 0..4 {
        t[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    let mut u = t;
    for i in [0, 4] {
        u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for i in 0..4 {
        r[i] = _mm256_permute2x128_si256::<0x20>(u[i], u[i + 4]);
        r[i + 4] = _mm256_permute2x128_si256::<0x31>(u[i], u[i + 4]);
    }
    r
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load(words: &[u32; LANES]) -> __m256i {
    // SAFETY: eight words are the 32 bytes that are read.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store(words: &mut [u32; LANES], v: __m256i) {
    // SAFETY: eight words are the 32 bytes that are written.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), v) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn splat(x: i32) -> __m256i {
    _mm256_set1_epi32(x)
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add(x: __m256i, y: __m256i) -> __m256i {
    _mm256_add_epi32(x, y)
}

/// AVX2 has no rotation, and stable Rust no `32 - N` as a constant: `match` picks the other shift.
#[inline]
#[target_feature(enable = "avx2")]
fn rotate<const N: i32>(x: __m256i) -> __m256i {
    let low = match N {
        1 => _mm256_srli_epi32::<31>(x),
        5 => _mm256_srli_epi32::<27>(x),
        30 => _mm256_srli_epi32::<2>(x),
        _ => unreachable!("SHA-1 rotates by 1, 5 and 30"),
    };
    _mm256_or_si256(_mm256_slli_epi32::<N>(x), low)
}

#[inline]
#[target_feature(enable = "avx2")]
fn choose(x: __m256i, y: __m256i, z: __m256i) -> __m256i {
    _mm256_xor_si256(z, _mm256_and_si256(x, _mm256_xor_si256(y, z)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn parity(x: __m256i, y: __m256i, z: __m256i) -> __m256i {
    _mm256_xor_si256(x, _mm256_xor_si256(y, z))
}

/// Both terms never have a bit in common, so they may be added: one chain of additions.
#[inline]
#[target_feature(enable = "avx2")]
fn majority(x: __m256i, y: __m256i, z: __m256i) -> __m256i {
    add(_mm256_and_si256(x, y), _mm256_and_si256(z, _mm256_xor_si256(x, y)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn xor4(x: __m256i, y: __m256i, z: __m256i, last: __m256i) -> __m256i {
    _mm256_xor_si256(_mm256_xor_si256(x, y), _mm256_xor_si256(z, last))
}
