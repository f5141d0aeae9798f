//! What can happen to a call.

use serde::{Deserialize, Serialize};
use tonic::Code;

use crate::method;
use crate::rule::text;

/// What a rule does. [`Act::applies_to`] says to which calls it can be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Act {
    // It takes its time.
    /// Waits so long, then goes on.
    Delay { ms: u64 },
    /// Waits until the rule is cleared, then goes on. At the start: no first byte. After some bytes: a stall midway.
    /// On `connect`: accepted, and never answered.
    Hang,
    /// From here on the bytes of a Read or Write move at this rate.
    Drip { bytes_per_second: u64 },

    // It answers something else.
    /// Answers with this status, and has no effect.
    Status {
        #[serde(with = "text::code_name")]
        code: Code,
        #[serde(default)]
        message: String,
        /// Puts a `RetryInfo` into the status.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// The entries of a batch get this code, the batch itself is OK.
    EntryStatus {
        #[serde(with = "text::code_name")]
        code: Code,
    },
    /// Ends with OK, though not all was sent or received.
    EndEarly,
    /// Answers a Write or QueryWriteStatus with this `committed_size`.
    CommittedSize { size: i64 },
    /// Says that all is here.
    SayPresent,
    /// Says that nothing is here.
    SayMissing,
    /// Announces something else than is true.
    Capabilities(Announce),

    // It sends other bytes.
    /// Appends so many bytes.
    ExtraBytes { count: u64 },
    /// Inverts one byte.
    FlipByte,
    /// From here on the bytes of another stored blob, or of none if there is no other.
    OtherBlob,
    /// Sends the piece that ends here a second time.
    RepeatChunk,

    // It stores something else.
    /// Acknowledges, and stores nothing.
    Drop,
    /// Evicts what the call names: at the start before the call looks, at the end when its answer is known.
    Evict,
    /// Answers with the action result, and evicts the blobs that it refers to.
    EvictOutputs,

    // It breaks the stream or the connection.
    /// RST_STREAM with INTERNAL_ERROR.
    ResetStream,
    /// Ends the connection by a TCP reset. Through memory it just ends.
    Reset,
    /// Ends the connection in order, as TCP sees it, with streams unfinished.
    Close,
    /// GOAWAY.
    GoAway { streams: Farewell },
    /// Grants no more flow control on this connection, which ends all uploads on it once its window is used up.
    Starve,
    /// No connection is accepted while the rule lasts. Open ones stay open.
    Refuse,
}

/// What a GOAWAY means for the streams in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Farewell {
    /// They may finish, this call included.
    Finish,
    /// They were never seen, says the GOAWAY, and the connection closes.
    Disown,
    /// Sent when this call has been answered: if it was alone there are none.
    Answered,
}

/// Changes to the capabilities; `None` leaves them as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Announce {
    pub update_enabled: Option<bool>,
    pub max_batch_bytes: Option<i64>,
    pub max_blob_bytes: Option<i64>,
    /// Numbers of `DigestFunction.Value`.
    pub digest_functions: Option<Vec<i32>>,
    /// Numbers of `Compressor.Value`.
    pub compressors: Option<Vec<i32>>,
    /// Leaves the cache capabilities out.
    pub no_cache: bool,
}

impl Act {
    /// Any status, without details.
    pub fn status(code: Code) -> Act {
        Act::Status {
            code,
            message: "scripted failure".to_owned(),
            retry_after_ms: None,
        }
    }

    /// A status that says when to come again.
    pub fn status_with_retry(code: Code, retry_after_ms: u64) -> Act {
        Act::Status {
            code,
            message: "scripted failure".to_owned(),
            retry_after_ms: Some(retry_after_ms),
        }
    }

    /// One of each kind, as mild as it comes: for whoever goes through all faults.
    pub fn examples() -> Vec<Act> {
        vec![
            Act::Delay { ms: 1 },
            Act::Hang,
            Act::Drip {
                bytes_per_second: 1024,
            },
            Act::status(Code::Unavailable),
            Act::EntryStatus {
                code: Code::Unavailable,
            },
            Act::EndEarly,
            Act::CommittedSize { size: 1 },
            Act::SayPresent,
            Act::SayMissing,
            Act::Capabilities(Announce::default()),
            Act::ExtraBytes { count: 1 },
            Act::FlipByte,
            Act::OtherBlob,
            Act::RepeatChunk,
            Act::Drop,
            Act::Evict,
            Act::EvictOutputs,
            Act::ResetStream,
            Act::Reset,
            Act::Close,
            Act::GoAway {
                streams: Farewell::Finish,
            },
            Act::Starve,
            Act::Refuse,
        ]
    }

    /// As it is written in a rule.
    pub fn name(&self) -> &'static str {
        match self {
            Act::Delay { .. } => "delay",
            Act::Hang => "hang",
            Act::Drip { .. } => "drip",
            Act::Status { .. } => "status",
            Act::EntryStatus { .. } => "entry_status",
            Act::EndEarly => "end_early",
            Act::CommittedSize { .. } => "committed_size",
            Act::SayPresent => "say_present",
            Act::SayMissing => "say_missing",
            Act::Capabilities(_) => "capabilities",
            Act::ExtraBytes { .. } => "extra_bytes",
            Act::FlipByte => "flip_byte",
            Act::OtherBlob => "other_blob",
            Act::RepeatChunk => "repeat_chunk",
            Act::Drop => "drop",
            Act::Evict => "evict",
            Act::EvictOutputs => "evict_outputs",
            Act::ResetStream => "reset_stream",
            Act::Reset => "reset",
            Act::Close => "close",
            Act::GoAway { .. } => "go_away",
            Act::Starve => "starve",
            Act::Refuse => "refuse",
        }
    }

    /// Whether it can be done to calls of this method: a rule passes over all others.
    pub fn applies_to(&self, called: &str) -> bool {
        use method::*;
        match self {
            Act::Delay { .. } | Act::Hang | Act::Reset | Act::Close => true,
            Act::Refuse => called == CONNECT,
            Act::Status { .. } | Act::ResetStream | Act::GoAway { .. } | Act::Starve => called != CONNECT,
            Act::Drip { .. } => [READ, WRITE].contains(&called),
            Act::EntryStatus { .. } => [BATCH_READ, BATCH_UPDATE].contains(&called),
            Act::EndEarly => [READ, WRITE, FIND_MISSING, BATCH_READ, GET_TREE, GET_ACTION].contains(&called),
            Act::CommittedSize { .. } => [WRITE, QUERY_WRITE_STATUS].contains(&called),
            Act::SayPresent => [FIND_MISSING, QUERY_WRITE_STATUS].contains(&called),
            Act::SayMissing => [
                READ,
                QUERY_WRITE_STATUS,
                FIND_MISSING,
                BATCH_READ,
                GET_TREE,
                GET_ACTION,
            ]
            .contains(&called),
            Act::Capabilities(_) => called == CAPABILITIES,
            Act::ExtraBytes { .. } | Act::FlipByte => {
                [READ, BATCH_READ, GET_TREE, GET_ACTION].contains(&called)
            }
            Act::OtherBlob => [READ, BATCH_READ].contains(&called),
            Act::RepeatChunk => called == READ,
            Act::Drop => [WRITE, BATCH_UPDATE, UPDATE_ACTION].contains(&called),
            Act::Evict => ![CONNECT, CAPABILITIES].contains(&called),
            Act::EvictOutputs => [GET_ACTION, UPDATE_ACTION].contains(&called),
        }
    }

    /// Whether the call does not go on after it, so that no other can follow.
    pub(crate) fn ends_call(&self) -> bool {
        matches!(
            self,
            Act::Status { .. } | Act::ResetStream | Act::Reset | Act::Close | Act::Refuse
        )
    }
}
