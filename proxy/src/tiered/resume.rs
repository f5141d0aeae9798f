//! Which broken uploads are kept for their clients to come back, and for how long. Pure.

use std::collections::VecDeque;

use tokio::time::Instant;

/// Broken uploads kept at once. Each holds an open file, and at most a chunk of memory.
pub(super) const KEPT_MAX: usize = 256;

/// Bytes of broken uploads kept at once: disk that the blobs in Tier 1 could use better.
pub(super) const KEPT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Broken uploads in the order in which they broke.
#[derive(Debug)]
pub(super) struct Kept<T> {
    uploads: VecDeque<KeptUpload<T>>,
    bytes: u64,
}

#[derive(Debug)]
struct KeptUpload<T> {
    upload: T,
    bytes: u64,
    until: Instant,
}

impl<T> Default for Kept<T> {
    fn default() -> Kept<T> {
        Kept {
            uploads: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<T> Kept<T> {
    /// Keeps an upload. Returns those that have to go for it: the oldest first, itself last.
    pub(super) fn keep(&mut self, upload: T, bytes: u64, until: Instant) -> Vec<T> {
        self.bytes += bytes;
        self.uploads.push_back(KeptUpload { upload, bytes, until });
        let mut gone = Vec::new();
        while self.uploads.len() > KEPT_MAX || self.bytes > KEPT_BYTES_MAX {
            gone.extend(self.pop());
        }
        gone
    }

    /// Takes out the upload that `wanted` knows.
    pub(super) fn take(&mut self, wanted: impl Fn(&T) -> bool) -> Option<T> {
        let index = self.uploads.iter().position(|kept| wanted(&kept.upload))?;
        let kept = self.uploads.remove(index)?;
        self.bytes -= kept.bytes;
        Some(kept.upload)
    }

    /// Takes out those whose time is up. All are kept for the same time, so the oldest is the first to go.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<T> {
        let mut gone = Vec::new();
        while self.next_end().is_some_and(|until| until <= now) {
            gone.extend(self.pop());
        }
        gone
    }

    /// When the next one's time is up.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.uploads.front().map(|kept| kept.until)
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.uploads.len()
    }

    fn pop(&mut self) -> Option<T> {
        let kept = self.uploads.pop_front()?;
        self.bytes -= kept.bytes;
        Some(kept.upload)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn later(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_is_kept_until_its_time_is_up() {
        let mut kept = Kept::default();
        assert!(kept.keep("a", 1, later(10)).is_empty());
        assert!(kept.keep("b", 1, later(20)).is_empty());
        assert_eq!(kept.expire(later(9)), Vec::<&str>::new());
        assert_eq!(kept.expire(later(10)), ["a"]);
        assert_eq!(kept.next_end(), Some(later(20)));
        assert_eq!(kept.take(|name| *name == "b"), Some("b"));
        assert_eq!((kept.len(), kept.bytes, kept.next_end()), (0, 0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room_by_count() {
        let mut kept = Kept::default();
        for number in 0..KEPT_MAX {
            assert!(kept.keep(number, 1, later(10)).is_empty());
        }
        assert_eq!(kept.keep(KEPT_MAX, 1, later(10)), [0]);
        assert_eq!(kept.len(), KEPT_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_make_room_by_bytes_and_one_that_is_too_large_is_not_kept() {
        let mut kept = Kept::default();
        assert!(kept.keep("a", KEPT_BYTES_MAX / 2, later(10)).is_empty());
        assert!(kept.keep("b", KEPT_BYTES_MAX / 2, later(10)).is_empty());
        assert_eq!(kept.keep("c", 1, later(10)), ["a"]);
        assert_eq!(kept.keep("d", KEPT_BYTES_MAX + 1, later(10)), ["b", "c", "d"]);
        assert_eq!(kept.bytes, 0);
    }
}
