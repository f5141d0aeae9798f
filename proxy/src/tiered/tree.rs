//! GetTree: the directories under a root, each once, in a stable order, page by page.

use std::collections::{HashSet, VecDeque};
use std::fmt;

use bytes::Bytes;
use futures::Stream;
use prost::Message as _;
use proto::reapi;

use super::CallError;
use super::read::Reads;
use crate::call::Call;
use crate::digest::{Digest, Function};
use crate::tier2::Tier2Error;

/// Directories in one tree: several times what the largest source trees have. A walk remembers each.
const DIRECTORIES_MAX: usize = 200_000;

/// Bytes of all directories of one tree.
const TREE_BYTES_MAX: u64 = 512 << 20;

/// Levels below the root. Each costs a round trip that cannot be shared with the next, and no path on a real file system
/// has as many.
const DEPTH_MAX: u32 = 512;

/// Bytes of directories in one message, framing included: below the 4 MiB that clients accept.
const PAGE_BYTES_MAX: u64 = 3_500_000;

/// Bytes that a directory takes in a message beside its own: tag and length.
const DIRECTORY_FRAME_BYTES: u64 = 8;

/// Directories per page when the client leaves it to us.
const PAGE_DIRECTORIES: usize = 1000;

/// Directories that are read at once, and their bytes: a batch stays below what servers accept in one message.
const BATCH_DIRECTORIES: usize = 256;
const BATCH_BYTES_MAX: u64 = 2 << 20;

/// One message's worth of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreePage {
    /// Directories as they are stored, so that unknown fields pass and a digest still fits.
    pub directories: Vec<Bytes>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<TreeToken>,
}

/// A place in the walk of one tree. Holds no state of this node: any other can go on from it, with pages of any size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeToken {
    root: Digest,
    position: u64,
}

impl TreeToken {
    /// Reads a token that was issued for `root`.
    ///
    /// # Errors
    /// [`TreeError::Token`] if it was not.
    pub fn parse(text: &str, root: &Digest) -> Result<TreeToken, TreeError> {
        let token = text
            .split_once('-')
            .and_then(|(position, _)| position.parse().ok())
            .map(|position| TreeToken {
                root: *root,
                position,
            })
            .ok_or(TreeError::Token)?;
        // Compared as text, so that a position has one spelling.
        if token.position == 0 || token.to_string() != text {
            return Err(TreeError::Token);
        }
        Ok(token)
    }
}

/// Position and a check that ties it to its root.
impl fmt::Display for TreeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = format!("tree {} at {}", self.root, self.position);
        let check = Digest::of(Function::Sha256, said.as_bytes()).hash().to_hex();
        write!(f, "{}-{}", self.position, &check[..16])
    }
}

/// Why there is no tree, or no more of it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TreeError {
    /// The root is absent, or a directory's bytes could not be had.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The root's bytes are something else.
    #[error("the root is not a directory")]
    NotADirectory,
    /// Tier 2's copy of a directory below the root is bad. To leave it out would hand on a tree with a hole.
    #[error("tier 2's copy of the directory {0} is bad")]
    BadDirectory(Digest),
    /// A bound of the walk was reached.
    #[error("the tree has more than {0}")]
    TooLarge(&'static str),
    /// A directory that no message can hold.
    #[error("the directory {0} does not fit into a message")]
    DirectoryTooLarge(Digest),
    /// A page token that was never issued for this root, or for a tree that has shrunk since.
    #[error("the page token does not belong to this tree")]
    Token,
}

impl Reads {
    /// Walks the tree under `root`, level by level. `page_size` 0 leaves the size of pages to us; `from` skips what
    /// earlier pages had.
    ///
    /// A descendant that is absent, or that is no directory, is left out with what only it leads to. The first error
    /// ends the stream. Dropping it ends the walk.
    pub fn tree(
        &self,
        call: &Call,
        root: &Digest,
        page_size: usize,
        from: Option<TreeToken>,
    ) -> impl Stream<Item = Result<TreePage, TreeError>> + Send + use<> {
        let walk = Walk::new(self.clone(), call.clone(), *root);
        let pages = Pages {
            walk,
            size: if page_size == 0 {
                PAGE_DIRECTORIES
            } else {
                page_size
            },
            first: from.map_or(0, |token| token.position),
            carried: None,
            is_over: false,
        };
        futures::stream::try_unfold(pages, |mut pages| async move {
            let page = pages.next().await?;
            Ok(page.map(|page| (page, pages)))
        })
    }
}

/// Cuts the walk into pages.
struct Pages {
    walk: Walk,
    size: usize,
    /// Position of the first directory that is wanted.
    first: u64,
    /// A directory that did not fit the last page.
    carried: Option<Found>,
    is_over: bool,
}

impl Pages {
    async fn next(&mut self) -> Result<Option<TreePage>, TreeError> {
        if self.is_over {
            return Ok(None);
        }
        let mut directories = Vec::new();
        let mut page_bytes = 0;
        loop {
            let found = match self.carried.take() {
                Some(found) => Some(found),
                None => self.walk.next().await?,
            };
            let Some(found) = found else {
                break;
            };
            if found.position < self.first {
                continue;
            }
            page_bytes += found.bytes.len() as u64 + DIRECTORY_FRAME_BYTES;
            if directories.len() == self.size || (page_bytes > PAGE_BYTES_MAX && !directories.is_empty()) {
                let next = TreeToken {
                    root: self.walk.root,
                    position: found.position,
                };
                self.carried = Some(found);
                return Ok(Some(TreePage {
                    directories,
                    next: Some(next),
                }));
            }
            directories.push(found.bytes);
        }
        self.is_over = true;
        if self.first >= self.walk.next_position {
            return Err(TreeError::Token);
        }
        Ok(Some(TreePage {
            directories,
            next: None,
        }))
    }
}

/// The walk itself: breadth first, children in the order in which their directory names them.
struct Walk {
    reads: Reads,
    call: Call,
    root: Digest,
    seen: HashSet<Digest>,
    /// Seen and not yet read, with their depth.
    ahead: VecDeque<(Digest, u32)>,
    /// Read and not yet handed on.
    read: VecDeque<Found>,
    /// Position of the next directory to be read; absent ones have one too, as long as they are named.
    next_position: u64,
    total_bytes: u64,
}

struct Found {
    position: u64,
    bytes: Bytes,
}

impl Walk {
    fn new(reads: Reads, call: Call, root: Digest) -> Walk {
        Walk {
            reads,
            call,
            root,
            seen: HashSet::from([root]),
            ahead: VecDeque::from([(root, 0)]),
            read: VecDeque::new(),
            next_position: 0,
            total_bytes: 0,
        }
    }

    async fn next(&mut self) -> Result<Option<Found>, TreeError> {
        while self.read.is_empty() && !self.ahead.is_empty() {
            self.read_batch().await?;
        }
        Ok(self.read.pop_front())
    }

    async fn read_batch(&mut self) -> Result<(), TreeError> {
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        while let Some((digest, depth)) = self.ahead.front().copied() {
            let size_bytes = digest.size_bytes();
            if size_bytes + DIRECTORY_FRAME_BYTES > PAGE_BYTES_MAX {
                return Err(TreeError::DirectoryTooLarge(digest));
            }
            batch_bytes += size_bytes;
            if batch.len() == BATCH_DIRECTORIES || (batch_bytes > BATCH_BYTES_MAX && !batch.is_empty()) {
                break;
            }
            self.ahead.pop_front();
            batch.push((digest, depth));
        }
        let digests: Vec<Digest> = batch.iter().map(|(digest, _)| *digest).collect();
        let answers = self.reads.batch(&self.call, &digests).await;
        for ((digest, depth), answer) in batch.into_iter().zip(answers) {
            let position = self.next_position;
            self.next_position += 1;
            match answer {
                Ok(bytes) => self.take(digest, depth, position, bytes)?,
                Err(CallError::Tier2(Tier2Error::NotFound)) if depth > 0 => {}
                Err(CallError::BadBlob) if depth > 0 => return Err(TreeError::BadDirectory(digest)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn take(&mut self, digest: Digest, depth: u32, position: u64, bytes: Bytes) -> Result<(), TreeError> {
        let Ok(directory) = reapi::Directory::decode(bytes.clone()) else {
            if depth == 0 {
                return Err(TreeError::NotADirectory);
            }
            tracing::debug!(%digest, "left out of a tree: not a directory");
            return Ok(());
        };
        self.total_bytes += bytes.len() as u64;
        if self.total_bytes > TREE_BYTES_MAX {
            return Err(TreeError::TooLarge("the bytes that one answer may have"));
        }
        self.read.push_back(Found { position, bytes });
        for child in directory.directories {
            // A node without a digest that can be one leads nowhere.
            let Some(child) = child
                .digest
                .and_then(|named| Digest::parse(digest.function(), &named.hash, named.size_bytes).ok())
            else {
                continue;
            };
            if !self.seen.insert(child) {
                continue;
            }
            if depth == DEPTH_MAX {
                return Err(TreeError::TooLarge("the levels that a walk goes down"));
            }
            if self.seen.len() > DIRECTORIES_MAX {
                return Err(TreeError::TooLarge("the directories that one answer may have"));
            }
            self.ahead.push_back((child, depth + 1));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
