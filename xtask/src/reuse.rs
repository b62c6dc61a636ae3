//! `cargo xtask bench reuse`: a machine that is imaged again, when a part of its old image differs.
//!
//! A server and a target in network namespaces of their own, a limited link between them, and a loop
//! device over a test disk of a limited rate as the target, with nothing of it in the page cache: the
//! figures are of the work to be done, not of this machine.

use anyhow::{Context as _, bail, ensure};
use lab::disk::Model;
use lab::{Lan, Links, LoopDevice, LoopOptions, Need, Random, Running, TestDisk};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Bytes of the image.
const LEN: usize = 512 << 20;

const PIECE_LEN: usize = 1 << 20;

/// Every tenth piece differs.
const EVERY: usize = 10;

/// What a SATA SSD reads and writes.
const DISK: u64 = 500_000_000;

/// 1 Gbit/s.
const LINK: u64 = 125_000_000;

/// Measures, `rounds` times in turn: all of it deployed, the old image only looked at, and the old
/// image used again.
///
/// `binary` is an `ezio` that was built before; without it one is built.
pub(crate) fn main(rounds: usize, binary: Option<&Path>) -> anyhow::Result<()> {
    let rounds = rounds.max(1);
    lab::require(&TestDisk::NEEDS).map_err(anyhow::Error::msg)?;
    lab::require(&[Need::Loop, Need::Program("losetup")]).map_err(anyhow::Error::msg)?;
    lab::net::supported().map_err(anyhow::Error::msg)?;
    let ezio = match binary {
        Some(binary) => std::path::absolute(binary)?,
        None => crate::lab::build(&["--release"])?,
    };
    let room = Room::new(ezio)?;
    let (mut full, mut look, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        full.push(room.deploy(false)?);
        look.push(room.verify()?);
        again.push(room.deploy(true)?);
    }
    let [full, look, again] = [full, look, again].map(median);
    let changed = LEN as f64 / EVERY as f64;
    let (link, disk) = (changed / (LINK as f64), LEN as f64 / DISK as f64);
    println!(
        "{} MiB, every tenth piece of 1 MiB differs, link 1 Gbit/s, disk 500 MB/s each way, medians \
         of {rounds}\n\n| what | seconds |\n|---|--:|",
        LEN >> 20
    );
    println!("| all of it deployed | {full:.2} |");
    println!(
        "| the old image looked at, alone (`ezio verify`; the disk allows {disk:.2}) | {look:.2} |"
    );
    println!("| what differs, at the link's rate | {link:.2} |");
    println!("| the two one after the other | {:.2} |", look + link);
    println!("| `deploy --reuse` | {again:.2} |");
    Ok(())
}

struct Room {
    ezio: PathBuf,
    dir: tempfile::TempDir,
    image: Vec<u8>,
    lan: Lan,
    // Ends before its network does.
    _server: Server,
}

struct Server(Running);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.signal("TERM");
    }
}

impl Room {
    fn new(ezio: PathBuf) -> anyhow::Result<Room> {
        let dir = tempfile::tempdir_in("/dev/shm").context("make a directory in memory")?;
        let mut image = vec![0; LEN];
        Random::new(7).fill(&mut image);
        let source = dir.path().join("disk.img");
        std::fs::write(&source, &image).context("write the image")?;
        let lan = Lan::new(2, &Links::equal(LINK))?;
        let mut command = lan.command(0, &ezio);
        command.arg("serve").arg(&source).args(["--http", "6969", "--json"]);
        command.args(["--piece-size", "1MiB"]);
        let mut server = Server(Running::spawn(command)?);
        server.0.ready()?;
        let torrent = dir.path().join("x.torrent");
        let path = format!("http://{}:6969/torrents/disk.img.torrent", lan.addr(0));
        let bytes = lan.within(1, || ezio::control::fetch(&path, 16 << 20))??;
        std::fs::write(torrent, bytes).context("keep the torrent")?;
        Ok(Room { ezio, dir, image, lan, _server: server })
    }

    /// A disk with the old image on it, and the device that it is.
    fn disk(&self) -> anyhow::Result<(LoopDevice, TestDisk)> {
        let old = self.dir.path().join("old.img");
        let mut bytes = self.image.clone();
        for piece in bytes.chunks_mut(PIECE_LEN).step_by(EVERY) {
            piece[5000] ^= 1;
        }
        std::fs::write(&old, bytes).context("write the old image")?;
        let disk = TestDisk::of(&old, Model::Rate { bytes_per_s: DISK })?;
        std::fs::remove_file(&old).context("remove the old image")?;
        let device = LoopDevice::attach(disk.path(), LoopOptions::default())?;
        Ok((device, disk))
    }

    /// Seconds until the image is on the medium.
    fn deploy(&self, reuse: bool) -> anyhow::Result<f64> {
        let (device, disk) = self.disk()?;
        let mut command = self.lan.command(1, &self.ezio);
        let server = format!("http://{}:6969", self.lan.addr(0));
        command.args(["deploy", &server, "--to"]).arg(device.path()).args(["--seed-for", "0"]);
        command.args(["--json", "--state"]).arg(self.dir.path().join("state"));
        if reuse {
            command.arg("--reuse");
        }
        let begun = Instant::now();
        let mut client = Running::spawn(command)?;
        let result = client.result()?;
        let seconds = begun.elapsed().as_secs_f64();
        ensure!(client.code()? == Some(0), "the client failed");
        let received = result["received_bytes"].as_u64().unwrap_or_default();
        let wanted = if reuse { LEN.div_ceil(EVERY) } else { LEN } as u64;
        ensure!(
            (wanted..wanted + wanted / 10 + 4 * PIECE_LEN as u64).contains(&received),
            "{received} bytes came, {wanted} were due"
        );
        ensure!(disk.bytes(0..LEN as u64) == self.image, "the target differs from the image");
        eprintln!("reuse {reuse}: {seconds:.2} s");
        Ok(seconds)
    }

    /// Seconds that looking at all of the old image takes.
    fn verify(&self) -> anyhow::Result<f64> {
        let (device, _disk) = self.disk()?;
        let mut command = Command::new(&self.ezio);
        command.args(["verify", "-q"]).arg(self.dir.path().join("x.torrent")).arg(device.path());
        let begun = Instant::now();
        let output = command.output().context("run ezio verify")?;
        let seconds = begun.elapsed().as_secs_f64();
        if output.status.code() != Some(1) {
            bail!("verify: {}", lab::tool::text(&output));
        }
        Ok(seconds)
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
