//! Who shares with whom, and under which instance name Tier 2 is asked.

use std::collections::BTreeMap;

use figment::value::Value;

use super::field::{Leaf, Unfit};
use super::leaf::{plain_text, unfit};
use super::show;
use crate::call::{InstanceName, Scope, ShareGroups};

/// The share groups as written: each member with its group (R1).
pub(crate) type Members = BTreeMap<InstanceName, ShareGroup>;

/// The scope that each member has.
pub(crate) fn share_groups(members: &Members) -> ShareGroups {
    ShareGroups::new(
        members
            .iter()
            .map(|(member, group)| (member.clone(), group.scope()))
            .collect(),
    )
}

/// Under which instance name Tier 2 is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamInstances {
    for_all: Option<InstanceName>,
    by_client: BTreeMap<InstanceName, InstanceName>,
}

/// Two members of a share group that Tier 2 would be asked for under different names.
#[derive(Debug)]
pub(crate) struct SplitGroup {
    pub(crate) group: ShareGroup,
    pub(crate) members: [InstanceName; 2],
    pub(crate) upstream: [InstanceName; 2],
}

impl UpstreamInstances {
    /// `by_client` goes before `for_all`; a client that neither names is asked for under its own name.
    ///
    /// What is learnt from Tier 2 for one member of a share group is believed for all, so all must have the same name there.
    pub(crate) fn new(
        for_all: Option<InstanceName>,
        by_client: BTreeMap<InstanceName, InstanceName>,
        members: &Members,
    ) -> Result<Self, SplitGroup> {
        let upstream = Self { for_all, by_client };
        let mut first: BTreeMap<&ShareGroup, &InstanceName> = BTreeMap::new();
        for (member, group) in members {
            let other = *first.entry(group).or_insert(member);
            let names = [upstream.upstream_of(other), upstream.upstream_of(member)];
            if names[0] != names[1] {
                return Err(SplitGroup {
                    group: group.clone(),
                    members: [other.clone(), member.clone()],
                    upstream: names.map(InstanceName::clone),
                });
            }
        }
        Ok(upstream)
    }

    /// The instance name to send for a client that said `client`.
    #[must_use]
    pub fn upstream_of<'a>(&'a self, client: &'a InstanceName) -> &'a InstanceName {
        self.by_client
            .get(client)
            .or(self.for_all.as_ref())
            .unwrap_or(client)
    }
}

impl Leaf for InstanceName {
    fn form() -> String {
        "an instance name such as `main` or `team/a` (a number in quotes; no empty or reserved segments)"
            .to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Unfit> {
        value
            .as_str()
            .and_then(|name| Self::parse(name).ok())
            .map_or_else(|| unfit(value), Ok)
    }

    fn render(&self) -> String {
        show::escaped(self.as_str())
    }
}

/// The name of a group of instances that share what the node holds. Only the configuration knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShareGroup(String);

impl ShareGroup {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// No instance can have this name, since none has an empty segment: a client that is in no group cannot name itself into
    /// one.
    fn scope(&self) -> Scope {
        Scope::new(&format!("group//{}", self.0))
    }
}

impl Leaf for ShareGroup {
    fn form() -> String {
        "a group's name, formed like an instance's but not empty (a number in quotes)".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Unfit> {
        match plain_text(value) {
            Some(name) if !name.is_empty() && InstanceName::parse(name).is_ok() => Ok(Self(name.to_owned())),
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

    fn name(text: &str) -> InstanceName {
        InstanceName::parse(text).unwrap()
    }

    fn members(members: &[(&str, &str)]) -> Members {
        let member = |(member, group): &(&str, &str)| (name(member), ShareGroup((*group).to_owned()));
        members.iter().map(member).collect()
    }

    #[test]
    fn members_of_a_group_share_a_scope_and_nobody_else_has_it() {
        let groups = share_groups(&members(&[("a", "team"), ("b", "team"), ("c", "other")]));
        let scope = |text| groups.scope_of(&name(text));
        assert_eq!(scope("a"), scope("b"));
        // R1: an instance that happens to be called like a group is another scope.
        for stranger in ["c", "d", "team", ""] {
            assert_ne!(scope(stranger), scope("a"), "{stranger}");
        }
        assert!(
            InstanceName::parse(scope("a").as_str()).is_err(),
            "no client can say it"
        );
    }

    #[test]
    fn the_name_for_one_client_goes_before_the_name_for_all() {
        let members = members(&[("a", "team"), ("b", "team")]);
        let by_client = BTreeMap::from([
            (name("a"), name("x")),
            (name("b"), name("x")),
            (name("d"), name("")),
        ]);
        for (for_all, others) in [(None, "e"), (Some(name("all")), "all")] {
            let upstream = UpstreamInstances::new(for_all, by_client.clone(), &members).unwrap();
            let sent = |client| upstream.upstream_of(&name(client)).to_string();
            assert_eq!(
                [sent("a"), sent("b"), sent("d"), sent("e")],
                ["x", "x", "", others]
            );
        }
    }
}
