//! A running `ezio` process, as a test or a measurement sees it: lines of JSON, an exit code.

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A process that prints one JSON object a line. It is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// Starts `program` with `args`, `--json`, any free port, and peers on loopback only.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(program: &Path, args: &[&str]) -> anyhow::Result<Running> {
        let mut command = Command::new(program);
        command.args(args).args(["--json", "--port", "0", "--peers", "127.0.0.0/8"]);
        Running::spawn(command)
    }

    /// Starts `command`, which was told to print JSON.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(mut command: Command) -> anyhow::Result<Running> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let lines = BufReader::new(child.stdout.take().context("it is piped")?);
        Ok(Running { child, lines })
    }

    /// Starts `ezio serve` with `args` and its HTTP on a free port of loopback; returns
    /// `http://127.0.0.1:PORT` too, once it is ready.
    ///
    /// # Errors
    /// If it ends or fails before.
    pub fn serve(program: &Path, args: &[&str]) -> anyhow::Result<(Running, String)> {
        let all = [&["serve", "--http", "127.0.0.1:0"], args].concat();
        let mut server = Running::start(program, &all)?;
        let url = format!("http://127.0.0.1:{}", server.ready()?["http_port"]);
        Ok((server, url))
    }

    /// What an `ezio serve` says when it is ready; before, it tells of what it has captured.
    ///
    /// # Errors
    /// As [`Running::result`].
    pub fn ready(&mut self) -> anyhow::Result<Value> {
        loop {
            let result = self.result()?;
            if result.get("http_port").is_some() {
                return Ok(result);
            }
        }
    }

    /// The next object it prints, whatever it is; `None` when it has closed its output.
    ///
    /// # Errors
    /// If a line is no JSON.
    pub fn event(&mut self) -> anyhow::Result<Option<Value>> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))?))
    }

    /// The next result it prints.
    ///
    /// # Errors
    /// If an error comes, or its end.
    pub fn result(&mut self) -> anyhow::Result<Value> {
        while let Some(event) = self.event()? {
            match event["event"].as_str() {
                Some("result") => return Ok(event),
                Some("error") => bail!("{event}"),
                _ => {}
            }
        }
        bail!("it ended without a result")
    }

    /// The next error it prints, in words.
    ///
    /// # Errors
    /// If a result comes, or its end.
    pub fn error(&mut self) -> anyhow::Result<String> {
        while let Some(event) = self.event()? {
            ensure!(event["event"] != "result", "a result where an error is due: {event}");
            if event["event"] == "error" {
                return Ok(event.to_string());
            }
        }
        bail!("it ended without an error")
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; `None` if a signal ended it.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn code(mut self) -> anyhow::Result<Option<i32>> {
        Ok(self.child.wait()?.code())
    }

    /// Sends it a signal by name, such as `TERM`.
    ///
    /// # Errors
    /// If there is no such signal, or the process has been waited for.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.pid();
        crate::tool::run(&mut crate::tool::words(&format!("kill -{name} {pid}"))).map(drop)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
