//! What an action result refers to, and what makes it of no use to anybody (P3, R6). Pure.

mod tree;

use std::collections::HashSet;

use bytes::Bytes;
use prost::Message as _;
use proto::reapi;

use crate::digest::{Digest, Function};
use crate::tier2::RawActionResult;

pub(super) use self::tree::{Closure, WALK_BYTES_MAX, Walk, of_tree};

/// Blobs that one action result may refer to, directories and what is in its trees included. The largest output directories
/// that builds have hold some hundred thousand files; each costs some 50 bytes here while a client waits.
pub(super) const REFERENCES_MAX: usize = 300_000;

/// Why an action result is no hit. All of these are certain: asking again finds the same, until somebody writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It is no message.
    #[error("it cannot be decoded")]
    Undecodable,
    /// A digest in it is absent or malformed.
    #[error("the {0} is absent or malformed")]
    Malformed(&'static str),
    /// Bytes that are inlined beside a digest are others.
    #[error("inlined bytes do not fit {0}")]
    Inlined(Digest),
    /// It refers to more than can be checked.
    #[error("it refers to more than {REFERENCES_MAX} blobs")]
    TooMany,
    /// A Tree, or the directories under a root, have more bytes or levels than can be checked.
    #[error("the tree {0} is too large or too deep to be checked")]
    TreeTooLarge(Digest),
    /// A Tree or Directory is no such message.
    #[error("the tree {0} cannot be decoded")]
    TreeUndecodable(Digest),
    /// A digest in a Tree or Directory is absent or malformed.
    #[error("a digest in the tree {0} is malformed")]
    TreeMalformed(Digest),
    /// A Tree has no directory of this digest, which another directory of it names.
    #[error("the tree {tree} lacks its child {child}")]
    ChildLacking {
        /// The Tree.
        tree: Digest,
        /// The directory.
        child: Digest,
    },
    /// A Tree and a root Directory are said to be the same and are not.
    #[error("the root of the tree {tree} is not {root}")]
    OtherRoot {
        /// The Tree.
        tree: Digest,
        /// What its root was said to be.
        root: Digest,
    },
    /// Tier 2 does not have a blob, and it could not be repaired in time.
    #[error("{0} is missing")]
    Missing(Digest),
    /// Tier 2's copy of a blob failed verification twice.
    #[error("tier 2's copy of {0} is bad")]
    Bad(Digest),
}

impl Flaw {
    /// The reason in a word, for a metric's label.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Flaw::Undecodable => "undecodable",
            Flaw::Malformed(_) | Flaw::Inlined(_) => "malformed",
            Flaw::TooMany => "too_many",
            Flaw::TreeTooLarge(_) => "tree_too_large",
            Flaw::TreeUndecodable(_) => "tree_undecodable",
            Flaw::TreeMalformed(_) => "tree_malformed",
            Flaw::ChildLacking { .. } => "tree_child_lacking",
            Flaw::OtherRoot { .. } => "tree_other_root",
            Flaw::Missing(_) => "missing",
            Flaw::Bad(_) => "bad",
        }
    }
}

/// What an action result itself names; what its directories lead to is found by reading them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct References {
    /// Files, stdout and stderr, each once. The empty blob is never among them.
    pub(super) blobs: Box<[Digest]>,
    pub(super) directories: Box<[OutputDirectory]>,
}

/// An output directory, as one message or as a blob per directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum OutputDirectory {
    /// A Tree. Where a root is named as well, its directories are blobs too.
    Tree { tree: Digest, root: Option<Digest> },
    /// Directories that are blobs, from this root on.
    Root(Digest),
}

impl OutputDirectory {
    /// The same without what is only said about it: by this, what it leads to is known.
    pub(super) fn content(self) -> OutputDirectory {
        match self {
            OutputDirectory::Tree { tree, .. } => OutputDirectory::Tree { tree, root: None },
            OutputDirectory::Root(_) => self,
        }
    }

    /// The blobs that stand for it.
    fn named(&self) -> impl Iterator<Item = Digest> + use<> {
        let both = match *self {
            OutputDirectory::Tree { tree, root } => [Some(tree), root],
            OutputDirectory::Root(root) => [Some(root), None],
        };
        both.into_iter().flatten()
    }
}

impl References {
    /// Reads a result.
    ///
    /// # Errors
    /// If no client could use it as it is.
    pub(super) fn of(function: Function, result: &RawActionResult) -> Result<References, Flaw> {
        let result = reapi::ActionResult::decode(result.0.clone()).map_err(|_| Flaw::Undecodable)?;
        let mut blobs = Blobs::default();
        for file in &result.output_files {
            let digest = required(function, file.digest.as_ref(), "digest of an output file")?;
            blobs.add(digest, &file.contents)?;
        }
        let streams = [
            (&result.stdout_digest, &result.stdout_raw, "stdout digest"),
            (&result.stderr_digest, &result.stderr_raw, "stderr digest"),
        ];
        for (digest, inlined, what) in streams {
            // Absent means none, not the empty blob.
            if digest.is_some() {
                blobs.add(required(function, digest.as_ref(), what)?, inlined)?;
            }
        }
        let directories = result.output_directories.iter();
        let directories = directories.map(|directory| output_directory(function, directory));
        Ok(References {
            blobs: blobs.list.into(),
            directories: directories.collect::<Result<_, _>>()?,
        })
    }

    /// Every blob that the result names itself.
    pub(super) fn named(&self) -> impl Iterator<Item = Digest> {
        let directories = self.directories.iter().flat_map(OutputDirectory::named);
        self.blobs
            .iter()
            .copied()
            .chain(directories)
            .filter(|digest| !digest.is_empty())
    }

    /// Bytes that this takes in memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.blobs) + size_of_val(&*self.directories)
    }
}

/// Digests as they are met, each once.
#[derive(Default)]
struct Blobs {
    seen: HashSet<Digest>,
    list: Vec<Digest>,
}

impl Blobs {
    fn add(&mut self, digest: Digest, inlined: &Bytes) -> Result<(), Flaw> {
        if !inlined.is_empty() && Digest::of(digest.function(), inlined) != digest {
            return Err(Flaw::Inlined(digest));
        }
        if !digest.is_empty() && self.seen.insert(digest) {
            self.list.push(digest);
        }
        Ok(())
    }
}

fn output_directory(function: Function, directory: &reapi::OutputDirectory) -> Result<OutputDirectory, Flaw> {
    let tree = directory.tree_digest.as_ref();
    let root = directory.root_directory_digest.as_ref();
    let named_root = || required(function, root, "root digest of an output directory");
    if tree.is_none() && root.is_some() {
        return Ok(OutputDirectory::Root(named_root()?));
    }
    Ok(OutputDirectory::Tree {
        tree: required(function, tree, "tree digest of an output directory")?,
        root: root.is_some().then(named_root).transpose()?,
    })
}

fn required(function: Function, digest: Option<&reapi::Digest>, what: &'static str) -> Result<Digest, Flaw> {
    digest
        .and_then(|digest| Digest::parse(function, &digest.hash, digest.size_bytes).ok())
        .ok_or(Flaw::Malformed(what))
}

#[cfg(test)]
mod tests;
