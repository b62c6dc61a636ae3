//! The command line: arguments into a command, a command into an exit code.
//!
//! Exit codes: 0 done, 1 failed (what, on what and why stands on standard error), 2 usage.

mod args;
mod examples;
mod values;

use crate::logs::{self, Level, LogArgs};
use crate::ui::Ui;
use crate::{
    capture, clear, demo, deploy, doctor, inspect, legacy, preflight, serve, simulate, verify,
    watch,
};
use args::{
    CaptureArgs, ClearArgs, DemoArgs, DeployArgs, DoctorCommand, InspectArgs, ServeArgs, SimArgs,
    VerifyArgs, WatchCommand,
};
use clap::{ArgAction, CommandFactory as _, Parser, Subcommand};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Put one disk image on many machines, as fast as the wire.
#[derive(Debug, Parser)]
#[command(name = "ezio", version, disable_version_flag = true, arg_required_else_help = true)]
#[command(after_help = examples::EZIO)]
struct Cli {
    /// Print the version
    #[arg(short = 'v', long = "version", action = ArgAction::Version)]
    version: Option<bool>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the image of a disk to many machines; captures it first
    #[command(after_help = examples::SERVE)]
    Serve(ServeArgs),
    /// Write an image to this machine's disk, getting it from everybody
    #[command(after_help = examples::DEPLOY)]
    Deploy(DeployArgs),
    /// Make a torrent of the used blocks of a partition or an image file
    #[command(after_help = examples::CAPTURE)]
    Capture(CaptureArgs),
    /// Read an image again and list every piece that is not what the torrent says
    #[command(after_help = examples::VERIFY)]
    Verify(VerifyArgs),
    /// Write zeros over what an image covers on a device or file, and over nothing else
    #[command(after_help = examples::CLEAR)]
    Clear(ClearArgs),
    /// Show what is in a torrent
    #[command(after_help = examples::INSPECT)]
    Inspect(InspectArgs),
    /// Watch a server's machines, or a daemon's torrents, live in the terminal
    #[command(after_help = examples::WATCH)]
    Watch(WatchCommand),
    /// Look for what would go wrong on this machine, and say what to do
    #[command(after_help = examples::DOCTOR)]
    Doctor(DoctorCommand),
    /// Show the whole loop on this machine, with files as disks: no root, no preparation
    #[command(after_help = examples::DEMO)]
    Demo(DemoArgs),
    /// Predict how long a deployment takes
    #[command(after_help = examples::SIM)]
    Sim(SimArgs),
}

/// The command line as it is described, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command of this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    demo::end_with_parent();
    let commands: Vec<String> = Cli::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .chain(["help".to_owned()])
        .collect();
    let help = || Cli::command().render_long_help().to_string();
    if let Some(code) = legacy::run(&commands, help) {
        return code;
    }
    let command = Cli::parse().command;
    let (ui, outcome) = match command {
        Command::Serve(args) => {
            let ui = args.common.ui();
            let log = args.log.clone();
            let run = |stop: &AtomicBool| serve::run(&args.into(), ui, stop).map(|()| true);
            (ui, logged("serve", &log, ui, || interruptible(run)))
        }
        Command::Deploy(args) => {
            let ui = args.common.ui();
            let log = args.log.clone();
            let run = |stop: &AtomicBool| deploy::run(&args.into(), ui, stop).map(|()| true);
            (ui, logged("deploy", &log, ui, || interruptible(run)))
        }
        Command::Capture(args) => {
            let ui = args.common.ui();
            (ui, interruptible(|stop| capture::run(&args.into(), ui, stop).map(|()| true)))
        }
        Command::Verify(args) => {
            let ui = args.common.ui();
            (ui, interruptible(|stop| verify::run(&args.torrent, &args.path, ui, stop)))
        }
        Command::Clear(args) => {
            let (ui, checks) =
                (args.common.ui(), preflight::Checks { force: args.force, wipe: false });
            let clear = |stop: &AtomicBool| clear::run(&args.torrent, &args.path, checks, ui, stop);
            (ui, interruptible(clear).map(|()| true))
        }
        Command::Inspect(args) => {
            let ui = args.common.ui();
            (ui, inspect::run(&args.torrent, ui).map(|()| true))
        }
        Command::Watch(args) => {
            let ui = args.common.ui();
            (ui, watch::run(&args.watch, ui).map(|()| true))
        }
        Command::Doctor(args) => {
            let ui = args.common.ui();
            (ui, interruptible(|stop| doctor::run(&args.doctor, ui, stop)))
        }
        Command::Demo(args) => {
            let (ui, demo) = (args.common.ui(), args.into());
            (ui, interruptible(|stop| demo::run(&demo, ui, stop)))
        }
        Command::Sim(args) => {
            let (ui, clients) = (args.common.ui(), args.clients.clone());
            (ui, simulate::run(&args.into(), &clients, ui).map(|()| true))
        }
    };
    let code = match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            ui.error(&error);
            ExitCode::FAILURE
        }
    };
    logs::flush();
    code
}

/// Runs `work` with a log, as much of it as is shown.
fn logged<T>(
    command: &'static str,
    log: &LogArgs,
    ui: Ui,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let unsaid = match (ui.quiet, ui.verbose) {
        (true, _) => Level::Error,
        (false, true) => Level::Debug,
        (false, false) => Level::Info,
    };
    logs::start(log, unsaid)?;
    let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
    tracing::info!(command, version, pid, "ezio begins");
    let outcome = work();
    tracing::info!(command, pid, done = outcome.is_ok(), "ezio ends");
    outcome
}

/// Runs `work` with a flag that Ctrl-C and SIGTERM set, so that it can clean up. A second signal
/// ends the process at once.
fn interruptible<T>(work: impl FnOnce(&AtomicBool) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    work(&stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn examples_are_commands_that_can_be_typed() {
        let lines = examples::ALL.iter().flat_map(|text| text.lines());
        let examples: Vec<&str> = lines.filter_map(|line| line.strip_prefix("  ezio ")).collect();
        assert!(examples.len() > 30, "{examples:?}");
        for example in examples {
            let (typed, _) = example.split_once(" # ").unwrap_or((example, ""));
            let words = std::iter::once("ezio").chain(typed.split_whitespace());
            assert!(Cli::try_parse_from(words).is_ok(), "{typed}");
        }
        for command in Cli::command().get_subcommands() {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let own = format!("  ezio {} ", command.get_name());
            let bare = format!("  ezio {}\n", command.get_name());
            assert!(text.contains(&own) || text.contains(&bare), "no example: {own}");
            assert!(text.contains("Exit code: 0 "), "no exit codes: {own}");
        }
    }
}
