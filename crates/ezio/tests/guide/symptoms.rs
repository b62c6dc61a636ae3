//! What the guide says that people see is what the program says, and no reason of the dashboard is left
//! out.

use crate::{root, text};
use std::path::Path;

#[test]
fn symptoms_are_in_the_programs_own_words() {
    let mut source = String::new();
    read_all(&root().join("crates/ezio/src"), &mut source);
    let source = joined(&source);
    let guide = text("docs/guide.md");
    let (_, chapter) = guide.split_once("\n## Troubleshooting").unwrap();
    let (chapter, _) = chapter.split_once("\n## ").unwrap();
    let rows = chapter.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let symptoms: Vec<&str> = rows.filter(|cell| *cell != "you see").collect();
    assert!(symptoms.len() > 25, "{symptoms:?}");
    for symptom in symptoms {
        for part in symptom.split('…').map(str::trim).filter(|part| !part.is_empty()) {
            assert!(source.contains(part), "nobody says `{part}` of `{symptom}`");
        }
    }
}

#[test]
fn every_reason_of_the_dashboard_is_in_the_guide() {
    let guide = text("docs/guide.md");
    let diagnosis = text("crates/ezio/src/control/fleet/diagnosis.rs");
    let (program, _) = diagnosis.split_once("#[cfg(test)]").unwrap();
    let lines = program.lines().filter(|line| !line.trim_start().starts_with("//"));
    let program = joined(&lines.collect::<Vec<_>>().join("\n"));
    // Between quotes is what is said: nothing there has one of its own.
    let said = program.split('"').skip(1).step_by(2).filter(|text| text.contains(' '));
    let reasons: Vec<&str> = said.filter(|text| !text.starts_with('{')).collect();
    assert!(reasons.len() > 9, "{reasons:?}");
    for reason in reasons {
        let begin = reason.split(['{', ':', '?']).next().unwrap_or_default().trim();
        assert!(guide.contains(begin), "the guide has no `{begin}`, of `{reason}`");
    }
}

fn read_all(dir: &Path, to: &mut String) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, to);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            to.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// Without the ends of lines within strings.
fn joined(source: &str) -> String {
    let mut parts = source.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + part.trim_start())
}
