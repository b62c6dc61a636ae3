//! `cargo xtask deb`: the program, its man pages and completions as a package for Debian.
//!
//! The files are laid out here and packed by `dpkg-deb`. The program is static, so one package fits every
//! Debian.

use crate::{licences, manual, portable, run_quietly};
use anyhow::{Context as _, ensure};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where each file of the completions belongs.
const COMPLETIONS: [(&str, &str); 3] = [
    ("ezio.bash", "usr/share/bash-completion/completions/ezio"),
    ("_ezio", "usr/share/zsh/vendor-completions/_ezio"),
    ("ezio.fish", "usr/share/fish/vendor_completions.d/ezio.fish"),
];

/// Builds the package and looks at it. Returns where it is.
///
/// # Errors
/// What could not be built, and what is not as it should be.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let binary = portable::build()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let target = std::path::absolute(Path::new(&target))?;
    let scratch = tempfile::Builder::new().prefix("ezio-deb-").tempdir()?;
    let root = scratch.path().join("root");
    lay_out(&root, &binary)?;
    let (version, arch) = (env!("CARGO_PKG_VERSION"), architecture()?);
    let installed: u64 = files(&root)?.iter().map(|(_, len)| len.div_ceil(1024)).sum();
    let control = format!(
        "Package: ezio\nVersion: {version}\nArchitecture: {arch}\nMaintainer: The EZIO developers\n\
         Section: admin\nPriority: optional\nInstalled-Size: {installed}\n\
         Recommends: partclone, util-linux\n\
         Description: put one disk image on many machines\n \
         EZIO takes the used blocks of a disk or partition, serves them, and every machine gets\n \
         them from all others and writes verified pieces straight to its own disk.\n"
    );
    put(&root.join("DEBIAN/control"), control.as_bytes(), 0o644)?;
    let package = target.join(format!("ezio_{version}_{arch}.deb"));
    let words = ["--root-owner-group", "-Zxz", "--build"];
    run_quietly(
        Command::new("dpkg-deb")
            .args(words)
            .args([&root, &package])
            .stdout(std::process::Stdio::null()),
    )?;
    check(&package, &scratch.path().join("unpacked"))?;
    println!("{}: {} bytes", package.display(), fs::metadata(&package)?.len());
    Ok(package)
}

fn lay_out(root: &Path, binary: &Path) -> anyhow::Result<()> {
    put(&root.join("usr/bin/ezio"), &fs::read(binary)?, 0o755)?;
    run_quietly(Command::new("strip").arg(root.join("usr/bin/ezio")))?;
    let pages = root.join("usr/share/man");
    let made = root.with_file_name("manual");
    manual::write(&made)?;
    for page in fs::read_dir(made.join("man1"))? {
        let page = page?.path();
        let name = page.file_name().context("a page has a name")?;
        put(&pages.join("man1").join(name), &fs::read(&page)?, 0o644)?;
    }
    // Without the time, the same input makes the same package.
    let made_pages = files(&pages)?.into_iter().map(|(path, _)| path);
    run_quietly(Command::new("gzip").args(["-9", "--no-name"]).args(made_pages))?;
    for (name, place) in COMPLETIONS {
        put(&root.join(place), &fs::read(made.join("completions").join(name))?, 0o644)?;
    }
    let doc = root.join("usr/share/doc/ezio");
    for name in ["README.md", "COMPATIBILITY.md", "SAFETY.md"] {
        put(&doc.join(name), &fs::read(name)?, 0o644)?;
    }
    put(&doc.join("copyright"), licences::describe(None)?.as_bytes(), 0o644)
}

/// Unpacks it elsewhere, as an installation does, and runs what is in it.
fn check(package: &Path, root: &Path) -> anyhow::Result<()> {
    run_quietly(Command::new("dpkg-deb").arg("--extract").args([package, root]))?;
    let output = Command::new(root.join("usr/bin/ezio")).arg("--version").output()?;
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success() && version.contains(env!("CARGO_PKG_VERSION")),
        "the packaged program says `{version}`"
    );
    for command in ezio::cli::command().get_subcommands() {
        let page = root.join(format!("usr/share/man/man1/ezio-{}.1.gz", command.get_name()));
        ensure!(page.is_file(), "{} is missing", page.display());
    }
    Ok(())
}

fn architecture() -> anyhow::Result<String> {
    let output = Command::new("dpkg").arg("--print-architecture").output().context("run dpkg")?;
    ensure!(output.status.success(), "dpkg --print-architecture failed");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Writes a file and the directories above it.
fn put(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let parent = path.parent().context("a file is in a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    let mut file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    file.write_all(bytes).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// All files below a directory, and their lengths.
fn files(dir: &Path) -> anyhow::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push((entry.path(), entry.metadata()?.len()));
        }
    }
    Ok(found)
}
