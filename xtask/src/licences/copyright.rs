//! Debian's machine-readable `copyright` (debian.org/doc/packaging-manuals/copyright-format/1.0): whose
//! work is in the program, and under which licence it is used.
//!
//! Names and texts are taken from the crates' own files at the time of packing, as those licences demand
//! of everybody who passes a binary on.

use super::{Metadata, Package, allowed};
use anyhow::{Context as _, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

/// The file for a package whose program is linked statically with `libc`, a source package and its
/// version, if it is known.
///
/// # Errors
/// If a crate's licence is not allowed, or its text is nowhere.
pub(crate) fn describe(libc: Option<&str>) -> anyhow::Result<String> {
    let (metadata, allowed) = (Metadata::read()?, allowed()?);
    let mut text = HEAD.to_owned();
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let (mut apache, mut used) = (Vec::new(), BTreeSet::new());
    let mut crates = String::new();
    for one in metadata.linked()?.into_iter().filter(|one| one.source.is_some()) {
        let chosen = one.chosen(&allowed)?;
        if chosen.iter().any(|name| name == "Apache-2.0") {
            apache.push(one.name.clone());
        }
        let notices = notices(one)?;
        for name in &chosen {
            // Not every crate brings the text along.
            if let Some(found) = licence_text(name, one)? {
                texts.entry(name.clone()).or_insert(found);
            }
            used.insert(name.clone());
        }
        write!(
            crates,
            "\nFiles: crates/{}-{}/*\nCopyright: {}\nLicense: {}\n",
            one.name,
            one.version,
            notices.join("\n           "),
            chosen.join(" and ")
        )?;
    }
    let unknown = used.iter().find(|name| !texts.contains_key(*name));
    ensure!(unknown.is_none(), "the text of {unknown:?} is nowhere");
    text.push_str(&program(&apache));
    write!(text, "\n{}", LIBRARIES.replace("{libc}", libc.unwrap_or("its version is not known")))?;
    text.push_str(&crates);
    for (name, body) in texts {
        write!(text, "\nLicense: {name}\n{}", indented(&body))?;
    }
    write!(text, "\n{COMMON}")?;
    Ok(text)
}

const HEAD: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: EZIO
Comment: What is called crates/* are the libraries in Rust that are linked into
 usr/bin/ezio; their sources are at https://crates.io, their versions those of
 Cargo.lock.

Files: *
Copyright: The EZIO developers
License: GPL-2+
";

/// Why the program's licence is a later one than its sources'.
fn program(apache: &[String]) -> String {
    let comment = format!(
        "The sources of EZIO are licensed under version 2 of the GPL or any later one. Used under the \
         Apache License 2.0, which is compatible with version 3 and not with version 2, are: {}. So the \
         program that contains them is distributed under version 3 or later.",
        apache.join(", ")
    );
    let comment = if apache.is_empty() { String::new() } else { format!("Comment: {comment}\n") };
    format!("\nFiles: usr/bin/ezio\nCopyright: The EZIO developers\nLicense: GPL-3+\n{comment}")
}

/// What every Rust program has in it, and every static one.
const LIBRARIES: &str = "\
Files: glibc/*
Copyright: Free Software Foundation, Inc., and others
License: LGPL-2.1+
Comment: The GNU C library, linked statically: {libc}. Whoever wants another one
 builds EZIO with it, from its sources.

Files: gcc/*
Copyright: Free Software Foundation, Inc.
License: GPL-3+ with GCC-Runtime-Library-exception
Comment: Unwinding. The exception allows any licence for what it is linked with.

Files: rust/*
Copyright: The Rust Project Developers
License: MIT
";

const COMMON: &str = "\
License: GPL-2+
 On Debian systems its text is in /usr/share/common-licenses/GPL-2.

License: GPL-3+
 On Debian systems its text is in /usr/share/common-licenses/GPL-3.

License: GPL-3+ with GCC-Runtime-Library-exception
 On Debian systems the text of the GPL is in /usr/share/common-licenses/GPL-3, and
 that of the exception in /usr/share/doc/gcc-12-base/copyright or that of a later
 version.

License: LGPL-2.1+
 On Debian systems its text is in /usr/share/common-licenses/LGPL-2.1.
";

/// The lines of a crate's files that say whose it is; if there are none, its authors.
fn notices(one: &Package) -> anyhow::Result<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    for (_, text) in licence_files(one)? {
        for line in text.lines().map(str::trim) {
            let rest = line.strip_prefix("Copyright ").unwrap_or_default();
            // Not the form to be filled in at the end of the Apache License, nor a sentence of it.
            let is_notice =
                rest.starts_with("(c)") || rest.starts_with(|c: char| c.is_ascii_digit());
            if is_notice && !found.iter().any(|known| known == rest) {
                found.push(rest.to_owned());
            }
        }
    }
    if found.is_empty() {
        found.clone_from(&one.authors);
    }
    if found.is_empty() {
        found.push(format!("The authors of {}", one.name));
    }
    Ok(found)
}

/// The text of the licence `name` if `one` has it, or where it is on every Debian.
fn licence_text(name: &str, one: &Package) -> anyhow::Result<Option<String>> {
    let begin = match name {
        "Apache-2.0" => {
            let place = "On Debian systems its text is in /usr/share/common-licenses/Apache-2.0.";
            return Ok(Some(place.to_owned()));
        }
        "MIT" => "Permission is hereby granted, free of charge,",
        "BSD-3-Clause" => "Redistribution and use in source and binary forms,",
        _ => return Ok(None),
    };
    let files = licence_files(one)?;
    let text = files.iter().find_map(|(_, text)| text.find(begin).map(|at| &text[at..]));
    // A file with more than one licence in it is left to other crates.
    Ok(text.filter(|text| text.len() < 2048).map(|text| text.trim_end().to_owned()))
}

/// The files of a crate that are about its licence, by name.
fn licence_files(one: &Package) -> anyhow::Result<Vec<(String, String)>> {
    let dir = one.dir();
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_uppercase();
        let known = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];
        if known.iter().any(|known| name.starts_with(known)) && entry.file_type()?.is_file() {
            let bytes = fs::read(entry.path()).with_context(|| format!("read {name}"))?;
            found.push((name, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    // The order of a directory is nobody's promise.
    found.sort();
    Ok(found)
}

/// As a field's further lines are written: a space before each, a dot where there is nothing.
fn indented(text: &str) -> String {
    let line = |line: &str| match line.trim_end() {
        "" => " .\n".to_owned(),
        line => format!(" {line}\n"),
    };
    text.lines().map(line).collect()
}
