//! EZIO puts one disk image on many machines.
//!
//! This crate touches the world and decides little: it reads and writes devices, runs `partclone`,
//! talks to people. What a `.torrent` means, and later what a node does next, is decided in
//! [`swarm`]. The library exists for the binary, the tests and the fuzz targets; it promises no
//! stable interface.
#![deny(unsafe_code)]

pub mod capture;
pub mod clear;
pub mod cli;
pub mod control;
pub mod demo;
pub mod deploy;
pub mod device;
pub mod doctor;
pub mod engine;
pub mod hashing;
pub mod inspect;
pub mod legacy;
pub mod logs;
pub mod magnet;
mod names;
pub mod node;
mod panics;
pub mod preflight;
mod screen;
pub mod serve;
pub mod sha1;
pub mod signatures;
pub mod simulate;
pub mod store;
pub mod ui;
pub mod verify;
pub mod watch;
