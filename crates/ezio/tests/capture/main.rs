//! `ezio capture`, `verify` and `inspect` as a user runs them, on real file systems, loop devices and
//! bad sources, beside the real partclone. One program, so that the tests' waiting overlaps.

mod disk;
mod ezio;
mod file_systems;
mod image_dir;
mod partclone;
mod refusals;
mod sources;
