//! `cargo xtask soak`: whether anything grows while torrents and machines come and go.
//!
//! One server and two daemons live through all of it. Torrents that nobody has seen before are added
//! to the daemons and removed, paused, or torn away half way; machines are imaged from the server,
//! killed, stopped and started again; people look at the pages. Every finished target is compared
//! byte for byte. Once a minute everything rests, and then each of the three has to hold no more
//! threads, files and sockets than before it had ever done anything, and nothing may be left in the
//! directories for what is temporary, nor a process that nobody has waited for. What it holds in
//! memory at rest must not grow.

mod lanes;
mod room;

use super::gauge::{self, Gauge, Series};
use super::report::{greatest, median};
use super::{MEMORY, NEEDS, build, clean, work_dir};
use anyhow::{Context as _, bail, ensure};
use lab::Random;
use lanes::Count;
use room::{Residents, Room};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Machines that are imaged again and again.
const CLIENTS: usize = 3;

/// What to do.
struct Options {
    time: Duration,
    /// From rest to rest.
    period: Duration,
    json: Option<PathBuf>,
    binary: Option<PathBuf>,
}

/// `soak ARGS`: see the usage of `cargo xtask`.
pub(crate) fn main(args: &[&str]) -> anyhow::Result<()> {
    let options = Options::parse(args)?;
    lab::net::supported().map_err(anyhow::Error::msg)?;
    let ezio = match &options.binary {
        Some(binary) => std::path::absolute(binary)?,
        None => build(&["--release"])?,
    };
    run(&options, ezio)
}

/// Half a minute of it and one rest, with the build that `cargo test` has.
pub(crate) fn smoke() -> anyhow::Result<()> {
    if let Err(why) = lab::require(&NEEDS).and_then(|()| lab::net::supported()) {
        lab::skipped(&format!("the soak: {why}"));
        return Ok(());
    }
    let (time, period) = (Duration::from_secs(10), Duration::from_secs(8));
    run(&Options { time, period, json: None, binary: None }, build(&[])?)
}

impl Options {
    fn parse(args: &[&str]) -> anyhow::Result<Options> {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let (time, period) = (minutes(30), minutes(1));
        let mut options = Options { time, period, json: None, binary: None };
        for pair in args.chunks(2) {
            match *pair {
                ["--minutes", count] => {
                    options.time = minutes(count.parse().context("--minutes wants a number")?);
                }
                ["--json", file] => options.json = Some(file.into()),
                ["--binary", file] => options.binary = Some(file.into()),
                _ => bail!("`{}` is not understood", pair.join(" ")),
            }
        }
        Ok(options)
    }
}

fn run(options: &Options, ezio: PathBuf) -> anyhow::Result<()> {
    clean(Path::new(MEMORY))?;
    let dir = work_dir(Path::new(MEMORY))?;
    let room = Room::open(ezio, dir.path(), CLIENTS)?;
    let (count, gate) = (Count::default(), Gate::default());
    let residents = Residents::start(&room)?;
    let mut watch = Watch::new(options, &room, &residents);
    let outcome = thread::scope(|scope| {
        let (gate, room, count) = (&gate, &room, &count);
        let daemons = move |turn, random: &mut Random| lanes::daemons(room, turn, random, count);
        scope.spawn(move || gate.repeat(0, daemons));
        for index in 0..CLIENTS {
            let client = move |_, random: &mut Random| lanes::client(room, index, random, count);
            scope.spawn(move || gate.repeat(1 + index as u64, client));
        }
        let outcome = watch.all(gate, count);
        gate.end();
        outcome
    });
    println!("{}", watch.table());
    println!("\n{}", told(&count, &watch));
    if let Err(error) = outcome.and_then(|()| gate.outcome()) {
        for entry in std::fs::read_dir(dir.path().join("logs"))?.flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n  ");
            eprintln!("{}:\n  {last}", entry.path().display());
        }
        return Err(error);
    }
    watch.check()?;
    residents.close(&room).context("the end")
}

/// Where lanes wait between their turns.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    shut: bool,
    over: bool,
    /// Lanes that are in the middle of a turn, or have not come to their first.
    busy: usize,
    failed: Option<anyhow::Error>,
}

/// Most time between two turns of a lane, in milliseconds: it is a soak, not a race.
const PAUSE: u64 = 1500;

impl Gate {
    /// Takes turns until the end, or until one fails.
    fn repeat(&self, seed: u64, turn: impl Fn(u64, &mut Random) -> anyhow::Result<()>) {
        let mut random = Random::new(seed);
        for number in 0.. {
            if !self.enter() {
                return;
            }
            let outcome = turn(number, &mut random);
            self.leave(outcome);
            thread::sleep(Duration::from_millis(random.below(PAUSE)));
        }
    }

    /// Waits until a turn may begin. `false`: it is over.
    fn enter(&self) -> bool {
        let mut state = self.lock();
        while state.shut && !state.over {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.busy += usize::from(!state.over);
        !state.over
    }

    fn leave(&self, outcome: anyhow::Result<()>) {
        let mut state = self.lock();
        state.busy -= 1;
        if let Err(error) = outcome {
            state.over = true;
            state.failed.get_or_insert(error);
        }
        self.changed.notify_all();
    }

    /// Lets no turn begin and waits for those that have. `false`: it is over.
    fn shut(&self) -> bool {
        let mut state = self.lock();
        state.shut = true;
        while state.busy > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.over
    }

    fn open(&self) {
        self.lock().shut = false;
        self.changed.notify_all();
    }

    fn is_over(&self) -> bool {
        self.lock().over
    }

    fn end(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    fn outcome(&self) -> anyhow::Result<()> {
        self.lock().failed.take().map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at what the processes hold: all the time at their peaks, and closely at each rest.
struct Watch<'a> {
    options: &'a Options,
    room: &'a Room,
    residents: &'a Residents,
    begin: Instant,
    names: Vec<&'static str>,
    pids: Vec<u32>,
    /// At each rest, of each process.
    rests: Vec<(f64, Vec<Gauge>)>,
    /// The most that was seen, of each process.
    most: Vec<Gauge>,
}

/// How often the peaks are looked at.
const LOOK: Duration = Duration::from_millis(500);

impl Watch<'_> {
    fn new<'a>(options: &'a Options, room: &'a Room, residents: &'a Residents) -> Watch<'a> {
        let (names, pids): (Vec<_>, Vec<_>) = residents.names().unzip();
        let (most, rests) = (vec![Gauge::default(); names.len()], Vec::new());
        Watch { options, room, residents, begin: Instant::now(), names, pids, rests, most }
    }

    /// Until the time is over, or a turn or a rest fails.
    fn all(&mut self, gate: &Gate, count: &Count) -> anyhow::Result<()> {
        while self.begin.elapsed() < self.options.time {
            let until = Instant::now() + self.options.period;
            while Instant::now() < until && !gate.is_over() {
                self.look()?;
                thread::sleep(LOOK);
            }
            if !gate.shut() {
                return Ok(());
            }
            let rest = self.rest(count);
            gate.open();
            rest?;
        }
        Ok(())
    }

    fn look(&mut self) -> anyhow::Result<()> {
        for (most, now) in self.most.iter_mut().zip(self.residents.gauges()?) {
            most.memory = most.memory.max(now.memory);
            most.peak = most.peak.max(now.peak);
            most.threads = most.threads.max(now.threads);
            most.files = most.files.max(now.files);
            most.sockets = most.sockets.max(now.sockets);
        }
        Ok(())
    }

    /// Nothing is going on: nobody may hold anything.
    fn rest(&mut self, count: &Count) -> anyhow::Result<()> {
        let gauges = self.residents.at_rest()?;
        let left = self.room.leftovers()?;
        ensure!(left.is_empty(), "files that nobody has removed: {left:?}");
        let parents: Vec<u32> = self.pids.iter().copied().chain([std::process::id()]).collect();
        let zombies = gauge::zombies(&parents);
        ensure!(zombies == 0, "{zombies} processes that nobody has waited for");
        let at = self.begin.elapsed().as_secs_f64();
        let memory = gauges.iter().map(|g| format!("{:.1}", g.memory as f64 / 1e6));
        let memory = memory.collect::<Vec<_>>().join(", ");
        eprintln!("{at:.0} s: at rest {memory} MB; {count:?}");
        if let Some(path) = &self.options.json {
            let line = serde_json::json!({"at": at, "names": self.names, "gauges": gauges});
            let file = std::fs::File::options().append(true).create(true).open(path);
            file.and_then(|mut file| writeln!(file, "{line}"))
                .with_context(|| format!("append to {}", path.display()))?;
        }
        self.rests.push((at, gauges));
        Ok(())
    }

    fn memory(&self, index: usize) -> Series {
        let point = |(at, gauges): &(f64, Vec<Gauge>)| (*at, gauges[index].memory as f64);
        Series(self.rests.iter().map(point).collect())
    }

    /// Fails if memory grows. Whatever else there is was looked at in each rest.
    fn check(&self) -> anyhow::Result<()> {
        self.names
            .iter()
            .enumerate()
            .try_for_each(|(index, name)| gauge::check_growth(name, &self.memory(index)))
    }

    fn table(&self) -> String {
        let mut lines = vec![
            "| process | memory at rest, MB: first, median, most, last | growth since a quarter of \
             the time, MB | peak, MB | threads, files, sockets at rest | at most |"
                .to_owned(),
            "|---|---|---|---|---|---|".to_owned(),
        ];
        for (index, name) in self.names.iter().enumerate() {
            let memory = self.memory(index);
            let values: Vec<f64> = memory.0.iter().map(|(_, value)| value / 1e6).collect();
            let (Some(first), Some(last)) = (values.first(), values.last()) else { continue };
            let (rest, most) =
                (self.rests.last().map(|(_, gauges)| gauges[index]), self.most[index]);
            let held =
                |gauge: Gauge| format!("{}, {}, {}", gauge.threads, gauge.files, gauge.sockets);
            lines.push(format!(
                "| {name} | {first:.1}, {:.1}, {:.1}, {last:.1} | {:+.2} | {:.1} | {} | {} |",
                median(values.clone()),
                greatest(&values),
                memory.settled().growth() / 1e6,
                most.peak as f64 / 1e6,
                rest.map(held).unwrap_or_default(),
                held(most),
            ));
        }
        lines.join("\n")
    }
}

/// What has happened, in words.
fn told(count: &Count, watch: &Watch<'_>) -> String {
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let minutes = watch.begin.elapsed().as_secs_f64() / 60.0;
    format!(
        "{minutes:.1} minutes, {} rests: {} torrents added to daemons, {} removed, {} of them while \
         they were fetched, {} paused and resumed, {} refused; {} deployments finished, clients \
         killed {} times, stopped {}, asked to end {}; {} looks at the pages; {:.1} GB of targets \
         compared; the server and the daemons used {:.0} s of processor time",
        watch.rests.len(),
        of(&count.added),
        of(&count.removed),
        of(&count.early),
        of(&count.paused),
        of(&count.refused),
        of(&count.deployed),
        of(&count.killed),
        of(&count.stopped),
        of(&count.ended),
        of(&count.looks),
        of(&count.compared) as f64 / 1e9,
        watch.residents.cpu(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_busy_behind_a_gate_that_is_shut() {
        let (gate, running) = (Gate::default(), AtomicU64::new(0));
        thread::scope(|scope| {
            for seed in 0..4 {
                let turn = |_, _: &mut Random| {
                    running.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                };
                scope.spawn({
                    let gate = &gate;
                    move || gate.repeat(seed, turn)
                });
            }
            for _ in 0..20 {
                assert!(gate.shut());
                assert_eq!(running.load(Ordering::SeqCst), 0);
                gate.open();
            }
            gate.end();
        });
        gate.outcome().unwrap();
    }

    #[test]
    fn a_turn_that_fails_ends_all() {
        let gate = Gate::default();
        gate.repeat(0, |turn, _| {
            ensure!(turn < 2, "turn {turn}");
            Ok(())
        });
        assert!(gate.is_over() && !gate.shut() && !gate.enter());
        assert_eq!(gate.outcome().unwrap_err().to_string(), "turn 2");
    }

    #[test]
    fn arguments_are_read() {
        let options = Options::parse(&["--minutes", "45", "--binary", "x"]).unwrap();
        assert_eq!((options.time.as_secs(), options.binary), (2700, Some("x".into())));
        assert!(
            Options::parse(&["--minutes"]).is_err() && Options::parse(&["--what", "1"]).is_err()
        );
    }
}
