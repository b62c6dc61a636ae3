//! Who somebody is, what they have, what they are told about us.

use super::peer::{Kind, Peer};
use super::torrent::Torrent;
use super::{Action, PeerId, Reason, Swarm, TorrentId, Uplink};
use crate::bitfield::Bitfield;
use crate::wire::Message;
use crate::wire::extension::{Coming, HELLO_ID, Hello, XG_ID, Xg};
use crate::wire::metadata::METADATA_ID;
use crate::wire::pex::{PEX_ID, Pex};
use alloc::vec::Vec;
use core::time::Duration;

impl Swarm {
    pub(super) fn on_connected(
        &mut self,
        id: PeerId,
        torrent_id: TorrentId,
        node: u64,
        fast: bool,
        extended: bool,
    ) {
        let Some(torrent) = self.torrents.get_mut(&torrent_id) else {
            self.out.push(Action::Close(id, Reason::Removed));
            return;
        };
        let kind = if extended { Kind::Unknown(self.now + HELLO_WITHIN) } else { Kind::Stranger };
        let mut peer = Peer::new(torrent_id, node, fast, kind, torrent.pieces());
        let wrong = torrent.wrong.range((node, 0)..=(node, u32::MAX));
        peer.bad.extend(wrong.map(|(&(_, piece), &(until, _))| (piece, (until, false))));
        peer.since = self.now;
        let fresh = self.peers.insert(id, peer).is_none();
        assert!(fresh, "connection {id:?} is new twice");
        torrent.peers.insert(id);
        let message = inventory(torrent, fast);
        self.admit(id);
        if !self.peers.contains_key(&id) {
            return;
        }
        if let Some(message) = message {
            self.send(id, message);
        }
        if extended {
            let payload = self.hello(torrent_id).encode();
            self.send(id, Message::Extended { id: HELLO_ID, payload });
        } else {
            self.reveal(id);
        }
        self.dirty = true;
    }

    pub(super) fn on_from(&mut self, id: PeerId, machine: u64) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.machine = Some(machine);
        let Some(peer) = self.peers.get(&id) else { return };
        let alone = self.connections_of(peer).is_none_or(|same| same.len() == 1);
        // Only now it is known that it need not be shown anything of its own.
        if let (false, Some(torrent)) = (alone, self.torrents.get_mut(&peer.torrent))
            && let Some(injection) = &mut torrent.injection
        {
            injection.take_back(id);
            self.dirty = true;
        }
        self.take_back_from_crowds();
    }

    /// Whoever had a source for himself, under many names, had much of it kept for him: now that
    /// somebody else is here it is given to others.
    fn take_back_from_crowds(&mut self) {
        let crowds = self.crowds();
        for (&id, peer) in &self.peers {
            if crowds.iter().any(|crowd| crowd.has(peer))
                && let Some(torrent) = self.torrents.get_mut(&peer.torrent)
                && let Some(injection) = &mut torrent.injection
            {
                injection.take_back(id);
            }
        }
    }

    /// Forgets a connection: what was asked of it is asked of others, what it was given is given
    /// to others.
    pub(super) fn forget(&mut self, id: PeerId) {
        if !self.peers.contains_key(&id) {
            return;
        }
        self.drop_leases(id, false);
        let Some(peer) = self.peers.remove(&id) else { return };
        // A peer has a handful of grants.
        self.slots_used -= peer.grants.len() as u32;
        if let Some(torrent) = self.torrents.get_mut(&peer.torrent) {
            torrent.peers.remove(&id);
            for piece in peer.have.iter() {
                torrent.copies[piece as usize] -= 1;
                if let Some(injection) = &mut torrent.injection
                    && torrent.copies[piece as usize] == 0
                {
                    injection.lose(piece);
                }
            }
            if let Some(injection) = &mut torrent.injection {
                injection.lose_peer(id);
            }
        }
        self.dirty = true;
    }

    pub(super) fn on_message(&mut self, id: PeerId, message: Message) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        match message {
            Message::Choke => self.on_choke(id),
            Message::Unchoke => {
                peer.choking = false;
                self.ask_stranger(id);
            }
            Message::Interested => self.on_interested(id, true),
            Message::NotInterested => self.on_interested(id, false),
            Message::Have(piece) if piece < peer.have.len() => {
                // What it offered before is whole now.
                peer.coming.remove(&piece);
                self.gain(id, piece);
            }
            Message::Have(_) => self.close(id, Reason::Nonsense("a piece behind the end")),
            // BEP 3 wants it first, if at all. aria2 sends one whenever it is shorter than the haves
            // that it stands for, so it is taken like those: it adds, and takes nothing back.
            Message::Bitfield(bytes) => match Bitfield::from_bytes(&bytes, peer.have.len()) {
                Some(field) => self.gain_all(id, field),
                None => self.close(id, Reason::Nonsense("a bitfield of another length")),
            },
            Message::HaveAll if peer.have.all() => {}
            Message::HaveAll => {
                let all = Bitfield::full(peer.have.len());
                self.gain_all(id, all);
            }
            Message::HaveNone => {}
            Message::Reject(block) => self.on_reject(id, block),
            Message::Extended { id: HELLO_ID, payload } => match Hello::decode(&payload) {
                Ok(hello) => self.on_hello(id, &hello),
                Err(_) => self.close(id, Reason::Nonsense("a malformed extended handshake")),
            },
            Message::Extended { id: XG_ID, payload } => match Xg::decode(&payload) {
                Ok(xg) => self.on_xg(id, &xg),
                Err(_) => self.close(id, Reason::Nonsense("a malformed xg message")),
            },
            Message::Extended { id: PEX_ID, payload } => self.on_pex(id, &payload),
            Message::Extended { id: METADATA_ID, payload } => self.on_metadata(id, &payload),
            // Extensions we did not offer, hints we have no use for, and what the reader handles.
            Message::Extended { .. }
            | Message::KeepAlive
            | Message::Port(_)
            | Message::SuggestPiece(_)
            | Message::AllowedFast(_)
            | Message::Request(_)
            | Message::Piece(_)
            | Message::Cancel(_) => {}
        }
    }

    fn on_hello(&mut self, id: PeerId, hello: &Hello) {
        if hello.xg_id.is_some() && self.peers.get(&id).is_some_and(Peer::is_stranger) {
            // One of our own whose first words were long on their way, and which was taken for a
            // stranger meanwhile: what was begun that way ends.
            self.revoke(id);
            self.drop_leases(id, true);
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.rate = hello.rate;
        peer.metadata_id = hello.metadata_id;
        if self.torrents.get(&peer.torrent).is_some_and(|torrent| !torrent.private) {
            let (pex_id, port) = (hello.pex_id, hello.port);
            self.out.push(Action::Met { peer: id, pex_id, port });
        }
        peer.reqq = hello.reqq.unwrap_or(peer.reqq).max(1);
        if let (Kind::Unknown(_) | Kind::Stranger, Some(xg_id)) = (peer.kind, hello.xg_id) {
            peer.kind = Kind::Own { xg_id };
            // Blocks begin and end where units do, whatever the peer has in mind.
            let block = hello.block.clamp(super::UNIT, crate::wire::BLOCK_LEN_MAX);
            peer.block = block - block % super::UNIT;
            peer.source = hello.seed;
            if hello.seed {
                let all = Bitfield::full(peer.have.len());
                self.gain_all(id, all);
            }
            self.tell_lost(id);
        } else {
            self.is_stranger(id);
        }
        self.dirty = true;
    }

    /// Peers of a private torrent were not asked for others.
    fn on_pex(&mut self, id: PeerId, payload: &[u8]) {
        let torrent = self.peers.get(&id).and_then(|peer| self.torrents.get(&peer.torrent));
        if torrent.is_none_or(|torrent| torrent.private) {
            return;
        }
        match Pex::decode(payload) {
            Ok(pex) => self.out.push(Action::Pex(id, pex)),
            Err(_) => self.close(id, Reason::Nonsense("a malformed ut_pex message")),
        }
    }

    /// Settles that a peer knows nothing of `xg`.
    pub(super) fn is_stranger(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if matches!(peer.kind, Kind::Unknown(_)) {
            peer.kind = Kind::Stranger;
            self.admit(id);
            self.reveal(id);
            self.ask_stranger(id);
            self.dirty = true;
        }
    }

    fn on_xg(&mut self, id: PeerId, xg: &Xg) {
        let own = self.uplink();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !peer.is_own() {
            return self.close(id, Reason::Nonsense("an xg message without a handshake for it"));
        }
        if let Some(load) = xg.load {
            peer.load = load;
        }
        if let Some(rate) = xg.rate {
            peer.rate = rate;
            let uplink = match () {
                () if Self::is_slow(rate, own) => Uplink::Slower,
                () if Self::is_slow(own, rate) => Uplink::Faster,
                () => Uplink::Alike,
            };
            if uplink != peer.uplink {
                peer.uplink = uplink;
                self.out.push(Action::Uplink(id, uplink));
            }
        }
        if let Some(piece) = xg.lost {
            self.on_lost(id, piece);
        }
        if let Some(coming) = xg.coming {
            self.on_coming(id, coming);
        }
        if let Some(piece) = xg.wrong {
            self.on_doubt(id, piece);
        }
        if let Some(bytes) = xg.unused {
            self.on_unused(id, bytes);
        }
        if let Some(grant) = xg.grant {
            self.on_grant(id, grant);
        }
        self.dirty = true;
    }

    /// The peer passes on a piece while it comes in. A source hears only of what has arrived.
    fn on_coming(&mut self, id: PeerId, coming: Coming) {
        let own = self.uplink();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(torrent) = self.torrents.get(&peer.torrent) else { return };
        let piece = coming.piece;
        // Through a slow link it comes slower than it can be had whole from others soon.
        let slow = Self::is_slow(peer.rate, own);
        let useless = torrent.injection.is_some() || coming.hops > HOPS_MAX || slow;
        if useless || piece >= peer.have.len() || peer.have.has(piece) {
            return;
        }
        self.gain(id, piece);
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.have.has(piece)
        {
            peer.coming.insert(piece, coming.hops);
        }
    }

    /// A piece cannot be had from the peer any more. If we have it, it may want ours.
    fn on_lost(&mut self, id: PeerId, piece: u32) {
        self.lose(id, piece);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some((_, said)) = peer.bad.get_mut(&piece) {
            // When its ban is over, the peer still does not have it.
            *said = false;
        }
        let Some(torrent) = self.torrents.get(&peer.torrent) else { return };
        if !peer.source && piece < torrent.pieces() && torrent.have.has(piece) {
            self.send(id, Message::Have(piece));
        }
    }

    /// The peer has all of these. What it has said before costs next to nothing: in five bytes it may
    /// say it of millions of pieces, as often as it likes.
    fn gain_all(&mut self, id: PeerId, mut field: Bitfield) {
        let Some(peer) = self.peers.get(&id) else { return };
        field.remove_all(&peer.have);
        for piece in field.iter() {
            self.gain(id, piece);
        }
    }

    /// The peer has `piece`.
    pub(super) fn gain(&mut self, id: PeerId, piece: u32) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(torrent) = self.torrents.get_mut(&peer.torrent) else { return };
        if let Some((_, said)) = peer.bad.get_mut(&piece) {
            *said = true;
            return;
        }
        if !peer.have.insert(piece) {
            return;
        }
        peer.wanted += u32::from(torrent.open.has(piece));
        peer.useful += u32::from(!torrent.have.has(piece));
        torrent.copies[piece as usize] += 1;
        if let Some(injection) = &mut torrent.injection {
            injection.seen(piece);
            if peer.is_stranger() {
                self.reveal(id);
            }
        }
        self.dirty = true;
    }

    /// The peer does not have `piece`, or not a right one.
    pub(super) fn lose(&mut self, id: PeerId, piece: u32) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(torrent) = self.torrents.get_mut(&peer.torrent) else { return };
        if piece >= peer.have.len() || !peer.have.remove(piece) {
            return;
        }
        peer.coming.remove(&piece);
        peer.wanted -= u32::from(torrent.open.has(piece));
        peer.useful -= u32::from(!torrent.have.has(piece));
        torrent.copies[piece as usize] -= 1;
        self.drop_lease(id, piece, false);
        self.dirty = true;
    }

    /// What we say first, and what is only for our own.
    fn hello(&self, torrent: TorrentId) -> Hello {
        let torrent = self.torrents.get(&torrent);
        let metadata_len = torrent.map(|torrent| torrent.metadata_len).filter(|&len| len > 0);
        Hello {
            xg_id: Some(XG_ID),
            metadata_id: metadata_len.map(|_| METADATA_ID),
            metadata_len: metadata_len.map(u64::from),
            pex_id: torrent.filter(|torrent| !torrent.private).map(|_| PEX_ID),
            port: self.config.port,
            reqq: Some(REQQ),
            client: Some(concat!("EZIO ", env!("CARGO_PKG_VERSION")).into()),
            block: self.config.block_max,
            rate: self.uplink_to_tell(),
            seed: torrent.is_some_and(|torrent| torrent.injection.is_some()),
        }
    }

    fn tell_lost(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let Some(torrent) = self.torrents.get(&peer.torrent) else { return };
        if torrent.injection.is_none() {
            return;
        }
        let lost: Vec<u32> = (0..torrent.pieces()).filter(|&p| !torrent.have.has(p)).collect();
        for piece in lost {
            self.send_xg(id, Xg { lost: Some(piece), ..Xg::default() });
        }
    }

    pub(super) fn send_xg(&mut self, id: PeerId, xg: Xg) {
        if let Some(Peer { kind: Kind::Own { xg_id }, .. }) = self.peers.get(&id) {
            self.send(id, Message::Extended { id: *xg_id, payload: xg.encode() });
        }
    }

    /// A piece became open or closed: keeps what depends on it.
    pub(super) fn refresh_open(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.torrents.get_mut(&id) else { return };
        let open = torrent.is_open(piece);
        let changed = if open { torrent.open.insert(piece) } else { torrent.open.remove(piece) };
        if !changed {
            return;
        }
        self.dirty = true;
        for peer in &torrent.peers {
            if let Some(peer) = self.peers.get_mut(peer)
                && peer.have.has(piece)
            {
                peer.wanted = if open { peer.wanted + 1 } else { peer.wanted - 1 };
            }
        }
    }
}

/// The first message: what we have. A source that still injects shows strangers nothing yet, and
/// its own nodes learn from its extended handshake that it has everything.
fn inventory(torrent: &Torrent, fast: bool) -> Option<Message> {
    let hides = torrent.injection.as_ref().is_some_and(|injection| !injection.is_over());
    if torrent.have.none() || hides {
        return fast.then_some(Message::HaveNone);
    }
    if torrent.have.all() && fast {
        return Some(Message::HaveAll);
    }
    Some(Message::Bitfield(torrent.have.to_bytes()))
}

/// How long a peer that knows BEP 10 may take to say whether it knows `xg`. Nothing but its first
/// messages is awaited meanwhile.
const HELLO_WITHIN: Duration = Duration::from_millis(500);

/// A piece that comes in is passed on by so many nodes, one after the other, before it is whole at the
/// first of them.
pub(super) const HOPS_MAX: u8 = 8;

/// Requests we let wait, as told in the extended handshake: 8 MiB in blocks of 16 KiB.
const REQQ: u32 = 512;
