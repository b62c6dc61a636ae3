//! A stream that fails when nothing moves for too long.
//!
//! hyper limits how long a head may take; who takes our answer byte by byte, or not at all, is
//! limited here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// `stream`, as long as there is a byte now and then.
pub(super) struct Stall<S> {
    stream: S,
    time_max: Duration,
    alarm: Pin<Box<Sleep>>,
}

impl<S> Stall<S> {
    /// Reading and writing fail once neither has moved a byte for `time_max`.
    pub(super) fn new(stream: S, time_max: Duration) -> Stall<S> {
        Stall { stream, time_max, alarm: Box::pin(sleep(time_max)) }
    }

    /// Passes on what the stream said, unless it has said `Pending` for too long.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.alarm.as_mut().reset(Instant::now() + self.time_max);
            return outcome;
        }
        ready!(self.alarm.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stall<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.watch(cx, outcome)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stall<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, outcome)
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
    use std::future::poll_fn;
    use tokio::net::{TcpListener, TcpStream};

    /// Runs `work` with both ends of a connection, of which the first may stall for a second.
    fn check<F: Future<Output = io::Error>>(work: impl FnOnce(Stall<TcpStream>, TcpStream) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (far, _) = listener.accept().await.unwrap();
            let work = work(Stall::new(near, Duration::from_secs(1)), far);
            tokio::time::timeout(Duration::from_secs(20), work).await.unwrap()
        });
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    #[test]
    fn who_does_not_take_what_it_asked_for_is_given_up() {
        check(|mut near, far| async move {
            let (block, _open) = ([0; 65536], far);
            loop {
                let sent = poll_fn(|cx| Pin::new(&mut near).poll_write(cx, &block)).await;
                if let Err(error) = sent {
                    return error;
                }
            }
        });
    }

    #[test]
    fn what_comes_in_time_is_passed_on() {
        check(|mut near, far| async move {
            let (mut storage, mut heard) = ([0; 1], 0);
            loop {
                if heard < 5 {
                    far.writable().await.unwrap();
                    assert_eq!(far.try_write(b"x").unwrap(), 1);
                }
                let mut buffer = ReadBuf::new(&mut storage);
                match poll_fn(|cx| Pin::new(&mut near).poll_read(cx, &mut buffer)).await {
                    Ok(()) => heard += 1,
                    Err(error) => {
                        assert_eq!(heard, 5, "bytes came within the time");
                        return error;
                    }
                }
            }
        });
    }
}
