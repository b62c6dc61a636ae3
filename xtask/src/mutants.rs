//! `cargo xtask mutants`: would the simulator notice?
//!
//! `crates/sim/mutants` has faults of the scheduler as patches. Each is applied to a copy of the two
//! crates in a temporary directory; there the simulator runs seeds with drawn faults, and then the
//! swarm's own tests, until one of them fails. A mutant that nothing notices, or a patch that no
//! longer applies, is a failure.

use anyhow::{Context as _, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATCHES: &str = "crates/sim/mutants";

/// Seeds each mutant has to survive. The faults of the patches show in the first hundred or two.
const SEEDS: &str = "600";

/// A mutant that takes so long, which is many times what the code itself does, hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs all mutants, or those whose names contain one of `names`.
pub(crate) fn main(names: &[&str]) -> anyhow::Result<()> {
    let wanted = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part));
    let patches: Vec<PathBuf> = patches()?.into_iter().filter(|p| wanted(&name_of(p))).collect();
    ensure!(!patches.is_empty(), "no patch of {PATCHES} is called like that");
    let place = tempfile::tempdir().context("make a directory for the copies")?;
    let copy = place.path();
    write_workspace(copy)?;
    restore(copy)?;
    if let Some(why) = check(copy)? {
        bail!("the code as it is fails already: {why}");
    }
    let mut survivors = Vec::new();
    for patch in &patches {
        restore(copy)?;
        let outcome = match apply(copy, patch)? {
            false => None,
            true => Some(check(copy)?),
        };
        let name = name_of(patch);
        match outcome {
            Some(Some(ref why)) => println!("caught    {name}: {why}"),
            Some(None) => println!("SURVIVED  {name}"),
            None => println!("NO PATCH  {name}: it does not apply any more; write it again"),
        }
        if !matches!(outcome, Some(Some(_))) {
            survivors.push(name);
        }
    }
    println!("{} of {} mutants caught", patches.len() - survivors.len(), patches.len());
    ensure!(survivors.is_empty(), "not caught: {}", survivors.join(", "));
    Ok(())
}

fn patches() -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(PATCHES).with_context(|| format!("read {PATCHES}"))?;
    let mut patches = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            patches.push(path);
        }
    }
    patches.sort();
    Ok(patches)
}

fn name_of(patch: &Path) -> String {
    patch.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The root's manifest without the members that are not copied.
fn write_workspace(copy: &Path) -> anyhow::Result<()> {
    let manifest = std::fs::read_to_string("Cargo.toml").context("read Cargo.toml")?;
    let lines = manifest.lines().filter_map(|line| match line {
        _ if line.starts_with("members = ") => Some("members = [\"crates/swarm\", \"crates/sim\"]"),
        _ if line.starts_with("default-members") || line.starts_with("exclude") => None,
        line => Some(line),
    });
    let text = lines.collect::<Vec<&str>>().join("\n");
    std::fs::write(copy.join("Cargo.toml"), text).context("write the copy's Cargo.toml")?;
    std::fs::copy("Cargo.lock", copy.join("Cargo.lock")).context("copy Cargo.lock")?;
    Ok(())
}

/// Copies the sources of the two crates as they are now.
fn restore(copy: &Path) -> anyhow::Result<()> {
    let crates = copy.join("crates");
    if crates.exists() {
        std::fs::remove_dir_all(&crates).context("remove the last mutant")?;
    }
    std::fs::create_dir(&crates).context("make a directory for the crates")?;
    for name in ["swarm", "sim"] {
        let from = Path::new("crates").join(name);
        crate::run_quietly(Command::new("cp").arg("-r").arg(from).arg(&crates))?;
    }
    Ok(())
}

/// Returns whether the patch could be applied.
fn apply(copy: &Path, patch: &Path) -> anyhow::Result<bool> {
    let patch = patch.canonicalize().context("find the patch")?;
    let mut git = Command::new("git");
    // It is no repository, and must not find one above.
    git.args(["apply", "--whitespace=nowarn"]).arg(patch).current_dir(copy);
    git.env("GIT_CEILING_DIRECTORIES", copy).stderr(Stdio::null());
    Ok(git.status().context("run git apply")?.success())
}

/// What notices that the copy is wrong; `None` if nothing does.
fn check(copy: &Path) -> anyhow::Result<Option<String>> {
    let build = ["build", "--offline", "-q", "--profile", "checked", "-p", "sim"];
    if let Some(why) = attempt(copy, &build)? {
        bail!("a mutant does not even compile: {why}");
    }
    let sim = ["run", "--offline", "-q", "--profile", "checked", "-p", "sim", "--"];
    if let Some(why) = attempt(copy, &[&sim[..], &["--faults", SEEDS, "--first"]].concat())? {
        return Ok(Some(why));
    }
    attempt(copy, &["test", "--offline", "-q", "--profile", "checked", "-p", "swarm", "--lib"])
}

/// Runs cargo in the copy. Returns what is said of a failure.
fn attempt(copy: &Path, args: &[&str]) -> anyhow::Result<Option<String>> {
    let output = copy.join("output");
    let file = std::fs::File::create(&output).context("create a file for the output")?;
    let mut child = Command::new("cargo")
        .args(args)
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", copy.join("target"))
        // A build for each mutant: it is worth less than a minute of optimising.
        .env("CARGO_PROFILE_CHECKED_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_CHECKED_CODEGEN_UNITS", "16")
        .stdin(Stdio::null())
        .stdout(file.try_clone().context("share the file for the output")?)
        .stderr(file)
        .spawn()
        .context("run cargo")?;
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().context("wait for cargo")? {
            break status;
        }
        if begin.elapsed() > PATIENCE {
            child.kill().context("end cargo")?;
            child.wait().context("wait for cargo")?;
            return Ok(Some(format!("it hangs in cargo {}", args.join(" "))));
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    if status.success() {
        return Ok(None);
    }
    let said = std::fs::read(&output).context("read the output")?;
    let said = String::from_utf8_lossy(&said);
    let telling = |line: &&str| {
        line.starts_with("seed ") || line.starts_with("error") || line.contains("... FAILED")
    };
    let first = said.lines().find(telling).or(said.lines().find(|line| line.contains("panicked")));
    Ok(Some(first.unwrap_or("it failed and did not say why").trim().to_owned()))
}
