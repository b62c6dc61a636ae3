//! The helper programs of 2.x by their names, as Clonezilla's scripts call them.

use crate::world::{Image, World, text, wait};
use lab::Need;

const NEEDS: [Need; 4] = [Need::Root, Need::Loop, Need::Program("ip"), Need::Program("tc")];

/// The command lines of Clonezilla 5.18 (`ocs-ezio-seeder`, `ocs-ezio-leecher`), but with less
/// patience.
#[test]
fn clonezillas_commands_copy_a_disk() {
    lab::require!(NEEDS);
    let world = World::new(2);
    let image = Image::new(world.dir.path(), "sda1", 21);
    let (source, target) = (image.source(world.path("from")), image.target(world.path("to")));
    let mut seeder =
        world.daemon(0, &["--cache-size", "6027", "--aio-threads", "4", "--slow-start"]);
    let mut leecher = world.daemon(1, &["--cache-size", "6027", "--aio-threads", "4"]);
    let options = ["-c", "6", "-u", "5", image.torrent()];
    let add = "ezio_add_torrent.py";
    let seed = [&["-S"], &options[..], &[text(source.path())]].concat();
    assert_eq!(world.helper(0, add, &seed).0, 0);
    assert_eq!(world.helper(1, add, &[&options[..], &[text(target.path())]].concat()).0, 0);
    // Again: it is carried already, and the daemon goes on.
    let (code, said) = world.helper(1, add, &[&options[..], &[text(target.path())]].concat());
    assert!(code == 1 && said.contains("is carried already"), "{code} {said}");
    let (code, said) = world.helper(1, "ezio_cli.py", &["-w", "1"]);
    assert_eq!(code, 0, "{said}");
    let last = said.rsplit('\r').next().unwrap_or_default();
    assert!(last.starts_with("[T: ") && last.contains("[P: 100%]"), "{said}");
    assert!(last.ends_with("[R: 0]\nFinished. Exiting...\n"), "{said:?}");
    assert_eq!(leecher.end().code(), Some(0));
    image.check(target.path());
    assert_eq!(world.helper(0, "ezio_shutdown.py", &[]).0, 0);
    assert_eq!(seeder.end().code(), Some(0));
    let (code, said) = world.helper(0, "ezio_shutdown.py", &[]);
    assert!(code == 1 && said.contains("nobody answers at 127.0.0.1:50051"), "{said}");
}

/// On a terminal, which `script` makes.
#[test]
fn the_full_screen_waits_and_ends_the_daemon() {
    lab::require!(NEEDS);
    lab::require!([Need::Program("script")]);
    let world = World::new(2);
    let image = Image::new(world.dir.path(), "sda1", 23);
    let (source, target) = (image.source(world.path("from")), image.target(world.path("to")));
    let _seeder = world.daemon(0, &[]);
    let mut leecher = world.daemon(1, &[]);
    world.add(0, &image, source.path(), true);
    world.add(1, &image, target.path(), false);
    world.wait_finished(1);
    let link = world.path("ezio_ui.py");
    std::os::unix::fs::symlink(crate::ezio(), &link).unwrap();
    let command = format!("stty cols 120 rows 30; {} -w 2", text(&link));
    let script = lab::tool::find("script").expect("it was there");
    let mut ui = world.start(1, &script, &["-qec", &command, "/dev/null"]);
    assert_eq!(ui.end().code(), Some(0), "{}", ui.all());
    let shown = ui.output();
    assert!(shown.contains("\x1b[?1049h") && shown.contains("total 100%"), "{shown:?}");
    assert!(shown.contains(text(target.path())) && shown.contains(" finished"), "{shown:?}");
    assert!(shown.ends_with("\x1b[?1049l\r\nFinished. Exiting...\r\n"), "{shown:?}");
    assert_eq!(leecher.end().code(), Some(0));
    image.check(target.path());
}

#[test]
fn torrents_are_paused_and_resumed_by_their_hash() {
    lab::require!(NEEDS);
    let world = World::new(1);
    let image = Image::new(world.dir.path(), "sda1", 22);
    let target = image.target(world.path("to"));
    let _daemon = world.daemon(0, &[]);
    world.add(0, &image, target.path(), false);
    let check = |name, paused| {
        assert_eq!(world.helper(0, name, &[&image.hash()]).0, 0);
        assert_eq!(world.torrents(0)[0].is_paused, paused);
        let (code, said) = world.helper(0, name, &[]);
        assert!(code == 1 && said.contains("no torrent"), "{said}");
    };
    check("ezio_pause_torrent.py", true);
    check("ezio_resume_torrent.py", false);
}

/// Two extents, byte for byte what the original writes, but for the creation date.
#[test]
fn a_torrent_is_made_of_torrent_info() {
    let dir = tempfile::tempdir().unwrap();
    let (info, out) = (dir.path().join("sda1.torrent.info"), dir.path().join("sda1.torrent"));
    let hash = "000102030405060708090a0b0c0d0e0f10111213";
    let zeros = "0".repeat(27);
    let lines = format!(
        "block_size: 4096\nblocks_total: 262144\noffset: {zeros}00000\nlength: {zeros}03000\n\
         offset: {zeros}08000\nlength: {zeros}02000\nsha1: {hash}\n"
    );
    std::fs::write(&info, &lines).unwrap();
    let link = dir.path().join("partclone_create_torrent.py");
    std::os::unix::fs::symlink(crate::ezio(), &link).unwrap();
    let args = ["-p", "sda1", "-c", "CloneZilla", "-t", "http://192.168.1.1:6969/announce", "-o"];
    let mut command = std::process::Command::new(&link);
    command.args(args).arg(&out).arg("-i").arg(&info);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("{} created successfully\n", out.display()));
    let torrent = std::fs::read(&out).unwrap();
    let wanted = format!(
        "4:infod5:filesld6:lengthi12288e4:pathl32:{zeros}00000eed6:lengthi8192e4:pathl32:{zeros}08000\
         eee4:name4:sda112:piece lengthi16777216e6:pieces20:"
    );
    let mut wanted = wanted.into_bytes();
    wanted.extend(0..0x14);
    wanted.extend(b"ee");
    assert!(torrent.ends_with(&wanted), "{}", String::from_utf8_lossy(&torrent));
    let start =
        "d8:announce32:http://192.168.1.1:6969/announce10:created by10:CloneZilla13:creation datei";
    assert!(torrent.starts_with(start.as_bytes()), "{}", String::from_utf8_lossy(&torrent));
}

/// `ezio watch` of a daemon: objects, lines, and the screen of `ezio_ui.py`.
#[test]
fn a_daemon_is_watched_and_goes_on() {
    lab::require!(NEEDS);
    lab::require!([Need::Program("script"), Need::Program("timeout")]);
    let world = World::new(2);
    let image = Image::new(world.dir.path(), "sda1", 25);
    let (source, target) = (image.source(world.path("from")), image.target(world.path("to")));
    let _seeder = world.daemon(0, &[]);
    let log = world.path("daemon.json");
    let mut leecher = world.daemon(1, &["--log", text(&log), "--log-format", "json"]);
    let objects = world.start(1, crate::ezio(), &["watch", "--json", "127.0.0.1:50051"]);
    // Without an argument it finds what runs here.
    let lines = world.start(1, crate::ezio(), &["watch"]);
    world.add(0, &image, source.path(), true);
    world.add(1, &image, target.path(), false);
    wait("objects tell of the end", || objects.output().contains(r#""finished":true"#));
    wait("lines do, too", || lines.output().contains("100%, "));
    let command = format!(
        "stty cols 80 rows 24; timeout --foreground -s TERM 4 {} watch 127.0.0.1:50051",
        text(crate::ezio())
    );
    let script = lab::tool::find("script").expect("it was there");
    let mut screen = world.start(1, &script, &["-qec", &command, "/dev/null"]);
    screen.end();
    let shown = screen.output();
    assert!(shown.contains("daemon 127.0.0.1:50051") && shown.contains("total 100%"), "{shown:?}");
    assert!(shown.rfind("\x1b[?1049l") > shown.rfind("\x1b[?1049h"), "{shown:?}");
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(logged.contains(r#""message":"a torrent is carried""#), "{logged}");
    assert!(logged.contains(r#""message":"a peer is connected""#), "{logged}");
    world.ask(1, |daemon| daemon.shutdown()).unwrap();
    assert_eq!(leecher.end().code(), Some(0));
    wait("that it is gone is told", || objects.output().contains(r#""event":"lost""#));
}
