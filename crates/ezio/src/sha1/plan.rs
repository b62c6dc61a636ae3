//! Which kernels hash how many messages: measured once, because CPUs differ.
//!
//! A kernel takes the same time for all its lanes as for one, so thirteen messages may be cheapest
//! as sixteen, three of them made up; or, where the wide kernel is slow, as eight, two, two, one.

use super::kernel::Kernel;
use super::{BLOCK_LEN, Block, Hasher, State};
use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Messages that one pass works on at most, whatever the CPU. More wait for a free lane.
pub const LANES_MAX: usize = 16;

/// The plan of this CPU, for [`super::update_many`].
///
/// The first call measures the kernels for some 5 ms, 15 ms at most; threads that call at the same
/// time wait for it. A busy machine may make the plan slower than the best, never wrong.
pub fn plan() -> &'static Plan {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    PLAN.get_or_init(|| {
        let one_lane = Kernel::of_one_lane();
        let useful = |k: &Kernel| k.is_supported() && (k.lanes() > 1 || *k == one_lane);
        let kernels: Vec<Kernel> = Kernel::ALL.into_iter().filter(useful).collect();
        Plan::from_rates(measure(&kernels))
    })
}

/// How messages are split over kernels.
#[derive(Clone, Debug)]
pub struct Plan {
    rates: Vec<Rate>,
    /// `first[n]` is the first kernel of the cheapest split of `n` messages; the rest of them is
    /// looked up again. `first[0]` is never used.
    first: [Kernel; LANES_MAX + 1],
    /// Picoseconds for one block of each of `n` messages.
    cost_ps: [u64; LANES_MAX + 1],
}

/// What a kernel achieves on one core, with data in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Which.
    pub kernel: Kernel,
    /// Bytes of all lanes together, when none of them is made up. Never 0.
    pub bytes_per_s: u64,
}

impl Plan {
    /// A plan that knows one kernel, for tests and measurements. `None` if the CPU lacks it.
    #[must_use]
    pub fn only(kernel: Kernel) -> Option<Plan> {
        kernel.is_supported().then(|| Plan::from_rates(measure(&[kernel])))
    }

    /// The kernels it chooses from, the widest first.
    #[must_use]
    pub fn rates(&self) -> &[Rate] {
        &self.rates
    }

    /// Bytes/s of one core with `messages` at hand and data in the cache: the sum over them.
    ///
    /// # Panics
    /// If `messages` is 0.
    #[must_use]
    pub fn rate(&self, messages: usize) -> u64 {
        assert!(messages > 0, "a rate of no messages");
        let (full, rest) = (messages / LANES_MAX, messages % LANES_MAX);
        let cost_ps = self.cost_ps[LANES_MAX] * full as u64 + self.cost_ps[rest];
        (messages * BLOCK_LEN) as u64 * PS_PER_S / cost_ps.max(1)
    }

    /// The calls that hash `messages` side by side, up to [`LANES_MAX`] of them.
    ///
    /// # Panics
    /// If there are more.
    pub fn split(&self, messages: usize) -> impl Iterator<Item = Kernel> + '_ {
        assert!(messages <= LANES_MAX, "{messages} messages in one pass");
        let mut left = messages;
        std::iter::from_fn(move || {
            let kernel = (left > 0).then(|| self.first[left])?;
            left = left.saturating_sub(kernel.lanes());
            Some(kernel)
        })
    }

    /// As [`super::update_many`], by this plan.
    ///
    /// # Panics
    /// If there are not as many chunks as hashers.
    pub fn update_many(&self, hashers: &mut [Hasher], chunks: &[&[u8]]) {
        assert_eq!(hashers.len(), chunks.len(), "one chunk for each hasher");
        let mut lanes = Lanes::new();
        let mut waiting = 0..hashers.len();
        loop {
            while lanes.count < LANES_MAX
                && let Some(owner) = waiting.next()
            {
                let blocks = hashers[owner].absorb(chunks[owner]);
                lanes.enter(owner, hashers[owner].state, blocks);
            }
            if lanes.count == 0 {
                return;
            }
            lanes.advance(self);
            lanes.leave(|owner, state| hashers[owner].state = state);
        }
    }

    /// The cheapest splits: that of `n` messages is one call more than that of fewer.
    fn from_rates(rates: Vec<Rate>) -> Plan {
        let mut first = [rates[0].kernel; LANES_MAX + 1];
        let mut cost_ps = [0; LANES_MAX + 1];
        for n in 1..=LANES_MAX {
            let cost = |r: &Rate| r.call_ps() + cost_ps[n.saturating_sub(r.kernel.lanes())];
            let best = rates.iter().min_by_key(|r| cost(r)).unwrap(); // Indexed above: not empty.
            (first[n], cost_ps[n]) = (best.kernel, cost(best));
        }
        Plan { rates, first, cost_ps }
    }
}

const PS_PER_S: u64 = 1_000_000_000_000;

impl Rate {
    /// Picoseconds for one block in each lane.
    fn call_ps(&self) -> u64 {
        (self.kernel.lanes() * BLOCK_LEN) as u64 * PS_PER_S / self.bytes_per_s
    }
}

/// `16 lanes AVX-512 6.3 GB/s, 1 lane SHA-NI 2.1 GB/s; ...`, for people.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Rate { kernel, bytes_per_s }) in self.rates.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{kernel} {:.1} GB/s", *bytes_per_s as f64 / 1e9)?;
        }
        write!(f, "; messages at once and the lanes of the calls they take:")?;
        let mut n = 1;
        while n <= LANES_MAX {
            let calls = self.calls(n);
            let last = (n..=LANES_MAX).take_while(|&m| self.calls(m) == calls).last().unwrap_or(n);
            let comma = if n == 1 { "" } else { "," };
            if n == last {
                write!(f, "{comma} {n}: {calls}")?;
            } else {
                write!(f, "{comma} {n}-{last}: {calls}")?;
            }
            n = last + 1;
        }
        Ok(())
    }
}

impl Plan {
    /// `8+2+1`.
    fn calls(&self, messages: usize) -> String {
        let widths: Vec<String> = self.split(messages).map(|k| k.lanes().to_string()).collect();
        widths.join("+")
    }
}

/// The messages at work in one pass, dense at the front.
struct Lanes<'a> {
    count: usize,
    states: [State; LANES_MAX],
    /// What is left to hash. Empty only between `enter` of an empty chunk and `leave`.
    data: [&'a [Block]; LANES_MAX],
    /// Index of the hasher that lent the state.
    owners: [usize; LANES_MAX],
}

impl<'a> Lanes<'a> {
    fn new() -> Lanes<'a> {
        Lanes {
            count: 0,
            states: [State::default(); LANES_MAX],
            data: [&[]; LANES_MAX],
            owners: [0; LANES_MAX],
        }
    }

    /// Takes a lane, unless there is nothing to do.
    fn enter(&mut self, owner: usize, state: State, blocks: &'a [Block]) {
        if blocks.is_empty() {
            return;
        }
        let lane = self.count;
        (self.owners[lane], self.states[lane], self.data[lane]) = (owner, state, blocks);
        self.count += 1;
    }

    /// As many blocks of every lane as the shortest has left.
    fn advance(&mut self, plan: &Plan) {
        let data = &mut self.data[..self.count];
        let blocks = data.iter().map(|d| d.len()).min().unwrap_or(0);
        let mut now: [&[Block]; LANES_MAX] = [&[]; LANES_MAX];
        for (now, data) in now.iter_mut().zip(data) {
            (*now, *data) = data.split_at(blocks);
        }
        let mut at = 0;
        for kernel in plan.split(self.count) {
            let end = (at + kernel.lanes()).min(self.count);
            kernel.compress(&mut self.states[at..end], &now[at..end]);
            at = end;
        }
    }

    /// Gives the states of finished lanes back. The last lane moves into the gap.
    fn leave(&mut self, mut give_back: impl FnMut(usize, State)) {
        for lane in (0..self.count).rev() {
            if self.data[lane].is_empty() {
                give_back(self.owners[lane], self.states[lane]);
                self.count -= 1;
                self.owners[lane] = self.owners[self.count];
                self.states[lane] = self.states[self.count];
                self.data[lane] = self.data[self.count];
            }
        }
    }
}

/// The rate of each kernel over a buffer that fits into the L2 cache of anything recent.
///
/// Kernels take turns, so that a disturbance of a millisecond hits all of them or none.
fn measure(kernels: &[Kernel]) -> Vec<Rate> {
    // Not zeros: those would be one page of the operating system's, mapped 64 times.
    let buffer = vec![0xa5; MEASURE_LEN];
    let (blocks, _) = buffer.as_chunks();
    let (begin, mut best) = (Instant::now(), vec![Duration::MAX; kernels.len()]);
    for _ in 0..MEASURE_RUNS {
        for (&kernel, best) in kernels.iter().zip(&mut best) {
            *best = (*best).min(time(kernel, blocks));
        }
        if begin.elapsed() > MEASURE_TIME_MAX {
            break;
        }
    }
    let rate = |(&kernel, best)| Rate { kernel, bytes_per_s: measured_rate(best) };
    kernels.iter().zip(best).map(rate).collect()
}

/// 256 KiB: 40 us of the fastest kernel, far above the clock's grain.
const MEASURE_LEN: usize = 256 << 10;

/// The best of these is undisturbed even if most are not, and the first is spent on waking 512-bit
/// units up.
const MEASURE_RUNS: usize = 8;

/// After this no further run begins. One run of all kernels is 1 ms, or 3 ms on an old CPU.
const MEASURE_TIME_MAX: Duration = Duration::from_millis(10);

/// How long `kernel` takes for `blocks`, dealt out to all of its lanes.
fn time(kernel: Kernel, blocks: &[Block]) -> Duration {
    let mut lanes: [&[Block]; LANES_MAX] = [&[]; LANES_MAX];
    let lanes = &mut lanes[..kernel.lanes()];
    for (lane, part) in lanes.iter_mut().zip(blocks.chunks_exact(blocks.len() / kernel.lanes())) {
        *lane = part;
    }
    let mut states = [State::default(); LANES_MAX];
    let begin = Instant::now();
    kernel.compress(&mut states[..kernel.lanes()], lanes);
    let time = begin.elapsed();
    // Without the black box the compiler may see that nobody wants the result.
    std::hint::black_box(&states);
    time
}

/// Bytes/s. A clock that stands still or leaps does not make it 0 or divide by 0.
fn measured_rate(time: Duration) -> u64 {
    let ns = time.as_nanos().clamp(1, 1 << 40) as u64;
    (MEASURE_LEN as u64 * 1_000_000_000 / ns).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kernel::{Avx2, Avx512, Portable, ShaNi1, ShaNi2};

    #[test]
    fn thirteen_messages_are_sixteen_with_three_made_up() {
        let zen = [(Avx512, 6.3), (Avx2, 3.8), (ShaNi2, 2.3), (ShaNi1, 2.1)];
        check(&zen, 1, &[ShaNi1]);
        check(&zen, 2, &[ShaNi2]);
        check(&zen, 3, &[ShaNi2, ShaNi1]);
        check(&zen, 13, &[Avx512]);
        check(&zen, 16, &[Avx512]);
    }

    #[test]
    fn one_lane_without_a_sha_unit_loses_to_eight() {
        let haswell = [(Avx2, 3.0), (Portable, 0.6)];
        check(&haswell, 1, &[Portable]);
        check(&haswell, 2, &[Avx2]);
        check(&haswell, 9, &[Avx2, Portable]);
        check(&haswell, 10, &[Avx2, Avx2]);
    }

    #[test]
    fn a_slow_wide_kernel_is_left_out() {
        check(&[(Avx512, 1.0), (ShaNi1, 2.0)], 16, &[ShaNi1; 16]);
        check(&[(Avx512, 1.0)], 1, &[Avx512]);
    }

    #[test]
    fn the_rate_counts_real_messages_only() {
        let plan = Plan::from_rates(rates(&[(Avx512, 6.4)]));
        assert_eq!([16, 8, 1, 32].map(|n| plan.rate(n)), [6.4, 3.2, 0.4, 6.4].map(per_second));
        assert_eq!(plan.rate(17), per_second(6.4) / 32 * 17);
    }

    #[test]
    fn people_can_read_it() {
        let plan = Plan::from_rates(rates(&[(Avx512, 6.26), (ShaNi1, 2.0)]));
        let text = "16 lanes AVX-512 6.3 GB/s, 1 lane SHA-NI 2.0 GB/s; messages at once and the \
                    lanes of the calls they take: 1: 1, 2: 1+1, 3: 1+1+1, 4: 1+1+1+1, \
                    5: 1+1+1+1+1, 6-16: 16";
        assert_eq!(plan.to_string(), text);
    }

    #[test]
    fn this_cpu_is_measured_once_and_covers_every_count() {
        assert!(std::ptr::eq(plan(), plan()));
        for n in 1..=LANES_MAX {
            let width: usize = plan().split(n).map(Kernel::lanes).sum();
            assert!(width >= n, "{n} messages on {width} lanes of {}", plan());
            assert!(plan().rate(n) > 0);
        }
        assert!(plan().rates().iter().all(|r| r.kernel.is_supported()));
    }

    fn check(kernels: &[(Kernel, f64)], messages: usize, expected: &[Kernel]) {
        let plan = Plan::from_rates(rates(kernels));
        assert_eq!(plan.split(messages).collect::<Vec<_>>(), expected, "{messages} by {plan}");
    }

    fn rates(kernels: &[(Kernel, f64)]) -> Vec<Rate> {
        let rate = |&(kernel, gb)| Rate { kernel, bytes_per_s: per_second(gb) };
        kernels.iter().map(rate).collect()
    }

    fn per_second(gb: f64) -> u64 {
        (gb * 1e9) as u64
    }
}
