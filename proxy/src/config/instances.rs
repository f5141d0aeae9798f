//! Who shares with whom, and under which instance name Tier 2 is asked.

use std::collections::BTreeMap;

use figment::value::Value;

use super::field::{Leaf, Unfit};
use super::leaf::{plain_text, unfit};
use super::show;
use crate::call::{InstanceName, Scope};

/// Which instances share what the node holds (R1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareGroups {
    pub(crate) by_instance: BTreeMap<InstanceName, ShareGroup>,
}

impl ShareGroups {
    /// The scope of a client that said `instance`: its share group's, or one of its own.
    #[must_use]
    pub fn scope_of(&self, instance: &InstanceName) -> Scope {
        self.by_instance
            .get(instance)
            .map_or_else(|| Scope::from(instance), ShareGroup::scope)
    }

    /// The instances that are in a group, each with it.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&InstanceName, &ShareGroup)> {
        self.by_instance.iter()
    }
}

/// Under which instance name Tier 2 is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamInstances {
    for_all: Option<InstanceName>,
    by_scope: BTreeMap<Scope, InstanceName>,
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
        by_client: &BTreeMap<InstanceName, InstanceName>,
        groups: &ShareGroups,
    ) -> Result<Self, SplitGroup> {
        let upstream_of = |client| by_client.get(client).or(for_all.as_ref()).unwrap_or(client);
        let mut first: BTreeMap<&ShareGroup, &InstanceName> = BTreeMap::new();
        for (member, group) in groups.members() {
            let other = *first.entry(group).or_insert(member);
            if upstream_of(other) != upstream_of(member) {
                return Err(SplitGroup {
                    group: group.clone(),
                    members: [other.clone(), member.clone()],
                    upstream: [upstream_of(other).clone(), upstream_of(member).clone()],
                });
            }
        }
        let named = by_client.keys().chain(groups.by_instance.keys());
        let by_scope = named
            .map(|client| (groups.scope_of(client), upstream_of(client).clone()))
            .collect();
        Ok(Self { for_all, by_scope })
    }

    /// The instance name to send for calls of `scope`, which comes from [`ShareGroups::scope_of`].
    #[must_use]
    pub fn upstream_of<'a>(&'a self, scope: &'a Scope) -> &'a str {
        let named = self.by_scope.get(scope).or(self.for_all.as_ref());
        named.map_or(scope.as_str(), InstanceName::as_str)
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

    fn groups(members: &[(&str, &str)]) -> ShareGroups {
        let by_instance = members
            .iter()
            .map(|(member, group)| (name(member), ShareGroup((*group).to_owned())));
        ShareGroups {
            by_instance: by_instance.collect(),
        }
    }

    #[test]
    fn members_of_a_group_share_a_scope_and_nobody_else_has_it() {
        let groups = groups(&[("a", "team"), ("b", "team"), ("c", "other")]);
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
        let groups = groups(&[("a", "team"), ("b", "team")]);
        let by_client = BTreeMap::from([
            (name("a"), name("x")),
            (name("b"), name("x")),
            (name("d"), name("")),
        ]);
        for (for_all, others) in [(None, "e"), (Some(name("all")), "all")] {
            let upstream = UpstreamInstances::new(for_all, &by_client, &groups).unwrap();
            let sent = |client| upstream.upstream_of(&groups.scope_of(&name(client))).to_owned();
            assert_eq!(
                [sent("a"), sent("b"), sent("d"), sent("e")],
                ["x", "x", "", others]
            );
        }
    }
}
