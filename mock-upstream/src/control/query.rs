//! Queries of the control port, parsed by hand: every key that is not known is an error, not a filter that is not there.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::control::{Refusal, bad};
use crate::digest::Digest;
use crate::method;
use crate::rule::{Match, RuleError, parse_digest};

pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    pub(super) fn parse(raw: Option<String>) -> Query {
        let raw = raw.unwrap_or_default();
        let pairs = form_urlencoded::parse(raw.as_bytes());
        Query(
            pairs
                .map(|(key, value)| (key.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// Takes a value out.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    pub(super) fn number<T: FromStr>(&mut self, key: &str) -> Result<Option<T>, Refusal> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        let number = text.parse();
        number
            .map(Some)
            .map_err(|_not| bad(format!("{key} = {text:?} is no number")))
    }

    /// `on`, `instance`, `digest`, `min_bytes`, `max_bytes`, `nth`, as in a rule.
    pub(super) fn wanted(&mut self) -> Result<Match, Refusal> {
        let mut wanted = Match::any();
        if let Some(on) = self.text("on") {
            if !method::ALL.contains(&on.as_str()) {
                return Err(bad(RuleError::Method(on)));
            }
            wanted = Match::method(&on);
        }
        if let Some(instance) = self.text("instance") {
            wanted = wanted.instance(&instance);
        }
        if let Some(digest) = self.text("digest") {
            wanted = wanted.digest(&digest_of(&digest)?);
        }
        wanted.min_bytes = self.number("min_bytes")?;
        wanted.max_bytes = self.number("max_bytes")?;
        wanted.nth = self.number("nth")?;
        Ok(wanted)
    }

    /// Refuses what nobody took.
    pub(super) fn end(self) -> Result<(), Refusal> {
        match self.0.keys().next() {
            Some(key) => Err(bad(format!("{key} is not known here"))),
            None => Ok(()),
        }
    }
}

pub(super) fn digest_of(text: &str) -> Result<Digest, Refusal> {
    parse_digest(text).map_err(bad)
}
