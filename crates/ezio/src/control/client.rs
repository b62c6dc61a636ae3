//! Asking by HTTP/1.1: trackers, and servers that hand out torrents.
//!
//! hyper, which serves here anyway, also asks: it leaves connecting to us, so the source address,
//! every time limit and every size is in plain sight. No encryption, no proxies, no cookies.

use super::events::{Events, Followed};
use super::{Context, runtime};
use crate::names;
use anyhow::{Context as _, bail, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, LOCATION, USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::spawn_blocking;
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

/// A question.
#[derive(Clone, Debug)]
pub(super) struct Question<'a> {
    pub(super) url: &'a str,
    /// JSON to be posted; `None` asks by GET.
    pub(super) body: Option<Vec<u8>>,
    /// Most bytes of the answer's body.
    pub(super) len_max: usize,
    /// From the first packet to the last.
    pub(super) time_max: Duration,
}

/// Who answers within a LAN answers within milliseconds; a lost first packet costs one second more.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// Longest silence within an answer.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Redirections that are followed: one for a tracker that moved, some for those who stack them.
const REDIRECTS_MAX: usize = 3;

/// Bytes of an answer's status line and headers.
const HEADERS_LEN_MAX: usize = 16 << 10;

/// Gets what `url` names, without an interface preferred: the torrent to deploy.
///
/// Blocks the calling thread, which must not be one of the asynchronous runtime's.
///
/// # Errors
/// If `url` is not `http`, nobody answers, the answer is no success, or it has more than `len_max`
/// bytes or takes more than ten minutes.
pub fn fetch(url: &str, len_max: usize) -> anyhow::Result<Vec<u8>> {
    fetch_until(url, len_max, &AtomicBool::new(false))
}

/// As [`fetch`], but gives up as soon as `stop` is set.
///
/// # Errors
/// As those of [`fetch`], and if `stop` is set before the answer is whole.
pub fn fetch_until(url: &str, len_max: usize, stop: &AtomicBool) -> anyhow::Result<Vec<u8>> {
    let time_max = Duration::from_mins(10);
    let question = Question { url, body: None, len_max, time_max };
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = ask(&|_| Ok(None), question) => outcome,
            () = set(stop) => bail!("interrupted"),
        }
    });
    runtime.shutdown_background();
    let (status, body) = outcome.map_err(|error| match advice(&error) {
        Some(advice) => anyhow::anyhow!("get {url}: {error:#}; {advice}"),
        None => error.context(format!("get {url}")),
    })?;
    ensure!(status.is_success(), "get {url}: the server says {status}");
    Ok(body)
}

/// What to do about a server that cannot be reached.
fn advice(error: &anyhow::Error) -> Option<&'static str> {
    if error.is::<LookUp>() {
        return Some("give the address that `ezio serve` prints, or mend DNS (/etc/resolv.conf)");
    }
    if error.is::<Elapsed>() {
        return Some("is the address right, and does a firewall on that machine let the port in?");
    }
    match error.downcast_ref::<std::io::Error>()?.kind() {
        std::io::ErrorKind::ConnectionRefused => Some(
            "nothing listens there: start `ezio serve` on that machine, or give the port it prints",
        ),
        std::io::ErrorKind::HostUnreachable | std::io::ErrorKind::NetworkUnreachable => {
            Some("there is no way there: is the cable in, and has this machine an address?")
        }
        _ => None,
    }
}

/// The name of a host does not lead to an address.
#[derive(Debug, thiserror::Error)]
#[error("look up {0}")]
struct LookUp(String);

/// Posts `body` to `url`, waits at most `time_max`, and returns the JSON that is answered.
///
/// Blocks the calling thread, as [`fetch`] does.
///
/// # Errors
/// If nobody answers in time, or the answer is no success, or no JSON of 64 KiB at the most.
pub fn post(url: &str, body: &Value, time_max: Duration) -> anyhow::Result<Value> {
    let answer = deliver(url, body, time_max)?;
    serde_json::from_slice(&answer).with_context(|| format!("post to {url}: the answer is no JSON"))
}

/// Posts JSON to `url`, whatever the answer says beside that it was a success. Blocks the calling
/// thread, as [`fetch`] does.
///
/// # Errors
/// If nobody answers in time, or the answer is no success, or longer than 64 KiB.
pub fn tell(url: &str, body: &Value, time_max: Duration) -> anyhow::Result<()> {
    deliver(url, body, time_max).map(drop)
}

fn deliver(url: &str, body: &Value, time_max: Duration) -> anyhow::Result<Vec<u8>> {
    let body = Some(body.to_string().into_bytes());
    let question = Question { url, body, len_max: 64 << 10, time_max };
    let runtime = runtime()?;
    let outcome = runtime.block_on(ask(&|_| Ok(None), question));
    runtime.shutdown_background();
    let (status, body) = outcome.with_context(|| format!("post to {url}"))?;
    ensure!(status.is_success(), "post to {url}: the server says {status}");
    Ok(body)
}

/// A server that will not say more however often it is asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(String);

/// Passes on the server-sent events of `url` until `take` has enough, `stop` is set, or the server ends
/// them. Blocks the calling thread, as [`fetch`] does.
///
/// # Errors
/// If nobody answers, nothing comes for ten seconds, or `take` fails; [`Refused`] if asking again will
/// not help.
pub(crate) fn follow(
    url: &str,
    token: Option<&str>,
    stop: &AtomicBool,
    take: &mut dyn FnMut(Followed<'_>) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = events(url, token, take) => outcome,
            () = set(stop) => Ok(()),
        }
    });
    runtime.shutdown_background();
    outcome.with_context(|| format!("get {url}"))
}

async fn events(
    url: &str,
    token: Option<&str>,
    take: &mut dyn FnMut(Followed<'_>) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    let uri = checked(url)?;
    let stream = connect(&|_| Ok(None), &uri).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = request(&uri, None)?;
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().context("the token cannot be sent")?;
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    let work = async {
        let response = timeout(SILENCE_MAX, sender.send_request(request)).await;
        let response = response.context("no answer")?.context("no HTTP answer")?;
        refused(response.status(), response.headers())?;
        let (mut body, mut events) = (response.into_body(), Events::default());
        loop {
            let frame = timeout(SILENCE_MAX, body.frame()).await.context("it is silent")?;
            let Some(frame) = frame else { return Ok(()) };
            let frame = frame.context("the events broke off")?;
            let bytes = frame.data_ref().map_or(&[][..], |data| data);
            if events.pass_on(bytes, take)?.is_break() {
                return Ok(());
            }
        }
    };
    tokio::pin!(work);
    tokio::select! {
        biased;
        outcome = &mut work => outcome,
        _ = connection => work.await,
    }
}

fn refused(status: StatusCode, headers: &HeaderMap) -> anyhow::Result<()> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let why = match status {
        StatusCode::UNAUTHORIZED => {
            "the server wants the token that `ezio serve` printed; put it into a file and give it with \
             --token-file FILE"
        }
        StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => {
            "the server does not answer to this name; ask by its address, or start it with \
             --allow-host NAME"
        }
        StatusCode::NOT_FOUND => "there is no `ezio serve` behind it; is the address right?",
        status if status.is_success() && kind.starts_with("text/event-stream") => return Ok(()),
        status if status.is_success() => "that is no `ezio serve`; is the address right?",
        status => bail!("the server says {status}"),
    };
    Err(Refused(why.to_owned()).into())
}

/// Waits until `flag` is set, as a signal does it, which wakes nobody.
async fn set(flag: &AtomicBool) {
    while !flag.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Which address of ours to talk to somebody from.
pub(super) type Source<'a> = &'a (dyn Fn(IpAddr) -> anyhow::Result<Option<IpAddr>> + Sync);

impl Context {
    /// Asks from the chosen interface. The status may be any but a redirection.
    pub(super) async fn ask(
        &self,
        question: Question<'_>,
    ) -> anyhow::Result<(StatusCode, Vec<u8>)> {
        ask(&|remote| self.source(remote), question).await
    }
}

async fn ask(source: Source<'_>, question: Question<'_>) -> anyhow::Result<(StatusCode, Vec<u8>)> {
    let time_max = question.time_max;
    let Ok(outcome) = timeout(time_max, follow_redirects(source, question)).await else {
        bail!("no complete answer within {} s", time_max.as_secs());
    };
    outcome
}

async fn follow_redirects(
    source: Source<'_>,
    question: Question<'_>,
) -> anyhow::Result<(StatusCode, Vec<u8>)> {
    let mut uri = checked(question.url)?;
    for _ in 0..=REDIRECTS_MAX {
        let (status, location, body) = exchange(source, &uri, &question).await?;
        match location {
            Some(location) if status.is_redirection() => uri = redirected(&uri, &location)?,
            _ => return Ok((status, body)),
        }
    }
    bail!("redirected more than {REDIRECTS_MAX} times")
}

/// Only what we can ask.
fn checked(url: &str) -> anyhow::Result<Uri> {
    let uri: Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
    match uri.scheme_str() {
        Some("http") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        _ => bail!("`{url}` does not begin with http://HOST, which is all that is supported"),
    }
}

/// Where `location` leads, seen from `uri`. RFC 9110 allows any relative reference; servers send
/// whole URLs or absolute paths.
fn redirected(uri: &Uri, location: &str) -> anyhow::Result<Uri> {
    match uri.authority() {
        Some(authority) if location.starts_with('/') && !location.starts_with("//") => {
            checked(&format!("http://{authority}{location}"))
        }
        _ => checked(location),
    }
    .with_context(|| "redirected")
}

type Exchanged = (StatusCode, Option<String>, Vec<u8>);

async fn exchange(
    source: Source<'_>,
    uri: &Uri,
    question: &Question<'_>,
) -> anyhow::Result<Exchanged> {
    let stream = connect(source, uri).await?;
    let mut builder = http1::Builder::new();
    builder.max_headers(64).max_buf_size(HEADERS_LEN_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let request = request(uri, question.body.clone())?;
    let work = async {
        let response = timeout(SILENCE_MAX, sender.send_request(request)).await;
        let response = response.context("no answer")?.context("no HTTP answer")?;
        let location = response.headers().get(LOCATION);
        let location = location.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let status = response.status();
        Ok((status, location, body(response, question.len_max).await?))
    };
    tokio::pin!(work);
    // The connection moves the bytes; what it delivered before it ended is still to be taken.
    tokio::select! {
        biased;
        outcome = &mut work => outcome,
        _ = connection => work.await,
    }
}

fn request(uri: &Uri, body: Option<Vec<u8>>) -> anyhow::Result<Request<Full<Bytes>>> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    // Without a user's name and password, which are not the server's business here.
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let mut request = Request::builder()
        .uri(path)
        .header(HOST, host)
        .header(CONNECTION, "close")
        .header(USER_AGENT, concat!("ezio/", env!("CARGO_PKG_VERSION")));
    if body.is_some() {
        request = request.method(Method::POST).header(CONTENT_TYPE, "application/json");
    }
    Ok(request.body(Full::from(body.unwrap_or_default()))?)
}

async fn body(response: Response<Incoming>, len_max: usize) -> anyhow::Result<Vec<u8>> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    loop {
        let frame = timeout(SILENCE_MAX, body.frame()).await.context("the answer stopped")?;
        let Some(frame) = frame else { return Ok(bytes) };
        let frame = frame.context("the answer broke off")?;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        ensure!(data.len() <= len_max - bytes.len(), "the answer has more than {len_max} bytes");
        bytes.extend_from_slice(data);
    }
}

/// Connects to the first address of the host that takes it.
async fn connect(source: Source<'_>, uri: &Uri) -> anyhow::Result<TcpStream> {
    let host = uri.host().unwrap_or_default();
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let port = uri.port_u16().unwrap_or(80);
    let addrs: Vec<SocketAddr> = match bare.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => {
            let host = bare.to_owned();
            let found = spawn_blocking(move || names::look_up(&host, port));
            let found = timeout(CONNECT_TIME_MAX, found).await.context("no answer");
            found.and_then(|found| Ok(found??)).with_context(|| LookUp(bare.to_owned()))?
        }
    };
    let mut failure = None;
    for addr in addrs {
        match connect_to(source, addr).await.with_context(|| format!("connect to {addr}")) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| anyhow::anyhow!("look up {bare}: it has no address")))
}

async fn connect_to(source: Source<'_>, addr: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source(addr.ip())? {
        socket.bind(SocketAddr::new(source, 0)).with_context(|| format!("from {source}"))?;
    }
    Ok(timeout(CONNECT_TIME_MAX, socket.connect(addr)).await.context("no answer")??)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, location: Option<&str>, wanted: Result<&str, &str>) {
        let found = checked(url).and_then(|uri| match location {
            Some(location) => redirected(&uri, location),
            None => Ok(uri),
        });
        let found = found.map(|uri| uri.to_string()).map_err(|e| format!("{e:#}"));
        assert_eq!(found, wanted.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn only_http_is_asked_also_when_redirected() {
        let why = "does not begin with http://HOST, which is all that is supported";
        check("http://t:6969/announce", None, Ok("http://t:6969/announce"));
        check("https://t/", None, Err(&format!("`https://t/` {why}")));
        check("udp://t:80", None, Err(&format!("`udp://t:80` {why}")));
        check("/announce", None, Err(&format!("`/announce` {why}")));
        check("http://t:1/a", Some("/b?c=%00"), Ok("http://t:1/b?c=%00"));
        check("http://t:1/a", Some("http://u/b"), Ok("http://u/b"));
        check("http://t/a", Some("https://u/b"), Err(&format!("redirected: `https://u/b` {why}")));
        check(
            "http://t/a",
            Some("file:///etc"),
            Err("redirected: `file:///etc` is no URL: invalid format"),
        );
    }
}
