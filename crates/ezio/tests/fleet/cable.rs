//! A cable that is pulled out of the switch in the middle of a deployment, and put in again.

use crate::ezio;
use crate::world::{Image, World, text, wait};
use lab::{Links, Need, Running};
use std::path::Path;

const NEEDS: [Need; 4] = [Need::Root, Need::Loop, Need::Program("ip"), Need::Program("tc")];

/// Bytes a second of the links: 32 MiB take some seconds.
const RATE: u64 = 5_000_000;

fn start(world: &World, machine: usize, args: &[&str]) -> Running {
    let mut command = world.lan.command(machine, ezio());
    command.args(args).arg("--json");
    Running::spawn(command).unwrap()
}

/// Who has no cable says so; everybody else finishes; it goes on when the cable is back.
#[test]
fn a_cable_is_pulled_and_put_in_again() {
    lab::require!(NEEDS);
    let world = World::with_links(3, &Links::equal(RATE));
    let image = Image::new(world.dir.path(), "sda", 120);
    let source = image.source(world.path("source"));
    let mut server = start(&world, 0, &["serve", "--raw", text(source.path())]);
    let url = format!("http://{}:{}", world.lan.addr(0), server.ready().unwrap()["http_port"]);
    let targets = [1, 2].map(|machine| image.target(world.path(&format!("target {machine}"))));
    let deploy = |machine: usize, target: &Path| {
        start(&world, machine, &["deploy", &url, "--to", text(target)])
    };
    let mut other = deploy(1, targets[0].path());
    let mut pulled = deploy(2, targets[1].path());
    wait("a quarter has come", || world.lan.traffic().unwrap()[2].received > 8 << 20);
    world.lan.set_connected(2, false).unwrap();
    loop {
        let event = pulled.event().unwrap().expect("it goes on");
        assert!(event["event"] != "error" && event["event"] != "result", "{event}");
        if event["message"].as_str().is_some_and(|note| note.contains("nothing has come for")) {
            break;
        }
    }
    other.result().unwrap();
    world.lan.set_connected(2, true).unwrap();
    pulled.result().unwrap();
    for (client, target) in [other, pulled].into_iter().zip(&targets) {
        assert_eq!(client.code().unwrap(), Some(0));
        assert!(
            std::fs::read(target.path()).unwrap() == std::fs::read(source.path()).unwrap(),
            "{} differs",
            target.path().display()
        );
    }
}
