//! Three machines at a switch, on which the commands of a Markdown file are typed: one with the image,
//! one that gets it, one of a second site. Each has disks of its own, loop devices that are called
//! `/dev/sda1` and `/dev/sda2` there. All of it ends with the test, however that ends.

use crate::blocks::Place;
use crate::ezio;
use crate::namespaces::Namespaces;
use crate::world::{Process, wait};
use lab::{Lan, Links, LoopDevice, LoopOptions, Tree, net, tool};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Makes a machine of the namespaces that it is started in.
const SCRIPT: &str = include_str!("machine.sh");

/// The disks of every machine, with the bytes they have. No two hang together: what is `/dev/sda1` is no
/// part of what is `/dev/sda`.
const DISKS: [(&str, u64); 3] = [("sda", 16 << 20), ("sda1", 64 << 20), ("sda2", 32 << 20)];

/// What the server's `sda` holds.
const TABLE: &str = "label: gpt\nsize=8MiB, type=uefi\ntype=linux\n";

/// Ends what a shell has started with `&`, which there lets it ignore Ctrl-C.
const END: &str = "pkill -TERM -x ezio || true; while pgrep -x ezio >/dev/null; do sleep 0.1; done";

/// What targets hold before.
const BACKGROUND: u8 = 0xEE;

/// Addresses that the texts have, instead of those of the switch.
const ADDRESSES: [(Place, &str); 5] = [
    (Place::Server, "192.168.1.1/24"),
    (Place::Target, "192.168.1.2/24"),
    (Place::Target, "10.3.0.2/16"),
    (Place::Site, "192.168.1.3/24"),
    (Place::Site, "10.3.0.1/16"),
];

pub(crate) struct Room {
    machines: Vec<Machine>,
    /// Below the machines, so that it goes when they have gone.
    _lan: Lan,
    _dir: TempDir,
}

struct Machine {
    namespaces: Namespaces,
    dir: PathBuf,
    disks: Vec<LoopDevice>,
    /// What runs there beside, and the file with its exit code.
    beside: Vec<(String, Process, PathBuf)>,
    count: usize,
}

impl Room {
    /// Makes the machines. The server's disks have an ext4 each, others' a byte that stands for
    /// nothing.
    pub(crate) fn new() -> Room {
        remove_stale();
        let prefix = format!("{}{}-guide-", net::PREFIX, std::process::id());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        let lan = Lan::new(Place::ALL.len(), &Links::default()).unwrap();
        for place in Place::ALL {
            give_addresses(&lan, place);
        }
        std::fs::create_dir(dir.path().join("shared")).unwrap();
        let machine = |place: Place| Machine::start(&lan, place, dir.path());
        let machines = Place::ALL.map(machine).into();
        Room { machines, _lan: lan, _dir: dir }
    }

    /// Types a command on a machine, and waits for its end.
    ///
    /// # Panics
    /// If it does not exit with 0.
    pub(crate) fn run(&mut self, place: Place, command: &str) -> String {
        let machine = &mut self.machines[place as usize];
        let (mut process, code) = machine.spawn(command);
        wait("a command ends", || process.code().is_some());
        let found = std::fs::read_to_string(code).unwrap_or_default();
        assert_eq!(found.trim(), "0", "on {place:?}: {command}");
        process.all()
    }

    /// Types a command that does not end by itself, and waits until it prints `words`.
    pub(crate) fn begin(&mut self, place: Place, command: &str, words: &str) {
        let machine = &mut self.machines[place as usize];
        let (mut process, code) = machine.spawn(command);
        wait(&format!("`{command}` says `{words}`"), || {
            assert!(process.code().is_none(), "on {place:?}: {command}: it has ended");
            process.all().contains(words)
        });
        machine.beside.push((command.to_owned(), process, code));
    }

    /// Ends what runs beside on a machine, as Ctrl-C does.
    ///
    /// # Panics
    /// If any of it does not exit with 0.
    pub(crate) fn end(&mut self, place: Place) {
        let beside = std::mem::take(&mut self.machines[place as usize].beside);
        for (command, process, _) in beside.iter().filter(|(c, ..)| c.starts_with("ezio watch")) {
            wait(&format!("{command} has shown something"), || !process.output().is_empty());
        }
        if !beside.is_empty() {
            self.run(place, "pkill -INT -x ezio");
        }
        for (command, mut process, code) in beside {
            wait("it ends at Ctrl-C", || process.code().is_some());
            let found = std::fs::read_to_string(code).unwrap_or_default();
            // 1.x ends by the signal, as its scripts know it.
            let wanted = if command.starts_with("ezio -U") { "130" } else { "0" };
            assert_eq!(found.trim(), wanted, "on {place:?}: {command}");
        }
        self.run(place, END);
    }

    /// What the machines' `/run/shared` holds, seen from outside.
    pub(crate) fn shared(&self, name: &str) -> PathBuf {
        self.machines[0].dir.join("../shared").join(name)
    }

    /// Writes what stands for nothing over a disk of a target.
    pub(crate) fn spoil(&self, place: Place, disk: &str) {
        assert_ne!(place, Place::Server, "it has the image");
        spoil(self.machines[place as usize].disk(disk).path());
    }

    /// Whether the disk of a machine holds what the server's holds in its used blocks, as partclone
    /// knows them, and nothing new outside of them.
    pub(crate) fn check_disk(&self, place: Place, disk: &str) {
        let [source, target] =
            [Place::Server, place].map(|p| self.machines[p as usize].disk(disk).path());
        let (_, len) = DISKS.iter().find(|(name, _)| *name == disk).unwrap();
        if disk == "sda" {
            let [wanted, found] = [source, target].map(|path| read(path, *len));
            assert!(wanted == found, "sda of {place:?} is another than the server's");
            return;
        }
        let map = self.shared(&format!("{disk}.map"));
        // Of an earlier block; partclone replaces nothing.
        let _ = std::fs::remove_file(&map);
        let mut partclone = tool::words("partclone.ext4 -D -q -f 0 -L /dev/null -s");
        tool::run(partclone.arg(source).arg("-o").arg(&map)).unwrap();
        let [wanted, found] = [source, target].map(|path| read(path, *len));
        let mut used = vec![false; wanted.len()];
        for line in std::fs::read_to_string(&map).unwrap().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [at, len, "+"] = words[..] {
                let hex = |text: &str| usize::from_str_radix(&text[2..], 16).unwrap();
                let (at, end) = (hex(at), (hex(at) + hex(len)).min(used.len()));
                used[at..end].fill(true);
            }
        }
        let share = used.iter().filter(|&&used| used).count() as f64 / used.len() as f64;
        assert!(
            (0.05..0.95).contains(&share),
            "{share} of {disk} is used: partclone's map is wrong"
        );
        let right = |at: usize| found[at] == if used[at] { wanted[at] } else { BACKGROUND };
        if let Some(at) = (0..used.len()).find(|&at| !right(at)) {
            panic!("{disk} of {place:?} has {:#x} at {at:#x}, used: {}", found[at], used[at]);
        }
        tool::run(tool::words("e2fsck -f -n").arg(target)).unwrap();
    }
}

impl Machine {
    fn start(lan: &Lan, place: Place, dir: &Path) -> Machine {
        let dir = dir.join(format!("{place:?}").to_lowercase());
        std::fs::create_dir(&dir).unwrap();
        let disks: Vec<LoopDevice> =
            DISKS.iter().map(|(name, len)| make_disk(&dir, name, *len, place)).collect();
        let named = |(device, (name, _)): (&LoopDevice, &(&str, u64))| {
            format!("{}={name}", device.path().display()).into()
        };
        let mut args: Vec<OsString> = vec![dir.clone().into(), ezio().into()];
        args.extend(disks.iter().zip(&DISKS).map(named));
        let namespaces = Namespaces::start(lan, place as usize, &dir, SCRIPT, args);
        Machine { namespaces, dir, disks, beside: Vec::new(), count: 0 }
    }

    fn disk(&self, name: &str) -> &LoopDevice {
        let index = DISKS.iter().position(|(disk, _)| *disk == name);
        &self.disks[index.unwrap_or_else(|| panic!("no machine has a disk {name}"))]
    }

    /// Starts a command in the directory where the last one has ended.
    fn spawn(&mut self, text: &str) -> (Process, PathBuf) {
        self.count += 1;
        let name = format!("code-{}", self.count);
        let lines = format!(
            "cd \"$(cat /run/cwd 2>/dev/null || echo /home)\"\n\
             trap 'code=$?; pwd >/run/cwd; echo $code >/home/.{name}' EXIT\nset -eo pipefail\n\
             [ ! -e /run/environment ] || . /run/environment\n{text}\nexit $?\n"
        );
        let mut command = self.namespaces.bash("/home", &lines);
        let path = "/usr/local/sbin:/usr/local/bin:/run/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        command.env("PATH", path).env("HOME", "/root").env("LC_ALL", "C.UTF-8");
        command.env_remove("JOURNAL_STREAM");
        (Process::start(&mut command, &self.dir), self.dir.join(format!("home/.{name}")))
    }
}

fn give_addresses(lan: &Lan, place: Place) {
    let ip = |words: &str| {
        let mut ip = lan.command(place as usize, Path::new("ip"));
        tool::run(ip.args(words.split(' '))).unwrap();
    };
    ip("addr flush dev eth0");
    ADDRESSES.iter().filter(|(p, _)| *p == place).for_each(|(_, addr)| {
        ip(&format!("addr add {addr} dev eth0"));
    });
    // It went with the addresses, and multicast wants one.
    ip("route replace default dev eth0");
}

/// A disk of a machine, attached.
fn make_disk(dir: &Path, name: &str, len: u64, place: Place) -> LoopDevice {
    let file = dir.join(name);
    File::create(&file).unwrap().set_len(len).unwrap();
    if place == Place::Server && name == "sda" {
        let table = dir.join("table");
        std::fs::write(&table, TABLE).unwrap();
        let mut sfdisk = tool::words("sfdisk --quiet");
        tool::run(sfdisk.arg(&file).stdin(File::open(&table).unwrap())).unwrap();
    } else if place == Place::Server {
        let tree = dir.join(format!("tree-{name}"));
        std::fs::create_dir_all(tree.join("large")).unwrap();
        std::fs::create_dir_all(tree.join("many")).unwrap();
        Tree { seed: len, bytes: len / 4 }.grow(&tree).unwrap();
        tool::run(tool::words("mkfs.ext4 -q -F -d").arg(tree).arg(&file)).unwrap();
    }
    let device = LoopDevice::attach(&file, LoopOptions::default()).unwrap();
    if place != Place::Server {
        spoil(device.path());
    }
    device
}

fn spoil(path: &Path) {
    let device = OpenOptions::new().write(true).open(path).unwrap();
    let len = std::io::Seek::seek(&mut &device, std::io::SeekFrom::End(0)).unwrap();
    let bytes = vec![BACKGROUND; 1 << 20];
    (0..len).step_by(bytes.len()).for_each(|at| device.write_all_at(&bytes, at).unwrap());
}

fn read(path: &Path, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    File::open(path).unwrap().read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Removes the files of rooms whose process was killed.
fn remove_stale() {
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().contains("-guide-") && net::is_stale(&name.to_string_lossy()) {
            // Somebody else may be doing the same.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
