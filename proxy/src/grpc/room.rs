//! Memory for messages of requests that came in pieces, shared by all calls of a node.
//!
//! A client can send all of a large message but its last byte, on as many streams as it likes. What it makes this node hold
//! is bounded here, over all connections: a call that finds no room leaves its bytes with its client, by flow control, until
//! there is some; and when that takes long, the oldest message that is not whole gives way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Bytes of messages that are being put together, or were and are being worked on: as many large ones as there may be
/// batches on their way to Tier 2, which is 128.
pub(super) const MESSAGE_ROOM_BYTES: usize = 512 << 20;

/// How long a message waits for room before the oldest that is not whole gives way. A batch takes milliseconds to come;
/// one that was begun before others waited this long is not coming.
const PATIENCE: Duration = Duration::from_secs(1);

/// A bounded room. Clones are the same room.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max_bytes: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    used_bytes: usize,
    next: u64,
    /// Messages that are not whole, the oldest first.
    growing: BTreeMap<u64, (usize, CancellationToken)>,
}

/// A message had to give way: nothing of it may be held any longer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GaveWay;

impl Room {
    pub(super) fn new(max_bytes: usize) -> Room {
        Room(Arc::new(Shared {
            max_bytes,
            state: Mutex::default(),
            freed: Notify::new(),
        }))
    }

    /// A share in it, of nothing yet.
    pub(super) fn share(&self) -> Share {
        Share {
            room: self.0.clone(),
            held: None,
        }
    }

    #[cfg(test)]
    pub(super) fn used_bytes(&self) -> usize {
        self.0.state.lock().used_bytes
    }
}

/// One message's part of the room. Dropped, it is free again.
#[derive(Debug)]
pub(super) struct Share {
    room: Arc<Shared>,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    number: u64,
    bytes: usize,
    gave_way: CancellationToken,
}

impl Share {
    /// Grows to `bytes`, if it is smaller. Waits for room.
    ///
    /// # Errors
    /// [`GaveWay`], at once or while it waits.
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub(super) async fn grow(&mut self, bytes: usize) -> Result<(), GaveWay> {
        let number = match &self.held {
            Some(held) if held.bytes >= bytes => return Ok(()),
            Some(held) => Some(held.number),
            None => None,
        };
        let room = self.room.clone();
        loop {
            let freed = room.freed.notified();
            if self.try_grow(bytes)? {
                return Ok(());
            }
            tokio::select! { // cancel safe
                () = self.gave_way() => return Err(GaveWay),
                waited = timeout(PATIENCE, freed) => if waited.is_err() {
                    room.end_oldest_but(number);
                }
            }
        }
    }

    fn try_grow(&mut self, bytes: usize) -> Result<bool, GaveWay> {
        let mut state = self.room.state.lock();
        let has_bytes = self.held.as_ref().map_or(0, |held| held.bytes);
        if let Some(held) = &self.held
            && held.gave_way.is_cancelled()
        {
            return Err(GaveWay);
        }
        let used_bytes = state.used_bytes + bytes - has_bytes;
        if used_bytes > self.room.max_bytes {
            return Ok(false);
        }
        state.used_bytes = used_bytes;
        let held = self.held.get_or_insert_with(|| {
            state.next += 1;
            Held {
                number: state.next,
                bytes: 0,
                gave_way: CancellationToken::new(),
            }
        });
        held.bytes = bytes;
        state.growing.insert(held.number, (bytes, held.gave_way.clone()));
        Ok(true)
    }

    /// Resolves when this has to give way.
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn gave_way(&self) {
        match &self.held {
            Some(held) => held.gave_way.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// The message is whole: from here it does not give way.
    pub(super) fn settle(&mut self) {
        if let Some(held) = &self.held {
            self.room.state.lock().growing.remove(&held.number);
        }
    }

    /// Gives everything back.
    pub(super) fn release(&mut self) {
        let Some(held) = self.held.take() else {
            return;
        };
        let mut state = self.room.state.lock();
        state.growing.remove(&held.number);
        if !held.gave_way.is_cancelled() {
            state.used_bytes -= held.bytes;
        }
        drop(state);
        self.room.freed.notify_waiters();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

impl Shared {
    /// Ends the oldest message that is not whole and not `number`. Its task drops the bytes when it hears of it.
    fn end_oldest_but(&self, number: Option<u64>) {
        let mut state = self.state.lock();
        let oldest = state.growing.keys().copied().find(|found| Some(*found) != number);
        if let Some((bytes, gave_way)) = oldest.and_then(|oldest| state.growing.remove(&oldest)) {
            state.used_bytes -= bytes;
            gave_way.cancel();
        }
        drop(state);
        self.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    async fn held(room: &Room, bytes: usize) -> Share {
        let mut share = room.share();
        share.grow(bytes).await.unwrap();
        share
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_that_is_not_whole_gives_way_after_a_while() {
        let room = Room::new(100);
        let mut whole = held(&room, 40).await;
        whole.settle();
        let (oldest, younger) = (held(&room, 30).await, held(&room, 30).await);
        let since = Instant::now();
        let newest = held(&room, 10).await;
        assert_eq!(since.elapsed(), PATIENCE);
        oldest.gave_way().await;
        assert_eq!(room.used_bytes(), 80);
        drop(oldest);
        assert_eq!(room.used_bytes(), 80, "it was given back once");
        drop((whole, younger, newest));
        assert_eq!(room.used_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn room_that_comes_free_in_time_costs_nobody_anything() {
        let room = Room::new(100);
        let (mut first, older) = (held(&room, 60).await, held(&room, 40).await);
        let mut second = room.share();
        let (grown, ()) = tokio::join!(second.grow(60), async {
            tokio::time::sleep(PATIENCE / 2).await;
            first.release();
        });
        assert_eq!(grown, Ok(()));
        assert!(futures::future::FutureExt::now_or_never(older.gave_way()).is_none());
        assert_eq!(room.used_bytes(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_gave_way_cannot_grow() {
        let room = Room::new(100);
        let mut oldest = held(&room, 60).await;
        let _newer = held(&room, 90).await;
        assert_eq!(oldest.grow(61).await, Err(GaveWay));
        assert_eq!(room.used_bytes(), 90);
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_wait_for_each_other_do_not_wait_for_ever() {
        // P10
        let room = Room::new(100);
        let (mut one, mut two) = (held(&room, 50).await, held(&room, 50).await);
        let grown = tokio::join!(one.grow(80), two.grow(80));
        assert!(
            matches!(grown, (Ok(()), Err(GaveWay)) | (Err(GaveWay), Ok(()))),
            "{grown:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_given_up_takes_nothing() {
        let room = Room::new(100);
        let mut whole = held(&room, 80).await;
        whole.settle();
        let mut waiting = room.share();
        assert!(timeout(PATIENCE * 3, waiting.grow(50)).await.is_err());
        drop(waiting);
        assert_eq!(room.used_bytes(), 80);
    }
}
