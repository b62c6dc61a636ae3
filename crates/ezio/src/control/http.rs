//! What `ezio serve` says by HTTP/1.1: the tracker, torrents, status, reports.
//!
//! Nothing here can be made to do anything to a disk. A client that is slow, silent, or sends too
//! much costs one of a bounded number of connections for a bounded time.

mod access;
mod dashboard;
mod stall;

pub(super) use dashboard::watch;

use super::fleet::{Ended, Fleet, Turn};
use super::interfaces;
use super::reports::{REPORT_LEN_MAX, ReportError};
use super::{Context, Origin, Torrent};
use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderName, ORIGIN};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use stall::Stall;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};
use std::time::{Duration, Instant};
use swarm::metainfo::Digest;
use swarm::networks::Network;
use swarm::tracker::{self, Announce, encode_failure, encode_scrape, percent_encode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The HTTP side of `ezio serve`.
#[derive(Clone)]
pub struct HttpConfig {
    /// Where to listen; port 0 is any free one.
    pub listen: Vec<SocketAddr>,
    /// What `/api/status` shows beside the torrents' peers and the nodes' reports: an object.
    /// Called on the control thread for each request, so it must be quick.
    pub status: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Who has it may tell machines what to do; nobody may if it is empty.
    pub token: String,
    /// From where orders are taken beside this machine itself.
    pub control: Vec<Network>,
    /// Whether only who has the token may look.
    pub private: bool,
    /// Names of this server beside those that are its own anyway.
    pub names: Vec<String>,
    /// Hears of machines that are done or have failed. Called on the control thread: it must not
    /// wait.
    pub ended: Arc<dyn Fn(Ended) + Send + Sync>,
    /// Hears once a second how the fleet is (as in `/api/summary`) and what has changed. Called on the
    /// control thread, as `ended`.
    pub looked: Arc<Looked>,
}

/// Takes the fleet in a few numbers, and how machines have changed.
pub type Looked = dyn Fn(&Value, Vec<Turn>) + Send + Sync;

impl HttpConfig {
    /// Listens on `listen`, shows nothing of an engine, and takes no orders.
    #[must_use]
    pub fn new(listen: Vec<SocketAddr>) -> HttpConfig {
        let status = Arc::new(|| json!({}));
        let (token, control, private, names) = (String::new(), Vec::new(), false, Vec::new());
        let (ended, looked) = (Arc::new(drop), Arc::new(|_: &Value, _| ()));
        HttpConfig { listen, status, token, control, private, names, ended, looked }
    }
}

/// Connections at once: twice the nodes one server is made for. More wait in the kernel.
const CONNECTIONS_MAX: usize = 512;

/// Connections of one address, so that one client cannot have all of them.
const ADDRESS_CONNECTIONS_MAX: usize = 64;

/// Time until a request's head is there, and between requests. Our nodes report each second.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// Time until a request's body is there.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// Time without a byte in either direction while one is wanted.
const STALL_TIME_MAX: Duration = Duration::from_secs(20);

/// Time a connection lives: enough for a torrent of 256 MiB at 4 Mbit/s. Who still wants something
/// connects again.
const CONNECTION_TIME_MAX: Duration = Duration::from_mins(10);

/// Bytes of a request's line and headers.
const HEAD_LEN_MAX: usize = 16 << 10;

/// Opens the sockets, so that an address that is taken is an error at the start.
pub(super) fn bind(listen: &[SocketAddr]) -> anyhow::Result<Vec<std::net::TcpListener>> {
    let bind = |addr: &SocketAddr| {
        bind_one(*addr).map_err(|error| {
            let (why, port) = (crate::store::io_reason(&error), addr.port());
            let what = match error.kind() {
                std::io::ErrorKind::AddrInUse => {
                    format!("`ss -ltnp | grep :{port}` shows who has it; end that, or give another")
                }
                std::io::ErrorKind::PermissionDenied => {
                    "ports below 1024 are root's; give another".to_owned()
                }
                _ => "give another".to_owned(),
            };
            anyhow::anyhow!("listen on {addr} (HTTP): {why}; {what} with --http ADDR")
        })
    };
    listen.iter().map(bind).collect()
}

fn bind_one(addr: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A server that is started again need not wait for the connections of its predecessor.
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        // So that IPv4 can have a socket of its own, and addresses look like what they are.
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// What the pages show, and who is connected.
pub(super) struct Server {
    config: HttpConfig,
    context: Arc<Context>,
    torrents: Mutex<BTreeMap<String, Handed>>,
    fleet: Mutex<Fleet>,
    link_mbit: Option<u64>,
    places: Arc<Semaphore>,
    /// How many connections an address has.
    addrs: Mutex<BTreeMap<IpAddr, usize>>,
}

/// A torrent to be handed out.
struct Handed {
    info_hash: Digest,
    metainfo: Option<Bytes>,
}

/// Both ends of a request's connection.
#[derive(Clone, Copy)]
struct Ends {
    remote: IpAddr,
    local: IpAddr,
}

impl Server {
    pub(super) fn new(config: HttpConfig, context: Arc<Context>) -> Server {
        Server {
            config,
            context,
            torrents: Mutex::default(),
            fleet: Mutex::new(Fleet::new()),
            link_mbit: interfaces::fastest_mbit(),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            addrs: Mutex::default(),
        }
    }

    /// Hands out `torrent` under its name; under a longer one if another has it.
    pub(super) fn add(&self, torrent: &Torrent) {
        let mut torrents = lock(&self.torrents);
        let mut name = torrent.name.clone();
        if torrents.contains_key(&name) {
            name = format!("{name}-{}", hex(&torrent.info_hash));
        }
        let metainfo = torrent.metainfo.clone().map(Bytes::from_owner);
        torrents.insert(name, Handed { info_hash: torrent.info_hash, metainfo });
    }

    pub(super) fn remove(&self, info_hash: &Digest) {
        lock(&self.torrents).retain(|_, handed| handed.info_hash != *info_hash);
    }

    /// Takes connections until it is dropped.
    pub(super) async fn serve(self: Arc<Self>, listener: std::net::TcpListener) {
        let addr = listener.local_addr();
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return self.context.warn(format!("no HTTP on {addr:?}: {error}")),
        };
        let router = router(Arc::clone(&self));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let Ok((stream, remote)) = listener.accept().await else {
                // Out of file descriptors, most likely: some will be given back.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Some(guest) = Guest::enter(&self, remote.ip(), place) else { continue };
            let Ok(local) = stream.local_addr() else { continue };
            let ends = Ends { remote: remote.ip(), local: local.ip() };
            let serving = connection(stream, router.clone(), ends);
            connections.spawn(async move {
                let _ = timeout(CONNECTION_TIME_MAX, serving).await;
                drop(guest);
            });
        }
    }
}

/// A connection's places among all and among those of its address.
struct Guest {
    server: Arc<Server>,
    addr: IpAddr,
    _place: OwnedSemaphorePermit,
}

impl Guest {
    /// `None` if the address has enough.
    fn enter(server: &Arc<Server>, addr: IpAddr, place: OwnedSemaphorePermit) -> Option<Guest> {
        let mut addrs = lock(&server.addrs);
        let count = addrs.entry(addr).or_default();
        if *count >= ADDRESS_CONNECTIONS_MAX {
            return None;
        }
        *count += 1;
        Some(Guest { server: Arc::clone(server), addr, _place: place })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut addrs = lock(&self.server.addrs);
        if let Some(count) = addrs.get_mut(&self.addr) {
            *count -= 1;
            if *count == 0 {
                addrs.remove(&self.addr);
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router, ends: Ends) {
    // Answers are small and awaited. Without it they come all the same.
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ends);
        router.call(request)
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_LEN_MAX)
        .max_headers(64);
    let io = TokioIo::new(Stall::new(stream, STALL_TIME_MAX));
    // How a connection ends is the client's business.
    let _ = builder.serve_connection(io, service).await;
}

fn router(server: Arc<Server>) -> Router {
    // What people look at, and what could be abused by a page of somebody else, by our names only;
    // nodes and trackers' clients come by any.
    let people = dashboard::routes()
        .route("/api/status", get(status))
        .route("/api/report", post(report))
        .route_layer(axum::middleware::from_fn_with_state(Arc::clone(&server), access::check));
    Router::new()
        .route("/announce", get(announce))
        .route("/scrape", get(scrape))
        .route("/torrents", get(torrents))
        .route("/torrents/{file}", get(torrent))
        .route("/healthz", get(async || text("ok\n".into())))
        .merge(people)
        .with_state(server)
}

type Shared = State<Arc<Server>>;

/// BEP 3: what is wrong is told in an answer that succeeds.
async fn announce(
    State(server): Shared,
    Extension(ends): Extension<Ends>,
    RawQuery(query): RawQuery,
) -> Response {
    let announce = match Announce::parse(query.unwrap_or_default().as_bytes()) {
        Ok(announce) => announce,
        Err(error) => return bencoded(encode_failure(&error.to_string())),
    };
    let (context, Ends { remote, local }) = (&server.context, ends);
    let (now, seed) = (context.now(), context.chance());
    // The lock is given back before anybody is told.
    let reply = context.tracker().announce(now, &announce, remote, local, seed);
    match reply {
        Ok(reply) => {
            server.pass_on(&announce, remote);
            bencoded(reply.encode())
        }
        Err(refusal) => bencoded(encode_failure(&refusal.to_string())),
    }
}

impl Server {
    /// Who announces to our tracker is found, without an announce of our own.
    fn pass_on(&self, announce: &Announce, remote: IpAddr) {
        let leaves = announce.event == tracker::Event::Stopped;
        if announce.port != 0 && !leaves && announce.peer_id != self.context.peer_id {
            let addr = SocketAddr::new(remote.to_canonical(), announce.port);
            self.context.found(announce.info_hash, addr, Origin::Tracker);
        }
    }
}

async fn scrape(State(server): Shared, RawQuery(query): RawQuery) -> Response {
    match tracker::parse_scrape(query.unwrap_or_default().as_bytes()) {
        Ok(wanted) => {
            let files = server.context.tracker().scrape(&wanted);
            bencoded(encode_scrape(&files))
        }
        Err(error) => bencoded(encode_failure(&error.to_string())),
    }
}

async fn torrents(State(server): Shared) -> Response {
    let torrents = lock(&server.torrents);
    let list = torrents.iter().map(|(name, handed)| {
        let path = format!("/torrents/{}.torrent", percent_encode(name.as_bytes()));
        json!({
            "name": name,
            "info_hash": hex(&handed.info_hash),
            "path": handed.metainfo.is_some().then_some(path),
            "bytes": handed.metainfo.as_ref().map(Bytes::len),
        })
    });
    json(&list.collect())
}

async fn torrent(State(server): Shared, Path(file): Path<String>) -> Response {
    let name = file.strip_suffix(".torrent").unwrap_or(&file);
    let metainfo = lock(&server.torrents).get(name).and_then(|handed| handed.metainfo.clone());
    match metainfo {
        Some(bytes) => answer("application/x-bittorrent", bytes),
        None => refuse(StatusCode::NOT_FOUND, "no such torrent; /torrents lists them"),
    }
}

async fn status(State(server): Shared) -> Response {
    let mut status = (server.config.status)();
    let Some(object) = status.as_object_mut() else { return json(&status) };
    object.insert("tracker".into(), server.tracked());
    let mut text = status.to_string();
    // Reports are text already: into the object, at its end.
    text.pop();
    text += ",\"nodes\":";
    lock(&server.fleet).reports.list(Instant::now(), &mut text);
    text.push('}');
    spoken("application/json", text)
}

impl Server {
    /// Who announced what to the tracker.
    fn tracked(&self) -> Value {
        let (tracker, now) = (self.context.tracker(), self.context.now());
        let torrents = tracker.scrape(&[]).into_iter().map(|(info_hash, counts)| {
            let peers = tracker.peers(&info_hash).map(|(addr, member)| {
                json!({
                    "addr": addr.to_string(),
                    "peer_id": member.peer_id.map(|id| id.escape_ascii().to_string()),
                    "left": member.left,
                    "uploaded": member.uploaded,
                    "downloaded": member.downloaded,
                    "age": now.since(member.seen).as_secs(),
                })
            });
            json!({
                "info_hash": hex(&info_hash),
                "complete": counts.complete,
                "incomplete": counts.incomplete,
                "downloaded": counts.downloaded,
                "peers": peers.collect::<Value>(),
            })
        });
        torrents.collect()
    }
}

/// Takes a node's report. Browsers are kept out: they name an origin when they post, and cannot
/// post JSON to a stranger without asking, so no page of somebody else can speak for a node.
async fn report(
    State(server): Shared,
    Extension(ends): Extension<Ends>,
    request: Request,
) -> Response {
    let headers = request.headers();
    if headers.contains_key(ORIGIN) {
        return refuse(StatusCode::FORBIDDEN, "reports come from nodes, not from web pages");
    }
    if headers.get(CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a report is application/json");
    }
    let body = Limited::new(request.into_body(), REPORT_LEN_MAX);
    let body = match timeout(BODY_TIME_MAX, body.collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => {
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, "a report has at most 64 KiB");
        }
        Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "the report did not come"),
    };
    match lock(&server.fleet).reports.keep(Instant::now(), ends.remote, &body) {
        Ok(answer) => json(&answer),
        Err(error @ ReportError::Malformed) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(error @ ReportError::Full) => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
        }
    }
}

fn text(text: String) -> Response {
    spoken("text/plain; charset=utf-8", text)
}

fn json(value: &Value) -> Response {
    spoken("application/json", value.to_string())
}

/// What was made for this answer alone. Who reads slowly makes us keep it: all of that is bounded.
fn spoken(kind: &'static str, text: String) -> Response {
    if text.len() <= UNCOUNTED_MAX {
        return answer(kind, text);
    }
    match Held::new(text) {
        Some(held) => answer(kind, Bytes::from_owner(held)),
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, "too many read too slowly; ask again"),
    }
}

/// Bytes of answers that are kept for those who read them, all together: some of the longest, which
/// have 20 MiB if a thousand machines that do not exist say as much as they may.
const HELD_MAX: usize = 48 << 20;

/// Bytes of an answer that are not counted: the connections bound them.
const UNCOUNTED_MAX: usize = 32 << 10;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// An answer that is counted until it was sent.
struct Held(String);

impl Held {
    fn new(text: String) -> Option<Held> {
        let held = Held(text);
        // It is given back when this is dropped, also here.
        let before = HELD.fetch_add(held.0.len(), Ordering::Relaxed);
        (before + held.0.len() <= HELD_MAX).then_some(held)
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

fn bencoded(bytes: Vec<u8>) -> Response {
    answer("text/plain", bytes)
}

fn answer(kind: &'static str, body: impl Into<Bytes>) -> Response {
    stream(kind, Body::new(Slices(body.into())))
}

/// Bytes that are given to hyper as they go out: it copies what it is given before that is sent, and would
/// keep a torrent of many megabytes once for everybody who fetches it.
struct Slices(Bytes);

/// Bytes of a slice: what hyper keeps at a time anyway.
const SLICE_LEN: usize = HEAD_LEN_MAX;

impl hyper::body::Body for Slices {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let len = self.0.len().min(SLICE_LEN);
        Poll::Ready((len > 0).then(|| Ok(Frame::data(self.0.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

fn stream(kind: &'static str, body: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        // What we say is what it says it is: no browser shall take it for a page.
        (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
        (HeaderName::from_static("cache-control"), HeaderValue::from_static("no-store")),
    ];
    (headers, body).into_response()
}

fn refuse(status: StatusCode, why: &str) -> Response {
    let mut response = text(format!("{why}\n"));
    *response.status_mut() = status;
    response
}

fn hex(info_hash: &Digest) -> String {
    info_hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
