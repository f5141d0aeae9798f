//! What a check asked and what was answered: the last calls, a line each, for whoever has to find out why it failed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tonic::{Code, Status};

/// Calls that are remembered: enough for what led to a failure, few enough to be read.
const CALLS_MAX: usize = 12;

/// Hexadecimal digits of a hash that are shown.
const HASH_SHOWN: usize = 8;

/// The last calls, shared by all copies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Arc<Mutex<VecDeque<String>>>);

impl Trace {
    /// Notes a call and its answer.
    pub(crate) fn note<T>(&self, what: String, answer: &Result<T, Status>, came: impl FnOnce(&T) -> String) {
        let came = match answer {
            Ok(answer) => format!("OK {}", came(answer)),
            Err(error) => status(error),
        };
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.len() == CALLS_MAX {
            calls.pop_front();
        }
        calls.push_back(format!("{what} -> {}", came.trim_end()));
    }

    /// The calls, the oldest first.
    pub(crate) fn calls(&self) -> Vec<String> {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().cloned().collect()
    }
}

/// A status in a line.
pub(crate) fn status(status: &Status) -> String {
    let text: String = status.message().chars().take(160).collect();
    format!("{} {text}", code(status.code()))
}

/// The name of a code, as the protocol spells it.
pub(crate) fn code(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A resource name with its hashes cut short.
pub(crate) fn short(name: &str) -> String {
    let cut = |segment: &str| match segment.len() {
        0..32 => segment.to_owned(),
        32.. => format!("{}…", segment.chars().take(HASH_SHOWN).collect::<String>()),
    };
    name.split('/').map(cut).collect::<Vec<_>>().join("/")
}

/// Digests in a line.
pub(crate) fn digests<'a>(
    digests: impl ExactSizeIterator<Item = Option<&'a proto::reapi::Digest>>,
) -> String {
    const SHOWN: usize = 4;
    let count = digests.len();
    let shown: Vec<_> = digests
        .take(SHOWN)
        .map(|digest| {
            digest.map_or("none".to_owned(), |digest| {
                short(&format!("{}/{}", digest.hash, digest.size_bytes))
            })
        })
        .collect();
    let more = if count > SHOWN {
        format!(" and {} more", count - SHOWN)
    } else {
        String::new()
    };
    format!("{}{more}", shown.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_calls_are_kept_with_their_answers() {
        let trace = Trace::default();
        for i in 0..20 {
            trace.note(format!("call {i}"), &Ok(i), |i| format!("{i} bytes"));
        }
        trace.note("last".into(), &Err::<(), _>(Status::not_found("it")), |()| {
            String::new()
        });
        let calls = trace.calls();
        assert_eq!(calls.len(), CALLS_MAX);
        assert_eq!(calls[0], "call 9 -> OK 9 bytes");
        assert_eq!(calls[CALLS_MAX - 1], "last -> NOT_FOUND it");
    }

    #[test]
    fn hashes_are_cut_short() {
        let hash = "0123456789abcdef".repeat(4);
        assert_eq!(short(&format!("a/blobs/{hash}/7")), "a/blobs/01234567…/7");
    }
}
