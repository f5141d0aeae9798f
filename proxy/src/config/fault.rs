//! What is wrong with a configuration, and where.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Faults kept for the report. More than anyone repairs in one go; a file of garbage must not fill the terminal or the memory.
const FAULTS_MAX: usize = 100;

/// Edits that still count as a slip of the hand rather than another word, whatever the length of the name.
const SLIP_EDITS_MAX: usize = 3;

/// A place in a text file. Both count from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// Where a value (or a fault) came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File {
        path: Arc<PathBuf>,
        at: Option<Position>,
    },
    /// An environment variable, by name.
    Variable(String),
    /// A command-line flag, with its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, at: None } => write!(f, "{}", path.display()),
            Self::File { path, at: Some(at) } => write!(f, "{}:{}:{}", path.display(), at.line, at.column),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing to repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub origin: Origin,
    /// The field's path; absent where the fault is not one field's, such as a file that cannot be read.
    pub path: Option<String>,
    /// What was found.
    pub problem: String,
    /// The form that would have been accepted.
    pub accepted: Option<String>,
    /// A name that was probably meant.
    pub meant: Option<String>,
}

impl Fault {
    pub(crate) fn new(origin: Origin, problem: impl Into<String>) -> Self {
        Self {
            origin,
            path: None,
            problem: problem.into(),
            accepted: None,
            meant: None,
        }
    }

    pub(crate) fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    pub(crate) fn accepted(mut self, form: impl Into<String>) -> Self {
        self.accepted = Some(form.into());
        self
    }

    pub(crate) fn meant(mut self, name: Option<String>) -> Self {
        self.meant = name;
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(path) = &self.path {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.problem)?;
        if let Some(form) = &self.accepted {
            write!(f, "; accepted: {form}")?;
        }
        if let Some(name) = &self.meant {
            write!(f, "; did you mean `{name}`?")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, thiserror::Error)]
pub struct ConfigErrors {
    faults: Vec<Fault>,
    left_out: usize,
}

impl ConfigErrors {
    /// `EX_USAGE` of sysexits: started wrongly, so that a supervisor can tell it from a crash.
    pub const EXIT_CODE: u8 = 64;

    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len() + self.left_out;
        write!(
            f,
            "the configuration has {count} {}:",
            if count == 1 { "fault" } else { "faults" }
        )?;
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        if self.left_out > 0 {
            write!(f, "\n  and {} more", self.left_out)?;
        }
        Ok(())
    }
}

/// Gathers faults while the layers are read.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    faults: Vec<Fault>,
    left_out: usize,
    fields: BTreeSet<String>,
}

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault) {
        if let Some(path) = &fault.path
            && self.fields.len() < FAULTS_MAX
        {
            self.fields.insert(path.clone());
        }
        if self.has_room() {
            self.faults.push(fault);
        } else {
            self.left_out += 1;
        }
    }

    /// Whether the next fault will be shown: if not, nobody needs to look up its place.
    pub(crate) fn has_room(&self) -> bool {
        self.faults.len() < FAULTS_MAX
    }

    /// Whether `path` was found faulty, so that nothing can be concluded from what stands in for its value.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.fields.contains(path)
    }

    pub(crate) fn into_errors(self) -> Option<ConfigErrors> {
        (!self.faults.is_empty()).then_some(ConfigErrors {
            faults: self.faults,
            left_out: self.left_out,
        })
    }
}

/// The name among `known` that `written` is a slip of, if there is one.
pub(crate) fn nearest(written: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let length = written.chars().count();
    let allowed = (length / 3).min(SLIP_EDITS_MAX);
    known
        .filter(|name| name.chars().count().abs_diff(length) <= allowed)
        .map(|name| (strsim::damerau_levenshtein(written, &name), name))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}
