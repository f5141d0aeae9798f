//! Instance names and share groups as the configuration writes them.

use figment::value::Value;

use super::field::{Leaf, Unfit};
use super::leaf::{plain_text, unfit};
use super::show;

/// Words that REAPI's resource names put behind an instance name, so that none of its segments may be one (INST-02).
const RESERVED_SEGMENTS: [&str; 7] = [
    "blobs",
    "uploads",
    "actions",
    "actionResults",
    "operations",
    "capabilities",
    "compressed-blobs",
];

/// A well-formed instance name; may be empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance(String);

impl Instance {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Instance {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Leaf for Instance {
    fn form() -> String {
        "an instance name such as `main` or `team/a` (a number in quotes; no empty or reserved segments)"
            .to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Unfit> {
        let segment_fits = |segment: &str| !segment.is_empty() && !RESERVED_SEGMENTS.contains(&segment);
        match plain_text(value) {
            Some(name) if name.is_empty() || name.split('/').all(segment_fits) => Ok(Self(name.to_owned())),
            _ => unfit(value),
        }
    }

    fn render(&self) -> String {
        show::escaped(&self.0)
    }
}

/// The name of a group of instances that share what they hold; only the configuration knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShareGroup(pub(crate) String);

impl Leaf for ShareGroup {
    fn form() -> String {
        "a group's name (a number in quotes)".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Unfit> {
        match plain_text(value) {
            Some(name) if !name.is_empty() => Ok(Self(name.to_owned())),
            _ => unfit(value),
        }
    }

    fn render(&self) -> String {
        show::escaped(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_names_follow_reapi() {
        for (name, fits) in [
            ("", true),
            ("main", true),
            ("a/b/c", true),
            ("blobs2", true),
            ("/a", false),
            ("a/", false),
            ("a//b", false),
            ("a/blobs", false),
            ("uploads/a", false),
            ("a\nb", false),
        ] {
            assert_eq!(
                Instance::parse(&Value::from(name)).is_ok(),
                fits,
                "INST-02, INST-05: {name:?}"
            );
        }
    }
}
