//! `cargo xtask bench`: the figures of BENCHMARKS.md, made again.
//!
//! Everything that is compared runs in turn, several rounds, in this one process' time; quoted are
//! medians. Figures of one machine say nothing about another; their ratios do.

use crate::run;
use anyhow::{Context as _, bail, ensure};
use lab::{LoopDevice, LoopOptions, Mount, tool};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// `bench capture`: `ezio capture` beside `partclone -t`, reading alone and hashing alone, on one
/// warm loop device with an ext4 of `gib` GiB of files.
pub(crate) fn capture(gib: u64, rounds: usize) -> anyhow::Result<()> {
    run(Command::new("cargo").args(["build", "--release", "--package", "ezio"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let ezio = std::path::absolute(Path::new(&target).join("release/ezio"))?;
    let dir = tempfile::Builder::new().prefix("ezio-bench-").tempdir()?;
    let device = file_system(dir.path(), gib)?;
    let info = dir.path().join("partclone");
    let torrent = dir.path().join("x.torrent");

    let partclone = |buffer: &str| {
        let mut command = tool::words("partclone.ext4 -c -t -q -F -L /dev/null");
        command.args(["-z", buffer, "-s"]).arg(device.path()).arg("-O").arg(&info);
        command
    };
    let captured = |piece: &str| {
        let mut command = Command::new(&ezio);
        command.args(["capture", "-q", "--piece-size", piece, "-o"]).arg(&torrent);
        command.arg(device.path());
        command
    };
    // The first capture also says which bytes are used.
    measure(&mut captured("16MiB"))?;
    let used = extents(&torrent)?;
    let len: u64 = used.iter().map(|e| e.1).sum();
    let cores = thread::available_parallelism()?.get();

    let mut rows: Vec<(String, Vec<Sample>)> = Vec::new();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        let mut row =
            |name: &str, sample: Sample| match rows.iter_mut().find(|(known, _)| known == name) {
                Some((_, samples)) => samples.push(sample),
                None => rows.push((name.to_owned(), vec![sample])),
            };
        row("read the used blocks, one thread", timed(|| read_all(device.path(), &used, 1))?);
        row("read the used blocks, all cores", timed(|| read_all(device.path(), &used, cores))?);
        row("SHA-1 of memory in cache, all cores", timed(|| hash_all(len, cores))?);
        row("partclone.ext4 -t -z 1M (its default)", measure(&mut partclone("1048576"))?);
        row("partclone.ext4 -t -z 16M (Clonezilla)", measure(&mut partclone("16777216"))?);
        row("ezio capture, pieces of 16 MiB", measure(&mut captured("16MiB"))?);
        row("ezio capture, pieces of 1 MiB", measure(&mut captured("1MiB"))?);
        let mut verify = Command::new(&ezio);
        verify.args(["verify", "-q"]).arg(&torrent).arg(device.path());
        row("ezio verify", measure(&mut verify)?);
    }
    println!(
        "{cores} cores, {} MB in {} extents, medians of {rounds}\n",
        len / 1_000_000,
        used.len()
    );
    println!("| what | seconds | MB/s | CPU s/GiB | peak RSS MB |\n|---|---|---|---|---|");
    for (name, samples) in &mut rows {
        println!("| {name} | {}", columns(samples, len));
    }
    Ok(())
}

/// What one run took.
#[derive(Clone, Copy)]
struct Sample {
    wall: Duration,
    /// User and system seconds, and the peak of resident memory in kB, of a process.
    process: Option<(f64, u64)>,
}

fn columns(samples: &mut [Sample], len: u64) -> String {
    samples.sort_by_key(|sample| sample.wall);
    let Sample { wall, process } = samples[samples.len() / 2];
    let (seconds, gib) = (wall.as_secs_f64(), len as f64 / (1_u64 << 30) as f64);
    let rate = len as f64 / seconds / 1e6;
    let rest = match process {
        Some((cpu, rss)) => format!("{:.2} | {}", cpu / gib, rss / 1000),
        None => " | ".to_owned(),
    };
    format!("{seconds:.2} | {rate:.0} | {rest} |")
}

/// A loop device with an ext4, `gib` GiB of random files in it, unmounted, and in the page cache.
fn file_system(dir: &Path, gib: u64) -> anyhow::Result<LoopDevice> {
    let image = dir.join("disk.img");
    File::create(&image)?.set_len((gib << 30) + (gib << 28))?;
    let device = LoopDevice::attach(&image, LoopOptions::default())?;
    tool::run(tool::words("mkfs.ext4 -q -F").arg(device.path()))?;
    let mount = Mount::new(device.path(), "ext4", "rw")?;
    let mut random = File::open("/dev/urandom")?;
    let mut buffer = vec![0; 1 << 20];
    for number in 0..gib * 16 {
        let mut file = File::create(mount.path().join(format!("file{number}")))?;
        for _ in 0..64 {
            random.read_exact(&mut buffer)?;
            file.write_all(&buffer)?;
        }
        // Every fifth file goes again, so that the used blocks are not one extent.
        if number % 5 == 1 {
            std::fs::remove_file(mount.path().join(format!("file{}", number - 1)))?;
        }
    }
    mount.unmount()?;
    let mut device_file = File::open(device.path())?;
    for _ in 0..2 {
        device_file = File::open(device.path())?;
        std::io::copy(&mut device_file, &mut std::io::sink())?;
    }
    drop(device_file);
    Ok(device)
}

fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Sample> {
    let start = Instant::now();
    work()?;
    Ok(Sample { wall: start.elapsed(), process: None })
}

/// Runs a command under GNU time.
fn measure(command: &mut Command) -> anyhow::Result<Sample> {
    let report = tempfile::NamedTempFile::new()?;
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["-f", "%U %S %M", "-o"]).arg(report.path());
    timed
        .arg(command.get_program())
        .args(command.get_args())
        .envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let start = Instant::now();
    let output = timed.stdin(Stdio::null()).output().context("run /usr/bin/time (package time)")?;
    let wall = start.elapsed();
    if !output.status.success() {
        bail!("{}: {}", crate::shown(command), String::from_utf8_lossy(&output.stderr));
    }
    let text = std::fs::read_to_string(report.path())?;
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let [user, system, rss] = numbers[..] else { bail!("GNU time printed `{text}`") };
    Ok(Sample { wall, process: Some((user + system, rss as u64)) })
}

/// Offset and length of every extent, as `ezio` itself reads them from the torrent.
fn extents(torrent: &Path) -> anyhow::Result<Vec<(u64, u64)>> {
    let torrent = swarm::metainfo::Metainfo::parse(std::fs::read(torrent)?)?;
    Ok(torrent.layout().extents().iter().map(|e| (e.offset, e.len)).collect())
}

/// What the device gives when nothing is done with the bytes: reads of 1 MiB.
fn read_all(device: &Path, extents: &[(u64, u64)], threads: usize) -> anyhow::Result<()> {
    let chunk = 1 << 20;
    let chunks: Vec<(u64, u64)> = extents
        .iter()
        .flat_map(|&(offset, len)| {
            (0..len.div_ceil(chunk)).map(move |i| (offset + i * chunk, chunk.min(len - i * chunk)))
        })
        .collect();
    let (next, path) = (AtomicU64::new(0), PathBuf::from(device));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let (file, mut buffer) = (File::open(&path)?, vec![0; 1 << 20]);
                    while let Some(&(offset, len)) =
                        chunks.get(next.fetch_add(1, Ordering::Relaxed) as usize)
                    {
                        file.read_exact_at(&mut buffer[..len as usize], offset)?;
                    }
                    Ok::<_, std::io::Error>(())
                })
            })
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(result) => result?,
                Err(_) => bail!("a reading thread panicked"),
            }
        }
        Ok(())
    })
}

/// As much SHA-1 as the image needs, of bytes that never leave the cache, on all lanes.
fn hash_all(len: u64, threads: usize) -> anyhow::Result<()> {
    use ezio::sha1::{Hasher, LANES_MAX, update_many};
    const SLICE: usize = 32 << 10;
    let rounds = len / threads as u64 / (LANES_MAX * SLICE) as u64;
    let sums: Vec<u8> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let buffer = vec![1; LANES_MAX * SLICE];
                    let chunks: Vec<&[u8]> = buffer.chunks(SLICE).collect();
                    let mut hashers = vec![Hasher::new(); LANES_MAX];
                    for _ in 0..rounds {
                        update_many(&mut hashers, &chunks);
                    }
                    hashers.swap_remove(0).finish()[0]
                })
            })
            .collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    ensure!(sums.len() == threads, "a hashing thread panicked");
    Ok(())
}
