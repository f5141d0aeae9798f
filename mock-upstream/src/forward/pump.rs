//! One direction of one connection.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::forward::Link;

/// Read at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// Under way at once: 4 MiB, so that 100 ms of latency still leave 40 MiB/s.
const CHUNKS_UNDER_WAY: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PumpError {
    #[error("the link lets no more bytes through")]
    Limit,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// When bytes may be passed on, at a rate. Pure: told what time it is.
#[derive(Debug, Default)]
struct Pace {
    free_at: Option<Instant>,
}

impl Pace {
    /// When the last of these bytes is through the line, which carries one after another.
    fn through(&mut self, now: Instant, bytes: usize, bytes_per_second: Option<u64>) -> Instant {
        let Some(rate) = bytes_per_second else {
            self.free_at = None;
            return now;
        };
        let start = self.free_at.map_or(now, |free_at| free_at.max(now));
        let micros = (bytes as u64).saturating_mul(1_000_000) / rate.max(1);
        let end = start + Duration::from_micros(micros);
        self.free_at = Some(end);
        end
    }
}

/// Carries bytes from one end to the other as the link wants it, until the first ends.
pub(super) async fn pump<R, W>(
    from: R,
    to: W,
    link: &watch::Sender<Link>,
    direction: Direction,
    carried: &AtomicU64,
) -> Result<(), PumpError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (sender, receiver) = mpsc::channel(CHUNKS_UNDER_WAY);
    let take = take(from, link.subscribe(), sender);
    let give = give(receiver, to, link.subscribe(), direction, carried);
    tokio::try_join!(take, give).map(|((), ())| ())
}

/// Reads, and notes when each chunk is to arrive.
async fn take<R: AsyncRead + Unpin>(
    mut from: R,
    link: watch::Receiver<Link>,
    sender: mpsc::Sender<(Instant, Bytes)>,
) -> Result<(), PumpError> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK_BYTES);
        if from.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        let latency = Duration::from_millis(link.borrow().latency_ms);
        let chunk = (Instant::now() + latency, buffer.split().freeze());
        if sender.send(chunk).await.is_err() {
            return Ok(());
        }
    }
}

async fn give<W: AsyncWrite + Unpin>(
    mut receiver: mpsc::Receiver<(Instant, Bytes)>,
    mut to: W,
    mut link: watch::Receiver<Link>,
    direction: Direction,
    carried: &AtomicU64,
) -> Result<(), PumpError> {
    let mut pace = Pace::default();
    let mut passed = 0u64;
    while let Some((due, mut chunk)) = receiver.recv().await {
        sleep_until(due).await;
        let rate = link.borrow().bytes_per_second;
        sleep_until(pace.through(Instant::now(), chunk.len(), rate)).await;
        // Only a link that is gone has no more changes, and then nothing is to pass.
        let Ok(now) = link.wait_for(|link| !link.black_hole).await.map(|link| *link) else {
            return Ok(());
        };
        let limit = match direction {
            Direction::Up => now.reset_after_up_bytes,
            Direction::Down => now.reset_after_down_bytes,
        };
        if let Some(limit) = limit {
            let left = usize::try_from(limit.saturating_sub(passed)).unwrap_or(usize::MAX);
            chunk.truncate(left);
        }
        to.write_all(&chunk).await?;
        passed += chunk.len() as u64;
        carried.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        if limit.is_some_and(|limit| passed >= limit) {
            return Err(PumpError::Limit);
        }
    }
    to.shutdown().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex};

    /// Both ends of a line that runs in the background of the test.
    async fn through<T>(
        link: Link,
        test: impl AsyncFnOnce(DuplexStream, DuplexStream, &watch::Sender<Link>) -> T,
    ) -> (T, Option<Result<(), PumpError>>) {
        let (near, from) = duplex(1 << 20);
        let (to, far) = duplex(1 << 20);
        let (link, carried) = (watch::Sender::new(link), AtomicU64::new(0));
        let mut ended = None;
        let line = async {
            ended = Some(pump(from, to, &link, Direction::Down, &carried).await);
            std::future::pending::<()>().await;
        };
        let found = tokio::select! {
            biased;
            () = line => unreachable!("it pends"),
            found = test(near, far, &link) => found,
        };
        (found, ended)
    }

    async fn receive(far: &mut DuplexStream, bytes: usize) -> Duration {
        let before = Instant::now();
        far.read_exact(&mut vec![0; bytes]).await.unwrap();
        before.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn latency_delays_every_byte_and_not_one_after_another() {
        let link = Link {
            latency_ms: 200,
            ..Link::default()
        };
        let (times, _) = through(link, async |mut near, mut far, _| {
            near.write_all(&[1; 100_000]).await.unwrap();
            let first = receive(&mut far, 1).await;
            (first, receive(&mut far, 99_999).await)
        })
        .await;
        assert!((200..210).contains(&times.0.as_millis()), "{times:?}");
        assert!(times.1.as_millis() < 10, "{times:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn bandwidth_takes_as_long_as_the_bytes_do() {
        let link = Link {
            bytes_per_second: Some(100_000),
            ..Link::default()
        };
        let (time, _) = through(link, async |mut near, mut far, _| {
            near.write_all(&[1; 500_000]).await.unwrap();
            receive(&mut far, 500_000).await
        })
        .await;
        assert!((4_990..5_100).contains(&time.as_millis()), "{time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_black_hole_nothing_arrives_until_it_ends() {
        let link = Link {
            black_hole: true,
            ..Link::default()
        };
        through(link, async |mut near, mut far, link| {
            near.write_all(b"x").await.unwrap();
            let hour = Duration::from_secs(3600);
            let mut byte = [0];
            assert!(
                tokio::time::timeout(hour, far.read_exact(&mut byte))
                    .await
                    .is_err()
            );
            link.send_replace(Link::default());
            far.read_exact(&mut byte).await.unwrap();
            assert_eq!(&byte, b"x");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_lets_exactly_so_many_bytes_through() {
        let link = Link {
            reset_after_down_bytes: Some(7),
            ..Link::default()
        };
        let (got, ended) = through(link, async |mut near, mut far, _| {
            near.write_all(b"0123456789").await.unwrap();
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            got
        })
        .await;
        assert_eq!(got, b"0123456");
        assert!(matches!(ended, Some(Err(PumpError::Limit))));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_one_side_reaches_the_other_behind_all_bytes() {
        let (got, ended) = through(Link::default(), async |mut near, mut far, _| {
            near.write_all(b"0123456789").await.unwrap();
            drop(near);
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            got
        })
        .await;
        assert_eq!(got, b"0123456789");
        assert!(matches!(ended, Some(Ok(()))));
    }
}
