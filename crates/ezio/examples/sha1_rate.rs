//! Prints the rate of each SHA-1 kernel on one core, and RustCrypto's `sha1` beside it.
//!
//! `cargo run --release --example sha1_rate`. Figures are GB/s (10^9 bytes), the median of five
//! runs; the first two columns hash the same data again and again, the last reads it from memory.

use ezio::sha1::{Hasher, Kernel, LANES_MAX, Plan, plan};
use sha1::{Digest, Sha1};
use std::hint::black_box;
use std::time::Instant;

/// Bytes of one message: in the caches of a core, nearly so with sixteen lanes, and not at all.
const LENS: [usize; 3] = [16 << 10, 64 << 10, 16 << 20];

/// Bytes hashed for one figure at least.
const WORK: usize = 256 << 20;

fn main() {
    let begin = Instant::now();
    println!("{}", plan());
    println!("measured in {:.1} ms\n", begin.elapsed().as_secs_f64() * 1e3);

    // Lines that differ, so that no two lanes read the same page.
    let memory: Vec<u8> = (0..LENS[2] * LANES_MAX).map(|i| (i / 64 % 251) as u8).collect();
    println!("{:22} {:>8} {:>8} {:>8}", "GB/s", "16 KiB", "64 KiB", "16 MiB");
    for kernel in Kernel::ALL {
        match Plan::only(kernel) {
            None => println!("{kernel:22} skipped: this CPU lacks it"),
            Some(plan) => print_row(&kernel.to_string(), &memory, kernel.lanes(), &plan),
        }
    }
    print_rust_crypto(&memory);
    println!();
    for messages in 1..=LANES_MAX {
        let expected = plan().rate(messages) as f64 / 1e9;
        let name = format!("{messages} planned for {expected:.1}");
        print_row(&name, &memory, messages, plan());
    }
}

fn print_row(name: &str, memory: &[u8], lanes: usize, plan: &Plan) {
    let figures = LENS.map(|len| {
        let chunks: Vec<&[u8]> = memory.chunks_exact(len).take(lanes).collect();
        let mut hashers = vec![Hasher::new(); lanes];
        median_rate(len * lanes, || plan.update_many(&mut hashers, &chunks))
    });
    print_figures(name, figures);
}

fn print_rust_crypto(memory: &[u8]) {
    let figures = LENS.map(|len| {
        let mut hasher = Sha1::new();
        median_rate(len, || hasher.update(black_box(&memory[..len])))
    });
    print_figures("sha1::Sha1::update", figures);
}

fn print_figures(name: &str, [small, middle, large]: [f64; 3]) {
    println!("{name:22} {small:8.2} {middle:8.2} {large:8.2}");
}

/// GB/s of `work`, which hashes `len` bytes a time.
fn median_rate(len: usize, mut work: impl FnMut()) -> f64 {
    let times = (WORK / len).max(1);
    let mut rates = [0.0; 5].map(|_: f64| {
        let begin = Instant::now();
        for _ in 0..times {
            work();
        }
        (len * times) as f64 / begin.elapsed().as_secs_f64() / 1e9
    });
    rates.sort_by(f64::total_cmp);
    rates[2]
}
