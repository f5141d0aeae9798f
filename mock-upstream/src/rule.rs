//! Faults as data: which calls are meant, when, what happens to them, and how often.
//!
//! A [`Rule`] is built here or read from JSON and TOML ([`Rules::from_toml`], [`Rules::from_json`]); both forms say the
//! same. Whether a rule applies to a call is decided in [`crate::rules`], what it does is done in [`crate::script`].

mod act;
mod matching;
mod text;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use act::{Act, Announce, Farewell};
pub use matching::Match;
pub(crate) use text::{Place, after, code_name, parse_digest, place};
pub use text::{RuleError, Rules};

/// Where in a call something happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// Before anything was done: before a Read sends its headers.
    #[default]
    Start,
    /// When this many bytes were sent (Read: exactly so many) or received (Write: so many or more, as messages fall).
    /// A call that carries fewer comes to it at its end, as do all other methods. To an act that changes bytes it is
    /// the offset of the change, and a call that carries fewer is left alone.
    Bytes(u64),
    /// Before the effect and the answer: before a Write commits, before a Read's final status. To an act that changes
    /// bytes it is the last of them; to an eviction, when the answer is known.
    End,
}

/// When a rule ends, other than by its `times`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// When so many calls have matched, acted on or not.
    Calls(u64),
    /// When such a call arrives; the rule is over for that call already.
    Call(Match),
    /// So many milliseconds after the rule was set.
    Ms(u64),
}

/// One fault. Of the calls that match, and to which the act can be done, it meets all, or the `nth`, or some by chance;
/// at most `times` of them, and none after `until`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "text::RuleText", into = "text::RuleText")]
pub struct Rule {
    pub(crate) name: String,
    pub(crate) wanted: Match,
    pub(crate) after: After,
    pub(crate) act: Act,
    pub(crate) chance: Option<Chance>,
    pub(crate) times: Option<u64>,
    pub(crate) until: Option<Until>,
}

/// A probability between 0 and 1, drawn from the seed and the number of the call: the same calls in the same order meet
/// the same fate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Chance {
    pub(crate) of: f64,
    pub(crate) seed: u64,
}

impl Rule {
    /// At the start of every such call.
    pub fn new(wanted: Match, act: Act) -> Rule {
        Rule {
            name: act.name().to_owned(),
            wanted,
            after: After::Start,
            act,
            chance: None,
            times: None,
            until: None,
        }
    }

    /// What the log calls it; the name of its act, if nothing else is said.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Rule {
        self.name = name.into();
        self
    }

    #[must_use]
    pub fn after(mut self, after: After) -> Rule {
        self.after = after;
        self
    }

    /// Meets a call with this probability, counted from 0 (never) to 1 (always).
    #[must_use]
    pub fn chance(mut self, of: f64, seed: u64) -> Rule {
        self.chance = Some(Chance { of, seed });
        self
    }

    #[must_use]
    pub fn times(mut self, times: u64) -> Rule {
        self.times = Some(times);
        self
    }

    #[must_use]
    pub fn until(mut self, until: Until) -> Rule {
        self.until = Some(until);
        self
    }

    /// Ends when this much time has passed since it was set.
    #[must_use]
    pub fn lasting(self, time: Duration) -> Rule {
        self.until(Until::Ms(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }
}
