//! A read of Tier 2 that goes on at the same byte when its stream breaks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use prometheus::IntCounter;
use tokio::time::Instant;

use crate::blob::{ByteRange, DigestMismatch};
use crate::call::Call;
use crate::digest::Digest;
use crate::tier2::{BlobStream, Tier2, Tier2Error};

/// Resumes in a row that may bring no progress to speak of. With their pauses they take a second: a Tier 2 that is restarted
/// is back by then, and known to be.
const RESUMES_MAX: u32 = 5;

/// Bytes that count as progress. A Tier 2 that breaks after every byte is broken.
const PROGRESS_BYTES: u64 = 64 * 1024;

/// The pause before the first resume; it doubles with each in a row, and a random half of it is left out, so that the
/// fetches of a lost connection do not come back in one burst.
const PAUSE: Duration = Duration::from_millis(40);

/// The bytes of a range, length-checked, across as many streams as it takes.
pub(super) struct Fetch {
    tier2: Arc<dyn Tier2>,
    call: Call,
    digest: Digest,
    rest: ByteRange,
    stream: Option<BlobStream>,
    first_byte_at: Option<Instant>,
    had_bytes: bool,
    /// Its last stream broke.
    broken: bool,
    resumes: u32,
    progress_bytes: u64,
    resumed: IntCounter,
}

impl Fetch {
    /// A read that begins when it is first asked for bytes. With `continues` it goes on where another source left off, and
    /// is resumed from its first byte on. `resumed` counts the streams that replaced a broken one.
    pub(super) fn new(
        tier2: Arc<dyn Tier2>,
        call: Call,
        digest: Digest,
        range: ByteRange,
        continues: bool,
        resumed: IntCounter,
    ) -> Fetch {
        Fetch {
            tier2,
            call,
            digest,
            rest: range,
            stream: None,
            first_byte_at: None,
            had_bytes: continues,
            broken: false,
            resumes: 0,
            progress_bytes: 0,
            resumed,
        }
    }

    /// The next bytes, never empty; `None` after the last.
    ///
    /// # Errors
    /// What Tier 2 answered; for a broken stream only after the resumes are used up. Before the first byte there is
    /// nothing to resume: whoever holds the connections has tried its best by then. A stream that ends well without one is
    /// known here alone, and is a broken one.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Tier2Error> {
        while !self.rest.is_empty() {
            match self.step().await {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return self.take(bytes).map(Some),
                Err(error) => {
                    self.stream = None;
                    self.pause_before_resume(error).await?;
                }
            }
        }
        Ok(None)
    }

    /// When the first byte of the newest stream came: the date of what a whole fetch proves.
    pub(super) fn first_byte_at(&self) -> Option<Instant> {
        self.first_byte_at
    }

    /// Lets the stream go. The next bytes come from another one.
    pub(super) fn suspend(&mut self) {
        self.stream = None;
    }

    async fn step(&mut self) -> Result<Bytes, Tier2Error> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = self.tier2.read(&self.call, &self.digest, self.rest).await?;
                if std::mem::take(&mut self.broken) {
                    self.resumed.inc();
                }
                self.first_byte_at = Some(Instant::now());
                self.stream.insert(stream)
            }
        };
        stream.next().await.unwrap_or(Err(Tier2Error::Short))
    }

    fn take(&mut self, bytes: Bytes) -> Result<Bytes, Tier2Error> {
        let len = bytes.len() as u64;
        if len > self.rest.len() {
            self.stream = None;
            return Err(Tier2Error::Corrupt(DigestMismatch::TooLong {
                expected: self.digest,
            }));
        }
        self.rest = self.rest.skip(len);
        self.had_bytes = true;
        self.progress_bytes += len;
        if self.progress_bytes >= PROGRESS_BYTES {
            self.progress_bytes = 0;
            self.resumes = 0;
        }
        Ok(bytes)
    }

    async fn pause_before_resume(&mut self, error: Tier2Error) -> Result<(), Tier2Error> {
        let broken = match error {
            Tier2Error::Down(_) | Tier2Error::Stalled | Tier2Error::Short => true,
            Tier2Error::NotFound
            | Tier2Error::Answered(_)
            | Tier2Error::Corrupt(_)
            | Tier2Error::DeadlineExceeded
            | Tier2Error::Aborted => false,
        };
        let begun = self.had_bytes || matches!(error, Tier2Error::Short);
        if !broken || !begun || self.resumes >= RESUMES_MAX {
            return Err(error);
        }
        let pause = PAUSE * 2_u32.pow(self.resumes);
        self.resumes += 1;
        self.broken = true;
        tracing::info!(digest = %self.digest, at_byte = self.rest.start(), %error, "resuming a broken fetch");
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        Ok(())
    }
}
