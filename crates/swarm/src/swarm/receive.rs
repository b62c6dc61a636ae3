//! The receiving side: what to ask for, from whom, and when to give up.

use super::connect::HOPS_MAX;
use super::peer::{Peer, REQQ_UNSAID};
use super::torrent::{Active, Lease, State, Torrent, UNIT};
use super::{Action, PeerId, Reason, Run, Swarm, TorrentId};
use crate::picker::{self, Candidate};
use crate::wire::extension::{Grant, Xg};
use crate::wire::{Block, Message};
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

impl Swarm {
    /// One of our own nodes lets us ask for something.
    pub(super) fn on_grant(&mut self, id: PeerId, grant: Grant) {
        if grant.bytes == 0 {
            if self.owes_for_long(id) {
                self.strike_for_nothing(id);
            }
            return self.drop_leases(id, false);
        }
        let mut left = grant.bytes;
        let mut named = grant.piece;
        // Who gave nothing may have granted this before it heard that we want nothing of it.
        let avoided = self.peers.get(&id).is_some_and(|peer| self.now < peer.avoid_until);
        while left > 0 && !avoided {
            let leased = match self.next_piece(id, named.take(), left) {
                Some(piece) => self.lease(id, piece, left, false),
                None => self.duplicate(id, left),
            };
            match leased {
                0 => break,
                bytes => left = left.saturating_sub(bytes),
            }
        }
        if left > 0 {
            self.totals.declined += 1;
            self.send_xg(id, Xg { unused: Some(left), ..Xg::default() });
        }
    }

    /// Keeps a stranger that serves us supplied with requests.
    pub(super) fn ask_stranger(&mut self, id: PeerId) {
        loop {
            let Some(peer) = self.peers.get(&id) else { return };
            let limit = self.outstanding_max(peer);
            let avoided = self.now < peer.avoid_until;
            if peer.choking || !peer.is_stranger() || avoided || peer.outstanding >= limit {
                return;
            }
            let room = limit - peer.outstanding;
            if self.ask_more(id, room) > 0 {
                continue;
            }
            let leased = match self.next_piece(id, None, u64::MAX) {
                Some(piece) => self.lease(id, piece, u64::MAX, true),
                None => self.duplicate(id, u64::MAX),
            };
            if leased == 0 {
                return;
            }
        }
    }

    pub(super) fn on_choke(&mut self, id: PeerId) {
        let silent = self.owes_for_long(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.choking = true;
        if !peer.is_stranger() {
            return;
        }
        // With BEP 6 every request is answered or rejected, without it a choke drops them all.
        let drops = !peer.fast;
        if silent {
            self.strike_for_nothing(id);
        }
        if drops {
            self.drop_leases(id, false);
        }
    }

    /// A peer let us ask, gave nothing for long, and takes the turn back. It may do so, but not again
    /// and again.
    fn strike_for_nothing(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.strikes += 1;
        if peer.strikes > 1 {
            peer.avoid_until = self.now + AVOID * peer.strikes.min(AVOID_MOST);
        }
    }

    /// Whether something was asked of `id` a while ago, and nothing of it came.
    fn owes_for_long(&self, id: PeerId) -> bool {
        let torrent = self.peers.get(&id).and_then(|peer| self.torrents.get(&peer.torrent));
        let owes = |lease: &Lease| lease.peer == id && self.now.since(lease.progress) > STALL;
        torrent.is_some_and(|torrent| torrent.leases().any(owes))
    }

    /// The peer will not serve a request: it gets none of that piece's others either, and one that
    /// serves us otherwise is not asked for that piece again at once.
    pub(super) fn on_reject(&mut self, id: PeerId, block: Block) {
        self.drop_lease(id, block.piece, true);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.is_stranger() && !peer.choking && block.piece < peer.have.len() {
            self.lose(id, block.piece);
            let until = self.now + REJECTED_FOR;
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.bad.insert(block.piece, (until, true));
            }
        }
        self.ask_stranger(id);
    }

    /// Asks every stranger that serves us and is owed less than it lets wait: room may have come.
    pub(super) fn ask_strangers(&mut self) {
        let idle = |(_, peer): &(&PeerId, &Peer)| peer.is_stranger() && !peer.choking;
        let ids: Vec<PeerId> = self.peers.iter().filter(idle).map(|(&id, _)| id).collect();
        ids.into_iter().for_each(|id| self.ask_stranger(id));
    }

    pub(super) fn on_received(&mut self, id: PeerId, piece: u32, begin: u32, len: u32) {
        self.totals.received += u64::from(len);
        self.down.add(u64::from(len));
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else {
            // It was sent away, perhaps for its wrong bytes: nobody may keep these.
            self.totals.wasted += u64::from(len);
            return;
        };
        let torrent_id = peer.torrent;
        peer.received += u64::from(len);
        let Some(torrent) = self.torrents.get_mut(&torrent_id) else { return };
        let range = begin / UNIT..(u64::from(begin) + u64::from(len)).div_ceil(UNIT.into()) as u32;
        let Some(active) = torrent.active.get_mut(&piece) else {
            self.totals.wasted += u64::from(len);
            return;
        };
        if active.lease_of(id).is_none() {
            self.totals.wasted += u64::from(len);
            return;
        }
        let mut silent = Duration::ZERO;
        for lease in active.leases.iter_mut().filter(|lease| lease.peer == id) {
            silent = silent.max(now.since(lease.progress));
            (lease.progress, lease.heard) = (now, self.totals.received);
        }
        self.patience.heard_after(silent);
        let mut fresh = false;
        for unit in range.start..range.end.min(active.units.len()) {
            fresh |= active.units.insert(unit);
        }
        if !fresh {
            self.totals.wasted += u64::from(len);
            return;
        }
        active.sources.insert(id);
        let offer = !active.offered && !active.sole && active.hops <= HOPS_MAX;
        if offer {
            active.offered = true;
            torrent.arriving.push(piece);
        }
        peer.outstanding = peer.outstanding.saturating_sub(range.len() as u32);
        peer.strikes = 0;
        if active.leases.len() > 1 {
            self.cancel_copies(torrent_id, piece, id, &range);
        }
        self.end_leases(torrent_id, piece);
        // It may have come of a lease that was given up, and fill another gap.
        self.refresh_open(torrent_id, piece);
        if offer {
            self.dirty = true;
            self.announce_soon();
        }
        self.ask_stranger(id);
    }

    /// Tells every peer whose answer changed whether we want something of it.
    pub(super) fn tell_interest(&mut self) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.peers.get(&id) else { continue };
            let load = self.wish(id, peer);
            let (told, told_load, own) = (peer.told_interested, peer.told_load, peer.is_own());
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            match load {
                None if told => {
                    peer.told_interested = false;
                    self.send(id, Message::NotInterested);
                }
                None => {}
                Some(load) => {
                    peer.told_interested = true;
                    peer.told_load = load;
                    if own && (load != told_load || !told) {
                        self.send_xg(id, Xg { load: Some(load), ..Xg::default() });
                    }
                    if !told {
                        self.send(id, Message::Interested);
                    }
                }
            }
        }
    }

    /// Whether we want something of `peer`, and how full our hands are.
    fn wish(&self, id: PeerId, peer: &Peer) -> Option<u8> {
        let torrent = self.torrents.get(&peer.torrent)?;
        if torrent.paused {
            return None;
        }
        if !peer.is_own() {
            // Strangers choke at once whom they think uninterested, so this does not flicker.
            return (peer.useful > 0).then_some(0);
        }
        if self.now < peer.avoid_until {
            return None;
        }
        if peer.wanted > 0 {
            let may = self.has_room(torrent, 0) || torrent.begun_at(peer);
            return may.then(|| self.load(torrent));
        }
        // Served when nobody else wants anything.
        self.late_lease(id, peer, torrent).map(|_| u8::MAX)
    }

    /// How full our hands are: 255 is full. Few large pieces may fill the budget below the cap.
    fn load(&self, torrent: &Torrent) -> u8 {
        let by_bytes = self.config.budget / 2 / u64::from(torrent.piece_len);
        let most = u64::from(self.cap).min(by_bytes).max(1);
        u8::try_from(u64::from(self.in_flight) * 255 / most).unwrap_or(u8::MAX)
    }

    /// Whether another piece of `torrent` may be begun, `slack` above the cap.
    pub(super) fn has_room(&self, torrent: &Torrent, slack: u32) -> bool {
        if torrent.in_flight == 0
            && self.in_flight_bytes + u64::from(torrent.piece_len) <= self.config.budget
        {
            return true;
        }
        let bytes = self.in_flight_bytes + u64::from(torrent.piece_len);
        self.in_flight < self.cap + slack && bytes <= self.config.budget / 2
    }

    /// What to take a turn of `left` bytes for: the piece the granter named, or our choice.
    fn next_piece(&self, id: PeerId, named: Option<u32>, left: u64) -> Option<u32> {
        let peer = self.peers.get(&id)?;
        let torrent = self.torrents.get(&peer.torrent)?;
        if torrent.paused {
            return None;
        }
        let named = named.filter(|&piece| {
            torrent.open.has(piece) && peer.have.has(piece) && comes_over(torrent, peer, piece)
        });
        let room = self.has_room(torrent, SLACK);
        let fits = |piece: u32| match torrent.active.get(&piece) {
            Some(active) => !self.waits_for_another(id, piece, active),
            None => room && u64::from(torrent.size(piece)) <= left,
        };
        match named {
            Some(piece) => fits(piece).then_some(piece),
            None => self.pick(peer, torrent, fits),
        }
    }

    /// Whether `piece` has to come whole from one peer, which is not `id`, has sent some of it and may go
    /// on. Over a slow link none gets to the end in its turn if the next one always begins anew.
    fn waits_for_another(&self, id: PeerId, piece: u32, active: &Active) -> bool {
        let may_go_on =
            |source: &PeerId| self.peers.get(source).is_some_and(|peer| peer.have.has(piece));
        active.sole
            && self.now < active.faithful.0
            && !active.sources.contains(&id)
            && active.sources.iter().any(may_go_on)
    }

    fn pick(&self, peer: &Peer, torrent: &Torrent, fits: impl Fn(u32) -> bool) -> Option<u32> {
        let stranger = peer.is_stranger();
        let others: Vec<u64> = if stranger { self.own_nodes(torrent) } else { Vec::new() };
        let place = |piece| match stranger {
            true => picker::place(piece, self.config.node, torrent.pieces()),
            false => piece,
        };
        picker::pick(&torrent.open, &peer.have, |piece| {
            (fits(piece) && comes_over(torrent, peer, piece)).then(|| Candidate {
                piece,
                started: torrent.active.contains_key(&piece),
                mine: !stranger || picker::mine(piece, self.config.node, others.iter().copied()),
                copies: torrent.copies[piece as usize],
                place: place(piece),
            })
        })
    }

    /// The nodes of ours that still lack something of `torrent`.
    fn own_nodes(&self, torrent: &Torrent) -> Vec<u64> {
        let peers = torrent.peers.iter().filter_map(|id| self.peers.get(id));
        peers.filter(|peer| peer.is_own() && !peer.have.all()).map(|peer| peer.node).collect()
    }

    /// Asks `id` for the first open run of `piece`, at most `left` bytes. Returns the bytes. Unless
    /// it is `gradual`, all is requested at once.
    fn lease(&mut self, id: PeerId, piece: u32, left: u64, gradual: bool) -> u64 {
        let now = self.now;
        let Some(peer) = self.peers.get(&id) else { return 0 };
        let torrent_id = peer.torrent;
        let Some(torrent) = self.torrents.get_mut(&torrent_id) else { return 0 };
        let (units, size) = (torrent.units(piece), u64::from(torrent.size(piece)));
        let fresh = !torrent.active.contains_key(&piece);
        let sole = torrent.suspects.contains(&piece);
        let begin = || Active { sole, ..Active::new(units) };
        let active = torrent.active.entry(piece).or_insert_with(begin);
        if active.hops == 0 {
            active.hops = peer.hops(piece).saturating_add(1);
        }
        let restart = active.sole && active.sources.iter().any(|&source| source != id);
        if restart {
            (active.units, active.sources) =
                (crate::bitfield::Bitfield::new(units), <_>::default());
            self.out.push(Action::Discard(torrent_id, piece));
        }
        if active.sole && active.sources.is_empty() {
            let (until, wait) = active.faithful;
            if now >= until {
                active.faithful = (now + wait, wait * 2);
            }
        }
        // An open piece has a gap: `next_piece` looked.
        let Some(gap) = active.gap() else { return 0 };
        let most = u32::try_from(left / u64::from(UNIT)).unwrap_or(u32::MAX);
        let end = if left >= size { gap.end } else { gap.end.min(gap.start.saturating_add(most)) };
        let run = gap.start..end;
        if fresh {
            torrent.in_flight += 1;
            self.in_flight += 1;
            self.in_flight_bytes += size;
        }
        if run.is_empty() {
            // A rest of less than a unit: nothing was begun, as a fresh piece has to fit.
            return 0;
        }
        self.make_room();
        self.put_lease(id, piece, run, now, gradual, false)
    }

    /// Near the end: asks `id` for what somebody else is late with. Returns the bytes.
    fn duplicate(&mut self, id: PeerId, left: u64) -> u64 {
        let Some(peer) = self.peers.get(&id) else { return 0 };
        let Some(torrent) = self.torrents.get(&peer.torrent) else { return 0 };
        let Some((piece, run)) = self.late_lease(id, peer, torrent) else { return 0 };
        let bytes = u64::from(torrent.bytes(piece, &run));
        if bytes > left || self.in_flight_bytes + bytes > self.config.budget {
            return 0;
        }
        let gradual = peer.is_stranger();
        self.in_flight_bytes += bytes;
        self.make_room();
        self.put_lease(id, piece, run, self.now, gradual, true)
    }

    /// Endgame: when everything was asked for, the first run of the piece that will come last, if
    /// `id` has it and it is late: slower than twice what a piece takes when all goes well.
    fn late_lease(&self, id: PeerId, peer: &Peer, torrent: &Torrent) -> Option<(u32, Range<u32>)> {
        if !torrent.open.none() || torrent.paused {
            return None;
        }
        let patience = self.piece_time(torrent.piece_len) * (2 * self.cap);
        let late = |active: &Active| {
            let lease = active.leases.first()?;
            let alone = active.leases.len() == 1 && !active.sole && lease.peer != id;
            let waiting = lease.waiting(&active.units);
            let done = (lease.units.len() as u32).saturating_sub(waiting);
            let age = self.now.since(lease.began);
            let expected = if done == 0 { age * 4 } else { age / done * waiting };
            (alone && waiting > 0 && expected > patience).then_some(expected)
        };
        let whole = |piece: u32| peer.have.has(piece) && peer.hops(piece) == 0;
        let candidates = torrent.active.iter().filter(|(piece, _)| whole(**piece));
        let (_, piece, active) = candidates
            .filter_map(|(&piece, active)| late(active).map(|expected| (expected, piece, active)))
            .max_by_key(|(expected, piece, _)| (*expected, *piece))?;
        Some((piece, active.absent()?))
    }

    fn put_lease(
        &mut self,
        id: PeerId,
        piece: u32,
        units: Range<u32>,
        now: crate::time::Time,
        gradual: bool,
        duplicate: bool,
    ) -> u64 {
        let Some(peer) = self.peers.get(&id) else { return 0 };
        let torrent_id = peer.torrent;
        let Some(torrent) = self.torrents.get_mut(&torrent_id) else { return 0 };
        let bytes = u64::from(torrent.bytes(piece, &units));
        let Some(active) = torrent.active.get_mut(&piece) else { return 0 };
        let asked_to = units.start;
        active.leases.push(Lease {
            peer: id,
            units,
            asked_to,
            began: now,
            progress: now,
            heard: self.totals.received,
            duplicate,
        });
        if !gradual {
            self.ask_more(id, u32::MAX);
        }
        self.refresh_open(torrent_id, piece);
        self.dirty = true;
        bytes
    }

    /// Requests up to `room` units of what is leased from `id` and not requested yet. Returns how
    /// many.
    fn ask_more(&mut self, id: PeerId, room: u32) -> u32 {
        let own_block = self.block_len();
        let Some(peer) = self.peers.get_mut(&id) else { return 0 };
        let block = if peer.is_own() { own_block.min(peer.block) } else { UNIT };
        let Some(torrent) = self.torrents.get_mut(&peer.torrent) else { return 0 };
        let mut asked = 0;
        let mut leased: Vec<(u32, Range<u32>)> = Vec::new();
        for (&piece, active) in &mut torrent.active {
            for lease in active.leases.iter_mut().filter(|lease| lease.peer == id) {
                let end = lease.units.end.min(lease.asked_to.saturating_add(room - asked));
                if lease.asked_to < end {
                    asked += end - lease.asked_to;
                    leased.push((piece, lease.asked_to..end));
                    lease.asked_to = end;
                }
            }
            if asked == room {
                break;
            }
        }
        for (piece, units) in leased {
            let (begin, len) = (torrent.offset(piece, units.start), torrent.bytes(piece, &units));
            self.out.push(Action::Request(id, Run { piece, begin, len, block }));
        }
        peer.outstanding += asked;
        asked
    }

    /// Some of a piece came that others were asked for, too.
    fn cancel_copies(&mut self, id: TorrentId, piece: u32, from: PeerId, units: &Range<u32>) {
        let block = self.block_len();
        let Some(torrent) = self.torrents.get(&id) else { return };
        let Some(active) = torrent.active.get(&piece) else { return };
        let others = active.leases.iter().filter(|lease| lease.peer != from);
        let asked = others.map(|lease| {
            let end = units.end.min(lease.asked_to);
            (lease.peer, units.start.max(lease.units.start)..end)
        });
        let asked: Vec<_> = asked
            .filter(|(_, units)| units.start < units.end)
            .map(|(peer, units)| {
                let len = torrent.bytes(piece, &units);
                (peer, torrent.offset(piece, units.start), len, units.len() as u32)
            })
            .collect();
        for (other, begin, len, units) in asked {
            let Some(peer) = self.peers.get_mut(&other) else { continue };
            peer.outstanding = peer.outstanding.saturating_sub(units);
            let block = if peer.is_own() { block.min(peer.block) } else { UNIT };
            self.out.push(Action::Cancel(other, Run { piece, begin, len, block }));
        }
    }

    /// Ends the leases of `piece` that wait for nothing more; all here: has it verified.
    fn end_leases(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.torrents.get_mut(&id) else { return };
        let Some(active) = torrent.active.get_mut(&piece) else { return };
        let Active { units, leases, .. } = active;
        let before = leases.len();
        let mut copies = Vec::new();
        leases.retain(|lease| {
            let waits = lease.waiting(units) > 0;
            if !waits && lease.duplicate {
                copies.push(lease.units.clone());
            }
            waits
        });
        let (ended, whole) = (leases.len() < before, units.all());
        for copy in copies {
            self.in_flight_bytes -= u64::from(torrent.bytes(piece, &copy));
        }
        if whole {
            *torrent.state(piece) = State::Verifying;
            self.out.push(Action::Verify(id, piece));
        }
        if ended {
            self.dirty = true;
            self.refresh_open(id, piece);
        }
    }

    /// Gives up everything `id` was asked for. `cancel`: and tells it so.
    pub(super) fn drop_leases(&mut self, id: PeerId, cancel: bool) {
        let Some(peer) = self.peers.get(&id) else { return };
        let Some(torrent) = self.torrents.get(&peer.torrent) else { return };
        let leased = torrent.active.iter().filter(|(_, active)| active.lease_of(id).is_some());
        let pieces: Vec<u32> = leased.map(|(&piece, _)| piece).collect();
        for piece in pieces {
            self.drop_lease(id, piece, cancel);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.outstanding = 0;
        }
    }

    /// Gives up what `id` was asked for of `piece`, which may be several runs.
    pub(super) fn drop_lease(&mut self, id: PeerId, piece: u32, cancel: bool) {
        while self.drop_run(id, piece, cancel) {}
    }

    /// Gives up one run. Returns whether there was one.
    fn drop_run(&mut self, id: PeerId, piece: u32, cancel: bool) -> bool {
        let own_block = self.block_len();
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        let torrent_id = peer.torrent;
        let Some(torrent) = self.torrents.get_mut(&torrent_id) else { return false };
        let block = if peer.is_own() { own_block.min(peer.block) } else { UNIT };
        let Some(active) = torrent.active.get_mut(&piece) else { return false };
        let Some(at) = active.lease_of(id) else { return false };
        let lease = active.leases.remove(at);
        let unheard = active.leases.is_empty() && active.units.none();
        let waiting: Vec<u32> =
            (lease.units.start..lease.asked_to).filter(|&u| !active.units.has(u)).collect();
        if let (Some(&first), Some(&last)) = (waiting.first(), waiting.last()) {
            let (begin, len) =
                (torrent.offset(piece, first), torrent.bytes(piece, &(first..last + 1)));
            peer.outstanding = peer.outstanding.saturating_sub(waiting.len() as u32);
            if cancel {
                self.out.push(Action::Cancel(id, Run { piece, begin, len, block }));
            }
        }
        if lease.duplicate {
            self.in_flight_bytes -= u64::from(torrent.bytes(piece, &lease.units));
        }
        if unheard {
            self.retire(torrent_id, piece);
        }
        self.refresh_open(torrent_id, piece);
        self.dirty = true;
        true
    }

    /// A piece is no longer on its way.
    pub(super) fn retire(&mut self, id: TorrentId, piece: u32) {
        let Some(torrent) = self.torrents.get_mut(&id) else { return };
        if torrent.active.remove(&piece).is_some() {
            let size = u64::from(torrent.size(piece));
            torrent.in_flight -= 1;
            self.in_flight -= 1;
            self.in_flight_bytes -= size;
        }
    }

    /// Gives up leases without progress; whoever does that again and again is replaced.
    pub(super) fn drop_stalled_leases(&mut self) {
        let mut stalled = Vec::new();
        let mut came = u64::MAX;
        for torrent in self.torrents.values() {
            let own = self.stall_after(torrent.piece_len);
            for (&piece, active) in &torrent.active {
                for lease in &active.leases {
                    let own_peer = self.peers.get(&lease.peer).is_some_and(Peer::is_own);
                    let patience = if own_peer { own } else { own.max(STRANGER_STALL) };
                    if self.now.since(lease.progress) > patience {
                        stalled.push((lease.peer, piece));
                        came = came.min(self.totals.received - lease.heard);
                    }
                }
            }
        }
        let asked: u64 = self.peers.values().map(|peer| u64::from(peer.outstanding)).sum();
        let several = stalled.iter().any(|(id, _)| *id != stalled[0].0);
        if several && came < asked * u64::from(UNIT) {
            // It may still wait behind the rest of what was asked for: then the link was too slow for
            // us, and not the peers. One that is silent alone is to blame itself.
            let longest = self.torrents.values().map(|torrent| torrent.piece_len).max();
            self.patience.was_short(self.stall_after(longest.unwrap_or(0)));
        }
        for (id, piece) in stalled {
            self.totals.stalled += 1;
            self.drop_lease(id, piece, true);
            if self.peers.get(&id).is_some_and(|peer| peer.hops(piece) > 0) {
                self.end_offer(id, piece);
                continue;
            }
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if self.now < peer.avoid_until {
                // The others of its leases stalled in the same silence.
                continue;
            }
            peer.strikes += 1;
            peer.avoid_until = self.now + AVOID * peer.strikes;
            if peer.strikes >= STRIKES {
                self.close(id, Reason::Silent);
            }
        }
    }

    /// A peer that passes a piece on got no more of it: it waits itself, which is no fault of its
    /// own, unless that is all that ever comes of it. It will say when it has the piece.
    fn end_offer(&mut self, id: PeerId, piece: u32) {
        self.lose(id, piece);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.strikes += 1;
        if peer.strikes >= OFFER_STRIKES {
            self.close(id, Reason::Silent);
        }
    }

    /// How long our own nodes may be silent with a lease: eight pieces' time, as links and disks
    /// hiccup, but at least a second, longer where that was too short, and never longer than
    /// keep-alives take.
    pub(super) fn stall_after(&self, piece_len: u32) -> Duration {
        if self.down.peak == 0 {
            STRANGER_STALL
        } else {
            (self.piece_time(piece_len) * 8).max(self.patience.least()).clamp(STALL, STALL_MAX)
        }
    }

    /// How long a piece takes at our full downlink; a second if nothing is known of it.
    pub(super) fn piece_time(&self, piece_len: u32) -> Duration {
        match self.config.downlink.max(self.down.peak) {
            0 => Duration::from_secs(1),
            rate => Duration::from_nanos(u64::from(piece_len) * 1_000_000_000 / rate),
        }
    }

    /// Units a stranger may owe us: a MiB, or 20 ms of what it gives, within what it lets wait. Each
    /// is a request, a short one at a piece's end as well.
    fn outstanding_max(&self, peer: &Peer) -> u32 {
        let deep = (1 << 20).max(self.down.rate / 50) / u64::from(UNIT);
        u32::try_from(deep).unwrap_or(u32::MAX).min(peer.reqq.min(REQQ_UNSAID))
    }

    /// The block to ask our own nodes for: about 8 ms of the link.
    fn block_len(&self) -> u32 {
        let rate = self.config.downlink.max(self.down.peak);
        let bytes = u32::try_from(rate / 125).unwrap_or(u32::MAX).max(UNIT);
        // The power of two at or below.
        let power = 1_u32 << (31 - bytes.leading_zeros());
        power.clamp(UNIT, self.config.block_max.max(UNIT))
    }
}

/// Whether `piece` may be asked of `peer`, which has or offers it.
fn comes_over(torrent: &Torrent, peer: &Peer, piece: u32) -> bool {
    let hops = peer.hops(piece);
    match torrent.active.get(&piece) {
        Some(active) => active.may_come_over(hops),
        None => hops == 0 || !torrent.suspects.contains(&piece),
    }
}

/// Pieces above the cap that a grant may still begin: grants cross on the wire with the message
/// that says the hands are full.
const SLACK: u32 = 1;

/// Least silence of our own nodes that counts.
const STALL: Duration = Duration::from_secs(1);

/// A silence that is long on any link: BEP 3's keep-alives come every two minutes.
const STALL_MAX: Duration = Duration::from_secs(120);

/// Least silence of strangers that counts: some wait for disks and round-robins of their own.
pub(super) const STRANGER_STALL: Duration = Duration::from_secs(10);

/// A piece a stranger rejected is not asked for again of it for that long.
const REJECTED_FOR: Duration = Duration::from_secs(2);

/// Who stalled is not asked for anything for that long, times its strikes in a row.
const AVOID: Duration = Duration::from_secs(2);

/// What strikes for choking count at most.
const AVOID_MOST: u32 = 8;

/// So many silences in a row, and it is replaced.
const STRIKES: u32 = 3;

/// So many offers in a row of which nothing more comes, and it is replaced: several stop at once
/// where a node further up has gone.
const OFFER_STRIKES: u32 = 32;
