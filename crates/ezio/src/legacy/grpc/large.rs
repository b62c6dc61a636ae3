//! Large requests come few at a time: who sends more than a little waits for a place of those who do, and
//! is read no further meanwhile. Torrents of hundreds of megabytes come one at a time.

use hyper::body::{Body, Buf as _, Bytes, Frame};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// The place of a call among those with large requests. It is taken when it turns out that it is needed,
/// and given back when this and the body are dropped: after the request was worked on.
#[derive(Clone)]
pub(super) struct Place {
    /// Bytes that anybody may send.
    small_max: usize,
    large: Arc<Semaphore>,
    taken: Arc<OnceLock<OwnedSemaphorePermit>>,
}

impl Place {
    pub(super) fn new(small_max: usize, large: &Arc<Semaphore>) -> Place {
        Place { small_max, large: Arc::clone(large), taken: Arc::default() }
    }

    /// `body`, of which no more than `small_max` and a frame is read before the place is taken.
    pub(super) fn measure<B>(&self, body: B) -> Measured<B> {
        let wait = Box::pin(Arc::clone(&self.large).acquire_owned());
        Measured { body, read: 0, place: self.clone(), wait }
    }
}

/// See [`Place::measure`].
pub(super) struct Measured<B> {
    body: B,
    read: usize,
    place: Place,
    /// Polled once it is needed, and not after it is done.
    wait: Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Measured<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.read > self.place.small_max && self.place.taken.get().is_none() {
            // The semaphore is never closed.
            if let Ok(permit) = ready!(self.wait.as_mut().poll(context)) {
                let _ = self.place.taken.set(permit);
            }
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            self.read += frame.data_ref().map_or(0, |data| data.remaining());
        }
        Poll::Ready(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, StreamBody};
    use std::convert::Infallible;
    use std::pin::pin;

    /// A body of `chunks` MiB.
    fn body(chunks: usize) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let frame = || Ok(Frame::data(Bytes::from_static(&[0; 1 << 20])));
        StreamBody::new(tokio_stream::iter(std::iter::repeat_with(frame).take(chunks)))
    }

    async fn read(body: impl Body<Data = Bytes, Error = Infallible> + Unpin) -> usize {
        body.collect().await.unwrap().to_bytes().len()
    }

    #[test]
    fn the_second_large_one_waits_for_the_first_and_small_ones_for_nobody() {
        let large = Arc::new(Semaphore::new(1));
        let place = || Place::new(16 << 20, &large);
        let (first, second) = (place(), place());
        assert_eq!(now(pin!(read(first.measure(body(40))))), Some(40 << 20));
        let mut waiting = pin!(read(second.measure(body(40))));
        assert_eq!(now(waiting.as_mut()), None, "it was read beside the first");
        assert_eq!(now(pin!(read(place().measure(body(16))))), Some(16 << 20));
        assert_eq!(now(waiting.as_mut()), None, "it was read beside the first");
        drop(first);
        assert_eq!(now(waiting), Some(40 << 20));
        assert_eq!(large.available_permits(), 0);
        drop(second);
        assert_eq!(large.available_permits(), 1);
    }

    /// What a future gives without anything happening outside. A stream stops for others now and then.
    fn now<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        (0..10).find_map(|_| match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    }
}
