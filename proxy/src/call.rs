//! Who asks, for how long they wait, and on whose behalf.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::digest::{ActionDigest, Digest};

/// REAPI's namespace prefix as a client wrote it. May be empty; has one spelling per instance.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceName(Arc<str>);

/// Words that mark the end of the instance name in a resource name, and so cannot be a segment of one.
const RESERVED: [&str; 7] = [
    "blobs",
    "uploads",
    "actions",
    "actionResults",
    "operations",
    "capabilities",
    "compressed-blobs",
];

/// Bytes that an instance name may have. REAPI sets no bound; keys, paths and resource names need one.
const INSTANCE_NAME_BYTES_MAX: usize = 255;

impl InstanceName {
    /// Checks a name from a message field or a resource name.
    ///
    /// # Errors
    /// [`InstanceNameError`] for reserved words, stray slashes, control characters and names that are too long.
    pub fn parse(name: &str) -> Result<InstanceName, InstanceNameError> {
        if name.len() > INSTANCE_NAME_BYTES_MAX {
            return Err(InstanceNameError::TooLong);
        }
        if name.chars().any(char::is_control) {
            return Err(InstanceNameError::Control);
        }
        if !name.is_empty() {
            for segment in name.split('/') {
                if segment.is_empty() {
                    return Err(InstanceNameError::Slashes);
                }
                if RESERVED.contains(&segment) {
                    return Err(InstanceNameError::Reserved(segment.to_owned()));
                }
            }
        }
        Ok(InstanceName(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a word ends the instance name in a resource name.
    pub fn is_reserved(segment: &str) -> bool {
        RESERVED.contains(&segment)
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Why text is no instance name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstanceNameError {
    /// A segment that REAPI keeps for itself.
    #[error("an instance name cannot have the segment {0:?}")]
    Reserved(String),
    /// A leading, trailing or doubled slash.
    #[error("an instance name cannot begin or end with a slash, nor have two in a row")]
    Slashes,
    /// A character that would break logs and paths.
    #[error("an instance name cannot have control characters")]
    Control,
    /// More bytes than a name may have.
    #[error("an instance name cannot have more than {INSTANCE_NAME_BYTES_MAX} bytes")]
    TooLong,
}

/// Who shares with whom: the client's instance name, or the share group that the configuration puts it in. First part
/// of every key there is; one scope never reads, learns from or repairs with another's.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(Arc<str>);

impl Scope {
    /// A share group by its name, or an instance by its own.
    pub fn new(name: &str) -> Scope {
        Scope(name.into())
    }

    /// The name as text. May hold anything that [`InstanceName::parse`] lets through, slashes included.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&InstanceName> for Scope {
    fn from(instance: &InstanceName) -> Scope {
        Scope(instance.0.clone())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Which instances share what the node holds: those of one group. An instance that is in none shares with nobody. Cheap to
/// clone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ShareGroups(Arc<BTreeMap<InstanceName, Scope>>);

impl ShareGroups {
    /// The groups of a configuration, as the scope of each member.
    pub fn new(scopes: BTreeMap<InstanceName, Scope>) -> ShareGroups {
        ShareGroups(Arc::new(scopes))
    }

    /// The scope of a client that said `instance`: its share group's, or one of its own.
    pub fn scope_of(&self, instance: &InstanceName) -> Scope {
        self.0
            .get(instance)
            .cloned()
            .unwrap_or_else(|| Scope::from(instance))
    }
}

/// Names a blob among all that this node handles.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BlobKey {
    /// Who may see it.
    pub scope: Scope,
    /// Which blob.
    pub digest: Digest,
}

/// Names an action result among all that this node handles.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ActionKey {
    /// Who may see it.
    pub scope: Scope,
    /// Which action.
    pub action: ActionDigest,
}

/// One piece of work: whose it is and when it has to be done.
#[derive(Clone, Debug)]
pub struct Call {
    /// First part of every key that the work touches.
    pub scope: Scope,
    /// The name under which Tier 2 is asked, before its own mapping.
    pub instance: InstanceName,
    /// When the caller stops waiting. `None` for work that ends by its own progress timeouts.
    pub deadline: Option<Instant>,
    /// On whose behalf.
    pub cause: Cause,
    /// The nodes that it has come through.
    pub via: Via,
}

/// The nodes that a call has come through, the first one first, each by an id of its process. Every node adds its own before
/// it asks Tier 2, so that one that is upstream of itself notices at once, however many nodes are in between.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Via(Option<Arc<str>>);

/// Nodes in a row. Longer rows than this help nobody, and each of them costs a header's bytes.
const NODES_MAX: usize = 8;

/// Bytes of the header: [`NODES_MAX`] ids of the length of a UUID, with room for what a proxy adds between them.
const VIA_BYTES_MAX: usize = NODES_MAX * 40;

/// Why a call is not answered: asking on would ask for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Loop {
    /// It was here before.
    #[error("this node is upstream of itself")]
    Closed,
    /// It came a long way, perhaps round a ring whose nodes do not say their names.
    #[error("the call came through more than {NODES_MAX} nodes")]
    TooLong,
}

impl Via {
    /// The header in which nodes tell each other.
    pub const HEADER: &str = "x-gorego-node";

    /// Reads the header of a call that arrived at the node `own_id`.
    ///
    /// # Errors
    /// [`Loop`] if it is not to be sent on.
    pub fn arrived(header: &str, own_id: &str) -> Result<Via, Loop> {
        if header.is_empty() {
            return Ok(Via::default());
        }
        let ids = || header.split(',').map(str::trim);
        if header.len() > VIA_BYTES_MAX || ids().count() >= NODES_MAX {
            return Err(Loop::TooLong);
        }
        if ids().any(|id| id == own_id) {
            return Err(Loop::Closed);
        }
        // What stands there is sent on: only what a node could have written.
        let plain = header
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b", ".contains(&byte));
        Ok(Via(plain.then(|| header.into())))
    }

    /// The header of a call that the node `own_id` sends on.
    pub fn and(&self, own_id: &str) -> String {
        match &self.0 {
            None => own_id.to_owned(),
            Some(before) => format!("{before},{own_id}"),
        }
    }
}

/// On whose behalf work is done.
#[derive(Clone, Debug)]
pub enum Cause {
    /// Exactly one client call: its `RequestMetadata` header, undecoded, goes along to Tier 2.
    Client(Option<Bytes>),
    /// Work that several callers share or nobody waits for.
    Node,
}

impl Call {
    /// Work of the node's own that nobody asked for.
    pub fn of_node(instance: InstanceName) -> Call {
        Call {
            scope: Scope::from(&instance),
            instance,
            deadline: None,
            cause: Cause::Node,
            via: Via::default(),
        }
    }

    /// The same work as the node's own: no deadline of a client's, no metadata. For fills, commits and merged calls. Whence it
    /// came stays, so that a loop is noticed whatever is shared on the way.
    pub fn for_node(&self) -> Call {
        Call {
            scope: self.scope.clone(),
            instance: self.instance.clone(),
            deadline: None,
            cause: Cause::Node,
            via: self.via.clone(),
        }
    }

    /// The key of `digest` for this caller.
    pub fn blob(&self, digest: &Digest) -> BlobKey {
        BlobKey {
            scope: self.scope.clone(),
            digest: *digest,
        }
    }

    /// The key of `action` for this caller.
    pub fn action(&self, action: &ActionDigest) -> ActionKey {
        ActionKey {
            scope: self.scope.clone(),
            action: *action,
        }
    }

    /// The time left, bounded by `longest`. Inner timeouts are never longer than the caller's patience.
    pub fn time_left(&self, longest: Duration) -> Duration {
        self.deadline.map_or(longest, |deadline| {
            deadline.saturating_duration_since(Instant::now()).min(longest)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: Result<(), InstanceNameError>) {
        assert_eq!(InstanceName::parse(name).map(|_| ()), expected);
    }

    #[test]
    fn instance_name_may_be_empty_and_may_have_slashes() {
        check("", Ok(())); // INST-01
        check("a/b/c", Ok(())); // INST-03
        check("..", Ok(())); // RN-16: taken literally
    }

    #[test]
    fn instance_name_refuses_reserved_words_and_second_spellings() {
        check("a/blobs", Err(InstanceNameError::Reserved("blobs".into()))); // INST-02
        check("/a", Err(InstanceNameError::Slashes)); // INST-05
        check("a/", Err(InstanceNameError::Slashes));
        check("a//b", Err(InstanceNameError::Slashes));
    }

    #[test]
    fn a_node_upstream_of_itself_is_noticed_and_a_row_of_nodes_is_not() {
        // PXY-78
        let first = Via::default().and("a");
        assert_eq!(Via::arrived(&first, "a"), Err(Loop::Closed), "its own Tier 2");
        let second = Via::arrived(&first, "b").unwrap().and("b");
        assert_eq!(Via::arrived(&second, "a"), Err(Loop::Closed), "a ring of two");
        let third = Via::arrived(&second, "c").unwrap().and("c");
        assert_eq!(third, "a,b,c");
        assert_eq!(Via::arrived("a, b", "b"), Err(Loop::Closed), "joined by a proxy");
    }

    #[test]
    fn a_row_of_nodes_has_an_end_and_what_is_no_row_is_not_sent_on() {
        // PXY-78
        let mut header = Via::default().and("n0");
        for hop in 1..NODES_MAX {
            header = Via::arrived(&header, "me").unwrap().and(&format!("n{hop}"));
        }
        assert_eq!(Via::arrived(&header, "me"), Err(Loop::TooLong));
        assert_eq!(
            Via::arrived(&"x".repeat(VIA_BYTES_MAX + 1), "me"),
            Err(Loop::TooLong)
        );
        for odd in ["", "\u{e4}", "a;b"] {
            assert_eq!(Via::arrived(odd, "me").unwrap().and("me"), "me", "{odd:?}");
        }
        let longest = vec!["f".repeat(32); NODES_MAX - 1].join(",");
        assert!(Via::arrived(&longest, "me").is_ok(), "ids as nodes have them");
    }

    #[test]
    fn instance_name_refuses_what_breaks_logs_and_paths() {
        check("a\nb", Err(InstanceNameError::Control)); // META-08
        check(&"a".repeat(256), Err(InstanceNameError::TooLong));
    }
}
