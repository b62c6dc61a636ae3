//! Which piece to ask for next: the whole policy is [`Candidate::rank`].
//!
//! Bookkeeping (what is open, who has what) is in [`crate::swarm`].

use crate::bitfield::Bitfield;
use crate::random::mix;
use core::cmp::Reverse;

/// A piece that could be asked for now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) piece: u32,
    /// Whether some of it is here already.
    pub(crate) started: bool,
    /// Whether our own nodes have left it to this one; see [`mine`].
    pub(crate) mine: bool,
    /// How many connected peers have it.
    pub(crate) copies: u16,
    /// Its place in the order in which pieces that are alike are asked for.
    pub(crate) place: u32,
}

impl Candidate {
    /// The whole policy, best first: finish what is started, then rarest, then from strangers what the
    /// other nodes of ours will not fetch, then in order, so that disks are written in order.
    fn rank(&self) -> impl Ord + use<> {
        (Reverse(self.started), self.copies, Reverse(self.mine), self.place)
    }
}

/// The best of what is both `open` here and had by the peer.
pub(crate) fn pick(
    open: &Bitfield,
    had: &Bitfield,
    candidate: impl Fn(u32) -> Option<Candidate>,
) -> Option<u32> {
    let best = open.iter_both(had).filter_map(candidate).min_by_key(Candidate::rank)?;
    Some(best.piece)
}

/// Whether `piece` falls to `node` among `others`, by highest hash: each piece falls to exactly one
/// node of those who know each other, and most stay where they are when one comes or goes.
pub(crate) fn mine(piece: u32, node: u64, others: impl Iterator<Item = u64>) -> bool {
    let weight = |node: u64| mix(node ^ mix(u64::from(piece)));
    let own = (weight(node), node);
    others.map(|other| (weight(other), other)).all(|other| other <= own)
}

/// Where `piece` comes in the order in which `node` asks strangers: ascending, from a place of its own.
/// Nodes that do not know each other yet, and those that have fetched their own share and take of the
/// others', would all ask for the same otherwise.
pub(crate) fn place(piece: u32, node: u64, pieces: u32) -> u32 {
    // Below the number of pieces, which fits.
    let start = (mix(node) % u64::from(pieces.max(1))) as u32;
    if piece >= start { piece - start } else { piece + (pieces - start) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// `started`, `copies`: a digit for each piece; `-` among the copies: this peer lacks it.
    fn check(started: &str, copies: &str, wanted: Option<u32>) {
        let len = u32::try_from(started.len()).expect("a short picture");
        let (mut open, mut had) = (Bitfield::full(len), Bitfield::new(len));
        let started: Vec<bool> = started.bytes().map(|b| b == b'1').collect();
        let copies: Vec<Option<u32>> = copies.chars().map(|c| c.to_digit(10)).collect();
        for (piece, copies) in (0..).zip(&copies) {
            if copies.is_some() {
                had.insert(piece);
            }
            if *copies == Some(9) {
                open.remove(piece);
            }
        }
        let picked = pick(&open, &had, |piece| {
            Some(Candidate {
                piece,
                started: started[piece as usize],
                mine: true,
                copies: copies[piece as usize].map_or(0, |c| c as u16),
                place: piece,
            })
        });
        assert_eq!(picked, wanted);
    }

    #[test]
    fn started_pieces_come_before_rare_ones() {
        check("0100", "3212", Some(1));
    }

    #[test]
    fn rare_pieces_come_before_common_ones_and_ties_go_in_order() {
        check("0000", "3212", Some(2));
        check("0000", "3222", Some(1));
    }

    #[test]
    fn only_what_is_open_and_had_is_picked() {
        check("0100", "3-12", Some(2));
        check("0000", "9-9-", None);
    }

    #[test]
    fn each_node_goes_round_all_pieces_from_a_place_of_its_own() {
        let order = |node| {
            let mut pieces: Vec<u32> = (0..10).collect();
            pieces.sort_by_key(|&piece| place(piece, node, 10));
            pieces
        };
        let starts: alloc::collections::BTreeSet<u32> =
            (0..100).map(|node| order(node)[0]).collect();
        assert_eq!(starts.len(), 10);
        for node in 0..10 {
            let order = order(node);
            assert!(order.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 10), "{order:?}");
        }
    }

    #[test]
    fn each_piece_falls_to_one_node() {
        let nodes = [3, 5, 8, 13];
        for piece in 0..100 {
            let owners = nodes
                .iter()
                .filter(|&&node| mine(piece, node, nodes.iter().copied().filter(|&n| n != node)));
            assert_eq!(owners.count(), 1);
        }
    }
}
