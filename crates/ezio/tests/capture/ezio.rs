//! Runs the binary.

use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};
use swarm::metainfo::Metainfo;

/// How a run ended and what it printed.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The command with its arguments, not started yet.
pub(crate) fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ezio"));
    command.args(args).env("LC_ALL", "C");
    command
}

/// Runs it to its end.
pub(crate) fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    Ran::of(&command(args).output().expect("the binary can be started"))
}

/// Captures `source` into the torrent `out` and reads that. `options` are separated by spaces.
#[track_caller]
pub(crate) fn capture(source: &Path, out: &Path, options: &str) -> Metainfo {
    capture_noting(source, out, options).0
}

/// As [`capture`]; also returns what was printed beside the result.
#[track_caller]
pub(crate) fn capture_noting(source: &Path, out: &Path, options: &str) -> (Metainfo, String) {
    let mut args = vec!["capture".as_ref(), source.as_os_str(), "-o".as_ref(), out.as_os_str()];
    args.extend(options.split_whitespace().map(OsStr::new));
    let ran = run(args);
    assert_eq!(ran.code, Some(0), "capture {}: {ran:#?}", source.display());
    (Metainfo::parse(std::fs::read(out).unwrap()).unwrap(), ran.stderr)
}

/// Verifies; `Ok` with the result's JSON if all is right, `Err` with it if pieces are bad.
#[track_caller]
pub(crate) fn verify(torrent: &Path, path: &Path) -> Result<Value, Value> {
    let ran = run(["verify".as_ref(), torrent.as_os_str(), path.as_os_str(), "--json".as_ref()]);
    match ran.code {
        Some(0) => Ok(ran.result()),
        Some(1) => Err(ran.result()),
        _ => panic!("verify {}: {ran:#?}", path.display()),
    }
}

/// Whether one of the device ranges of a bad piece has the byte at `offset` in it.
#[track_caller]
pub(crate) fn holds(ranges: &Value, offset: u64) -> bool {
    ranges.as_array().expect("a list").iter().any(|range| {
        let begin = range["offset"].as_u64().expect("a number");
        (begin..begin + range["length"].as_u64().expect("a number")).contains(&offset)
    })
}

impl Ran {
    pub(crate) fn of(output: &Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The one object of the event "result" among the lines of `--json`.
    #[track_caller]
    pub(crate) fn result(&self) -> Value {
        let events = self.stdout.lines().map(|line| {
            serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"))
        });
        let results: Vec<Value> = events.filter(|event| event["event"] == "result").collect();
        assert_eq!(results.len(), 1, "one result: {self:#?}");
        results.into_iter().next().expect("there is one")
    }
}
