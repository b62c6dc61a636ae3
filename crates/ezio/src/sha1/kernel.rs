//! The loops that do the work, and which of them the CPU can run.
//!
//! All have one shape: as many blocks of each lane, one after the other, into that lane's state.
//! `unsafe` lives below this module only, where a kernel needs instructions that not every CPU
//! has; what crosses the border is slices, checked here and in the kernel's safe entry.

use super::{Block, State};
use std::fmt;

#[cfg(target_arch = "x86_64")]
#[macro_use]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512vl;
#[cfg(target_arch = "x86_64")]
mod sha_ni;

/// A way to hash up to [`Kernel::lanes`] messages side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Sixteen lanes of 512-bit registers: AVX-512 F and BW.
    Avx512,
    /// Eight lanes of 256-bit registers, with the rotations and three-operand logic of AVX-512 VL.
    Avx512Vl,
    /// Eight lanes of 256-bit registers: AVX2.
    Avx2,
    /// Four messages taking turns in the SHA unit, each in the others' latency.
    ShaNi4,
    /// Three messages taking turns in the SHA unit: the most whose state fits into 16 registers.
    ShaNi3,
    /// Two messages taking turns in the SHA unit.
    ShaNi2,
    /// One message in the SHA unit, with prefetch.
    ShaNi1,
    /// RustCrypto's `sha1`, which has its own ways of choosing: for every CPU.
    Portable,
}

impl Kernel {
    /// Every kernel there is, the widest first.
    pub const ALL: [Kernel; 8] = [
        Kernel::Avx512,
        Kernel::Avx512Vl,
        Kernel::Avx2,
        Kernel::ShaNi4,
        Kernel::ShaNi3,
        Kernel::ShaNi2,
        Kernel::ShaNi1,
        Kernel::Portable,
    ];

    /// Messages it works on at once. Fewer take as long as all.
    #[must_use]
    pub fn lanes(self) -> usize {
        match self {
            Kernel::Avx512 => 16,
            Kernel::Avx512Vl | Kernel::Avx2 => 8,
            Kernel::ShaNi4 => 4,
            Kernel::ShaNi3 => 3,
            Kernel::ShaNi2 => 2,
            Kernel::ShaNi1 | Kernel::Portable => 1,
        }
    }

    /// Whether this CPU has the instructions, and the operating system the registers.
    #[must_use]
    pub fn is_supported(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        match self {
            Kernel::Avx512 => return avx512::is_supported(),
            Kernel::Avx512Vl => return avx512vl::is_supported(),
            Kernel::Avx2 => return avx2::is_supported(),
            Kernel::ShaNi4 | Kernel::ShaNi3 | Kernel::ShaNi2 | Kernel::ShaNi1 => {
                return sha_ni::is_supported();
            }
            Kernel::Portable => {}
        }
        self == Kernel::Portable
    }

    /// The best for one message, known without measuring.
    ///
    /// Never `Portable` where there is a SHA unit: it has no prefetch, and where the hardware's is
    /// weak falls to half its rate on data outside the cache (1.1 of 2.1 GB/s on one virtual
    /// machine, no difference on another).
    pub(super) fn of_one_lane() -> Kernel {
        if Kernel::ShaNi1.is_supported() { Kernel::ShaNi1 } else { Kernel::Portable }
    }

    /// Takes all of `data[i]` into `states[i]`.
    ///
    /// # Panics
    /// If the CPU cannot, if there are not as many data as states, none or more than lanes, or if
    /// their lengths differ.
    pub(super) fn compress(self, states: &mut [State], data: &[&[Block]]) {
        assert!(self.is_supported(), "{self} on a CPU that has it not");
        assert!((1..=self.lanes()).contains(&states.len()), "{} lanes of {self}", states.len());
        assert_eq!(states.len(), data.len());
        assert!(data.iter().all(|blocks| blocks.len() == data[0].len()), "lanes of one length");
        #[cfg(target_arch = "x86_64")]
        match self {
            Kernel::Avx512 => return avx512::compress(states, data),
            Kernel::Avx512Vl => return avx512vl::compress(states, data),
            Kernel::Avx2 => return avx2::compress(states, data),
            Kernel::ShaNi4 => return sha_ni::compress::<4>(states, data),
            Kernel::ShaNi3 => return sha_ni::compress::<3>(states, data),
            Kernel::ShaNi2 => return sha_ni::compress::<2>(states, data),
            Kernel::ShaNi1 => return sha_ni::compress::<1>(states, data),
            Kernel::Portable => {}
        }
        sha1::block_api::compress(&mut states[0], data[0]);
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kernel::Avx512 => "16 lanes AVX-512",
            Kernel::Avx512Vl => "8 lanes AVX-512VL",
            Kernel::Avx2 => "8 lanes AVX2",
            Kernel::ShaNi4 => "4 lanes SHA-NI",
            Kernel::ShaNi3 => "3 lanes SHA-NI",
            Kernel::ShaNi2 => "2 lanes SHA-NI",
            Kernel::ShaNi1 => "1 lane SHA-NI",
            Kernel::Portable => "1 lane RustCrypto",
        })
    }
}

/// Runs `work` on exactly `N` states: missing ones are made up, and forgotten afterwards.
///
/// A made-up lane reads the last real lane's data, which is in the cache anyway.
#[cfg(target_arch = "x86_64")]
fn with_all_lanes<const N: usize>(
    states: &mut [State],
    data: &[&[Block]],
    work: impl FnOnce(&mut [State; N], &[&[Block]; N]),
) {
    let last = data.len() - 1;
    let data = std::array::from_fn(|lane| data[lane.min(last)]);
    let mut all = [State::default(); N];
    all[..states.len()].copy_from_slice(states);
    work(&mut all, &data);
    states.copy_from_slice(&all[..states.len()]);
}
