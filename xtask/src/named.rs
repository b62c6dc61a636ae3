//! What SAFETY.md names is there: a table that says which test stands against a loss is worth nothing
//! when the test was renamed. Looks at names in backticks: files and functions of tests.

use std::path::{Path, PathBuf};

/// What `text` names and `sources`, files with what is in them, do not have.
pub(crate) fn missing(text: &str, sources: &[(PathBuf, String)]) -> Vec<String> {
    let mut missing: Vec<String> = Vec::new();
    // In a table's row a name stands between the first and the second, the third and the fourth.
    for name in text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)) {
        let there = if is_file(name) {
            alternatives(name).iter().all(|path| sources.iter().any(|(file, _)| is_at(file, path)))
        } else if is_test(name) {
            let head = format!("fn {name}(");
            sources.iter().any(|(_, source)| source.contains(&head))
        } else {
            true
        };
        if !there {
            missing.push(name.to_owned());
        }
    }
    missing
}

fn is_file(name: &str) -> bool {
    name.ends_with(".rs") && !name.contains(' ')
}

/// Three words and more: types, options and commands have fewer, or other letters.
fn is_test(name: &str) -> bool {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.chars().all(letters) && name.matches('_').count() >= 2
}

/// `a/{b,c}.rs`: `a/b.rs` and `a/c.rs`.
fn alternatives(name: &str) -> Vec<String> {
    let Some((head, rest)) = name.split_once('{') else { return vec![name.to_owned()] };
    let Some((middle, tail)) = rest.split_once('}') else { return vec![name.to_owned()] };
    middle.split(',').map(|part| format!("{head}{part}{tail}")).collect()
}

/// Whether `file` is what a reader finds at `path`: directories that all have are left out there.
fn is_at(file: &Path, path: &str) -> bool {
    file.ends_with(path)
        || path.split_once('/').is_some_and(|(first, rest)| {
            file.ends_with(rest) && file.iter().any(|part| part == first)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, wanted: &[&str]) {
        let source = |path: &str, text: &str| (PathBuf::from(path), text.to_owned());
        let sources = [
            source("./crates/swarm/src/layout.rs", "fn spans_are_found() {}"),
            source("./crates/ezio/tests/disk/power.rs", "fn what_was_finished_survives() {}"),
        ];
        assert_eq!(missing(text, &sources), wanted, "{text}");
    }

    #[test]
    fn a_name_that_is_nowhere_is_missing() {
        check("`disk/power.rs`, `swarm/layout.rs`: `spans_are_found`, `rmdir`, `--verify`", &[]);
        check("| a | `disk/{power,target}.rs` |", &["disk/{power,target}.rs"]);
        check("| a | `what_was_finished_is_gone` |", &["what_was_finished_is_gone"]);
        check("`layout.rs`, `sim/layout.rs`", &["sim/layout.rs"]);
        // A part of a name is none.
        check("`was_finished_survives`", &["was_finished_survives"]);
    }
}
