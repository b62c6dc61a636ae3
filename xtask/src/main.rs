//! The project's chores: `cargo xtask ci`, `bench`, `deb`, `lab`, `manual`, `nightly`, `mutants`, `soak`
//! and `static`.
#![forbid(unsafe_code)]

mod bench;
mod ci;
mod deb;
mod lab;
mod licences;
mod manual;
mod mutants;
mod named;
mod portable;
mod reuse;
mod root;

use anyhow::{Context as _, bail};
use std::path::Path;
use std::process::Command;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  ci                            everything that must pass before a change lands
  bench capture [GIB [ROUNDS]]  capture and verify beside partclone and the limits of this
                                machine; as root, wants 3 x GIB of disk [default: 4 5]
  bench reuse [ROUNDS [BINARY]] a machine imaged again, when a tenth of its old image differs, beside
                                a full deployment; as root [default: 3]
  deb [--install]               a package for Debian, in the target directory; as root, installs it in a
                                clean Debian, runs it there, and removes it
  licences                      that all crates have licences of the list in deny.toml
  manual [DIR]                  man pages and completions [default: target/manual]
  nightly [COUNT|FROM..TO]      the swarm in the simulator with drawn faults, a table of what
                                happened, and the seeds that failed [default: 10000]
  mutants [NAME...]             faults of the scheduler that the simulator must notice
  soak [OPTIONS]                torrents and machines that come and go for a long time, as root:
                                that nothing grows
      --minutes N               [30]
      --json FILE               append what was held, a line for each rest
      --binary FILE             an ezio built before, instead of building it
  static                        the program as one file that needs nothing of the system
";

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the root")?;
    std::env::set_current_dir(root)?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ci"] => ci::run_all(),
        ["bench", "capture"] => bench::capture(4, 5),
        ["bench", "capture", gib] => bench::capture(gib.parse()?, 5),
        ["bench", "capture", gib, rounds] => bench::capture(gib.parse()?, rounds.parse()?),
        ["bench", "reuse"] => reuse::main(3, None),
        ["bench", "reuse", rounds] => reuse::main(rounds.parse()?, None),
        ["bench", "reuse", rounds, binary] => reuse::main(rounds.parse()?, Some(Path::new(binary))),
        ["deb"] => deb::build().map(drop),
        ["deb", "--install"] => deb::build_and_install(),
        ["licences"] => licences::check(),
        ["manual"] => manual::write(Path::new("target/manual")),
        ["manual", dir] => manual::write(Path::new(dir)),
        ["nightly"] => nightly("10000"),
        ["nightly", seeds] => nightly(seeds),
        ["mutants", ref names @ ..] => mutants::main(names),
        ["soak", ref args @ ..] => lab::soak(args),
        ["static"] => portable::build().map(|binary| println!("{}", binary.display())),
        ["lab", ref args @ ..] => lab::main(args),
        _ => bail!("{USAGE}{}", lab::usage()),
    }
}

/// Runs seeds with drawn faults.
fn nightly(seeds: &str) -> anyhow::Result<()> {
    let sim = ["run", "-q", "--profile", "checked", "-p", "sim", "--", "--faults", seeds];
    run(Command::new("cargo").args(sim))
}

/// Runs a command that is not worth telling, and fails if it does.
fn run_quietly(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command and fails if it does.
fn run(command: &mut Command) -> anyhow::Result<()> {
    eprintln!("+ {}", shown(command));
    let status = command.status().with_context(|| format!("run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
