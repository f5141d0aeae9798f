//! All checks, by the part of the protocol that they are about.

mod action_cache;
mod batch;
mod bytestream;
mod capabilities;
mod names;
mod presence;
mod tree;
mod upload;

use crate::check::Check;

/// Every check there is, each id once.
pub fn all() -> Vec<Check> {
    [
        capabilities::CHECKS,
        presence::CHECKS,
        batch::CHECKS,
        bytestream::CHECKS,
        upload::CHECKS,
        names::CHECKS,
        tree::CHECKS,
        action_cache::CHECKS,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_unique() {
        let checks = super::all();
        let ids: BTreeSet<&str> = checks.iter().map(|check| check.id).collect();
        assert_eq!(ids.len(), checks.len());
    }
}
