//! What the kernel knows of this machine and of the disk a target is on, for reports and results.

use crate::control::interfaces;
use crate::device::{self, Kind};
use std::path::Path;

/// The disk that a target is, or is a partition of; a file has only its length.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) model: Option<String>,
    pub(super) serial: Option<String>,
    /// Of the target, not of the disk around it.
    pub(super) bytes: Option<u64>,
}

impl Disk {
    pub(super) fn of(path: &Path) -> Disk {
        let Ok((_, device)) = device::open_source(path) else { return Disk::default() };
        let bytes = Some(device.size_bytes);
        let Kind::BlockDevice(block) = device.kind else {
            return Disk { bytes, ..Disk::default() };
        };
        let dir = format!("/sys/block/{}", block.disk.unwrap_or(block.name));
        let fact = |file| line(&format!("{dir}/{file}"));
        // NVMe and SCSI disks have a model, MMC cards a name.
        let model = fact("device/model").or_else(|| fact("device/name"));
        // NVMe and MMC have it in one place, virtio in another, SCSI in a page of its own.
        let serial = fact("device/serial").or_else(|| fact("serial"));
        let page = || {
            // Four bytes of header come before the text (SPC-4, 7.8.15).
            let bytes = std::fs::read(format!("{dir}/device/vpd_pg80")).ok()?;
            Some(String::from_utf8_lossy(bytes.get(4..)?).trim().to_owned())
        };
        Disk { model, serial: serial.or_else(page), bytes }
    }
}

/// The machine's name.
pub(super) fn host() -> Option<String> {
    line("/proc/sys/kernel/hostname")
}

/// Its serial number, which only root may read.
pub(super) fn serial() -> Option<String> {
    line("/sys/class/dmi/id/product_serial")
}

/// The hardware address of the first interface that has one.
pub(super) fn mac() -> Option<String> {
    interfaces::interfaces().ok()?.iter().find_map(|interface| interfaces::mac(&interface.name))
}

/// A line of the kernel; `None` if it has nothing to say, or not to us.
fn line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
