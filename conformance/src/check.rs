//! What a check is: the id of a requirement and a function that looks whether a server meets it. What the requirement
//! says, how strong it is and what it rests on stands in the [catalogue].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::catalogue::{self, Level, Requirement};
use crate::target::Target;

/// Why a check did not pass.
#[derive(Debug)]
pub enum Stop {
    /// The server did other than it has to.
    Failed(Finding),
    /// The server does not offer what the check is about, and says so.
    NotOffered(String),
    /// The check could not be made: the connection broke, a set-up step was refused.
    Broken(String),
}

/// What was found wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Finding {
    /// What was asked of the server.
    pub sent: String,
    /// What it had to answer.
    pub expected: String,
    /// What it answered.
    pub came: String,
    /// The last calls of the check, in order, each with its answer.
    pub calls: Vec<String>,
}

impl From<String> for Finding {
    fn from(came: String) -> Finding {
        Finding {
            came,
            ..Finding::default()
        }
    }
}

impl From<&str> for Finding {
    fn from(came: &str) -> Finding {
        came.to_owned().into()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.sent.is_empty() {
            write!(f, "{}: ", self.sent)?;
        }
        if !self.expected.is_empty() {
            write!(f, "expected {}, came ", self.expected)?;
        }
        f.write_str(&self.came)
    }
}

/// What a check's function returns.
pub type Verdict = Result<(), Stop>;

/// What became of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The server did as it has to.
    Passed,
    /// It did not.
    Failed(Finding),
    /// It does not offer this.
    NotOffered(String),
    /// Nothing can be said; counts as a failure, since nothing was shown.
    Broken(Finding),
}

impl Outcome {
    /// Whether the check failed or could not be made.
    pub fn is_bad(&self) -> bool {
        matches!(self, Outcome::Failed(_) | Outcome::Broken(_))
    }
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Outcome {
        match verdict {
            Ok(()) => Outcome::Passed,
            Err(Stop::Failed(finding)) => Outcome::Failed(finding),
            Err(Stop::NotOffered(what)) => Outcome::NotOffered(what),
            Err(Stop::Broken(what)) => Outcome::Broken(what.into()),
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
    /// Looks whether the server meets it.
    pub look: fn(Arc<Target>) -> Running,
    /// Whether it moves megabytes or makes hundreds of calls.
    pub heavy: bool,
    /// Whether it is made again under each new digest function that the server announces and the suite computes.
    pub again: bool,
}

impl Check {
    /// What the catalogue has of it.
    ///
    /// # Panics
    /// If the catalogue lacks it, which a test excludes.
    pub fn requirement(&self) -> &'static Requirement {
        let found = catalogue::find(self.id);
        found.expect("a test finds every check in the catalogue")
    }

    /// How strong the requirement is.
    pub fn level(&self) -> Level {
        self.requirement().level
    }

    /// What a server has to do.
    pub fn says(&self) -> &'static str {
        &self.requirement().says
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

/// A check from an id and an `async fn(Arc<Target>) -> Verdict`; `heavy` as a third part marks one that costs.
#[macro_export]
macro_rules! check {
    ($id:literal, $look:path) => {
        $crate::check::Check {
            id: $id,
            look: |target| Box::pin($look(target)),
            heavy: false,
            again: false,
        }
    };
    ($id:literal, $look:path, heavy) => {
        $crate::check::Check {
            id: $id,
            look: |target| Box::pin($look(target)),
            heavy: true,
            again: false,
        }
    };
}

/// Fails a check unless `holds`.
///
/// # Errors
/// [`Stop::Failed`] with `what` came when it does not hold.
pub fn expect(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds {
        Ok(())
    } else {
        Err(Stop::Failed(what().into()))
    }
}

/// Fails a check unless what came is what was expected.
///
/// # Errors
/// [`Stop::Failed`] that shows both.
pub fn expect_eq<T: PartialEq + fmt::Debug>(sent: &str, came: &T, expected: &T) -> Verdict {
    if came == expected {
        return Ok(());
    }
    Err(Stop::Failed(Finding {
        sent: sent.to_owned(),
        expected: format!("{expected:?}"),
        came: format!("{came:?}"),
        calls: Vec::new(),
    }))
}
