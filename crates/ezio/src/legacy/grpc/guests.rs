//! Who may be connected to the gRPC service: so many, and nobody who comes and says nothing.
//!
//! When all places are taken, a newcomer gets that of whoever has been silent longest: a client says
//! who it is at once. Those who have spoken are asked for a sign of life by HTTP/2 itself.

use std::collections::VecDeque;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
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

/// Bytes of the preface and of the frame that has to follow it.
const WORDS: usize = 24 + 9;

/// A connection.
pub(super) struct Guest {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
    /// Until it has spoken.
    silent: Option<Silent>,
}

struct Silent {
    heard: usize,
    deadline: Pin<Box<Sleep>>,
    /// Its other end is dropped when somebody else is to have the place.
    place: oneshot::Receiver<()>,
}

/// Takes connections until nobody wants them any more.
pub(super) fn welcome(listener: TcpListener) -> ReceiverStream<io::Result<Guest>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(GUESTS_MAX));
        let mut silent: VecDeque<oneshot::Sender<()>> = VecDeque::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, most likely: some will be given back.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            silent.retain(|guest| !guest.is_closed());
            if places.available_permits() == 0 {
                drop(silent.pop_front());
            }
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (guest, kept) = Guest::new(stream, place);
            silent.push_back(kept);
            if sender.send(Ok(guest)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

impl Guest {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> (Guest, oneshot::Sender<()>) {
        // Answers are small and awaited. Without it they come all the same.
        let _ = stream.set_nodelay(true);
        let (kept, waits) = oneshot::channel();
        let deadline = Box::pin(tokio::time::sleep(SILENCE_MAX));
        let silent = Some(Silent { heard: 0, deadline, place: waits });
        (Guest { stream, _place: place, silent }, kept)
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
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let Some(silent) = &mut self.silent else { return read };
        silent.heard += buf.filled().len() - before;
        if silent.heard >= WORDS {
            self.silent = None;
            return read;
        }
        let late = silent.deadline.as_mut().poll(cx).is_ready();
        if late || Pin::new(&mut silent.place).poll(cx).is_ready() {
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
        Pin::new(&mut self.stream).poll_write(cx, buf)
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
    use std::io::Read as _;
    use tokio_stream::StreamExt as _;

    /// More silent connections than places, then one that speaks.
    #[test]
    fn silent_ones_keep_nobody_out() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let mut guests = welcome(listener);
            let mut silent = Vec::new();
            for _ in 0..2 * GUESTS_MAX {
                silent.push(std::net::TcpStream::connect(addr).unwrap());
                let mut guest = guests.next().await.unwrap().unwrap();
                // As a server does: it waits for what is said.
                tokio::spawn(async move {
                    let mut bytes = [0; 100];
                    let mut buf = ReadBuf::new(&mut bytes);
                    let read = |cx: &mut Context<'_>| Pin::new(&mut guest).poll_read(cx, &mut buf);
                    std::future::poll_fn(read).await
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
