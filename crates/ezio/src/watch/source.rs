//! Where the news come from: a thread that asks, and asks again when nobody answers any more.

use crate::control::{self, events::Followed};
use crate::legacy::Client;
use crate::legacy::messages::Everything;
use anyhow::Context as _;
use serde_json::Value;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `http://SERVER:6969`.
    Server(String),
    /// `HOST:50051`.
    Daemon(String),
}

/// What a source says.
#[derive(Debug)]
pub(super) enum News {
    /// An event of a server: its name, and its data.
    Event(String, Value),
    /// How a daemon is.
    Status(Box<Everything>),
    /// Nobody answers; it is tried again.
    Lost(String),
    /// It will not be tried again.
    Refused(String),
}

/// A thread that asks until this is dropped.
pub(super) struct Source {
    news: Receiver<News>,
    stop: Arc<AtomicBool>,
}

/// News that may wait for who looks; a server that tells more is asked less.
const NEWS_MAX: usize = 64;

/// Time between attempts.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A connection that lasted so long was a good one: servers end them now and then.
const GOOD_AFTER: Duration = Duration::from_secs(3);

impl Source {
    pub(super) fn start(place: Place, token: Option<String>) -> anyhow::Result<Source> {
        let (sender, news) = sync_channel(NEWS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let asking = Asking { place, token, sender, stop: Arc::clone(&stop) };
        let builder = thread::Builder::new().name("watch".into());
        // It may hang on a name that is looked up; it ends with the process.
        let _detached = builder.spawn(move || asking.run()).context("start the thread `watch`")?;
        Ok(Source { news, stop })
    }

    /// Waits at most `time` for something, and returns all there is.
    pub(super) fn news(&self, time: Duration) -> Vec<News> {
        let first = self.news.recv_timeout(time);
        if matches!(first, Err(RecvTimeoutError::Disconnected)) {
            thread::sleep(time);
        }
        first.into_iter().chain(self.news.try_iter()).collect()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Asking {
    place: Place,
    token: Option<String>,
    sender: SyncSender<News>,
    stop: Arc<AtomicBool>,
}

impl Asking {
    fn run(self) {
        let mut wait = Duration::ZERO;
        while !self.stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let outcome = match &self.place {
                Place::Server(url) => self.server(url),
                Place::Daemon(addr) => self.daemon(addr),
            };
            if let Err(why) = &outcome
                && why.is::<control::Refused>()
            {
                let _ = self.sender.send(News::Refused(format!("{why:#}")));
                return;
            }
            wait = match begun.elapsed() >= GOOD_AFTER {
                true => Duration::ZERO,
                false => (wait + RETRY).min(RETRY_MAX),
            };
            // The first time it may be the server's way to end an old connection.
            if wait > Duration::ZERO {
                let why = outcome.err().map_or_else(|| "it went away".into(), |e| format!("{e:#}"));
                if self.sender.send(News::Lost(why)).is_err() {
                    return;
                }
                self.rest(wait);
            }
        }
    }

    fn rest(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn flow(&self, news: News) -> ControlFlow<()> {
        if self.sender.send(news).is_err() || self.stop.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn server(&self, url: &str) -> anyhow::Result<()> {
        let events = format!("{url}/events");
        let mut machines = None;
        control::follow(&events, self.token.as_deref(), &self.stop, &mut |event: Followed<'_>| {
            let data: Value = serde_json::from_str(event.data).context("no event of a server")?;
            // Machines that were forgotten are not told of: then all of it is asked for again.
            let count = data["count"].as_u64();
            let fewer = count.zip(machines).is_some_and(|(now, before)| now < before);
            machines = count.or(machines);
            let ended = fewer || self.flow(News::Event(event.name.to_owned(), data)).is_break();
            Ok(if ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }

    fn daemon(&self, addr: &str) -> anyhow::Result<()> {
        let mut client = Client::connect(addr)?;
        client.watch(&mut |everything| self.flow(News::Status(Box::new(everything))))
    }
}
