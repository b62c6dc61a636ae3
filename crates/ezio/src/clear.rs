//! `ezio clear`: zeros over what the image of a torrent covers on a device or file, and over nothing
//! else. What the same image is put on again then comes from the network, all of it.

use crate::inspect;
use crate::preflight::{self, Checks};
use crate::store::io_reason;
use crate::ui::Ui;
use anyhow::{anyhow, ensure};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use swarm::units::Bytes;

/// Written at a time.
const PORTION: usize = 1 << 20;

/// Zeros the extents of the torrent `torrent_path` in `path`, and returns when that is on the medium.
///
/// # Errors
/// Whatever a deployment would be refused for, a missing file or a directory, and what the kernel
/// says; or `stop` was set: then a part is zeros.
pub fn run(
    torrent_path: &Path,
    path: &Path,
    checks: Checks,
    ui: Ui,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let torrent = inspect::load(torrent_path)?;
    let shown = path.display();
    let metadata = std::fs::metadata(path);
    let metadata = metadata.map_err(|e| anyhow!("open {shown}: {}", io_reason(&e)))?;
    ensure!(!metadata.is_dir(), "{shown} is a directory; remove its block files yourself");
    let opened = preflight::open(path, &torrent, checks)?;
    opened.notes.iter().for_each(|note| ui.note(note));
    let total = torrent.layout().image_len();
    let progress = ui.progress("clear", total);
    let zeros = vec![0; PORTION];
    let mut at = 0;
    while at < total {
        ensure!(!stop.load(Ordering::Relaxed), "interrupted; {} of {shown} are zeros", Bytes(at));
        // At most a portion.
        let len = (total - at).min(PORTION as u64);
        opened.store.write(at, &[&zeros[..len as usize]])?;
        at += len;
        progress.done.store(at, Ordering::Relaxed);
    }
    opened.store.finish()?;
    drop(progress);
    let extents = torrent.layout().extents().len();
    let text = format!("{shown}: {} in {extents} extents are zeros", Bytes(total));
    ui.result(&text, json!({ "target": path.to_string_lossy(), "bytes": total }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm::layout::{Extent, Layout};
    use swarm::metainfo::Draft;

    const UI: Ui = Ui { json: false, quiet: true, verbose: false };

    #[test]
    fn only_what_the_image_covers_becomes_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let extents = [(5, 3_000_001), (0x40_0000, 7)].map(|(offset, len)| Extent { offset, len });
        let layout = Layout::new(extents.to_vec()).unwrap();
        let piece_len = 64 << 10;
        let pieces = layout.image_len().div_ceil(u64::from(piece_len)) as usize;
        let draft = Draft {
            name: &["x"],
            layout: &layout,
            piece_len,
            hashes: &vec![[1; 20]; pieces],
            trackers: &[],
            created_by: None,
            creation_date: None,
            origin: None,
        };
        let (torrent, disk) = (dir.path().join("x.torrent"), dir.path().join("disk"));
        std::fs::write(&torrent, draft.encode()).unwrap();
        let clear =
            |path: &Path, stop| run(&torrent, path, Checks::default(), UI, &AtomicBool::new(stop));
        let missing = dir.path().join("missing");
        assert!(clear(&missing, false).unwrap_err().to_string().contains("No such file"));
        assert!(!missing.exists() && clear(dir.path(), false).is_err());

        let mut wanted = vec![0xEE; 5 << 20];
        std::fs::write(&disk, &wanted).unwrap();
        assert!(clear(&disk, true).unwrap_err().to_string().starts_with("interrupted"));
        assert_eq!(std::fs::read(&disk).unwrap(), wanted, "nothing was written yet");
        clear(&disk, false).unwrap();
        for Extent { offset, len } in extents {
            wanted[offset as usize..(offset + len) as usize].fill(0);
        }
        assert!(std::fs::read(&disk).unwrap() == wanted);
    }
}
