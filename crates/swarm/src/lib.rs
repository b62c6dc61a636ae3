//! The part of EZIO that decides and never touches the world.
//!
//! No clock, no thread, no I/O, no payload bytes: `no_std` lets the compiler enforce it. What
//! happens comes in as values, what shall be done goes out as values, so the simulator runs the
//! very code that ships.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
