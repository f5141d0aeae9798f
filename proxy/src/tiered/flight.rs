//! One fetch in the air, shared by all who want its blob: what has come, who reads it, and how it ends.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::CallError;
use super::range::{Progress, joins};
use super::ring::{Ring, Segment};
use super::source::READ_CHUNK_BYTES;
use crate::blob::{ByteRange, Verifier};
use crate::call::BlobKey;
use crate::tier1::{Pinned, StagedReader};

/// One fetch (singleflight). Its task belongs to the node; readers hold a seat and may leave at will.
pub(super) struct Flight {
    key: BlobKey,
    state: Mutex<State>,
    /// Tells the task that a reader came, moved or left, or that the disk did.
    moved: Notify,
    _ring_room: Option<OwnedSemaphorePermit>,
}

/// Where a flight stands.
pub(super) struct State {
    ring: Ring,
    staging: Staging,
    seats: HashMap<SeatId, Seat>,
    next_seat: SeatId,
    phase: Phase,
}

/// The copy on disk that grows beside the stream.
struct Staging {
    /// Whether it still grows. A copy given up stays readable up to its watermark.
    active: bool,
    reader: Option<StagedReader>,
    watermark: u64,
}

type SeatId = u64;

struct Seat {
    /// The next byte that it wants.
    offset: u64,
    /// Whether it took a byte from this flight.
    received: bool,
    /// Set while it waits for bytes.
    waker: Option<Waker>,
}

/// How far the truth about the bytes is known.
pub(super) enum Phase {
    /// What is released may be read. When everything is released, the hash was right.
    Flowing,
    /// Nothing may be read until a second fetch has decided, or until a whole copy is verified.
    Held,
    /// Right, and visible in Tier 1.
    Published(Pinned),
    /// What is released may be read, and then this.
    Broken(CallError),
    /// What was released is not the blob. Whoever took none of it gets this instead.
    Replaced(Result<Copy, CallError>),
}

/// A verified copy of the whole blob.
#[derive(Clone)]
pub(super) enum Copy {
    /// In Tier 1.
    Pinned(Pinned),
    /// In memory.
    Memory(Bytes),
}

/// What a reader does next.
pub(super) enum Step {
    /// These are the next bytes.
    Bytes(Bytes, Arc<Segment>),
    /// The next bytes are on disk, below the watermark.
    Staged(StagedReader),
    /// Go on with this copy.
    Copy(Copy),
    /// The next bytes have passed by: go on without the flight.
    Detached,
    /// There will be no more.
    Failed(CallError),
}

/// Whether the next piece can be released.
pub(super) enum Room {
    /// It can.
    Ready,
    /// Not before the disk has taken older bytes. A reader may be hungry: it has taken everything there is.
    BehindDisk { hungry: bool },
    /// Not before the fastest reader has moved on.
    BehindReaders,
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
            state: Mutex::new(State {
                ring: Ring::new(ring_bytes),
                staging: Staging {
                    active: staged,
                    reader: None,
                    watermark: 0,
                },
                seats: HashMap::new(),
                next_seat: 0,
                phase: if held { Phase::Held } else { Phase::Flowing },
            }),
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
        let mut state = self.state.lock();
        let progress = match state.phase {
            // Whatever comes of it is a whole copy, or nothing for anybody.
            Phase::Held | Phase::Replaced(_) | Phase::Published(_) => Progress::NONE,
            Phase::Flowing | Phase::Broken(_) => state.progress(),
        };
        let held = matches!(state.phase, Phase::Held);
        if !held && !joins(range, &self.key.digest, progress) {
            return None;
        }
        let id = state.next_seat;
        state.next_seat += 1;
        state.seats.insert(
            id,
            Seat {
                offset: range.start(),
                received: false,
                waker: None,
            },
        );
        drop(state);
        self.moved.notify_waiters();
        Some(id)
    }

    /// What the reader does next to get the first bytes of `rest`; pending while there is nothing to do.
    pub(super) fn poll_step(&self, seat: SeatId, rest: ByteRange, cx: &mut Context<'_>) -> Poll<Step> {
        let mut state = self.state.lock();
        let offset = rest.start();
        match &state.phase {
            Phase::Replaced(_) if state.seats.get(&seat).is_some_and(|seat| seat.received) => {
                return Poll::Ready(Step::Failed(CallError::DataLoss));
            }
            Phase::Replaced(Ok(copy)) => return Poll::Ready(Step::Copy(copy.clone())),
            Phase::Replaced(Err(error)) => return Poll::Ready(Step::Failed(error.clone())),
            Phase::Held => {
                state.wait(seat, cx);
                return Poll::Pending;
            }
            Phase::Flowing | Phase::Published(_) | Phase::Broken(_) => {}
        }
        let len_max = usize::try_from(rest.len()).map_or(READ_CHUNK_BYTES, |len| len.min(READ_CHUNK_BYTES));
        if let Some((bytes, segment)) = state.ring.slice(offset, len_max) {
            state.took(seat, bytes.len() as u64);
            drop(state);
            self.moved.notify_waiters();
            return Poll::Ready(Step::Bytes(bytes, segment));
        }
        if let Phase::Published(pinned) = &state.phase {
            return Poll::Ready(Step::Copy(Copy::Pinned(pinned.clone())));
        }
        if let Some(reader) = &state.staging.reader
            && offset < state.staging.watermark
        {
            return Poll::Ready(Step::Staged(reader.clone()));
        }
        if offset < state.ring.start() {
            return Poll::Ready(Step::Detached);
        }
        if let Phase::Broken(error) = &state.phase {
            return Poll::Ready(Step::Failed(error.clone()));
        }
        state.wait(seat, cx);
        drop(state);
        // A hungry reader matters to a task that waits for the disk.
        self.moved.notify_waiters();
        Poll::Pending
    }

    /// The reader has bytes from disk in hand. `false`: they came into doubt meanwhile and must not leave.
    pub(super) fn took_staged(&self, seat: SeatId, bytes: &Bytes) -> bool {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Held | Phase::Replaced(_)) {
            return false;
        }
        state.took(seat, bytes.len() as u64);
        drop(state);
        self.moved.notify_waiters();
        true
    }

    /// Gives a seat back.
    pub(super) fn leave(&self, seat: SeatId) {
        // Dropped without the lock, since a waker may be the last that its task has.
        let _seat = self.state.lock().seats.remove(&seat);
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

impl State {
    /// Hands the next piece to the readers and to the disk.
    pub(super) fn release(&mut self, piece: Bytes, before: Verifier) {
        self.ring.push(piece, before);
    }

    /// Bytes that readers may have, counted from the beginning.
    pub(super) fn released(&self) -> u64 {
        self.ring.end()
    }

    /// Makes room in the ring for a piece, from what the disk has taken or, without a disk, from what the fastest
    /// reader has taken.
    pub(super) fn make_room(&mut self, len: usize) -> Room {
        while !self.ring.fits(len) {
            let Some(oldest_end) = self.ring.oldest_end() else {
                break;
            };
            if self.staging.active {
                if oldest_end > self.staging.watermark {
                    let hungry = self.seats.values().any(|seat| seat.waker.is_some());
                    return Room::BehindDisk { hungry };
                }
            } else if self.seats.values().all(|seat| seat.offset < oldest_end) {
                return Room::BehindReaders;
            }
            self.ring.drop_oldest();
        }
        Room::Ready
    }

    /// The disk has a file.
    pub(super) fn staging_opened(&mut self, reader: StagedReader) {
        self.staging.reader = Some(reader);
    }

    /// The disk has the bytes below `watermark`.
    pub(super) fn staged(&mut self, watermark: u64) {
        self.staging.watermark = watermark;
    }

    /// Bytes for the disk from `offset` on; `Some(None)` when it was given up.
    pub(super) fn for_disk(&self, offset: u64, len_max: usize) -> Option<Option<Bytes>> {
        if !self.staging.active {
            return Some(None);
        }
        self.ring.gather(offset, len_max).map(Some)
    }

    /// Whether a copy on disk still grows.
    pub(super) fn has_disk(&self) -> bool {
        self.staging.active
    }

    /// Goes on without a disk. Returns whether there was one.
    pub(super) fn give_up_disk(&mut self) -> bool {
        std::mem::replace(&mut self.staging.active, false)
    }

    /// Moves on to another phase.
    pub(super) fn enter(&mut self, phase: Phase) {
        // A copy elsewhere stands for the bytes in memory; a small blob's are worth keeping for who is about to read.
        if matches!(phase, Phase::Replaced(_))
            || (matches!(phase, Phase::Published(_)) && self.ring.end() > READ_CHUNK_BYTES as u64)
        {
            self.ring.clear();
        }
        self.phase = phase;
    }

    /// Whether the outcome is known, so that a task that ends has nothing left to say.
    pub(super) fn is_decided(&self, size_bytes: u64) -> bool {
        match self.phase {
            Phase::Published(_) | Phase::Broken(_) | Phase::Replaced(_) => true,
            Phase::Flowing => self.ring.end() == size_bytes,
            Phase::Held => false,
        }
    }

    /// Whether nobody reads.
    pub(super) fn is_deserted(&self) -> bool {
        self.seats.is_empty()
    }

    fn progress(&self) -> Progress {
        Progress {
            ring_start: self.ring.start(),
            released: self.ring.end(),
            staged: if self.staging.active {
                self.staging.watermark
            } else {
                0
            },
        }
    }

    fn took(&mut self, seat: SeatId, len: u64) {
        if let Some(seat) = self.seats.get_mut(&seat) {
            seat.offset += len;
            seat.received = true;
            seat.waker = None;
        }
    }

    fn wait(&mut self, seat: SeatId, cx: &mut Context<'_>) {
        if let Some(seat) = self.seats.get_mut(&seat) {
            match &mut seat.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => seat.waker = Some(cx.waker().clone()),
            }
        }
    }

    fn wake_all(&mut self) {
        for seat in self.seats.values_mut() {
            if let Some(waker) = seat.waker.take() {
                waker.wake();
            }
        }
    }
}
