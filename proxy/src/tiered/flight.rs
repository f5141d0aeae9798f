//! One fetch in the air, shared by all who want its blob.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::flight_state::{SeatId, State, Step};
use crate::blob::ByteRange;
use crate::call::BlobKey;

/// One fetch (singleflight). Its task belongs to the node; readers hold a seat and may leave at will.
pub(super) struct Flight {
    key: BlobKey,
    state: Mutex<State>,
    /// Tells the task that a reader came, moved or left, or that the disk did.
    moved: Notify,
    _ring_room: Option<OwnedSemaphorePermit>,
}

impl Flight {
    /// A flight with nothing in the air. `held`: no byte may leave before all are verified.
    pub(super) fn new(
        key: BlobKey,
        ring_bytes: usize,
        ring_room: Option<OwnedSemaphorePermit>,
        staged: bool,
        held: bool,
    ) -> Arc<Flight> {
        Arc::new(Flight {
            key,
            state: Mutex::new(State::new(ring_bytes, staged, held)),
            moved: Notify::new(),
            _ring_room: ring_room,
        })
    }

    /// The blob's name.
    pub(super) fn key(&self) -> &BlobKey {
        &self.key
    }

    // Readers.

    /// Takes a seat for a reader of `range`, if the flight can serve it.
    pub(super) fn board(&self, range: ByteRange) -> Option<SeatId> {
        let seat = self.state.lock().board(range, &self.key.digest);
        self.moved.notify_waiters();
        seat
    }

    /// What the reader does next to get the first bytes of `rest`; pending while there is nothing to do.
    pub(super) fn poll_step(&self, seat: SeatId, rest: ByteRange, cx: &mut Context<'_>) -> Poll<Step> {
        let mut state = self.state.lock();
        let step = state.step(seat, rest);
        if step.is_none() {
            state.wait(seat, cx);
        }
        drop(state);
        // The task may wait for this reader to move on, or want to know that it is hungry.
        self.moved.notify_waiters();
        step.map_or(Poll::Pending, Poll::Ready)
    }

    /// The reader has bytes from disk in hand. `false`: they came into doubt meanwhile and must not leave.
    pub(super) fn took_staged(&self, seat: SeatId, bytes: &Bytes) -> bool {
        let took = self.state.lock().took_staged(seat, bytes);
        self.moved.notify_waiters();
        took
    }

    /// Gives a seat back.
    pub(super) fn leave(&self, seat: SeatId) {
        // Dropped without the lock, since a waker may be the last that its task has.
        let _seat = self.state.lock().leave(seat);
        self.moved.notify_waiters();
    }

    // The task.

    /// Waits until `check` finds something.
    pub(super) async fn when<T>(&self, mut check: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let mut moved = pin!(self.moved.notified());
            moved.as_mut().enable();
            if let Some(found) = check(&mut self.state.lock()) {
                return found;
            }
            moved.await;
        }
    }

    /// Changes the state and tells everybody.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state);
        state.wake_all();
        drop(state);
        self.moved.notify_waiters();
        result
    }

    /// Changes what readers do not wait for, and tells the task.
    pub(super) fn change_quietly<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock());
        self.moved.notify_waiters();
        result
    }

    /// Reads the state.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock())
    }
}
