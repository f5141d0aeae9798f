//! What a check is: a stable id, the sentence it rests on, how strong that sentence is, and a function that looks.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::target::Target;

/// How strongly the specification, or the practice of clients, asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// The specification demands it.
    Must,
    /// The specification advises it.
    Should,
    /// A real client depends on it.
    DeFacto,
    /// Follows from the others.
    Derived,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Must => "MUST",
            Level::Should => "SHOULD",
            Level::DeFacto => "DE-FACTO",
            Level::Derived => "DERIVED",
        })
    }
}

/// Why a check did not pass.
#[derive(Debug)]
pub enum Stop {
    /// The server did other than it has to: what was sent, what was expected, what came.
    Failed(String),
    /// The server does not offer what the check is about, and says so.
    NotOffered(String),
    /// The check could not be made: the connection broke, a set-up step was refused.
    Broken(String),
}

/// What a check's function returns.
pub type Verdict = Result<(), Stop>;

/// What became of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The server did as it has to.
    Passed,
    /// It did not.
    Failed(String),
    /// It does not offer this.
    NotOffered(String),
    /// Nothing can be said; counts as a failure, since nothing was shown.
    Broken(String),
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Outcome {
        match verdict {
            Ok(()) => Outcome::Passed,
            Err(Stop::Failed(what)) => Outcome::Failed(what),
            Err(Stop::NotOffered(what)) => Outcome::NotOffered(what),
            Err(Stop::Broken(what)) => Outcome::Broken(what),
        }
    }
}

/// A running check.
pub type Running = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// One thing that can be told about a server from outside.
#[derive(Clone, Copy)]
pub struct Check {
    /// Id of the requirement, stable for ever.
    pub id: &'static str,
    /// How strong it is.
    pub level: Level,
    /// What a server has to do, in one sentence.
    pub says: &'static str,
    /// Looks whether it does.
    pub look: fn(Arc<Target>) -> Running,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

/// A check from its four parts, the last an `async fn(Arc<Target>) -> Verdict`.
#[macro_export]
macro_rules! check {
    ($id:literal, $level:ident, $says:literal, $look:path) => {
        $crate::check::Check {
            id: $id,
            level: $crate::check::Level::$level,
            says: $says,
            look: |target| Box::pin($look(target)),
        }
    };
}

/// Fails a check unless `holds`.
///
/// # Errors
/// [`Stop::Failed`] with `what` when it does not hold.
pub fn expect(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Stop::Failed(what())) }
}
