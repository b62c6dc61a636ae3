//! The program under hostile and failing peers, trackers and signals: the real `ezio` processes
//! against peers and trackers led by hand, on loopback.
//!
//! Whatever the others do: every byte of a target is right, nobody hangs, nobody panics, and those
//! who behave are served.

mod clock;
mod floods;
mod image;
mod leechers;
mod pages;
mod peer;
mod process;
mod processes;
mod seeders;
mod several;
mod tracker;
mod trackers;
mod world;
