//! The `ezio` program. Everything is in the library, where tests and fuzz targets reach it.

fn main() -> std::process::ExitCode {
    ezio::cli::main()
}
