//! The bytes of one client on their way upstream: where they are, and how many may come. Pure.
//!
//! Bytes are in memory from `recent_start` to the watermark and in the staging file from 0 to `staged_bytes`. As long as
//! those two overlap the upload can be fed to Tier 2 from its first byte, by whoever has to take over.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// Bytes of one upload held in memory before its client has to wait. A client's last chunk may pass it, so an upload
/// costs at most this and a message; small uploads never need their staging file to be tried again.
pub(super) const RECENT_BYTES_MAX: u64 = 256 * 1024;

/// Bytes read back from the staging file at once.
const READ_BACK_BYTES: u64 = 256 * 1024;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Tape {
    size_bytes: u64,
    recent: VecDeque<Bytes>,
    recent_start: u64,
    watermark: u64,
    /// Whether the staging file takes further bytes.
    staging: bool,
    /// Whether what the staging file has can be read.
    readable: bool,
    staged_bytes: u64,
    feed: Option<Feed>,
    /// Nobody leads yet. Until somebody does, nothing that came is forgotten: an upload that has no company never needs
    /// its file.
    hopeful: bool,
    attempts: u64,
    /// Since when the next step is the client's.
    quiet_since: Instant,
}

/// The one upstream stream that this tape feeds.
#[derive(Debug)]
struct Feed {
    attempt: u64,
    at: u64,
    /// How long Tier 2 waited for the client, all in all, without the present wait.
    starved: Duration,
}

/// What an upstream stream does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send these; more will come.
    Send(Bytes),
    /// Send these with the proof; it was the last.
    Finish(Bytes),
    /// Read from the staging file. Tell [`Tape::fed`] what came.
    ReadBack {
        /// Offset in the blob.
        from: u64,
        /// Bytes that are there.
        len: usize,
    },
    /// Wait for the client.
    Wait,
    /// End without a last piece: another stream took over, or the bytes are gone.
    GiveUp,
}

impl Tape {
    /// The tape of a blob of which nothing is here.
    pub(super) fn new(size_bytes: u64, staging: bool, now: Instant) -> Tape {
        Tape {
            size_bytes,
            recent: VecDeque::new(),
            recent_start: 0,
            watermark: 0,
            staging,
            readable: true,
            staged_bytes: 0,
            feed: None,
            hopeful: true,
            attempts: 0,
            quiet_since: now,
        }
    }

    /// Bytes that came from the client.
    pub(super) fn watermark(&self) -> u64 {
        self.watermark
    }

    /// Whether every byte is here.
    pub(super) fn is_full(&self) -> bool {
        self.watermark == self.size_bytes
    }

    /// Whether the client may send more. It may not while Tier 2 is slower than the client, nor while nobody wants its
    /// bytes and there is no file to put them in.
    pub(super) fn has_room(&self) -> bool {
        self.recent_bytes() < RECENT_BYTES_MAX
    }

    /// Whether the bytes up to the watermark can all be had, so that an upstream stream can begin with this tape.
    pub(super) fn is_whole(&self) -> bool {
        self.recent_start == 0 || (self.readable && self.recent_start <= self.staged_bytes)
    }

    /// Whether the staging file has all that came and takes more.
    pub(super) fn is_staged(&self) -> bool {
        self.staging && self.staged_bytes == self.watermark
    }

    /// How long the client has had nothing to wait for and sent nothing.
    pub(super) fn quiet(&self, now: Instant) -> Duration {
        if self.is_full()
            || !self.has_room()
            || self.feed.as_ref().is_some_and(|feed| feed.at < self.watermark)
        {
            return Duration::ZERO;
        }
        now.saturating_duration_since(self.quiet_since)
    }

    /// How long the client has sent nothing, if it is its turn: also when all bytes are here and only its word is lacking.
    pub(super) fn silent(&self, now: Instant) -> Duration {
        if self.is_full() {
            return now.saturating_duration_since(self.quiet_since);
        }
        self.quiet(now)
    }

    /// How long the present upstream stream has waited for the client, all in all.
    pub(super) fn starved(&self, now: Instant) -> Duration {
        self.feed
            .as_ref()
            .map_or(Duration::ZERO, |feed| feed.starved + self.quiet(now))
    }

    /// Takes the client's next bytes.
    pub(super) fn push(&mut self, bytes: Bytes, now: Instant) {
        let quiet = self.quiet(now);
        if let Some(feed) = &mut self.feed {
            feed.starved += quiet;
        }
        self.quiet_since = now;
        self.watermark += bytes.len() as u64;
        self.recent.push_back(bytes);
    }

    /// The staging file has everything up to `staged_bytes`.
    pub(super) fn staged(&mut self, staged_bytes: u64) {
        self.staged_bytes = staged_bytes;
        self.trim();
    }

    /// The staging file takes no more bytes.
    pub(super) fn stop_staging(&mut self) {
        self.staging = false;
        self.trim();
    }

    /// The staging file cannot be read.
    pub(super) fn lose_staged(&mut self) {
        self.staging = false;
        self.readable = false;
    }

    /// Begins an upstream stream at byte 0 and ends the one before. Returns the number that the stream shows.
    pub(super) fn start_feed(&mut self, now: Instant) -> u64 {
        self.attempts += 1;
        self.hopeful = false;
        self.quiet_since = now;
        self.feed = Some(Feed {
            attempt: self.attempts,
            at: 0,
            starved: Duration::ZERO,
        });
        self.attempts
    }

    /// Another upload leads.
    pub(super) fn follow(&mut self) {
        self.hopeful = false;
        self.trim();
    }

    /// The client came back: its silence until now is forgiven.
    pub(super) fn resume(&mut self, now: Instant) {
        self.quiet_since = now;
    }

    /// Ends the upstream stream, if there is one.
    pub(super) fn stop_feed(&mut self) {
        self.feed = None;
        self.trim();
    }

    /// Whether `attempt` is the present upstream stream.
    pub(super) fn is_fed_by(&self, attempt: u64) -> bool {
        self.feed_position(attempt).is_some()
    }

    /// What the upstream stream of `attempt` does next. `finished`: the last piece may leave.
    pub(super) fn next(&mut self, attempt: u64, finished: bool, now: Instant) -> Next {
        let Some(at) = self.feed_position(attempt) else {
            return Next::GiveUp;
        };
        if at < self.recent_start {
            if !self.is_whole() {
                return Next::GiveUp;
            }
            let len = (self.recent_start - at).min(READ_BACK_BYTES);
            if at + len == self.size_bytes && !finished {
                return Next::Wait;
            }
            return Next::ReadBack {
                from: at,
                len: usize::try_from(len).unwrap_or(usize::MAX),
            };
        }
        let Some(bytes) = self.recent_from(at) else {
            return Next::Wait;
        };
        let last = at + bytes.len() as u64 == self.size_bytes;
        if last && !finished {
            return Next::Wait;
        }
        self.fed(attempt, bytes.len() as u64, now);
        if last {
            Next::Finish(bytes)
        } else {
            Next::Send(bytes)
        }
    }

    /// The upstream stream of `attempt` took `len` bytes. Says whether it still feeds from here and whether those were
    /// the last.
    pub(super) fn fed(&mut self, attempt: u64, len: u64, now: Instant) -> Option<bool> {
        let feed = self.feed.as_mut().filter(|feed| feed.attempt == attempt)?;
        feed.at += len;
        let at = feed.at;
        if at == self.watermark {
            self.quiet_since = now;
        }
        self.trim();
        Some(at == self.size_bytes)
    }

    fn feed_position(&self, attempt: u64) -> Option<u64> {
        let feed = self.feed.as_ref().filter(|feed| feed.attempt == attempt)?;
        Some(feed.at)
    }

    fn recent_bytes(&self) -> u64 {
        self.watermark - self.recent_start
    }

    fn recent_from(&self, at: u64) -> Option<Bytes> {
        let mut start = self.recent_start;
        for bytes in &self.recent {
            let end = start + bytes.len() as u64;
            if at < end {
                let skip = usize::try_from(at - start).unwrap_or(usize::MAX);
                return Some(bytes.slice(skip..));
            }
            start = end;
        }
        None
    }

    /// Forgets bytes in memory that are safe in the file and not about to be sent. Without a file, bytes that were sent
    /// are forgotten too, but only to make room: until then the upload can begin again.
    fn trim(&mut self) {
        let near = self
            .feed
            .as_ref()
            .map(|feed| feed.at)
            .filter(|at| *at >= self.recent_start);
        while let Some(front) = self.recent.front() {
            let end = self.recent_start + front.len() as u64;
            let sent = near.map_or(!self.hopeful, |at| end <= at);
            let kept = self.readable && end <= self.staged_bytes;
            let crowded = !self.staging && near.is_some() && !self.has_room();
            if !(sent && (kept || crowded)) {
                return;
            }
            self.recent_start = end;
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
