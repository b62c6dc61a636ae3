//! The gRPC services `ezio.EZIO` and `ezio.Node`, over HTTP/2 without encryption, on a thread of its own.
//!
//! Nine calls are few enough to be told apart by hand. What a call does may wait for devices, so it
//! is done on a thread for such work.

mod guests;
mod large;

use super::messages::{
    AddRequest, AddResponse, Details, Empty, Everything, HashRequest, MESSAGE_LEN_MAX,
    RemoveResponse, UpdateRequest, UpdateStatus, VersionResponse,
};
use super::session::{Refused, Session};
use anyhow::Context as _;
use prost::Message;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use swarm::swarm::Caps;
use tokio::sync::{Semaphore, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;
use tonic_prost::ProstCodec;

/// How long to go on trying to listen: a daemon that was told to end may hold the port so long.
const BIND_TIME_MAX: Duration = Duration::from_secs(10);

/// How long calls have to be answered at the end.
const STOP_TIME_MAX: Duration = Duration::from_millis(500);

/// Listens on one of `addrs`, and tries again for some seconds while all are taken.
///
/// # Errors
/// If they stay taken, or cannot be listened on at all.
pub(super) fn bind(addrs: &[SocketAddr], stop: &AtomicUsize) -> io::Result<TcpListener> {
    let begin = Instant::now();
    loop {
        match TcpListener::bind(addrs) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && begin.elapsed() < BIND_TIME_MAX
                    && stop.load(Ordering::Relaxed) == 0 =>
            {
                thread::sleep(Duration::from_millis(100));
            }
            result => return result,
        }
    }
}

/// The running service. Dropping it answers what was asked, and ends it.
pub(super) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers calls about `session` on `listener`; with `status_only` those that change something
    /// are refused.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start(
        listener: TcpListener,
        session: Arc<Session>,
        status_only: bool,
    ) -> anyhow::Result<Server> {
        listener.set_nonblocking(true).context("prepare the socket of the gRPC service")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("grpc call")
            .max_blocking_threads(8)
            .build()
            .context("start the gRPC service")?;
        let (stop, stopped) = oneshot::channel();
        let calls = Calls { session, status_only, limits: Arc::default() };
        let thread = thread::Builder::new()
            .name("grpc".to_owned())
            .spawn(move || {
                runtime.block_on(serve(listener, calls, stopped));
                // A device that does not answer must not keep the program from ending.
                runtime.shutdown_background();
            })
            .context("start the thread `grpc`")?;
        Ok(Server { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, calls: Calls, stopped: oneshot::Receiver<()>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let (stopping, tell) = oneshot::channel();
    let signal = async move {
        // It is dropped, not sent.
        let _ = stopped.await;
        let _ = stopping.send(());
    };
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(WINDOW_LEN)
        .initial_connection_window_size(WINDOW_LEN)
        .max_concurrent_streams(CALLS_MAX)
        .http2_max_header_list_size(HEADERS_LEN_MAX)
        .http2_keepalive_interval(Some(ALIVE_PERIOD))
        .http2_keepalive_timeout(Some(ALIVE_PERIOD))
        .serve_with_incoming_shutdown(calls, guests::welcome(listener), signal);
    let deadline = async {
        let _ = tell.await;
        tokio::time::sleep(STOP_TIME_MAX).await;
    };
    tokio::select! {
        _ = server => {}
        () = deadline => {}
    }
}

/// Calls at once on a connection.
const CALLS_MAX: u32 = 32;

/// Bytes of a call's headers.
const HEADERS_LEN_MAX: u32 = 16 << 10;

/// How often who is connected is asked for a sign of life, and how long that may take.
const ALIVE_PERIOD: Duration = Duration::from_secs(20);

/// Bytes of a request that carries no torrent: the hashes of 1500.
const REQUEST_LEN_MAX: usize = 64 << 10;

/// Such requests at once that have more than a little: the hashes of a hundred.
const LONG_MAX: usize = 16;
const SHORT_LEN_MAX: usize = 4 << 10;

/// What a request that carries no torrent may take to come and to be answered.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);

/// Torrents that may be on their way to us at once. One of them may be larger than [`SMALL_MAX`], up to
/// [`MESSAGE_LEN_MAX`].
const ADDED_MAX: usize = 4;

/// Bytes of a torrent that is not large: one of 800 000 pieces.
const SMALL_MAX: usize = 16 << 20;

/// What sending one and looking at its device may take.
const ADD_TIME_MAX: Duration = Duration::from_mins(5);

/// Torrents of many megabytes come in one message: larger windows need fewer round trips.
const WINDOW_LEN: u32 = 1 << 20;

/// Takes calls.
#[derive(Clone)]
struct Calls {
    session: Arc<Session>,
    status_only: bool,
    limits: Arc<Limits>,
}

/// Places, of which there are so many for all connections together.
struct Limits {
    /// Of torrents that are on their way to us, and of large ones among them.
    adding: Semaphore,
    large: Arc<Semaphore>,
    /// Of other requests that are long.
    long: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Limits {
        let places = |count| Arc::new(Semaphore::new(count));
        Limits { adding: Semaphore::new(ADDED_MAX), large: places(1), long: places(LONG_MAX) }
    }
}

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl tower_service::Service<http::Request<Body>> for Calls {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let calls = self.clone();
        Box::pin(async move { Ok(answer(calls, request).await) })
    }
}

async fn answer(calls: Calls, request: http::Request<Body>) -> http::Response<Body> {
    let Calls { session, status_only, limits } = calls;
    let path = request.uri().path().to_owned();
    // Short, for so many lines.
    let l = &*limits;
    match path.as_str() {
        "/ezio.EZIO/GetTorrentStatus" => unary(l, session, request, status).await,
        "/ezio.EZIO/GetVersion" => unary(l, session, request, |_, _: Empty| Ok(version())).await,
        "/ezio.Node/GetDetails" => unary(l, session, request, details).await,
        "/ezio.Node/Watch" => watch(l, session, request).await,
        _ if status_only => {
            Status::unimplemented("this EZIO was started for its torrents only").into_http()
        }
        "/ezio.EZIO/Shutdown" => unary(l, session, request, shutdown).await,
        "/ezio.EZIO/AddTorrent" => added(l, session, request).await,
        "/ezio.EZIO/PauseTorrent" => {
            unary(l, session, request, |s, r| Ok(pause(s, &r, true))).await
        }
        "/ezio.EZIO/ResumeTorrent" => {
            unary(l, session, request, |s, r| Ok(pause(s, &r, false))).await
        }
        "/ezio.Node/Remove" => unary(l, session, request, remove).await,
        _ => Status::unimplemented("neither ezio.EZIO nor ezio.Node has such a call").into_http(),
    }
}

fn status(session: &Session, request: UpdateRequest) -> Result<UpdateStatus, Status> {
    let wanted: Vec<String> = request.hashes.iter().map(|hash| hash.to_lowercase()).collect();
    let mut status = UpdateStatus::default();
    for torrent in session.torrents() {
        if wanted.is_empty() || wanted.contains(&torrent.hash) {
            status.hashes.push(torrent.hash.clone());
            status.torrents.insert(torrent.hash.clone(), torrent);
        }
    }
    Ok(status)
}

fn details(session: &Session, request: UpdateRequest) -> Result<Details, Status> {
    let wanted: Vec<String> = request.hashes.iter().map(|hash| hash.to_lowercase()).collect();
    let mut torrents = session.details();
    torrents.retain(|torrent| wanted.is_empty() || wanted.contains(&torrent.hash));
    Ok(Details { torrents })
}

fn everything(session: &Session, request: UpdateRequest) -> Result<Everything, Status> {
    let (status, details) = (status(session, request.clone())?, details(session, request)?);
    Ok(Everything { status: Some(status), details: Some(details) })
}

fn remove(session: &Session, request: HashRequest) -> Result<RemoveResponse, Status> {
    Ok(RemoveResponse { removed: session.remove(&request.hash.to_lowercase()) })
}

fn version() -> VersionResponse {
    VersionResponse { version: env!("CARGO_PKG_VERSION").to_owned() }
}

fn shutdown(session: &Session, _: Empty) -> Result<Empty, Status> {
    session.stop();
    Ok(Empty {})
}

fn add(session: &Session, request: AddRequest) -> Result<AddResponse, Status> {
    let hint =
        |number: i32, unsaid| Some(u32::try_from(number).ok().filter(|&n| n > 0).unwrap_or(unsaid));
    let caps = Caps {
        uploads: hint(request.max_uploads, UPLOADS_UNSAID),
        connections: hint(request.max_connections, CONNECTIONS_UNSAID),
        strangers_only: true,
    };
    match session.add(request.torrent, request.save_path.as_ref(), request.seeding_mode, caps) {
        Ok(_) => Ok(AddResponse { result: true }),
        // What the C++ EZIO answers to a bad torrent.
        Err(Refused::Torrent(why)) => Err(Status::unavailable(format!("{why:#}"))),
        Err(Refused::Path(why)) => Err(Status::failed_precondition(format!("{why:#}"))),
        Err(Refused::Twice(why)) => Err(Status::already_exists(why)),
    }
}

/// What the C++ daemon takes for numbers that are not positive.
const UPLOADS_UNSAID: u32 = 3;
const CONNECTIONS_UNSAID: u32 = 5;

/// A torrent that is not known is none that could be paused: nobody minds.
fn pause(session: &Session, request: &HashRequest, paused: bool) -> Empty {
    session.pause(&request.hash.to_lowercase(), paused);
    Empty {}
}

/// Takes a request without a torrent, which is short: few of those that are not, and none for ever.
async fn unary<M1, M2>(
    limits: &Limits,
    session: Arc<Session>,
    request: http::Request<Body>,
    work: fn(&Session, M1) -> Result<M2, Status>,
) -> http::Response<Body>
where
    M1: Message + Default + Send + 'static,
    M2: Message + Default + Send + 'static,
{
    let place = large::Place::new(SHORT_LEN_MAX, &limits.long);
    let request = request.map(|body| place.measure(body));
    within(CALL_TIME_MAX, unary_up_to(REQUEST_LEN_MAX, session, request, work)).await
}

/// Takes a torrent, which may be large: few at a time, and none for ever.
async fn added(
    limits: &Limits,
    session: Arc<Session>,
    request: http::Request<Body>,
) -> http::Response<Body> {
    let work = async {
        // The semaphore is never closed.
        let _place = limits.adding.acquire().await;
        let place = large::Place::new(SMALL_MAX, &limits.large);
        let request = request.map(|body| place.measure(body));
        unary_up_to(MESSAGE_LEN_MAX, session, request, add).await
    };
    within(ADD_TIME_MAX, work).await
}

/// What is answered, or that it took too long.
async fn within(
    time_max: Duration,
    work: impl Future<Output = http::Response<Body>>,
) -> http::Response<Body> {
    let late = |_| Status::deadline_exceeded("the request did not come in time").into_http();
    tokio::time::timeout(time_max, work).await.unwrap_or_else(late)
}

async fn unary_up_to<M1, M2, B>(
    len_max: usize,
    session: Arc<Session>,
    request: http::Request<B>,
    work: fn(&Session, M1) -> Result<M2, Status>,
) -> http::Response<Body>
where
    B: hyper::body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send>
        + Send
        + 'static,
    M1: Message + Default + Send + 'static,
    M2: Message + Default + Send + 'static,
{
    tonic::server::Grpc::new(ProstCodec::<M2, M1>::default())
        .max_decoding_message_size(len_max)
        .max_encoding_message_size(MESSAGE_LEN_MAX)
        .unary(Unary { session, work }, request)
        .await
}

async fn watch(
    limits: &Limits,
    session: Arc<Session>,
    request: http::Request<Body>,
) -> http::Response<Body> {
    let place = large::Place::new(SHORT_LEN_MAX, &limits.long);
    let request = request.map(|body| place.measure(body));
    let work = async {
        tonic::server::Grpc::new(ProstCodec::<Everything, UpdateRequest>::default())
            .max_decoding_message_size(REQUEST_LEN_MAX)
            .max_encoding_message_size(MESSAGE_LEN_MAX)
            .server_streaming(Watch(session, place), request)
            .await
    };
    // It is answered as soon as the request has come; the rest follows.
    within(CALL_TIME_MAX, work).await
}

/// Forgets what is no hash: an empty one takes two bytes to send, and twelve times as much to keep.
fn keep_little(request: &mut UpdateRequest) {
    let all = request.hashes.is_empty();
    request.hashes.retain(|hash| hash.len() == HASH_LEN);
    if !all && request.hashes.is_empty() {
        // Who asks for what there is not is told of nothing.
        request.hashes.push(String::new());
    }
    request.hashes.shrink_to_fit();
}

/// Hexadecimal digits of an info-hash.
const HASH_LEN: usize = 40;

/// How often who watches is told.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// One call that is answered again and again, and its place: what it asks for is kept as long.
struct Watch(Arc<Session>, large::Place);

impl tower_service::Service<tonic::Request<UpdateRequest>> for Watch {
    type Response = tonic::Response<ReceiverStream<Result<Everything, Status>>>;
    type Error = Status;
    type Future = Answer<Self::Response, Status>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<UpdateRequest>) -> Self::Future {
        let (session, mut request) = (Arc::clone(&self.0), request.into_inner());
        keep_little(&mut request);
        let place = self.1.clone();
        // Who does not read is told no more until it has read.
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let _place = place;
            while !session.is_stopped() {
                let (asked, request) = (Arc::clone(&session), request.clone());
                let done = tokio::task::spawn_blocking(move || everything(&asked, request));
                let answer = done.await.unwrap_or_else(|e| Err(Status::internal(e.to_string())));
                if sender.send(answer).await.is_err() {
                    return;
                }
                tokio::time::sleep(WATCH_PERIOD).await;
            }
        });
        Box::pin(async move { Ok(tonic::Response::new(ReceiverStream::new(receiver))) })
    }
}

/// One call, on a thread that may wait.
struct Unary<M1, M2> {
    session: Arc<Session>,
    work: fn(&Session, M1) -> Result<M2, Status>,
}

impl<M1: Send + 'static, M2: Send + 'static> tower_service::Service<tonic::Request<M1>>
    for Unary<M1, M2>
{
    type Response = tonic::Response<M2>;
    type Error = Status;
    type Future = Answer<Self::Response, Status>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<M1>) -> Self::Future {
        let (session, work) = (Arc::clone(&self.session), self.work);
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || work(&session, request.into_inner()));
            // It fails only if the work panicked.
            let answer = done.await.map_err(|e| Status::internal(e.to_string()))?;
            answer.map(tonic::Response::new)
        })
    }
}
