//! What the server does when machines have come to their end.

use super::{PATIENCE, ezio};
use lab::Running;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Takes one post and answers without a word, as many do. The JSON that was posted.
fn take(listener: &TcpListener) -> Value {
    let end = Instant::now() + PATIENCE;
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) => assert!(Instant::now() < end, "nothing was posted"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = read_post(&mut stream);
    stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
    serde_json::from_slice(&body).unwrap()
}

fn read_post(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; len.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    body
}

#[test]
fn commands_run_and_posts_go_out_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("disk.img"), vec![7; 1 << 20]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let webhook = format!("http://{}/ended", listener.local_addr().unwrap());
    let line = |words: &str| format!("echo \"{words}\" >> {}; false", path("ends"));
    let (machine, all) = (
        line("$EZIO_STATUS $EZIO_TARGET $EZIO_BYTES$EZIO_ERROR"),
        line("all $EZIO_DONE of $EZIO_MACHINES"),
    );
    let source = path("disk.img");
    let args = ["serve", "--http", "127.0.0.1:0", "--on-machine", &machine, "--on-all", &all];
    let args = [&args[..], &["--webhook", &webhook, &source]].concat();
    let mut server = Running::start(ezio(), &args).unwrap();
    let port = server.ready().unwrap()["http_port"].as_u64().unwrap();
    let (url, target) = (format!("http://127.0.0.1:{port}"), path("copy.img"));
    let client = Running::start(ezio(), &["deploy", &url, "--to", &target]).unwrap();
    assert_eq!(client.code().unwrap(), Some(0));

    let posted = take(&listener);
    assert_eq!(
        (&posted["event"], &posted["machine"]["phase"]),
        (&json!("machine"), &json!("done"))
    );
    assert_eq!(posted["machine"]["device"], target.as_str());
    let posted = take(&listener);
    assert_eq!((&posted["event"], &posted["summary"]["done"]), (&json!("all"), &json!(1)));
    // Each command ran before its post, and that it failed kept nothing back.
    let ends = std::fs::read_to_string(path("ends")).unwrap();
    assert_eq!(ends, format!("done {target} {}\nall 1 of 1\n", 1 << 20));
}
