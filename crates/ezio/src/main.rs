//! The `ezio` program: arguments in, exit code out.

fn main() {}
