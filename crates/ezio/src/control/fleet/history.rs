//! Throughput over time in a bounded number of points: when they are all taken, two become one.

use serde_json::{Value, json};

/// Even; as many as a wide screen shows.
const POINTS_MAX: usize = 480;

/// The last hours in [`POINTS_MAX`] points at the most.
#[derive(Debug)]
pub(super) struct History {
    points: Vec<Point>,
    /// Seconds of each point.
    step: u32,
    /// What will be the next point, and of how many seconds it is.
    sum: Point,
    seconds: u32,
}

/// Means over some seconds, in bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    /// What a machine that downloads receives on average.
    pub(super) machine: f64,
    /// What all receive.
    pub(super) total: f64,
    /// What this server sends.
    pub(super) server: f64,
}

impl Point {
    fn plus(self, other: Point) -> Point {
        Point {
            machine: self.machine + other.machine,
            total: self.total + other.total,
            server: self.server + other.server,
        }
    }

    fn over(self, count: f64) -> Point {
        Point {
            machine: self.machine / count,
            total: self.total / count,
            server: self.server / count,
        }
    }

    fn describe(self) -> Value {
        let whole = |rate: f64| rate.max(0.0) as u64;
        json!([whole(self.machine), whole(self.total), whole(self.server)])
    }
}

impl History {
    pub(super) fn new() -> History {
        History { points: Vec::new(), step: 1, sum: Point::default(), seconds: 0 }
    }

    /// Adds a second.
    pub(super) fn push(&mut self, point: Point) {
        self.sum = self.sum.plus(point);
        self.seconds += 1;
        if self.seconds < self.step {
            return;
        }
        self.points.push(self.sum.over(f64::from(self.seconds)));
        (self.sum, self.seconds) = (Point::default(), 0);
        if self.points.len() == POINTS_MAX {
            self.points = self.points.chunks(2).map(|two| two[0].plus(two[1]).over(2.0)).collect();
            self.step *= 2;
        }
    }

    /// Changes with every new point.
    pub(super) fn steps(&self) -> (u32, usize) {
        (self.step, self.points.len())
    }

    /// The newest point and the length of a step: who has the others can go on with it.
    pub(super) fn last(&self) -> Value {
        json!({ "step_seconds": self.step, "point": self.points.last().map(|p| p.describe()) })
    }

    /// The length of a step, and each point as three numbers.
    pub(super) fn describe(&self) -> Value {
        let points: Vec<Value> = self.points.iter().map(|point| point.describe()).collect();
        json!({ "step_seconds": self.step, "points": points })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_stays_and_the_size_is_bounded() {
        let mut history = History::new();
        for second in 0..100_000 {
            let rate = f64::from(second % 2) * 100.0;
            history.push(Point { machine: rate, total: 2.0 * rate, server: 7.0 });
            assert!(history.points.len() < POINTS_MAX);
        }
        assert_eq!(history.step, 256);
        assert!(
            history.points.iter().all(|p| *p == Point { machine: 50.0, total: 100.0, server: 7.0 })
        );
        assert_eq!(history.describe()["points"][0], json!([50, 100, 7]));
    }
}
