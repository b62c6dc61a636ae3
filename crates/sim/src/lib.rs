//! Deterministic simulator: one seed, one run.
#![forbid(unsafe_code)]
