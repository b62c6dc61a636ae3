//! A room of machines that are not there: each reports once a second, as `ezio deploy` does, from an
//! address of its own.

use super::browser::ask;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What is wrong with a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    Link100,
    SlowDisk,
    NoPeers,
    Gone,
    Failed,
    Done,
    Verifying,
    Hostile,
}

/// A host name and a disk's model that would be more than text if they were let.
pub(crate) const HOSTILE: &str = "<img src=x onerror=\"window.pwned=1\">";
const HOSTILE_MODEL: &str = "\"><script>window.pwned=1</script>";

/// Threads that report, and an end to them.
pub(crate) struct Room {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    pub(crate) reports: Arc<AtomicU64>,
    /// The last answer to each machine, by its number.
    pub(crate) answers: Arc<Mutex<Vec<Value>>>,
}

const THREADS: usize = 8;
const LEN: f64 = 21_474_836_480.0;

impl Room {
    /// Lets machines number `first` and on report to `server`.
    pub(crate) fn open(
        server: SocketAddr,
        info_hash: &str,
        first: usize,
        machines: Vec<Trouble>,
    ) -> Room {
        let stop = Arc::new(AtomicBool::new(false));
        let reports = Arc::new(AtomicU64::new(0));
        let answers = Arc::new(Mutex::new(vec![Value::Null; machines.len()]));
        let machines: Vec<(usize, Trouble)> = machines.into_iter().enumerate().collect();
        let threads = (0..THREADS).map(|part| {
            let own: Vec<_> = machines.iter().copied().filter(|m| m.0 % THREADS == part).collect();
            let (stop, reports, answers) =
                (Arc::clone(&stop), Arc::clone(&reports), Arc::clone(&answers));
            let info_hash = info_hash.to_owned();
            std::thread::spawn(move || {
                let started = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let round = Instant::now();
                    for &(index, trouble) in &own {
                        let time = started.elapsed().as_secs_f64();
                        if trouble == Trouble::Gone && time > 4.0 {
                            continue;
                        }
                        let number = first + index;
                        let body = report(number, trouble, time, &info_hash).to_string();
                        let [high, low] = u16::try_from(number + 2).unwrap().to_be_bytes();
                        let from = IpAddr::from([127, 3, high, low]);
                        let json = "Content-Type: application/json\r\n";
                        let answer = ask(from, server, "POST", "/api/report", json, &body);
                        if let Ok(answer) = answer {
                            assert_eq!(answer.status, 200, "{}", answer.body);
                            answers.lock().unwrap()[index] = answer.json();
                            reports.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    std::thread::sleep(Duration::from_secs(1).saturating_sub(round.elapsed()));
                }
            })
        });
        Room { threads: threads.collect(), stop, reports, answers }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let outcome = thread.join();
            assert!(outcome.is_ok() || std::thread::panicking(), "a reporter has failed");
        }
    }
}

/// What a machine says `time` seconds after the test has begun; it had worked for some before.
fn report(number: usize, trouble: Trouble, time: f64, info_hash: &str) -> Value {
    use Trouble::{Done, Failed, Gone, Hostile, Link100, NoPeers, None, SlowDisk, Verifying};
    // As if by chance, and the same in every run.
    let spread = (number * 7919 % 97) as f64 / 97.0;
    let rate = match trouble {
        Link100 => 11.6e6,
        SlowDisk => 41e6,
        NoPeers | Failed | Done | Verifying => 0.0,
        None | Gone | Hostile => 104e6 + 8e6 * spread,
    };
    let begun = match trouble {
        Link100 => 0.05,
        SlowDisk => 0.19,
        NoPeers => 0.0,
        Failed => 0.31,
        Done | Verifying => 1.0,
        _ => 0.46 + 0.03 * spread,
    };
    let wave = rate * 0.25 * (time / 3.0 + spread * 6.0).sin();
    let stored = (begun * LEN + rate * time + wave).min(LEN);
    let (phase, progress) = match trouble {
        Done => ("done", 1.0),
        Failed => ("failed", 0.0),
        Verifying => ("verifying", (0.3 + time / 200.0).min(1.0)),
        _ => ("downloading", stored / LEN),
    };
    let error = match trouble {
        Failed => {
            "write 8 MiB at 0x1a4000000 of /dev/sda: input/output error; /dev/sda is not usable"
        }
        _ => "",
    };
    let (host, model) = match trouble {
        Hostile => (HOSTILE.to_owned(), HOSTILE_MODEL),
        _ => (format!("lab-{:02}", number + 1), "Samsung SSD 870 EVO 500GB"),
    };
    let link = if trouble == Link100 { 100 } else { 1000 };
    let waiting = if trouble == SlowDisk { 62 << 20 } else { 4 << 20 };
    let peers = if trouble == NoPeers { 0 } else { 9 + number % 7 };
    // Rarest first: what is here is spread over the image.
    let map: String = (0..128_usize)
        .map(|section| {
            let own = (section * 31 + number * 17) % 16;
            let digit = ((stored / LEN) * 15.0 + (own as f64 - 8.0) / 4.0).clamp(0.0, 15.0);
            char::from_digit(if stored >= LEN { 15 } else { digit as u32 }, 16).unwrap()
        })
        .collect();
    let whole = |value: f64| value.max(0.0) as u64;
    json!({
        "node": format!("{host} /dev/sda"), "host": host, "run": "1", "device": "/dev/sda",
        "model": model, "disk_serial": format!("S6PUNX0T{:06}", 411_000 + number * 37),
        "serial": format!("PF3X{:04}", number), "interface": "enp0s31f6",
        "mac": format!("54:e1:ad:00:{:02x}:{:02x}", number / 256, number % 256),
        "link_mbit": link, "half_duplex": false, "phase": phase, "progress": progress,
        "paused": false, "error": error, "seconds": if phase == "done" { 187.0 } else { 96.0 + time },
        "memory_bytes": 128 << 20, "read_again": trouble == Done, "can_retry": trouble == Failed,
        "torrents": [{
            "info_hash": info_hash, "name": "classroom", "image_bytes": LEN as u64, "pieces": 2560,
            "stored_bytes": whole(stored), "received_bytes": whole(stored),
            "sent_bytes": whole(stored * (0.7 + 0.5 * spread)), "waiting_bytes": waiting,
            "peers": peers, "nowhere": 0, "map": map,
        }],
    })
}
