//! What has come of a fetch, who reads it, and how far the truth about its bytes is known.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;

use super::CallError;
use super::range::{Progress, joins};
use super::ring::{Ring, Segment};
use super::source::{READ_CHUNK_BYTES, chunk_len};
use crate::blob::{ByteRange, Verifier};
use crate::digest::Digest;
use crate::tier1::{Pinned, StagedReader};

/// Where a flight stands. Does no I/O and waits for nothing.
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

pub(super) type SeatId = u64;

pub(super) struct Seat {
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

impl State {
    pub(super) fn new(ring_bytes: usize, staged: bool, held: bool) -> State {
        State {
            ring: Ring::new(ring_bytes),
            staging: Staging {
                active: staged,
                reader: None,
                watermark: 0,
            },
            seats: HashMap::new(),
            next_seat: 0,
            phase: if held { Phase::Held } else { Phase::Flowing },
        }
    }

    // Readers.

    /// Takes a seat for a reader of `range`, if it can be served.
    pub(super) fn board(&mut self, range: ByteRange, digest: &Digest) -> Option<SeatId> {
        let joined = match self.phase {
            // Whatever comes of it is a whole copy, or nothing for anybody.
            Phase::Held | Phase::Replaced(_) | Phase::Published(_) => true,
            Phase::Flowing | Phase::Broken(_) => joins(range, digest, self.progress()),
        };
        if !joined {
            return None;
        }
        let id = self.next_seat;
        self.next_seat += 1;
        let seat = Seat {
            offset: range.start(),
            received: false,
            waker: None,
        };
        self.seats.insert(id, seat);
        Some(id)
    }

    /// What a reader does next to get the first bytes of `rest`; `None` while it has to wait.
    pub(super) fn step(&mut self, seat: SeatId, rest: ByteRange) -> Option<Step> {
        let offset = rest.start();
        match &self.phase {
            Phase::Held => return None,
            Phase::Replaced(_) if self.seats.get(&seat).is_some_and(|seat| seat.received) => {
                return Some(Step::Failed(CallError::DataLoss));
            }
            Phase::Replaced(Ok(copy)) => return Some(Step::Copy(copy.clone())),
            Phase::Replaced(Err(error)) => return Some(Step::Failed(error.clone())),
            Phase::Flowing | Phase::Published(_) | Phase::Broken(_) => {}
        }
        if let Some((bytes, segment)) = self.ring.slice(offset, chunk_len(rest)) {
            self.took(seat, bytes.len() as u64);
            return Some(Step::Bytes(bytes, segment));
        }
        if let Phase::Published(pinned) = &self.phase {
            return Some(Step::Copy(Copy::Pinned(pinned.clone())));
        }
        if let Some(reader) = &self.staging.reader
            && offset < self.staging.watermark
        {
            return Some(Step::Staged(reader.clone()));
        }
        if offset < self.ring.start() {
            return Some(Step::Detached);
        }
        match &self.phase {
            Phase::Broken(error) => Some(Step::Failed(error.clone())),
            Phase::Flowing | Phase::Held | Phase::Published(_) | Phase::Replaced(_) => None,
        }
    }

    /// A reader has bytes from disk in hand. `false`: they came into doubt meanwhile and must not leave.
    pub(super) fn took_staged(&mut self, seat: SeatId, bytes: &Bytes) -> bool {
        if matches!(self.phase, Phase::Held | Phase::Replaced(_)) {
            return false;
        }
        self.took(seat, bytes.len() as u64);
        true
    }

    /// Takes a seat back.
    pub(super) fn leave(&mut self, seat: SeatId) -> Option<Seat> {
        self.seats.remove(&seat)
    }

    // The task.

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

    /// Remembers to wake a reader that found nothing to do.
    pub(super) fn wait(&mut self, seat: SeatId, cx: &mut Context<'_>) {
        if let Some(seat) = self.seats.get_mut(&seat) {
            match &mut seat.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => seat.waker = Some(cx.waker().clone()),
            }
        }
    }

    /// Wakes all who wait.
    pub(super) fn wake_all(&mut self) {
        for seat in self.seats.values_mut() {
            if let Some(waker) = seat.waker.take() {
                waker.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::DigestMismatch;
    use crate::digest::Function;
    use crate::tier2::Tier2Error;

    const PIECE_BYTES: usize = 1000;

    fn digest() -> Digest {
        Digest::of(Function::Sha256, &[0; 10 * PIECE_BYTES])
    }

    /// A ring for two pieces.
    fn state(staged: bool) -> State {
        State::new(4 * PIECE_BYTES, staged, false)
    }

    fn bring_a_piece(state: &mut State) {
        let mut before = Verifier::new(digest());
        before
            .update(&vec![0; usize::try_from(state.released()).unwrap()])
            .unwrap();
        state.release(vec![0; PIECE_BYTES].into(), before);
    }

    fn whole() -> ByteRange {
        ByteRange::whole(&digest())
    }

    fn from(start: usize) -> ByteRange {
        whole().skip(start as u64)
    }

    #[test]
    fn without_a_disk_the_fastest_reader_sets_the_pace() {
        let mut state = state(false);
        let slow = state.board(whole(), &digest()).unwrap();
        let fast = state.board(whole(), &digest()).unwrap();
        bring_a_piece(&mut state);
        bring_a_piece(&mut state);
        assert!(matches!(state.make_room(PIECE_BYTES), Room::BehindReaders));
        assert!(matches!(state.step(fast, from(0)), Some(Step::Bytes(..))));
        assert!(matches!(state.make_room(PIECE_BYTES), Room::Ready));
        // The piece that made room is lost to the slow one.
        assert!(matches!(state.step(slow, from(0)), Some(Step::Detached)));
        assert!(state.board(whole(), &digest()).is_none());
        // A reader that stalls hands the pace to the next.
        let third = state.board(from(PIECE_BYTES), &digest()).unwrap();
        bring_a_piece(&mut state);
        assert!(matches!(state.make_room(PIECE_BYTES), Room::BehindReaders));
        assert!(matches!(
            state.step(third, from(PIECE_BYTES)),
            Some(Step::Bytes(..))
        ));
        assert!(matches!(state.make_room(PIECE_BYTES), Room::Ready));
    }

    #[test]
    fn with_a_disk_nothing_leaves_memory_before_it_is_there() {
        let mut state = state(true);
        let reader = state.board(whole(), &digest()).unwrap();
        bring_a_piece(&mut state);
        bring_a_piece(&mut state);
        assert!(matches!(state.step(reader, from(0)), Some(Step::Bytes(..))));
        assert!(matches!(
            state.make_room(PIECE_BYTES),
            Room::BehindDisk { hungry: false }
        ));
        assert!(matches!(
            state.step(reader, from(PIECE_BYTES)),
            Some(Step::Bytes(..))
        ));
        assert!(state.step(reader, from(2 * PIECE_BYTES)).is_none());
        state.wait(reader, &mut Context::from_waker(Waker::noop()));
        assert!(matches!(
            state.make_room(PIECE_BYTES),
            Room::BehindDisk { hungry: true }
        ));
        state.staged(PIECE_BYTES as u64);
        assert!(matches!(state.make_room(PIECE_BYTES), Room::Ready));
        // What left memory is on disk, so a newcomer is welcome; without the disk it is not.
        assert!(state.board(whole(), &digest()).is_some());
        assert!(state.give_up_disk() && !state.give_up_disk());
        assert!(state.board(whole(), &digest()).is_none());
    }

    #[test]
    fn what_was_released_is_delivered_before_an_error_and_not_after_a_doubt() {
        let mut state = state(false);
        let reader = state.board(whole(), &digest()).unwrap();
        let other = state.board(from(5 * PIECE_BYTES), &digest()).unwrap();
        bring_a_piece(&mut state);
        bring_a_piece(&mut state);
        assert!(matches!(state.step(reader, from(0)), Some(Step::Bytes(..))));
        state.enter(Phase::Held);
        assert!(state.step(reader, from(PIECE_BYTES)).is_none());
        assert!(!state.took_staged(reader, &Bytes::from_static(b"doubtful")));
        state.enter(Phase::Flowing);
        state.enter(Phase::Broken(Tier2Error::Short.into()));
        assert!(matches!(
            state.step(reader, from(PIECE_BYTES)),
            Some(Step::Bytes(..))
        ));
        assert!(matches!(
            state.step(reader, from(2 * PIECE_BYTES)),
            Some(Step::Failed(CallError::Tier2(Tier2Error::Short)))
        ));
        let mismatch = DigestMismatch::TooLong { expected: digest() };
        state.enter(Phase::Replaced(Err(Tier2Error::Corrupt(mismatch).into())));
        assert!(matches!(
            state.step(reader, from(PIECE_BYTES)),
            Some(Step::Failed(CallError::DataLoss))
        ));
        assert!(matches!(
            state.step(other, from(5 * PIECE_BYTES)),
            Some(Step::Failed(CallError::Tier2(Tier2Error::Corrupt(_))))
        ));
    }
}
