//! What is to be done: the server, its images, and the disks that are to take them.

use super::{DoctorArgs, Finding};
use crate::deploy;
use crate::device::{self, Device, Kind, Partition, Use};
use crate::store::io_reason;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use swarm::metainfo::Metainfo;
use swarm::units::Bytes;

pub(super) fn check(args: &DoctorArgs, stop: &AtomicBool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut images = Vec::new();
    if let Some(server) = &args.server {
        match served(server, stop) {
            Ok(found) => images = found,
            Err(error) => findings.push(Finding::wrong(
                "server",
                format!("{error:#}"),
                "run `ezio doctor` on the server as well",
            )),
        }
        findings.extend(images.iter().map(image));
    }
    for to in &args.to {
        let (name, path) = named(to);
        let mut meant = images.clone();
        meant.retain(|image| name.is_none_or(|name| image.name == name));
        if let (Some(name), Some(server), [_, ..], []) =
            (name, &args.server, &images[..], &meant[..])
        {
            findings.push(Finding::wrong(
                format!("fit of {name}"),
                format!("{server} serves no image of that name"),
                "the lines above name those that it serves",
            ));
        }
        match device::open_source(path) {
            Ok((_, found)) => {
                let uses = device::usage(&found).unwrap_or_default();
                let partitions = device::partitions(&found).unwrap_or_default();
                findings.push(target(&found, &uses, &partitions));
                findings.extend(meant.iter().map(|image| fits(image, &found)));
            }
            Err(device::DeviceError::Missing(_)) if !path.starts_with("/dev") => {
                findings.push(new_file(path, &meant));
            }
            Err(error) => findings.push(Finding::wrong(
                format!("target {}", path.display()),
                error.to_string(),
                "`lsblk` lists the disks of this machine",
            )),
        }
    }
    findings
}

/// The image that is meant to go there, if it is named, and the device.
fn named(to: &Path) -> (Option<&str>, &Path) {
    match to.to_str().and_then(|text| text.split_once('=')) {
        // The path itself may have such a sign.
        Some((name, path)) if !to.exists() => (Some(name), Path::new(path)),
        _ => (None, to),
    }
}

/// What a target must be like for an image.
#[derive(Clone, Debug)]
struct Image {
    name: String,
    /// Bytes of it that travel.
    used: u64,
    /// Bytes that the target must have.
    needed: u64,
    sector: Option<u32>,
}

fn served(server: &str, stop: &AtomicBool) -> anyhow::Result<Vec<Image>> {
    let torrents = deploy::served(server, stop)?;
    anyhow::ensure!(!torrents.is_empty(), "{server} answers, but serves no torrent");
    let image = |torrent: &std::sync::Arc<Metainfo>| Image {
        name: crate::node::name_of(torrent),
        used: torrent.layout().image_len(),
        needed: torrent.target_len(),
        sector: torrent.origin().map(|origin| origin.sector_len),
    };
    Ok(torrents.iter().map(image).collect())
}

fn image(image: &Image) -> Finding {
    let (used, needed) = (Bytes(image.used), Bytes(image.needed));
    let text = format!("serves {}: {used} used, for a target of {needed} or more", image.name);
    Finding::ok("server", text)
}

/// Whether the device may be written, and how fast it is likely to be.
fn target(device: &Device, uses: &[Use], partitions: &[Partition]) -> Finding {
    let check = format!("target {}", device.path.display());
    if !uses.is_empty() {
        let list = uses.iter().map(Use::to_string).collect::<Vec<_>>().join(", ");
        let advice = "unmount or stop that, if this is the right disk";
        return Finding::wrong(check, format!("in use: {list}"), advice);
    }
    if device.read_only {
        let advice = "`blockdev --getro`, a switch on the medium, or how it was attached";
        return Finding::wrong(check, "read-only", advice);
    }
    let size = Bytes(device.size_bytes);
    let (logical, physical) = (device.logical_sector_bytes, device.physical_sector_bytes);
    let kind = match (&device.kind, device.rotational) {
        (Kind::RegularFile { .. }, _) => "a file",
        (_, Some(true)) => "a disk with heads",
        (_, Some(false)) => "flash",
        (_, None) => "a device",
    };
    let text =
        format!("{size}, {kind}, sectors of {logical} bytes ({physical} physical), not in use");
    match partitions {
        [] => Finding::ok(check, text),
        some => {
            let names: Vec<&str> = some.iter().map(|partition| &partition.name[..]).collect();
            Finding::warning(
                check,
                format!("{text}; it has the partitions {}", names.join(", ")),
                "an image of a partition goes to a partition: give that one, if it is meant",
            )
        }
    }
}

fn fits(image: &Image, device: &Device) -> Finding {
    let (name, path) = (&image.name, device.path.display());
    let check = format!("fit of {name}");
    // A file grows, and has sectors of any size.
    if let Kind::RegularFile { .. } = device.kind {
        return Finding::ok(check, format!("{path} is a file, and is made as long as needed"));
    }
    if device.size_bytes < image.needed {
        let (needed, size) = (Bytes(image.needed), Bytes(device.size_bytes));
        return Finding::wrong(
            check,
            format!(
                "needs {needed} ({} bytes), {path} has {size} ({})",
                image.needed, device.size_bytes
            ),
            "take a larger device, or shrink the file system before it is captured",
        );
    }
    match image.sector {
        Some(wanted) if wanted != device.logical_sector_bytes => Finding::wrong(
            check,
            format!(
                "made on sectors of {wanted} bytes, {path} has {}",
                device.logical_sector_bytes
            ),
            "take a disk with the same; most file systems do not work when that changes (--force tries)",
        ),
        _ => Finding::ok(check, format!("fits on {path}")),
    }
}

/// A file that is not there yet is made.
fn new_file(path: &Path, images: &[Image]) -> Finding {
    let check = format!("target {}", path.display());
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let needed = images.iter().map(|image| image.used).max().unwrap_or(0);
    match rustix::fs::statvfs(dir) {
        Ok(room) => room_for(check, room.f_bavail * room.f_frsize, needed),
        Err(error) => Finding::wrong(
            check,
            format!("its directory cannot be used: {}", io_reason(&error.into())),
            "make the directory first, or give another path",
        ),
    }
}

fn room_for(check: String, free: u64, needed: u64) -> Finding {
    if free < needed {
        let text = format!("{} free, the image takes {}", Bytes(free), Bytes(needed));
        return Finding::wrong(check, text, "free some, or take another directory");
    }
    Finding::ok(check, format!("a file that will be made; {} free", Bytes(free)))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Ok as Fine, Warning, Wrong};
    use super::super::tests::check;
    use super::*;
    use crate::device::BlockDevice;

    fn disk() -> Device {
        let block = BlockDevice { major: 8, minor: 0, name: "sda".into(), disk: None };
        Device {
            path: "/dev/sda".into(),
            kind: Kind::BlockDevice(block),
            size_bytes: 10 << 30,
            logical_sector_bytes: 512,
            physical_sector_bytes: 4096,
            rotational: Some(true),
            read_only: false,
        }
    }

    #[test]
    fn a_target_is_judged_by_what_the_kernel_knows() {
        check(&target(&disk(), &[], &[]), Fine, "10 GiB, a disk with heads, sectors of 512 bytes");
        let used = [Use::Mounted { at: "/home".into(), read_only: false }];
        check(&target(&disk(), &used, &[]), Wrong, "/home");
        check(&target(&Device { read_only: true, ..disk() }, &[], &[]), Wrong, "read-only");
        let part = Partition { name: "sda1".into(), number: 1, start_bytes: 0, size_bytes: 1 };
        check(&target(&disk(), &[], &[part]), Warning, "the partitions sda1");
    }

    #[test]
    fn an_image_must_fit() {
        let of = |needed, sector| Image { name: "x".into(), used: 5 << 30, needed, sector };
        check(&image(&of(10 << 30, None)), Fine, "serves x: 5 GiB used, for a target of 10 GiB");
        check(&fits(&of(10 << 30, Some(512)), &disk()), Fine, "fits on /dev/sda");
        check(&fits(&of((10 << 30) + 1, None), &disk()), Wrong, "take a larger device");
        check(&fits(&of(1 << 30, Some(4096)), &disk()), Wrong, "sectors of 4096");
        let file = Device { kind: Kind::RegularFile { dev: 1, ino: 1 }, ..disk() };
        check(&fits(&of(11 << 30, Some(4096)), &file), Fine, "as long as needed");
        check(&room_for("target x".into(), 1 << 30, 2 << 30), Wrong, "free some");
        check(&new_file(Path::new("/no/such/dir/x"), &[]), Wrong, "make the directory");
    }
}
