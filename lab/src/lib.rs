//! What the tests stand on: loop devices, real file systems, and skips that say why.
#![forbid(unsafe_code)]
