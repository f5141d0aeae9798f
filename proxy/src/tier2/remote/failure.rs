//! What went wrong with a call to Tier 2: its transport's errors, and the one table from there to [`Tier2Error`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::call::Call;
use crate::tier2::{Tier2Error, UpstreamStatus};

/// Bytes kept of Tier 2's words: enough for any message written for people.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Bytes kept of a status' details; more than that would not fit into a client's header limit.
const DETAILS_BYTES_MAX: usize = 4096;

/// How much before our own clock Tier 2 may say that the caller's time is up: timeouts are rounded on their way.
const DEADLINE_SLACK: Duration = Duration::from_millis(100);

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    #[error("no connection")]
    Connect(#[source] ConnectError),
    /// Turned away without being looked at: it can be repeated elsewhere, and says nothing about Tier 2.
    #[error("the connection is going away")]
    Refused(#[source] hyper::Error),
    #[error("the connection or the stream broke")]
    Lost(#[source] hyper::Error),
    #[error("nothing came for {0:?}")]
    Stalled(Duration),
    /// How a stream looks that was reset without an error: to us, the end of one that nobody vouches for.
    #[error("the stream ended without a status")]
    NoStatus,
}

/// Why there is no connection. Told to all that waited for it.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("connect failed")]
    Io(#[source] Arc<io::Error>),
    #[error("HTTP/2 handshake failed")]
    Handshake(#[source] Arc<hyper::Error>),
    #[error("connect took more than {0:?}")]
    Timeout(Duration),
    #[error("every connection was closed as soon as it stood")]
    Closed,
    #[error("tier 2 is known to be down")]
    KnownDown,
    #[error("this node is shutting down")]
    Stopping,
}

impl TransportError {
    /// Sorts an error of a request. `draining`: the connection takes no more requests.
    pub(super) fn of_request(error: hyper::Error, draining: bool) -> TransportError {
        let reason = |h2: &h2::Error| {
            (h2.is_go_away() && h2.is_remote())
                || h2.reason() == Some(h2::Reason::REFUSED_STREAM)
                || (draining && h2.reason() == Some(h2::Reason::CANCEL))
        };
        // Canceled: the connection was gone before the request was on it.
        if error.is_canceled() || find_h2(&error).is_some_and(reason) {
            TransportError::Refused(error)
        } else {
            TransportError::Lost(error)
        }
    }
}

fn find_h2(error: &hyper::Error) -> Option<&h2::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(h2) = error.downcast_ref() {
            return Some(h2);
        }
        cause = error.source();
    }
    None
}

fn transport(status: &Status) -> Option<&TransportError> {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(transport) = error.downcast_ref() {
            return Some(transport);
        }
        cause = error.source();
    }
    None
}

/// Whether to ask again on another connection. A CANCELLED that we did not bring about is how some servers and proxies
/// turn calls away while they drain.
pub(super) fn refused(status: &Status) -> bool {
    match transport(status) {
        Some(error) => matches!(error, TransportError::Refused(_)),
        None => status.code() == Code::Cancelled,
    }
}

/// What a status means for the caller. NOT_FOUND is an answer like others here: see [`absent`].
pub(super) fn tier2_error(status: Status, call: &Call) -> Tier2Error {
    if let Some(error) = transport(&status) {
        return match error {
            TransportError::Stalled(_) => Tier2Error::Stalled,
            TransportError::Connect(_)
            | TransportError::Refused(_)
            | TransportError::Lost(_)
            | TransportError::NoStatus => Tier2Error::down(status),
        };
    }
    let code = status.code();
    if code == Code::Cancelled {
        Tier2Error::down(status)
    } else if code == Code::DeadlineExceeded && is_over(call) {
        Tier2Error::DeadlineExceeded
    } else {
        answered(code, status.message(), status.details())
    }
}

fn is_over(call: &Call) -> bool {
    call.deadline
        .is_some_and(|deadline| deadline <= Instant::now() + DEADLINE_SLACK)
}

/// An answer of Tier 2, or what we make of an answer that makes no sense.
pub(super) fn answered(code: Code, message: &str, details: &[u8]) -> Tier2Error {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let details = match details.len() {
        0..=DETAILS_BYTES_MAX => Bytes::copy_from_slice(details),
        _ => Bytes::new(),
    };
    Tier2Error::Answered(UpstreamStatus {
        code,
        message: message[..end].to_owned(),
        details,
    })
}

/// For calls whose NOT_FOUND means the blob or the action result.
pub(super) fn absent(error: Tier2Error) -> Tier2Error {
    if matches!(&error, Tier2Error::Answered(status) if status.code == Code::NotFound) {
        Tier2Error::NotFound
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::InstanceName;

    fn call() -> Call {
        Call::of_node(InstanceName::default())
    }

    #[test]
    fn what_tier_2_answers_is_its_word_and_only_unavailable_looks_like_an_outage() {
        for code in [
            Code::Unavailable,
            Code::Internal,
            Code::NotFound,
            Code::InvalidArgument,
            Code::DeadlineExceeded,
        ] {
            let error = tier2_error(Status::new(code, "words"), &call());
            assert!(
                matches!(&error, Tier2Error::Answered(status) if status.code == code && status.message == "words"),
                "{error}"
            ); // PXY-01, ERR
            assert_eq!(error.is_outage_like(), code == Code::Unavailable);
        }
    }

    #[test]
    fn an_answered_deadline_is_the_callers_own_if_its_time_is_up() {
        let call = Call {
            deadline: Some(Instant::now()),
            ..call()
        };
        let error = tier2_error(Status::deadline_exceeded(""), &call);
        assert!(matches!(error, Tier2Error::DeadlineExceeded), "{error}");
    }

    #[test]
    fn a_timeout_of_tier_2s_own_is_not_the_callers_deadline() {
        // ERR-05
        let call = Call {
            deadline: Some(Instant::now() + Duration::from_secs(60)),
            ..call()
        };
        let error = tier2_error(Status::deadline_exceeded(""), &call);
        assert!(matches!(error, Tier2Error::Answered(_)), "{error}");
    }

    #[test]
    fn long_words_are_cut_between_characters() {
        let Tier2Error::Answered(status) = answered(Code::Internal, &"ä".repeat(1000), &[0; 5000]) else {
            panic!("an answer");
        };
        assert_eq!((status.message.len(), status.details.len()), (1024, 0));
        let Tier2Error::Answered(status) = answered(Code::Internal, &format!("x{}", "ä".repeat(1000)), b"d")
        else {
            panic!("an answer");
        };
        assert_eq!((status.message.len(), &status.details[..]), (1023, &b"d"[..]));
    }
}
