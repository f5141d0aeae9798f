//! What was pushed: which URI, under which qualifiers, leads to which digest. Pure, but for the clock that it is given.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::digest::Digest;

/// Mappings kept; of more the oldest goes. Far above what one test pushes.
const MAPPINGS_MAX: usize = 4096;

/// Blobs and directories of one URI are apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Blob,
    Directory,
}

/// Names and values, in no order.
pub(crate) type Qualifiers = BTreeMap<String, String>;

/// A URI and what it leads to.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub(crate) instance: String,
    pub(crate) kind: Kind,
    pub(crate) uri: String,
    pub(crate) qualifiers: Qualifiers,
    pub(crate) digest: Digest,
    /// Since 1970, as are all times here.
    pub(crate) pushed_at: Duration,
    /// From then on it is not given.
    pub(crate) expires_at: Option<Duration>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) instance: &'a str,
    pub(crate) kind: Kind,
    /// Places of one content, any of which will do.
    pub(crate) uris: &'a [String],
    /// All of them must have been pushed; more may have been.
    pub(crate) qualifiers: &'a Qualifiers,
    /// What was pushed before is too old.
    pub(crate) oldest: Option<Duration>,
}

/// All mappings, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Assets(VecDeque<Mapping>);

impl Assets {
    /// Replaces what the URI led to under the same qualifiers.
    pub(crate) fn push(&mut self, mapping: Mapping) {
        self.0.retain(|old| {
            (&old.instance, old.kind, &old.uri, &old.qualifiers)
                != (&mapping.instance, mapping.kind, &mapping.uri, &mapping.qualifiers)
                || old.digest.function() != mapping.digest.function()
        });
        if self.0.len() >= MAPPINGS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(mapping);
    }

    /// The newest mapping of the first URI that has one which is `usable`.
    pub(crate) fn fetch(
        &self,
        wanted: &Wanted<'_>,
        now: Duration,
        usable: impl Fn(&Digest) -> bool,
    ) -> Option<&Mapping> {
        let satisfies = |mapping: &&Mapping| {
            let asked = wanted.qualifiers.iter();
            mapping.instance == wanted.instance
                && mapping.kind == wanted.kind
                && mapping.expires_at.is_none_or(|at| now < at)
                && wanted.oldest.is_none_or(|oldest| mapping.pushed_at >= oldest)
                && asked.fold(true, |all, (name, value)| {
                    all && mapping.qualifiers.get(name) == Some(value)
                })
                && usable(&mapping.digest)
        };
        let of = |uri: &String| {
            self.0
                .iter()
                .rev()
                .filter(|mapping| mapping.uri == *uri)
                .find(satisfies)
        };
        wanted.uris.iter().find_map(of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn qualifiers(of: &[(&str, &str)]) -> Qualifiers {
        of.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn mapping(content: &[u8]) -> Mapping {
        Mapping {
            instance: String::new(),
            kind: Kind::Blob,
            uri: "a".into(),
            qualifiers: qualifiers(&[("one", "1"), ("two", "2")]),
            digest: Digest::of(content),
            pushed_at: NOW,
            expires_at: None,
        }
    }

    #[track_caller]
    fn found(assets: &Assets, asked: &[(&str, &str)], change: impl FnOnce(&mut Wanted<'_>), expected: bool) {
        let (uris, asked) = (["b".to_owned(), "a".to_owned()], qualifiers(asked));
        let mut wanted = Wanted {
            instance: "",
            kind: Kind::Blob,
            uris: &uris,
            qualifiers: &asked,
            oldest: None,
        };
        change(&mut wanted);
        assert_eq!(assets.fetch(&wanted, NOW, |_| true).is_some(), expected);
    }

    #[test]
    fn a_mapping_is_found_by_some_of_its_qualifiers_and_by_no_other() {
        let mut assets = Assets::default();
        assets.push(mapping(b"x"));
        found(&assets, &[], |_| {}, true);
        found(&assets, &[("two", "2")], |_| {}, true);
        found(&assets, &[("two", "3")], |_| {}, false);
        found(&assets, &[("one", "1"), ("three", "3")], |_| {}, false);
        found(&assets, &[], |wanted| wanted.kind = Kind::Directory, false);
        found(&assets, &[], |wanted| wanted.instance = "other", false);
        found(&assets, &[], |wanted| wanted.uris = &[], false);
    }

    #[test]
    fn what_is_too_old_or_expired_is_not_found() {
        let mut assets = Assets::default();
        assets.push(mapping(b"x"));
        found(&assets, &[], |wanted| wanted.oldest = Some(NOW), true);
        found(&assets, &[], |wanted| wanted.oldest = Some(2 * NOW), false);
        assets.push(Mapping {
            expires_at: Some(NOW),
            ..mapping(b"x")
        });
        found(&assets, &[], |_| {}, false);
    }

    #[test]
    fn a_later_push_replaces_an_earlier_one_and_the_number_is_bounded() {
        let mut assets = Assets::default();
        assets.push(mapping(b"x"));
        assets.push(mapping(b"y"));
        assert_eq!(assets.0.len(), 1);
        assert_eq!(assets.0[0].digest, Digest::of(b"y"));
        for i in 0..2 * MAPPINGS_MAX {
            assets.push(Mapping {
                uri: i.to_string(),
                ..mapping(b"z")
            });
        }
        assert_eq!(assets.0.len(), MAPPINGS_MAX);
    }
}
