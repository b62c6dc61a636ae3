//! The scheduler's door: a queue with a bound on its places, and one on the bytes of peers' messages.
//!
//! Most inputs are small, and the bytes of blocks are those of the pool. But bitfields and extended
//! messages are as long as a peer likes within what its torrent allows, and thousands fit into the
//! queue: without a bound on bytes, bitfields of a torrent of millions of pieces would be gigabytes.

use super::Input;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use swarm::swarm::Event;
use swarm::wire::Message;

/// A queue with so many places.
pub(super) fn channel(places: usize) -> (Inputs, Receiver<Waiting>) {
    let (sender, receiver) = sync_channel(places);
    (Inputs { sender, room: Arc::default() }, receiver)
}

/// Where others put inputs for the scheduler.
#[derive(Clone)]
pub(super) struct Inputs {
    sender: SyncSender<Waiting>,
    room: Arc<Room>,
}

/// An input on its way. It gives its room back when it is dropped, taken or not, so nobody waits for
/// the room of a scheduler that has ended.
pub(super) struct Waiting {
    pub(super) input: Input,
    _held: Option<Held>,
}

impl Inputs {
    /// Waits while the scheduler has too much to do. Once it has ended there is nobody to tell.
    pub(super) fn send(&self, input: Input) {
        let _held = Room::take(&self.room, bytes_of_peer(&input));
        let _ = self.sender.send(Waiting { input, _held });
    }
}

/// Bytes of peers' messages that may wait: 1 KiB for each of the scheduler's places, many times what
/// well-behaved peers need, and more than two of the longest bitfields.
const BYTES_MAX: usize = 4 << 20;

/// Bytes of an input whose number a peer has chosen.
fn bytes_of_peer(input: &Input) -> usize {
    match input {
        Input::Event(Event::Message(_, Message::Bitfield(bytes))) => bytes.len(),
        Input::Event(Event::Message(_, Message::Extended { payload, .. })) => payload.len(),
        _ => 0,
    }
}

/// How many such bytes wait.
#[derive(Default)]
struct Room {
    used: Mutex<usize>,
    freed: Condvar,
}

impl Room {
    /// Waits until there is room. What is longer than all of it has it to itself.
    fn take(room: &Arc<Room>, len: usize) -> Option<Held> {
        if len == 0 {
            return None;
        }
        let full = |used: &mut usize| *used > 0 && *used + len > BYTES_MAX;
        let used = room.freed.wait_while(room.lock(), full);
        *used.unwrap_or_else(PoisonError::into_inner) += len;
        Some(Held { room: Arc::clone(room), len })
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room that is taken.
struct Held {
    room: Arc<Room>,
    len: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        *self.room.lock() -= self.len;
        // Who is first may need more than there is, and the next less.
        self.room.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;
    use swarm::swarm::PeerId;

    fn bitfield(len: usize) -> Input {
        Input::Event(Event::Message(PeerId(0), Message::Bitfield(vec![0; len])))
    }

    /// Waits for what must come.
    #[track_caller]
    fn next(receiver: &Receiver<Waiting>) -> Waiting {
        receiver.recv_timeout(Duration::from_secs(60)).expect("an input comes")
    }

    #[test]
    fn long_messages_wait_for_each_other_and_short_inputs_for_none_of_them() {
        let (inputs, receiver) = channel(100);
        (0..4).for_each(|_| inputs.send(bitfield(BYTES_MAX / 4)));
        let extended = Message::Extended { id: 0, payload: vec![0; 1] };
        thread::scope(|scope| {
            scope.spawn(|| inputs.send(Input::Event(Event::Message(PeerId(1), extended))));
            let held: Vec<Waiting> = (0..4).map(|_| next(&receiver)).collect();
            assert!(receiver.recv_timeout(Duration::from_millis(200)).is_err(), "it has to wait");
            inputs.send(Input::Stop);
            assert!(matches!(next(&receiver).input, Input::Stop));
            drop(held);
            assert_eq!(bytes_of_peer(&next(&receiver).input), 1);
        });
    }

    #[test]
    fn a_message_longer_than_all_room_passes_alone() {
        let (inputs, receiver) = channel(100);
        inputs.send(bitfield(2 * BYTES_MAX));
        thread::scope(|scope| {
            scope.spawn(|| inputs.send(bitfield(2 * BYTES_MAX)));
            let first = next(&receiver);
            assert!(receiver.recv_timeout(Duration::from_millis(200)).is_err(), "it has to wait");
            drop(first);
            drop(next(&receiver));
        });
    }

    #[test]
    fn nobody_waits_for_a_scheduler_that_has_ended() {
        let (inputs, receiver) = channel(100);
        inputs.send(bitfield(BYTES_MAX));
        thread::scope(|scope| {
            let waits = scope.spawn(|| inputs.send(bitfield(BYTES_MAX)));
            thread::sleep(Duration::from_millis(50));
            assert!(!waits.is_finished());
            drop(receiver);
        });
    }
}
