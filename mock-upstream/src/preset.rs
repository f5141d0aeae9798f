//! Characters: rules that belong together.

use std::fmt;
use std::str::FromStr;

use tonic::Code;

use crate::method;
use crate::rule::{Act, After, Match, Rule};

/// A way to be a bad server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Refuses connections, and resets those that are used.
    Down,
    /// Thinks for a tenth of a second before each call, and moves blobs at 256 KiB/s.
    Slow,
    /// Of each read a fifth has a byte flipped, a fifth is short, too long or another blob.
    Corrupt,
    /// A call in three breaks: busy, unavailable, or cut midway on each level there is.
    Flaky,
    /// Acknowledges and drops, and evicts what it was just asked about; a call in four each.
    Forgetful,
    /// Accepts, and never answers.
    Hung,
}

/// What [`Preset::Slow`] takes before each call.
const SLOW_START_MS: u64 = 100;
const SLOW_BYTES_PER_SECOND: u64 = 256 * 1024;

/// What [`Preset::Flaky`] asks clients to wait.
const FLAKY_RETRY_MS: u64 = 20;

/// Where [`Preset::Flaky`] cuts streams: small enough to be met, large enough that something has passed.
const FLAKY_CUT_BYTES: u64 = 64 * 1024;

impl Preset {
    pub const ALL: [Preset; 6] = [
        Preset::Down,
        Preset::Slow,
        Preset::Corrupt,
        Preset::Flaky,
        Preset::Forgetful,
        Preset::Hung,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Preset::Down => "down",
            Preset::Slow => "slow",
            Preset::Corrupt => "corrupt",
            Preset::Flaky => "flaky",
            Preset::Forgetful => "forgetful",
            Preset::Hung => "hung",
        }
    }

    /// Its rules. Those that act by chance draw from the seed, each for itself.
    pub fn rules(self, seed: u64) -> Vec<Rule> {
        let any = |act| Rule::new(Match::any(), act);
        let connect = |act| Rule::new(Match::method(method::CONNECT), act);
        let rules = match self {
            Preset::Down => vec![connect(Act::Refuse), any(Act::Reset)],
            Preset::Slow => vec![
                any(Act::Delay { ms: SLOW_START_MS }),
                any(Act::Drip {
                    bytes_per_second: SLOW_BYTES_PER_SECOND,
                }),
            ],
            Preset::Corrupt => vec![
                any(Act::FlipByte).chance(0.2, seed),
                any(Act::EndEarly).after(After::Bytes(1)).chance(0.07, seed),
                any(Act::ExtraBytes { count: 1 }).chance(0.07, seed),
                any(Act::OtherBlob).chance(0.07, seed),
            ],
            Preset::Flaky => vec![
                any(Act::status(Code::Unavailable)).chance(0.1, seed),
                any(Act::status_with_retry(Code::ResourceExhausted, FLAKY_RETRY_MS)).chance(0.1, seed),
                any(Act::ResetStream)
                    .after(After::Bytes(FLAKY_CUT_BYTES))
                    .chance(0.08, seed),
                any(Act::Reset)
                    .after(After::Bytes(FLAKY_CUT_BYTES))
                    .chance(0.04, seed),
                any(Act::status(Code::Internal))
                    .after(After::End)
                    .chance(0.05, seed),
            ],
            Preset::Forgetful => vec![
                any(Act::Drop).chance(0.25, seed),
                any(Act::Evict).after(After::End).chance(0.25, seed),
                any(Act::EvictOutputs).chance(0.25, seed),
            ],
            Preset::Hung => vec![connect(Act::Hang), any(Act::Hang)],
        };
        (0..)
            .zip(rules)
            .map(|(place, rule)| self.member(place, rule))
            .collect()
    }

    fn member(self, place: u64, mut rule: Rule) -> Rule {
        // Rules with one seed would hit the same calls.
        if let Some(chance) = &mut rule.chance {
            chance.seed = chance
                .seed
                .wrapping_mul(Preset::ALL.len() as u64 + 1)
                .wrapping_add(place);
        }
        let name = format!("{}-{}", self.name(), rule.name);
        rule.named(name)
    }
}

/// Not the name of a preset.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of down, slow, corrupt, flaky, forgetful, hung")]
pub struct UnknownPreset(String);

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(text: &str) -> Result<Preset, UnknownPreset> {
        let found = Preset::ALL.into_iter().find(|preset| preset.name() == text);
        found.ok_or_else(|| UnknownPreset(text.to_owned()))
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_has_a_name_that_leads_back_to_it_and_rules_of_that_name() {
        for preset in Preset::ALL {
            assert_eq!(preset.name().parse(), Ok(preset));
            let rules = preset.rules(7);
            assert!(!rules.is_empty());
            assert!(rules.iter().all(|rule| rule.name.starts_with(preset.name())));
        }
        assert!("calm".parse::<Preset>().is_err());
    }

    #[test]
    fn the_rules_of_a_preset_draw_each_for_themselves() {
        let seeds = |seed| {
            let rules = Preset::Flaky.rules(seed);
            let seeds = rules
                .iter()
                .filter_map(|rule| rule.chance)
                .map(|chance| chance.seed);
            seeds.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(seeds(7).len(), 5);
        assert!(seeds(7).is_disjoint(&seeds(8)));
    }
}
