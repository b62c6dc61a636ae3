//! What the demonstration has shown, as a table and as JSON.

use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;
use swarm::units::{Bytes, Rate};

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Bytes of the disk, and of the part that is used.
    pub(super) disk_len: u64,
    pub(super) image_len: u64,
    pub(super) extents: usize,
    pub(super) pieces: u32,
    /// Bytes that left the server.
    pub(super) server_sent: u64,
    pub(super) targets: Vec<Target>,
    /// The file systems on the targets were checked too.
    pub(super) checked: bool,
    /// Where everything can be looked at.
    pub(super) kept: Option<PathBuf>,
}

/// One target.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    /// From its start to the last flush.
    pub(super) seconds: f64,
    /// Bytes it sent to the others, if the server heard of it.
    pub(super) passed_on: Option<u64>,
    /// What is wrong with it.
    pub(super) wrong: Option<String>,
}

impl Outcome {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("\n{HEAD}");
        for target in &self.targets {
            let name = target.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // The rate is for people: a float's 53 bits are enough.
            let rate = Rate((self.image_len as f64 / target.seconds.max(0.001)) as u64).to_string();
            let passed_on = target.passed_on.map_or("?".into(), |sent| Bytes(sent).to_string());
            let verified = target.wrong.as_ref().map_or("yes".into(), |why| format!("NO: {why}"));
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "\n{name:<13} {:>7.1}  {rate:>10}  {:>6}  {passed_on:>9}  {verified}",
                target.seconds, self.pieces
            );
        }
        let _ = write!(
            text,
            "\n\ndisk {}, used {} in {} extents; the server sent {:.2} copies of that for {} \
             targets, the rest they gave each other",
            Bytes(self.disk_len),
            Bytes(self.image_len),
            self.extents,
            self.copies(),
            self.targets.len()
        );
        text + &self.verdict()
    }

    fn verdict(&self) -> String {
        if self.targets.iter().any(|target| target.wrong.is_some()) {
            return "\nsome targets are wrong: this is a bug, please report it with this output"
                .to_owned();
        }
        let checked = if self.checked { "; e2fsck finds nothing to mend" } else { "" };
        let kept = self
            .kept
            .as_ref()
            .map_or_else(String::new, |dir| format!("\neverything is in {}", dir.display()));
        format!(
            "\nevery byte was compared: what is used equals the source, the rest is untouched\
             {checked}{kept}\n\nthe real thing, as root:\n  \
             ezio serve /dev/sda1                          on the machine with the image\n  \
             ezio deploy http://SERVER:6969 --to /dev/sda1 on every other"
        )
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let targets: Vec<Value> = self
            .targets
            .iter()
            .map(|target| {
                json!({
                    "target": target.path.to_string_lossy(),
                    "seconds": target.seconds,
                    "pieces": self.pieces,
                    "sent_bytes": target.passed_on,
                    "verified": target.wrong.is_none(),
                    "wrong": target.wrong,
                })
            })
            .collect();
        json!({
            "disk_bytes": self.disk_len,
            "image_bytes": self.image_len,
            "extents": self.extents,
            "pieces": self.pieces,
            "server_sent_bytes": self.server_sent,
            "server_copies": self.copies(),
            "file_systems_checked": self.checked,
            "targets": targets,
        })
    }

    fn copies(&self) -> f64 {
        self.server_sent as f64 / self.image_len.max(1) as f64
    }
}

const HEAD: &str = "target        seconds        rate  pieces  passed on  verified";

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(wrong: Option<&str>) -> Outcome {
        let target = |name: &str, passed_on, wrong: Option<&str>| Target {
            path: format!("/tmp/x/{name}").into(),
            seconds: 2.0,
            passed_on,
            wrong: wrong.map(str::to_owned),
        };
        Outcome {
            disk_len: 256 << 20,
            image_len: 100_000_000,
            extents: 9,
            pieces: 382,
            server_sent: 105_000_000,
            targets: vec![
                target("target1.img", Some(95 << 20), None),
                target("target2.img", None, wrong),
            ],
            checked: false,
            kept: None,
        }
    }

    #[test]
    fn the_table_tells_all_of_every_target() {
        let text = outcome(None).text();
        let line = "target1.img       2.0     50 MB/s     382     95 MiB  yes";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("the server sent 1.05 copies of that for 2 targets"), "{text}");
        assert!(text.contains("the rest is untouched"), "{text}");
    }

    #[test]
    fn a_wrong_target_stands_out() {
        let wrong = outcome(Some("byte 0x10 is not that of the source"));
        let text = wrong.text();
        assert!(text.contains("NO: byte 0x10 is not that of the source"), "{text}");
        assert!(!text.contains("untouched") && !text.contains("real thing"), "{text}");
        assert_eq!(wrong.json()["targets"][1]["verified"], false);
    }
}
