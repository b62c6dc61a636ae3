//! That systemd understands the unit, and that it shuts in what it runs.

use anyhow::ensure;
use std::path::Path;
use std::process::Command;

/// Where the unit is, below the root.
pub(super) const SERVICE: &str = "usr/lib/systemd/system/ezio-serve.service";

/// What `systemd-analyze security` may find, of 100: today's 20. Not to be had are a root directory of its
/// own and no networks, for whoever serves disks to others; it reads all disks, and files of others.
const EXPOSURE_MAX: u32 = 20;

/// Has systemd judge the unit of an unpacked package, as it is.
pub(super) fn check(root: &Path) -> anyhow::Result<()> {
    if let Err(why) = lab::require(&[lab::Need::Program("systemd-analyze")]) {
        lab::skipped(&format!("the unit: {why}"));
        return Ok(());
    }
    let unit = root.join(SERVICE);
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let words = ["security", "--offline=true", "--no-pager", &threshold];
    let output = lab::tool::output(Command::new("systemd-analyze").args(words).arg(&unit))?;
    let said = lab::tool::text(&output);
    let level = said.lines().last().unwrap_or_default();
    ensure!(output.status.success(), "the unit leaves open more than {EXPOSURE_MAX}: {said}");
    println!("{}", level.trim_start_matches('→').trim());
    Ok(())
}
