//! The service, started by a real systemd in a container: shut in as its unit says it still reads a disk
//! that only root may read, serves it, and keeps its token to itself.

use crate::deb::put;
use crate::root::contained;
use anyhow::{Context as _, ensure};

use lab::{LoopDevice, LoopOptions, Need, Random, tool};
use std::fs::{self, File};
use std::path::Path;

/// Boots the Debian at `root` and has it deploy from its own service.
pub(super) fn check(root: &Path) -> anyhow::Result<()> {
    if let Err(why) = lab::require(&[Need::Program("systemd-nspawn"), Need::Loop]) {
        lab::skipped(&format!("the service: {why}"));
        return Ok(());
    }
    let disk = root.join("tmp/disk.img");
    let mut bytes = vec![0; LEN];
    Random::new(1).fill(&mut bytes);
    fs::write(&disk, bytes)?;
    let device = LoopDevice::attach(&disk, LoopOptions::default())?;
    let shown = device.path().display().to_string();
    let conf = root.join("etc/ezio/serve.conf");
    let before = fs::read(&conf)?;
    fs::write(&conf, format!("ARGUMENTS=\"--raw '{shown}' --limit '1Gbit/s'\"\n"))?;
    put(&root.join("usr/local/sbin/probe"), probe(&shown).as_bytes(), 0o755)?;
    put(&root.join("etc/systemd/system/probe.service"), UNIT.as_bytes(), 0o644)?;
    for unit in ["probe", "ezio-serve"] {
        super::run(root, 20, &["systemctl", "enable", "--quiet", unit])?;
    }
    let result = root.join("result");
    File::create(&result)?;
    let words = ["--quiet", "--register=no", "--keep-unit", "--private-network"];
    let mut boot = contained(90, "systemd-nspawn");
    boot.args(words).args(["--console=read-only", "--boot", "--directory"]).arg(root);
    let output = tool::output(boot.arg(format!("--bind={shown}")))?;
    let told = fs::read_to_string(&result)?;
    if told.is_empty() {
        let said = tool::text(&output);
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        lab::skipped(&format!("the service: a container does not start here: {last}"));
    } else {
        ensure!(told.ends_with("probe: all is well\n"), "the service does not work: {told}");
        println!("the service works in a container: {} MiB deployed from a disk", LEN >> 20);
    }
    // As apt shall find it.
    fs::write(conf, before)?;
    fs::remove_file(root.join("usr/local/sbin/probe")).context("remove the probe")
}

/// Bytes of the disk that is served.
const LEN: usize = 16 << 20;

const UNIT: &str = "\
[Unit]
After=ezio-serve.service
SuccessAction=poweroff
FailureAction=poweroff
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/probe
StandardOutput=append:/result
StandardError=append:/result
[Install]
WantedBy=multi-user.target
";

/// What it takes to believe that the service works; the last line says that it does.
fn probe(disk: &str) -> String {
    format!(
        r#"#!/bin/bash
set -e
trap 'echo "probe: line $LINENO"; journalctl -u ezio-serve --no-pager | tail -20' ERR
never() {{ if "$@"; then return 1; fi; }}
for turn in $(seq 50); do
    if ezio deploy http://127.0.0.1:6969 --to /tmp/copy.img --seed-for 0 >/tmp/said 2>&1; then break; fi
    sleep 0.2
done
cmp /tmp/copy.img {disk} || {{ cat /tmp/said; false; }}
# Its user is its own, and may read, and nothing else.
pid=$(systemctl show --property MainPID --value ezio-serve)
[ "$(stat -c %U /proc/$pid)" != root ]
grep -q '^CapEff:.0*4$' /proc/$pid/status
grep -q '^CapBnd:.0*4$' /proc/$pid/status
grep -q '^NoNewPrivs:.1$' /proc/$pid/status
grep -q '^Seccomp:.2$' /proc/$pid/status
# The token is for root and itself; the journal knows what to run on targets, and not the token.
[ "$(stat -L -c %a /var/lib/ezio/token)" = 600 ]
token=$(cat /var/lib/ezio/token)
[ ${{#token}} = 32 ]
journalctl -u ezio-serve --no-pager >/tmp/journal
grep -q 'ezio deploy http' /tmp/journal
never grep -q "$token" /tmp/journal
# It is the one that works, also after the next start.
systemctl restart ezio-serve
for turn in $(seq 50); do
    if (exec 3<>/dev/tcp/127.0.0.1/6969) 2>/dev/null; then break; fi
    sleep 0.2
done
[ "$(cat /var/lib/ezio/token)" = "$token" ]
systemctl stop ezio-serve
[ "$(systemctl show --property Result --value ezio-serve)" = success ]
echo 'probe: all is well'
"#
    )
}
