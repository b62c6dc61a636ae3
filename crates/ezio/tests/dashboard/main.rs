//! The dashboard of `ezio serve` in a real browser, its data, and its orders to real deployments.
//!
//! With `EZIO_SCREENSHOTS=DIR` the pictures of the documentation are written there.

mod api;
mod browser;
mod hooks;
mod orders;
mod room;

use browser::{Browser, PATIENCE, ask};
use lab::{Need, Running, require};
use room::{HOSTILE, Room, Trouble};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use swarm::layout::{Extent, Layout};
use swarm::metainfo::{Draft, Metainfo};

/// The program under test.
fn ezio() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ezio"))
}

const BROWSER: [Need; 5] = [
    Need::Root,
    Need::Program("chromium"),
    Need::Program("chromedriver"),
    Need::Program("setpriv"),
    Need::Program("unshare"),
];

/// A server of an image of 20 GiB of zeros, which takes no room.
struct Server {
    _process: Running,
    addr: SocketAddr,
    token: String,
    info_hash: String,
    pid: u32,
    _dir: tempfile::TempDir,
}

const IMAGE_LEN: u64 = 20 << 30;
const PIECE_LEN: u32 = 8 << 20;

fn serve(options: &[&str]) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let (torrent, image) = (dir.path().join("classroom.torrent"), dir.path().join("classroom"));
    std::fs::File::create(&image).unwrap().set_len(IMAGE_LEN).unwrap();
    let layout = Layout::new(vec![Extent { offset: 0, len: IMAGE_LEN }]).unwrap();
    let zeros = ezio::sha1::digest(&vec![0; PIECE_LEN as usize]);
    let hashes = vec![zeros; (IMAGE_LEN / u64::from(PIECE_LEN)) as usize];
    let draft = Draft {
        name: &["classroom"],
        layout: &layout,
        piece_len: PIECE_LEN,
        hashes: &hashes,
        trackers: &[],
        created_by: None,
        creation_date: None,
        origin: None,
    };
    let bytes = draft.encode();
    let info_hash = Metainfo::parse(bytes.clone()).unwrap().info_hash();
    std::fs::write(&torrent, bytes).unwrap();
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let (torrent, image) = (text(&torrent), text(&image));
    let base = ["serve", "--http", "127.0.0.1:0", &torrent, "--from", &image];
    let mut process = Running::start(ezio(), &[&base, options].concat()).unwrap();
    let ready = process.ready().unwrap();
    let port = u16::try_from(ready["http_port"].as_u64().unwrap()).unwrap();
    Server {
        pid: process.pid(),
        _process: process,
        addr: SocketAddr::from(([127, 0, 0, 1], port)),
        token: ready["token"].as_str().expect("a token").to_owned(),
        info_hash: info_hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        _dir: dir,
    }
}

impl Server {
    fn get(&self, path: &str, headers: &str) -> browser::Answer {
        ask(Ipv4Addr::LOCALHOST.into(), self.addr, "GET", path, headers, "").unwrap()
    }

    fn order(&self, order: &Value) -> browser::Answer {
        let headers =
            format!("Content-Type: application/json\r\nAuthorization: Bearer {}\r\n", self.token);
        let (from, body) = (Ipv4Addr::LOCALHOST.into(), order.to_string());
        ask(from, self.addr, "POST", "/api/actions", &headers, &body).unwrap()
    }

    /// Waits until the only machine is as `wanted`.
    fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let machines = self.get("/api/machines", "").json();
            if wanted(&machines[0]) {
                return machines[0].clone();
            }
            assert!(Instant::now() < end, "not {what}: {machines:#}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Where the pictures go.
fn pictures() -> PathBuf {
    match std::env::var_os("EZIO_SCREENSHOTS") {
        // Tests run in the package's directory, people in the workspace's.
        Some(dir) => Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(dir),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard"),
    }
}

#[test]
fn a_room_is_seen_steered_and_stays_text() {
    require!(BROWSER);
    let server = serve(&[]);
    let mut troubles = vec![Trouble::None; 32];
    troubles[4] = Trouble::Link100;
    troubles[11] = Trouble::SlowDisk;
    troubles[18] = Trouble::NoPeers;
    troubles[22] = Trouble::Gone;
    troubles[27] = Trouble::Failed;
    (troubles[0], troubles[9], troubles[14]) = (Trouble::Done, Trouble::Done, Trouble::Verifying);
    let room = Room::open(server.addr, &server.info_hash, 0, troubles);
    let browser = Browser::start().unwrap();
    browser.show(1280, 900, false);
    browser.open(&format!("http://{}/", server.addr));
    browser.wait("document.querySelectorAll('.tile').length === 32");
    sees_what_is_wrong(&browser);
    sees_all_of_each_machine(&browser);
    reports_name_every_machine(&server);
    sorts_and_searches(&browser);
    takes_pictures(&browser);
    is_accessible(&browser);
    steers(&browser, &server, &room);
    // Last, so that it is in no picture.
    let _hostile = Room::open(server.addr, &server.info_hash, 40, vec![Trouble::Hostile]);
    browser.wait("machines.size === 33");
    let name = format!(
        "[...document.querySelectorAll('.tile .name')].find(n => n.textContent === {HOSTILE:?})"
    );
    browser.wait(&name);
    browser.run(&format!("({name}).click()"));
    browser.wait(&format!("document.querySelector('#detail-title').textContent === {HOSTILE:?}"));
    browser.run("document.querySelector('#detail').close()");
    browser.click("[data-view=table]");
    browser.wait("document.querySelectorAll('tbody tr').length === 33");
    assert_eq!(browser.run("return window.pwned === undefined"), true);
    assert_eq!(browser.run("return document.querySelectorAll('main img, body script').length"), 0);
    let page = server.get("/report.html", "").body;
    assert!(!page.contains("<img") && page.contains("&lt;img"), "{page}");
    assert_eq!(browser.errors(), [] as [String; 0]);
}

fn sees_what_is_wrong(browser: &Browser) {
    for (host, health, words) in [
        ("lab-05", "slow", "100 Mbit/s only"),
        ("lab-12", "slow", "its disk is slow"),
        ("lab-19", "stuck", "no peers"),
        ("lab-23", "gone", "no report"),
        ("lab-28", "failed", "input/output error"),
    ] {
        let item = format!(
            "[...document.querySelectorAll('#attention-list li')].some(li => \
             li.innerText.includes('{host}') && li.innerText.includes('{health}') \
             && li.innerText.includes('{words}'))"
        );
        browser.wait(&item);
    }
    assert_eq!(browser.run("return document.querySelectorAll('#attention-list li').length"), 5);
    browser.wait("document.querySelector('#f-done').textContent === '2'");
    let eta = "/left$/.test(document.querySelector('#headline').textContent)";
    browser.wait(eta);
    browser.wait("document.querySelector('#k-limit').textContent.includes('1 Gbit/s')");
    browser.wait("document.querySelector('.chart .machine') && document.querySelectorAll('.cells i').length === 128");
}

/// As a tile and as a row: name, address, device and model, phase, progress, both rates, time left,
/// peers; and in words what is wrong.
fn sees_all_of_each_machine(browser: &Browser) {
    let has = |what: &str, host: &str, patterns: &[&str]| {
        for pattern in patterns {
            browser.wait(&format!(
                "[...document.querySelectorAll('{what}')].some(n => /^{host}\\b/.test(n.innerText) \
                 && /{pattern}/.test(n.innerText))"
            ));
        }
    };
    let facts = ["127[.]3[.]0[.]3", "[/]dev[/]sda", "Samsung SSD 870 EVO", "Downloading", "\\d+ %"];
    let moves = ["\\d+ MB[/]s\\s", "\\d:\\d\\d"];
    has(".tile", "lab-02", &facts);
    has(".tile", "lab-02", &moves);
    has(".tile", "lab-02", &["↓ \\d+ MB[/]s", "↑ \\d+ MB[/]s", "10 peers"]);
    let failed = ["input[/]output error", "127[.]3[.]0[.]29"];
    let wrong: [(&str, &[&str]); 4] = [
        ("lab-05", &["100 Mbit[/]s only"]),
        ("lab-19", &["no peers"]),
        ("lab-23", &["no report", "127[.]3[.]0[.]24"]),
        ("lab-28", &failed),
    ];
    wrong.iter().for_each(|(host, words)| has(".tile", host, words));
    browser.click("[data-view=table]");
    browser.wait("document.querySelectorAll('tbody tr').length === 32");
    has("tbody tr", "lab-02", &facts);
    has("tbody tr", "lab-02", &moves);
    has("tbody tr", "lab-02", &["\\t10\\t"]);
    wrong.iter().for_each(|(host, words)| has("tbody tr", host, words));
    browser.click("[data-view=tiles]");
}

/// Per machine the time, bytes, average, whether it was verified, serial numbers and MAC; in each form.
fn reports_name_every_machine(server: &Server) {
    let csv = server.get("/report.csv", "").body;
    let (head, lines) = csv.split_once("\r\n").unwrap();
    let line = lines.lines().find(|line| line.starts_with("lab-10,")).unwrap();
    let cell = |column: &str| {
        let index = head.split(',').position(|name| name == column);
        line.split(',').nth(index.unwrap_or_else(|| panic!("no {column} in {head}"))).unwrap()
    };
    let average = (IMAGE_LEN as f64 / 187.0) as u64;
    let wanted = [
        ("outcome", "done".to_owned()),
        ("seconds", "187".to_owned()),
        ("bytes", IMAGE_LEN.to_string()),
        ("average_bytes_per_second", average.to_string()),
        ("verified", "yes".to_owned()),
        ("disk_serial", "S6PUNX0T411333".to_owned()),
        ("machine_serial", "PF3X0009".to_owned()),
        ("mac", "54:e1:ad:00:00:09".to_owned()),
    ];
    let html = server.get("/report.html", "").body;
    let row = html.lines().find(|line| line.contains(">lab-10<")).unwrap();
    for (column, value) in &wanted {
        assert_eq!(cell(column), value, "{column}: {line}");
        let shown = match *column {
            "bytes" => "20 GiB",
            "seconds" => "3m07s",
            "average_bytes_per_second" => "114.8 MB/s",
            _ => value,
        };
        assert!(format!("{row}<").contains(&format!(">{shown}<")), "{shown}: {row}");
    }
    for (host, words) in
        [("lab-28", ">failed: write 8 MiB at 0x1a4000000 of "), ("lab-23", ">gone: no report for ")]
    {
        let row = html.lines().find(|line| line.contains(&format!(">{host}<"))).unwrap();
        assert!(row.contains(words), "{row}");
    }
    let line = csv.lines().find(|line| line.starts_with("lab-23,")).unwrap();
    assert!(line.contains(",gone,") && line.contains("no report for "), "{line}");
    let json = server.get("/report.json", "").json();
    let machine = json["machines"].as_array().unwrap().iter().find(|m| m["host"] == "lab-10");
    let machine = machine.unwrap();
    assert_eq!((&machine["seconds"], &machine["stored_bytes"]), (&187.0.into(), &IMAGE_LEN.into()));
    assert_eq!((&machine["average"], &machine["verified"]), (&average.into(), &true.into()));
    for (key, column) in
        [("mac", "mac"), ("serial", "machine_serial"), ("disk_serial", "disk_serial")]
    {
        assert_eq!(machine[key], cell(column));
    }
}

fn sorts_and_searches(browser: &Browser) {
    let names = "[...document.querySelectorAll('.tile .name')].map(n => n.textContent).join()";
    browser.run(
        "const s = document.querySelector('#search'); s.value = 'LAB-1'; \
                 s.dispatchEvent(new Event('input'))",
    );
    let ten = "lab-10,lab-11,lab-12,lab-13,lab-14,lab-15,lab-16,lab-17,lab-18,lab-19";
    browser.wait(&format!("{names} === '{ten}'"));
    browser.run(
        "const s = document.querySelector('#search'); s.value = ''; \
                 s.dispatchEvent(new Event('input'))",
    );
    browser.click("[data-filter=attention]");
    browser.wait(&format!("{names} === 'lab-05,lab-12,lab-19,lab-23,lab-28'"));
    browser.click("[data-filter=done]");
    browser.wait(&format!("{names} === 'lab-01,lab-10'"));
    browser.click("[data-filter=all]");
    browser.click("[data-view=table]");
    browser.wait("document.querySelectorAll('tbody tr').length === 32");
    browser.click("#columns th:nth-child(6) button");
    browser.wait("/^lab-(01|10|15)$/.test(document.querySelector('tbody td').textContent)");
    browser.click("#columns th:nth-child(1) button");
    browser.click("[data-view=tiles]");
    browser.wait(&format!("{names}.startsWith('lab-01,lab-02,')"));
}

fn takes_pictures(browser: &Browser) {
    let dir = pictures();
    std::fs::create_dir_all(&dir).unwrap();
    // Some seconds of throughput to look at.
    browser.wait("throughput.points.length >= 25");
    for (name, width, height, dark) in [
        ("dashboard-light", 1280, 1160, false),
        ("dashboard-dark", 1280, 1160, true),
        ("dashboard-phone", 400, 860, false),
        ("dashboard-phone-dark", 400, 860, true),
    ] {
        browser.show(width, height, dark);
        let theme = if dark { "dark" } else { "light" };
        browser.wait(&format!("document.documentElement.dataset.theme === '{theme}'"));
        browser.wait("document.documentElement.scrollWidth <= innerWidth");
        browser.run("scrollTo(0, 0)");
        std::thread::sleep(Duration::from_millis(1200));
        browser.screenshot(&dir.join(format!("{name}.png")));
    }
    browser.show(1280, 900, false);
    browser.click("[data-view=table]");
    browser.run("document.querySelector('.machines').scrollIntoView()");
    std::thread::sleep(Duration::from_millis(1200));
    browser.screenshot(&dir.join("dashboard-table.png"));
    browser.click("[data-view=tiles]");
    browser.run("document.querySelector('#attention-list button').click()");
    std::thread::sleep(Duration::from_millis(600));
    browser.screenshot(&dir.join("dashboard-machine.png"));
    browser.run("document.querySelector('#detail').close(); scrollTo(0, 0)");
    // The switch is stronger than the system.
    browser.click("#theme");
    browser.wait("document.documentElement.dataset.theme === 'dark'");
    browser.click("#theme");
}

/// Names for all controls, contrast of all texts as WCAG 2 AA has it, and no need of a mouse.
fn is_accessible(browser: &Browser) {
    for dark in [false, true] {
        browser.show(1280, 900, dark);
        browser.run(&format!(
            "document.documentElement.dataset.theme = '{}'",
            if dark { "dark" } else { "light" }
        ));
        for selector in ["[data-view=tiles]", "[data-view=table]", "#rows button"] {
            browser.click(selector);
            std::thread::sleep(Duration::from_millis(300));
            let faint = browser.run(CONTRAST);
            assert_eq!(faint, Value::Array(Vec::new()), "dark: {dark}, after {selector}");
        }
        browser.run("document.querySelector('#detail').close()");
        browser.click("[data-view=tiles]");
    }
    let nameless = browser.run(
        "return [...document.querySelectorAll('button, input, select')].filter(n => \
         !(n.textContent.trim() || n.getAttribute('aria-label') || n.closest('label')?.textContent.trim())) \
         .map(n => n.outerHTML)",
    );
    assert_eq!(nameless, Value::Array(Vec::new()));
    // Slash searches; Tab leads to the first tile in the end; Return opens it, Escape closes it.
    const TAB: char = '\u{e004}';
    browser.run("document.activeElement.blur()");
    browser.keys("/");
    browser.wait("document.activeElement.id === 'search'");
    for _ in 0..12 {
        browser.keys(&TAB.to_string());
        if browser.run("return document.activeElement.className === 'tile'") == true {
            break;
        }
    }
    browser.wait("document.activeElement.className === 'tile'");
    browser.keys("\u{e007}");
    browser.wait("document.querySelector('#detail').open");
    browser.wait("document.querySelector('#detail-title').textContent === 'lab-01'");
    browser.keys("\u{e00c}");
    browser.wait("!document.querySelector('#detail').open");
}

const CONTRAST: &str = "
    const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const faint = new Map();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !node.checkVisibility({ contentVisibilityAuto: true })) continue;
        if (node.closest('.hidden, .skip, option')) continue;
        const style = getComputedStyle(node);
        const fg = parse(node.closest('svg') ? style.fill : style.color);
        let behind = node, bg;
        do { bg = parse(getComputedStyle(behind).backgroundColor); behind = behind.parentElement; }
        while (behind && bg.length === 4 && bg[3] === 0);
        if (bg.length === 4 && bg[3] === 0) bg = parse(getComputedStyle(document.body).backgroundColor);
        const [a, b] = [light(fg), light(bg)].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) faint.set(node.className + ' ' + walker.currentNode.data.slice(0, 30), ratio.toFixed(2));
    }
    return [...faint].map(f => f.join(': '));";

/// The token by the keyboard, then an order to all machines.
fn steers(browser: &Browser, server: &Server, room: &Room) {
    assert_eq!(browser.run("return document.querySelector('#actions').checkVisibility()"), false);
    let unlock = |token: &str| {
        browser.run("document.querySelector('#unlock').focus()");
        browser.keys("\u{e007}");
        browser.wait("document.activeElement.id === 'ask-input'");
        browser.keys(token);
        browser.keys("\u{e007}");
        browser.wait("document.querySelector('#actions').checkVisibility()");
    };
    unlock("wrong");
    browser.run("document.querySelector('#actions [data-action=pause]').click()");
    browser.wait("document.querySelector('#toast').textContent.includes('wrong')");
    assert!(room.answers.lock().unwrap().iter().all(|answer| answer["paused"] != true));
    unlock(&server.token);
    browser.run("document.querySelector('#actions [data-action=pause]').click()");
    browser.wait("document.querySelector('#toast').textContent.includes('Told 32 machines')");
    let end = Instant::now() + PATIENCE;
    let told = || room.answers.lock().unwrap().iter().filter(|a| a["paused"] == true).count();
    // One does not ask any more.
    while told() < 31 {
        assert!(Instant::now() < end, "{} were told", told());
        std::thread::sleep(Duration::from_millis(100));
    }
    browser.run("document.querySelector('#actions [data-action=resume]').click()");
    steers_one(browser, room);
    // The browser keeps the console's account of the refusal.
    let refused = browser.errors();
    assert!(refused.iter().all(|error| error.contains("401")), "{refused:?}");
}

/// Orders to a machine from its own window: a limit that is typed, another try, leave.
fn steers_one(browser: &Browser, room: &Room) {
    let order = |host: &str, action: &str| {
        browser.wait(&format!("document.querySelector('#detail-title').textContent === '{host}'"));
        browser.click(&format!("#detail-actions [data-action={action}]"));
    };
    let told = |index: usize, key: &str, wanted: Value| {
        let end = Instant::now() + PATIENCE;
        while room.answers.lock().unwrap()[index][key] != wanted {
            assert!(Instant::now() < end, "machine {index} does not hear {key} {wanted}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let open = |host: &str| {
        browser.run(&format!(
            "[...document.querySelectorAll('.tile')].find(n => n.innerText.startsWith('{host}')).click()"
        ));
    };
    open("lab-02");
    order("lab-02", "limit");
    browser.wait("document.activeElement.id === 'ask-input'");
    browser.keys("12,5\u{e007}");
    told(1, "limit", 12_500_000.into());
    order("lab-02", "finish");
    told(1, "finish", true.into());
    told(2, "limit", Value::Null);
    browser.keys("\u{e00c}");
    browser.wait("!document.querySelector('#detail').open");
    let shown = "document.querySelector('#detail-actions [data-action=retry]').checkVisibility()";
    open("lab-28");
    browser.wait(shown);
    order("lab-28", "retry");
    told(27, "retries", 1.into());
    browser.run("document.querySelector('#detail').close()");
}

#[test]
fn a_private_dashboard_asks_for_the_token() {
    require!(BROWSER);
    let server = serve(&["--private"]);
    let _room = Room::open(server.addr, &server.info_hash, 0, vec![Trouble::None; 2]);
    let browser = Browser::start().unwrap();
    browser.open(&format!("http://{}/", server.addr));
    browser.wait("document.activeElement.id === 'ask-input'");
    assert_eq!(browser.run("return machines.size"), 0);
    browser.keys(&server.token);
    browser.keys("\u{e007}");
    browser.wait("document.querySelectorAll('.tile').length === 2");
    browser.wait("document.querySelector('#live').textContent === 'live'");
    drop(server);
    browser.wait("document.querySelector('#live').textContent.startsWith('connection lost')");
    assert_eq!(browser.run("return document.querySelectorAll('.tile').length"), 2, "as it was");
}

/// The line that the page shows while nobody has come is the one that `serve` prints.
#[test]
fn two_images_are_shown_with_one_line_for_both() {
    require!(BROWSER);
    let dir = tempfile::tempdir().unwrap();
    let sources = ["sda1", "sda2"].map(|name| {
        let path = dir.path().join(name);
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let mut command = std::process::Command::new(ezio());
    let base = ["serve", "--raw", "--http", "127.0.0.1:0", "--port", "0"];
    command
        .args(base)
        .args(["--interface", "127.0.0.1"])
        .args(&sources)
        .stdout(std::process::Stdio::piped());
    let mut server = command.spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(server.stdout.take().unwrap()));
    let line = lines.map_while(Result::ok).find(|line| line.starts_with("  ezio deploy ")).unwrap();
    assert!(line.ends_with(" --to sda1=DEVICE --to sda2=DEVICE"), "{line}");
    let browser = Browser::start().unwrap();
    let url = line.split_whitespace().nth(2).unwrap();
    browser.open(&format!("{url}/"));
    let shown = format!("document.querySelector('#command').textContent === '{}'", line.trim());
    browser.wait(&shown);
    browser.wait("document.querySelectorAll('.copies').length === 2");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn five_hundred_machines_stay_smooth() {
    require!(BROWSER);
    let server = serve(&[]);
    let room = Room::open(server.addr, &server.info_hash, 0, vec![Trouble::None; 500]);
    let browser = Browser::start().unwrap();
    browser.show(1280, 900, false);
    browser.open(&format!("http://{}/", server.addr));
    browser.wait("document.querySelectorAll('.tile').length === 500");
    let cpu = || cpu_seconds(server.pid);
    for view in ["tiles", "table"] {
        browser.click(&format!("[data-view={view}]"));
        std::thread::sleep(Duration::from_secs(1));
        browser.run(MEASURE);
        let (started, before, reported) =
            (Instant::now(), cpu(), room.reports.load(std::sync::atomic::Ordering::Relaxed));
        std::thread::sleep(Duration::from_secs(8));
        let found = browser.run("return window.measured");
        let seconds = started.elapsed().as_secs_f64();
        let reports = room.reports.load(std::sync::atomic::Ordering::Relaxed) - reported;
        let number = |key: &str| found[key].as_f64().unwrap();
        let mean = number("time") / number("count").max(1.0);
        let touched = number("touched") / number("count").max(1.0);
        eprintln!(
            "{view}: {:.0} reports/s; a change touches {touched:.0} machines on the page and takes \
             {mean:.1} ms to show, at most {:.1} ms; {:.0} bytes a change; the server takes {:.1} % \
             of a core",
            reports as f64 / seconds,
            number("longest"),
            number("bytes") / number("messages").max(1.0),
            100.0 * (cpu() - before) / seconds,
        );
        assert!(number("count") >= 3.0, "{found}");
        assert!(number("messages") >= 3.0, "{found}");
        // What is out of sight costs nothing, and the page is not drawn for each report.
        assert!((1.0..200.0).contains(&touched), "{found}");
        assert!(number("count") / seconds < 5.0, "{found}");
        assert!(number("bytes") / number("messages") < 200_000.0, "{found}");
        assert!(reports as f64 / seconds > 100.0, "{reports} reports in {seconds} s");
    }
    assert_eq!(browser.errors(), [] as [String; 0]);
}

/// Counts what the page does, from now on. `render` and `take` are functions of its script.
const MEASURE: &str = "
    window.measured = { time: 0, longest: 0, count: 0, bytes: 0, messages: 0, touched: 0 };
    if (!window.original) {
        const observer = new MutationObserver((records) => {
            const of = ({ target }) => (target.closest ? target : target.parentElement)?.closest('.tile, tr');
            measured.touched += new Set(records.map(of)).size;
        });
        for (const id of ['tiles', 'rows']) {
            observer.observe(document.getElementById(id),
                { subtree: true, childList: true, characterData: true, attributes: true });
        }
        window.original = [render, take];
        render = () => {
            const start = performance.now();
            window.original[0]();
            document.body.offsetHeight;
            const time = performance.now() - start;
            measured.time += time;
            measured.count += 1;
            measured.longest = Math.max(measured.longest, time);
        };
        take = (message, all) => {
            measured.bytes += JSON.stringify(message).length;
            measured.messages += 1;
            return window.original[1](message, all);
        };
    }";

/// Time that a process has spent on processors: fields 14 and 15 of proc_pid_stat(5), in ticks of
/// which Linux has a hundred a second.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}
