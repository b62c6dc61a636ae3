//! How a deployment ended, for scripts: which machine, which disk, which image, and what it took.

use super::machine::{self, Disk};
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
            "host": machine::host(),
            "serial": machine::serial(),
            "mac": machine::mac(),
            "model": disk.model,
            "disk_serial": disk.serial,
            "disk_bytes": disk.bytes,
        })
    }
}
