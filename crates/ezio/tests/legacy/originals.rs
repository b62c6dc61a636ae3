//! The C++ EZIO's own scripts, unchanged, against our daemon and our 1.x run. They come from a clone
//! of its repository that `EZIO_CPP` names, for they are in no package and not ours to keep.

use crate::ezio;
use crate::world::{Image, Process, World, text};
use lab::{Need, tool};
use std::path::{Path, PathBuf};

const PYTHON: &str = "/usr/bin/python3";

/// Why the scripts of `tag` cannot be run here, if they cannot.
fn missing(modules: &str) -> Option<String> {
    if std::env::var_os("EZIO_CPP").is_none() {
        return Some("EZIO_CPP names no clone of github.com/tjjh89017/ezio".to_owned());
    }
    let import = tool::run(tool::words(PYTHON).args(["-c", &format!("import {modules}")]));
    import.err().map(|why| format!("python3 lacks one of {modules}: {why:#}"))
}

/// Takes `paths` of the release `tag`, and has Google's generator make classes of its own proto.
fn unpack(world: &World, tag: &str, paths: &[&str]) -> PathBuf {
    let clone = std::env::var("EZIO_CPP").expect("it was looked at");
    let dir = world.path(tag);
    std::fs::create_dir(&dir).unwrap();
    let archive = world.path("archive.tar");
    let mut git = tool::words("git archive --format=tar");
    git.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory");
    git.env("GIT_CONFIG_VALUE_0", "*").current_dir(&clone);
    git.arg(format!("--output={}", text(&archive))).arg(tag).args(paths);
    tool::run(&mut git).unwrap();
    tool::run(tool::words("tar -xf").arg(&archive).arg("-C").arg(&dir)).unwrap();
    let mut generate = tool::words(PYTHON);
    generate.args(["-m", "grpc_tools.protoc", "-I", text(&dir), "ezio.proto"]);
    generate.arg(format!("--python_out={}", text(&dir)));
    tool::run(generate.arg(format!("--grpc_python_out={}", text(&dir)))).unwrap();
    dir
}

/// Starts one of the scripts on a machine, with the classes in `dir`.
fn start(world: &World, machine: usize, dir: &Path, script: &str, args: &[&str]) -> Process {
    let more = std::env::var("PYTHONPATH").unwrap_or_default();
    let path = format!("PYTHONPATH={}:{more}", text(dir));
    let script = dir.join(script);
    let args = [&[&path[..], PYTHON, text(&script)], args].concat();
    world.start(machine, Path::new("env"), &args)
}

const NEEDS: [Need; 5] =
    [Need::Root, Need::Loop, Need::Program("ip"), Need::Program("tc"), Need::Program("git")];

#[test]
fn the_scripts_of_2_0_29_drive_our_daemon() {
    lab::require!(NEEDS);
    if let Some(why) = missing("grpc, grpc_tools, google.protobuf") {
        lab::skip!("{why}");
    }
    let world = World::new(2);
    let dir = unpack(&world, "v2.0.29", &["ezio.proto", "utils"]);
    let image = Image::new(world.dir.path(), "sda1", 51);
    let (source, target) = (image.source(world.path("from")), image.target(world.path("to")));
    let run = |machine, script: &str, args: &[&str]| {
        let mut script = start(&world, machine, &dir, &format!("utils/{script}"), args);
        assert_eq!(script.end().code(), Some(0), "{}", script.all());
        script.output()
    };
    let mut seeder = world.daemon(0, &[]);
    let mut leecher = world.daemon(1, &[]);
    let add = "ezio_add_torrent.py";
    run(0, add, &["-S", "-c", "6", "-u", "5", image.torrent(), text(source.path())]);
    run(0, "ezio_pause_torrent.py", &[&image.hash()]);
    assert!(world.torrents(0)[0].is_paused);
    run(0, "ezio_resume_torrent.py", &[&image.hash()]);
    run(1, add, &[image.torrent(), text(target.path())]);
    // It ends the daemon when nobody has wanted anything for a second.
    let printed = run(1, "ezio_cli.py", &["-w", "1"]);
    let version = format!("ezio {}\n", env!("CARGO_PKG_VERSION"));
    assert!(printed.starts_with(&version), "{printed}");
    assert!(printed.contains("[P: 100%]") && printed.contains("[R: 0]"), "{printed}");
    assert!(printed.ends_with("Finished. Exiting...\n"), "{printed}");
    assert_eq!(leecher.end().code(), Some(0));
    image.check(target.path());
    run(0, "ezio_shutdown.py", &[]);
    assert_eq!(seeder.end().code(), Some(0));
}

#[test]
fn the_client_of_1_2_1_sees_our_run() {
    lab::require!(NEEDS);
    if let Some(why) = missing("grpc, grpc_tools, google.protobuf, absl, tqdm") {
        lab::skip!("{why}");
    }
    let world = World::new(1);
    let dir = unpack(&world, "v1.2.1", &["ezio.proto", "client.py"]);
    let image = Image::new(world.dir.path(), "sda1", 52);
    let source = image.source(world.path("from"));
    let args = ["-U", "-T", image.torrent(), "-L", text(source.path())];
    let _seeder = world.start(0, ezio(), &args);
    crate::world::wait("the status is there", || {
        world.lan.within(0, || ezio::legacy::Client::connect(crate::world::GRPC).is_ok()).unwrap()
    });
    let args = ["--progress", "--download_speed", "--upload_speed"];
    let mut client = start(&world, 0, &dir, "client.py", &args);
    assert_eq!(client.end().code(), Some(0), "{}", client.all());
    let hash = image.hash();
    let wanted = format!(
        "Current Progress ({hash}): 100.00 %\nCurrent Download Speed ({hash}): 0B/s\n\
         Current Upload Speed ({hash}): 0B/s\n"
    );
    assert_eq!(client.output(), wanted);
}
