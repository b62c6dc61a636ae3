//! The daemon's log: lines as `spdlog` prints them, and its variable `SPDLOG_LEVEL`, which scripts and
//! people know; or as `--log`, `--log-format` and `--log-level` want it. Times are UTC.

pub(super) use crate::logs::Level;
use crate::logs::{self, LogArgs};

/// Says what happens in the daemon. What other parts of the program say goes the same way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log(());

impl Log {
    /// Begins as `args` want it; else with as much as `SPDLOG_LEVEL` wants: `warn`, or
    /// `warn,raw_disk_io=debug`, of which the parts that name a logger have no meaning here. `info`
    /// without it.
    ///
    /// # Errors
    /// As [`logs::start`].
    pub(super) fn start(args: &LogArgs) -> anyhow::Result<Log> {
        let unsaid = std::env::var("SPDLOG_LEVEL").map_or(Level::Info, |text| least(&text));
        logs::start_daemon(args, unsaid)?;
        Ok(Log(()))
    }

    /// Says `text`.
    pub(super) fn say(self, level: Level, text: &str) {
        match level {
            Level::Trace => tracing::trace!("{text}"),
            Level::Debug => tracing::debug!("{text}"),
            Level::Info => tracing::info!("{text}"),
            Level::Warn => tracing::warn!("{text}"),
            Level::Error => tracing::error!("{text}"),
            Level::Critical => tracing::error!(critical = true, "{text}"),
            Level::Off => {}
        }
    }
}

fn least(text: &str) -> Level {
    let mut levels = text.split(',').map(str::trim).filter(|part| !part.contains('='));
    levels.next_back().and_then(|name| parse(&name.to_lowercase())).unwrap_or(Level::Info)
}

fn parse(name: &str) -> Option<Level> {
    let all = [
        Level::Trace,
        Level::Debug,
        Level::Info,
        Level::Warn,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_of_spdlog_is_understood() {
        let check = |text, level| assert_eq!(least(text), level, "{text}");
        check("warn", Level::Warn);
        check("DEBUG", Level::Debug);
        check("warn,raw_disk_io=debug", Level::Warn);
        check("raw_disk_io=debug", Level::Info);
        check("off", Level::Off);
        check("nonsense", Level::Info);
    }
}
