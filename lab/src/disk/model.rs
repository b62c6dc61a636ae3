//! How long a disk takes: nothing, what a rate allows, or what a head and a platter do.

use std::time::{Duration, Instant};

/// How long the operations of a test disk take. They are served one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Model {
    /// As fast as this machine can.
    #[default]
    Instant,
    /// A rate that does not depend on where the bytes are, such as that of a USB stick.
    Rate {
        /// Bytes per second; more than 0.
        bytes_per_s: u64,
    },
    /// One head above one platter.
    HardDisk(HardDisk),
}

/// A disk with one head, without a cache and without a queue: an operation that begins where the last
/// one ended costs only its transfer, any other one also the way there.
///
/// The way is a seek, whose time grows with the root of the distance as far as the arm only speeds up
/// and brakes (C. Ruemmler, J. Wilkes, "An Introduction to Disk Drive Modeling", IEEE Computer 27(3),
/// 1994), and half a turn of the platter. Over a short gap ahead the head just waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardDisk {
    /// Bytes per second under the head; more than 0.
    pub bytes_per_s: u64,
    /// A seek to the next track.
    pub seek_min: Duration,
    /// A seek over the whole disk.
    pub seek_max: Duration,
    /// What the platter needs for half a turn: how long the wanted sector is away on average.
    pub half_turn: Duration,
}

impl Default for HardDisk {
    /// A desktop disk with 7200 turns a minute, as data sheets of 2 TB ones have it: 150 MB/s,
    /// 1 ms from track to track, 4.17 ms half a turn; two random places are 13 ms apart, which makes
    /// some 75 operations a second.
    fn default() -> HardDisk {
        HardDisk {
            bytes_per_s: 150_000_000,
            seek_min: Duration::from_millis(1),
            seek_max: Duration::from_millis(16),
            half_turn: Duration::from_micros(4167),
        }
    }
}

impl Model {
    /// What an operation on `len` bytes takes, `from` being where the last one ended and `to` where
    /// this one begins, on a disk of `disk_len` bytes.
    fn time(&self, from: u64, to: u64, len: u64, disk_len: u64) -> Duration {
        match self {
            Model::Instant => Duration::ZERO,
            Model::Rate { bytes_per_s } => transfer(len, *bytes_per_s),
            Model::HardDisk(disk) => disk.way(from, to, disk_len) + transfer(len, disk.bytes_per_s),
        }
    }
}

impl HardDisk {
    fn way(&self, from: u64, to: u64, disk_len: u64) -> Duration {
        let distance = from.abs_diff(to);
        if distance == 0 {
            return Duration::ZERO;
        }
        // A ratio of two lengths: a float's 53 bits are enough.
        let part = (distance as f64 / disk_len as f64).min(1.0);
        let seek = self.seek_min + self.seek_max.saturating_sub(self.seek_min).mul_f64(part.sqrt());
        let jump = seek + self.half_turn;
        if from < to { jump.min(transfer(distance, self.bytes_per_s)) } else { jump }
    }
}

fn transfer(len: u64, bytes_per_s: u64) -> Duration {
    Duration::from_secs_f64(len as f64 / bytes_per_s as f64)
}

/// Where the head is, and until when it is busy.
#[derive(Debug)]
pub(super) struct Head {
    at: u64,
    free_at: Instant,
}

/// What the head does for one operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    /// When it is done.
    pub(super) done_at: Instant,
    /// How long it takes.
    pub(super) time: Duration,
    /// Whether it begins elsewhere than the last one ended.
    pub(super) is_seek: bool,
}

impl Head {
    pub(super) fn new() -> Head {
        Head { at: 0, free_at: Instant::now() }
    }

    /// Moves to `to` and over `len` bytes.
    pub(super) fn serve(&mut self, model: &Model, to: u64, len: u64, disk_len: u64) -> Service {
        let time = model.time(self.at, to, len, disk_len);
        let begin = self.free_at.max(Instant::now() - SLACK);
        let service = Service { done_at: begin + time, time, is_seek: self.at != to };
        *self = Head { at: to + len, free_at: service.done_at };
        service
    }
}

/// An operation that comes this soon after the last one counts as one that was waiting. Threads sleep
/// too long by some 0.1 ms and need time between two operations; without this a stream would be far
/// slower than its disk. A pause is shortened by this much at most.
const SLACK: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: u64 = 1 << 40;

    fn time(from: u64, to: u64) -> Duration {
        Model::HardDisk(HardDisk::default()).time(from, to, 0, DISK)
    }

    #[test]
    fn the_way_grows_from_the_next_track_to_the_whole_disk() {
        let disk = HardDisk::default();
        assert_eq!(time(0, DISK), disk.seek_max + disk.half_turn);
        assert_eq!(time(DISK, 0), disk.seek_max + disk.half_turn);
        assert!(time(1 << 20, 0) >= disk.seek_min + disk.half_turn);
        let ways: Vec<Duration> = (21..40).map(|bits| time(1 << bits, 0)).collect();
        assert!(ways.is_sorted(), "{ways:?}");
    }

    #[test]
    fn what_follows_costs_its_transfer_and_a_short_gap_too() {
        assert_eq!(time(4096, 4096), Duration::ZERO);
        assert_eq!(time(0, 150_000), Duration::from_millis(1));
        let model = Model::HardDisk(HardDisk::default());
        assert_eq!(model.time(7, 7, 15_000_000, DISK), Duration::from_millis(100));
        assert_eq!(Model::Instant.time(0, 7, 15_000_000, DISK), Duration::ZERO);
        let rate = Model::Rate { bytes_per_s: 1_000_000 };
        assert_eq!(rate.time(0, DISK, 5_000, DISK), Duration::from_millis(5));
    }

    #[test]
    fn random_places_are_as_far_apart_as_data_sheets_say() {
        let mut random = crate::Random::new(1);
        let places: Vec<u64> = (0..10_000).map(|_| random.below(DISK)).collect();
        let sum: Duration = places.windows(2).map(|pair| time(pair[0], pair[1])).sum();
        let mean = sum / 9_999;
        assert!((Duration::from_millis(12)..Duration::from_millis(14)).contains(&mean), "{mean:?}");
    }

    #[test]
    fn operations_wait_for_one_another() {
        let mut head = Head::new();
        let model = Model::Rate { bytes_per_s: 1_000_000 };
        let begin = Instant::now();
        let last = (0..10).map(|i| head.serve(&model, i * 100_000, 100_000, DISK)).last().unwrap();
        assert!(last.done_at >= begin + Duration::from_secs(1) - SLACK);
        assert!(!last.is_seek && head.serve(&model, 0, 1, DISK).is_seek);
    }
}
