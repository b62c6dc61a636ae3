//! `ezio watch`: the machines of a server, or the torrents of a daemon, live in the terminal.
//!
//! A thread asks (`source`) and never draws; this one draws and never waits for the network. What is
//! shown is decided by `room` and `view`, which know no terminal, and for a daemon by the view that
//! `ezio_ui.py` has. Without a terminal the same news are lines, with `--json` objects. It changes
//! nothing on the server.

mod node;
mod room;
mod source;
mod view;

use crate::screen::{Key, Screen};
use crate::serve;
use crate::ui::Ui;
use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use source::{News, Place, Source};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What to watch.
#[derive(Clone, Debug, clap::Args)]
pub struct WatchArgs {
    /// http://SERVER:6969 of an `ezio serve`, or HOST:50051 of a daemon [default: either of them on this
    /// machine]
    #[arg(value_name = "URL")]
    pub place: Option<String>,

    /// Read the token of a server that was started with --private from FILE
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Something that is watched: news in, lines or objects out.
trait Shown {
    /// Takes what the source has said.
    fn take(&mut self, news: News);
    /// Takes a key. Returns whether it ends the watching.
    fn press(&mut self, key: Key) -> bool;
    /// The screen, for so many columns and rows.
    fn draw(&self, size: (usize, usize)) -> Vec<String>;
    /// What is new since this was asked last, for people without a terminal.
    fn lines(&mut self) -> Vec<String>;
    /// The same for programs, an object for each change.
    fn events(&mut self) -> Vec<Value>;
}

/// Watches until it is told to stop: by `q`, a signal, or because nobody reads any more.
///
/// # Errors
/// If `place` is nothing that can be watched, or refuses.
pub fn run(args: &WatchArgs, ui: Ui) -> anyhow::Result<()> {
    let token = args.token_file.as_deref().map(serve::read_token).transpose()?;
    let place = place(args.place.as_deref())?;
    let signals = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&signals)).context("watch for signals")?;
    }
    let mut shown: Box<dyn Shown> = match &place {
        Place::Server(url) => Box::new(room::Shown::new(url)),
        Place::Daemon(addr) => Box::new(node::Shown::new(addr)),
    };
    let source = Source::start(place, token)?;
    let screen = if ui.json { None } else { Screen::take() };
    match screen {
        Some(screen) => on_screen(screen, &source, &mut *shown, &signals),
        None => in_lines(&source, &mut *shown, ui, &signals),
    }
}

/// How often keys are looked for: as fast as people notice.
const KEY_PERIOD: Duration = Duration::from_millis(50);

/// How often the screen is drawn when nothing happens: some of what it says are ages.
const DRAW_PERIOD: Duration = Duration::from_secs(1);

fn on_screen(
    mut screen: Screen,
    source: &Source,
    shown: &mut dyn Shown,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let (mut size, mut drawn) = (screen.size(), None::<Instant>);
    while !stop.load(Ordering::Relaxed) {
        let mut changed = drawn.is_none_or(|at| at.elapsed() >= DRAW_PERIOD);
        for news in source.news(KEY_PERIOD) {
            // What is refused is said where it can be read afterwards.
            if let News::Refused(why) = news {
                drop(screen);
                bail!(why);
            }
            shown.take(news);
            changed = true;
        }
        for key in screen.keys() {
            match key {
                Key::Suspend => {
                    drop(screen);
                    let _ = signal_hook::low_level::emulate_default_handler(SIGTSTP);
                    let Some(again) = Screen::take() else { return Ok(()) };
                    screen = again;
                }
                key if shown.press(key) => return Ok(()),
                _ => {}
            }
            changed = true;
        }
        let now = screen.size();
        if changed || now != size {
            size = now;
            drawn = Some(Instant::now());
            screen.draw(&shown.draw(size));
        }
    }
    Ok(())
}

fn in_lines(
    source: &Source,
    shown: &mut dyn Shown,
    ui: Ui,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        for news in source.news(KEY_PERIOD) {
            if let News::Refused(why) = news {
                bail!(why);
            }
            shown.take(news);
            let lines: Vec<String> = match ui.json {
                true => shown.events().iter().map(Value::to_string).collect(),
                false => shown.lines(),
            };
            // Whoever reads has gone: a pipe of ours would otherwise go on for ever.
            if lines.iter().any(|line| writeln!(std::io::stdout().lock(), "{line}").is_err()) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What is meant; without an argument whatever of ours answers on this machine.
fn place(text: Option<&str>) -> anyhow::Result<Place> {
    let Some(text) = text else {
        let answers = |port: u16| {
            let addr = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            std::net::TcpStream::connect_timeout(&addr, Duration::from_secs(1)).is_ok()
        };
        return match (answers(6969), answers(50051)) {
            (true, _) => Ok(Place::Server("http://127.0.0.1:6969".to_owned())),
            (false, true) => Ok(Place::Daemon("127.0.0.1:50051".to_owned())),
            (false, false) => bail!(
                "on this machine neither a server (port 6969) nor a daemon (port 50051) answers; say \
                 which one to watch, as `ezio watch http://SERVER:6969`"
            ),
        };
    };
    if text.starts_with("http://") {
        return Ok(Place::Server(text.trim_end_matches('/').to_owned()));
    }
    let addr = text.strip_prefix("grpc://").unwrap_or(text);
    ensure!(
        addr.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
            && !addr.contains('/'),
        "`{text}` is neither a server, as http://SERVER:6969, nor a daemon, as 127.0.0.1:50051"
    );
    if addr.ends_with(":6969") {
        // A server's port: nobody has a daemon there.
        return Ok(Place::Server(format!("http://{addr}")));
    }
    Ok(Place::Daemon(addr.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_daemons_are_told_apart() {
        let check = |text, wanted: &str| {
            let found = place(Some(text)).map_or_else(|e| e.to_string(), |p| format!("{p:?}"));
            assert!(found.contains(wanted), "{text}: {found}");
        };
        check("http://10.0.0.1:6969/", "Server(\"http://10.0.0.1:6969\")");
        check("10.0.0.1:6969", "Server(\"http://10.0.0.1:6969\")");
        check("grpc://[::1]:50051", "Daemon(\"[::1]:50051\")");
        check("localhost:7", "Daemon(\"localhost:7\")");
        check("server", "is neither a server");
        check("https://server", "is neither a server");
    }
}
