//! Sixteen lanes in 512-bit registers.
#![allow(unsafe_code)] // Loads and stores by pointer, calls that need a CPU feature, `pin`.

use super::lanes::{K, PREFETCH_AHEAD};
use super::{Block, State, with_all_lanes};
use std::arch::{asm, x86_64::*};

lane_kernel!(16 lanes of __m512i = zmm_reg, needs "avx512f,avx512bw" = "avx512f" and "avx512bw");

/// Block `at` of each lane: vector `i` holds word `i` of all lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_words(data: &[&[Block]; LANES], at: usize) -> [__m512i; 16] {
    // FIPS 180-4 counts bytes of a word from the highest.
    let swap =
        _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
    let mut w = [_mm512_setzero_si512(); 16];
    for lane in 0..LANES {
        let block = &data[lane][at];
        // SAFETY: a block has the 64 bytes that are read.
        w[lane] = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
        // A prefetch never faults, whatever the address.
        _mm_prefetch::<_MM_HINT_T0>(block.as_ptr().wrapping_add(PREFETCH_AHEAD).cast());
    }
    let mut w = transpose(w);
    for v in &mut w {
        *v = _mm512_shuffle_epi8(*v, swap);
    }
    w
}

/// Rows to columns of 16 x 16 words: words, pairs, then 128-bit quarters change places.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(mut r: [__m512i; 16]) -> [__m512i; 16] {
    let mut t = r;
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for i in (0..16).step_by(4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    // 0x88 takes the even quarters of both operands, 0xdd the odd ones.
    for i in 0..4 {
        t[i] = _mm512_shuffle_i32x4::<0x88>(r[i], r[i + 4]);
        t[i + 4] = _mm512_shuffle_i32x4::<0xdd>(r[i], r[i + 4]);
        t[i + 8] = _mm512_shuffle_i32x4::<0x88>(r[i + 8], r[i + 12]);
        t[i + 12] = _mm512_shuffle_i32x4::<0xdd>(r[i + 8], r[i + 12]);
    }
    for i in 0..8 {
        r[i] = _mm512_shuffle_i32x4::<0x88>(t[i], t[i + 8]);
        r[i + 8] = _mm512_shuffle_i32x4::<0xdd>(t[i], t[i + 8]);
    }
    r
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(words: &[u32; LANES]) -> __m512i {
    // SAFETY: sixteen words are the 64 bytes that are read.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(words: &mut [u32; LANES], v: __m512i) {
    // SAFETY: sixteen words are the 64 bytes that are written.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), v) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn splat(x: i32) -> __m512i {
    _mm512_set1_epi32(x)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(x: __m512i, y: __m512i) -> __m512i {
    _mm512_add_epi32(x, y)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn rotate<const N: i32>(x: __m512i) -> __m512i {
    _mm512_rol_epi32::<N>(x)
}

// The constant of a ternary operation is its truth table: bit `4x + 2y + z` is the result.

#[inline]
#[target_feature(enable = "avx512f")]
fn choose(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xca>(x, y, z)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn parity(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0x96>(x, y, z)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn majority(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xe8>(x, y, z)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor4(x: __m512i, y: __m512i, z: __m512i, last: __m512i) -> __m512i {
    _mm512_xor_si512(parity(x, y, z), last)
}
