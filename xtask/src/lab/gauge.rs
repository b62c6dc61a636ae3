//! What a process holds, and whether that grows.

use anyhow::{Context as _, ensure};
use std::fs::{read_dir, read_link, read_to_string};

/// What a process holds at a moment, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Gauge {
    /// Bytes of resident memory.
    pub(super) memory: u64,
    /// Bytes of it at the peak so far.
    pub(super) peak: u64,
    pub(super) threads: u64,
    /// Open files, sockets among them.
    pub(super) files: u64,
    pub(super) sockets: u64,
}

impl Gauge {
    /// Of the process `pid`.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn of(pid: u32) -> anyhow::Result<Gauge> {
        let file = format!("/proc/{pid}/status");
        let status = read_to_string(&file).with_context(|| format!("read {file}"))?;
        let field = |name: &str| number(&status, name).with_context(|| format!("{file}: {name}"));
        let dir = format!("/proc/{pid}/fd");
        let entries = read_dir(&dir).with_context(|| format!("list {dir}"))?;
        // One that is closed meanwhile has no link any more, and is not open.
        let links = entries.flatten().filter_map(|entry| read_link(entry.path()).ok());
        let (mut files, mut sockets) = (0, 0);
        for link in links {
            files += 1;
            sockets += u64::from(link.to_string_lossy().starts_with("socket:"));
        }
        Ok(Gauge {
            memory: field("VmRSS:")? << 10,
            peak: field("VmHWM:")? << 10,
            threads: field("Threads:")?,
            files,
            sockets,
        })
    }

    /// Whether it holds no more than `other`, but for memory, which no allocator gives back at once.
    pub(super) fn is_within(&self, other: &Gauge) -> bool {
        self.threads <= other.threads && self.files <= other.files && self.sockets <= other.sockets
    }
}

fn number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Processes that have ended and that nobody has waited for: children of `parents`.
pub(super) fn zombies(parents: &[u32]) -> usize {
    let entries = read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| is_zombie_of(stat, parents)).count()
}

/// Reads `/proc/PID/stat` (proc_pid_stat(5)).
fn is_zombie_of(stat: &str, parents: &[u32]) -> bool {
    // The name in parentheses may hold anything.
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let mut fields = rest.split_whitespace();
    let (state, parent) = (fields.next(), fields.next().and_then(|n| n.parse().ok()));
    state == Some("Z") && parent.is_some_and(|parent| parents.contains(&parent))
}

/// Values in time: seconds and what was measured then.
#[derive(Clone, Debug, Default)]
pub(super) struct Series(pub(super) Vec<(f64, f64)>);

impl Series {
    /// What is left when the first quarter of the time has passed: until then caches fill, and the
    /// allocator finds out how much it needs.
    pub(super) fn settled(&self) -> Series {
        let end = self.0.last().map_or(0.0, |(time, _)| *time);
        Series(self.0.iter().copied().filter(|(time, _)| *time >= end / 4.0).collect())
    }

    /// How much more it is at the end than at the beginning, by the straight line that is nearest
    /// to all values (least squares): one value that is off moves it little.
    pub(super) fn growth(&self) -> f64 {
        let (Some((first, _)), Some((last, _))) = (self.0.first(), self.0.last()) else {
            return 0.0;
        };
        self.slope() * (last - first)
    }

    /// Of that line, for each second; 0 of less than two moments.
    fn slope(&self) -> f64 {
        let count = self.0.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| self.0.iter().map(of).sum::<f64>() / count;
        let (time, value) = (mean(|(time, _)| *time), mean(|(_, value)| *value));
        let along: f64 = self.0.iter().map(|(t, v)| (t - time) * (v - value)).sum();
        let square: f64 = self.0.iter().map(|(t, _)| (t - time) * (t - time)).sum();
        if square > 0.0 { along / square } else { 0.0 }
    }
}

/// Bytes that memory may have grown at the end, for noise: a few thread stacks and what the
/// allocator keeps for itself.
const NOISE: f64 = 2e6;

/// Part of the memory that it may have grown at the end, also noise.
const SHARE: f64 = 0.05;

/// Fails if memory has grown by more than noise, since it settled.
pub(super) fn check_growth(name: &str, memory: &Series) -> anyhow::Result<()> {
    let settled = memory.settled();
    let first = settled.0.first().map_or(0.0, |(_, value)| *value);
    let (growth, most) = (settled.growth(), NOISE.max(first * SHARE));
    ensure!(
        growth <= most,
        "{name}: memory has grown by {:.1} MB at rest, {:.1} MB are noise: {}",
        growth / 1e6,
        most / 1e6,
        memory.0.iter().map(|(_, v)| format!("{:.1}", v / 1e6)).collect::<Vec<_>>().join(" ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: impl Fn(f64) -> f64) -> Series {
        Series((0..40).map(|n| f64::from(n) * 50.0).map(|t| (t, values(t))).collect())
    }

    #[test]
    fn a_leak_of_two_kilobytes_a_second_is_found_under_noise_of_a_megabyte() {
        let noise = |t: f64| 1e6 * (t * 0.7).sin();
        check_growth("calm", &series(|t| 30e6 + noise(t))).unwrap();
        // 1.5 MB since it settled, which may be noise; and 3 MB.
        check_growth("little", &series(|t| 30e6 + noise(t) + 1e3 * t)).unwrap();
        check_growth("leak", &series(|t| 30e6 + noise(t) + 2e3 * t)).unwrap_err();
        // What grows only at first is no leak.
        check_growth("start", &series(|t| 30e6 + noise(t) + 20e6 * (t / 300.0).min(1.0))).unwrap();
    }

    #[test]
    fn growth_is_that_of_a_line() {
        assert_eq!(Series::default().growth(), 0.0);
        assert_eq!(Series(vec![(3.0, 7.0)]).growth(), 0.0);
        assert!((series(|t| 5.0 + t / 2.0).growth() - 975.0).abs() < 1e-9);
        assert_eq!(series(|t| t).settled().0[0].0, 500.0);
    }

    #[test]
    fn a_process_counts_itself() {
        let own = Gauge::of(std::process::id()).unwrap();
        assert!(own.memory > 1 << 20 && own.peak >= own.memory && own.threads > 0, "{own:?}");
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!Gauge::of(std::process::id()).unwrap().is_within(&Gauge::default()));
        drop(socket);
        Gauge::of(u32::MAX).unwrap_err();
    }

    #[test]
    fn only_ended_children_are_zombies() {
        assert!(is_zombie_of("7 (a) Z (b)) Z 42 1 1", &[1, 42]));
        assert!(!is_zombie_of("7 (a) S 42 1 1", &[42]));
        assert!(!is_zombie_of("7 (a) Z 43 1 1", &[42]));
        assert!(!is_zombie_of("7 (a", &[42]));
    }
}
