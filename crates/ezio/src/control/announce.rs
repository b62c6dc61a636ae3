//! Announcing a torrent to HTTP trackers, of which one after the other is tried until one answers.
//!
//! BEP 12 asks one tier after the other. Here every tier has a task of its own, so the dead tracker
//! of an old torrent never delays a living one; within a tier, trackers are tried in order, and the
//! one that answered is first next time. Only the tiers of a private torrent are one task: BEP 27
//! allows one tracker at a time.
//!
//! A tracker that is gone, refuses or talks rubbish is noted once and tried again for ever: what
//! remains is the local network, and peers that find us.

use super::client::Question;
use super::{Context, Origin, Torrent, Wish};
use anyhow::bail;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use swarm::random::Random;
use swarm::tracker::{self, Announce, Answer, AnswerError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Peers to ask for: everybody, up to swarms where a part of them is enough.
const NUMWANT: u32 = 64;

/// Time between announces, whatever the tracker says. opentracker says half an hour, in which a
/// deployment begins and ends; EZIO has always come back each minute.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// Time between announces of a node that starves.
const STARVING_INTERVAL: Duration = Duration::from_secs(5);

/// Time until a tier of which nobody answered is tried again; it doubles each time.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What an announce may take, redirections included.
const ANNOUNCE_TIME_MAX: Duration = Duration::from_secs(10);

/// Bytes of an answer. 512 peers as dictionaries are 50 KB.
const ANSWER_LEN_MAX: usize = 1 << 20;

/// Announces `torrent` to one of the trackers of `tiers` until it is over.
pub(super) async fn run(
    context: Arc<Context>,
    torrent: Arc<Torrent>,
    tiers: Vec<Vec<String>>,
    mut wishes: watch::Receiver<Wish>,
) {
    let mut tier = Tier::new(context, torrent, tiers);
    while !tier.urls.is_empty() {
        let wish = *wishes.borrow_and_update();
        if wish.stop {
            return tier.leave().await;
        }
        tokio::select! {
            changed = wishes.changed() => if changed.is_err() { return },
            () = sleep_until(tier.due(wish)) => tokio::select! {
                () = tier.round(wish) => {}
                // What hangs is left where it is.
                _ = wishes.wait_for(|wish| wish.stop) => {}
            },
        }
    }
}

/// The trackers that stand in for each other, mostly those of one tier, and how it stands with them.
struct Tier {
    context: Arc<Context>,
    torrent: Arc<Torrent>,
    /// First the one that answered last.
    urls: Vec<String>,
    /// Whether the first one has been told that we started.
    started: bool,
    /// Whether the first one may have heard of us.
    asked: bool,
    /// Whether it has been told that we became whole.
    completed: bool,
    /// What it wants to be told back.
    tracker_id: Option<Vec<u8>>,
    /// Starvations that were answered with an announce.
    starved: u64,
    last: Option<Instant>,
    next: Instant,
    /// Rounds without an answer, since the last answer.
    failures: u32,
    warned: bool,
}

impl Tier {
    fn new(context: Arc<Context>, torrent: Arc<Torrent>, tiers: Vec<Vec<String>>) -> Tier {
        let mut random = Random::new(context.chance());
        let mut urls = Vec::new();
        for mut tier in tiers {
            tier.retain(|url| {
                let http = url.starts_with("http://");
                if !http {
                    context.warn(format!("tracker {url} is left out: only http:// is supported"));
                }
                http
            });
            // BEP 12: the order within a tier is by chance, so that load is shared.
            for left in (1..tier.len()).rev() {
                // Below the length of a vector, so it fits.
                tier.swap(left, random.below(left as u64 + 1) as usize);
            }
            urls.extend(tier);
        }
        Tier {
            context,
            torrent,
            urls,
            started: false,
            asked: false,
            completed: false,
            tracker_id: None,
            starved: 0,
            last: None,
            next: Instant::now(),
            failures: 0,
            warned: false,
        }
    }

    /// When to announce next.
    fn due(&self, wish: Wish) -> Instant {
        let Some(last) = self.last else { return self.next };
        if self.failures == 0 && wish.completed && !self.completed {
            return last;
        }
        let starves = wish.starved > self.starved;
        if starves { self.next.min(last + STARVING_INTERVAL) } else { self.next }
    }

    /// Announces to one tracker after the other until one answers.
    async fn round(&mut self, wish: Wish) {
        self.starved = wish.starved;
        self.last = Some(Instant::now());
        let mut failure = None;
        for index in 0..self.urls.len() {
            let event = self.event(index, wish);
            match self.announce(index, event).await {
                Ok(answer) => return self.answered(index, wish, answer),
                Err(error) => failure = failure.or(Some((index, error))),
            }
        }
        if let Some((index, error)) = failure {
            self.failed(index, &error);
        }
    }

    fn event(&self, index: usize, wish: Wish) -> tracker::Event {
        match index {
            0 if !self.started => tracker::Event::Started,
            0 if wish.completed && !self.completed => tracker::Event::Completed,
            0 => tracker::Event::Regular,
            _ => tracker::Event::Started,
        }
    }

    async fn announce(&mut self, index: usize, event: tracker::Event) -> anyhow::Result<Answer> {
        self.asked |= index == 0;
        let counters = &self.torrent.counters;
        let announce = Announce {
            info_hash: self.torrent.info_hash,
            peer_id: self.context.peer_id,
            port: self.torrent.port,
            uploaded: counters.uploaded.load(Ordering::Relaxed),
            downloaded: counters.downloaded.load(Ordering::Relaxed),
            left: Some(counters.left.load(Ordering::Relaxed)),
            event,
            numwant: Some(if event == tracker::Event::Stopped { 0 } else { NUMWANT }),
            compact: true,
            no_peer_id: false,
            tracker_id: self.tracker_id.clone().filter(|_| index == 0),
        };
        let url = tracker::url(&self.urls[index], &announce.to_query());
        let question = Question {
            url: &url,
            body: None,
            len_max: ANSWER_LEN_MAX,
            time_max: ANNOUNCE_TIME_MAX,
        };
        let (status, body) = self.context.ask(question).await?;
        match Answer::parse(&body) {
            // A refusal says more than the status it comes with.
            Err(error @ AnswerError::Refused(_)) => Err(error.into()),
            _ if !status.is_success() => bail!("the server says {status}"),
            answer => Ok(answer?),
        }
    }

    fn answered(&mut self, index: usize, wish: Wish, answer: Answer) {
        self.urls[..=index].rotate_right(1);
        (self.started, self.asked, self.failures) = (true, true, 0);
        self.completed |= wish.completed;
        self.tracker_id = answer.tracker_id.or(self.tracker_id.take().filter(|_| index == 0));
        self.next = Instant::now() + interval(answer.interval);
        if std::mem::take(&mut self.warned) {
            self.context.note(format!("tracker {} answers", self.urls[0]));
        }
        if let Some(warning) = answer.warning {
            self.context.warn(format!("tracker {} warns: {warning}", self.urls[0]));
        }
        let info_hash = self.torrent.info_hash;
        for addr in answer.peers {
            self.context.found(info_hash, addr, Origin::Tracker);
        }
    }

    fn failed(&mut self, index: usize, error: &anyhow::Error) {
        self.next = Instant::now() + retry(self.failures);
        self.failures += 1;
        if !std::mem::replace(&mut self.warned, true) {
            let url = &self.urls[index];
            self.context.warn(format!("announce to {url}: {error:#}; it will be tried again"));
        }
    }

    /// Says goodbye to the tracker that knows us. There is no second try.
    async fn leave(&mut self) {
        if self.asked {
            let _ = self.announce(0, tracker::Event::Stopped).await;
        }
    }
}

/// What to make of a tracker's interval. 0 is none.
fn interval(wanted: Duration) -> Duration {
    if wanted.is_zero() { INTERVAL.1 } else { wanted.clamp(INTERVAL.0, INTERVAL.1) }
}

/// How long to wait after so many rounds before this one, that failed too.
fn retry(failures: u32) -> Duration {
    RETRY.0.saturating_mul(1 << failures.min(6)).min(RETRY.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{ControlConfig, Counters};

    fn tier(last: Option<Instant>, next: Instant) -> Tier {
        tier_of(vec![vec!["http://t/".into()]], last, next)
    }

    fn tier_of(tiers: Vec<Vec<String>>, last: Option<Instant>, next: Instant) -> Tier {
        let config = ControlConfig::new([0; 20]);
        let torrent = Torrent {
            info_hash: [0; 20],
            name: String::new(),
            metainfo: None,
            trackers: Vec::new(),
            local: false,
            port: 1,
            counters: Arc::new(Counters::default()),
        };
        let context = Arc::new(Context::new(&config, Box::new(drop)));
        let tier = Tier::new(context, Arc::new(torrent), tiers);
        Tier { last, next, ..tier }
    }

    #[test]
    fn trackers_are_shuffled_within_their_tier() {
        let url = |name: &str| format!("http://{name}/");
        let now = Instant::now();
        let orders = (0..100).map(|_| {
            let tiers = vec![vec![url("a"), url("b"), "udp://x".into()], vec![url("c"), url("d")]];
            tier_of(tiers, None, now).urls.concat().replace("http://", "").replace('/', "")
        });
        let orders: std::collections::BTreeSet<String> = orders.collect();
        assert_eq!(orders.into_iter().collect::<Vec<_>>(), ["abcd", "abdc", "bacd", "badc"]);
    }

    #[test]
    fn who_starves_asks_every_five_seconds() {
        let (start, s) = (Instant::now(), Duration::from_secs);
        let starving = Wish { starved: 1, ..Wish::default() };
        let mut tier = tier(Some(start), start + s(60));
        assert_eq!(tier.due(Wish::default()), start + s(60));
        assert_eq!(tier.due(starving), start + s(5));
        // The same starvation does not count twice, and nothing makes it later than planned.
        tier.starved = 1;
        assert_eq!(tier.due(starving), start + s(60));
        let again = Wish { starved: 2, ..starving };
        tier.next = start + s(2);
        assert_eq!(tier.due(again), start + s(2));
    }

    #[test]
    fn who_became_whole_says_so_at_once_but_not_to_the_deaf() {
        let (start, s) = (Instant::now(), Duration::from_secs);
        let completed = Wish { completed: true, ..Wish::default() };
        let mut tier = tier(Some(start), start + s(60));
        assert_eq!(tier.due(completed), start);
        tier.failures = 1;
        assert_eq!(tier.due(completed), start + s(60));
        (tier.failures, tier.completed) = (0, true);
        assert_eq!(tier.due(completed), start + s(60));
    }

    #[test]
    fn silence_of_a_tracker_is_met_with_patience() {
        let waits: Vec<u64> = (0..8).map(|failures| retry(failures).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(retry(u32::MAX).as_secs(), 60);
    }

    #[test]
    fn a_tracker_may_not_send_us_away_for_long() {
        for (said, done) in [(0, 60), (1, 5), (30, 30), (1700, 60)] {
            assert_eq!(interval(Duration::from_secs(said)).as_secs(), done);
        }
    }
}
