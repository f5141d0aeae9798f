//! Fields that are written as one of a few words.

use figment::value::Value;

use super::field::{Leaf, Unfit};
use super::leaf::unfit;
use crate::logs;

/// An enum that is written as one of a few words.
pub(crate) trait Words: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];

    fn word(self) -> &'static str {
        let pair = Self::WORDS.iter().find(|(_, value)| *value == self);
        pair.expect("each variant has a word").0
    }
}

impl<T: Words> Leaf for T {
    fn form() -> String {
        let words: Vec<_> = T::WORDS.iter().map(|(word, _)| format!("`{word}`")).collect();
        match words.as_slice() {
            [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
            _ => words.concat(),
        }
    }

    fn parse(value: &Value) -> Result<Self, Unfit> {
        match T::WORDS.iter().find(|(word, _)| value.as_str() == Some(word)) {
            Some((_, chosen)) => Ok(*chosen),
            None => unfit(value),
        }
    }

    fn render(&self) -> String {
        self.word().to_owned()
    }
}

/// When an acknowledged write reaches Tier 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier1Write {
    /// Before the client's answer.
    Sync,
    /// Behind it.
    Async,
}

impl Words for Tier1Write {
    const WORDS: &'static [(&'static str, Self)] = &[("sync", Self::Sync), ("async", Self::Async)];
}

/// What the node answers while Tier 2 is known to be down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenDown {
    /// Calls fail with UNAVAILABLE.
    Fail,
    /// Readers get what Tier 1 has and what was known before.
    ServeTier1,
    /// Builds go on as if they had no cache.
    Bypass,
}

impl Words for WhenDown {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("fail", Self::Fail),
        ("serve_tier1", Self::ServeTier1),
        ("bypass", Self::Bypass),
    ];
}

/// Whether what Tier 2 lost and Tier 1 holds is uploaded again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// It is.
    On,
    /// It is missing until a client uploads it.
    Off,
}

impl Words for Repair {
    const WORDS: &'static [(&'static str, Self)] = &[("on", Self::On), ("off", Self::Off)];
}

impl Words for tracing::Level {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::ERROR),
        ("warn", Self::WARN),
        ("info", Self::INFO),
        ("debug", Self::DEBUG),
        ("trace", Self::TRACE),
    ];
}

impl Words for logs::Format {
    const WORDS: &'static [(&'static str, Self)] = &[("json", Self::Json), ("text", Self::Text)];
}
