//! Log lines as `spdlog` prints them, and its variable `SPDLOG_LEVEL`: what scripts and people see
//! of a daemon. On standard output; times are UTC.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
    Critical,
    /// Of no line: nothing is printed.
    Off,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
            Level::Critical => "critical",
            Level::Off => "off",
        }
    }

    fn parse(name: &str) -> Option<Level> {
        let all = [
            Level::Trace,
            Level::Debug,
            Level::Info,
            Level::Warning,
            Level::Error,
            Level::Critical,
            Level::Off,
        ];
        let name = match name {
            "warn" => "warning",
            "err" => "error",
            name => name,
        };
        all.into_iter().find(|level| level.name() == name)
    }
}

/// Prints what is important enough.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    least: Level,
}

impl Log {
    /// As `SPDLOG_LEVEL` wants it: `warn`, or `warn,raw_disk_io=debug`, of which the parts that name
    /// a logger have no meaning here. `info` without it.
    pub(super) fn from_env() -> Log {
        Log { least: std::env::var("SPDLOG_LEVEL").map_or(Level::Info, |text| least(&text)) }
    }

    /// Prints `text` on one line. That nobody reads it does not matter.
    pub(super) fn say(self, level: Level, text: &str) {
        if level >= self.least && level != Level::Off {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let line = format!("[{}] [{}] {text}\n", stamp(now.as_millis()), level.name());
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
        }
    }
}

fn least(text: &str) -> Level {
    let mut levels = text.split(',').map(str::trim).filter(|part| !part.contains('='));
    levels.next_back().and_then(|name| Level::parse(&name.to_lowercase())).unwrap_or(Level::Info)
}

/// `2026-11-23 01:02:03.004`.
fn stamp(millis: u128) -> String {
    let (secs, millis) = (millis / 1000, millis % 1000);
    let (year, month, day) = date(secs / 86_400);
    let (hour, minute, second) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}")
}

/// Year, month, day of a day counted from 1970-01-01.
fn date(mut day: u128) -> (u128, usize, u128) {
    let of = |year: u128, years| year.is_multiple_of(years);
    let leap = |year| (of(year, 4) && !of(year, 100)) || of(year, 400);
    let mut year = 1970;
    while day >= 365 + u128::from(leap(year)) {
        day -= 365 + u128::from(leap(year));
        year += 1;
    }
    let february = 28 + u128::from(leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    (year, month + 1, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_dates() {
        assert_eq!(stamp(0), "1970-01-01 00:00:00.000");
        assert_eq!(stamp(951_782_400_007), "2000-02-29 00:00:00.007");
        assert_eq!(stamp(1_795_395_599_999), "2026-11-23 00:59:59.999");
    }

    #[test]
    fn the_variable_of_spdlog_is_understood() {
        let check = |text, level| assert_eq!(least(text), level, "{text}");
        check("warn", Level::Warning);
        check("DEBUG", Level::Debug);
        check("warn,raw_disk_io=debug", Level::Warning);
        check("raw_disk_io=debug", Level::Info);
        check("off", Level::Off);
        check("nonsense", Level::Info);
    }
}
