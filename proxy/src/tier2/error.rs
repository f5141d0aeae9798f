//! What can go wrong with Tier 2, one variant per thing that a caller can do about it.

use std::fmt;

use bytes::Bytes;
use tonic::Code;

use crate::blob::DigestMismatch;

/// Any error, as a cause.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why Tier 2 did not do what was asked. Cheap to clone, because everybody who waits for a shared call is told.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Tier2Error {
    /// Tier 2 says that it does not have it. The only word that makes a miss.
    #[error("not found in tier 2")]
    NotFound,
    /// No answer: connect failed, connection lost, or Tier 2 is known to be down. Worth another try on another connection.
    #[error("tier 2 is down")]
    Down(#[source] Cause),
    /// Tier 2 answered with an error: that is the call's result.
    #[error("tier 2 answered {0}")]
    Answered(UpstreamStatus),
    /// Bytes came whole and do not fit their digest.
    #[error("tier 2 sent bytes that do not fit")]
    Corrupt(#[source] DigestMismatch),
    /// A stream ended with OK before its last byte.
    #[error("tier 2 ended a stream early")]
    Short,
    /// A connection stands and nothing comes.
    #[error("tier 2 made no progress")]
    Stalled,
    /// The caller's time is up.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// The body of an upload gave up. Not Tier 2's fault, and Tier 2 keeps nothing of it.
    #[error("the upload was given up before its end")]
    Aborted,
}

impl Tier2Error {
    /// A connection problem with its cause.
    pub fn down(cause: impl Into<BoxError>) -> Tier2Error {
        Tier2Error::Down(Cause(cause.into().into()))
    }

    /// Tier 2 is not asked, since it is known to be down.
    pub(crate) fn known_down() -> Tier2Error {
        Tier2Error::down("it is known to be down")
    }

    /// Whether the failure of a call that several callers share may have to do with the one in whose name it was made, and
    /// so says nothing to the others (R5). Failures that pass by themselves do not.
    pub fn may_be_the_callers_own(&self) -> bool {
        match self {
            Tier2Error::Answered(status) => match status.code {
                Code::InvalidArgument
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::Unauthenticated => true,
                Code::Ok
                | Code::Cancelled
                | Code::Unknown
                | Code::DeadlineExceeded
                | Code::NotFound
                | Code::ResourceExhausted
                | Code::Aborted
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss => false,
            },
            Tier2Error::NotFound
            | Tier2Error::Down(_)
            | Tier2Error::Corrupt(_)
            | Tier2Error::Short
            | Tier2Error::Stalled
            | Tier2Error::DeadlineExceeded
            | Tier2Error::Aborted => false,
        }
    }

    /// Whether it is what calls get while Tier 2 is down: no answer, or UNAVAILABLE, which servers and what stands before
    /// them say of themselves. It may be an accident; see [`super::breaker`].
    pub fn is_outage_like(&self) -> bool {
        match self {
            Tier2Error::Down(_) | Tier2Error::Stalled => true,
            Tier2Error::Answered(status) => status.code == Code::Unavailable,
            Tier2Error::NotFound
            | Tier2Error::Corrupt(_)
            | Tier2Error::Short
            | Tier2Error::DeadlineExceeded
            | Tier2Error::Aborted => false,
        }
    }
}

/// A shared cause of an outage: for the log, never for the client.
#[derive(Clone)]
pub struct Cause(std::sync::Arc<dyn std::error::Error + Send + Sync>);

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// A status that Tier 2 answered, with its details (such as `RetryInfo`) undecoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamStatus {
    /// The gRPC code.
    pub code: Code,
    /// Tier 2's words, bounded.
    pub message: String,
    /// A serialized `google.rpc.Status`, or empty.
    pub details: Bytes,
}

impl UpstreamStatus {
    /// The same for a caller to whom NOT_FOUND would mean something else than to whoever was asked: UNAVAILABLE then.
    #[must_use]
    pub fn never_a_miss(self) -> UpstreamStatus {
        if self.code != Code::NotFound {
            return self;
        }
        UpstreamStatus {
            code: Code::Unavailable,
            // They name the code that was given.
            details: Bytes::new(),
            ..self
        }
    }
}

impl fmt::Display for UpstreamStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}
