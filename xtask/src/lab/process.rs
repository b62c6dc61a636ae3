//! A running program: the JSON lines it prints and when, what it costs, how it ends.

use super::gauge::Gauge;
use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{File, read_to_string};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A process. It is killed when this is dropped; it is not reaped before, so that the kernel keeps
/// what it cost.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    events: Receiver<(Instant, Value)>,
    log: PathBuf,
    /// Bytes of resident memory at their peak, as far as it was looked at.
    pub(super) memory_max: u64,
    /// Threads and open files at their peak, as far as it was looked at.
    pub(super) most: (u64, u64),
    /// Name and nanoseconds on a processor of each thread, as far as it was looked at.
    threads: BTreeMap<u32, (String, u64)>,
}

/// Clock ticks a second in `/proc/PID/stat`: `USER_HZ`, 100 on every architecture that runs this.
const TICKS: f64 = 100.0;

impl Process {
    /// Starts `command`; what it prints besides JSON lines goes to `log`.
    pub(super) fn start(mut command: Command, log: PathBuf) -> anyhow::Result<Process> {
        let file = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file.try_clone()?);
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let lines = BufReader::new(child.stdout.take().context("it is piped")?).lines();
        let (sender, events) = channel();
        thread::spawn(move || {
            let mut file = file;
            for line in lines.map_while(Result::ok) {
                let now = Instant::now();
                match serde_json::from_str(&line) {
                    Ok(event) => drop(sender.send((now, event))),
                    // A log that cannot be written is no reason to stop a measurement.
                    Err(_) => drop(writeln!(file, "{line}")),
                }
            }
        });
        Ok(Process { child, events, log, memory_max: 0, most: (0, 0), threads: BTreeMap::new() })
    }

    /// Says a line to it.
    pub(super) fn say(&mut self, line: &str) -> anyhow::Result<()> {
        let mut stdin = self.child.stdin.as_ref().context("it is piped")?;
        writeln!(stdin, "{line}").with_context(|| format!("say `{line}`: {}", self.last_words()))
    }

    /// Waits for the next event of this kind, and when it was printed.
    pub(super) fn wait_for(&self, kind: &str, time: Duration) -> anyhow::Result<(Instant, Value)> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => {
                    if let Some(event) = self.chosen(event, kind)? {
                        return Ok(event);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no `{kind}` within {} s: {}", time.as_secs(), self.last_words());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("it ended without `{kind}`: {}", self.last_words());
                }
            }
        }
    }

    /// The next event of this kind, if it was printed already.
    pub(super) fn try_for(&self, kind: &str) -> anyhow::Result<Option<(Instant, Value)>> {
        while let Ok(event) = self.events.try_recv() {
            if let Some(event) = self.chosen(event, kind)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn chosen(
        &self,
        event: (Instant, Value),
        kind: &str,
    ) -> anyhow::Result<Option<(Instant, Value)>> {
        let found = event.1["event"].as_str().unwrap_or_default();
        ensure!(found != "error", "{}: {}", event.1["message"], self.last_words());
        Ok((found == kind).then_some(event))
    }

    /// Whether it has ended; it is not reaped.
    pub(super) fn has_ended(&self) -> bool {
        self.stat().is_none_or(|stat| stat.state == "Z")
    }

    /// Seconds of user and system time so far, also of one that has ended.
    pub(super) fn cpu(&self) -> f64 {
        self.stat().map_or(0.0, |stat| stat.ticks as f64 / TICKS)
    }

    /// Looks at what it holds, which the kernel forgets when it ends.
    pub(super) fn look_at_memory(&mut self) {
        // One that has ended holds nothing any more.
        let Ok(gauge) = Gauge::of(self.child.id()) else { return };
        self.memory_max = self.memory_max.max(gauge.peak);
        self.most = (self.most.0.max(gauge.threads), self.most.1.max(gauge.files));
    }

    /// Looks at the time of its threads, which the kernel forgets when they end.
    pub(super) fn look_at_threads(&mut self) {
        let tasks = format!("/proc/{}/task", self.child.id());
        for task in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
            let read = |file: &str| read_to_string(task.path().join(file)).unwrap_or_default();
            let id = task.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            // Its first number is the time on a processor (Documentation/scheduler/sched-stats.rst).
            let time = read("schedstat").split_whitespace().next().and_then(|n| n.parse().ok());
            if let (Some(id), Some(time)) = (id, time) {
                self.threads.insert(id, (read("comm").trim().to_owned(), time));
            }
        }
    }

    /// The share that each thread has in the time of all, as far as it was looked at; the busiest
    /// first.
    pub(super) fn shares(&self) -> Vec<(String, f64)> {
        let all: u64 = self.threads.values().map(|(_, time)| time).sum();
        let share = |(name, time): &(String, u64)| (name.clone(), *time as f64 / all.max(1) as f64);
        let mut shares: Vec<(String, f64)> = self.threads.values().map(share).collect();
        shares.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        shares
    }

    /// Sends it a signal by name.
    pub(super) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.child.id();
        lab::tool::run(&mut lab::tool::words(&format!("kill -{name} {pid}"))).map(drop)
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end by itself, and that it was a good one.
    pub(super) fn wait(mut self, time: Duration) -> anyhow::Result<()> {
        self.wait_for_end(time)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}: {}", self.last_words());
        Ok(())
    }

    /// Waits until it has ended, however.
    pub(super) fn wait_for_end(&self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while !self.has_ended() {
            ensure!(
                Instant::now() < end,
                "it does not end within {} s: {}",
                time.as_secs(),
                self.last_words()
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub(super) fn stop(self, time: Duration) -> anyhow::Result<()> {
        self.signal("TERM")?;
        self.wait(time)
    }

    fn stat(&self) -> Option<Stat> {
        Stat::parse(&read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?)
    }

    fn last_words(&self) -> String {
        let text = read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(5)..];
        if last.is_empty() { "it said nothing".to_owned() } else { last.join(" | ") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: String,
    /// `utime` and `stime`: all threads, also those that have ended.
    ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Stat> {
        // The name in parentheses may hold anything.
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.to_owned();
        let user: u64 = fields.nth(10)?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        Some(Stat { state, ticks: user + system })
    }
}

/// Time of all processors since the start, of `/proc/stat` (proc_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    busy: u64,
    all: u64,
}

impl Machine {
    pub(super) fn now() -> anyhow::Result<Machine> {
        let file = Path::new("/proc/stat");
        let text = read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        Machine::parse(&text).context("/proc/stat has no line `cpu`")
    }

    fn parse(text: &str) -> Option<Machine> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = line.split_whitespace().map_while(|n| n.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal, then what is counted in `user` too.
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks[..] else {
            return None;
        };
        let busy = user + nice + system + irq + softirq + steal;
        Some(Machine { busy, all: busy + idle + iowait })
    }

    /// The part of the time since `before` in which a processor was busy, and the seconds of that.
    pub(super) fn since(self, before: Machine) -> (f64, f64) {
        let (busy, all) = (self.busy - before.busy, (self.all - before.all).max(1));
        (busy as f64 / all as f64, busy as f64 / TICKS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 70 30 0 0 20 0 9 0 123 1 1";
        assert_eq!(Stat::parse(text), Some(Stat { state: "S".to_owned(), ticks: 100 }));
        assert_eq!(Stat::parse("42 (a"), None);
    }

    #[test]
    fn busy_is_what_is_not_idle() {
        let at = |text: &str| Machine::parse(text).unwrap();
        let before = at("cpu  10 0 10 100 0 0 0 0 0 0\ncpu0 1 2 3\n");
        let after = at("cpu  40 10 20 150 50 0 0 50 0 0\n");
        assert_eq!(after.since(before), (0.5, 1.0));
        assert_eq!(Machine::parse("cpu  1 2 3"), None);
    }
}
