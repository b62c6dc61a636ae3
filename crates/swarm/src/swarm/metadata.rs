//! Handing out the torrent itself: its `info` dictionary, to peers that have only its hash (BEP 9).

use super::{Action, PeerId, Reason, Swarm};
use crate::wire::Message;
use crate::wire::metadata::{METADATA_PIECE_LEN, Metadata};

impl Swarm {
    /// We have it from the beginning, so only requests matter. They come from any peer, whether or
    /// not it is served blocks: it cannot want any yet.
    pub(super) fn on_metadata(&mut self, id: PeerId, payload: &[u8]) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(torrent) = self.torrents.get(&peer.torrent) else { return };
        let piece = match Metadata::decode(payload) {
            Ok(Metadata::Request(piece)) => piece,
            Ok(_) => return,
            Err(_) => return self.close(id, Reason::Nonsense("a malformed ut_metadata message")),
        };
        // Without an id for them it does not want to hear answers.
        let Some(metadata_id) = peer.metadata_id else { return };
        let count = torrent.metadata_len.div_ceil(METADATA_PIECE_LEN);
        if piece < count && peer.metadata_given < count.saturating_mul(GIVEN_MAX) {
            peer.metadata_given += 1;
            self.out.push(Action::Metadata { peer: id, id: metadata_id, piece });
        } else {
            let payload = Metadata::Reject(piece).encode();
            self.send(id, Message::Extended { id: metadata_id, payload });
        }
    }
}

/// How often a peer is handed everything on one connection: again after a failed attempt, not for
/// ever.
const GIVEN_MAX: u32 = 3;
