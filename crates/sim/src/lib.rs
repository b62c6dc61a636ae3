//! Deterministic simulator of a swarm of EZIO nodes: one seed, one run.
//!
//! It runs the very [`swarm::swarm::Swarm`] and [`swarm::outbox::Outbox`] that ship, every message
//! through the codec, with virtual time. Modelled: full-duplex network ports behind a switch that
//! never blocks, TCP's window, latency, hashing, disks, and faults. Not modelled: slow start and
//! loss of TCP, processors, switches that are themselves too slow.
//!
//! The network: a sender puts one quantum at a time on its uplink, taking turns among connections
//! that have blocks to send and room in their window; quanta queue first in, first out at the
//! receiver's port and are taken at its rate. Control messages wait for the quantum on the wire,
//! and queue behind the quanta before them. So nobody gets bandwidth from nowhere.
//!
//! After each step, if asked: nothing unverified is stored or served, nothing is stored twice, no
//! lease is lost, budgets are kept. At the end: everybody who could finish has finished.
#![forbid(unsafe_code)]

mod campaign;
mod config;
mod disk;
mod faults;
mod heap;
mod link;
pub mod predict;
mod report;
pub mod rows;
mod scenario;
mod table;
mod world;

pub use campaign::{Campaign, campaign};
pub use config::{Config, Decay, Faults, How, Image, NodeConfig, Partition, Stop};
pub use report::Report;
pub use table::{Case, table};

/// Runs `config` to its end.
///
/// # Panics
/// If a swarm breaks an invariant: print the seed and find the bug.
#[must_use]
pub fn run(config: Config) -> Report {
    world::World::new(config).run()
}
