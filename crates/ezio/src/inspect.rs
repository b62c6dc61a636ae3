//! `ezio inspect`: what is in a torrent, in words or as JSON.

use crate::ui::{Ui, printable};
use anyhow::Context as _;
use serde_json::json;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use swarm::bencode::Limits;
use swarm::magnet::Magnet;
use swarm::metainfo::Metainfo;
use swarm::units::Bytes;

/// Reads a `.torrent` file.
///
/// # Errors
/// If it cannot be read, is larger than [`Limits::TORRENT`] allows, or is no torrent of an image.
pub fn load(path: &Path) -> anyhow::Result<Metainfo> {
    let shown = path.display();
    let mut bytes = Vec::new();
    let limit = Limits::TORRENT.bytes as u64;
    std::fs::File::open(path)
        .map_err(|e| anyhow::anyhow!("open {shown}: {}", crate::store::io_reason(&e)))?
        // One more than allowed: then the parser says that it is too much.
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| anyhow::anyhow!("read {shown}: {}", crate::store::io_reason(&e)))?;
    Metainfo::parse(bytes).with_context(|| format!("{shown} is no torrent that EZIO can use"))
}

/// Prints what the torrent at `path` holds.
///
/// # Errors
/// As [`load`].
pub fn run(path: &Path, ui: Ui) -> anyhow::Result<()> {
    let torrent = load(path)?;
    ui.result(text(&torrent).trim_end(), describe(&torrent));
    Ok(())
}

/// Twenty bytes as people write a hash.
#[must_use]
pub fn hex(digest: &[u8; 20]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn text(torrent: &Metainfo) -> String {
    let layout = torrent.layout();
    let mut out = String::new();
    let mut line = |key: &str, value: String| {
        let _ = writeln!(out, "{key:<16}{}", printable(&value));
    };
    line("name", String::from_utf8_lossy(torrent.name()).into_owned());
    line("info-hash", hex(&torrent.info_hash()));
    line("used bytes", size(layout.image_len()));
    line("pieces", format!("{} of {}", torrent.piece_count(), Bytes(torrent.piece_len().into())));
    let order = if layout.is_ascending() { "" } else { ", not in device order" };
    line("extents", format!("{}{order}", layout.extents().len()));
    line("smallest device", size(torrent.target_len()));
    if let Some(origin) = torrent.origin() {
        line("made from", size(origin.device_len));
        line("file system", origin.file_system.clone().unwrap_or_else(|| "raw copy".into()));
        line("sector size", format!("{} bytes", origin.sector_len));
    }
    for tier in torrent.trackers() {
        line("tracker", tier.join(", "));
    }
    if let Some(who) = torrent.created_by() {
        line("created by", who.to_owned());
    }
    if torrent.is_private() {
        line("private", "yes: peers only from the trackers".into());
    } else {
        line("link", magnet(torrent).to_string());
    }
    out
}

/// The link that is enough to deploy it.
fn magnet(torrent: &Metainfo) -> Magnet {
    Magnet {
        info_hash: torrent.info_hash(),
        name: Some(String::from_utf8_lossy(torrent.name()).into_owned()),
        trackers: torrent.trackers().iter().flatten().cloned().collect(),
        peers: Vec::new(),
    }
}

fn size(bytes: u64) -> String {
    format!("{bytes} ({})", Bytes(bytes))
}

fn describe(torrent: &Metainfo) -> serde_json::Value {
    let layout = torrent.layout();
    json!({
        "name": String::from_utf8_lossy(torrent.name()),
        "info_hash": hex(&torrent.info_hash()),
        "image_bytes": layout.image_len(),
        "piece_bytes": torrent.piece_len(),
        "pieces": torrent.piece_count(),
        "extents": layout.extents().len(),
        "ascending": layout.is_ascending(),
        "smallest_device_bytes": torrent.target_len(),
        "origin": torrent.origin().map(|origin| json!({
            "device_bytes": origin.device_len,
            "file_system": origin.file_system,
            "file_system_bytes": origin.file_system_len,
            "sector_bytes": origin.sector_len,
        })),
        "trackers": torrent.trackers(),
        "created_by": torrent.created_by(),
        "creation_date": torrent.creation_date(),
        "private": torrent.is_private(),
        "link": (!torrent.is_private()).then(|| magnet(torrent).to_string()),
    })
}
