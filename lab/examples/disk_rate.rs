//! How fast a test disk is: `cargo run --release -p lab --example disk_rate`, as root for both.
//!
//! Prints MB/s of writing and reading 1 GiB in requests of 1 MiB, of the file itself and through a
//! loop device.

use anyhow::Result;
use lab::disk::Model;
use lab::{LoopDevice, LoopOptions, Need, TestDisk};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Instant;

const LEN: u64 = 1 << 30;

fn main() -> Result<()> {
    let disk = TestDisk::new(LEN, Model::Instant)?;
    measure("file, its memory not touched yet", disk.path())?;
    measure("file", disk.path())?;
    if let Err(why) = lab::require(&[Need::Root, Need::Loop]) {
        println!("loop device: {why}");
        return Ok(());
    }
    let device = LoopDevice::attach(disk.path(), LoopOptions::default())?;
    measure("loop device", device.path())
}

fn measure(what: &str, path: &Path) -> Result<()> {
    let mut buf = vec![1; 1 << 20];
    let mut file = File::options().write(true).open(path)?;
    let begin = Instant::now();
    for _ in 0..LEN >> 20 {
        file.write_all(&buf)?;
    }
    file.sync_all()?;
    let written = begin.elapsed();
    let mut file = File::open(path)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    let begin = Instant::now();
    for _ in 0..LEN >> 20 {
        file.read_exact(&mut buf)?;
    }
    let rate = |time: std::time::Duration| LEN as f64 / 1e6 / time.as_secs_f64();
    println!(
        "{what}: written at {:.0} MB/s (flushed), read at {:.0} MB/s",
        rate(written),
        rate(begin.elapsed())
    );
    Ok(())
}
