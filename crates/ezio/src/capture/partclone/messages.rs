//! What a partclone program prints, for people, on a terminal: which of it matters.
//!
//! Text in, values out. It goes through no files and judges nothing: whether there is a map, the exit
//! code and the map tell.

use std::iter::Peekable;
use std::str::Chars;

/// What the program said, without progress and decoration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The unit of the map in bytes.
    pub block_size: Option<u32>,
    /// `0.3.23`; at most 200 characters.
    pub version: Option<String>,
    /// The lines that not every run has, none empty, at most 200 characters of each.
    pub remarks: Vec<String>,
}

impl Said {
    /// Reads the messages of one run, stdout and stderr as they came. Any text will do.
    #[must_use]
    pub fn parse(messages: &str) -> Said {
        let text = without_escapes(messages);
        let lines = || text.split(['\r', '\n']).map(meaning).filter(|line| !line.is_empty());
        let block_size = lines().find_map(|line| {
            line.strip_prefix("Block size:")?.trim().strip_suffix(" Byte")?.trim().parse().ok()
        });
        let version = lines().find_map(|line| {
            let (version, _) = line.strip_prefix("Partclone v")?.split_once(' ')?;
            Some(shortened(version))
        });
        let is_usual = |line: &&str| USUAL.iter().any(|start| line.starts_with(start));
        let remarks = lines().filter(|line| !is_usual(line)).map(shortened).collect();
        Said { block_size, version, remarks }
    }

    /// The last remarks, oldest first. "error exit" explains nothing beside another.
    #[must_use]
    pub fn words(&self) -> String {
        let telling: Vec<&str> = self
            .remarks
            .iter()
            .map(String::as_str)
            .filter(|line| !line.eq_ignore_ascii_case("error exit"))
            .collect();
        telling[telling.len().saturating_sub(3)..].join("; ")
    }
}

/// How the lines begin that every run has, good or bad.
const USUAL: [&str; 18] = [
    "Partclone v",
    "Starting to map",
    "Reading Super Block",
    "Calculating bitmap",
    "Elapsed:",
    "Total Time:",
    "current block:",
    "done!",
    "File system:",
    "Device size:",
    "Space in use:",
    "Free Space:",
    "Block size:",
    "Syncing...",
    "Partclone successfully",
    "Cloned successfully",
    // partclone.exfat, on stdout.
    "block 0 ",
    // It names a log of ours that will be gone.
    "Partclone fail, please check",
];

/// The part of a line that progress, which ends without a newline, or the farewell is glued to.
fn meaning(line: &str) -> &str {
    let line = line.split("Partclone fail, please check").next().unwrap_or(line).trim();
    match line.split_once("Completed:") {
        Some((start, rest)) if start.starts_with("Elapsed:") => {
            // A comma leads to the rate, which is progress too.
            let glued = rest.split_once('%').map_or("", |(_, glued)| glued);
            if glued.starts_with(',') { "" } else { glued }
        }
        _ => line,
    }
}

/// One line of a message, at most 200 characters.
fn shortened(line: &str) -> String {
    line.chars().take(200).collect()
}

/// Drops terminal control sequences and other control characters, except for line ends.
fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => skip_sequence(&mut chars),
            '\r' | '\n' => plain.push(c),
            c if c.is_control() => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain
}

/// Takes what belongs to an escape character (ECMA-48, 5.4; ECMA-35, 13.2). What is cut off ends
/// before the first character that cannot be in it, so that no words are lost.
fn skip_sequence(chars: &mut Peekable<Chars<'_>>) {
    let (middle, last) = match chars.next_if_eq(&'[') {
        Some(_) => (' '..='?', '@'..='~'),
        None => (' '..='/', '0'..='~'),
    };
    while chars.next_if(|c| middle.contains(c)).is_some() {}
    let _ = chars.next_if(|c| last.contains(c));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(messages: &str, wanted: &[&str]) {
        assert_eq!(Said::parse(messages).remarks, wanted, "{messages:?}");
    }

    #[test]
    fn decoration_is_left_out() {
        check("\x1b[1;31mno\x1b[0m \x1b(Bsuch\x1b7 disk\x07\x1b", &["no such disk"]);
    }

    #[test]
    fn a_sequence_that_was_cut_off_swallowed_the_next_line() {
        check("bad\x1b[\nsector\x1b[3", &["bad", "sector"]);
        check("bad\x1b(\nsector\x1b\nhere", &["bad", "sector", "here"]);
    }

    #[test]
    fn a_version_without_end_is_shortened() {
        let said = Said::parse(&format!("Partclone v{} x", "1".repeat(1000)));
        assert_eq!(said.version.unwrap().len(), 200);
    }
}
