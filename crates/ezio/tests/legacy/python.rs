//! The gRPC service as an independent implementation sees it: Google's, in Python, with classes that
//! `protoc` makes of the files in `proto/`.

use crate::world::{Image, World, text};
use lab::{Need, tool};
use std::path::Path;

const CLIENT: &str = include_str!("client.py");

#[test]
fn googles_grpc_understands_every_call() {
    lab::require!([Need::Root, Need::Loop, Need::Program("ip"), Need::Program("tc")]);
    lab::require!([Need::Program("protoc"), Need::Program("/usr/bin/python3")]);
    let probe = tool::run(tool::words("/usr/bin/python3 -c").arg("import grpc, google.protobuf"));
    if let Err(why) = probe {
        lab::skip!("no python3-grpcio or python3-protobuf: {why:#}");
    }
    let world = World::new(2);
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let mut protoc = tool::words("protoc ezio.proto ezio_node.proto");
    protoc.arg(format!("--proto_path={}", text(&proto)));
    tool::run(protoc.arg(format!("--python_out={}", text(world.dir.path())))).unwrap();
    let script = world.path("client.py");
    std::fs::write(&script, CLIENT).unwrap();

    let image = Image::new(world.dir.path(), "sda1", 41);
    let (source, target) = (image.source(world.path("from")), image.target(world.path("to")));
    let mut seeder = world.daemon(0, &[]);
    let mut leecher = world.daemon(1, &[]);
    world.add(0, &image, source.path(), true);
    let args = [text(&script), image.torrent(), text(target.path()), &image.hash()];
    let mut client = world.start(1, Path::new("/usr/bin/python3"), &args);
    assert_eq!(client.end().code(), Some(0), "{}", client.all());
    assert!(client.output().ends_with("all calls answered\n"), "{}", client.all());
    assert_eq!(leecher.end().code(), Some(0));
    assert_eq!(seeder.code(), None);
    image.check(target.path());
}
