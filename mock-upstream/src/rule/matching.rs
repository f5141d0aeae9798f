//! Which calls are meant.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::log::Call;
use crate::method;
use crate::rule::text;

/// Which calls are meant. A call that names several digests matches each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "text::MatchText", into = "text::MatchText")]
pub struct Match {
    pub(crate) method: Option<String>,
    pub(crate) instance: Option<String>,
    pub(crate) digest: Option<Digest>,
    pub(crate) min_bytes: Option<u64>,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) nth: Option<u64>,
}

impl Match {
    pub fn any() -> Match {
        Match::default()
    }

    pub fn method(method: &str) -> Match {
        Match {
            method: Some(method.to_owned()),
            ..Match::default()
        }
    }

    /// A ByteStream.Read of this blob.
    pub fn read(digest: &Digest) -> Match {
        Match::method(method::READ).digest(digest)
    }

    /// A ByteStream.Write of this blob.
    pub fn write(digest: &Digest) -> Match {
        Match::method(method::WRITE).digest(digest)
    }

    #[must_use]
    pub fn digest(mut self, digest: &Digest) -> Match {
        self.digest = Some(*digest);
        self
    }

    #[must_use]
    pub fn instance(mut self, instance: &str) -> Match {
        self.instance = Some(instance.to_owned());
        self
    }

    /// Only calls whose digests have this size together, or more.
    #[must_use]
    pub fn min_bytes(mut self, bytes: u64) -> Match {
        self.min_bytes = Some(bytes);
        self
    }

    /// Only calls whose digests have this size together, or less.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Match {
        self.max_bytes = Some(bytes);
        self
    }

    /// Only the n-th of the calls that match otherwise, from 1: for a rule counted from when the rule was made, for the
    /// log from its beginning.
    #[must_use]
    pub fn nth(mut self, nth: u64) -> Match {
        self.nth = Some(nth);
        self
    }

    /// Whether the call is one of those counted for `nth`.
    pub(crate) fn fits(&self, call: &Call) -> bool {
        let bytes = || {
            call.digests
                .iter()
                .map(Digest::size_bytes)
                .fold(0, u64::saturating_add)
        };
        let wanted = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|name| name == found);
        // A connection is meant only where it is named.
        let named = call.method != method::CONNECT || self.method.is_some();
        named
            && wanted(&self.method, &call.method)
            && wanted(&self.instance, &call.instance)
            && self.digest.is_none_or(|digest| call.digests.contains(&digest))
            && self.min_bytes.is_none_or(|min| bytes() >= min)
            && self.max_bytes.is_none_or(|max| bytes() <= max)
    }

    pub(crate) fn select<'a>(
        &'a self,
        calls: impl Iterator<Item = &'a Call> + 'a,
    ) -> impl Iterator<Item = &'a Call> + 'a {
        let fitting = calls.filter(|call| self.fits(call));
        (1..)
            .zip(fitting)
            .filter(|(n, _)| self.nth.is_none_or(|nth| nth == *n))
            .map(|(_, call)| call)
    }
}
