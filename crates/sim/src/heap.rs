//! What will happen, in order: by time, and at one time in the order it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use swarm::time::Time;

/// Planned happenings.
#[derive(Debug)]
pub(crate) struct Heap<T> {
    entries: BinaryHeap<Reverse<Entry<T>>>,
    planned: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Time,
    number: u64,
    what: T,
}

impl<T> Heap<T> {
    pub(crate) fn new() -> Heap<T> {
        Heap { entries: BinaryHeap::new(), planned: 0 }
    }

    pub(crate) fn plan(&mut self, at: Time, what: T) {
        self.planned += 1;
        self.entries.push(Reverse(Entry { at, number: self.planned, what }));
    }

    pub(crate) fn next(&mut self) -> Option<(Time, T)> {
        self.entries.pop().map(|Reverse(entry)| (entry.at, entry.what))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
