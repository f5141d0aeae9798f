//! Makes room ahead of need: removes what was given up, evicts when the disk gets full.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::index::Account;
use super::leaving::Leaving;
use super::store::Store;

/// Blobs evicted before the janitor looks up again: the index is locked for as long as taking so many out of it takes,
/// and their files are removed before the next are chosen.
const STEP_BLOBS: usize = 64;

/// Between two tries to remove files that the disk would not remove.
const RETRY_PAUSE: Duration = Duration::from_secs(30);

/// Runs until `stop` fires. A round takes no input but the account and the marks: late, repeated or cut short, it does no
/// harm.
pub(super) async fn run(store: Arc<Store>, stop: CancellationToken) {
    let mut janitor = Janitor {
        store,
        stuck: Vec::new(),
        is_refused: false,
    };
    loop {
        let wishes = janitor.store.wishes();
        janitor.round(&stop).await;
        janitor.store.grant(wishes);
        // Both are cancel safe: a call that comes while nobody waits is kept.
        tokio::select! {
            () = stop.cancelled() => {
                janitor.remove().await;
                return;
            }
            () = janitor.store.called() => {}
            () = tokio::time::sleep(RETRY_PAUSE), if !janitor.stuck.is_empty() => janitor.try_stuck_again(),
        }
    }
}

struct Janitor {
    store: Arc<Store>,
    /// Files that the disk would not remove. They stay on the account.
    stuck: Vec<Leaving>,
    /// The disk would remove none of those that were evicted last. Nothing is evicted then until it was tried again: it
    /// would make no room.
    is_refused: bool,
}

impl Janitor {
    async fn round(&mut self, stop: &CancellationToken) {
        self.remove().await;
        if !self.store.is_loaded() {
            return;
        }
        if self.store.disk_was_full() {
            self.make_room(|_| true).await;
        }
        if !self.store.needs_room() {
            return;
        }
        let marks = self.store.watermarks;
        let above_low = |account: Account| marks.above_low(account.staying_bytes());
        while !stop.is_cancelled() && self.make_room(above_low).await {}
    }

    /// Evicts a few blobs and removes their files, as long as there shall be less. Says whether that made room.
    async fn make_room(&mut self, too_much: impl Fn(Account) -> bool) -> bool {
        if self.is_refused || !self.evict(too_much) {
            return false;
        }
        let removed = self.remove().await;
        self.is_refused = removed == 0;
        removed > 0
    }

    /// Takes a few blobs out of the index, as long as there shall be less. Says whether it took any.
    fn evict(&self, too_much: impl Fn(Account) -> bool) -> bool {
        let (store, now_ms) = (&self.store, self.store.now_ms());
        let mut evicted = Vec::new();
        let mut index = store.index.lock();
        while evicted.len() < STEP_BLOBS && too_much(index.account()) {
            let Some(entry) = index.evict(now_ms) else { break };
            evicted.push(entry);
        }
        drop(index);
        let Some(last) = evicted.last() else { return false };
        let age_ms = now_ms.saturating_sub(last.last_read_ms);
        store.metrics.evicted_age_seconds.set(age_ms / 1000);
        for entry in evicted {
            store.metrics.evicted.inc();
            store.metrics.evicted_bytes.inc_by(entry.allocated_bytes);
            store.leave(Leaving::Blob(entry));
        }
        true
    }

    /// Removes the files that were given up. Returns how many are gone.
    async fn remove(&mut self) -> usize {
        let leaving = self.store.take_leaving();
        let count = leaving.len();
        if count == 0 {
            return 0;
        }
        let removed = self.store.blocking(move |store| {
            let stuck = leaving.into_iter().filter_map(|file| file.remove(store).err());
            Ok(stuck.collect::<Vec<_>>())
        });
        // An error here is the runtime's end: what is left over goes at the next start.
        let stuck = removed.await.unwrap_or_default();
        let gone = count - stuck.len();
        self.stuck.extend(stuck);
        gone
    }

    fn try_stuck_again(&mut self) {
        self.is_refused = false;
        for file in self.stuck.drain(..) {
            self.store.leave(file);
        }
    }
}
