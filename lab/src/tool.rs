//! Runs the machine's own programs and turns their failures into messages.

use anyhow::{Context as _, Result, bail};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A command from words separated by spaces, in the C locale, with the `sbin` directories on its
/// `PATH` (a plain user's has none of them) and nothing on its standard input.
///
/// # Panics
/// If there is no word.
#[must_use]
pub fn words(words: &str) -> Command {
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().expect("a command has a program"));
    command.args(words).env("PATH", path()).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Runs `command` to its end and returns what it printed, both streams, one after the other.
///
/// # Errors
/// The command line with the program's own last words if it could not be started, was killed, or
/// did not exit with 0.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    let text = text(&output);
    if !output.status.success() {
        bail!("run {}: {}: {}", line(command), output.status, last_lines(&text));
    }
    Ok(text)
}

/// Runs `command` to its end, whatever its exit code is.
///
/// # Errors
/// If it could not be started.
pub fn output(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("run {}", line(command)))
}

/// What a program printed: its standard output, then its standard error.
#[must_use]
pub fn text(output: &Output) -> String {
    let streams = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&streams).into_owned()
}

/// Where `program` is, if it is installed.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&path()).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].join(" | ")
}

/// `fsck` programs say what is wrong in their last lines, and may print thousands before.
const LINES_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_the_command_and_its_last_words() {
        let mut command = words("sh -c");
        let error = run(command.arg("echo out; echo why >&2; exit 3")).unwrap_err().to_string();
        assert_eq!(error, "run sh -c echo out; echo why >&2; exit 3: exit status: 3: out | why");
    }
}
