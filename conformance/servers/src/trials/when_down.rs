//! What a node answers while it knows that Tier 2 is down: SEMANTICS.md's table, for each call and mode.

use tonic::Code;

/// `tier2.when_down`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenDown {
    Fail,
    ServeTier1,
    Bypass,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// FindMissingBlobs of a blob under a lease.
    LeasedBlob,
    /// FindMissingBlobs of any other.
    UnknownBlob,
    /// The bytes of a blob in Tier 1.
    KeptBytes,
    /// The bytes of any other, or a tree of it.
    OtherBytes,
    /// GetActionResult of an action of which the node has a copy that it may use.
    KeptAction,
    /// GetActionResult of any other.
    UnknownAction,
    /// Anything that stores.
    Write,
}

impl WhenDown {
    /// As the configuration has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            WhenDown::Fail => "fail",
            WhenDown::ServeTier1 => "serve_tier1",
            WhenDown::Bypass => "bypass",
        }
    }

    /// The code that is due; `None` where Tier 1 answers.
    pub(crate) fn refusal(self, asked: Asked) -> Option<Code> {
        match (self, asked) {
            (WhenDown::Fail, _) => Some(Code::Unavailable),
            (WhenDown::ServeTier1, Asked::LeasedBlob | Asked::KeptBytes | Asked::KeptAction)
            | (WhenDown::Bypass, Asked::KeptBytes) => None,
            (WhenDown::ServeTier1, Asked::UnknownBlob | Asked::UnknownAction | Asked::Write)
            | (WhenDown::ServeTier1 | WhenDown::Bypass, Asked::OtherBytes) => Some(Code::Unavailable),
            (WhenDown::Bypass, Asked::KeptAction | Asked::UnknownAction) => Some(Code::NotFound),
            (WhenDown::Bypass, Asked::LeasedBlob | Asked::UnknownBlob | Asked::Write) => {
                Some(Code::FailedPrecondition)
            }
        }
    }
}
