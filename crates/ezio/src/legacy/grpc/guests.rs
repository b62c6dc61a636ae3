//! Who may be connected to the gRPC service: so many, and nobody who comes and says nothing.
//!
//! When all places are taken, a newcomer gets that of whoever has not said yet who it is, else of whoever
//! has neither said nor been told anything for longest: so a crowd that says its first words and keeps
//! its places keeps nobody out. Those who have spoken are asked for a sign of life by HTTP/2 itself.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// Connections at once: the tools of one machine, and a few that watch.
pub(super) const GUESTS_MAX: usize = 64;

/// Time to say the first words, the preface of HTTP/2 (RFC 9113, 3.4).
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Nobody is sent away sooner, however many knock: a call takes some milliseconds, and on a busy machine
/// some tens. Others wait at the door meanwhile, 320 a second come in.
const STAY_MIN: Duration = Duration::from_millis(200);

/// Bytes of the preface and of the frame that has to follow it.
const WORDS: usize = 24 + 9;

/// A connection.
pub(super) struct Guest {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
    life: Arc<Life>,
    /// Until it has spoken.
    silent: Option<Silent>,
    /// Its other end is dropped when somebody else is to have the place.
    place: oneshot::Receiver<()>,
    /// It had to go.
    gone: bool,
}

struct Silent {
    heard: usize,
    deadline: Pin<Box<Sleep>>,
}

/// What the door sees of somebody inside.
struct Life {
    spoken: AtomicBool,
    came: Instant,
    /// Milliseconds from then to the last word said by it or to it.
    last: AtomicU64,
}

/// Somebody inside, as the door keeps it.
struct Kept {
    life: Arc<Life>,
    place: oneshot::Sender<()>,
}

/// Takes connections until nobody wants them any more.
pub(super) fn welcome(listener: TcpListener) -> ReceiverStream<io::Result<Guest>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(GUESTS_MAX));
        let mut inside: Vec<Kept> = Vec::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, most likely: some will be given back.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            inside.retain(|guest| !guest.place.is_closed());
            if places.available_permits() == 0 {
                dismiss_one(&mut inside).await;
            }
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (guest, kept) = Guest::new(stream, place);
            inside.push(kept);
            if sender.send(Ok(guest)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// Sends away who is missed least of those who had time to say something.
async fn dismiss_one(inside: &mut Vec<Kept>) {
    let Some(first) = inside.iter().map(|kept| kept.life.came).min() else { return };
    tokio::time::sleep((first + STAY_MIN).saturating_duration_since(Instant::now())).await;
    let rank = |kept: &Kept| {
        let last = Duration::from_millis(kept.life.last.load(Ordering::Relaxed));
        (kept.life.spoken.load(Ordering::Relaxed), kept.life.came + last)
    };
    let may_go = |at: &usize| inside[*at].life.came.elapsed() >= STAY_MIN;
    let least = (0..inside.len()).filter(may_go).min_by_key(|&at| rank(&inside[at]));
    if let Some(least) = least {
        inside.remove(least);
    }
}

impl Guest {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> (Guest, Kept) {
        // Answers are small and awaited. Without it they come all the same.
        let _ = stream.set_nodelay(true);
        let (kept, waits) = oneshot::channel();
        let (spoken, last) = (AtomicBool::new(false), AtomicU64::new(0));
        let life = Arc::new(Life { spoken, came: Instant::now(), last });
        let deadline = Box::pin(tokio::time::sleep(SILENCE_MAX));
        let silent = Some(Silent { heard: 0, deadline });
        let kept = Kept { life: Arc::clone(&life), place: kept };
        (Guest { stream, _place: place, life, silent, place: waits, gone: false }, kept)
    }

    /// Whether it has to go; if not, its task is woken when it has to.
    fn must_go(&mut self, cx: &mut Context<'_>) -> bool {
        self.gone = self.gone || Pin::new(&mut self.place).poll(cx).is_ready();
        self.gone
    }

    /// Something was said by it or to it.
    fn lives(&self) {
        let since = u64::try_from(self.life.came.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.life.last.store(since, Ordering::Relaxed);
    }
}

impl Connected for Guest {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.must_go(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let heard = buf.filled().len() - before;
        if heard > 0 {
            self.lives();
        }
        let Some(silent) = &mut self.silent else { return read };
        silent.heard += heard;
        if silent.heard >= WORDS {
            self.silent = None;
            self.life.spoken.store(true, Ordering::Relaxed);
        } else if silent.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Who does not read what it is told is not read either.
        if self.must_go(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        // Before it has spoken it is told our settings, which it did not ask for.
        if self.silent.is_none() && matches!(written, Poll::Ready(Ok(_))) {
            self.lives();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use tokio::io::AsyncReadExt as _;
    use tokio_stream::StreamExt as _;

    #[test]
    fn silent_ones_keep_nobody_out() {
        check_crowd(&[]);
    }

    /// They say who they are, and then nothing.
    #[test]
    fn those_who_only_introduce_themselves_keep_nobody_out() {
        check_crowd(&[0; WORDS]);
    }

    /// More connections than places that say `words` and then nothing.
    fn check_crowd(words: &[u8]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let mut guests = welcome(listener);
            let mut silent = Vec::new();
            for _ in 0..2 * GUESTS_MAX {
                let mut stream = std::net::TcpStream::connect(addr).unwrap();
                stream.write_all(words).unwrap();
                silent.push(stream);
                let mut guest = guests.next().await.unwrap().unwrap();
                // As a server does: it waits for what is said.
                tokio::spawn(async move {
                    let mut bytes = [0; 100];
                    while let Ok(1..) = guest.read(&mut bytes).await {}
                });
                tokio::task::yield_now().await;
            }
            // The first ones had to go, long before they were late; the last are here.
            let mut first = silent.remove(0);
            first.set_read_timeout(Some(SILENCE_MAX / 2)).unwrap();
            let ended = tokio::task::spawn_blocking(move || first.read(&mut [0]));
            assert!(matches!(ended.await.unwrap(), Ok(0)), "the first one is still here");
            let mut last = silent.pop().unwrap();
            last.set_nonblocking(true).unwrap();
            let error = last.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "the last one had to go");
        });
    }
}
