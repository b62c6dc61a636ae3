//! What is asked of a run: a figure, what it is divided by, and the bar it has to meet.

use super::report::Sample;
use std::fmt;

/// A question to a run.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub(super) measure: Measure,
    /// Divided by the same figure of this case, in the same round.
    pub(super) over: Option<String>,
    /// None: it is only told.
    pub(super) bar: Option<Bar>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// From the start of the first wave's last client to the last end, over the bound.
    Makespan(Who),
    /// The longest time of a client, from its own start to its end, over the image's time on one
    /// link.
    Own(Who),
    /// Seconds from the last start to the last client's first payload.
    StartUp,
    /// Bytes that left the server, over those of the image.
    SeederCopies,
    /// MB/s of image on each target.
    Rate,
    /// Seconds of processor time for each GiB that was sent.
    SeederCpu,
    /// The same of the median client for a GiB of image.
    ClientCpu,
    /// The share that the busiest thread of any process has in its time.
    BusiestThread,
    /// The share that the thread `scheduler` has, the most of all processes.
    Scheduler,
    /// MiB of resident memory of the largest client.
    ClientMemory,
    /// The same of the server.
    SeederMemory,
    /// Threads of the client that had the most.
    ClientThreads,
    SeederThreads,
    /// Open files of the client that had the most, sockets among them.
    ClientFiles,
    SeederFiles,
    /// MiB that the memory group of a client had at its peak, page cache included.
    GroupMemory,
    /// Bytes that were read of the server's disk, over those of the image.
    SourceReads,
    /// Seeks of the server's disk for a piece.
    SourceSeeks,
    /// Seeks of the median client's disk for a piece.
    TargetSeeks,
    /// Bytes that were read of the median client's disk, over those of the image.
    TargetReads,
    /// How long the median client's disk was busy, over the bound.
    TargetBusy,
}

/// Whose time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Of all clients that count.
    All,
    /// Of those that have our program.
    Ours,
    /// Of the others.
    Theirs,
    /// Of those that began at once.
    First,
    /// Of those that came later.
    Joined,
}

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bar {
    Most(f64),
    Least(f64),
}

/// A figure of a run.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Told {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) bar: Option<String>,
    pub(super) met: Option<bool>,
}

impl Figure {
    /// Only told.
    pub(super) fn plain(measure: Measure) -> Figure {
        Figure { measure, over: None, bar: None }
    }

    pub(super) fn most(measure: Measure, most: f64) -> Figure {
        Figure { bar: Some(Bar::Most(most)), ..Figure::plain(measure) }
    }

    pub(super) fn least(measure: Measure, least: f64) -> Figure {
        Figure { bar: Some(Bar::Least(least)), ..Figure::plain(measure) }
    }

    /// The same, beside what `case` has.
    pub(super) fn over(self, case: &str) -> Figure {
        Figure { over: Some(case.to_owned()), ..self }
    }

    /// How it is called in tables.
    pub(super) fn name(&self) -> String {
        match &self.over {
            Some(case) => format!("{} / that of {case}", self.measure),
            None => self.measure.to_string(),
        }
    }

    /// Its value in `sample`; `earlier` are the runs of the same scenario and round. `None` if it
    /// was not measured, or what it is divided by was not, or does not count.
    pub(super) fn of(&self, sample: &Sample, earlier: &[&Sample]) -> Option<Told> {
        let mut value = self.measure.of(sample)?;
        if let Some(case) = &self.over {
            let other = earlier.iter().find(|other| other.case == *case && !other.cpu_bound)?;
            value /= self.measure.of(other)?;
        }
        let met = self.bar.map(|bar| bar.is_met(value));
        let bar = self.bar.map(|bar| bar.to_string());
        value.is_finite().then(|| Told { name: self.name(), value, bar, met })
    }
}

impl Bar {
    pub(super) fn is_met(self, value: f64) -> bool {
        match self {
            Bar::Most(most) => value <= most,
            Bar::Least(least) => value >= least,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bar::Most(most) => write!(f, "<= {most}"),
            Bar::Least(least) => write!(f, ">= {least}"),
        }
    }
}

impl Measure {
    /// Whether a machine without time left spoils it: all but what a program holds.
    pub(super) fn wants_time(self) -> bool {
        !matches!(
            self,
            Measure::ClientMemory
                | Measure::SeederMemory
                | Measure::GroupMemory
                | Measure::ClientThreads
                | Measure::SeederThreads
                | Measure::ClientFiles
                | Measure::SeederFiles
        )
    }

    fn of(self, sample: &Sample) -> Option<f64> {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let pieces = sample.image_bytes.div_ceil(sample.piece_bytes) as f64;
        match self {
            Measure::Makespan(who) => Some(sample.makespan(who)? / sample.bound_s?),
            Measure::Own(who) => Some(sample.longest(who)? / sample.ideal_s?),
            Measure::StartUp => Some(sample.start_up_s),
            Measure::SeederCopies => Some(sample.seeder_copies),
            Measure::Rate => Some(sample.image_bytes as f64 / 1e6 / sample.makespan_s),
            Measure::SeederCpu => Some(sample.seeder_cpu_s_per_gib),
            Measure::ClientCpu => Some(sample.client_cpu_s_per_gib),
            Measure::BusiestThread => sample.busiest_thread.as_ref().map(|(_, share)| *share),
            Measure::Scheduler => sample.scheduler_share,
            Measure::ClientMemory => sample.client_memory_bytes.iter().copied().max().map(mib),
            Measure::SeederMemory => Some(mib(sample.seeder_memory_bytes)),
            Measure::ClientThreads => Some(sample.client_most.0 as f64),
            Measure::SeederThreads => Some(sample.seeder_most.0 as f64),
            Measure::ClientFiles => Some(sample.client_most.1 as f64),
            Measure::SeederFiles => Some(sample.seeder_most.1 as f64),
            Measure::GroupMemory => sample.group_memory_bytes.map(mib),
            Measure::SourceReads => {
                sample.source.map(|disk| disk.read_bytes as f64 / sample.image_bytes as f64)
            }
            Measure::SourceSeeks => sample.source.map(|disk| disk.seeks as f64 / pieces),
            Measure::TargetSeeks => sample.target(|disk| disk.seeks as f64 / pieces),
            Measure::TargetReads => {
                sample.target(|disk| disk.read_bytes as f64 / sample.image_bytes as f64)
            }
            Measure::TargetBusy => Some(sample.target(|disk| disk.busy_s)? / sample.bound_s?),
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Measure::Makespan(who) => return write!(f, "makespan{who} / bound"),
            Measure::Own(who) => return write!(f, "own time{who} / ideal"),
            _ => {}
        }
        f.write_str(match self {
            Measure::Makespan(_) | Measure::Own(_) => "",
            Measure::StartUp => "start-up, s",
            Measure::SeederCopies => "seeder copies",
            Measure::Rate => "MB/s",
            Measure::SeederCpu => "seeder CPU, s/GiB",
            Measure::ClientCpu => "client CPU, s/GiB",
            Measure::BusiestThread => "busiest thread's share",
            Measure::Scheduler => "scheduler's share",
            Measure::ClientMemory => "client RSS, MiB",
            Measure::SeederMemory => "seeder RSS, MiB",
            Measure::ClientThreads => "client threads",
            Measure::SeederThreads => "seeder threads",
            Measure::ClientFiles => "client files",
            Measure::SeederFiles => "seeder files",
            Measure::GroupMemory => "memory group, MiB",
            Measure::SourceReads => "source read, copies",
            Measure::SourceSeeks => "source seeks a piece",
            Measure::TargetSeeks => "target seeks a piece",
            Measure::TargetReads => "target read, copies",
            Measure::TargetBusy => "target busy / bound",
        })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Who::All => "",
            Who::Ours => " of ours",
            Who::Theirs => " of theirs",
            Who::First => " of the first",
            Who::Joined => " of those who join",
        })
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:.3}", self.name, self.value)?;
        match (&self.bar, self.met) {
            (Some(bar), Some(true)) => write!(f, " (bar {bar}: met)"),
            (Some(bar), _) => write!(f, " (bar {bar}: NOT met)"),
            (None, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_include_their_value() {
        assert!(Bar::Most(1.05).is_met(1.05) && !Bar::Most(1.05).is_met(1.051));
        assert!(Bar::Least(3.0).is_met(3.0) && !Bar::Least(3.0).is_met(2.99));
        assert_eq!(Bar::Most(1.1).to_string(), "<= 1.1");
    }

    #[test]
    fn figures_are_called_what_they_are() {
        let figure = Figure::most(Measure::Own(Who::First), 1.05).over("no joiners");
        assert_eq!(figure.name(), "own time of the first / ideal / that of no joiners");
    }
}
