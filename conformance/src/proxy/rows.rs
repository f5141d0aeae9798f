//! The rows of the profile: one for each promise, judged by the fault matrix, and one for each scenario.

use crate::catalogue::Level;
use crate::oracle::Promise;
use crate::scenario::{self, Scenario};

/// One row, with an id that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// `PXY-P4`, or `PXY-S-` and the name of a scenario.
    pub id: String,
    /// How strongly it is asked for; [`Level::Choice`] where the protocol does not.
    pub level: Level,
    /// What the proxy has to do, in a sentence.
    pub says: String,
    /// What it rests on.
    pub on: String,
    /// Why it cannot be judged from outside.
    pub none: Option<&'static str>,
    /// Of a promise: what the matrix showed.
    pub counts: Option<Counts>,
}

/// Combinations of the matrix that looked at a promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In which the fault took effect in the call under judgement, and a wrong answer would have been noticed.
    pub counted: usize,
    /// Of these, in which the promise was kept.
    pub held: usize,
}

/// A promise as a row: how strong, what it says, what that rests on and what of it is a choice.
struct Promised {
    level: Level,
    says: &'static str,
    on: &'static str,
    none: Option<&'static str>,
}

fn promised(promise: Promise) -> Promised {
    let judged = |level, says, on| Promised {
        level,
        says,
        on,
        none: None,
    };
    match promise {
        Promise::P1 => judged(
            Level::Derived,
            "A write is acknowledged only when Tier 2 has acknowledged it.",
            "GEN-17, PXY-33; that no queue of the proxy's own will do, and for how long an earlier word of Tier 2 stands for an acknowledgement, is a choice",
        ),
        Promise::P2 => judged(
            Level::Derived,
            "A blob is called present only on Tier 2's word.",
            "CAS-FMB-14, PXY-02, PXY-34; for how long that word may be passed on (the lease) is a choice",
        ),
        Promise::P3 => judged(
            Level::Should,
            "An action result that is returned is Tier 2's, and all blobs that it refers to are present.",
            "AC-GET-02, PXY-41, PXY-42; for how long a copy may be returned is a choice",
        ),
        Promise::P4 => judged(
            Level::Must,
            "Bytes that come with OK are the right ones.",
            "CAS-GEN-13, BS-READ-19, PXY-48, PXY-51",
        ),
        Promise::P5 => judged(
            Level::Derived,
            "A failure of Tier 2 is never told as a miss.",
            "ERR-06, CAS-FMB-09, PXY-01, PXY-05; that the code is UNAVAILABLE or Tier 2's own is a choice",
        ),
        Promise::P6 => judged(
            Level::Choice,
            "Capabilities are answered whatever Tier 2 does, and when a fault is over calls succeed again.",
            "CAP-25, PXY-22; how soon is a choice, and not judged in real time",
        ),
        Promise::P7 => judged(
            Level::Choice,
            "However many clients want a blob at once, Tier 2 sees one read of it, and one more for each fault.",
            "a choice; PXY-54 has the reasons",
        ),
        Promise::P8 => Promised {
            level: Level::Choice,
            says: "Memory, disk, queues and connections have limits with documented answers.",
            on: "a choice; PXY-70 has the reasons",
            none: Some("limits are the proxy's own, and none shows in a fault of Tier 2"),
        },
        Promise::P9 => Promised {
            level: Level::Choice,
            says: "A kill at any moment leaves no wrong byte and no half blob.",
            on: "PXY-73; how soon the next start serves is a choice",
            none: Some("it takes a restart, which only the proxy's owner can order"),
        },
        Promise::P10 => judged(
            Level::Derived,
            "Every call ends, whatever Tier 2 does; a single fault that can be mended is hidden from clients.",
            "GEN-08, ERR-22, PXY-68; the bound in time and the mending are choices, PXY-52 has the reasons",
        ),
    }
}

pub(super) fn of_promise(promise: Promise) -> Row {
    let promised = promised(promise);
    Row {
        id: format!("PXY-{promise}"),
        level: promised.level,
        says: promised.says.to_owned(),
        on: promised.on.to_owned(),
        none: promised.none,
        counts: None,
    }
}

/// A scenario is as strong as the first of the promises that it follows from.
pub(super) fn of_scenario(scenario: &Scenario) -> Row {
    let first = scenario.promises.first();
    let level = first.map_or(Level::Choice, |first| promised(*first).level);
    let promises: Vec<String> = scenario
        .promises
        .iter()
        .map(|promise| format!("PXY-{promise}"))
        .collect();
    let mut says = scenario.title.clone() + ".";
    if let Some(first) = says.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    Row {
        id: format!("PXY-S-{}", scenario.name),
        level,
        says,
        on: promises.join(", "),
        none: None,
        counts: None,
    }
}

/// All rows: scenarios in the order of their files, then promises.
pub fn rows() -> Vec<Row> {
    let scenarios = scenario::shipped().unwrap_or_default();
    let scenarios = scenarios.iter().map(of_scenario);
    scenarios
        .chain(Promise::ALL.into_iter().map(of_promise))
        .collect()
}

/// The row of an id.
pub fn find(id: &str) -> Option<Row> {
    rows().into_iter().find(|row| row.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;
    use std::collections::BTreeSet;

    #[test]
    fn rows_have_ids_of_their_own_that_no_requirement_has() {
        let rows = rows();
        let ids: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids.len(), rows.len());
        assert!(rows.len() > 30 && ids.iter().all(|id| catalogue::find(id).is_none()));
    }

    #[test]
    fn what_a_promise_rests_on_is_in_the_catalogue_or_is_said_to_be_a_choice() {
        for promise in Promise::ALL {
            let row = of_promise(promise);
            let (ids, _) = row.on.split_once(';').unwrap_or((&row.on, ""));
            for id in ids.split(", ").filter(|id| *id != "a choice") {
                assert!(catalogue::find(id).is_some(), "{}: {id}", row.id);
            }
            assert!(row.says.ends_with('.'), "{}", row.says);
        }
    }
}
