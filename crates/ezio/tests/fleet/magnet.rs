//! Magnet links among old ways and strangers: transmission gets the torrent itself from a run of
//! 1.x, and then hands it to another that is given the link with `-T`. Local discovery brings them
//! together.

use crate::clients::{self, NEEDS, Stock};
use crate::ezio;
use crate::world::{Image, World, text, wait};
use std::path::Path;

#[test]
fn transmission_gets_the_torrent_from_us_and_hands_it_on() {
    lab::require!(NEEDS);
    if let Some(why) = Stock::Transmission.missing() {
        lab::skip!("{why}");
    }
    let world = World::new(3);
    let image = Image::new(world.dir.path(), "sda1", 90);
    let link = format!("magnet:?xt=urn:btih:{}&dn=sda1", image.hash());
    let source = image.source(world.path("source"));
    let args = ["-U", "-T", image.torrent(), "-L", text(source.path())];
    let seeder = world.start(0, ezio(), &args);
    let dir = clients::dir(&world, 1);
    let mut proxy = Stock::Transmission.start(&world, 1, Path::new(&link), &dir);
    wait("transmission has every byte", || {
        assert!(proxy.code().is_none(), "transmission has ended: {}", proxy.all());
        image.wrong_file(&dir).is_none()
    });
    drop(seeder);
    let target = image.target(world.path("target"));
    let mut one = world.start(2, ezio(), &["-t", "0", "-T", &link, "-L", text(target.path())]);
    assert_eq!(one.end().code(), Some(0), "{}", one.all());
    image.check(target.path());
    assert!(one.output().starts_with("Start downloading\n"), "{}", one.output());
}
