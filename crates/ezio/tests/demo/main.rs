//! `ezio demo` and `ezio sim` as somebody runs them who has just built the program: not as root.

use lab::{Running, tool};
use serde_json::Value;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A place of a user without rights: the program, and a directory for temporary files.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Home {
        let dir = tempfile::tempdir().unwrap();
        let all = |path: &Path| std::fs::set_permissions(path, Permissions::from_mode(0o777));
        all(dir.path()).unwrap();
        // Where it was built, others may not be allowed to look.
        // Not copied by this process: a child that another test starts meanwhile would hold the file open
        // for writing for a moment, and nobody could execute it (ETXTBSY).
        let mut copy = Command::new("cp");
        copy.arg(env!("CARGO_BIN_EXE_ezio")).arg(dir.path().join("ezio"));
        assert!(copy.status().unwrap().success());
        std::fs::create_dir(dir.path().join("tmp")).unwrap();
        all(&dir.path().join("tmp")).unwrap();
        Home { dir }
    }

    fn tmp(&self) -> PathBuf {
        self.dir.path().join("tmp")
    }

    /// What a temporary directory of a demo has left.
    fn left(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.tmp()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// `ezio demo` with `args`, as nobody if this is root, after the shell command `before`.
    fn demo(&self, before: Option<&str>, args: &str) -> Running {
        let user =
            if is_root() { "setpriv --reuid=65534 --regid=65534 --clear-groups" } else { "" };
        let program = self.dir.path().join("ezio");
        let demo = format!("exec {user} {} demo --json {args}", program.display());
        let mut command = match before {
            None => tool::words("sh -c"),
            Some(_) => tool::words("unshare --mount sh -c"),
        };
        command.arg(before.map_or(demo.clone(), |before| format!("{before} && {demo}")));
        command.env("TMPDIR", self.tmp()).current_dir(self.dir.path());
        Running::spawn(command).unwrap()
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// The next event that `is_it`.
#[track_caller]
fn wait_for(running: &mut Running, is_it: impl Fn(&Value) -> bool) -> Value {
    while let Some(event) = running.event().unwrap() {
        if is_it(&event) {
            return event;
        }
        assert_ne!(event["event"], "error", "{event}");
    }
    panic!("it ended before");
}

/// The demo's own result, not that of a process that it runs.
#[track_caller]
fn result(running: &mut Running) -> Value {
    wait_for(running, |event| event["event"] == "result" && event["process"].is_null())
}

/// Whether a process that the demo `pid` has started runs.
fn has_children(pid: u32) -> bool {
    let wanted = format!("EZIO_ENDS_WITH={pid}");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    // Those of others cannot be read, those that end are gone.
    entries.filter_map(|entry| std::fs::read(entry.path().join("environ")).ok()).any(|environ| {
        environ.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes())
    })
}

#[track_caller]
fn wait_for_the_end_of_children(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while has_children(pid) {
        assert!(Instant::now() < deadline, "processes of {pid} still run");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a demo of two targets to its end, and checks what it says.
fn check(home: &Home, before: Option<&str>) -> Value {
    let mut demo = home.demo(before, "--clients 2 --size 24MiB");
    let pid = demo.pid();
    let result = result(&mut demo);
    assert_eq!(demo.code().unwrap(), Some(0));
    let targets = result["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 2);
    assert!(targets.iter().all(|target| target["verified"] == true), "{result}");
    assert!(targets.iter().all(|target| target["seconds"].as_f64().unwrap() > 0.0), "{result}");
    assert_eq!(result["disk_bytes"], 24 << 20);
    let used = result["image_bytes"].as_u64().unwrap();
    assert!((8 << 20..20 << 20).contains(&used), "{result}");
    // Every piece left the server, and what it did not send twice came from the other target. So
    // few bytes may be there before the second target asks for any.
    let sent = result["server_sent_bytes"].as_u64().unwrap();
    let passed_on: u64 = targets.iter().map(|t| t["sent_bytes"].as_u64().unwrap()).sum();
    assert!(sent >= used && sent + passed_on >= 2 * used, "{result}");
    assert_eq!(home.left(), [] as [PathBuf; 0]);
    assert!(!has_children(pid));
    result
}

#[test]
fn a_plain_user_sees_the_whole_loop_with_a_real_file_system() {
    lab::require!(["mkfs.ext4", "e2fsck", "blkid", "partclone.extfs"].map(lab::Need::Program));
    let result = check(&Home::new(), None);
    assert_eq!(result["file_systems_checked"], true);
}

#[test]
fn without_partclone_the_image_has_extents_and_gaps_all_the_same() {
    let found = ["partclone.extfs", "partclone.ext4"].map(tool::find).into_iter().flatten();
    let hide: Vec<String> =
        found.map(|path| format!("mount --bind /dev/null {}", path.display())).collect();
    if !hide.is_empty() && (!is_root() || tool::find("unshare").is_none()) {
        lab::skip!("partclone is there, and only root can hide it");
    }
    let before = hide.join(" && ");
    let result = check(&Home::new(), Some(&*before).filter(|before| !before.is_empty()));
    assert_eq!(result["file_systems_checked"], false);
    assert!(result["extents"].as_u64().unwrap() > 10, "{result}");
}

#[test]
fn a_killed_demo_leaves_no_process() {
    let home = Home::new();
    let mut demo = home.demo(None, "--clients 2 --size 24MiB");
    wait_for(&mut demo, |event| event["process"] == "target1");
    let pid = demo.pid();
    assert!(has_children(pid), "the clients serve each other for seconds");
    demo.signal("KILL").unwrap();
    assert_eq!(demo.code().unwrap(), None);
    wait_for_the_end_of_children(pid);
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    for (signal, at) in [("INT", "target1"), ("TERM", "server")] {
        let home = Home::new();
        let mut demo = home.demo(None, "--clients 2 --size 24MiB");
        wait_for(&mut demo, |event| event["process"] == at);
        let pid = demo.pid();
        demo.signal(signal).unwrap();
        let said = loop {
            let event = demo.event().unwrap().expect("an error");
            assert!(event["event"] != "result" || event["process"].is_string(), "{event}");
            if event["event"] == "error" && event["process"].is_null() {
                break event.to_string();
            }
        };
        assert!(said.contains("interrupted"), "{said}");
        assert_eq!(demo.code().unwrap(), Some(1));
        assert!(!has_children(pid));
        assert_eq!(home.left(), [] as [PathBuf; 0]);
    }
}

#[test]
fn what_is_kept_can_be_looked_at() {
    let home = Home::new();
    let mut demo = home.demo(None, "--clients 1 --size 8MiB --keep tmp/kept");
    result(&mut demo);
    assert_eq!(demo.code().unwrap(), Some(0));
    let kept = home.tmp().join("kept");
    assert_eq!(std::fs::metadata(kept.join("disk.img")).unwrap().len(), 8 << 20);
    assert_eq!(std::fs::metadata(kept.join("target1.img")).unwrap().len(), 8 << 20);
    assert!(kept.join("server.log").exists());

    let said = home.demo(None, "--keep tmp/kept").error().unwrap();
    assert!(said.contains("is not empty"), "{said}");
}

#[test]
fn a_disk_too_small_for_the_demo_is_named_before_anything_is_written() {
    let home = Home::new();
    let mut demo = home.demo(None, "--size 100000TiB");
    let said = demo.error().unwrap();
    assert!(said.contains("has room for") && said.contains("TMPDIR"), "{said}");
    assert_eq!(demo.code().unwrap(), Some(1));
    assert_eq!(home.left(), [] as [PathBuf; 0]);
}

#[test]
fn a_prediction_has_a_row_for_each_number_of_clients() {
    let sim = |args: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ezio"));
        command.arg("sim").args(args.split(' '));
        command.output().unwrap()
    };
    let json = sim("--json --clients 1,2 --size 64MB --piece-size 1MiB --disk 50MB/s");
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["event"], "result");
    assert_eq!(json["predictions"].as_array().unwrap().len(), 2);
    assert_eq!(json["predictions"][1]["clients"], 2);
    assert_eq!(json["predictions"][1]["limited_by"], "disk");
    let seconds = json["predictions"][1]["seconds"].as_f64().unwrap();
    assert!((1.28..2.0).contains(&seconds), "{json}");

    let text = sim("--clients 1,2 --size 64MB --piece-size 1MiB");
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("server copies") && text.lines().count() == 5, "{text}");

    let wrong = sim("--clients 0 --size 64MB");
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("1 to 64 clients"));
}
