//! How many files and sockets this process may have open, and how many of them clients' connections may take.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections that clients may have at once. A few thousand build machines, each with a handful.
pub(crate) const CONNECTIONS_MAX: usize = 10_000;

/// The part of all descriptors that connections may take. The rest is for files being written and for Tier 2: a flood of
/// connections must not keep the node from either.
const CONNECTIONS_SHARE: u64 = 2;

/// Raises the limit of open files as far as the system allows without asking, and returns how many connections clients may
/// have within it.
pub(crate) fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "the limit of open files could not be raised");
        }
    }
    let files = getrlimit(Resource::Nofile).current;
    let connections = connections_within(files);
    if connections < CONNECTIONS_MAX {
        tracing::warn!(
            ?files,
            connections,
            "the limit of open files leaves room for few connections"
        );
    }
    connections
}

/// `None` is no limit.
fn connections_within(files: Option<u64>) -> usize {
    let share = files.map_or(u64::MAX, |files| files / CONNECTIONS_SHARE);
    usize::try_from(share)
        .unwrap_or(usize::MAX)
        .clamp(1, CONNECTIONS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_to_the_disk_and_to_tier_2() {
        for (files, expected) in [
            (Some(0), 1),
            (Some(1024), 512),
            (Some(1 << 20), CONNECTIONS_MAX),
            (None, CONNECTIONS_MAX),
        ] {
            assert_eq!(connections_within(files), expected, "{files:?}");
        }
    }
}
