//! What nodes tell their server about themselves: kept by the one, sent by the others.
//!
//! A report is a JSON object whose `node` names the reporter; the rest is for [`Machine`]. The answer
//! is a JSON object too, and may carry orders.

use super::Context;
use super::client::Question;
use super::fleet::{Facts, Machine};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// Bytes of a report. With 32 torrents of 500 bytes there is room to spare.
pub(super) const REPORT_LEN_MAX: usize = 64 << 10;

/// Reporters that are remembered. Each costs a report at the most.
const NODES_MAX: usize = 1024;

/// Reporters at one address: several on one machine is a test.
const ADDRESS_NODES_MAX: usize = 64;

/// Bytes of all reports together.
const BYTES_MAX: usize = 16 << 20;

/// Characters of a reporter's name. A host name has 64, and there may be a device's behind it.
const NODE_LEN_MAX: usize = 128;

/// Who has not reported for so long may be forgotten for somebody new.
const STALE: Duration = Duration::from_secs(60);

/// What nodes reported last.
#[derive(Debug, Default)]
pub(super) struct Reports {
    nodes: BTreeMap<(IpAddr, String), Report>,
    bytes: usize,
    /// How many machines there ever were: the number of the next one.
    met: u64,
}

#[derive(Debug)]
struct Report {
    /// As it came: JSON that was read takes up to thirty times as much.
    body: String,
    /// Which process it is of, and which of its reports.
    run: String,
    number: Option<u64>,
    at: Instant,
    machine: Machine,
}

/// Why a report is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReportError {
    #[error("a report is a JSON object with a string `node` of 1 to 128 characters")]
    Malformed,
    #[error("too many nodes report")]
    Full,
}

impl Reports {
    /// Keeps what `from` reports in `body`, in place of what the same node reported before. Returns
    /// what it is answered: an object, `{}` if there is nothing to do.
    pub(super) fn keep(
        &mut self,
        now: Instant,
        from: IpAddr,
        body: &[u8],
    ) -> Result<Value, ReportError> {
        let value: Value = serde_json::from_slice(body).map_err(|_| ReportError::Malformed)?;
        let node = value.get("node").and_then(Value::as_str).ok_or(ReportError::Malformed)?;
        if node.is_empty() || node.chars().nth(NODE_LEN_MAX).is_some() {
            return Err(ReportError::Malformed);
        }
        let key = (from.to_canonical(), node.to_owned());
        if !self.has_room(&key, body.len()) {
            self.forget_stale(now);
            if !self.has_room(&key, body.len()) {
                return Err(ReportError::Full);
            }
        }
        let body = std::str::from_utf8(body).map_err(|_| ReportError::Malformed)?.to_owned();
        let run: String = value["run"].to_string().chars().take(NODE_LEN_MAX).collect();
        let number = value["number"].as_u64();
        // Two connections do not keep an order, and the last word counts.
        if let Some(before) = self.nodes.get(&key)
            && run == before.run
            && number < before.number
        {
            return Ok(before.machine.answer());
        }
        let facts = Facts::parse(&value);
        let before = self.nodes.remove(&key);
        self.bytes -= before.as_ref().map_or(0, |report| report.body.len());
        self.bytes += body.len();
        let machine = match before {
            Some(Report { mut machine, .. }) => {
                machine.take(facts, now);
                machine
            }
            None => {
                self.met += 1;
                Machine::new(self.met, key.0.to_string(), facts, now)
            }
        };
        let answer = machine.answer();
        self.nodes.insert(key, Report { body, run, number, at: now, machine });
        Ok(answer)
    }

    /// Appends all reports, as JSON: where from, how many seconds ago, what.
    pub(super) fn list(&self, now: Instant, out: &mut String) {
        // They may be long: room is made for them once.
        out.reserve(self.bytes + 100 * self.nodes.len());
        out.push('[');
        for (index, ((addr, _), report)) in self.nodes.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let age = now.duration_since(report.at).as_secs();
            // An address needs no escapes, and a report was read as JSON before it was kept.
            *out += &format!(r#"{comma}{{"addr":"{addr}","age":{age},"report":"#);
            *out += &report.body;
            out.push('}');
        }
        out.push(']');
    }

    /// Those who report, by address and name.
    pub(super) fn machines(&self) -> impl Iterator<Item = &Machine> + Clone {
        self.nodes.values().map(|report| &report.machine)
    }

    /// As [`Reports::machines`], to be changed.
    pub(super) fn machines_mut(&mut self) -> impl Iterator<Item = &mut Machine> {
        self.nodes.values_mut().map(|report| &mut report.machine)
    }

    /// Whether there is room for a report of `len` bytes, in place of the one that `key` has.
    fn has_room(&self, key: &(IpAddr, String), len: usize) -> bool {
        let before = self.nodes.get(key);
        let bytes = self.bytes - before.map_or(0, |report| report.body.len()) + len;
        let at_addr = self.nodes.range((key.0, String::new())..);
        let at_addr = at_addr.take_while(|(other, _)| other.0 == key.0);
        let is_new = before.is_none();
        bytes <= BYTES_MAX
            && (!is_new || self.nodes.len() < NODES_MAX && at_addr.count() < ADDRESS_NODES_MAX)
    }

    fn forget_stale(&mut self, now: Instant) {
        self.nodes.retain(|_, report| now.duration_since(report.at) < STALE);
        self.bytes = self.nodes.values().map(|report| report.body.len()).sum();
    }
}

/// Where a node reports, and what.
#[derive(Clone)]
pub struct ReportConfig {
    /// `http://SERVER:6969/api/report`.
    pub url: String,
    /// Makes the report: an object whose `node` names this node among all. Called on the control
    /// thread once a second, so it must be quick.
    pub report: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Takes the server's answer, on the control thread as well.
    pub orders: Arc<dyn Fn(Value) + Send + Sync>,
}

/// Time between reports.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a report may take; after that the next one says more.
const SEND_TIME_MAX: Duration = Duration::from_secs(5);

/// Most time between attempts while the server does not answer.
const RETRY_MAX: u32 = 30;

/// Reports until it is dropped. A server that does not answer is noted once, and asked less often.
pub(super) async fn send(context: Arc<Context>, config: ReportConfig) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = 0_u32;
    loop {
        ticks.tick().await;
        match send_one(&context, &config).await {
            Ok(answer) => {
                if std::mem::take(&mut failures) > 0 {
                    context.note(format!("{} takes reports", config.url));
                }
                (config.orders)(answer);
            }
            Err(error) => {
                if failures == 0 {
                    let url = &config.url;
                    context.warn(format!("report to {url}: {error:#}; it will be tried again"));
                }
                failures = failures.saturating_add(1);
                tokio::time::sleep(INTERVAL * failures.min(RETRY_MAX)).await;
            }
        }
    }
}

async fn send_one(context: &Context, config: &ReportConfig) -> anyhow::Result<Value> {
    let body = (config.report)().to_string().into_bytes();
    let (url, len_max, time_max) = (&config.url, REPORT_LEN_MAX, SEND_TIME_MAX);
    let question = Question { url, body: Some(body), len_max, time_max };
    let (status, body) = context.ask(question).await?;
    anyhow::ensure!(status.is_success(), "the server says {status}");
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(
        reports: &mut Reports,
        now: Instant,
        from: &str,
        body: &str,
        wanted: Result<(), &str>,
    ) {
        let found = reports.keep(now, from.parse().unwrap(), body.as_bytes()).map(drop);
        assert_eq!(found.map_err(|e| e.to_string()), wanted.map_err(str::to_owned), "{body:.99}");
        assert_eq!(reports.bytes, reports.nodes.values().map(|r| r.body.len()).sum::<usize>());
    }

    fn list(reports: &Reports, now: Instant) -> Value {
        let mut text = String::new();
        reports.list(now, &mut text);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_last_report_of_a_node_counts() {
        let (mut reports, now) = (Reports::default(), Instant::now());
        check(&mut reports, now, "10.0.0.1", r#"{"node": "a", "x": 1}"#, Ok(()));
        check(&mut reports, now, "::ffff:10.0.0.1", r#"{"node": "a", "x": 2}"#, Ok(()));
        check(&mut reports, now, "10.0.0.1", r#"{"node": "b"}"#, Ok(()));
        let wanted = json!([
            {"addr": "10.0.0.1", "age": 3, "report": {"node": "a", "x": 2}},
            {"addr": "10.0.0.1", "age": 3, "report": {"node": "b"}},
        ]);
        assert_eq!(list(&reports, now + Duration::from_secs(3)), wanted);
    }

    #[test]
    fn a_report_that_was_overtaken_does_not_count() {
        let (mut reports, now) = (Reports::default(), Instant::now());
        let report = |run: u32, number: u32| json!({"node": "a", "run": run, "number": number});
        let mut last = |run: u32, number: u32| {
            check(&mut reports, now, "10.0.0.1", &report(run, number).to_string(), Ok(()));
            list(&reports, now)[0]["report"].clone()
        };
        assert_eq!(last(1, 7), report(1, 7));
        assert_eq!(last(1, 6), report(1, 7));
        assert_eq!(last(1, 8), report(1, 8));
        assert_eq!(last(2, 0), report(2, 0), "a new process counts from zero");
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let (mut reports, now) = (Reports::default(), Instant::now());
        let why = "a report is a JSON object with a string `node` of 1 to 128 characters";
        let long = format!(r#"{{"node": "{}"}}"#, "x".repeat(129));
        let deep = format!(r#"{{"node": "a", "x": {}"#, "[".repeat(60_000));
        for body in
            ["", "{}", "[]", "7", r#"{"node": 7}"#, r#"{"node": ""}"#, "\u{feff}", &long, &deep]
        {
            check(&mut reports, now, "10.0.0.1", body, Err(why));
        }
    }

    #[test]
    fn what_strangers_can_make_us_hold_is_bounded() {
        let (mut reports, now) = (Reports::default(), Instant::now());
        let node = |n: usize| format!(r#"{{"node": "{n}"}}"#);
        let full = Err("too many nodes report");
        for n in 0..ADDRESS_NODES_MAX {
            check(&mut reports, now, "10.0.0.1", &node(n), Ok(()));
        }
        check(&mut reports, now, "10.0.0.1", &node(ADDRESS_NODES_MAX), full);
        check(&mut reports, now, "10.0.0.1", &node(0), Ok(()));
        check(&mut reports, now, "10.0.0.2", &node(0), Ok(()));
        let large = format!(r#"{{"node": "a", "x": "{}"}}"#, "x".repeat(BYTES_MAX / 2));
        check(&mut reports, now, "10.0.0.3", &large, Ok(()));
        check(&mut reports, now, "10.0.0.4", &large, full);
        // The same node may always report again; the silent make room.
        check(&mut reports, now, "10.0.0.3", &large, Ok(()));
        check(&mut reports, now + STALE, "10.0.0.4", &large, Ok(()));
        assert_eq!(reports.nodes.len(), 1);
    }
}
