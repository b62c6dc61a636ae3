//! `cargo xtask deb`: the program, its man pages, completions and service as a package for Debian.
//!
//! The files are laid out here and packed by `dpkg-deb`. The program is static, so one package fits every
//! Debian. The same sources make the same package, byte for byte.

mod install;
mod units;

use crate::{licences, manual, portable, run_quietly};
use anyhow::{Context as _, ensure};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The package of the C++ EZIO has the same name and has come to 2.0: the epoch says that numbers have
/// begun anew, so this one replaces it, and satisfies who asks for `ezio (>= 2.0.27)`.
const EPOCH: u32 = 1;

/// Where each file of the completions belongs.
const COMPLETIONS: [(&str, &str); 3] = [
    ("ezio.bash", "usr/share/bash-completion/completions/ezio"),
    ("_ezio", "usr/share/zsh/vendor-completions/_ezio"),
    ("ezio.fish", "usr/share/fish/vendor_completions.d/ezio.fish"),
];

/// By these names Clonezilla calls the helper programs of the C++ EZIO: COMPATIBILITY.md.
const LINKS: [&str; 8] = [
    "ezio_add_torrent.py",
    "ezio_add_torrent_seed.py",
    "ezio_cli.py",
    "ezio_pause_torrent.py",
    "ezio_resume_torrent.py",
    "ezio_shutdown.py",
    "ezio_ui.py",
    "partclone_create_torrent.py",
];

/// What is copied as it is.
const FILES: [(&str, &str); 5] = [
    ("packaging/ezio-serve.service", units::SERVICE),
    ("packaging/serve.conf", "etc/ezio/serve.conf"),
    ("packaging/README.Debian", "usr/share/doc/ezio/README.Debian"),
    ("COMPATIBILITY.md", "usr/share/doc/ezio/COMPATIBILITY.md"),
    ("SAFETY.md", "usr/share/doc/ezio/SAFETY.md"),
];

/// Builds the package and looks at it. Returns where it is.
///
/// # Errors
/// What could not be built, and what is not as it should be.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let binary = portable::build()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let (version, arch) = (env!("CARGO_PKG_VERSION"), architecture()?);
    let package = std::path::absolute(target)?.join(format!("ezio_{version}_{arch}.deb"));
    let scratch = tempfile::Builder::new().prefix("ezio-deb-").tempdir()?;
    pack(&binary, &scratch.path().join("root"), &package)?;
    let again = scratch.path().join("again.deb");
    pack(&binary, &scratch.path().join("again"), &again)?;
    ensure!(fs::read(&package)? == fs::read(&again)?, "packed twice, it was not the same twice");
    check(&package, &scratch.path().join("unpacked"))?;
    println!("{}: {} bytes", package.display(), fs::metadata(&package)?.len());
    Ok(package)
}

/// Builds the package and installs it in a clean Debian.
///
/// # Errors
/// What could not be built, and what did not work there.
pub(crate) fn build_and_install() -> anyhow::Result<()> {
    install::check(&build()?)
}

fn pack(binary: &Path, root: &Path, package: &Path) -> anyhow::Result<()> {
    lay_out(root, binary)?;
    let installed: u64 = files(root)?.iter().map(|(_, len)| len.div_ceil(1024)).sum();
    put(&root.join("DEBIAN/control"), control(installed)?.as_bytes(), 0o644)?;
    put(&root.join("DEBIAN/conffiles"), b"/etc/ezio/serve.conf\n", 0o644)?;
    for (name, script) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        put(&root.join("DEBIAN").join(name), script.as_bytes(), 0o755)?;
    }
    run_quietly(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .args([root, package])
            .env("SOURCE_DATE_EPOCH", date()?)
            .stdout(Stdio::null()),
    )
}

/// What dpkg and apt know of it.
fn control(installed: u64) -> anyhow::Result<String> {
    let (version, arch) = (env!("CARGO_PKG_VERSION"), architecture()?);
    // A licence of the library wants its very sources to be found again.
    let built = libc()?.map_or(String::new(), |libc| format!("Built-Using: {libc}\n"));
    Ok(format!(
        "Package: ezio\nVersion: {EPOCH}:{version}\nArchitecture: {arch}\n\
         Maintainer: The EZIO developers\n\
         Section: admin\nPriority: optional\nInstalled-Size: {installed}\n\
         Recommends: partclone, util-linux\n{built}\
         Description: put one disk image on many machines\n \
         EZIO takes the used blocks of a disk or partition, serves them, and every machine gets\n \
         them from all others and writes verified pieces straight to its own disk.\n"
    ))
}

/// systemd reads units anew; nothing is started that nobody has asked for.
const POSTINST: &str = "\
#!/bin/sh
set -e
if [ \"$1\" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
";

/// Nothing runs, or is to run at the next start, whose program is gone.
const PRERM: &str = "\
#!/bin/sh
set -e
if [ \"$1\" = remove ] && command -v systemctl >/dev/null; then
    [ ! -d /run/systemd/system ] || systemctl stop ezio-serve.service || true
    systemctl --no-reload disable ezio-serve.service >/dev/null 2>&1 || true
fi
";

/// The token is nobody's any more.
const POSTRM: &str = "\
#!/bin/sh
set -e
if [ \"$1\" = purge ]; then
    rm -rf /var/lib/ezio /var/lib/private/ezio
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
";

fn lay_out(root: &Path, binary: &Path) -> anyhow::Result<()> {
    let bin = root.join("usr/bin");
    put(&bin.join("ezio"), &fs::read(binary)?, 0o755)?;
    run_quietly(Command::new("strip").arg(bin.join("ezio")))?;
    for name in LINKS {
        symlink("ezio", bin.join(name)).with_context(|| format!("make the link {name}"))?;
    }
    let made = root.with_file_name("manual");
    manual::write(&made)?;
    let pages = root.join("usr/share/man/man1");
    for page in fs::read_dir(made.join("man1"))? {
        let page = page?.path();
        let name = page.file_name().context("a page has a name")?;
        put(&pages.join(name), &fs::read(&page)?, 0o644)?;
    }
    compress(&pages)?;
    for (name, place) in COMPLETIONS {
        put(&root.join(place), &fs::read(made.join("completions").join(name))?, 0o644)?;
    }
    for (name, place) in FILES {
        put(&root.join(place), &fs::read(name).with_context(|| format!("read {name}"))?, 0o644)?;
    }
    let doc = root.join("usr/share/doc/ezio");
    let changes = doc.join("changelog");
    put(&changes, &fs::read("CHANGELOG.md")?, 0o644)?;
    run_quietly(Command::new("gzip").args(["-9", "--no-name"]).arg(changes))?;
    put(&doc.join("copyright"), licences::describe(libc()?.as_deref())?.as_bytes(), 0o644)?;
    put(&root.join("DEBIAN/md5sums"), sums(root)?.as_bytes(), 0o644)
}

/// Without the time, the same input makes the same output.
fn compress(dir: &Path) -> anyhow::Result<()> {
    let pages = files(dir)?.into_iter().map(|(path, _)| path);
    run_quietly(Command::new("gzip").args(["-9", "--no-name"]).args(pages))
}

/// What `dpkg --verify` compares with.
fn sums(root: &Path) -> anyhow::Result<String> {
    let mut names: Vec<PathBuf> = Vec::new();
    for (path, _) in files(root)? {
        let name = path.strip_prefix(root)?.to_owned();
        // Those the administrator changes.
        if !name.starts_with("etc") && !path.is_symlink() {
            names.push(name);
        }
    }
    names.sort();
    lab::tool::run(Command::new("md5sum").args(names).current_dir(root))
}

/// Unpacks it elsewhere, as an installation does, and looks at what is in it.
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
    // Not all of them: `ezio_shutdown.py` asks nobody twice.
    for name in ["ezio_add_torrent.py", "ezio_cli.py", "partclone_create_torrent.py"] {
        let said = lab::tool::run(Command::new(root.join("usr/bin").join(name)).arg("--help"))?;
        ensure!(said.contains(&format!("Usage: {name}")), "{name} --help says {said}");
    }
    units::check(root)
}

/// The source package of the C library that is linked in, as `glibc (= 2.36-9)`; `None` where dpkg does
/// not know.
fn libc() -> anyhow::Result<Option<String>> {
    let words = ["--show", "--showformat", "${source:Package} (= ${source:Version})", "libc6-dev"];
    let output = Command::new("dpkg-query").args(words).output().context("run dpkg-query")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(Some(text).filter(|text| output.status.success() && text.contains("(=")))
}

/// No file in the package is younger: the time of the last change to the sources, in seconds since 1970.
fn date() -> anyhow::Result<String> {
    if let Ok(date) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(date);
    }
    let words = ["log", "-1", "--format=%ct"];
    let text = lab::tool::run(Command::new("git").args(words)).context("ask git for the date")?;
    Ok(text.trim().to_owned())
}

fn architecture() -> anyhow::Result<String> {
    let text = lab::tool::run(Command::new("dpkg").arg("--print-architecture"))?;
    Ok(text.trim().to_owned())
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
