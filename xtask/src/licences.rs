//! `cargo xtask licences`: that what is built in may be, and the `copyright` file that says what it is.
//!
//! The list of licences is the one of `deny.toml`, which cargo-deny reads, too; here it is compared with
//! what each crate says of itself. cargo-deny also looks into the files, and knows advisories.

mod copyright;
mod expression;

pub(crate) use copyright::describe;

use crate::portable;
use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compares every crate of the workspace, also those of tests and of this program, with the list.
///
/// # Errors
/// The crates with licences that are not on the list, or from elsewhere than crates.io.
pub(crate) fn check() -> anyhow::Result<()> {
    let (metadata, allowed) = (Metadata::read()?, allowed()?);
    let mut wrong = Vec::new();
    for one in &metadata.packages {
        if let Err(error) = one.chosen(&allowed) {
            wrong.push(format!("{error:#}"));
        }
        if one.source.as_ref().is_some_and(|source| source != CRATES_IO) {
            wrong.push(format!(
                "{} comes from {}",
                one.shown(),
                one.source.as_deref().unwrap_or("?")
            ));
        }
    }
    ensure!(wrong.is_empty(), "not as deny.toml wants it:\n{}", wrong.join("\n"));
    println!("{} crates with licences of {}", metadata.packages.len(), allowed.join(", "));
    Ok(())
}

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// `licenses.allow` of `deny.toml`, one licence in a line.
fn allowed() -> anyhow::Result<Vec<String>> {
    allowed_of(&std::fs::read_to_string("deny.toml").context("read deny.toml")?)
}

fn allowed_of(text: &str) -> anyhow::Result<Vec<String>> {
    let (_, section) = text.split_once("[licenses]").context("deny.toml has no [licenses]")?;
    let (_, list) = section.split_once("\nallow = [\n").context("its [licenses] allow nothing")?;
    let (list, _) = list.split_once("\n]").context("the list in deny.toml has no end")?;
    let name = |line: &str| {
        let name = line.trim().strip_prefix('"').and_then(|line| line.strip_suffix("\","));
        name.map(str::to_owned).with_context(|| format!("deny.toml: `{line}` is not one licence"))
    };
    list.lines().map(name).collect()
}

/// What `cargo metadata` says, as far as it matters.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    authors: Vec<String>,
    manifest_path: PathBuf,
    source: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// Of what is linked in there is none; others are `build` and `dev`.
    kind: Option<String>,
}

impl Metadata {
    fn read() -> anyhow::Result<Metadata> {
        let host = portable::host()?;
        let words = ["metadata", "--format-version=1", "--locked", "--filter-platform", &host];
        let output = Command::new("cargo").args(words).output().context("run cargo metadata")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cargo metadata failed: {said}");
        serde_json::from_slice(&output.stdout).context("read what cargo metadata says")
    }

    /// The crates whose code is in the program, by their names: neither what only built them nor what only
    /// tested them.
    fn linked(&self) -> anyhow::Result<Vec<&Package>> {
        let packages: BTreeMap<&str, &Package> =
            self.packages.iter().map(|one| (&one.id[..], one)).collect();
        let nodes: BTreeMap<&str, &Node> =
            self.resolve.nodes.iter().map(|node| (&node.id[..], node)).collect();
        let root = self.packages.iter().find(|one| one.name == "ezio");
        let mut next = vec![&root.context("there is no crate ezio")?.id[..]];
        let mut found = BTreeSet::new();
        while let Some(id) = next.pop() {
            let package = packages.get(id).with_context(|| format!("{id} is not described"))?;
            let runs_in_compiler =
                package.targets.iter().any(|t| t.kind.contains(&"proc-macro".into()));
            if runs_in_compiler || !found.insert(id) {
                continue;
            }
            let node = nodes.get(id).with_context(|| format!("{id} is not resolved"))?;
            let linked = node.deps.iter().filter(|d| d.dep_kinds.iter().any(|k| k.kind.is_none()));
            next.extend(linked.map(|dependency| &dependency.pkg[..]));
        }
        let mut linked: Vec<&Package> = found.into_iter().map(|id| packages[id]).collect();
        linked.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        Ok(linked)
    }
}

impl Package {
    /// The licences under which it is used: those of the first alternative that is allowed, MIT if there
    /// is the choice, which asks for least.
    fn chosen(&self, allowed: &[String]) -> anyhow::Result<Vec<String>> {
        let shown = self.shown();
        let Some(text) = &self.license else { bail!("{shown} names no licence") };
        let alternatives = expression::alternatives(text)
            .with_context(|| format!("{shown} has a licence that nobody can read: {text}"))?;
        let may = |set: &Vec<String>| set.iter().all(|name| allowed.contains(name));
        let fit = alternatives.into_iter().filter(may);
        let best = fit.min_by_key(|set| !set.iter().any(|name| name == "MIT"));
        best.with_context(|| format!("{shown} has the licence {text}"))
    }

    fn shown(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    fn dir(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(Path::new("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(license: Option<&str>) -> Option<String> {
        let package = Package {
            id: String::new(),
            name: "one".to_owned(),
            version: "1.0.0".to_owned(),
            license: license.map(str::to_owned),
            authors: Vec::new(),
            manifest_path: PathBuf::new(),
            source: None,
            targets: Vec::new(),
        };
        let allowed = ["Apache-2.0", "BSD-3-Clause", "MIT"].map(str::to_owned);
        package.chosen(&allowed).ok().map(|names| names.join(" and "))
    }

    #[test]
    fn what_is_on_the_list_may_be_used_and_nothing_else() {
        assert_eq!(chosen(Some("MIT")).as_deref(), Some("MIT"));
        assert_eq!(chosen(Some("Apache-2.0 OR MIT")).as_deref(), Some("MIT"));
        assert_eq!(chosen(Some("LGPL-2.1-or-later OR Apache-2.0")).as_deref(), Some("Apache-2.0"));
        assert_eq!(chosen(Some("MIT AND BSD-3-Clause")).as_deref(), Some("MIT and BSD-3-Clause"));
        for wrong in
            ["MIT AND CDDL-1.0", "GPL-2.0-only", "Apache-2.0 WITH LLVM-exception", "MIT OR"]
        {
            assert_eq!(chosen(Some(wrong)), None, "{wrong}");
        }
        assert_eq!(chosen(None), None);
    }

    #[test]
    fn the_list_of_cargo_deny_is_read() {
        // Tests run in the directory of this crate.
        let list = allowed_of(include_str!("../../deny.toml")).unwrap();
        assert!(list.contains(&"MIT".to_owned()) && list.contains(&"GPL-2.0-or-later".to_owned()));
        assert!(allowed_of("[licenses]\nallow = [\"MIT\"]\n").is_err(), "one in a line");
        assert!(allowed_of("[bans]\nallow = [\n    \"x\",\n]\n").is_err());
    }
}
