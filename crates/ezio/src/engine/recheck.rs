//! Looks for pieces that are on a target already: of an interrupted run, or of an older image.

use super::{Carried, Input, Inputs};
use crate::hashing::Hashing;
use crate::panics::or_abort;
use crate::store::SomePieces;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Hashes the pieces `check`, ascending, on all cores and tells the scheduler of each. Ends soon
/// after `stop` is set. Should it panic, the process ends: pieces that nobody has looked at would be
/// waited for without end.
pub(super) fn run(carried: &Carried, check: &[u32], stop: &AtomicBool, inputs: &Inputs) {
    or_abort(|| look(carried, check, stop, inputs));
}

fn look(carried: &Carried, check: &[u32], stop: &AtomicBool, inputs: &Inputs) {
    let metainfo = &carried.metainfo;
    let len = check.iter().filter_map(|&piece| carried.piece_len(piece)).map(u64::from).sum();
    let hashing = Hashing {
        store: &SomePieces::new(&*carried.store, metainfo.piece_len(), check),
        image_len: len,
        piece_len: metainfo.piece_len(),
        done: &AtomicU64::new(0),
        stop,
        tee: None,
    };
    let outcome = hashing.run(|index, result| {
        // An index of the list, which is in memory.
        let piece = check[index as usize];
        // What cannot be read is not there: it is fetched, and writing it may mend the disk.
        let right = result.is_ok_and(|digest| digest == metainfo.piece_hash(piece));
        inputs.send(Input::Checked { torrent: carried.id, piece, right });
        true
    });
    // Only the tee can fail, and there is none.
    debug_assert!(outcome.is_ok(), "{outcome:?}");
}

/// Reads a piece that others have found wrong, and tells the scheduler if it is. Ends soon after
/// `stop` is set.
pub(super) fn again(carried: &Carried, piece: u32, stop: &AtomicBool, inputs: &Inputs) {
    let metainfo = &carried.metainfo;
    let Some(len) = carried.piece_len(piece) else { return };
    let list = [piece];
    let hashing = Hashing {
        store: &SomePieces::new(&*carried.store, metainfo.piece_len(), &list),
        image_len: len.into(),
        piece_len: metainfo.piece_len(),
        done: &AtomicU64::new(0),
        stop,
        tee: None,
    };
    let outcome = hashing.run(|_, result| {
        let torrent = carried.id;
        match result {
            Ok(digest) if digest == metainfo.piece_hash(piece) => {}
            Ok(_) => inputs.send(Input::Rotten { torrent, piece }),
            Err(error) => inputs.send(Input::Unreadable { torrent, piece, error }),
        }
        true
    });
    // Only the tee can fail, and there is none.
    debug_assert!(outcome.is_ok(), "{outcome:?}");
}
