//! Scenarios: one trouble, step by step, as data. What is expected is seen from outside: answers, bytes, Tier 2's log.
//!
//! A scenario is a TOML file in `scenarios/`; [`Scenario::parse`] reads it, [`run`] carries it out on a [`crate::site::Site`]. Beside what it
//! expects, the oracle judges each of its calls. A new one needs no Rust.

mod format;
mod run;

pub(crate) use format::output_files;
pub use format::{Scenario, ScenarioError};
pub use run::{Outcome, run};

/// Name and text of a file in `scenarios/`.
macro_rules! file {
    ($name:literal) => {
        ($name, include_str!(concat!("../scenarios/", $name, ".toml")))
    };
}

/// The scenarios that ship with this crate. A test looks that no file is left out.
const SHIPPED: &[(&str, &str)] = &[
    file!("01-a-herd-costs-one-read"),
    file!("02-first-bytes-come-early"),
    file!("03-a-write-is-not-acknowledged-without-tier-2"),
    file!("04-what-tier-2-lost-reaches-it-again"),
    file!("05-after-an-eviction-the-truth-is-told"),
    file!("06-a-not-found-ends-the-lease"),
    file!("07-a-newer-result-is-seen-within-the-lease"),
    file!("08-a-hit-without-its-output-is-not-found"),
    file!("09-wrong-bytes-are-never-ok-and-never-kept"),
    file!("10-a-flipped-bit-on-disk-is-never-served"),
    file!("11-a-failing-disk-never-fails-a-read"),
    file!("12-known-down-fails-at-once"),
    file!("13-success-within-a-second-of-tier-2s-return"),
    file!("14-local-hits-reach-tier-2"),
    file!("16-hits-of-a-batch-outlive-tier-2"),
    file!("18-a-client-that-leaves-costs-no-second-fetch"),
    file!("19-the-empty-blob-is-everywhere"),
    file!("faults-a-read-goes-on-where-it-was-cut"),
    file!("faults-a-starved-upload-harms-no-other"),
    file!("own-updates-are-read-back-at-once"),
    file!("when-down-bypass-lets-builds-go-on"),
    file!("when-down-fail-refuses-hits-too"),
];

/// All scenarios that ship with this crate, with contents that depend on `salt`, and that no two of them share.
///
/// # Errors
/// If one of them is none, which a test of this crate rules out.
pub fn salted(salt: &str) -> Result<Vec<Scenario>, ScenarioError> {
    let salted = |(name, text): &(&str, &str)| Scenario::salted(text, &format!("{salt}{name} "));
    SHIPPED.iter().map(salted).collect()
}

/// All scenarios that ship with this crate.
///
/// # Errors
/// If one of them is none, which a test of this crate rules out.
pub fn shipped() -> Result<Vec<Scenario>, ScenarioError> {
    salted("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_file_is_shipped_and_is_a_scenario_of_its_name() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let files: BTreeSet<String> = fs_err::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let shipped: BTreeSet<String> = SHIPPED.iter().map(|(name, _)| format!("{name}.toml")).collect();
        assert_eq!(files, shipped);
        for (name, text) in SHIPPED {
            let scenario = Scenario::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(scenario.name, *name);
        }
    }
}
