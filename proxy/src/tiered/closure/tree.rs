//! Everything under a directory: out of a Tree, which holds its directories itself, or directory by directory.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use prost::Message as _;
use proto::{reapi, wire};

use super::{Flaw, REFERENCES_MAX};
use crate::digest::{Digest, Function};

/// Bytes of a Tree, or of all directories under a root: room for some hundred thousand files. They are held while they are
/// looked into.
pub(in super::super) const WALK_BYTES_MAX: u64 = 32 << 20;

/// Levels below the root; no path on a real file system has as many.
const DEPTH_MAX: u32 = 512;

/// What lies under a directory. What one refers to never changes, so that this may be remembered by its digest.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Closure {
    /// The directory itself.
    pub(in super::super) root: Digest,
    /// It and those below it, each once, from the top down. The empty directory is left out: its digest is the empty blob's.
    pub(in super::super) directories: Box<[Digest]>,
    /// Files in them, each once; the empty one left out.
    pub(in super::super) files: Box<[Digest]>,
}

impl Closure {
    /// Bytes that this takes in memory.
    pub(in super::super) fn bytes(&self) -> usize {
        size_of_val(&*self.directories) + size_of_val(&*self.files)
    }
}

/// Looks into a Tree, given its bytes.
///
/// # Errors
/// What makes it useless.
pub(in super::super) fn of_tree(tree: Digest, bytes: Bytes) -> Result<Closure, Flaw> {
    let function = tree.function();
    let message = wire::Tree::decode(bytes).map_err(|_| Flaw::TreeUndecodable(tree))?;
    let root = message.root.unwrap_or_default();
    let mut held: HashMap<Digest, Bytes> = message
        .children
        .into_iter()
        .map(|child| (Digest::of(function, &child), child))
        .collect();
    let root_digest = Digest::of(function, &root);
    held.insert(root_digest, root);
    let mut walk = Walk::new(tree, root_digest);
    while let Some(digest) = walk.next() {
        let Some(bytes) = held.get(&digest) else {
            return Err(Flaw::ChildLacking { tree, child: digest });
        };
        walk.take(bytes)?;
    }
    Ok(walk.finish())
}

/// A walk through directories, level by level. It says which directory it wants next, and is given its bytes.
pub(in super::super) struct Walk {
    /// What is walked through, for whoever asks what is wrong.
    of: Digest,
    root: Digest,
    /// Directories, each once, in the order in which they were met.
    directories: Vec<(Digest, u32)>,
    seen: HashSet<Digest>,
    /// How many of them were handed out by `next`, and taken in.
    wanted: usize,
    taken: usize,
    files: Vec<Digest>,
    seen_files: HashSet<Digest>,
    bytes: u64,
}

impl Walk {
    /// A walk through `of`, whose topmost directory is `root`.
    pub(in super::super) fn new(of: Digest, root: Digest) -> Walk {
        let mut walk = Walk {
            of,
            root,
            directories: Vec::new(),
            seen: HashSet::new(),
            wanted: 0,
            taken: 0,
            files: Vec::new(),
            seen_files: HashSet::new(),
            bytes: 0,
        };
        walk.meet(root, 0);
        walk
    }

    /// The next directory that is wanted; `None` when all that are known of were.
    pub(in super::super) fn next(&mut self) -> Option<Digest> {
        let (digest, _) = self.directories.get(self.wanted)?;
        self.wanted += 1;
        Some(*digest)
    }

    /// Takes the bytes of the directories in the order in which they were wanted.
    ///
    /// # Errors
    /// What makes the tree useless.
    pub(in super::super) fn take(&mut self, bytes: &Bytes) -> Result<(), Flaw> {
        let depth = self.directories.get(self.taken).map_or(0, |(_, depth)| *depth);
        self.taken += 1;
        self.bytes += bytes.len() as u64;
        if self.bytes > WALK_BYTES_MAX {
            return Err(Flaw::TreeTooLarge(self.of));
        }
        let directory =
            reapi::Directory::decode(bytes.clone()).map_err(|_| Flaw::TreeUndecodable(self.of))?;
        for file in directory.files {
            let digest = self.parse(file.digest.as_ref())?;
            if !digest.is_empty() && self.seen_files.insert(digest) {
                self.files.push(digest);
            }
        }
        for child in directory.directories {
            let child = self.parse(child.digest.as_ref())?;
            if depth == DEPTH_MAX {
                return Err(Flaw::TreeTooLarge(self.of));
            }
            self.meet(child, depth + 1);
        }
        if self.files.len() + self.directories.len() > REFERENCES_MAX {
            return Err(Flaw::TooMany);
        }
        Ok(())
    }

    /// What was met, after the last directory was taken.
    pub(in super::super) fn finish(self) -> Closure {
        Closure {
            root: self.root,
            directories: self.directories.into_iter().map(|(digest, _)| digest).collect(),
            files: self.files.into(),
        }
    }

    fn meet(&mut self, directory: Digest, depth: u32) {
        if !directory.is_empty() && self.seen.insert(directory) {
            self.directories.push((directory, depth));
        }
    }

    fn parse(&self, digest: Option<&reapi::Digest>) -> Result<Digest, Flaw> {
        let function: Function = self.of.function();
        digest
            .and_then(|digest| Digest::parse(function, &digest.hash, digest.size_bytes).ok())
            .ok_or(Flaw::TreeMalformed(self.of))
    }
}
