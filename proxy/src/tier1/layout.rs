//! Where things lie in the directory of Tier 1:
//!
//! ```text
//! format                                        what the rest is
//! lock                                          held by the node that uses the directory
//! staging/<process>-<number>                    files being written
//! cas/<scope>/<function>/<hh>/<hash>-<size>     blobs; <hh> is how the hash begins
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::call::Scope;
use crate::digest::{Digest, Function};

/// What `format` holds. Another text was written by a version that may understand files differently.
pub(super) const FORMAT: &[u8] = b"gorego tier 1, format 1\n";

/// Characters of a scope's name that are shown before its hash: enough to recognise it.
const SHOWN_CHARS_MAX: usize = 40;

/// The directory of Tier 1.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub(super) fn new(dir: PathBuf) -> Layout {
        Layout { dir }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn format(&self) -> PathBuf {
        self.dir.join("format")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub(super) fn staging(&self) -> PathBuf {
        self.dir.join("staging")
    }

    pub(super) fn cas(&self) -> PathBuf {
        self.dir.join("cas")
    }

    /// Where a blob lies.
    pub(super) fn blob(&self, place: &Place) -> PathBuf {
        let hash = place.digest.hash().to_hex();
        let mut path = self.cas();
        path.push(&*place.home.segment);
        path.push(place.digest.function().name());
        path.push(&hash[..2]);
        path.push(format!("{hash}-{}", place.digest.size_bytes()));
        path
    }
}

/// Reads a digest off the names that [`Layout::blob`] made: the last three segments of a path. `None`: not ours.
pub(super) fn parse_blob(function: Function, prefix: &str, name: &str) -> Option<Digest> {
    let (hash, size) = name.split_once('-')?;
    let digest = Digest::parse(function, hash, size.parse().ok()?).ok()?;
    // One blob has one name: "007" and "+7" would be second ones.
    let canonical = hash.starts_with(prefix) && prefix.len() == 2 && digest.size_bytes().to_string() == size;
    canonical.then_some(digest)
}

/// The function of a directory's name.
pub(super) fn parse_function(name: &str) -> Option<Function> {
    Function::ALL.into_iter().find(|function| function.name() == name)
}

/// A blob as the disk knows it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) home: Arc<Home>,
    pub(super) digest: Digest,
}

/// A scope's directory: what can be read of the name, a dot, and the SHA-256 of the name. So any name makes one safe
/// segment of bounded length, two names never the same one, and the scope need not be known to find its blobs again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Home {
    tag: ScopeTag,
    segment: Box<str>,
}

/// The SHA-256 of a scope's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ScopeTag([u8; 32]);

impl ScopeTag {
    pub(super) fn of(scope: &Scope) -> ScopeTag {
        let hash = Digest::of(Function::Sha256, scope.as_str().as_bytes());
        let mut tag = [0; 32];
        tag.copy_from_slice(hash.hash().as_bytes());
        ScopeTag(tag)
    }

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ScopeTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Home {
    pub(super) fn of(scope: &Scope) -> Home {
        let tag = ScopeTag::of(scope);
        let shown: String = scope
            .as_str()
            .chars()
            .take(SHOWN_CHARS_MAX)
            .map(|c| if is_shown(c) { c } else { '_' })
            .collect();
        Home {
            tag,
            segment: format!("{shown}.{tag:?}").into(),
        }
    }

    /// Reads a directory's name. `None`: not ours.
    pub(super) fn parse(segment: &str) -> Option<Home> {
        let (shown, tag) = segment.rsplit_once('.')?;
        if shown.len() > SHOWN_CHARS_MAX || !shown.chars().all(|c| is_shown(c) || c == '_') {
            return None;
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(tag, &mut bytes).ok()?;
        let home = Home {
            tag: ScopeTag(bytes),
            segment: segment.into(),
        };
        (format!("{:?}", home.tag) == tag).then_some(home)
    }

    /// The directory's name.
    pub(super) fn segment(&self) -> &str {
        &self.segment
    }

    pub(super) fn tag(&self) -> ScopeTag {
        self.tag
    }
}

/// Lower case only: some file systems take `A` and `a` for the same.
fn is_shown(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    fn segment(name: &str) -> String {
        Home::of(&Scope::new(name)).segment.into_string()
    }

    #[test]
    fn a_scope_can_be_recognised_by_its_directory() {
        let start = segment("team/Linux");
        assert!(start.starts_with("team__inux."), "{start}");
        assert!(segment("").starts_with(".e3b0c44298fc"));
    }

    #[test]
    fn names_that_look_alike_have_directories_of_their_own() {
        let names = ["", "/", "..", ".", "a/b", "a_b", "A", "a", "ä", "a\u{308}", "a b"];
        let long = ["x".repeat(255), "x".repeat(254)];
        let all = names
            .into_iter()
            .chain(long.iter().map(String::as_str))
            .map(segment);
        assert_eq!(all.collect::<HashSet<_>>().len(), names.len() + 2);
    }

    #[test]
    fn a_path_is_read_back_as_the_blob_it_was_made_for() {
        let digest = Digest::of(Function::Sha256, b"hello");
        let place = Place {
            home: Arc::new(Home::of(&Scope::new("main"))),
            digest,
        };
        let path = Layout::new("dir".into()).blob(&place);
        let names: Vec<&str> = path.iter().map(|name| name.to_str().unwrap()).collect();
        let [_, "cas", scope, function, prefix, name] = names[..] else {
            panic!("{path:?}")
        };
        assert_eq!(Home::parse(scope).unwrap(), *place.home);
        assert_eq!(
            parse_blob(parse_function(function).unwrap(), prefix, name),
            Some(digest)
        );
    }

    #[test]
    fn names_of_others_are_no_blobs() {
        let hash = Digest::of(Function::Sha256, b"hello").hash().to_hex();
        let parse = |prefix: &str, name: String| parse_blob(Function::Sha256, prefix, &name);
        assert!(parse("2c", format!("{hash}-5")).is_some());
        for name in [
            format!("{hash}-05"),
            format!("{hash}-+5"),
            format!("{hash}--5"),
            format!("{hash}-"),
            hash.clone(),
            format!("{}-5", hash.to_uppercase()),
            format!("{hash}-5.tmp"),
            format!("{hash}-0"),
            "lost+found".to_owned(),
            String::new(),
        ] {
            assert_eq!(parse("2c", name.clone()), None, "{name}");
        }
        assert_eq!(parse("2d", format!("{hash}-5")), None);
        assert_eq!(parse("", format!("{hash}-5")), None);
        assert_eq!(Home::parse("lost+found"), None);
        assert_eq!(Home::parse("a.b"), None);
    }

    proptest! {
        #[test]
        fn any_name_makes_one_safe_segment(name in ".*") {
            let segment = segment(&name);
            prop_assert!(segment.len() <= 255);
            prop_assert!(Path::new(&segment).components().eq([Component::Normal(segment.as_ref())]));
            prop_assert_eq!(Home::parse(&segment), Some(Home::of(&Scope::new(&name))));
        }
    }
}
