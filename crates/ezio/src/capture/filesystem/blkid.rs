//! Runs the real `blkid -p` of util-linux and reads what it prints.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::kind::find_program;

/// Why the content of a source could not be told.
#[derive(Debug, thiserror::Error)]
pub enum RecogniseError {
    /// There is no blkid.
    #[error("run blkid: not found in PATH or /usr/sbin; install the package util-linux")]
    Missing,
    /// The blkid found is BusyBox's, which cannot look at one device without a cache (`-p`).
    #[error("run {}: it is BusyBox's, which lacks -p; install the package util-linux", .0.display())]
    BusyBox(PathBuf),
    /// Signatures of more than one file system.
    #[error(
        "look at {} with blkid: {found}; remove the stale signature \
         (`wipefs` lists them, `wipefs -o OFFSET` removes one)",
        .path.display()
    )]
    Ambivalent {
        /// The source.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// blkid failed.
    #[error("look at {} with blkid: {reason}", .path.display())]
    Failed {
        /// The source.
        path: PathBuf,
        /// Its exit status and what it said.
        reason: String,
    },
    /// The source could not be read where the details are.
    #[error("read {}: {source}", .path.display())]
    Io {
        /// The source.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// blkid's tags (`TYPE`, `PTTYPE`, `USAGE`, `VERSION`, ...); `None` if it knows nothing there.
pub(super) fn probe(path: &Path) -> Result<Option<BTreeMap<String, String>>, RecogniseError> {
    let program = find_program("blkid").ok_or(RecogniseError::Missing)?;
    let mut command = Command::new(&program);
    // Its messages are compared and shown: not in the user's language. `--` for paths like `-x`.
    command.env("LC_ALL", "C").args(["-p", "-o", "export", "--"]).arg(path);
    let failed = |reason| RecogniseError::Failed { path: path.to_owned(), reason };
    let output = command.output().map_err(|e| failed(e.to_string()))?;
    understand(&program, path, &output)
}

/// Exit codes: `blkid(8)`. Code 2 also means that the device could not be opened, without a word;
/// whoever asks has opened the source before.
fn understand(
    program: &Path,
    path: &Path,
    output: &Output,
) -> Result<Option<BTreeMap<String, String>>, RecogniseError> {
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.contains("BusyBox") {
        return Err(RecogniseError::BusyBox(program.to_owned()));
    }
    match output.status.code() {
        Some(0) => Ok(Some(parse_export(&output.stdout))),
        Some(2) if said.is_empty() => Ok(None),
        Some(8) => Err(RecogniseError::Ambivalent {
            path: path.to_owned(),
            found: "it finds more than one file system".to_owned(),
        }),
        _ => {
            let reason = format!("{} {said}", output.status);
            Err(RecogniseError::Failed { path: path.to_owned(), reason: reason.trim().to_owned() })
        }
    }
}

/// Parses blkid's `-o export` format: lines `NAME=value`, where a backslash takes the special
/// meaning from the next character and control characters stand in caret notation, so that a label
/// cannot make lines of its own. What is no such line is skipped; of equal names the first counts.
pub fn parse_export(text: &[u8]) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::new();
    for line in text.split(|b| *b == b'\n') {
        let Some(split) = line.iter().position(|b| *b == b'=') else { continue };
        let name = String::from_utf8_lossy(&line[..split]).into_owned();
        if is_name(&name) {
            let value = unescape(&String::from_utf8_lossy(&line[split + 1..]));
            tags.entry(name).or_insert(value);
        }
    }
    tags
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn check(text: &[u8], expected: &[(&str, &str)]) {
        let tags = parse_export(text);
        let tags: Vec<(&str, &str)> = tags.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(tags, expected);
    }

    #[test]
    fn export_lines_are_read_with_their_escapes() {
        check(b"", &[]);
        check(
            b"DEVNAME=x\nLABEL=a\\ b=\\\\\\\"\\\\c^Jd\nTYPE=ext4\n",
            &[("DEVNAME", "x"), ("LABEL", "a b=\\\"\\c^Jd"), ("TYPE", "ext4")],
        );
    }

    #[test]
    fn junk_is_skipped_and_the_first_of_two_counts() {
        check(
            b"junk\n=x\nA B=c\n\xff=1\nTYPE=xfs\nTYPE=swap\nEND=\\",
            &[("END", ""), ("TYPE", "xfs")],
        );
    }

    fn outcome(code: i32, stdout: &str, stderr: &str) -> String {
        let output = Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        match understand(Path::new("/sbin/blkid"), Path::new("/dev/x"), &output) {
            Ok(tags) => format!("{tags:?}"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn exit_codes_are_told_apart() {
        assert_eq!(outcome(2, "", ""), "None");
        assert_eq!(outcome(0, "TYPE=xfs\n", ""), "Some({\"TYPE\": \"xfs\"})");
        assert!(outcome(8, "", "blkid: x: ambivalent").contains("wipefs"));
        assert!(outcome(2, "", "blkid: error: x: I/O error").contains("I/O error"));
        assert!(outcome(4, "", "usage").contains("exit status: 4 usage"));
        let busybox = "blkid: invalid option -- 'p'\nBusyBox v1.36.1 multi-call binary";
        assert!(outcome(1, "", busybox).contains("util-linux"));
    }
}
