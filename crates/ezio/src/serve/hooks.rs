//! What is run and posted when a machine, or all of them, have come to an end.
//!
//! What a machine reports reaches a command through its environment, never through its text: a host
//! may be called `$(reboot)`.

use crate::control::{Ended, tell};
use crate::store::io_reason;
use crate::ui::Ui;
use anyhow::Context as _;
use serde_json::Value;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

/// What to do at an end. Nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    /// A command for each machine that is done or has failed.
    pub on_machine: Option<String>,
    /// A command for when all machines are.
    pub on_all: Option<String>,
    /// URLs to which both are posted as JSON.
    pub webhooks: Vec<String>,
}

/// What waits for its turn: each machine of a fleet at its largest, once.
const WAITING_MAX: usize = 1024;

/// How long an answer to a post may take.
const POST_TIME_MAX: Duration = Duration::from_secs(10);

impl Hooks {
    fn is_empty(&self) -> bool {
        self.on_machine.is_none() && self.on_all.is_none() && self.webhooks.is_empty()
    }

    /// Takes ends from now on. They are dealt with one after the other on a thread of their own, so
    /// that whoever tells of them never waits. A hook that fails is a note and keeps no other back.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start(self, ui: Ui) -> anyhow::Result<impl Fn(Ended) + Send + Sync + 'static> {
        let (sender, receiver) = sync_channel::<Ended>(WAITING_MAX);
        if !self.is_empty() {
            let work = move || {
                for ended in receiver {
                    self.run(&ended, ui);
                }
            };
            let builder = thread::Builder::new().name("hooks".to_owned());
            // It ends with the process: nobody wants to wait for a hook.
            let _detached = builder.spawn(work).context("start the thread `hooks`")?;
        }
        // What does not fit is told of on the dashboard all the same; without hooks nobody listens.
        Ok(move |ended| drop(sender.try_send(ended)))
    }

    fn run(&self, ended: &Ended, ui: Ui) {
        let (option, command) = match ended {
            Ended::Machine(_) => ("--on-machine", &self.on_machine),
            Ended::All(_) => ("--on-all", &self.on_all),
        };
        if let Some(command) = command
            && let Err(why) = run(command, &variables(ended))
        {
            ui.warn(&format!("{option} `{command}`: {why}"));
        }
        for url in &self.webhooks {
            if let Err(why) = tell(url, &ended.describe(), POST_TIME_MAX) {
                ui.warn(&format!("--webhook: {why:#}"));
            }
        }
    }
}

fn run(command: &str, variables: &[(&str, String)]) -> Result<(), String> {
    let status = Command::new("/bin/sh")
        .args(["-c", command])
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .status()
        .map_err(|error| io_reason(&error))?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

/// The environment of a command.
fn variables(ended: &Ended) -> Vec<(&'static str, String)> {
    let (facts, names): (&Value, &[(&str, &str)]) = match ended {
        Ended::Machine(machine) => (machine, &MACHINE),
        Ended::All(summary) => (summary, &ALL),
    };
    names.iter().map(|&(name, key)| (name, text(&facts[key]))).collect()
}

/// Variables, and the fields of `/api/machines` that they are.
const MACHINE: [(&str, &str); 9] = [
    ("EZIO_STATUS", "phase"),
    ("EZIO_HOST", "host"),
    ("EZIO_ADDRESS", "addr"),
    ("EZIO_TARGET", "device"),
    ("EZIO_SERIAL", "serial"),
    ("EZIO_MAC", "mac"),
    ("EZIO_ERROR", "error"),
    ("EZIO_SECONDS", "seconds"),
    ("EZIO_BYTES", "image_bytes"),
];

/// The same of `/api/summary`.
const ALL: [(&str, &str); 4] = [
    ("EZIO_MACHINES", "machines"),
    ("EZIO_DONE", "done"),
    ("EZIO_FAILED", "failed"),
    ("EZIO_SECONDS", "elapsed_seconds"),
];

/// No variable can hold a zero byte.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace('\0', ""),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_command_sees_what_a_machine_says_and_never_runs_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("seen");
        let command = format!("echo \"$EZIO_HOST $EZIO_STATUS $EZIO_BYTES\" > {}", file.display());
        let machine = json!({"host": "$(reboot)\u{0}`id`", "phase": "done", "image_bytes": 7});
        run(&command, &variables(&Ended::Machine(machine))).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "$(reboot)`id` done 7\n");
        assert_eq!(run("exit 3", &[]), Err("exit status: 3".to_owned()));
    }
}
