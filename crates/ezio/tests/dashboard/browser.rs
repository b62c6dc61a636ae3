//! A headless Chromium, driven by WebDriver (W3C) through Debian's chromedriver, and the few lines
//! of HTTP that this takes.

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An answer: its status, its headers as they came, its body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {:.200}", self.body))
    }
}

/// Asks by HTTP from the address `from`, with more `headers`, each ending in CR LF.
pub(crate) fn ask(
    from: IpAddr,
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> anyhow::Result<Answer> {
    let socket = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    let len = body.len();
    let host = if headers.contains("Host:") { String::new() } else { format!("Host: {to}\r\n") };
    let text = format!(
        "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {len}\r\n\
         {headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes())?;
    let answer = received(&mut stream)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
    let status = head.split(' ').nth(1).context("a status")?.parse()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunked(body)? } else { body.to_owned() };
    Ok(Answer { status, head: head.to_owned(), body })
}

/// All that comes until the other side closes, or has sent as much as it has said: chromedriver
/// does not close.
fn received(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let (mut answer, mut part) = (Vec::new(), vec![0; 64 << 10]);
    let mut end = None;
    while end.is_none_or(|end| answer.len() < end) {
        let len = stream.read(&mut part)?;
        if len == 0 {
            break;
        }
        answer.extend_from_slice(&part[..len]);
        if end.is_none()
            && let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
            let len = text.split_once("content-length:").map(|(_, rest)| rest.trim_start());
            let len = len.and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
            end = len.map(|len| head + 4 + len);
        }
    }
    Ok(answer)
}

fn unchunked(mut body: &str) -> anyhow::Result<String> {
    let mut whole = String::new();
    loop {
        let (len, rest) = body.split_once("\r\n").context("a chunk's length")?;
        let len = usize::from_str_radix(len, 16)?;
        if len == 0 {
            return Ok(whole);
        }
        whole += rest.get(..len).context("a chunk")?;
        body = &rest[len + 2..];
    }
}

/// The browser with one window. Dropping it ends all of its processes.
pub(crate) struct Browser {
    driver: Child,
    addr: SocketAddr,
    session: String,
    _profile: tempfile::TempDir,
    /// Dropped last: two at once would measure each other.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
];

impl Browser {
    /// Waits for its turn. A chromedriver now and then ends without a word; another one does not.
    pub(crate) fn start() -> anyhow::Result<Browser> {
        let again = |_| {
            std::thread::sleep(Duration::from_secs(1));
            Browser::try_start()
        };
        Browser::try_start().or_else(again).or_else(again).or_else(again)
    }

    fn try_start() -> anyhow::Result<Browser> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // One that it chooses itself for IPv4 may be taken for IPv6, where hundreds of connections are open,
        // and then it ends.
        let port = lab::free_port();
        let profile = tempfile::tempdir()?;
        // The namespace ends with its first process, which ends with this one: no browser stays
        // behind, however the test ends.
        let mut driver = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--mount-proc"])
            .args(["--kill-child", "chromedriver"])
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start chromedriver")?;
        let mut lines = BufReader::new(driver.stdout.take().context("it is piped")?).lines();
        let port = lines.by_ref().find_map(|line| {
            let line = line.ok()?;
            let port = line.split_once("successfully on port ")?.1;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.context("chromedriver does not say its port")?;
        // It must not wait for somebody who reads.
        std::thread::spawn(move || lines.for_each(drop));
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let mut flags: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
        flags.push(format!("--user-data-dir={}", profile.path().display()));
        let mut browser =
            Browser { driver, addr, session: String::new(), _profile: profile, _turn: turn };
        let options = json!({ "args": flags, "binary": "/usr/bin/chromium" });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let made = browser.call("POST", "/session", &wanted)?;
        browser.session = made["sessionId"].as_str().context("a session")?.to_owned();
        Ok(browser)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let json = "Content-Type: application/json\r\n";
        let answer = ask([127, 0, 0, 1].into(), self.addr, method, path, json, &body)?;
        let value = answer.json()["value"].clone();
        ensure!(answer.status == 200, "{method} {path}: {value}");
        Ok(value)
    }

    fn command(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call("POST", &format!("/session/{}/{path}", self.session), body)
    }

    pub(crate) fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url })).unwrap();
    }

    /// Runs a function's body and returns what it returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({ "script": script, "args": [] })).unwrap()
    }

    /// Waits until the expression `what` is true.
    pub(crate) fn wait(&self, what: &str) {
        let end = Instant::now() + PATIENCE;
        while self.run(&format!("return Boolean({what})")) != true {
            let page = || self.run("return document.body.innerText.slice(0, 1500)");
            assert!(Instant::now() < end, "not in {PATIENCE:?}: {what}\n{}", page());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The mouse, on the first element that the selector finds.
    pub(crate) fn click(&self, selector: &str) {
        let found = json!({ "using": "css selector", "value": selector });
        let element = self.command("element", &found).unwrap();
        let id = element.as_object().and_then(|e| e.values().next()).and_then(Value::as_str);
        self.command(&format!("element/{}/click", id.unwrap()), &json!({})).unwrap();
    }

    /// The keyboard, wherever the focus is. Keys as WebDriver numbers them.
    pub(crate) fn keys(&self, keys: &str) {
        let press = |key: char| {
            ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }))
        };
        let actions: Vec<Value> = keys.chars().flat_map(press).collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.command("actions", &json!({ "actions": [keyboard] })).unwrap();
    }

    fn devtools(&self, name: &str, parameters: &Value) -> Value {
        let body = json!({ "cmd": name, "params": parameters });
        self.command("goog/cdp/execute", &body).unwrap()
    }

    /// The size of the window in CSS pixels, and what the system prefers.
    pub(crate) fn show(&self, width: u32, height: u32, dark: bool) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let value = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.devtools("Emulation.setEmulatedMedia", &media);
    }

    /// What the window shows, as a PNG file.
    pub(crate) fn screenshot(&self, path: &Path) {
        let shot = self.devtools("Page.captureScreenshot", &json!({ "format": "png" }));
        std::fs::write(path, base64(shot["data"].as_str().unwrap()).unwrap()).unwrap();
    }

    /// Errors that the page has made since the last time.
    pub(crate) fn errors(&self) -> Vec<String> {
        let log = self.command("se/log", &json!({ "type": "browser" })).unwrap();
        let entries = log.as_array().cloned().unwrap_or_default();
        let severe = entries.iter().filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.call("DELETE", &format!("/session/{}", self.session), &json!({}));
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn base64(text: &str) -> anyhow::Result<Vec<u8>> {
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in text.bytes().filter(|&digit| digit != b'=') {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("no base64: {digit}"),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            // The upper bits were taken already.
            bytes.push((bits >> count) as u8);
        }
    }
    Ok(bytes)
}
