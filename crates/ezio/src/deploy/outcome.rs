//! How a deployment ended, for scripts: which machine, which disk, which image, and what it took.

use crate::control::interfaces;
use crate::device;
use crate::inspect::hex;
use crate::node::name_of;
use serde_json::{Value, json};
use std::path::Path;
use swarm::metainfo::Metainfo;

/// What became of one target.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Pieces that may have been there before.
    pub(super) looked_at: usize,
    /// Pieces that did not read back as they were written, and were fetched once more.
    pub(super) again: Vec<u32>,
    /// Seconds from the start until everything was on the medium for the first time.
    pub(super) written: Option<f64>,
    /// Seconds that reading from the medium took in all; `None` if nothing was read again.
    pub(super) reading: Option<f64>,
    /// Bytes of blocks that were received.
    pub(super) received: u64,
}

impl Outcome {
    /// All that is known, after `seconds` in all. Names of fields that reports to the server have too
    /// are the same.
    pub(super) fn describe(&self, metainfo: &Metainfo, to: &Path, seconds: f64) -> Value {
        let disk = Disk::of(to);
        json!({
            "target": to.to_string_lossy(),
            "name": name_of(metainfo),
            "info_hash": hex(&metainfo.info_hash()),
            "image_bytes": metainfo.layout().image_len(),
            "seconds": seconds,
            "read_again": self.reading.is_some(),
            "pieces": metainfo.piece_count(),
            "pieces_looked_at": self.looked_at,
            "pieces_fetched_again": self.again,
            "received_bytes": self.received,
            "seconds_until_written": self.written,
            "seconds_reading_again": self.reading,
            "host": read("/proc/sys/kernel/hostname"),
            "serial": read("/sys/class/dmi/id/product_serial"),
            "mac": mac(),
            "model": disk.model,
            "disk_serial": disk.serial,
            "disk_bytes": disk.bytes,
        })
    }
}

/// What the kernel knows of the disk a target is, or is a partition of; a file has only its length.
struct Disk {
    model: Option<String>,
    serial: Option<String>,
    bytes: Option<u64>,
}

impl Disk {
    fn of(path: &Path) -> Disk {
        let device = device::open_source(path).map(|(_, device)| device).ok();
        let bytes = device.as_ref().map(|device| device.size_bytes);
        let name = device.and_then(|device| match device.kind {
            device::Kind::BlockDevice(block) => Some(block.disk.unwrap_or(block.name)),
            device::Kind::RegularFile { .. } => None,
        });
        let fact = |file| read(&format!("/sys/block/{}/{file}", name.as_deref()?));
        // NVMe and MMC disks have it in one place, virtio in another, SCSI in a page of its own.
        let serial = fact("device/serial").or_else(|| fact("serial"));
        let page = || {
            let path = format!("/sys/block/{}/device/vpd_pg80", name.as_deref()?);
            // Four bytes of header come before the text (SPC-4, 7.8.15).
            let bytes = std::fs::read(path).ok()?;
            Some(String::from_utf8_lossy(bytes.get(4..)?).trim().to_owned())
        };
        Disk { model: fact("device/model"), serial: serial.or_else(page), bytes }
    }
}

/// The hardware address of the first interface that is no loopback.
fn mac() -> Option<String> {
    let all = interfaces::interfaces().ok()?;
    all.iter()
        .filter_map(|interface| read(&format!("/sys/class/net/{}/address", interface.name)))
        .find(|mac| mac != "00:00:00:00:00:00")
}

/// A line of the kernel; `None` if it has nothing to say.
fn read(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
