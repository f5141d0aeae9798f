//! How a session feeds an upstream stream.

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::Session;
use super::intake::DISK_PATIENCE;
use crate::blob::Verified;
use crate::tiered::tape::Next;

impl Session {
    /// Another upload of the blob leads.
    pub(in crate::tiered) fn follow(&self) {
        self.change(|state| state.tape.follow());
    }

    /// Begins an upstream stream at byte 0. Returns its number.
    pub(in crate::tiered) fn start_feed(&self) -> u64 {
        self.change(|state| state.tape.start_feed(Instant::now()))
    }

    /// Ends the upstream stream `attempt` without a last piece.
    pub(in crate::tiered) fn end_feed(&self, attempt: u64) {
        self.change(|state| {
            if state.tape.is_fed_by(attempt) {
                state.tape.stop_feed();
            }
        });
    }

    /// Whether the upstream stream `attempt` is still this upload's and could be begun anew.
    pub(in crate::tiered) fn feeds(&self, attempt: u64) -> bool {
        let state = self.state.borrow();
        state.tape.is_fed_by(attempt) && state.tape.is_whole()
    }

    /// What the upstream stream does next; waits for the client. Never [`Next::Wait`].
    pub(in crate::tiered) async fn next(&self, attempt: u64) -> (Next, Option<Verified>) {
        let mut states = self.state.subscribe();
        loop {
            states.mark_unchanged();
            let (next, proof) = self.look_or_change(attempt);
            if next != Next::Wait {
                return (next, proof);
            }
            if states.changed().await.is_err() {
                return (Next::GiveUp, None);
            }
        }
    }

    fn look_or_change(&self, attempt: u64) -> (Next, Option<Verified>) {
        let mut result = (Next::Wait, None);
        self.state.send_if_modified(|state| {
            let next = state.tape.next(attempt, state.finished, Instant::now());
            let moved = matches!(next, Next::Send(_) | Next::Finish(_));
            result = (next, state.proof.clone());
            moved
        });
        result
    }

    /// The upstream stream took `len` bytes from the file. Says whether it goes on and whether those were the last.
    pub(in crate::tiered) fn fed(&self, attempt: u64, len: u64) -> Option<bool> {
        self.change(|state| state.tape.fed(attempt, len, Instant::now()))
    }

    /// Reads back what was staged. A file that cannot be read is of no more use to the upload.
    pub(in crate::tiered) async fn read_back(&self, from: u64, len: usize) -> Option<Bytes> {
        let reader = self.state.borrow().reader.clone()?;
        let bytes = match timeout(DISK_PATIENCE, reader.read(from, len)).await {
            Ok(Ok(bytes)) if !bytes.is_empty() => Some(bytes),
            Ok(Ok(_) | Err(_)) | Err(_) => None,
        };
        if bytes.is_none() {
            tracing::debug!(digest = %self.key.digest, from, "staged bytes of an upload cannot be read back");
            self.change(|state| state.tape.lose_staged());
        }
        bytes
    }
}
