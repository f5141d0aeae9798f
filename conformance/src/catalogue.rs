//! The catalogue of requirements: `requirements.toml`, read once. Every id that there is stands in it, with what it
//! says, how strong it is and what it rests on; one that no check can judge from outside says why.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// How strongly the specification, or the practice of clients, asks for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize, Serialize)]
pub enum Level {
    /// The specification demands it.
    #[serde(rename = "MUST")]
    Must,
    /// The specification advises it.
    #[serde(rename = "SHOULD")]
    Should,
    /// The specification allows it to a client, so a server has to bear it; or to a server.
    #[serde(rename = "MAY")]
    May,
    /// A real client depends on it.
    #[serde(rename = "DE-FACTO")]
    DeFacto,
    /// Follows from the others.
    #[serde(rename = "DERIVED")]
    Derived,
    /// A promise of a tiered cache, which no specification asks for.
    #[serde(rename = "CHOICE")]
    Choice,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Must => "MUST",
            Level::Should => "SHOULD",
            Level::May => "MAY",
            Level::DeFacto => "DE-FACTO",
            Level::Derived => "DERIVED",
            Level::Choice => "CHOICE",
        })
    }
}

/// A part of the protocol that can be judged on its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Blobs: presence, batches, digests, instances.
    Cas,
    /// Action results.
    Ac,
    /// Streams and their names.
    Bytestream,
    /// GetTree.
    Tree,
    /// Compressed blobs.
    Zstd,
    /// Digest functions beside SHA-256: BLAKE3 on every path, and what the others compute.
    Blake3,
    /// SplitBlob and SpliceBlob.
    SplitSplice,
    /// Remote Asset: Fetch and Push.
    Asset,
    /// What a server announces, and that it keeps to it.
    Limits,
    /// Transport, malformed input, metadata, status codes.
    Robustness,
}

/// One requirement.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// How strong it is.
    pub level: Level,
    /// What a server has to do, in one sentence.
    pub says: String,
    /// What it rests on: messages and methods of the specification, or the clients that depend on it.
    #[serde(default)]
    pub on: String,
    /// Why no check can judge it from outside.
    pub none: Option<String>,
    /// Why its check has no red run: no way to break this alone.
    pub no_red: Option<String>,
    /// Where it is not its section's.
    pub profile: Option<Profile>,
}

/// Requirements about one thing.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// What the ids begin with.
    pub prefix: String,
    /// Of all its requirements that say nothing else.
    pub profile: Profile,
    /// By id.
    pub requirements: BTreeMap<String, Requirement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    section: Vec<Section>,
}

static SECTIONS: LazyLock<Vec<Section>> = LazyLock::new(|| {
    let catalogue = toml::from_str::<Catalogue>(include_str!("../requirements.toml"));
    catalogue.expect("a test reads the catalogue").section
});

/// All sections, in the order of the file.
pub fn sections() -> &'static [Section] {
    &SECTIONS
}

/// Every id with its requirement.
pub fn all() -> impl Iterator<Item = (&'static str, &'static Requirement)> {
    sections()
        .iter()
        .flat_map(|section| &section.requirements)
        .map(|(id, requirement)| (id.as_str(), requirement))
}

/// The requirement of an id.
pub fn find(id: &str) -> Option<&'static Requirement> {
    section_of(id)?.requirements.get(id)
}

/// The section that an id belongs to.
pub fn section_of(id: &str) -> Option<&'static Section> {
    let prefix = id.rsplit_once('-')?.0;
    sections().iter().find(|section| section.prefix == prefix)
}

/// The part of the protocol that an id belongs to.
pub fn profile_of(id: &str) -> Option<Profile> {
    let section = section_of(id)?;
    Some(section.requirements.get(id)?.profile.unwrap_or(section.profile))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_id_has_either_a_check_or_the_reason_why_there_is_none() {
        let checks: BTreeSet<&str> = crate::checks::all().iter().map(|check| check.id).collect();
        let neither: Vec<_> = all()
            .filter(|(id, requirement)| checks.contains(id) == requirement.none.is_some())
            .map(|(id, _)| id)
            .collect();
        assert_eq!(neither, Vec::<&str>::new(), "in neither, or in both");
        let unknown: Vec<_> = checks.iter().filter(|id| find(id).is_none()).collect();
        assert_eq!(unknown, Vec::<&&str>::new(), "checks that the catalogue lacks");
    }

    #[test]
    fn ids_are_numbered_without_a_gap_and_sentences_end() {
        for section in sections() {
            let expected: Vec<String> = (1..=section.requirements.len())
                .map(|number| format!("{}-{number:02}", section.prefix))
                .collect();
            assert!(
                section.requirements.keys().eq(expected.iter()),
                "{}",
                section.prefix
            );
        }
        for (id, requirement) in all() {
            let reasons = [&requirement.none, &requirement.no_red].into_iter().flatten();
            for sentence in reasons.chain([&requirement.says]) {
                assert!(sentence.len() > 10 && sentence.ends_with('.'), "{id}: {sentence}");
                assert!(!sentence.contains('\n'), "{id}: one line");
            }
            assert!(
                !requirement.on.is_empty() || requirement.level == Level::Derived,
                "{id}"
            );
        }
        assert_eq!(all().count(), 553);
    }

    #[test]
    fn reasons_are_of_their_own_where_the_specification_demands() {
        let mut seen = BTreeSet::new();
        for (id, requirement) in all().filter(|(_, requirement)| requirement.level == Level::Must) {
            if let Some(reason) = &requirement.none {
                assert!(seen.insert(reason), "{id} has the reason of another");
            }
        }
    }
}
