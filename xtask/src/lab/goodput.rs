//! What TCP really gets through the limited links: one plain connection, then one each way.

use super::seconds;
use anyhow::{Context as _, ensure};
use lab::{Lan, net};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes a second of payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goodput {
    one_way: f64,
    /// The slower of two at once in opposite directions.
    both_ways: f64,
}

/// The congestion control finds the rate, and the buckets run empty.
const WARM_UP: Duration = Duration::from_secs(1);

/// What is measured.
const SPAN: Duration = Duration::from_secs(3);

/// A connection that gives nothing for so long is broken.
const SILENCE: Duration = Duration::from_secs(30);

/// Measures between the first two nodes.
pub(super) fn measure(lan: &Lan) -> anyhow::Result<Goodput> {
    let one_way = flow(lan, 0, 1)?;
    let (there, back) = thread::scope(|scope| {
        let there = scope.spawn(|| flow(lan, 0, 1));
        (there.join(), flow(lan, 1, 0))
    });
    let there = there.map_err(|_| anyhow::anyhow!("a thread that measures panicked"))??;
    Ok(Goodput { one_way, both_ways: there.min(back?) })
}

/// What one connection carries from node to node.
fn flow(lan: &Lan, from: usize, to: usize) -> anyhow::Result<f64> {
    let listener = lan.within(to, || TcpListener::bind((lan.addr(to), 0)))?.context("listen")?;
    let addr = listener.local_addr()?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| send(lan, from, addr, &done));
        let rate = receive(&listener);
        done.store(true, Ordering::Relaxed);
        rate
    })
}

/// Sends until the receiver has had enough.
fn send(lan: &Lan, from: usize, to: SocketAddr, done: &AtomicBool) -> anyhow::Result<()> {
    let mut stream = lan.within(from, || TcpStream::connect(to))??;
    stream.set_write_timeout(Some(SILENCE))?;
    let buffer = vec![0x55; 256 << 10];
    while !done.load(Ordering::Relaxed) && stream.write_all(&buffer).is_ok() {}
    Ok(())
}

fn receive(listener: &TcpListener) -> anyhow::Result<f64> {
    let (mut stream, _) = listener.accept().context("accept")?;
    stream.set_read_timeout(Some(SILENCE))?;
    let mut buffer = vec![0; 256 << 10];
    let begin = Instant::now();
    let mut warm: Option<(Instant, u64)> = None;
    loop {
        let len = stream.read(&mut buffer).context("nothing comes over the link")?;
        ensure!(len > 0, "the connection ended early");
        let now = Instant::now();
        match &mut warm {
            None if now - begin >= WARM_UP => warm = Some((now, 0)),
            None => {}
            Some((start, bytes)) => {
                *bytes += len as u64;
                if now - *start >= SPAN {
                    // The sender may be waiting for room.
                    let _ = stream.shutdown(Shutdown::Both);
                    return Ok(*bytes as f64 / seconds(now - *start));
                }
            }
        }
    }
}

impl Goodput {
    /// A line that says what was measured and what is possible.
    pub(super) fn describe(&self, rate: u64, congestion: &str) -> String {
        let mbit = |bytes: f64| bytes * 8.0 / 1e6;
        format!(
            "goodput of a link of {:.0} Mbit/s ({congestion}): {:.2} Mbit/s one way, {:.2} both ways; \
             possible with full packets: {:.2}",
            mbit(rate as f64),
            mbit(self.one_way),
            mbit(self.both_ways),
            mbit(net::goodput(rate))
        )
    }
}
