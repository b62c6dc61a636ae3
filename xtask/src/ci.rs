//! `cargo xtask ci`: tidiness, licences, format, lints, documentation, tests, the package.
//!
//! A test that lacks a right, a program or a kernel feature prints `skipped: TEST: WHY`. When the
//! environment says `CI=true`, a skip that `lab/allowed-skips.txt` does not list is a failure.

use crate::run;
use anyhow::{Context as _, bail, ensure};
use std::io::{BufRead as _, BufReader, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs all of it, the quick things first.
pub(crate) fn run_all() -> anyhow::Result<()> {
    tidy(Path::new("."))?;
    crate::licences::check()?;
    run(Command::new("cargo").args(["fmt", "--all", "--check"]))?;
    run(Command::new("cargo").args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    run(Command::new("cargo")
        .args(["doc", "--workspace", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings"))?;
    test()?;
    smoke()
}

/// The commands that measure, at a size that only shows that they work.
fn smoke() -> anyhow::Result<()> {
    let sim = ["run", "-q", "-p", "sim", "--release", "--"];
    let size = ["--nodes", "8", "--pieces", "64", "--check", "100"];
    run(Command::new("cargo").args(sim).args(size))?;
    // Twenty seconds or so; `cargo xtask nightly` has many more.
    crate::nightly("500")?;
    crate::lab::smoke()?;
    crate::deb::build_and_install()?;
    crate::lab::soak_smoke()
}

/// Runs the README's test command and looks at what was skipped.
fn test() -> anyhow::Result<()> {
    let threads = 2 * std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    eprintln!("+ RUST_TEST_THREADS={threads} cargo test --workspace");
    let mut child = Command::new("cargo")
        .args(["test", "--workspace", "--no-fail-fast"])
        // Most of them wait: for machines that are silent, for disks that are slow.
        .env("RUST_TEST_THREADS", threads.to_string())
        // Tests print their skips there, past the capture of the test harness.
        .stderr(Stdio::piped())
        .spawn()
        .context("run cargo test")?;
    let mut skips = Vec::new();
    let stderr = child.stderr.take().context("cargo test has a standard error")?;
    for line in BufReader::new(stderr).split(b'\n') {
        let line = line.context("read from cargo test")?;
        let line = String::from_utf8_lossy(&line);
        writeln!(std::io::stderr(), "{line}")?;
        // The harness may have begun a line of its own before.
        if let Some(at) = line.find("skipped: ") {
            skips.push(line[at..].trim_end().to_owned());
        }
    }
    let status = child.wait().context("wait for cargo test")?;
    ensure!(status.success(), "cargo test failed ({status})");
    check_skips(&skips)
}

fn check_skips(skips: &[String]) -> anyhow::Result<()> {
    let list = "lab/allowed-skips.txt";
    let allowed = std::fs::read_to_string(list).with_context(|| format!("read {list}"))?;
    let allowed: Vec<&str> =
        allowed.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    let unknown: Vec<&str> =
        skips.iter().map(String::as_str).filter(|skip| !allowed.contains(skip)).collect();
    eprintln!("{} tests skipped, {} of them not listed in {list}", skips.len(), unknown.len());
    if !unknown.is_empty() && std::env::var_os("CI").is_some_and(|ci| ci == "true") {
        bail!("in CI every skip is reviewed; list it or mend it:\n{}", unknown.join("\n"));
    }
    Ok(())
}

/// Checks what the compiler does not: every source file says at its top what it is for, and
/// nothing is left for later without saying when, and every test that SAFETY.md names exists.
fn tidy(root: &Path) -> anyhow::Result<()> {
    let mut faults = Vec::new();
    let mut all = Vec::new();
    for path in sources(root)? {
        let text = std::fs::read_to_string(&path)?;
        // A file of tests belongs to the file it tests.
        if !text.starts_with("//!") && !path.ends_with("tests.rs") {
            faults.push(format!("{}: does not begin with `//!`", path.display()));
        }
        for (number, line) in (1..).zip(text.lines()) {
            let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("dbg", "!(")];
            if marks.iter().any(|mark| line.contains(mark)) {
                faults.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
        all.push((path, text));
    }
    let promises = "SAFETY.md";
    let text = std::fs::read_to_string(root.join(promises))?;
    let missing = crate::named::missing(&text, &all).into_iter();
    faults.extend(missing.map(|name| format!("{promises}: there is no `{name}`")));
    ensure!(faults.is_empty(), "untidy:\n{}", faults.join("\n"));
    Ok(())
}

/// All Rust files that git tracks.
fn sources(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z", "--", "*.rs"])
        .output()
        .context("run git ls-files")?;
    ensure!(output.status.success(), "git ls-files failed ({})", output.status);
    let names = output.stdout.split(|&b| b == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| root.join(String::from_utf8_lossy(name).as_ref())).collect())
}
