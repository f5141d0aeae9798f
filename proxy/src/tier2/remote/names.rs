//! What things are called in Tier 2. Pure.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::call::InstanceName;
use crate::digest::{Digest, Function};

/// Under which instance name Tier 2 is asked, by the name that the client used. Without more, under the same.
#[derive(Clone, Default)]
pub struct InstanceMap(Option<Arc<Rule>>);

type Rule = dyn Fn(&InstanceName) -> InstanceName + Send + Sync;

impl InstanceMap {
    /// Maps by a rule, which the configuration knows.
    pub fn new(rule: impl Fn(&InstanceName) -> InstanceName + Send + Sync + 'static) -> InstanceMap {
        InstanceMap(Some(Arc::new(rule)))
    }

    /// The name to use for a client's.
    pub(super) fn upstream(&self, client: &InstanceName) -> InstanceName {
        self.0
            .as_ref()
            .map_or_else(|| client.clone(), |rule| rule(client))
    }
}

impl fmt::Debug for InstanceMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "mapped" } else { "same" })
    }
}

/// `[instance/]blobs/hash/size`
pub(super) fn read_name(instance: &InstanceName, digest: &Digest) -> String {
    format!("{}blobs/{}", prefix(instance), hash_and_size(digest))
}

/// `[instance/]uploads/uuid/blobs/hash/size`. The uuid is ours, a fresh one per attempt: servers may key by it.
pub(super) fn write_name(instance: &InstanceName, digest: &Digest, uuid: Uuid) -> String {
    format!(
        "{}uploads/{uuid}/blobs/{}",
        prefix(instance),
        hash_and_size(digest)
    )
}

fn prefix(instance: &InstanceName) -> String {
    match instance.as_str() {
        "" => String::new(),
        name => format!("{name}/"),
    }
}

fn hash_and_size(digest: &Digest) -> String {
    match digest.function() {
        // Functions as old as REAPI have no segment of their own; servers refuse `sha256/`.
        Function::Sha256 => digest.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> InstanceName {
        InstanceName::parse(text).unwrap()
    }

    #[test]
    fn names_have_no_leading_slash_and_no_segment_for_sha256() {
        let digest = Digest::of(Function::Sha256, b"hello");
        let tail = format!("blobs/{}/5", digest.hash()); // PXY-25
        assert_eq!(read_name(&name(""), &digest), tail);
        assert_eq!(read_name(&name("a/b"), &digest), format!("a/b/{tail}"));
        let uuid = Uuid::nil();
        assert_eq!(
            write_name(&name(""), &digest, uuid),
            format!("uploads/{uuid}/{tail}")
        );
        assert_eq!(
            write_name(&name("a"), &digest, uuid),
            format!("a/uploads/{uuid}/{tail}")
        );
    }
}
