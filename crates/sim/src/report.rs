//! What a run came to.

use std::collections::BTreeMap;
use swarm::swarm::Totals;
use swarm::time::Time;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// When each client had everything on its disk, node 0 being the source; `None`: never.
    pub finished: Vec<Option<Time>>,
    /// When each client came first.
    pub joined: Vec<Time>,
    /// Clients that should have finished and did not.
    pub stuck: Vec<usize>,
    /// How long all images take on the source's link, in nanoseconds.
    pub ideal_ns: u64,
    /// Bytes of all images.
    pub image_len: u64,
    /// What each node has done; of a restarted one since its restart.
    pub totals: Vec<Totals>,
    /// Bytes of blocks that came after they were cancelled.
    pub unasked: u64,
    /// Bytes that left the source.
    pub source_sent: u64,
    /// Connections that a swarm closed, and why.
    pub closed: Vec<(usize, swarm::swarm::Reason)>,
    /// Events handled: what a run costs.
    pub events: u64,
    /// Clients of which nothing is asked: gone for good, or lying.
    pub away: u64,
    /// How often each fault happened.
    pub faults: BTreeMap<&'static str, u64>,
    /// Simulated time at the end.
    pub ended: Time,
}

impl Report {
    /// When the last of `nodes` finished, in nanoseconds; `None` if one did not.
    #[must_use]
    pub fn makespan_ns(&self, nodes: impl IntoIterator<Item = usize>) -> Option<u64> {
        let times: Option<Vec<u64>> =
            nodes.into_iter().map(|node| self.finished[node].map(|at| at.0)).collect();
        times?.into_iter().max()
    }

    /// The makespan of `nodes` as a multiple of the ideal, in thousandths.
    #[must_use]
    pub fn ratio(&self, nodes: impl IntoIterator<Item = usize>) -> Option<u64> {
        Some(thousandths(self.makespan_ns(nodes)?, self.ideal_ns))
    }

    /// The longest time of one of `nodes` from its arrival, as a multiple of the ideal, in
    /// thousandths.
    #[must_use]
    pub fn slowest(&self, nodes: impl IntoIterator<Item = usize>) -> Option<u64> {
        let spans: Option<Vec<u64>> = nodes
            .into_iter()
            .map(|node| self.finished[node].map(|at| at.0 - self.joined[node].0))
            .collect();
        Some(thousandths(spans?.into_iter().max()?, self.ideal_ns))
    }

    /// How many copies of the images the source sent, in thousandths.
    #[must_use]
    pub fn source_copies(&self) -> u64 {
        thousandths(self.source_sent, self.image_len)
    }
}

/// `a / b` in thousandths, rounded up: a bar is not met by rounding.
pub(crate) fn thousandths(a: u64, b: u64) -> u64 {
    // The quotient of a simulated time by the ideal one is far below 2^64.
    (u128::from(a) * 1000).div_ceil(u128::from(b.max(1))) as u64
}
