//! `ezio verify`: does a device, a file or a directory hold the bytes of a torrent?

use crate::hashing::Hashing;
use crate::inspect;
use crate::store::{self, Store, StoreError};
use crate::ui::Ui;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use swarm::layout::Extent;
use swarm::metainfo::Metainfo;
use swarm::units::{Bytes, Rate};

/// Hashes the image of the torrent `torrent_path` in `path` and prints which pieces are wrong.
/// Returns whether all are right.
///
/// # Errors
/// If there is nothing to compare: the torrent or the image cannot be opened, or `stop` was set.
pub fn run(torrent_path: &Path, path: &Path, ui: Ui, stop: &AtomicBool) -> anyhow::Result<bool> {
    let torrent = inspect::load(torrent_path)?;
    let store = store::open(&torrent, path)?;
    let started = Instant::now();
    let progress = ui.progress("verify", torrent.layout().image_len());
    let bad = bad_pieces(&torrent, &*store, &progress.done, stop)?;
    drop(progress);
    report(&torrent, path, &bad, started, ui);
    Ok(bad.is_empty())
}

/// Why a piece is bad.
#[derive(Debug)]
pub enum Why {
    /// Its SHA-1 is not the torrent's.
    Differs,
    /// Reading failed.
    Unreadable(StoreError),
}

/// Hashes the image of `torrent` in `store` and returns the pieces that are wrong. `done` counts
/// the bytes.
///
/// # Errors
/// If `stop` was set.
pub fn bad_pieces(
    torrent: &Metainfo,
    store: &dyn Store,
    done: &AtomicU64,
    stop: &AtomicBool,
) -> anyhow::Result<BTreeMap<u32, Why>> {
    let bad = Mutex::new(BTreeMap::new());
    let hashing = Hashing {
        store,
        image_len: torrent.layout().image_len(),
        piece_len: torrent.piece_len(),
        done,
        stop,
        tee: None,
    };
    hashing.run(|piece, result| {
        // A torrent's pieces are counted with 32 bits.
        let piece = piece as u32;
        let why = match result {
            Ok(digest) if digest == torrent.piece_hash(piece) => return true,
            Ok(_) => Why::Differs,
            Err(error) => Why::Unreadable(error),
        };
        bad.lock().unwrap_or_else(PoisonError::into_inner).insert(piece, why);
        true
    })?;
    anyhow::ensure!(!stop.load(Ordering::Relaxed), "interrupted");
    Ok(bad.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// A line for each bad piece, with its places on the device.
#[must_use]
pub fn list(torrent: &Metainfo, bad: &BTreeMap<u32, Why>) -> String {
    let mut text = String::new();
    for (&piece, why) in bad {
        let what = match why {
            Why::Differs => "differs".to_owned(),
            Why::Unreadable(error) => format!("cannot be read ({error})"),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "piece {piece} {what}: {}", show(&device_ranges(torrent, piece)));
    }
    text
}

fn report(torrent: &Metainfo, path: &Path, bad: &BTreeMap<u32, Why>, started: Instant, ui: Ui) {
    let (shown, pieces) = (path.display(), torrent.piece_count());
    let seconds = started.elapsed().as_secs_f64();
    let len = torrent.layout().image_len();
    // The rate is for people: a float's 53 bits are enough.
    let rate = Rate((len as f64 / seconds.max(0.001)) as u64);
    let mut text = list(torrent, bad);
    let summary = match bad.len() {
        0 => format!("{shown}: all {pieces} pieces are right"),
        bad => format!("{shown}: {bad} of {pieces} pieces are bad"),
    };
    let _ = write!(text, "{summary} ({} in {seconds:.1} s, {rate})", Bytes(len));
    let list: Vec<_> = bad.iter().map(|(&piece, why)| describe(torrent, piece, why)).collect();
    let json = json!({
        "path": path.to_string_lossy(),
        "pieces": pieces,
        "bad": list,
        "image_bytes": len,
        "seconds": seconds,
    });
    ui.result(&text, json);
}

fn describe(torrent: &Metainfo, piece: u32, why: &Why) -> serde_json::Value {
    let ranges: Vec<_> = device_ranges(torrent, piece)
        .iter()
        .map(|part| json!({"offset": part.offset, "length": part.len}))
        .collect();
    let error = match why {
        Why::Differs => None,
        Why::Unreadable(error) => Some(error.to_string()),
    };
    json!({"piece": piece, "ranges": ranges, "error": error})
}

/// The places of a piece on the device; parts that touch are one.
fn device_ranges(torrent: &Metainfo, piece: u32) -> Vec<Extent> {
    let mut ranges: Vec<Extent> = Vec::new();
    for span in torrent.layout().spans(torrent.piece_range(piece)) {
        match ranges.last_mut() {
            Some(last) if last.end() == span.device.offset => last.len += span.device.len,
            _ => ranges.push(span.device),
        }
    }
    ranges
}

/// Device ranges in a line that stays readable when a piece has thousands of them.
fn show(ranges: &[Extent]) -> String {
    const SHOWN_MAX: usize = 8;
    let mut parts: Vec<String> = ranges
        .iter()
        .take(SHOWN_MAX)
        .map(|part| format!("{:#x}..{:#x}", part.offset, part.end()))
        .collect();
    if ranges.len() > SHOWN_MAX {
        parts.push(format!("and {} more (all with --json)", ranges.len() - SHOWN_MAX));
    }
    parts.join(", ")
}
