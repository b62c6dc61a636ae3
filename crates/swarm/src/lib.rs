//! The part of EZIO that decides and never touches the world.
//!
//! No clock, no thread, no I/O, no payload bytes: `no_std` lets the compiler enforce it. What
//! happens comes in as values, what shall be done goes out as values, so the simulator runs the
//! very code that ships.
//!
//! The decisions are in [`swarm`]: an event in, actions out. What peers say is in [`mod@wire`], what
//! one of them shall be sent in [`outbox`]. The formats: [`bencode`] is the notation, [`metainfo`] the
//! `.torrent` file, [`magnet`] a link to one and [`fetch`] how it is got from peers, [`layout`] where an image's bytes live on a device, [`units`] how people write
//! sizes.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bencode;
pub mod bitfield;
pub mod fetch;
pub mod layout;
pub mod magnet;
pub mod metainfo;
pub mod networks;
pub mod outbox;
mod percent;
mod picker;
pub mod random;
pub mod swarm;
pub mod time;
pub mod tracker;
pub mod units;
pub mod wire;
