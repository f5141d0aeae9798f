//! What things are called in Tier 2. Pure.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::call::InstanceName;
use crate::digest::{Digest, Function};

/// Under which instance name Tier 2 is asked, by the name that the client used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceMap {
    for_all: Option<InstanceName>,
    by_client: BTreeMap<InstanceName, InstanceName>,
}

impl InstanceMap {
    /// `by_client` goes before `for_all`; a client that neither names is asked for under its own name.
    pub fn new(
        for_all: Option<InstanceName>,
        by_client: BTreeMap<InstanceName, InstanceName>,
    ) -> InstanceMap {
        InstanceMap { for_all, by_client }
    }

    /// The name to use for a client's.
    pub(super) fn upstream<'a>(&'a self, client: &'a InstanceName) -> &'a InstanceName {
        self.by_client
            .get(client)
            .or(self.for_all.as_ref())
            .unwrap_or(client)
    }

    /// A name that Tier 2 ought to know, for calls that nobody asked for.
    pub(super) fn any(&self) -> Option<&InstanceName> {
        self.for_all.as_ref().or_else(|| self.by_client.values().next())
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
    fn a_clients_own_entry_goes_before_the_one_for_all() {
        let by_client = BTreeMap::from([(name("a"), name("x/y"))]);
        let map = InstanceMap::new(Some(name("main")), by_client.clone());
        assert_eq!(map.upstream(&name("a")), &name("x/y"));
        assert_eq!(map.upstream(&name("b")), &name("main"));
        assert_eq!(map.any(), Some(&name("main")));
        let map = InstanceMap::new(None, by_client);
        assert_eq!(map.upstream(&name("b")), &name("b"));
        assert_eq!(map.any(), Some(&name("x/y")));
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
