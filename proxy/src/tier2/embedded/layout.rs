//! Where things lie in the directory. Pure: keys in, paths out.

use std::path::{Path, PathBuf};

use crate::call::{ActionKey, BlobKey, Scope};
use crate::digest::{Digest, Function};

/// Longest directory name for a scope; file systems end at 255 bytes, and an escaped scope can be three times as long
/// as what was written.
const SCOPE_SEGMENT_BYTES_MAX: usize = 200;

/// `cas/<scope>/<function>/<hh>/<hash>-<size>`, the same under `ac/`, and files being written in `tmp/`.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: PathBuf) -> Layout {
        Layout { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn temp_dir(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn blob(&self, key: &BlobKey) -> PathBuf {
        self.file("cas", &key.scope, &key.digest)
    }

    pub(super) fn action(&self, key: &ActionKey) -> PathBuf {
        self.file("ac", &key.scope, &key.action.0)
    }

    fn file(&self, kind: &str, scope: &Scope, digest: &Digest) -> PathBuf {
        let hash = digest.hash().to_hex();
        self.root
            .join(kind)
            .join(scope_segment(scope))
            .join(digest.function().name())
            .join(&hash[..2])
            .join(format!("{hash}-{}", digest.size_bytes()))
    }
}

/// One directory name per scope, and no scope under two names. The prefix keeps `""`, `.` and `..` from meaning anything.
fn scope_segment(scope: &Scope) -> String {
    let mut segment = String::from("s-");
    for byte in scope.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => segment.push(char::from(byte)),
            other => segment.push_str(&format!("%{other:02X}")),
        }
    }
    if segment.len() <= SCOPE_SEGMENT_BYTES_MAX {
        return segment;
    }
    // No escaped scope begins so, hence no clash.
    let name = Digest::of(Function::Sha256, scope.as_str().as_bytes());
    format!("h-{}", name.hash())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_never_leave_their_directory_and_never_meet() {
        let segment = |scope: &str| scope_segment(&Scope::new(scope));
        assert_eq!(segment(""), "s-");
        assert_eq!(segment(".."), "s-..");
        assert_eq!(segment("a/b"), "s-a%2Fb");
        assert_ne!(segment("a/b"), segment("a%2Fb"));
        assert_ne!(segment(&"/".repeat(200)), segment(&"/".repeat(201)));
        assert!(segment(&"/".repeat(255)).len() <= SCOPE_SEGMENT_BYTES_MAX);
    }

    #[test]
    fn a_path_carries_scope_function_hash_and_size() {
        let digest = Digest::of(Function::Sha256, b"hello");
        let key = BlobKey {
            scope: Scope::new("main"),
            digest,
        };
        let path = Layout::new("/d".into()).blob(&key);
        let hash = digest.hash().to_hex();
        assert_eq!(path, Path::new(&format!("/d/cas/s-main/sha256/2c/{hash}-5"))); // PXY-26
    }
}
