//! How fast Tier 1's copies may go to Tier 2, which is a bucket of bytes, and which of them go together. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes per second that repairs may send in the long run. Tier 2 lost blobs for want of room or for a fault; many nodes hold
/// copies, and what they send comes on top of what clients do.
const BYTES_PER_SECOND: u64 = 50_000_000;

/// Bytes that may go at once after a quiet time: what a build asks about in one breath.
const BURST_BYTES: u64 = 256 << 20;

/// How long a repair may have to wait for its bytes. Beyond that it is not begun: whoever asked has been answered long
/// since, and asks again.
const DELAY_MAX: Duration = Duration::from_secs(30);

/// Length up to which blobs are worth a batch: for larger ones the bytes count, and not the calls.
const BATCHED_BLOB_BYTES_MAX: u64 = 64 << 10;

/// Bytes of one batch, which is in memory while it is sent. What Tier 2 takes in one call is seen to below.
const BATCH_BYTES_MAX: u64 = 2 << 20;

/// Puts small blobs together, in their order; each of the others is alone.
pub(super) fn in_uploads<T>(blobs: Vec<T>, size_bytes: impl Fn(&T) -> u64) -> Vec<Vec<T>> {
    let mut uploads = Vec::new();
    let mut batch = Vec::new();
    let mut batch_bytes = 0;
    for blob in blobs {
        let bytes = size_bytes(&blob);
        if bytes > BATCHED_BLOB_BYTES_MAX {
            uploads.push(vec![blob]);
            continue;
        }
        if batch_bytes + bytes > BATCH_BYTES_MAX {
            uploads.push(std::mem::take(&mut batch));
            batch_bytes = 0;
        }
        batch.push(blob);
        batch_bytes += bytes;
    }
    if !batch.is_empty() {
        uploads.push(batch);
    }
    uploads
}

/// The bucket. A blob larger than all of it may go when it is full, and leaves it in debt.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes that may go; below zero, those that went ahead of their time.
    left: i128,
    as_of: Instant,
}

impl Pace {
    /// A full bucket.
    pub(super) fn new(now: Instant) -> Pace {
        Pace {
            left: i128::from(BURST_BYTES),
            as_of: now,
        }
    }

    /// Takes room for a blob, and says how long to wait with it. `None`: too long, and nothing was taken.
    pub(super) fn take(&mut self, size_bytes: u64, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.as_of);
        let gained = since.as_micros().saturating_mul(u128::from(BYTES_PER_SECOND)) / 1_000_000;
        // Fractions of a byte are lost where somebody asks every microsecond, which is as well.
        let gained = i128::try_from(gained).unwrap_or(i128::MAX);
        self.left = self.left.saturating_add(gained).min(i128::from(BURST_BYTES));
        self.as_of = now;
        let wanted = i128::from(size_bytes.min(BURST_BYTES));
        let delay = match u64::try_from(wanted - self.left) {
            Ok(lacking) => Duration::from_micros(lacking.saturating_mul(1_000_000) / BYTES_PER_SECOND),
            Err(_enough) => Duration::ZERO,
        };
        if delay > DELAY_MAX {
            return None;
        }
        self.left -= i128::from(size_bytes);
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn small_blobs_go_together_as_far_as_a_batch_goes_and_others_alone() {
        let small = BATCHED_BLOB_BYTES_MAX;
        let fitting = usize::try_from(BATCH_BYTES_MAX / small).unwrap();
        let mut sizes = vec![small; fitting];
        sizes.extend([small + 1, 1, small]);
        let uploads = in_uploads(sizes, |size_bytes| *size_bytes);
        assert_eq!(uploads, [vec![small + 1], vec![small; fitting], vec![1, small]]);
        assert_eq!(in_uploads(Vec::new(), |size_bytes| *size_bytes), [[0; 0]; 0]);
    }

    #[test]
    fn a_burst_goes_at_once_and_what_follows_goes_at_the_pace() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.take(BURST_BYTES, start), Some(Duration::ZERO));
        assert_eq!(pace.take(BYTES_PER_SECOND, start), Some(SECOND));
        assert_eq!(pace.take(BYTES_PER_SECOND, start), Some(2 * SECOND));
        assert_eq!(
            pace.take(BYTES_PER_SECOND, start + 3 * SECOND),
            Some(Duration::ZERO)
        );
        assert_eq!(pace.take(BYTES_PER_SECOND, start + 3 * SECOND), Some(SECOND));
    }

    #[test]
    fn a_blob_larger_than_the_bucket_goes_when_it_is_full_and_others_wait_for_it() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(
            pace.take(BURST_BYTES + 10 * BYTES_PER_SECOND, start),
            Some(Duration::ZERO)
        );
        assert_eq!(pace.take(BYTES_PER_SECOND, start), Some(11 * SECOND));
    }

    #[test]
    fn what_would_have_to_wait_too_long_takes_nothing() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(
            pace.take(BURST_BYTES + 29 * BYTES_PER_SECOND, start),
            Some(Duration::ZERO)
        );
        assert_eq!(pace.take(2 * BYTES_PER_SECOND, start), None);
        assert_eq!(pace.take(BYTES_PER_SECOND, start), Some(30 * SECOND));
    }

    proptest! {
        #[test]
        fn never_faster_than_the_burst_and_the_pace(
            takes in proptest::collection::vec((0_u64..200_000_000, 0_u64..5_000_000), 1..100),
        ) {
            let start = Instant::now();
            let (mut pace, mut now) = (Pace::new(start), start);
            let mut sent: Vec<(Instant, u64)> = Vec::new();
            for (size_bytes, pause_micros) in takes {
                now += Duration::from_micros(pause_micros);
                if let Some(delay) = pace.take(size_bytes, now) {
                    sent.push((now + delay, size_bytes));
                }
            }
            let last = sent.iter().map(|(at, _)| *at).max().unwrap_or(start);
            let bytes: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
            let allowed = BURST_BYTES as f64 + (last - start).as_secs_f64() * BYTES_PER_SECOND as f64;
            prop_assert!(bytes as f64 <= allowed + 1000.0, "{bytes} of {allowed}");
        }
    }
}
